"""The tables of benchmarks/zoo.py, in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

Record = dict[str, Any]

_TITLES = ("model", "package", "nodes", "export s", "optimize s", "found", "fixed", "declined", "outputs",
           "difference from float64", "not finite, where the exact result is")  # fmt: skip
_BRIEF = (0, 1, 5, 6, 7, 9, 10)
_HEAD = """# Public models

Models and modules of packages on PyPI, from small random configurations, exported, optimized and run beside the
original.
Written by `python benchmarks/zoo.py --from benchmarks/zoo.json`; benchmarks/README.md says how to run it again.

- *found*: what the report of `stabilize.optimize` lists. Each code was confirmed by reading the package's source.
- *outputs*: compared with the original's on ordinary inputs, bit for bit.
- *difference from float64*: the largest, of the outputs before → after, relative to the largest element of the output.
- *not finite*: NaN and infinities in values and gradients on inputs that break the original, before → after, counted
  where the original in float64 gives a number that the type of the output can hold. ONNX: values alone.
- *export s*: torch.export, torch.onnx.export; or torch.compile with all that it does, where torch.export refuses."""


def detail(document: dict[str, Any]) -> str:
    """Every family, the totals, every model, and what there is to say of some."""
    records = document["models"]
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    tables = map("\n".join, (_families(records), _totals(records), _rows(records), _left(records)))
    return "\n\n".join((_HEAD, *tables, f"Versions: {versions}."))


def brief(document: dict[str, Any]) -> str:
    """The same of the models in which something was found."""
    records = document["models"]
    found = _rows([r for r in records if r.get("found")], _BRIEF)
    return "\n\n".join(map("\n".join, (_families(records), _totals(records), found, _left(records))))


# -- models ------------------------------------------------------------------------------------------------------------


def _rows(records: list[Record], columns: Sequence[int] = range(len(_TITLES))) -> list[str]:
    sides = ["---:" if i in (2, 3, 4) else "---" for i in columns]
    head = [f"| {' | '.join(_TITLES[i] for i in columns)} |", f"|{'|'.join(sides)}|"]
    return head + [f"| {' | '.join(_cells(r)[i] for i in columns)} |" for r in records]


def _cells(record: Record) -> list[str]:
    title = [_title(record), record["package"]]
    if "failed" in record:
        return [*title, *[""] * 3, f"failed: {_cell(record['failed'])}", *[""] * 5]
    return [
        *title,
        str(record["nodes"]),
        f"{record['export_seconds']:.1f}" if "export_seconds" in record else f"{record['compile_seconds']:.1f}",
        f"{record['optimize_seconds']:.1f}" if "optimize_seconds" in record else "",
        _codes(record["found"]),
        _codes(record["fixed"]),
        _codes(line.split()[0] for line in record["declined"]),
        "bit for bit" if record["identical"] else "rewritten" if record["fixed"] else "CHANGED",
        _change(record.get("error"), ".1e"),
        _change(record.get("hazard"), "d") if any(record.get("hazard", ())) else "",
    ]


def _title(record: Record) -> str:
    how = "ONNX" if record["onnx"] else "torch.compile" if "graphs" in record else ""
    return record["name"] + (f" ({how})" if how else "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _codes(codes: Iterable[str]) -> str:
    return ", ".join(code if n == 1 else f"{n} × {code}" for code, n in Counter(codes).items())


def _change(pair: list[float] | None, form: str) -> str:
    return "" if pair is None else f"{pair[0]:{form}} → {pair[1]:{form}}"


# -- families ----------------------------------------------------------------------------------------------------------


def _families(records: list[Record]) -> list[str]:
    lines = [
        "| family | models | in ONNX too | with defects | found | fixed | declined | nothing rewritten: bit for bit |",
        "|---|" + "---:|" * 7,
    ]
    families = list(dict.fromkeys(r["family"] for r in records))
    return lines + [_family(name, [r for r in records if r["family"] == name]) for name in families] + [
        _family("all", records)
    ]  # fmt: skip


def _family(name: str, records: list[Record]) -> str:
    done = [r for r in records if "found" in r]
    untouched = [r for r in done if not r["fixed"]]
    cells = [
        name,
        sum(not r["onnx"] for r in done),
        sum(r["onnx"] for r in done),
        len({r["name"] for r in done if r["found"]}),
        *(sum(len(r[key]) for r in done) for key in ("found", "fixed", "declined")),
        f"{sum(r['identical'] for r in untouched)} of {len(untouched)}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


# -- totals ------------------------------------------------------------------------------------------------------------


def _totals(records: list[Record]) -> list[str]:
    done = [r for r in records if "found" in r]
    torch, onnx = ([r for r in done if r["onnx"] is kind] for kind in (False, True))
    untouched = [r for r in done if not r["fixed"]]
    packages = len({r["package"] for r in done})
    found, fixed, declined = (sum(len(r[key]) for r in done) for key in ("found", "fixed", "declined"))
    same = sum(r["identical"] for r in untouched)
    lines = [
        f"- {len(torch)} models of {packages} packages in PyTorch, {len(onnx)} of them in ONNX as well: {found} "
        f"defects found, {fixed} fixed, {declined} declined, {found - fixed - declined} only told of.",
        f"- Nothing rewritten: {len(untouched)} runs, of which {same} give bit for bit what they gave.",
        *_hazards(done),
        *_certificates(done),
    ]
    reasons = Counter(_reason(r["refused"]) for r in done if "refused" in r)
    if reasons:
        parts = ", ".join(f"{n} for {reason}" for reason, n in reasons.items())
        lines.append(f"- torch.export refuses {reasons.total()} ({parts}): they are captured by torch.compile.")
    for key, said in (("unexpected", "Found, but not known to be there"), ("missing", "Known, but not found")):
        named = [f"{_title(r)} {', '.join(r[key])}" for r in done if r[key]]
        lines += [f"- {said}: {'; '.join(named)}."] if named else []
    failed = [f"- Failed: {_title(r)}: {r['failed']}." for r in records if "failed" in r]
    return [*lines, *(failed or ["- Failed: none."])]


def _hazards(done: list[Record]) -> list[str]:
    broken = [r for r in done if any(r.get("hazard", ()))]
    if not broken:
        return []
    (before, after), (unknown, still) = (
        map(sum, zip(*(r[key] for r in broken), strict=True)) for key in ("hazard", "undecided")
    )
    return [
        f"- Inputs that break the original: {len(broken)} runs, {before} elements of values and gradients NaN or "
        f"infinite where the exact result is a number of their type; afterwards {after}, in "
        f"{sum(r['hazard'][1] > 0 for r in broken)} of them. (Where float64 is not finite either: {unknown} → {still}.)"
    ]  # fmt: skip


def _certificates(done: list[Record]) -> list[str]:
    judged = [r for r in done if "accepted" in r]
    if not judged:
        return []
    bad = [f"{r['name']}: {r['harm'] or r['certificate']}" for r in judged if not r["accepted"]]
    line = f"- `stabilize.certify` of the rewritten PyTorch models: {len(judged) - len(bad)} of {len(judged)} accepted."
    return [line, *(f"  - {text}" for text in bad)]


def _reason(refused: str) -> str:
    known = {
        "the autograd function": "gradients of their own",
        "activation checkpointing": "activation checkpointing",
        "changes its attribute": "attributes that change at a call",
        "a fake tensor": "writing through `.data`",
    }
    return next((reason for part, reason in known.items() if part in refused), "branches or shapes that depend on data")


def _left(records: list[Record]) -> list[str]:
    """What was declined, with the reason, and the notes."""
    lines: list[str] = []
    for r in records:
        said = [r["note"]] if r.get("note") and not r["onnx"] else []
        said += [f"declined {line}." for line in dict.fromkeys(r.get("declined", ()))]
        if said:
            lines.append(f"- **{_title(r)}**: {' '.join(map(_cell, said))}")
    return lines

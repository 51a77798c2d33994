"""The measurements of `runtime_accuracy.py` as tables, and what the product's table has to say according to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

Record: TypeAlias = Mapping[str, Any]

#: Ulps beyond which an operator is not computed well, if what may be written instead is better. What is computed in
#: float32 and rounded to half precision is within 0.5 and a little.
LIMITS = {"float16": 1.0, "bfloat16": 1.0, "float32": 16.0, "float64": 16.0}
#: Ulps from which on the input is told.
_LARGE = 16.0
#: Name in the product's table → the settings that it speaks of.
RUNTIMES = {
    "onnxruntime": ("ONNX Runtime", "ONNX Runtime, no optimisation", "ONNX Runtime, opset 18"),
    "openvino": ("OpenVINO, f32",),
}
#: Settings that are left out where they agree with another.
LIKE = {
    "ONNX Runtime, no optimisation": "ONNX Runtime",
    "ONNX Runtime, opset 18": "ONNX Runtime",
    "OpenVINO": "OpenVINO, f32",
}
REFERENCE = "onnx.reference"
SHOWN = ("ONNX Runtime", "OpenVINO, f32", "onnx.reference")


def failures(record: Record) -> int:
    """Results that are no approximation of the truth at all."""
    return int(record.get("non_finite", 0) + record.get("missing", 0) + record.get("lost", 0))


def unstable(found: Record) -> dict[str, dict[str, set[str]]]:
    """Runtime → operator → the formats in which what may be written instead is better than the operator, which is not
    computed well. "portable": of all of them together, and of the reference implementation in formats that only it has.
    A runtime that does not compute in a format has the portable choice there.
    """
    by_key = {(r["op"], r["dtype"], r.get("composed", False), r["setting"]): r for r in found["results"]}
    formats = {(d, s) for op, d, c, s in by_key if op == "Mul" and not c and _has_format(by_key["Mul", d, False, s])}
    formats |= {(d, s) for s, other in LIKE.items() for d, present in formats if present == other}
    measured = {d for s in RUNTIMES["onnxruntime"] for d, other in formats if other == s}
    told: dict[tuple[str, str], set[str]] = {}
    for (op, dtype, composed, setting), native in by_key.items():
        instead = by_key.get((op, dtype, True, setting)) or by_key.get((op, dtype, True, LIKE.get(setting, "")))
        if composed or instead is None or (dtype, setting) not in formats or not _better(instead, native):
            continue
        names = {name for name, settings in RUNTIMES.items() if setting in settings}
        if names or (setting == REFERENCE and dtype not in measured):
            told.setdefault((op.partition(" ")[0], dtype), set()).update(names, {"portable"})
    table: dict[str, dict[str, set[str]]] = {name: {} for name in ("portable", *RUNTIMES)}
    for (op, dtype), names in sorted(told.items()):
        lacking = {name for name, settings in RUNTIMES.items() if not any((dtype, s) in formats for s in settings)}
        for name in names | lacking:
            table[name].setdefault(op, set()).add(dtype)
    return table


def _has_format(product: Record) -> bool:
    """Whether a runtime computes in a format, by how it multiplies: OpenVINO computes float64 in float32."""
    return "unsupported" not in product and float(product.get("worst", 0.0)) <= 1.0


def _better(instead: Record, native: Record) -> bool:
    """Whether it is so by more than chance: half as many results lost, or half the error where that is large."""
    if "unsupported" in instead or "unsupported" in native:
        return "unsupported" in native and "unsupported" not in instead
    if failures(native) >= 2 * max(failures(instead), 0.5):
        return True
    worst = float(native.get("worst", 0.0))
    return failures(instead) <= failures(native) and worst > max(
        LIMITS[native["dtype"]], 2 * float(instead.get("worst", 0.0))
    )


_HEAD = """# What runtimes compute

The largest error of the operators of ONNX, in units in the last place of the exact result, as runtimes compute them
from a model of one node. Written by `python benchmarks/runtime_accuracy.py --from benchmarks/runtime_accuracy.json`;
benchmarks/README.md says how it is measured, and how to measure it again.

- *composed*: what `stabilize` writes where it may not use the operator in the format; empty where it knows nothing
  else.
- In brackets: the input of the worst error, or for rows the family of inputs.
- *lost*: results that are 0 where the exact result is no subnormal number. *not finite*: NaN and infinities where it is
  a number of the format. *no NaN or inf*: numbers where it is NaN or infinite, often of NaN. *falls*: the largest step,
  in ulps, against the direction of a function. –: no kernel.
- Errors of sums, of logarithms of sums and of normalised rows are relative to their terms where these cancel, and those
  of softmax grow with the distance from the maximum: no algorithm does better.
- Results next to the least normal number are left out, but not in float16: many kernels flush them to 0."""


def markdown(found: Record) -> str:
    """One table for each format: an operator in a row, in each cell the worst error in ulps and what else is wrong."""
    versions = ", ".join(f"{package} {version}" for package, version in found["versions"].items())
    parts = [_HEAD, f"Measured: {versions}, on {found['machine']}."]
    parts += [_section(found, dtype) for dtype in found["points"]]
    return "\n\n".join([*parts, _variants(found)])


def _section(found: Record, dtype: str) -> str:
    records = [r for r in found["results"] if r["dtype"] == dtype]
    products = {r["setting"]: r for r in records if r["op"] == "Mul" and not r.get("composed")}
    narrow = [s for s in SHOWN if float(products.get(s, {}).get("worst", 0.0)) > 1.0]
    settings = [s for s in dict.fromkeys(r["setting"] for r in records) if s in SHOWN and s not in narrow]
    rows: dict[str, dict[tuple[str, bool], Record]] = {}
    for record in records:
        rows.setdefault(record["op"], {})[record["setting"], record.get("composed", False)] = record
    columns = [(s, c) for s in settings for c in (False, True)]
    head = " | ".join("composed" if c else s for s, c in columns)
    lines = [f"| {op} | " + " | ".join(_cell(row.get(c)) for c in columns) + " |" for op, row in rows.items()]
    told = [f"Left out: {s}, which computes {dtype} in a narrower format.\n" for s in narrow]
    title = f"## {dtype}, {found['points'][dtype]} numbers\n"
    return "\n".join([title, *told, f"| | {head} |", "|---" * (len(columns) + 1) + "|", *lines])


def _variants(found: Record) -> str:
    """What other settings of a runtime give, where that is not the same."""
    rows = [r for r in found["results"] if r["setting"] in LIKE and r["dtype"] != "float64"]
    cells = [(r["setting"], r["op"] + ", composed" * r.get("composed", False), r["dtype"], _cell(r)) for r in rows]
    title = "## Other settings, where they give something else\n"
    return "\n".join([title, "| | | | |", "|---|---|---|---|", *(f"| {' | '.join(c)} |" for c in cells)])


def _cell(record: Record | None) -> str:
    """The worst error, with the input where it is large; then counts of what is lost, not finite, not missing."""
    if record is None:
        return ""
    if "unsupported" in record:
        return "–"
    worst = float(record.get("worst", 0.0))
    text = f"{worst:.2g}" if worst < 100 else f"{worst:.1e}"
    if worst > _LARGE and record.get("at"):
        text += f" ({record['at']})"
    marks = {"lost": "lost", "non_finite": "not finite", "missing": "no NaN or inf"}
    text += "".join(f", {record[k]} {told} ({record[k + '_at']})" for k, told in marks.items() if record.get(k))
    if record.get("falls", 0) > _LARGE:
        text += f", falls by {record['falls']:.1e} ({record['falls_at']})"
    return text

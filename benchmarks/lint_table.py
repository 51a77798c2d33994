"""The tables of `lint_corpus.py`, in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lint_corpus import Record

PUBLISHED = """\
Published yardsticks, on the GRIST set of 79 graphs (TensorFlow, float32): RANUM 79 of 79, SA-Fuzzer 79 of 79, DEBAR
48 to 49. None of them proposes a rewrite that keeps the meaning, handles float16 or bfloat16, or
runs on torch.export."""

_HOSTS = ("PyTorch", "ONNX, exported", "ONNX, written")


def brief(records: Sequence[Record]) -> str:
    """Recall by family, proofs, false alarms by level."""
    defective = [r for r in records if not r.healthy]
    sound = [r for r in records if r.healthy]
    parts = [*_defects(defective)] if defective else []
    parts += [*_healthy(sound)] if sound else []
    return "\n".join([*parts, "", PUBLISHED])


def _defects(records: Sequence[Record]) -> Iterator[str]:
    yield "| family | found in PyTorch | exported | written in ONNX | overflows: proven errors | others: proven |"
    yield "|---|---:|---:|---:|---:|---:|"
    for family in dict.fromkeys(r.family for r in records):
        yield _row(family, [r for r in records if r.family == family])
    yield _row("all", records)
    errors = [t for r in records for t in r.findings if t.severity == "error"]
    elsewhere = [t for r in records for t in r.findings if not t.hit]
    yield ""
    yield (
        f"{len(errors)} errors with a witness, {sum(bool(t.replayed) for t in errors)} of them seen to break when run "
        f"again: {sum(t.witness == 'model' for t in errors)} by inputs of the whole model, "
        f"{sum(t.witness == 'expression' for t in errors)} by values inside it."
    )
    yield f"Findings beside the defects: {_levels(elsewhere)}."
    yield from _named("Missed", records, lambda r: not r.found)
    yield from _named("Overflows without proof", records, lambda r: r.found and r.overflows and not r.proven)
    yield from _named(
        "Errors whose witness breaks nothing",
        records,
        lambda r: any(t.severity == "error" and not t.replayed for t in r.findings),
    )


def _row(family: str, records: Sequence[Record]) -> str:
    cells = [_share(r.found for r in records if r.host == host) for host in _HOSTS]
    cells.append(_share(r.proven for r in records if r.overflows))
    cells.append(_share(r.proven for r in records if not r.overflows))
    return f"| {family} | {' | '.join(cells)} |"


def _share(these: Iterable[bool]) -> str:
    every = list(these)
    return f"{sum(every)}/{len(every)}" if every else ""


def _healthy(records: Sequence[Record]) -> Iterator[str]:
    yield ""
    yield "| healthy graphs | | with errors | with warnings | with infos | silent |"
    yield "|---|---:|---:|---:|---:|---:|"
    for group in (*dict.fromkeys(r.family for r in records), "all"):
        mine = [r for r in records if group in (r.family, "all")]
        counts = [sum(any(t.severity == s for t in r.findings) for r in mine) for s in ("error", "warning", "info")]
        silent = sum(not r.findings and r.failed is None for r in mine)
        yield f"| {group} | {len(mine)} | {' | '.join(map(str, counts))} | {silent} |"
    yield ""
    yield f"False alarms: {_levels([t for r in records for t in r.findings])} in {len(records)} graphs."
    yield from _named("With errors", records, lambda r: any(t.severity == "error" for t in r.findings))
    yield from _named("With warnings", records, lambda r: any(t.severity == "warning" for t in r.findings))
    yield from _named("Not read", records, lambda r: r.failed is not None)


def _levels(told: Sequence[object]) -> str:
    severities = [getattr(t, "severity", "") for t in told]
    return ", ".join(f"{severities.count(s)} {s}s" for s in ("error", "warning", "info"))


def _named(title: str, records: Sequence[Record], which: Callable[[Record], bool]) -> Iterator[str]:
    names = [f"{r.name} ({r.host})" if r.host else r.name for r in records if which(r)]
    if names:
        yield f"{title} ({len(names)}): {', '.join(names)}."

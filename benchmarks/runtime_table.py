"""The measurements of `runtime_accuracy.py` as tables, and what the product's table has to say according to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

Record: TypeAlias = Mapping[str, Any]

#: Ulps beyond which an operator is not computed well, if what may be written instead is better.
LIMIT = 16.0
#: Name in the product's table → the settings that it speaks of.
RUNTIMES = {"onnxruntime": ("ONNX Runtime", "ONNX Runtime, no optimisation"), "openvino": ("OpenVINO, f32",)}
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
    measured = {d for s in RUNTIMES["onnxruntime"] for d, other in formats if other == s}
    told: dict[tuple[str, str], set[str]] = {}
    for (op, dtype, composed, setting), native in by_key.items():
        instead = by_key.get((op, dtype, True, setting))
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
    """Whether it is so by more than chance: half as many results that are lost, or half the error where that is large."""
    if "unsupported" in instead or "unsupported" in native:
        return "unsupported" in native and "unsupported" not in instead
    if failures(native) >= 2 * max(failures(instead), 0.5):
        return True
    worst = float(native.get("worst", 0.0))
    return failures(instead) <= failures(native) and worst > max(LIMIT, 2 * float(instead.get("worst", 0.0)))


def markdown(found: Record) -> str:
    """One table for each format: an operator in a row, in each cell the worst error in ulps and what else is wrong."""
    versions = ", ".join(f"{package} {version}" for package, version in found["versions"].items())
    parts = [f"{versions}, on {found['machine']}."]
    for dtype in found["points"]:
        records = [r for r in found["results"] if r["dtype"] == dtype]
        settings = [s for s in _settings(records) if s in SHOWN]
        rows: dict[str, dict[tuple[str, bool], Record]] = {}
        for record in records:
            rows.setdefault(record["op"], {})[record["setting"], record.get("composed", False)] = record
        columns = [(s, c) for s in settings for c in (False, True)]
        head = " | ".join(f"{s}{', composed' if c else ''}" for s, c in columns)
        lines = [f"| {op} | " + " | ".join(_cell(row.get(c)) for c in columns) + " |" for op, row in rows.items()]
        parts.append("\n".join([f"### {dtype}\n", f"| | {head} |", "|---" * (len(columns) + 1) + "|", *lines]))
    return "\n\n".join(parts)


def _settings(records: Iterable[Record]) -> list[str]:
    return list(dict.fromkeys(r["setting"] for r in records))


def _cell(record: Record | None) -> str:
    """The worst error, the input in brackets where it is large; then counts of what is lost, not finite, not missing."""
    if record is None:
        return ""
    if "unsupported" in record:
        return "–"
    worst = float(record.get("worst", 0.0))
    text = f"{worst:.2g}" if worst < 100 else f"{worst:.1e}"
    if worst > LIMIT and record.get("at"):
        text += f" ({record['at']})"
    marks = {"lost": "lost", "non_finite": "not finite", "missing": "no NaN or inf"}
    text += "".join(f", {record[k]} {told} ({record[k + '_at']})" for k, told in marks.items() if record.get(k))
    if record.get("falls", 0) > LIMIT:
        text += f", falls by {record['falls']:.1e} ({record['falls_at']})"
    return text

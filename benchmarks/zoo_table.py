"""The tables of benchmarks/zoo.py, in Markdown."""

from __future__ import annotations

from collections import Counter
from typing import Any

Record = dict[str, Any]

_TITLES = ("model", "nodes", "export s", "optimize / export", "found", "fixed", "declined", "identical",
           "difference from float64", "not finite")  # fmt: skip


def detail(document: dict[str, Any]) -> str:
    """Every model, then the totals."""
    return "\n".join([*_rows(document["models"]), "", *_totals(document)])


def brief(document: dict[str, Any]) -> str:
    """The totals, and the models in which something was found."""
    return "\n".join([*_totals(document), "", *_rows([r for r in document["models"] if r.get("found")])])


def _rows(records: list[Record]) -> list[str]:
    head = [f"| {' | '.join(_TITLES)} |", "|---|" + "---:|" * 3 + "---|" * 6]
    return head + [f"| {' | '.join(_cells(r))} |" for r in records]


def _cells(record: Record) -> list[str]:
    name = record["name"] + (" (ONNX)" if record["onnx"] else "")
    for how in ("failed", "refused"):
        if how in record:
            return [name, *[""] * 3, f"{how}: {record[how]}", *[""] * 5]
    return [
        name,
        str(record["nodes"]),
        f"{record['export_seconds']:.1f}",
        f"{record['optimize_seconds'] / max(record['export_seconds'], 1e-9):.2f}",
        _codes(record["found"]),
        _codes(record["fixed"]),
        str(len(record["declined"]) or ""),
        "yes" if record["identical"] else "",
        _change(record.get("error"), ".1e"),
        _change(record.get("hazard"), "d"),
    ]


def _codes(codes: list[str]) -> str:
    return ", ".join(code if n == 1 else f"{n} × {code}" for code, n in Counter(codes).items())


def _change(pair: list[float] | None, form: str) -> str:
    return "" if pair is None else f"{pair[0]:{form}} → {pair[1]:{form}}"


def _totals(document: dict[str, Any]) -> list[str]:
    records = document["models"]
    measured = [r for r in records if "found" in r]
    torch, onnx = ([r for r in measured if r["onnx"] is kind] for kind in (False, True))
    untouched = [r for r in measured if not r["fixed"]]
    packages = {r["package"] for r in measured}
    lines = [
        f"{len(torch)} models of {len(packages)} packages in PyTorch, {len(onnx)} of them in ONNX as well: "
        f"{sum(len(r['found']) for r in measured)} defects found, {sum(len(r['fixed']) for r in measured)} fixed, "
        f"{sum(len(r['declined']) for r in measured)} declined.",
        f"Nothing rewritten: {len(untouched)}, of which {sum(r['identical'] for r in untouched)} give bit for bit what "
        "they gave.",
    ]
    hazards = [r["hazard"] for r in measured if r.get("hazard")]
    if hazards:
        lines.append(
            f"Inputs that break the original: {len(hazards)} models, {sum(before for before, _ in hazards)} elements "
            f"of values and gradients not finite; afterwards {sum(after for _, after in hazards)}."
        )
    refused = Counter("custom gradients" if "autograd function" in r["refused"] else "shapes that depend on data"
                      for r in records if "refused" in r)  # fmt: skip
    lines += [f"Refused, as expected: {n} ({reason})." for reason, n in refused.items()]
    lines += [f"Failed: {r['name']}: {r['failed']}." for r in records if "failed" in r]
    return lines

"""How often each rule found something."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from stabilize.output import json
from stabilize.output.text import aligned
from stabilize.records import SCHEMA_VERSION, SEVERITIES, Finding, Severity


def text(model: str, findings: Sequence[Finding]) -> str:
    """A line for each rule and severity: count, code, severity, name; the most frequent first."""
    rows = _counts(findings)
    width = len(str(rows[0][0])) if rows else 0
    return (
        aligned([(f"{count:>{width}}", code, severity, name) for count, code, severity, name in rows]) if rows else ""
    )


def json_text(model: str, findings: Sequence[Finding]) -> str:
    """The same for programs."""
    keys = ("count", "code", "severity", "name")
    return json.written(
        {
            "schema_version": SCHEMA_VERSION,
            "model": model,
            "statistics": [dict(zip(keys, row, strict=True)) for row in _counts(findings)],
        }
    )


def _counts(findings: Sequence[Finding]) -> list[tuple[int, str, Severity, str]]:
    found: list[tuple[str, Severity, str]] = [(f.code, f.severity, f.name) for f in findings]
    counts = Counter(found)
    rows: list[tuple[int, str, Severity, str]] = [(count, *key) for key, count in counts.items()]
    return sorted(rows, key=lambda row: (-row[0], row[1], SEVERITIES.index(row[2])))

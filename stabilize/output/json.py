"""Findings as JSON, for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence

from stabilize.records import SCHEMA_VERSION, Finding, Json


def text(model: str, findings: Sequence[Finding]) -> str:
    """`{"schema_version": 1, "model": ..., "findings": [...]}`; infinities and NaN are strings."""
    return written({"schema_version": SCHEMA_VERSION, "model": model, "findings": [f.to_dict() for f in findings]})


def written(value: Json) -> str:
    """Strict JSON, ended by a line break."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

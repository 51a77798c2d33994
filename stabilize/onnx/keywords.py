"""What every step takes: the keywords of `stabilize.optimize` that do not say what comes back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypedDict

from stabilize.request import checked, checked_runtime


class Keywords(TypedDict, total=False):
    """As for `stabilize.optimize`, with the same defaults."""

    form: str
    allow: str
    ranges: Mapping[str, tuple[float, float]] | None
    select: str | Collection[str] | None
    ignore: str | Collection[str] | None
    runtime: str
    allow_fast: str | Collection[str]
    certify: bool


def check(keywords: Keywords) -> None:
    """UsageError where a step is made, not where a pipeline comes to it."""
    checked(
        keywords.get("form", "softmax"),
        keywords.get("allow", "exact"),
        keywords.get("ranges"),
        keywords.get("select"),
        keywords.get("ignore"),
        keywords.get("certify", True),
    )
    checked_runtime(keywords.get("runtime", "portable"), keywords.get("allow_fast", ()))

"""Shared: what the rules make of a graph given as text."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stabilize.passes.rule import Options
from tests.passes.graphs import Outcome


@pytest.fixture
def rewrite() -> Callable[..., Outcome]:
    """The outcome of a graph; `ranges` bounds its inputs, other keywords are `Options`."""

    def run(body: str, ranges: dict[str, tuple[float, float]] | None = None, **options: str) -> Outcome:
        return Outcome(body, Options(**options), ranges)

    return run

"""Shared: what the rules make of a graph given as text."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stabilize.graph.text import parse, show
from stabilize.graph.value import Value
from stabilize.passes.propose import context, proposals
from stabilize.passes.rule import Options, Proposal

INPUTS = (
    "x: float32[4, 5], z: float32[4, 5], w: float32[4, 5], y: int64[4], a: float32[5], b: float32[5], "
    "c: float32[5], h: float16[4, 5], q: float32[2, 3, 4], k: float32[2, 6, 4], v: float32[2, 6, 7], "
    "s: float32[5, 5], n: float32[m, 5], j: int64[2, 3]"
)


class Outcome:
    """Rules that spoke, and the returned values after their first candidates were taken."""

    def __init__(self, body: str, options: Options) -> None:
        lines = body.strip().splitlines()
        text = f"def graph({INPUTS}):\n" + "\n".join("    " + line.strip() for line in lines)
        self.view = parse(text)
        self.codes: list[str] = []
        self.replaced = proposals(self.view, context(self.view, options), self._take)

    def _take(self, proposal: Proposal) -> Value | None:
        self.codes.append(proposal.rule.code)
        return proposal.candidates[0] if proposal.candidates else None

    def after(self) -> str:
        """The text of what replaces the one sink of the graph."""
        assert len(self.replaced) == 1, [show([old]) for old in self.replaced]
        return body_of(next(iter(self.replaced.values())))


def body_of(value: Value) -> str:
    """The lines of the text form, without the signature."""
    return "\n".join(line.strip() for line in show([value]).splitlines()[1:])


@pytest.fixture
def rewrite() -> Callable[..., Outcome]:
    def run(body: str, **options: str) -> Outcome:
        return Outcome(body, Options(**options))

    return run

"""What is known of the numbers behind a leaf: weights, buffers, initializers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from stabilize.graph.value import Value


class Numbers(Protocol):
    """The numbers of one tensor."""

    def bounds(self) -> tuple[float, float]:
        """The least and the largest."""
        ...

    def combined(self, lo: float, hi: float, axis: int) -> tuple[float, float]:
        """Bounds of Σ w·x along `axis`, channel by channel, for x between finite `lo` and `hi`."""
        ...

    def longest(self, axis: int) -> float:
        """The largest ‖w‖₂ along `axis`."""
        ...


#: The numbers behind a leaf, None where they are not known or may change.
Known: TypeAlias = Callable[[Value], Numbers | None]


def unknown(_: Value) -> Numbers | None:
    """Nothing is known: what training changes."""
    return None

"""Fewer narrowed nodes, until the model is accurate enough."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

#: Trials at most: each converts, loads and runs the model.
_MOST_TRIALS: Final = 40
#: Parts that the nodes are taken in, at last.
_FINEST: Final = 32


def widened(nodes: Sequence[int], accepted: Callable[[Collection[int]], bool]) -> tuple[set[int], int]:
    """Nodes of `nodes`, in their order, that must stay wide for the model to be `accepted`, and the trials that took.

    With all of them wide it is. They are given back part by part, halves first, as long as it stays so: delta debugging
    (Zeller & Hildebrandt 2002) with a bound on the work.
    """
    wide = set(nodes)
    trials = 0
    parts = 2
    while parts <= min(_FINEST, len(nodes)) and trials < _MOST_TRIALS:
        size = -(-len(nodes) // parts)
        for at in range(0, len(nodes), size):
            part = set(nodes[at : at + size]) & wide
            if not part or trials >= _MOST_TRIALS:
                continue
            trials += 1
            if accepted(wide - part):
                wide -= part
        parts *= 2
    return wide, trials

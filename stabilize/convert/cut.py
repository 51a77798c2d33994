"""The cheapest way to part nodes in two: a minimum cut.

Some nodes are fixed on one side; staying on the far side costs each of the others its gain; a value that is computed on
one side and read on the other costs one cast, however many read it. Source: Ford & Fulkerson 1956; one cost for a value
with many readers: Lawler 1973 (a node for the value, with edges of no limit to or from its readers).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any, Final

#: The two ends.
_HALF: Final = "half"
_FLOAT: Final = "float"


def cheapest(
    gains: Mapping[Hashable, int],
    fixed_half: Collection[Hashable],
    fixed_float: Collection[Hashable],
    values: Sequence[tuple[Hashable, Sequence[Hashable], int]],
) -> set[Hashable]:
    """What is best computed in the narrower format.

    gains: what each node saves there. fixed_half, fixed_float: what is decided; float wins. values: what computes a
    value, what reads it, and the cost of a cast of it.
    """
    import networkx

    network: Any = networkx.DiGraph()
    network.add_nodes_from((_HALF, _FLOAT))
    for node, gain in gains.items():
        if gain:
            network.add_edge(_HALF, node, capacity=gain)
    for node in fixed_float:
        network.add_edge(node, _FLOAT)
    for node in fixed_half:
        if node not in fixed_float:
            network.add_edge(_HALF, node)
    for i, (producer, readers, cost) in enumerate(values):
        if not readers:
            continue
        widened, narrowed = ("widened", i), ("narrowed", i)
        network.add_edge(producer, widened, capacity=cost)
        network.add_edge(narrowed, producer, capacity=cost)
        for reader in readers:
            network.add_edge(widened, reader)
            network.add_edge(reader, narrowed)
    solver: Any = networkx.algorithms.flow.boykov_kolmogorov
    _, (half, _) = networkx.minimum_cut(network, _HALF, _FLOAT, flow_func=solver)
    return set(half) - {_HALF}

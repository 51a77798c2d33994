"""The cheapest way to part nodes in two: a minimum cut.

Some nodes are fixed on one side; staying on the far side costs each of the others its gain; a value that is computed on
one side and read on the other costs one cast, however many read it. Source: Ford & Fulkerson 1956; one cost for a value
with many readers: Lawler 1973 (a node for the value, with edges of no limit to or from its readers).

Fixed nodes part a model into pieces that do not touch each other; each is solved by itself, since the time that a flow
takes grows faster than its graph.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, TypeAlias, final

Node: TypeAlias = Hashable

#: The two ends.
_HALF: Final = "half"
_FLOAT: Final = "float"


@final
@dataclass(frozen=True, slots=True)
class Wire:
    """A value: what computes it, what reads it, what a cast of it costs."""

    producer: Node
    readers: Sequence[Node]
    cost: int


def cheapest(
    gains: Mapping[Node, int], fixed_half: Collection[Node], fixed_float: Collection[Node], wires: Sequence[Wire]
) -> set[Node]:
    """The nodes that are best computed in the narrower format.

    gains: what each node saves there. fixed_half, fixed_float: what is decided; float wins.
    """
    ends: dict[Node, str] = dict.fromkeys(fixed_half, _HALF) | dict.fromkeys(fixed_float, _FLOAT)
    half = {node for node, end in ends.items() if end == _HALF}
    for piece in _pieces({*gains, *(n for w in wires for n in (w.producer, *w.readers))} - ends.keys(), wires):
        half |= _side(piece, gains, ends)
    return half


def _pieces(free: Iterable[Node], wires: Sequence[Wire]) -> list[tuple[set[Node], list[Wire]]]:
    """Free nodes that wires connect, and all wires that touch them."""
    parent: dict[Node, Node] = {node: node for node in free}

    def root(node: Node) -> Node:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    for wire in wires:
        touched = [n for n in (wire.producer, *wire.readers) if n in parent]
        for other in touched[1:]:
            parent[root(other)] = root(touched[0])
    pieces: dict[Node, tuple[set[Node], list[Wire]]] = {}
    for node in parent:
        pieces.setdefault(root(node), (set(), []))[0].add(node)
    for wire in wires:
        touched = [n for n in (wire.producer, *wire.readers) if n in parent]
        if touched:
            pieces[root(touched[0])][1].append(wire)
    return list(pieces.values())


def _side(piece: tuple[set[Node], list[Wire]], gains: Mapping[Node, int], ends: Mapping[Node, str]) -> set[Node]:
    """The nodes of one piece that a minimum cut leaves with the narrower format."""
    networkx: Any = import_module("networkx")
    nodes, wires = piece
    if not any(ends.get(n) == _FLOAT for w in wires for n in (w.producer, *w.readers)):
        return nodes  # nothing wide touches it
    network = networkx.DiGraph()
    network.add_nodes_from((_HALF, _FLOAT))
    for node in nodes:
        if gains.get(node):
            network.add_edge(_HALF, node, capacity=gains[node])
    for i, wire in enumerate(wires):
        producer = ends.get(wire.producer, wire.producer)
        readers = {ends.get(reader, reader) for reader in wire.readers}
        widened, narrowed = ("widened", i), ("narrowed", i)
        if producer != _FLOAT:
            network.add_edge(producer, widened, capacity=wire.cost)
        if producer != _HALF:
            network.add_edge(narrowed, producer, capacity=wire.cost)
        for reader in readers:
            if reader != _HALF:
                network.add_edge(widened, reader)
            if reader != _FLOAT:
                network.add_edge(reader, narrowed)
    solver = networkx.algorithms.flow.boykov_kolmogorov
    _, (half, _) = networkx.minimum_cut(network, _HALF, _FLOAT, flow_func=solver)
    return nodes & set(half)

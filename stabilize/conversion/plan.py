"""What is narrowed: nodes, and the weights that only those read."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Final, final

from stabilize.conversion.calibrate import UNSEEN
from stabilize.conversion.cut import Wire, cheapest
from stabilize.conversion.graph import Graph
from stabilize.conversion.kinds import PRODUCTS
from stabilize.conversion.ports import Ports
from stabilize.conversion.reasons import Facts

#: In bytes moved: a cast of n numbers reads and writes 6n, and is a node that must be started.
_CAST_EACH: Final = 6
_CAST_START: Final = 4096
#: What a number of an operand or a result costs less in a format of half the width, and what each weight does: it is
#: stored and loaded, too.
_SAVED: Final = 2
_SAVED_WEIGHT: Final = 16
#: A node in the format that is asked for is worth something by itself.
_LEAST_GAIN: Final = 1

#: Stands for whoever calls the model.
_CALLER: Final = "caller"


@final
@dataclass(frozen=True)
class Plan:
    """nodes: index → where the node is narrowed. weights: those stored in the narrower format. inputs, outputs: of the
    model, those that become narrower."""

    graph: Graph
    nodes: Mapping[int, Ports]
    weights: frozenset[str]
    inputs: frozenset[str]
    outputs: frozenset[str]

    @property
    def is_empty(self) -> bool:
        return not self.nodes


def planned(facts: Facts, kept: Collection[int], kept_io: Collection[str]) -> Plan:
    """Everything but the nodes `kept`, where that saves more than the casts cost. kept_io: names of inputs and outputs
    of the model that stay what they are."""
    graph, ports = facts.graph, facts.ports
    fixed_float: list[Hashable] = [i for i in facts.floats if i in kept or i not in ports]
    gains: dict[Hashable, int] = {i: _gain(facts, i) for i in ports}
    heavy: list[Hashable] = [i for i in ports if graph.nodes[i].op_type in PRODUCTS]
    wires: list[Wire] = []
    free_io = _free_io(facts, kept_io)
    for name, readers in _values(facts, kept):
        count = facts.seen.get(name, UNSEEN).count
        cost = _CAST_START + _CAST_EACH * count
        producer: Hashable = graph.producer.get(name, ("input", name))
        if name in graph.settable:
            (heavy if name in free_io else fixed_float).append(producer)
        if name in _output_names(graph):
            reader = ("output", name)
            readers = [*readers, reader]
            (heavy if name in free_io else fixed_float).append(reader)
        wires.append(Wire(producer, readers, cost))
    for name, readers in _weight_readers(facts, kept):
        weight = ("weight", name)
        gains[weight] = _SAVED_WEIGHT * _size(graph, name)
        wires.append(Wire(weight, readers, _CAST_START + _CAST_EACH * _size(graph, name)))
    half = cheapest(gains, heavy, fixed_float, wires)
    nodes = {i: p for i, p in ports.items() if i in half and i not in kept}
    return Plan(
        graph,
        nodes,
        frozenset(n for n, readers in _weight_readers(facts, kept) if all(r in nodes for r in readers)),
        frozenset(n for n in graph.inputs if n in free_io),
        frozenset(n for n in _output_names(graph) if n in free_io),
    )


def _output_names(graph: Graph) -> set[str]:
    return {o.name for o in graph.proto.graph.output if graph.is_float(o.name)}


def _free_io(facts: Facts, kept_io: Collection[str]) -> set[str]:
    """Inputs and outputs of the model that become narrower: those whose numbers the format holds."""
    graph = facts.graph
    names = {*(i for i in graph.inputs if graph.is_float(i)), *_output_names(graph)} - set(kept_io)
    return {n for n in names if facts.largest(n) < facts.target.format.overflow}


def _gain(facts: Facts, index: int) -> int:
    names = (*facts.inputs(index), *(facts.graph.nodes[index].output[i] for i in facts.ports[index].outputs))
    return _LEAST_GAIN + _SAVED * sum(facts.seen.get(n, UNSEEN).count for n in names)


def _values(facts: Facts, kept: Collection[int]) -> list[tuple[str, list[Hashable]]]:
    """Computed float32 values and what reads each as such."""
    graph = facts.graph
    names = [*graph.settable, *(o for o in graph.producer if graph.is_float(o))]
    return [(n, [r for r in graph.readers.get(n, ()) if _reads(facts, r, n)]) for n in names]


def _reads(facts: Facts, index: int, name: str) -> bool:
    """Whether a node would read another format of `name` if it were narrowed, or insists on float32."""
    ports = facts.ports.get(index)
    node = facts.graph.nodes[index]
    return ports is None or any(node.input[i] == name for i in ports.inputs)


def _weight_readers(facts: Facts, kept: Collection[int]) -> list[tuple[str, list[Hashable]]]:
    """Weights that some node can read in the narrower format, and all that read them."""
    graph = facts.graph
    outputs = {o.name for o in graph.proto.graph.output}
    found: list[tuple[str, list[Hashable]]] = []
    for name in graph.weights:
        readers = graph.readers.get(name, [])
        if name in outputs or not readers:
            continue
        if all(r in facts.ports and r not in kept and _reads(facts, r, name) for r in readers):
            found.append((name, list(readers)))
    return found


def _size(graph: Graph, name: str) -> int:
    count = 1
    for size in graph.weights[name].dims:
        count *= size
    return count

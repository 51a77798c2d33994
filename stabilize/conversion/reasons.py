"""Which nodes must stay float32: by their operator, their constants, what their values were seen or proved to be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, final

import onnx

from stabilize.conversion.calibrate import UNSEEN, Seen
from stabilize.conversion.graph import FLOAT, Graph
from stabilize.conversion.kinds import CARRIERS, KINDS, PERIODIC, SUMS
from stabilize.conversion.ports import Ports, attribute_of, cast_to, ports_of, touches_floats
from stabilize.conversion.target import Target
from stabilize.conversion.weights import misfit, numbers

Bounds = tuple[float, float]

#: What a value was seen to reach on the given inputs may grow by this much on others before it leaves the format.
_HEADROOM: Final = 4.0
#: A divisor or a root this near to the subnormal numbers loses its digits on other inputs.
_MARGIN: Final = 16.0
#: Error, relative to one period or one unit, above which a rounded operand is another operand.
_SHARE: Final = 2.0**-6
#: Products of the count of a sum and the unit roundoff above which the sum is kept: 64 numbers of float16.
_LONGEST: Final = 2.0**-5
#: Operands of which every number counts: divisors, variances.
_EACH: Final = frozenset((("Div", 1), ("Reciprocal", 0), ("Sqrt", 0), ("BatchNormalization", 4)))


@final
@dataclass(frozen=True, slots=True)
class Reason:
    """by: "operator", "constants" or "values"."""

    by: str
    text: str


@final
@dataclass(frozen=True)
class Facts:
    """What is known of a model before anything is decided. bounds: name → proved bounds of a value."""

    graph: Graph
    target: Target
    seen: Mapping[str, Seen]
    bounds: Mapping[str, Bounds] = field(default_factory=dict[str, Bounds])

    @cached_property
    def ports(self) -> dict[int, Ports]:
        """Where nodes can be narrowed."""
        return {i: p for i in self.floats if isinstance(p := ports_of(self.graph, i, self.target), Ports)}

    @cached_property
    def floats(self) -> list[int]:
        """The nodes that compute on float32; constants are no nodes."""
        constants = self.graph.weights
        return [
            i
            for i, node in enumerate(self.graph.nodes)
            if touches_floats(self.graph, i) and not any(o in constants for o in node.output)
        ]

    def largest(self, name: str) -> float:
        """The magnitude that a value is to be held to."""
        low, high = self.bounds.get(name, (-float("inf"), float("inf")))
        seen = self.seen.get(name, UNSEEN)
        return min(max(seen.reached, _HEADROOM * seen.most), max(abs(low), abs(high)))

    def reached(self, name: str) -> float:
        """The largest magnitude that was seen."""
        return self.seen.get(name, UNSEEN).reached

    def inputs(self, index: int) -> Iterator[str]:
        """The operands of a node that are computed float32 and could be narrowed."""
        node = self.graph.nodes[index]
        for i in self.ports[index].inputs:
            if node.input[i] not in self.graph.weights:
                yield node.input[i]


def reasons(facts: Facts) -> dict[int, Reason]:
    """Node → why it must stay float32, for those that must."""
    found: dict[int, Reason] = {}
    misfits = _Misfits(facts)
    for i in facts.floats:
        ports = ports_of(facts.graph, i, facts.target) if i not in facts.ports else facts.ports[i]
        if isinstance(ports, str):
            found[i] = Reason("operator", ports)
        elif (text := _by_kind(facts, i)) is not None:
            found[i] = Reason("operator", text)
        elif (text := misfits.reason(i)) is not None:
            found[i] = Reason("constants", text)
        elif (text := _by_numbers(facts, i)) is not None:
            found[i] = Reason("values", text)
    for i in facts.ports:
        for name, why in _exacting(facts, i):
            found.setdefault(i, Reason("values", f"{name} reaches {facts.reached(name):.3g}: it must not be rounded"))
            _keep_sources(facts, name, f"{why} {facts.graph.label(i)}", found)
    return found


# --- kinds ---------------------------------------------------------------------------------------------------------


def _by_kind(facts: Facts, index: int) -> str | None:
    graph, target = facts.graph, facts.target
    node = graph.nodes[index]
    to = cast_to(node)
    if to is not None:
        return _cast(facts, index, to)
    if node.op_type == "CastLike" and graph.types[node.input[1]] != FLOAT:
        return KINDS["Floor"]
    if node.op_type in KINDS:
        return KINDS[node.op_type]
    if node.op_type == "BatchNormalization" and (mode := attribute_of(node, "training_mode")) is not None and mode.i:
        return KINDS["LayerNormalization"]
    if node.op_type in ("ScatterElements", "ScatterND", "TensorScatter") and _reduces(node):
        return f"runtimes have no {target.name} kernel for a scatter that computes"
    if node.op_type in SUMS:
        count = _summed(facts, index)
        if count * target.format.u > _LONGEST:
            return f"it sums {count} numbers in its own format"
    if node.op_type == "Mul" and node.input[0] == node.input[1] and target.format.emax < 127:
        return f"it squares, which leaves {target.name} above {target.format.max**0.5:.0f}"
    return None


def _reduces(node: onnx.NodeProto) -> bool:
    reduction = attribute_of(node, "reduction")
    return reduction is not None and reduction.s != b"none"


def _cast(facts: Facts, index: int, to: int) -> str | None:
    node, target = facts.graph.nodes[index], facts.target
    if to == onnx.TensorProto.DOUBLE or (to == FLOAT and facts.graph.types[node.input[0]] == onnx.TensorProto.DOUBLE):
        return "the model asks for a wider format here"
    if to == FLOAT:
        seen = facts.seen.get(node.output[0], UNSEEN)
        whole = 2.0**target.format.precision
        if seen.whole and facts.reached(node.output[0]) > whole and not _is_half(facts.graph.types[node.input[0]]):
            return f"it gives whole numbers above {whole:.0f}, which {target.name} does not hold"
        return None
    return None if _is_half(to) else KINDS["Floor"]


def _is_half(data_type: int) -> bool:
    return data_type in (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def _summed(facts: Facts, index: int) -> int:
    """How many numbers a sum adds up."""
    node = facts.graph.nodes[index]
    if node.op_type == "AveragePool":
        shape = attribute_of(node, "kernel_shape")
        count = 1
        for size in () if shape is None else shape.ints:
            count *= size
        return count
    given = facts.seen.get(node.input[0], UNSEEN).count
    return given // max(facts.seen.get(node.output[0], UNSEEN).count, 1)


# --- numbers -------------------------------------------------------------------------------------------------------


def _by_numbers(facts: Facts, index: int) -> str | None:
    graph, fmt, name = facts.graph, facts.target.format, facts.target.name
    node, ports = graph.nodes[index], facts.ports[index]
    outputs = [node.output[i] for i in ports.outputs]
    for value in (*facts.inputs(index), *outputs):
        if facts.largest(value) >= fmt.overflow:
            low, high = facts.bounds.get(value, (-float("inf"), float("inf")))
            proved = max(abs(low), abs(high)) == facts.largest(value)
            return f"{value} reaches {facts.largest(value):.3g}, beyond {fmt.max:.6g}" + (" (proved)" if proved else "")
    for value in outputs:
        if 0 < facts.seen.get(value, UNSEEN).most < fmt.min_normal:
            return f"{value} stays below {fmt.min_normal:.3g}, where {name} loses digits"
    divisor = _needs_digits(facts, index)
    if divisor is not None:
        least = facts.seen.get(divisor, UNSEEN).least
        low, high = facts.bounds.get(divisor, (0.0, 0.0))
        proved = low >= fmt.min_normal or high <= -fmt.min_normal
        if least < _MARGIN * fmt.min_normal and not proved:
            return f"{node.op_type} of {divisor}, which is as small as {least:.3g}"
    return None


def _needs_digits(facts: Facts, index: int) -> str | None:
    """The operand of which a small number must keep its digits."""
    node = facts.graph.nodes[index]
    match node.op_type:
        case "Div":
            operand = node.input[1]
        case "Reciprocal" | "Sqrt":
            operand = node.input[0]
        case _:
            return None
    return None if operand in facts.graph.weights else operand


@final
class _Misfits:
    """What nodes' weights cannot be in the narrower format. Each weight is looked at once for each use."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._known: dict[tuple[str, bool], str | None] = {}

    def reason(self, index: int) -> str | None:
        graph = self._facts.graph
        node = graph.nodes[index]
        for i in self._facts.ports[index].inputs:
            name = node.input[i]
            if name in graph.weights:
                why = self._of(name, each=(node.op_type, i) in _EACH)
                if why is not None:
                    return f"its constant {name} {why}"
        return None

    def _of(self, name: str, *, each: bool) -> str | None:
        key = name, each
        if key not in self._known:
            graph = self._facts.graph
            array = numbers(graph.weights[name], graph.folder)
            self._known[key] = misfit(array, self._facts.target, each=each)
        return self._known[key]


# --- operands that must not be rounded -----------------------------------------------------------------------------


def _exacting(facts: Facts, index: int) -> Iterator[tuple[str, str]]:
    """Operands of a node that another number, though near, makes another result of."""
    node, fmt = facts.graph.nodes[index], facts.target.format
    to = cast_to(node)
    if node.op_type in PERIODIC:
        for name in facts.inputs(index):
            if facts.reached(name) * fmt.u > _SHARE:
                yield name, "the argument of"
    elif node.op_type in ("Floor", "Ceil", "Round", "Mod", "Equal", "OneHot") or (
        to is not None and to != FLOAT and not _is_half(to) and to != onnx.TensorProto.DOUBLE
    ):
        for name in facts.inputs(index):
            if facts.reached(name) > 2.0**fmt.precision:
                yield name, "whole numbers are taken from it by"


def _keep_sources(facts: Facts, name: str, why: str, found: dict[int, Reason]) -> None:
    """Keep what computes `name`, through what only carries numbers on, and what it is carried from."""
    stack = [name]
    seen: set[int] = set()
    while stack:
        index = facts.graph.producer.get(stack.pop())
        if index is None or index in seen:
            continue
        seen.add(index)
        found.setdefault(index, Reason("values", why))
        if facts.graph.nodes[index].op_type in CARRIERS and index in facts.ports:
            stack += facts.inputs(index)

"""A copy of a model in which the planned nodes compute in the narrower format.

Names stay with whoever computes a value; the other format of it, where that is read, has a name of its own and is made
by one Cast behind the node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, final

import onnx
from onnx import NodeProto, helper

from stabilize.conversion.graph import FLOAT, Graph
from stabilize.conversion.plan import Plan
from stabilize.conversion.ports import attribute_of, cast_to
from stabilize.conversion.target import Target
from stabilize.conversion.weights import narrowed, numbers
from stabilize.frontends.onnx_scopes import inner_graphs, rename_free

#: What a converted model says of itself.
MARK: Final = "stabilize.converted"


@final
class Narrowed:
    """The result: `proto`, whose weights `pending` are still float32 and elsewhere; `types`: the element type of its
    values; `casts`: how many Cast nodes were added."""

    def __init__(self, plan: Plan, target: Target) -> None:
        self._plan, self._target, self._graph = plan, target, plan.graph
        self.proto: Final = onnx.ModelProto()
        self.proto.CopyFrom(plan.graph.proto)
        self.types: Final = dict(plan.graph.types)
        self.casts = 0
        self._taken = _names(plan.graph)
        self._other: dict[str, str] = {}
        self._halves = self._half_values()
        self._rebuild()
        self._state_types()
        if plan.nodes or plan.inputs or plan.outputs:
            helper.set_model_props(self.proto, {**_props(self.proto), MARK: target.name})

    # --- who has which format --------------------------------------------------------------------------------------

    def _half_values(self) -> set[str]:
        """Values whose own name is in the narrower format."""
        plan = self._plan
        computed = {self._graph.nodes[i].output[o] for i, ports in plan.nodes.items() for o in ports.outputs}
        wide = {o.name for o in self._graph.proto.graph.output} - plan.outputs
        half = (computed - wide) | plan.weights | plan.inputs
        # an output of the caller's format that is computed in the other one is cast under its name
        return half | {o for o in plan.outputs if o in self._graph.producer}

    def _wanted(self, name: str, index: int, position: int) -> bool:
        """Whether a node reads `name` in the narrower format."""
        ports = self._plan.nodes.get(index)
        return ports is not None and position in ports.inputs

    def _read(self, name: str, *, half: bool) -> str:
        """What `name` is called in a format; the other one than its own is made by a Cast."""
        if not self._is_float(name) or (name in self._halves) == half:
            return name
        if name not in self._other:
            suffix = self._target.name if half else "float32"
            self._other[name] = self._fresh(f"{name}_{suffix}")
        return self._other[name]

    def _is_float(self, name: str) -> bool:
        return self._graph.is_float(name) or name in self._graph.weights

    def _fresh(self, name: str) -> str:
        unique, count = name, 1
        while unique in self._taken:
            count += 1
            unique = f"{name}_{count}"
        self._taken.add(unique)
        return unique

    # --- nodes -----------------------------------------------------------------------------------------------------

    def _rebuild(self) -> None:
        copies = list(self.proto.graph.node)
        for index, node in enumerate(copies):
            for position, name in enumerate(node.input):
                node.input[position] = self._read(name, half=self._wanted(name, index, position)) if name else name
            renamed = {n: self._read(n, half=False) for n in self._graph.captured[index]}
            rename_free(node, {n: new for n, new in renamed.items() if n != new})
        result: list[NodeProto] = []
        for name in (*self._graph.settable, *self._stored()):
            result += self._cast(name)
        for index, node in enumerate(copies):
            if index in self._plan.nodes:
                self._narrow(node, index)
            elif node.output and node.output[0] in self._plan.weights:
                self._narrow_constant(node)
            result.append(node)
            for name in self._graph.nodes[index].output:
                result += self._computed(node, name, index)
        del self.proto.graph.node[:]
        self.proto.graph.node.extend(
            _without_idle(result, self._types_after(), {o.name for o in self.proto.graph.output})
        )

    def _stored(self) -> list[str]:
        constants = {o for node in self._graph.nodes for o in node.output}
        return [name for name in self._graph.weights if name not in constants]

    def _cast(self, name: str) -> list[NodeProto]:
        """The other format of a value, where somebody reads it."""
        other = self._other.get(name)
        if other is None:
            return []
        return [self._cast_node(name, other, half=name not in self._halves)]

    def _cast_node(self, source: str, name: str, *, half: bool) -> NodeProto:
        to = self._target.data_type if half else FLOAT
        self.types[name] = to
        self.casts += 1
        return helper.make_node("Cast", [source], [name], self._fresh(f"{name}_Cast"), to=to)

    def _computed(self, node: NodeProto, name: str, index: int) -> list[NodeProto]:
        """What follows a node that computes `name`: casts to what its readers and the caller want."""
        if not name or not self._is_float(name):
            return []
        ports = self._plan.nodes.get(index)
        half = ports is not None and any(self._graph.nodes[index].output[o] == name for o in ports.outputs)
        if half == (name in self._halves) or name in self._graph.weights:
            return self._cast(name)
        # the caller's format is the other one: `name` is that of the cast
        own = self._read(name, half=half)
        for position, output in enumerate(node.output):
            if output == name:
                node.output[position] = own
        self.types[own] = self._target.data_type if half else FLOAT
        return [self._cast_node(own, name, half=not half)]

    def _narrow(self, node: NodeProto, index: int) -> None:
        del index
        if cast_to(node) == FLOAT:
            to = attribute_of(node, "to")
            assert to is not None, "a Cast"
            to.i = self._target.data_type
        elif node.op_type == "ConstantOfShape":
            value = attribute_of(node, "value")
            tensor = helper.make_tensor("value", FLOAT, [1], [0.0]) if value is None else value.t
            half = narrowed(tensor, numbers(tensor, None), self._target)
            if value is None:
                node.attribute.append(helper.make_attribute("value", half))
            else:
                value.t.CopyFrom(half)

    def _narrow_constant(self, node: NodeProto) -> None:
        tensor = self._graph.weights[node.output[0]]
        half = narrowed(tensor, numbers(tensor, self._graph.folder), self._target)
        node.attribute[0].CopyFrom(helper.make_attribute("value", half))

    # --- types -----------------------------------------------------------------------------------------------------

    def _types_after(self) -> Mapping[str, int]:
        for name in self._halves:
            self.types[name] = self._target.data_type
        return self.types

    def _state_types(self) -> None:
        graph = self.proto.graph
        present = {i.name: i for i in graph.value_info}
        for info in (*graph.input, *graph.output, *graph.value_info):
            if info.type.tensor_type.elem_type == FLOAT and info.name in self._halves:
                info.type.tensor_type.elem_type = self._target.data_type
        for name, other in self._other.items():
            info = present.get(name)
            if info is not None:
                copy = graph.value_info.add()
                copy.CopyFrom(info)
                copy.name = other
                copy.type.tensor_type.elem_type = self.types[other]

    @property
    def pending(self) -> frozenset[str]:
        """Initializers that are to be narrowed."""
        return self._plan.weights & frozenset(t.name for t in self.proto.graph.initializer)


def _without_idle(nodes: list[NodeProto], types: Mapping[str, int], outputs: set[str]) -> Iterable[NodeProto]:
    """Without Casts to the format that a value has: earlier ones of the model may have become that."""
    renamed: dict[str, str] = {}
    kept: list[NodeProto] = []
    for node in nodes:
        to = cast_to(node)
        source = renamed.get(node.input[0], node.input[0]) if to is not None else ""
        if to is not None and types.get(source) == to and node.output[0] not in outputs:
            renamed[node.output[0]] = source
            continue
        kept.append(node)
    for node in kept if renamed else ():
        for position, name in enumerate(node.input):
            node.input[position] = renamed.get(name, name)
        rename_free(node, renamed)
    return kept


def _names(graph: Graph) -> set[str]:
    """Every name of a value or a node, also inside."""
    found: set[str] = set()
    stack = [graph.proto.graph]
    while stack:
        each = stack.pop()
        found |= {v.name for v in (*each.input, *each.output, *each.value_info)} | {t.name for t in each.initializer}
        for node in each.node:
            found |= {node.name, *node.input, *node.output}
            stack += inner_graphs(node)
    return found


def _props(proto: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in proto.metadata_props}


def marked(proto: onnx.ModelProto) -> str | None:
    """The format that a model says it was converted to."""
    return _props(proto).get(MARK)

"""Graphs inside an ONNX graph (branches, loop bodies): taken out as models of their own, and put back.

What a body takes from the graphs around it becomes an input of the model, of the type that is known there, or an
initializer where its content is known: exporters keep the constants of a body outside of it. Names stay what they are,
so that the body fits back into its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import final

import numpy as np
import onnx_ir as ir

from stabilize.frontends.onnx_emitter import Names
from stabilize.frontends.onnx_patch import drop_weight, sweep
from stabilize.frontends.onnx_read import Reader


@final
@dataclass(frozen=True)
class Inside:
    """Where a graph stands that is no model's main graph.

    names: taken in the whole model, shared by all graphs inside it, so that new names are unique over scopes.
    captured: inputs and initializers of the model that was made of it which are values of the graphs around it.
    sizes: shapes among them whose elements are symbols, by name.
    function: whether it is a function, which holds no initializers and sees nothing around it.
    """

    names: Names
    captured: tuple[str, ...] = ()
    sizes: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    function: bool = False


@final
@dataclass(frozen=True, slots=True)
class Slot:
    """The place of a graph: an attribute of a node."""

    node: ir.Node
    attribute: str

    @property
    def graph(self) -> ir.Graph:
        return self.node.attributes[self.attribute].as_graph()

    def fill(self, graph: ir.Graph) -> None:
        """Put `graph` there."""
        doc_string = self.node.attributes[self.attribute].doc_string
        self.node.attributes[self.attribute] = ir.AttrGraph(self.attribute, graph, doc_string=doc_string)


def slots(model: ir.Model) -> dict[str, Slot]:
    """The places of graphs in the main graph of `model`, by unique name: node, or first output, and attribute.

    Those of operators outside the default domain are not among them: what such a graph means is not known.
    """
    names, found = Names(()), dict[str, Slot]()
    for node in model.graph:
        if node.domain != "" or node.op_identifier() in model.functions:
            continue
        label = node.name or next((o.name for o in node.outputs if o.name), "") or node.op_type
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
                found[names.fresh(f"{label}/{attribute.name}")] = Slot(node, attribute.name)
    return found


# --- taking out ---------------------------------------------------------------------------------------------------


def taken_out(model: ir.Model, outer: Reader, names: Names) -> Iterator[tuple[str, ir.Model, Inside]]:
    """The graphs inside the main graph of `model`, which is used up. outer: has read what it is a copy of."""
    typed = slots(outer.model)
    for name, slot in slots(model).items():
        graph = slot.graph
        for value, inferred in zip(graph.inputs, typed[name].graph.inputs, strict=True):
            if value.type is None:  # as is allowed inside
                value.type, value.shape = outer.types.stated(inferred)
        captured = _captured(graph)
        own = {v.name for v in (*graph.inputs, *graph.initializers.values())}
        if own & {v.name for v in captured}:
            continue  # not valid: which of two values a name means would be open
        stand_ins = {value: _stand_in(value, outer) for value in captured}
        graph.opset_imports.update(model.graph.opset_imports)
        _substitute(graph, stand_ins)
        for value in stand_ins.values():
            if value.const_value is None:
                graph.inputs.append(value)
            else:
                graph.register_initializer(value)
        lifted = ir.Model(graph, ir_version=model.ir_version, functions=called(graph, model))
        captured_names = tuple(v.name or "" for v in captured)
        sizes = {n: outer.contents[n] for n in captured_names if n in outer.contents}
        yield name, lifted, Inside(names, captured_names, sizes)


def _captured(graph: ir.Graph) -> list[ir.Value]:
    """Values that `graph` and the graphs inside it use and do not compute, once each, in order of use."""
    defined: set[ir.Value] = set()
    used: dict[ir.Value, None] = {}
    for each in (graph, *graph.subgraphs()):
        defined.update(each.inputs, each.initializers.values())
        used.update(dict.fromkeys(each.outputs))
    for node in graph.all_nodes():
        defined.update(node.outputs)
        used.update(dict.fromkeys(v for v in node.inputs if v is not None))
    return [value for value in used if value not in defined]


def _stand_in(value: ir.Value, outer: Reader) -> ir.Value:
    """What `value` of the graph outside is to a body: its name, the type that was read, and its content if known."""
    name = value.name or ""
    type, shape = outer.stated(outer.host(name))
    return ir.Value(name=name, type=type, shape=shape, const_value=outer.content(name))


def _substitute(graph: ir.Graph, values: Mapping[ir.Value, ir.Value]) -> None:
    """Replace values in `graph` and inside it. Costs its size, however often the values are used elsewhere."""
    for node in graph.all_nodes():
        for index, value in enumerate(node.inputs):
            if value is not None and value in values:
                node.replace_input_with(index, values[value])
    for each in (graph, *graph.subgraphs()):
        for index, value in enumerate(each.outputs):
            if value in values:
                each.outputs[index] = values[value]


def called(graph: ir.Graph, model: ir.Model) -> list[ir.Function]:
    """The functions of `model` that `graph` calls, and that those call."""
    found: dict[ir.OperatorIdentifier, ir.Function] = {}
    stack: list[Iterable[ir.Node]] = [graph.all_nodes()]
    while stack:
        for node in stack.pop():
            identifier = node.op_identifier()
            if identifier in model.functions and identifier not in found:
                found[identifier] = model.functions[identifier]
                stack.append(found[identifier].all_nodes())
    return list(found.values())


# --- putting back -------------------------------------------------------------------------------------------------


def put_back(model: ir.Model, bodies: Mapping[str, tuple[ir.Model, Inside]]) -> None:
    """Fill the places of `model` that are named with the main graphs of models which were taken out of there.

    What the bodies no longer use of what is around them goes too, where nothing else uses it.
    """
    around = {v.name: v for v in (*model.graph.inputs, *model.graph.initializers.values())}
    around |= {v.name: v for node in model.graph for v in node.outputs}
    places = slots(model)
    lost: dict[str, None] = {}
    for name, (body, inside) in bodies.items():
        lost.update(dict.fromkeys(inside.captured))
        old = places[name].graph
        for node in tuple(old.all_nodes()):  # its uses of what is around it end here
            node.resize_inputs(0)
        places[name].fill(_unlifted(body.graph.clone(), inside, around, old))
    unused = [around[name] for name in lost]
    for value in unused:
        drop_weight(model.graph, value)
    sweep(model.graph, [p for v in unused if (p := v.producer()) is not None])


def _unlifted(graph: ir.Graph, inside: Inside, around: Mapping[str | None, ir.Value], original: ir.Graph) -> ir.Graph:
    """`graph` without its stand-ins: the values `around` instead."""
    captured = set(inside.captured)
    stand_ins = [v for v in (*graph.inputs, *graph.initializers.values()) if v.name in captured]
    _substitute(graph, {v: around[v.name] for v in stand_ins})
    kept = [v for v in graph.inputs if v.name not in captured]
    for value, before in zip(kept, original.inputs, strict=True):
        value.type, value.shape = before.type, before.shape
    graph.inputs.clear()
    graph.inputs.extend(kept)
    for value in stand_ins:
        graph.initializers.pop(value.name or "", None)
    graph.opset_imports.clear()
    graph.opset_imports.update(original.opset_imports)
    return graph

"""Model-local functions: read with the types of their calls, as models of their own, and put back.

ONNX functions have no types. Where all calls pass one type, that is the input's; where they differ in a size, the size
is unknown; where they differ in more, the input is unknown. Attributes that the call gives stay references: what
depends on one is opaque. A function is rewritten once, its calls stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

import onnx_ir as ir

from stabilize.frontends import onnx_bodies
from stabilize.frontends.onnx import OLDEST_OPSET, opset_of
from stabilize.frontends.onnx_bodies import Inside, called
from stabilize.frontends.onnx_check import callees_first
from stabilize.frontends.onnx_emitter import Names
from stabilize.frontends.onnx_infer import Stated, inferred
from stabilize.frontends.onnx_patch import taken_names
from stabilize.frontends.onnx_read import Reader

_Calls: TypeAlias = dict[ir.OperatorIdentifier, list[list[Stated]]]


def taken_out(model: ir.Model, outer: Reader) -> Iterator[tuple[str, ir.Model, Inside]]:
    """The functions of `model`, which is used up, callers first. outer: has read what it is a copy of.

    Those of an opset that is not read are not among them.
    """
    calls: _Calls = {}
    _note(model, outer, calls)
    for identifier in reversed(callees_first(model)):
        function = model.functions[identifier]
        if identifier not in calls:
            continue  # nothing is known about its operands, and nothing is computed by it
        graph = function.graph
        for value, stated in zip(graph.inputs, _agreed(calls[identifier], len(graph.inputs)), strict=True):
            value.type, value.shape = stated
        others = [f for f in called(graph, model) if f is not function]
        lifted = ir.Model(graph, ir_version=model.ir_version, functions=others)
        if opset_of(graph) < OLDEST_OPSET:
            _add(graph.all_nodes(), model, calls, inferred(lifted).stated)
            continue
        reader = Reader(lifted, opset_of(graph))
        reader.read()
        _note(lifted, reader, calls)
        yield label(identifier), lifted, Inside(Names(taken_names(graph)), function=True)


def label(identifier: ir.OperatorIdentifier) -> str:
    """`domain::name`, and `:overload` where there is one."""
    domain, name, overload = identifier
    return f"{domain}::{name}" + (f":{overload}" if overload else "")


def put_back(model: ir.Model, bodies: Mapping[str, ir.Model]) -> None:
    """Replace functions of `model`, by their labels, by the main graphs of what they became."""
    for identifier, function in tuple(model.functions.items()):
        body = bodies.get(label(identifier))
        if body is None:
            continue
        graph = body.graph.clone()
        for value, original in zip(graph.inputs, function.inputs, strict=True):
            value.type, value.shape = original.type, original.shape
        attributes = function.attributes.values()
        domain, name, overload = identifier
        model.functions[identifier] = ir.Function(domain, name, overload, graph=graph, attributes=attributes)


def _note(model: ir.Model, reader: Reader, calls: _Calls) -> None:
    """Add what `model`, which `reader` has read, passes to functions, in its main graph and inside it."""
    functions = reader.model.functions
    _add(reader.model.graph, reader.model, calls, reader.stated)
    if not any(node.op_identifier() in functions for graph in model.graph.subgraphs() for node in graph):
        return
    for _, body, inside in onnx_bodies.taken_out(model.clone(), reader, Names(())):
        within = Reader(body, reader.opset, inside.sizes)
        within.read()
        _note(body, within, calls)


def _add(nodes: Iterable[ir.Node], model: ir.Model, calls: _Calls, stated: Callable[[ir.Value], Stated]) -> None:
    """Add what those of `nodes` pass that call a function of `model`."""
    for node in nodes:
        if node.op_identifier() in model.functions:
            passed = [(None, None) if value is None else stated(value) for value in node.inputs]
            calls.setdefault(node.op_identifier(), []).append(passed)


def _agreed(calls: list[list[Stated]], count: int) -> list[Stated]:
    """The types of `count` inputs that hold at every call."""
    result: list[Stated] = []
    for index in range(count):
        passed = [call[index] if index < len(call) else (None, None) for call in calls]
        type, shape = passed[0]
        if any(t != type for t, _ in passed):
            type = shape = None
        for _, other in passed:
            shape = _common(shape, other)
        result.append((type, shape))
    return result


def _common(a: ir.Shape | None, b: ir.Shape | None) -> ir.Shape | None:
    """The sizes that two shapes agree on; None when they do not even agree on the rank."""
    if a is None or b is None or len(a) != len(b):
        return None
    return ir.Shape([x if x == y else None for x, y in zip(a, b, strict=True)])

"""What a model must be to be read at all: every value computed before it is used, every node as its operator says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from typing import Any, final

import onnx
import onnx_ir as ir

from stabilize.errors import ModelError


def check_order(model: ir.Model, name: str) -> None:
    """ModelError when a value is used before it is computed, or is computed nowhere, in the graph and in the bodies
    of functions, or when a function calls itself."""
    _check_graph(model.graph, name, set())
    for function in model.functions.values():
        _check_graph(function.graph, f"{name}: in function {function.name!r}", set())
    try:
        callees_first(model)
    except CycleError as error:
        ring = " → ".join(identifier[1] for identifier in reversed(error.args[1]))
        raise ModelError(
            f"{name}: not a valid ONNX model (a function calls itself: {_short(ring)}): export the model again"
        ) from error


def _check_graph(graph: ir.Graph, name: str, computed: set[ir.Value]) -> None:
    """`computed`: values at hand where the graph begins; those of the graph are added."""
    computed.update(graph.inputs)
    computed.update(graph.initializers.values())
    for node in graph:
        for value in node.inputs:
            if value is not None and value not in computed:
                raise ModelError(f"{name}: not a valid ONNX model ({_why(value, node)}")
        _check_names(node, name)
        _check_references(node, name)
        for inner in bodies(node):
            _check_graph(inner, name, computed)
        computed.update(node.outputs)
    for value in graph.outputs:
        if value not in computed:
            where = f"output {value.name!r} of the graph {graph.name!r} is computed nowhere"
            raise ModelError(f"{name}: not a valid ONNX model ({where}): check it with onnx.checker")


def _check_names(node: ir.Node, name: str) -> None:
    """protobuf gives text that is no UTF-8 as bytes; new names are made of the old ones."""
    for text in (node.name, *(output.name for output in node.outputs)):
        if isinstance(text, bytes):
            raise ModelError(f"{name}: not a valid ONNX model (the name {text!r} is no UTF-8): export the model again")


def _check_references(node: ir.Node, name: str) -> None:
    """A function may be given a graph to put into its body; onnx_ir does not follow that."""
    for attribute in node.attributes.values():
        if attribute.is_ref() and attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            raise ModelError(
                f"{name}: the graphs in attribute {attribute.name!r} of node {node.name or node.op_type!r} are those "
                f"of attribute {attribute.ref_attr_name!r} of a function, which cannot be read: write functions out "
                "first, e.g. by onnx.inliner.inline_local_functions(model)"
            )


def bodies(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs that a control-flow node holds."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS and not attribute.is_ref():
            yield from attribute.as_graphs()


# --- functions ------------------------------------------------------------------------------------------------------

#: Runtimes and shape inference put the body of a function in place of each call, calls within calls.
_MOST_NODES, _MOST_LEVELS = 1_000_000, 100


def is_too_large(model: ir.Model) -> bool:
    """Whether writing out every call of a function would give more than anybody can use."""
    if not model.functions:
        return False
    nodes: dict[ir.OperatorIdentifier, int] = {}
    levels: dict[ir.OperatorIdentifier, int] = {}
    for identifier in callees_first(model):
        called = [n.op_identifier() for n in model.functions[identifier].all_nodes()]
        nodes[identifier] = sum(nodes.get(c, 1) for c in called)
        levels[identifier] = 1 + max((levels.get(c, 0) for c in called), default=0)
    total = sum(nodes.get(n.op_identifier(), 1) for n in model.graph.all_nodes())
    return total > _MOST_NODES or max(levels.values(), default=0) > _MOST_LEVELS


def callees_first(model: ir.Model) -> list[ir.OperatorIdentifier]:
    """The model's functions, each after those that it calls; CycleError when there is no such order."""
    calls: dict[ir.OperatorIdentifier, set[ir.OperatorIdentifier]] = {
        identifier: {n.op_identifier() for n in function.all_nodes()} & model.functions.keys()
        for identifier, function in model.functions.items()
    }
    return list(TopologicalSorter(calls).static_order())


# --- words ----------------------------------------------------------------------------------------------------------


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"


def _why(value: ir.Value, node: ir.Node) -> str:
    what = f"input {value.name!r} of {node.op_type} {node.name!r}"
    producer = value.producer()
    if producer is None:
        return f"{what} is computed nowhere): check it with onnx.checker"
    if _needs(producer, node):
        return f"{what} is computed from that node's own output): export the model again"
    return f"{what} is computed by a later node): sort its nodes, e.g. onnx_ir.load(path).graph.sort()"


def _needs(start: ir.Node, wanted: ir.Node) -> bool:
    """Whether `wanted` is `start` or computes what that is computed from."""
    seen: set[ir.Node] = set()
    stack = [start]
    while stack:
        node = stack.pop()
        if node is wanted:
            return True
        if node not in seen:
            seen.add(node)
            stack += [p for v in node.inputs if v is not None and (p := v.producer()) is not None]
    return False


@final
@dataclass(frozen=True, slots=True)
class _Signature:
    """What a node of an operator has: how many inputs and outputs, attributes by name and type, and which of them."""

    inputs: range
    outputs: range
    attributes: dict[str, str]
    required: frozenset[str]


@lru_cache(maxsize=1024)
def _signature(op_type: object, opset: int) -> _Signature | None:
    if not isinstance(op_type, str):
        return None  # protobuf gives bytes that are no text as they are
    try:
        schema: Any = onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return None  # no such operator, which is an answer
    return _Signature(
        range(schema.min_input, schema.max_input + 1),
        range(max(schema.min_output, 1), schema.max_output + 1),
        {name: a.type.name for name, a in schema.attributes.items()},
        frozenset(name for name, a in schema.attributes.items() if a.required),
    )


def conforms(node: ir.Node, opset: int) -> bool:
    """Whether a node of the default domain has the inputs, outputs and attributes that its operator has in `opset`."""
    has = _signature(node.op_type, opset)
    if has is None or len(node.inputs) not in has.inputs or len(node.outputs) not in has.outputs:
        return False
    given = node.attributes.data
    return has.required <= given.keys() and all(
        has.attributes.get(name) == a.type.name and not a.is_ref() for name, a in given.items()
    )

"""What a model must be to be read at all: every value computed before it is used, every node as its operator says."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import onnx
import onnx_ir as ir

from stabilize.errors import ModelError


def check_order(model: ir.Model, name: str) -> None:
    """ModelError when a value is used before it is computed, or is computed nowhere."""
    _check_graph(model.graph, name, set())


def _check_graph(graph: ir.Graph, name: str, computed: set[ir.Value]) -> None:
    """`computed`: values at hand where the graph begins; those of the graph are added."""
    computed.update(graph.inputs)
    computed.update(graph.initializers.values())
    for node in graph:
        for value in node.inputs:
            if value is not None and value not in computed:
                raise ModelError(f"{name}: not a valid ONNX model ({_why(value, node)}")
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
                _check_graph(attribute.as_graph(), name, computed)
            elif attribute.type == ir.AttributeType.GRAPHS and not attribute.is_ref():
                for inner in attribute.as_graphs():
                    _check_graph(inner, name, computed)
        computed.update(node.outputs)
    for value in graph.outputs:
        if value not in computed:
            where = f"output {value.name!r} of the graph {graph.name!r} is computed nowhere"
            raise ModelError(f"{name}: not a valid ONNX model ({where}): check it with onnx.checker")


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


@lru_cache(maxsize=1024)
def _schema(op_type: str, opset: int) -> Any:
    try:
        return onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return None  # no such operator, which is an answer


def conforms(node: ir.Node, opset: int) -> bool:
    """Whether a node of the default domain has the inputs, outputs and attributes that its operator has in `opset`."""
    schema = _schema(node.op_type, opset)
    if schema is None or not schema.min_input <= len(node.inputs) <= schema.max_input:
        return False
    if not max(schema.min_output, 1) <= len(node.outputs) <= schema.max_output:
        return False
    known = schema.attributes
    return all(name in node.attributes for name, a in known.items() if a.required) and all(
        name in known and known[name].type.name == a.type.name and not a.is_ref() for name, a in node.attributes.items()
    )

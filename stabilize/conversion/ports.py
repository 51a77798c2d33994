"""Where a node can take and give the narrower format: what its operator's schema allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, final

import onnx
from onnx import NodeProto

from stabilize.conversion.graph import FLOAT, Graph
from stabilize.conversion.target import Target

#: An attribute, not an operand, says what these compute in.
_TYPED: Final = ("dtype", "output_dtype", "output_datatype")


@final
@dataclass(frozen=True, slots=True)
class Ports:
    """Positions of the inputs and outputs that are float32 and may be narrower, all of them together."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def touches_floats(graph: Graph, index: int) -> bool:
    node = graph.nodes[index]
    return any(graph.is_float(name) for name in (*node.input, *node.output, *graph.captured[index]))


def ports_of(graph: Graph, index: int, target: Target) -> Ports | str:
    """Where node `index` may be narrowed, or why it may not."""
    node = graph.nodes[index]
    if (node.domain, node.op_type) in graph.functions:
        return f"a call of the model's own function {node.op_type}, which stays as it is"
    if node.domain not in ("", "ai.onnx"):
        return f"nothing is known of the operator {node.domain}.{node.op_type}"
    if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
        return f"the graphs inside {node.op_type} stay as they are"
    unknown = next((n for n in (*node.input, *node.output) if n and n not in graph.types), None)
    if unknown is not None:
        return f"the type of {unknown} is not known"
    formal = _formal(node.op_type, graph.opset)
    if formal is None:
        return f"opset {graph.opset} has no operator {node.op_type}"
    if node.op_type != "Cast" and any(a.name in _TYPED for a in node.attribute):
        return f"an attribute of {node.op_type} says what it computes in"
    takes, gives = formal
    inputs = _narrowable(graph, node.input, takes, target)
    outputs = _narrowable(graph, node.output, gives, target)
    if inputs is None or outputs is None or not (inputs or outputs):
        return f"{node.op_type} has no {target.name} form in opset {graph.opset}"
    return Ports(inputs, outputs)


def _narrowable(
    graph: Graph, names: Sequence[str], formal: Sequence[frozenset[str] | None], target: Target
) -> tuple[int, ...] | None:
    """Positions that may be narrowed; None when one of a variable type has no such form. Fixed types stay."""
    half = f"tensor({target.name})"
    found: list[int] = []
    for i, name in enumerate(names):
        if not name or graph.types[name] != FLOAT:
            continue
        allowed = formal[min(i, len(formal) - 1)]
        if allowed is None:
            continue
        if half not in allowed:
            return None
        found.append(i)
    return tuple(found)


@lru_cache(maxsize=1024)
def _formal(
    op_type: str, opset: int
) -> tuple[tuple[frozenset[str] | None, ...], tuple[frozenset[str] | None, ...]] | None:
    """What each input and output of an operator may be; None in the place of a fixed type."""
    try:
        schema: Any = onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return None  # no such operator, which is an answer
    variables = {c.type_param_str: frozenset(c.allowed_type_strs) for c in schema.type_constraints}
    return (
        tuple(variables.get(p.type_str) for p in schema.inputs),
        tuple(variables.get(p.type_str) for p in schema.outputs),
    )


def attribute_of(node: NodeProto, name: str) -> onnx.AttributeProto | None:
    return next((a for a in node.attribute if a.name == name), None)


def cast_to(node: NodeProto) -> int | None:
    """What a Cast gives; None for other nodes."""
    to = attribute_of(node, "to") if node.op_type == "Cast" and not node.domain else None
    return None if to is None else int(to.i)

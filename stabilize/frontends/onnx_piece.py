"""A piece of an ONNX graph as a model of its own, with the same nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final

import onnx
import onnx_ir as ir

from stabilize.errors import ModelError
from stabilize.frontends.onnx_bodies import called
from stabilize.frontends.onnx_types import DATA_TYPES
from stabilize.graph.host import Piece
from stabilize.graph.view import View

#: Weights that a piece may hold: what is saved beside a witness is to be small, and protobuf ends at 2 GB.
_MOST_BYTES = 1 << 28


@final
class Index:
    """The values of a graph by name, and the order of its nodes: made once, for as many pieces as are taken."""

    def __init__(self, graph: ir.Graph) -> None:
        self.values = {v.name: v for v in (*graph.inputs, *graph.initializers.values())}
        self.values |= {v.name: v for node in graph for v in node.outputs}
        self.order = {node: i for i, node in enumerate(graph)}


def piece(model: ir.Model, index: Index, view: View, names: Sequence[str], targets: Sequence[str]) -> Piece:
    """The nodes that lead from the values `names` to the values `targets`.

    ModelError when that cannot be taken out.
    """
    graph, values = model.graph, index.values
    missing = [name for name in (*names, *targets) if name not in values]
    if missing:
        raise ModelError(f"the graph has no value {missing[0]!r} that could be taken out")
    stop = {values[name] for name in names}
    nodes, leaves = _needed([values[target] for target in targets], stop)
    weights = [v for v in leaves if v.const_value is not None]
    if sum(v.const_value.nbytes for v in weights if v.const_value is not None) > _MOST_BYTES:
        raise ModelError(f"what {targets[-1]!r} is computed from holds too many weights to be taken out")
    inputs = [*names, *(v.name or "" for v in leaves if v.const_value is None)]
    proto = onnx.ModelProto(ir_version=model.ir_version, producer_name="stabilize")
    proto.graph.name = "piece"
    for name in inputs:
        proto.graph.input.append(_typed(view, name))
    proto.graph.output.extend(_typed(view, target) for target in targets)
    for value in weights:
        assert value.const_value is not None
        try:
            held = ir.tensor(value.const_value.numpy(), name=value.name)
        except OSError as error:
            raise ModelError(f"the data of {value.name!r} is not there: {error}") from error
        proto.graph.initializer.append(ir.serde.serialize_tensor(held))
    for node in sorted(nodes, key=index.order.__getitem__):
        proto.graph.node.append(ir.serde.serialize_node(node))
    for domain, version in graph.opset_imports.items():
        proto.opset_import.append(onnx.helper.make_opsetid(domain, version))
    if model.functions:
        proto.functions.extend(ir.serde.serialize_function(f) for f in called(graph, model))
    return Piece(proto, tuple(inputs))


def _typed(view: View, name: str) -> onnx.ValueInfoProto:
    """A value with the element type and the rank that were read; runtimes find sizes out."""
    value = view.bindings.get(name)
    if value is None or value.dtype not in DATA_TYPES:
        raise ModelError(f"the type of {name!r} is not known")
    return onnx.helper.make_tensor_value_info(name, int(DATA_TYPES[value.dtype]), [None] * value.type.rank)


def _needed(targets: list[ir.Value], stop: set[ir.Value]) -> tuple[set[ir.Node], list[ir.Value]]:
    """The nodes above `stop`, and inputs and initializers that they use besides."""
    nodes, leaves = set[ir.Node](), dict[ir.Value, None]()
    stack = list(targets)
    while stack:
        value = stack.pop()
        if value in stop:
            continue
        node = value.producer()
        if node is None:
            leaves[value] = None
        elif node not in nodes:
            nodes.add(node)
            stack.extend(_used(node))
    return nodes, list(leaves)


def _used(node: ir.Node) -> Iterable[ir.Value]:
    """The values of the graph that a node uses, in the graphs inside it as well."""
    yield from (v for v in node.inputs if v is not None)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
            inner = attribute.as_graph()
            own = {v for each in (inner, *inner.subgraphs()) for v in (*each.inputs, *each.initializers.values())}
            own |= {v for each in inner.all_nodes() for v in each.outputs}
            for each in inner.all_nodes():
                yield from (v for v in each.inputs if v is not None and v not in own)
            yield from (v for v in inner.outputs if v not in own)

"""Carry a patched graph back into a `ModelProto`: what no rewrite touched keeps its bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias, cast

import onnx
import onnx_ir as ir

#: Where a node of a reading remembers which one of the proto it is.
_ORIGIN = "stabilize.origin"

_Attributes: TypeAlias = Iterable[onnx.AttributeProto]


def remember(source: onnx.ModelProto, model: ir.Model) -> None:
    """Let every node of `model`, a reading of `source`, know the node it was read from. Copies know it too."""
    _remember(source.graph.node, model.graph)
    for identifier, function in _functions(source).items():
        _remember(function.node, model.functions[identifier])


def _functions(model: onnx.ModelProto) -> dict[ir.OperatorIdentifier, onnx.FunctionProto]:
    """By identifier, as a reading has them: the default domain is "", and of two equals the last counts."""
    return {("" if f.domain == "ai.onnx" else f.domain, f.name, f.overload): f for f in model.functions}


def _remember(sources: Iterable[onnx.NodeProto], graph: ir.Graph | ir.Function) -> None:
    for source, node in zip(sources, graph, strict=True):
        node.meta[_ORIGIN] = source
        for proto, inner in inner_graphs(source.attribute, node):
            _remember(proto.node, inner)


def inner_graphs(attributes: _Attributes, node: ir.Node) -> Iterable[tuple[onnx.GraphProto, ir.Graph]]:
    """The graphs in the attributes of a node, in both forms."""
    for proto in attributes:
        if proto.type == onnx.AttributeProto.GRAPH and not proto.ref_attr_name and proto.name in node.attributes:
            yield proto.g, node.attributes[proto.name].as_graph()


def transplant(source: onnx.ModelProto, model: ir.Model) -> onnx.ModelProto:
    """A copy of `source` whose graphs and functions have the nodes and initializers of `model`.

    model: a patched reading of `source`, after `remember`.
    """
    result = onnx.ModelProto()
    result.CopyFrom(source)
    _graph(result.graph, model.graph)
    for identifier, function in _functions(result).items():
        gone = _nodes(function.node, model.functions[identifier])
        _drop(function.value_info, gone, lambda info: info.name)
    return result


def _graph(graph: onnx.GraphProto, patched: ir.Graph) -> None:
    """Make `graph` what `patched` is."""
    present = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    gone = _nodes(graph.node, patched)
    gone |= {t.name for t in graph.initializer if t.name} - set(patched.initializers)
    _drop(graph.initializer, gone, lambda tensor: tensor.name)
    _drop(graph.value_info, gone, lambda info: info.name)
    _drop(graph.quantization_annotation, gone, lambda annotation: annotation.tensor_name)
    for name, value in patched.initializers.items():
        if name not in present and value.const_value is not None:
            graph.initializer.append(ir.serde.serialize_tensor(value.const_value))


def _nodes(field: Any, patched: ir.Graph | ir.Function) -> set[str]:
    """Make the repeated `field` the nodes of `patched`; the names that are computed no more."""
    before: Sequence[onnx.NodeProto] = list(field)
    after = [_node(node) for node in patched]
    if before == after:
        return set()
    del field[:]
    field.extend(after)
    return {name for n in before for name in n.output} - {name for n in after for name in n.output}


def _node(node: ir.Node) -> onnx.NodeProto:
    """The original bytes, with inputs and outputs as they are named now; a new node as it is."""
    source: onnx.NodeProto | None = cast(Any, node.meta).get(_ORIGIN)
    if source is None:
        return ir.serde.serialize_node(node)
    copy = onnx.NodeProto()
    copy.CopyFrom(source)
    for field, values in ((copy.input, node.inputs), (copy.output, node.outputs)):
        wanted = ["" if v is None else v.name or "" for v in values]
        if trimmed(wanted) != trimmed(field):
            del field[:]
            field.extend(wanted)
    for proto, graph in inner_graphs(copy.attribute, node):
        _graph(proto, graph)
    return copy


def trimmed(names: Iterable[str]) -> list[str]:
    """Names without the empty ones at the end, which mean nothing."""
    kept = list(names)
    while kept and not kept[-1]:
        kept.pop()
    return kept


def _drop(field: Any, names: set[str], name_of: Callable[[Any], str]) -> None:
    """Delete the elements of a repeated field that have one of `names`."""
    for i in reversed(range(len(field) if names else 0)):
        if name_of(field[i]) in names:
            del field[i]

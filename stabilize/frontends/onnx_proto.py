"""Carry a patched graph back into a `ModelProto`: what no rewrite touched keeps its bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import onnx
import onnx_ir as ir


def transplant(source: onnx.ModelProto, model: ir.Model, origins: Sequence[int | None]) -> onnx.ModelProto:
    """A copy of `source` whose main graph has the nodes and initializers of `model`.

    model: a patched reading of `source`; origins: for each of its nodes, which one of `source` it is (None: new).
    """
    result = onnx.ModelProto()
    result.CopyFrom(source)
    graph = result.graph
    nodes = [
        _new(n) if origin is None else _node(source.graph.node[origin], n)
        for n, origin in zip(model.graph, origins, strict=True)
    ]
    if list(nodes) != list(source.graph.node):
        del graph.node[:]
        graph.node.extend(nodes)
    names = {v.name for n in model.graph for v in n.outputs} | {v.name for v in model.graph.inputs}
    names |= set(model.graph.initializers)
    _keep(graph.initializer, lambda t: t.name in names)
    _keep(graph.value_info, lambda v: v.name in names)
    _keep(graph.quantization_annotation, lambda a: a.tensor_name in names)
    present = {t.name for t in source.graph.initializer} | {t.values.name for t in source.graph.sparse_initializer}
    for name, value in model.graph.initializers.items():
        if name not in present and value.const_value is not None:
            graph.initializer.append(ir.serde.serialize_tensor(value.const_value))
    return result


def _node(source: onnx.NodeProto, node: ir.Node) -> onnx.NodeProto:
    """The original bytes, with inputs and outputs as they are named now."""
    copy = onnx.NodeProto()
    copy.CopyFrom(source)
    for field, values in ((copy.input, node.inputs), (copy.output, node.outputs)):
        wanted = ["" if v is None else v.name or "" for v in values]
        if _trimmed(wanted) != _trimmed(field):
            del field[:]
            field.extend(wanted)
    return copy


def _trimmed(names: Iterable[str]) -> list[str]:
    """Names without the empty ones at the end, which mean nothing."""
    kept = list(names)
    while kept and not kept[-1]:
        kept.pop()
    return kept


def _new(node: ir.Node) -> onnx.NodeProto:
    return ir.serde.serialize_node(node)


def _keep(field: Any, wanted: Callable[[Any], bool]) -> None:
    """Delete the elements of a repeated field that are not wanted."""
    for i in reversed(range(len(field))):
        if not wanted(field[i]):
            del field[i]

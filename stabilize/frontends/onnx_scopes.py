"""What the graphs inside a node of an ONNX file see of the graph around it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import onnx
from onnx import AttributeProto, NodeProto


def inner_graphs(node: NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def captured(node: NodeProto) -> Iterable[str]:
    """The names that the graphs inside a node take from outside, in order, once each."""
    return dict.fromkeys(name for graph in inner_graphs(node) for name in _free(graph))


def _free(graph: onnx.GraphProto) -> Iterator[str]:
    own = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    own |= {o for node in graph.node for o in node.output}
    for node in graph.node:
        yield from (name for name in (*node.input, *captured(node)) if name and name not in own)
    yield from (o.name for o in graph.output if o.name not in own)


def rename_free(node: NodeProto, names: Mapping[str, str]) -> None:
    """Rename what the graphs inside a node take from outside."""
    for graph in inner_graphs(node) if names else ():
        own = {v.name for v in graph.input} | {t.name for t in graph.initializer}
        own |= {o for inner in graph.node for o in inner.output}
        outside = {old: new for old, new in names.items() if old not in own}
        for inner in graph.node:
            for position, name in enumerate(inner.input):
                inner.input[position] = outside.get(name, name)
            rename_free(inner, outside)
        for output in graph.output:
            output.name = outside.get(output.name, output.name)

"""Names of values in a model that is still being worked on: passes may leave two values with one name, or none."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import NameFixPass

from stabilize.frontends.onnx_check import bodies


def with_own_names(model: ir.Model) -> ir.Model:
    """`model`, or a copy of it in which no two values that are seen from one place have the same name.

    onnx_ir tells values apart by themselves; a view, a file and a runtime know them by their names.
    """
    graphs = [model.graph, *(function.graph for function in model.functions.values())]
    if all(_unique(graph, set()) for graph in graphs):
        return model
    copy = model.clone()
    NameFixPass()(copy)
    return copy


def _unique(graph: ir.Graph, seen: set[str]) -> bool:
    """Whether the names of `graph`, and of the graphs inside it, differ from each other and from those `seen` around
    it, which are the same afterwards."""
    own: list[str] = []
    named = dict.fromkeys([*graph.inputs, *graph.initializers.values()])  # an input may have a default
    unique = all(_add(value, seen, own) for value in named)
    inner: list[ir.Graph] = []
    for node in graph:
        unique = unique and all(_add(value, seen, own) for value in node.outputs if value.name != "")
        inner.extend(bodies(node))
    unique = unique and all(_unique(each, seen) for each in inner)
    seen.difference_update(own)
    return unique


def _add(value: ir.Value, seen: set[str], own: list[str]) -> bool:
    """Whether `value` has a name that is not `seen`; it is noted."""
    if not value.name or value.name in seen:
        return False
    seen.add(value.name)
    own.append(value.name)
    return True

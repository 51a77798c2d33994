"""Nodes of a graph whose operator the runtime computes badly, where the emitter has something better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import onnx_ir as ir

from stabilize.errors import ModelError
from stabilize.frontends.onnx_runtimes import Runtime
from stabilize.graph.value import Value
from stabilize.graph.view import View


@final
@dataclass(frozen=True, slots=True)
class Coarse:
    """An operator that is computed badly, and the operators that would be written instead; `given`: the names of what
    the node computes from."""

    op_type: str
    instead: tuple[str, ...]
    name: str
    given: tuple[str, ...]


def coarse(
    graph: ir.Graph, view: View, runtime: Runtime, spelling: Callable[[Value], list[str]]
) -> dict[Value, Coarse]:
    """By value, in the order of the graph; nodes that were not read, and those that nothing is known for, are left out.

    spelling: the operators that a value would be written in; ModelError where it cannot be.
    """
    found: dict[Value, Coarse] = {}
    for node in graph:
        name = node.outputs[0].name or "" if node.domain == "" and len(node.outputs) == 1 else ""
        value = view.bindings.get(name)
        if value is None or value in found or value.op in ("opaque", "input", "constant"):
            continue
        if runtime.computes(node.op_type, value.dtype):
            continue
        try:
            instead = spelling(value)
        except ModelError:
            continue
        if instead and node.op_type not in instead:
            given = [v.name or "" for v in node.inputs if v is not None and v.name in view.bindings]
            given = [n for n in given if view.bindings[n].op not in ("constant", "arange")]
            found[value] = Coarse(node.op_type, tuple(dict.fromkeys(instead)), name, tuple(given))
    return found

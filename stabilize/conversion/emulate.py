"""A model that computes in float32 and rounds where another one has a narrower format.

ONNX Runtime on the CPU computes most float16 operators in float32 and rounds late, so that a number beyond 65504 goes
unnoticed there, and it has next to no kernels for bfloat16. Here every value of the narrower format is rounded to it,
sums inside one operator are accumulated in float32: what tensor cores and other hardware with the format compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import onnx
from onnx import NodeProto, helper

from stabilize.conversion.graph import FLOAT
from stabilize.conversion.ports import cast_to
from stabilize.conversion.target import Target
from stabilize.frontends.onnx_scopes import captured, rename_free

_WIDE: Final = "::wide"
_RAW: Final = "::raw"
_STORED: Final = ("Constant", "ConstantOfShape")


def emulated(proto: onnx.ModelProto, types: Mapping[str, int], target: Target) -> onnx.ModelProto:
    """A copy of `proto` whose values of the format `target` are float32, rounded to it, inputs and outputs too (outputs
    have other names). types: of its values."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    graph = copy.graph
    half = {n for n, t in types.items() if t == target.data_type}
    half |= {t.name for t in graph.initializer if t.data_type == target.data_type}
    nodes: list[NodeProto] = []
    stored = {t.name for t in graph.initializer}
    for each in graph.input:
        if each.name in half and each.name not in stored:  # given as float32, and rounded
            each.type.tensor_type.elem_type = FLOAT
            nodes.append(_cast(each.name, each.name + _RAW, target.data_type))
            nodes.append(_cast(each.name + _RAW, each.name + _WIDE, FLOAT))
    nodes += [_cast(name, name + _WIDE, FLOAT) for name in stored if name in half]
    for node in graph.node:
        inside = {n: n + _WIDE for n in captured(node) if n in half}
        for position, name in enumerate(node.input):
            if name in half:
                node.input[position] = name + _WIDE
        if inside:
            rename_free(node, inside)
        nodes.append(node)
        as_it_is = node.op_type in _STORED or cast_to(node) == target.data_type
        for position, name in enumerate(node.output):
            if name not in half:
                continue
            if not as_it_is:
                node.output[position] = name + _RAW
                nodes.append(_cast(name + _RAW, name, target.data_type))
            nodes.append(_cast(name, name + _WIDE, FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)
    for output in graph.output:
        if output.name in half:
            output.name += _WIDE
            output.type.tensor_type.elem_type = FLOAT
    del graph.value_info[:]
    return copy


def _cast(source: str, name: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [source], [name], f"{name}::Cast", to=to)

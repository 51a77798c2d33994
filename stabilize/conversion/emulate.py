"""A model that computes in float32 and rounds where another one has a narrower format.

ONNX Runtime on the CPU computes most float16 operators in float32 and rounds late, so that a number beyond 65504 goes
unnoticed there, and it has next to no kernels for bfloat16. Here every value of the narrower format is rounded to it,
sums inside one operator are accumulated in float32: what tensor cores and other hardware with the format compute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, numpy_helper

from stabilize.conversion.graph import FLOAT
from stabilize.conversion.ports import attribute_of, cast_to
from stabilize.conversion.target import Target
from stabilize.frontends.onnx_stepwise import Kernels, Stepwise


def emulated(
    proto: onnx.ModelProto,
    types: Mapping[str, int],
    target: Target,
    name: str,
    folder: str | None = None,
    kernels: Kernels | None = None,
) -> Stepwise:
    """`proto` with every value of the format `target` kept in float32, rounded to it: inputs and outputs too.

    types: the element types of its values. folder: of its external data.
    """
    half, dtype = {n for n, t in types.items() if t == target.data_type}, target.numpy

    def settle(name: str, value: Any) -> Any:
        if name in half or getattr(value, "dtype", None) == dtype:
            with np.errstate(over="ignore"):
                return value.astype(dtype).astype(np.float32)
        return value

    return Stepwise(proto, name, folder, nodes=_widened(proto, target), settle=settle, kernels=kernels)


def _widened(proto: onnx.ModelProto, target: Target) -> Iterator[NodeProto]:
    """Nodes that give float32 where their attributes say the format."""
    for node in proto.graph.node:
        if cast_to(node) == target.data_type:
            copy = _copied(node)
            to = attribute_of(copy, "to")
            assert to is not None, "a Cast"
            to.i = FLOAT
            yield copy
        elif node.op_type in ("Constant", "ConstantOfShape") and any(_is(a, target) for a in node.attribute):
            copy = _copied(node)
            for attribute in copy.attribute:
                if _is(attribute, target):
                    wide = numpy_helper.to_array(attribute.t).astype(np.float32)
                    attribute.t.CopyFrom(numpy_helper.from_array(wide))
            yield copy
        else:
            yield node


def _copied(node: NodeProto) -> NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def _is(attribute: onnx.AttributeProto, target: Target) -> bool:
    return bool(attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == target.data_type)

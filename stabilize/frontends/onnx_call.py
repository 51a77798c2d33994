"""One ONNX node as the reader's rows see it: operands as values of the view, attributes, constant inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias, final

import numpy as np
import onnx_ir as ir

from stabilize.graph.build import Builder
from stabilize.graph.value import Dim, TensorType, Value

Contents: TypeAlias = Mapping[str, np.ndarray]
"""Host name → a small array that is known before a run; sizes among its elements may be symbols (dtype object)."""


@final
class Refused(Exception):
    """A row cannot express this node in the vocabulary; the node becomes opaque."""


@final
class Call(NamedTuple):
    """A node being read.

    args: operands, None where an optional input is absent; contents: arrays known so far, by host name;
    stated: what the host states about each output.
    """

    node: ir.Node
    opset: int
    builder: Builder
    args: tuple[Value | None, ...]
    contents: Contents
    stated: tuple[TensorType | None, ...]

    def x(self, index: int = 0) -> Value:
        """Operand `index`, which must be there."""
        value = self.optional(index)
        if value is None:
            raise Refused(f"input {index} is absent")
        return value

    def optional(self, index: int) -> Value | None:
        return self.args[index] if index < len(self.args) else None

    def floating(self, index: int = 0) -> Value:
        """Operand `index`, which must be of a floating-point format: integer division, say, is another function."""
        value = self.x(index)
        if value.dtype not in ("float16", "bfloat16", "float32", "float64"):
            raise Refused(f"{self.node.op_type} of {value.dtype}")
        return value

    def int_attr(self, name: str, default: int) -> int:
        return self.node.attributes.get_int(name, default)

    def float_attr(self, name: str, default: float) -> float:
        """A float attribute. Defaults are binary32 like what a file holds: 0.01 is 0.00999999977…"""
        return float(np.float32(self.node.attributes.get_float(name, default)))

    def str_attr(self, name: str, default: str) -> str:
        return self.node.attributes.get_string(name, default)

    def axis(self, default: int, rank: int) -> int:
        """The attribute `axis`, counted from the front."""
        return normal(self.int_attr("axis", default), rank)

    def content(self, index: int) -> np.ndarray | None:
        """Input `index` as an array; None when it is absent or not known."""
        host = self.node.inputs[index] if index < len(self.node.inputs) else None
        return None if host is None else self.contents.get(host.name or "")

    def dims(self, index: int) -> tuple[Dim, ...] | None:
        """The elements of the integer input `index`, of rank 0 or 1; None when it is absent or not known."""
        array = self.content(index)
        if array is None or array.dtype.kind not in "iuO" or array.ndim > 1:
            return None
        return tuple(array.reshape(-1).tolist())

    def given(self, index: int) -> bool:
        """Whether input `index` is there at all."""
        return self.optional(index) is not None

    def ints(self, name: str, index: int) -> tuple[int, ...] | None:
        """Integers that are the attribute `name` in old opsets and input `index` in new ones; None when absent."""
        if name in self.node.attributes:
            attribute = self.node.attributes[name]
            if attribute.type == ir.AttributeType.INT:
                return (attribute.as_int(),)
            return tuple(attribute.as_ints())
        if not self.given(index):
            return None
        dims = self.dims(index)
        if dims is None:
            raise Refused(f"{name} is computed")
        numbers = tuple(d for d in dims if isinstance(d, int))
        if len(numbers) != len(dims):
            raise Refused(f"{name} is symbolic")
        return numbers

    def bounds(self, rank: int) -> list[tuple[int, int, int, int]]:
        """Of a Slice: axis, start, end and step, for each axis that it cuts."""
        starts, ends = self.ints("starts", 1), self.ints("ends", 2)
        if starts is None or ends is None:
            raise Refused("no bounds")
        axes = self.ints("axes", 3)
        axes = tuple(range(len(starts))) if axes is None else tuple(normal(a, rank) for a in axes)
        steps = self.ints("steps", 4)
        steps = (1,) * len(starts) if steps is None else steps
        if not len(starts) == len(ends) == len(axes) == len(steps) or len(set(axes)) < len(axes) or 0 in steps:
            raise Refused("bounds that do not fit together")
        return list(zip(axes, starts, ends, steps, strict=True))

    def out_shape(self) -> tuple[Dim, ...]:
        """The shape that the host states for the first output."""
        if not self.stated or self.stated[0] is None:
            raise Refused("the shape of the result is unknown")
        return self.stated[0].shape


Row: TypeAlias = Callable[[Call], Value | tuple[Value | None, ...]]
"""Reads one operator: its outputs in the vocabulary, None for an output that has no expression there."""


def normal(axis: int, rank: int) -> int:
    """`axis` counted from the front."""
    if not -rank <= axis < rank:
        raise Refused(f"axis {axis} of a value of rank {rank}")
    return axis + rank if axis < 0 else axis

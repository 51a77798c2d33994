"""One call of an ATen operator, seen by the row of the table that translates it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias, cast, final

import torch
from torch import fx

from stabilize.formats import is_float
from stabilize.frontends.fx_types import (
    Operator,
    argument_of,
    dim_of,
    dtype_name,
    fake_of,
    is_number,
    parameters_of,
    tensor_type,
)
from stabilize.graph.build import Builder
from stabilize.graph.value import Dim, TensorType, Value

Read: TypeAlias = "Value | tuple[Value | None, ...] | None"
"""What a host node computes: a value, several (a multi-output operator), or nothing that the view holds."""

Row: TypeAlias = "Callable[[Call], Value | tuple[Value | None, ...]]"


@final
class Unreadable(Exception):
    """The vocabulary cannot express this call; the node is read as opaque."""


@final
class Call:
    """The arguments of one operator call, bound to its schema; `b` makes values.

    Arguments are named as in the operator's schema or numbered by position. `out` is the type of the first
    result as PyTorch itself infers it, which also settles type promotion.
    """

    def __init__(self, builder: Builder, node: fx.Node, target: Operator, values: Callable[[fx.Node], Read]) -> None:
        self.b = builder
        self.node = node
        self._values = values
        self._bound: dict[str, object] = {}
        for position, parameter in enumerate(parameters_of(target)):
            given = position < len(node.args) or parameter.name in node.kwargs
            self._bound[parameter.name] = argument_of(node, position, parameter.name) if given else parameter.default
        self.names = list(self._bound)

    # --- results ------------------------------------------------------------------------------------------

    @property
    def outs(self) -> tuple[TensorType, ...]:
        """Types of all results."""
        fake = fake_of(self.node)
        fakes = cast("Iterable[object]", fake) if isinstance(fake, (list, tuple)) else (fake,)
        return tuple(tensor_type(f) for f in fakes if isinstance(f, torch.Tensor))

    @property
    def out(self) -> TensorType:
        """Type of the first result."""
        if not self.outs:
            raise Unreadable("no tensor result")
        return self.outs[0]

    # --- arguments as they are ----------------------------------------------------------------------------

    def raw(self, key: str | int) -> object:
        """The argument as FX holds it (a node, a number, a list …)."""
        return self._bound[self.names[key] if isinstance(key, int) else key]

    def given(self, key: str | int) -> bool:
        """Whether the operator has this parameter and it is not None."""
        return (isinstance(key, int) or key in self._bound) and self.raw(key) is not None

    def integer(self, key: str | int) -> int:
        value = self.raw(key)
        if isinstance(value, bool) or not isinstance(value, int):
            raise Unreadable(f"{key} is not a static integer")
        return value

    def flag(self, key: str | int) -> bool:
        return bool(self.raw(key))

    def number(self, key: str | int) -> float:
        value = self.raw(key)
        if not isinstance(value, (int, float)):
            raise Unreadable(f"{key} is not a static number")
        return value

    def dtype(self, key: str | int) -> str | None:
        value = self.raw(key)
        return dtype_name(value) if isinstance(value, torch.dtype) else None

    def axis(self, key: str | int, rank: int) -> int:
        """One axis, made non-negative."""
        axis = self.integer(key)
        axis = axis + rank if axis < 0 else axis
        if not 0 <= axis < rank:
            raise Unreadable("an axis of a scalar")
        return axis

    def axes(self, key: str | int, rank: int) -> tuple[int, ...]:
        """A list of axes, sorted and non-negative; none or an empty list means all of them."""
        value = self.raw(key)
        if value is None or value == []:
            return tuple(range(rank))
        items = cast("Sequence[object]", value) if isinstance(value, (list, tuple)) else [value]
        if not all(isinstance(i, int) for i in items):
            raise Unreadable(f"{key} is not static")
        if rank == 0:
            return ()
        return tuple(sorted({cast(int, i) % rank for i in items}))

    def items(self, key: str | int) -> list[object]:
        value = self.raw(key)
        if not isinstance(value, (list, tuple)):
            raise Unreadable(f"{key} is not a list")
        return list(cast("Sequence[object]", value))

    # --- arguments as values ------------------------------------------------------------------------------

    def read(self, argument: object) -> Value:
        """The value that an argument node currently holds."""
        if isinstance(argument, fx.Node):
            value = self._values(argument)
            if isinstance(value, Value):
                return value
        raise Unreadable("an argument is not a tensor of the view")

    def tensor(self, key: str | int) -> Value:
        """A tensor argument in its own dtype."""
        return self.read(self.raw(key))

    def maybe(self, key: str | int) -> Value | None:
        """An optional tensor argument."""
        return self.tensor(key) if self.given(key) else None

    def operand(self, key: str | int, dtype: str | None = None) -> Value:
        """A tensor or number argument, promoted to `dtype` (default: the result's)."""
        return self.promoted(self.raw(key), dtype or self.out.dtype)

    def promoted(self, argument: object, dtype: str) -> Value:
        """A tensor cast to `dtype`, or a number as a constant of it (a Python scalar is weak: kept as it is)."""
        if isinstance(argument, fx.Node) and not is_number(fake_of(argument)):
            return self.b.cast(self.read(argument), dtype)
        if isinstance(argument, fx.Node):
            return self._symbolic(fake_of(argument), dtype)
        return self.b.constant(self.scalar(argument, dtype), dtype)

    def scalar(self, argument: object, dtype: str) -> bool | int | float:
        """A Python number as the operator will see it in `dtype`; float kernels of half types keep its precision."""
        if not isinstance(argument, (bool, int, float)):
            raise Unreadable("not a static number")
        if is_float(dtype):
            return float(argument)
        if dtype == "bool":
            return bool(argument)
        return int(argument)

    def _symbolic(self, number: object, dtype: str) -> Value:
        """A symbolic size used as a number: one opaque scalar per expression, or a constant once it is known."""
        if not isinstance(number, torch.SymInt):
            return self.b.constant(self.scalar(number, dtype), dtype)
        dim = dim_of(number)
        if isinstance(dim, int):
            return self.b.constant(self.scalar(dim, dtype), dtype)
        return self.b.opaque(f"size {dim}", (), TensorType(dtype, ()))

    def common_dtype(self) -> str:
        """The dtype in which the first two arguments meet: a comparison's result does not tell it."""
        sides: list[Any] = [fake_of(a) if isinstance(a, fx.Node) else a for a in (self.raw(0), self.raw(1))]
        if not all(isinstance(s, (torch.Tensor, bool, int, float)) for s in sides):
            raise Unreadable("operands of unknown type")
        return dtype_name(torch.result_type(*sides))

    def static(self, key: str | int, axis: int) -> int:
        """The size of a tensor argument along an axis, which must not be symbolic."""
        size: Dim = self.tensor(key).shape[axis]
        if not isinstance(size, int):
            raise Unreadable("a symbolic size")
        return size

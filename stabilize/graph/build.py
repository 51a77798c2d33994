"""Build values: type inference, dtype promotion, constant folding. The only way values are made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import TypeAlias, cast, final

from stabilize.errors import ShapeError
from stabilize.graph.ops import VOCABULARY, broadcast
from stabilize.graph.value import Attr, Dim, Graph, TensorType, Value

Number: TypeAlias = bool | int | float | Fraction
Operand: TypeAlias = Value | Number


@final
class Builder:
    """Makes values in one graph. Methods are named after primitives; Python numbers become constants."""

    def __init__(self, graph: Graph | None = None) -> None:
        self.graph = Graph() if graph is None else graph
        #: whether new values may be detached: a host without gradients has no operator for it
        self.detaches = True

    # --- leaves -------------------------------------------------------------------------------------------

    def input(self, name: str, type: TensorType) -> Value:
        return self.graph.intern("input", (), (("name", name),), type)

    def opaque(self, target: str, operands: Sequence[Value], type: TensorType, output: int = 0) -> Value:
        """A value that the vocabulary cannot express. Pure calls with equal `target` and operands are one value."""
        return self.graph.intern("opaque", tuple(operands), (("target", target), ("output", output)), type)

    def constant(self, value: bool | int | float, dtype: str, shape: tuple[Dim, ...] = ()) -> Value:
        """A value whose elements all equal `value` (which must already be representable in `dtype`)."""
        return self.make("constant", value=value, dtype=dtype, shape=shape)

    # --- the one general constructor ----------------------------------------------------------------------

    def make(self, op: str, *operands: Value, **attrs: Attr) -> Value:
        """`op` applied to values; ShapeError when the types do not fit."""
        if op == "detach" and not self.detaches:
            return operands[0]
        row = VOCABULARY[op]
        if not row.arity[0] <= len(operands) <= row.arity[1] or attrs.keys() != set(row.attrs):
            raise ShapeError(f"{op} takes {row.arity[0]} to {row.arity[1]} operands and attributes {row.attrs}")
        type = row.infer([o.type for o in operands], attrs)
        return self.graph.intern(op, operands, tuple((name, attrs[name]) for name in row.attrs), type)

    def apply(self, op: str, *operands: Operand, **attrs: Attr) -> Value:
        """Like `make`, with Python numbers as operands: they take the dtype of the value beside them."""
        dtype = next((o.dtype for o in reversed(operands) if isinstance(o, Value)), "float32")
        return self.make(op, *(self._value(o, dtype) for o in operands), **attrs)

    def _value(self, operand: Operand, dtype: str) -> Value:
        if isinstance(operand, Value):
            return operand
        return self.constant(float(operand) if isinstance(operand, Fraction) else operand, dtype)

    # --- shorthands that fold what is trivially foldable ----------------------------------------------------

    def cast(self, value: Value, dtype: str) -> Value:
        if value.dtype == dtype:
            return value
        return self.make("cast", value, dtype=dtype)

    def neg(self, a: Value) -> Value:
        return a.operands[0] if a.op == "neg" else self.make("neg", a)

    def squeeze(self, a: Value, axes: Iterable[int]) -> Value:
        """Remove size-1 axes."""
        gone = tuple(sorted(axes))
        return self._with_ones(a, self.make("squeeze", a, axes=gone).shape) if gone else a

    def unsqueeze(self, a: Value, axes: Iterable[int]) -> Value:
        """Insert size-1 axes (positions in the result)."""
        new = tuple(sorted(axes))
        return self._with_ones(a, self.make("unsqueeze", a, axes=new).shape) if new else a

    def _with_ones(self, a: Value, shape: tuple[Dim, ...]) -> Value:
        """`a` with axes of size 1 added or removed. Such views keep the order of elements, so a chain of them is
        determined by where it starts and the shape it ends with, and is made in one way only."""
        while a.op in ("squeeze", "unsqueeze"):
            a = a.operands[0]
        gone: list[int] = []
        new: list[int] = []
        i = j = 0
        while i < a.type.rank or j < len(shape):
            one_here = i < a.type.rank and a.shape[i] == 1
            one_there = j < len(shape) and shape[j] == 1
            if one_here != one_there:
                (gone if one_here else new).append(i if one_here else j)
            i += one_here or not one_there
            j += one_there or not one_here
        if gone:
            a = self.make("squeeze", a, axes=tuple(gone))
        return self.make("unsqueeze", a, axes=tuple(new)) if new else a

    def expand(self, a: Value, shape: tuple[Dim, ...]) -> Value:
        return a if a.shape == shape else self.make("expand", a, shape=shape)

    def reduce(self, op: str, a: Value, axes: Iterable[int], keepdim: bool = True) -> Value:
        return self.make(op, a, axes=tuple(sorted(axes)), keepdim=keepdim)


_SEEN_THROUGH = frozenset(("expand", "reshape", "unsqueeze", "squeeze", "transpose", "slice", "gather", "detach"))


def constant_of(value: Value) -> bool | int | float | None:
    """The number that every element of `value` equals, seen through layout; None when that is not known."""
    while value.op in _SEEN_THROUGH:
        value = value.operands[0]
    if value.op != "constant":
        return None
    return cast("bool | int | float", value.attr("value"))


def element_count(shape: Sequence[Dim], axes: Sequence[int]) -> int | None:
    """Number of elements along `axes`, or None when one of them is symbolic."""
    count = 1
    for axis in axes:
        size = shape[axis]
        if not isinstance(size, int):
            return None
        count *= size
    return count


def constant_along(value: Value, axes: Sequence[int], rank: int) -> bool:
    """Whether `value`, broadcast to `rank` axes, has size 1 along every one of `axes`."""
    offset = rank - value.type.rank
    return all(a < offset or value.shape[a - offset] == 1 for a in axes)


__all__ = ["Builder", "Number", "Operand", "broadcast", "constant_along", "constant_of", "element_count"]

"""A part of an expression, computed anew in a wider format."""

from __future__ import annotations

from collections.abc import Callable

from stabilize.formats import is_float
from stabilize.graph.build import Builder
from stabilize.graph.value import Value
from stabilize.passes.scaled import number_of


class Widening:
    """Values to be computed in `dtype` (`inside`), from what they stand on, rounded up.

    improved: applied to each value that is made, to repair what a wider format does not.
    """

    def __init__(self, builder: Builder, dtype: str, improved: Callable[[Value], Value] = lambda v: v) -> None:
        self.inside: set[Value] = set()
        self._builder, self._dtype, self._improved = builder, dtype, improved
        self._made: dict[Value, Value] = {}

    def widened(self, value: Value) -> Value:
        """`value` in the wider format; what is no float stays what it is."""
        if value not in self._made:
            self._made[value] = self._widened(value)
        return self._made[value]

    def _widened(self, value: Value) -> Value:
        b, number = self._builder, number_of(value)
        if not is_float(value.dtype):
            return value
        if value not in self.inside:
            return b.cast(value, self._dtype) if number is None else b.constant(float(number), self._dtype, value.shape)
        if value.op == "cast" and is_float(value.operands[0].dtype):
            return self.widened(value.operands[0])
        return self._improved(b.make(value.op, *(self.widened(o) for o in value.operands), **dict(value.attrs)))

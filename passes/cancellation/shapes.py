"""Small shapes that several cancellation rules look for."""

from __future__ import annotations

from fractions import Fraction

from stabilize.graph.value import Value
from stabilize.passes.scaled import number_of


def one_plus(value: Value) -> tuple[Value, Fraction] | None:
    """(x, k) when value = 1 + k·x with k = ±1 and x no constant."""
    if value.op == "add":
        for one, x in (value.operands, value.operands[::-1]):
            if number_of(one) == 1 and number_of(x) is None:
                return _unsigned(x, Fraction(1))
    if value.op == "sub":
        a, b = value.operands
        if number_of(a) == 1 and number_of(b) is None:
            return _unsigned(b, Fraction(-1))
        if number_of(b) == -1 and number_of(a) is None:
            return _unsigned(a, Fraction(1))
    return None


def _unsigned(x: Value, sign: Fraction) -> tuple[Value, Fraction]:
    return (x.operands[0], -sign) if x.op == "neg" else (x, sign)


def square_of(value: Value) -> Value | None:
    """t when value = t²."""
    if value.op == "mul" and value.operands[0] is value.operands[1]:
        return value.operands[0]
    if value.op == "pow" and number_of(value.operands[1]) == 2:
        return value.operands[0]
    return None

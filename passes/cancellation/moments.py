"""What the rules about variances, norms and dot products look for: sums of products, and averages.

A *moment* is k·Σ f₁·f₂·… over axes, k an exact number: a sum of squares, a dot product, a mean. An *average* is
k·E[f₁·f₂·…], plain or weighted by w/Σw or by a softmax.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias, final

from stabilize.formats import FORMATS, is_float
from stabilize.graph.build import Builder, element_count
from stabilize.graph.value import Dim, Value
from stabilize.passes.cancellation.shapes import square_of
from stabilize.passes.linear import ONE
from stabilize.passes.scaled import number_of, widens

#: A sum of more terms than this is not searched for pairs, a product is not taken into more factors, and no more
#: numbers are taken off a value: reading stays linear in the graph.
_MOST_TERMS = 8
_MOST_FACTORS = 8
_MOST_NUMBERS = 8

Factors: TypeAlias = tuple[Value, ...]


@final
@dataclass(frozen=True, slots=True)
class Moment:
    """scale · Σ Π factors over `axes` of a value of shape `source`, over n where `mean`; factors in order of index."""

    factors: Factors
    axes: tuple[int, ...]
    keepdim: bool
    mean: bool
    scale: Fraction
    source: tuple[Dim, ...]

    @property
    def count(self) -> int | None:
        """n, the number of terms; None when it is symbolic."""
        return element_count(self.source, self.axes)


@final
@dataclass(frozen=True, slots=True)
class Average:
    """scale · E[Π body], E a mean over the axes of `moment`, weighted by Π weights/Σ Π weights if there are any."""

    moment: Moment
    body: Factors
    weights: Factors
    scale: Fraction

    @property
    def measure(self) -> tuple[object, ...]:
        """What two averages share when they are taken over the same entries in the same way."""
        m = self.moment
        return self.weights, m.axes, m.keepdim, m.source


def moment(value: Value) -> Moment | None:
    """`value` as a moment, seen through factors that are numbers."""
    inner, scale = unscaled(value)
    if inner.op == "matmul" and all(o.type.rank == 1 for o in inner.operands):
        (left, k), (right, j) = (product(o) for o in inner.operands)
        return Moment(_sorted(left + right), (0,), False, False, scale * k * j, inner.operands[0].shape)
    if inner.op not in ("sum", "mean") or not inner.axes or not is_float(inner.dtype):
        return None
    body = inner.operands[0]
    factors, k = product(body)
    return Moment(factors, inner.axes, bool(inner.attr("keepdim")), inner.op == "mean", scale * k, body.shape)


def average(value: Value) -> Average | None:
    """`value` as an average."""
    inner, k = unscaled(value)
    if inner.op == "div":
        top, bottom = (moment(o) for o in inner.operands)
        body = None if top is None or bottom is None else without(top.factors, bottom.factors)
        if top is None or bottom is None or body is None or top.mean != bottom.mean or not _alongside(bottom, top):
            return None
        return Average(top, body, bottom.factors, k * top.scale / bottom.scale)
    found = moment(inner)
    if found is None or found.count == 0:
        return None
    for factor in found.factors:
        if factor.op == "softmax" and factor.axes == found.axes and factor.shape == found.source and not found.mean:
            return Average(found, without(found.factors, (factor,)) or (), (factor,), k * found.scale)
    if found.mean:
        return Average(found, found.factors, (), k * found.scale)
    return None if found.count is None else Average(found, found.factors, (), k * found.scale * found.count)


def _alongside(weights: Moment, of: Moment) -> bool:
    """Whether a sum of weights runs over the entries that they weigh, with axes counted from the last."""
    ranks = len(weights.source), len(of.source)
    last = [tuple(a - r for a in m.axes) for m, r in zip((weights, of), ranks, strict=True)]
    sizes = [tuple(m.source[a] for a in m.axes) for m in (weights, of)]
    return last[0] == last[1] and sizes[0] == sizes[1] and (weights.keepdim == of.keepdim or ranks[0] == len(of.axes))


def unscaled(value: Value, k: Fraction = ONE) -> tuple[Value, Fraction]:
    """(u, j) with k·value = j·u and u no multiple by a number."""
    for _ in range(_MOST_NUMBERS):
        if value.op == "neg":
            value, k = value.operands[0], -k
        elif value.op == "mul" and (found := _number_beside(value)) is not None:
            value, k = found[0], k * found[1]
        elif value.op == "div" and (number := number_of(value.operands[1])) and value.operands[0].shape == value.shape:
            value, k = value.operands[0], k / number
        else:
            break
    return value, k


def _number_beside(value: Value) -> tuple[Value, Fraction] | None:
    for a, b in (value.operands, value.operands[::-1]):
        if (number := number_of(b)) and a.shape == value.shape:
            return a, number
    return None


def product(value: Value) -> tuple[Factors, Fraction]:
    """(factors, k) with value = k·Π factors; squares count twice, and no factor is a widening of another format."""
    factors: list[Value] = []
    scale = ONE
    stack = [value]
    while stack:
        inner, scale = unscaled(narrowest(stack.pop()), scale)
        base = square_of(inner) if len(factors) + len(stack) < _MOST_FACTORS else None
        if base is not None:
            stack += [base.operands[0] if base.op == "abs" else base] * 2
        elif inner.op == "mul" and len(factors) + len(stack) < _MOST_FACTORS:
            stack += inner.operands
        else:
            factors.append(narrowest(inner))
    return _sorted(factors), scale


def narrowest(value: Value) -> Value:
    """`value` before it was widened: the same numbers."""
    while value.op == "cast" and is_float(value.operands[0].dtype) and widens(value.operands[0].dtype, value.dtype):
        value = value.operands[0]
    return value


def _sorted(factors: Iterable[Value]) -> Factors:
    return tuple(sorted(factors, key=lambda v: v.index))


def without(factors: Factors, gone: Factors) -> Factors | None:
    """`factors` less `gone`, each as often as it occurs; None when they are not all there."""
    left = list(factors)
    for value in gone:
        if value not in left:
            return None
        left.remove(value)
    return tuple(left)


def terms(value: Value) -> list[tuple[Fraction, Value]]:
    """[(k, u)] with value = Σ k·u: sums and differences taken apart; empty when there are too many."""
    found: list[tuple[Fraction, Value]] = []
    stack = [(ONE, value)]
    while stack:
        k, inner = stack.pop()
        inner, k = unscaled(inner, k)
        if inner.op in ("add", "sub"):
            a, b = inner.operands
            stack += [(k if inner.op == "add" else -k, b), (k, a)]
        else:
            found.append((k, inner))
        if len(found) + len(stack) > _MOST_TERMS:
            return []
    return found


def summed(builder: Builder, first: Value, parts: Iterable[tuple[Fraction, Value]]) -> Value:
    """first + Σ k·u."""
    for k, value in parts:
        scaled = builder.cast(value if abs(k) == 1 else builder.apply("mul", value, abs(k)), first.dtype)
        first = builder.make("add" if k > 0 else "sub", first, scaled)
    return first


def carrier(dtypes: Iterable[str]) -> str:
    """The format that sums of values of these formats are carried in: the widest, and at least float32."""
    return max(("float32", *dtypes), key=lambda name: FORMATS[name].precision)


def multiplied(builder: Builder, factors: Factors, dtype: str) -> Value:
    """Π factors in `dtype`; 1 when there are none."""
    wide = [builder.cast(f, dtype) for f in factors]
    result = wide[0] if wide else builder.constant(1.0, dtype)
    for factor in wide[1:]:
        result = builder.make("mul", result, factor)
    return result

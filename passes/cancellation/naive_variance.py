"""# naive-variance (STB401)

## What it does
Finds E[x²] − E[x]² and E[xy] − E[x]E[y] in any scaling: means, sums over n, with Bessel's correction, weighted by
softmax or by w over Σw, clamped at 0, under a root.

## Why it is unstable
Both terms are about μ², and the difference cancels: in float32, x of mean 1e4 and variance 0.954 gives 0.0, or a
negative number whose root is NaN. In float16 the squares overflow from 256 on.

## Example
    x.pow(2).mean(-1) - x.mean(-1).pow(2)
→
    d = x - x.mean(-1, keepdim=True)
    (d * d).mean(-1)

## Shapes
Any axes, kept or not, the same in every mean.

## Error
Relative (n + 4)·u + 2n²u²·μ²/σ² after (two passes); relative (n + 4)·u·(1 + μ²/σ²) before.

## Safety
exact: equal over the reals. A weighted mean must divide by the sum of its own weights, or its weights be a softmax over
the same axis. Data that were centred already are left alone.

## Source
Chan, Golub & LeVeque, The American Statistician 37 (1983), eqs. 1.1 to 1.3; Higham 2002, §1.9.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import final

from stabilize.graph.value import Value
from stabilize.passes.cancellation.moments import (
    Average,
    Factors,
    average,
    carrier,
    multiplied,
    product,
    summed,
    terms,
    without,
)
from stabilize.passes.rule import Context, Proposal, Rule


@final
@dataclass(frozen=True, slots=True)
class Cancelling:
    """scale·(E[xy] − E[x]E[y]) + rest, E being that of `average`."""

    average: Average
    x: Factors
    y: Factors
    scale: Fraction
    rest: tuple[tuple[Fraction, Value], ...]


def match(ctx: Context, value: Value) -> Proposal | None:
    new = repaired(ctx, value)
    return None if new is value else RULE.proposal(value, ctx.emitter.finish(new, value))


def repaired(ctx: Context, value: Value) -> Value:
    """`value` in two passes and at least float32, where its terms cancel; else `value` itself."""
    found = read(value)
    if found is None or any(_centred(f, found.average) for f in (found.x, found.y)):
        return value
    return two_pass(ctx, found)


def read(value: Value) -> Cancelling | None:
    """`value` as a sum of which two terms cancel."""
    if value.op not in ("sub", "add"):
        return None
    parts = terms(value)
    for i, (k, first) in enumerate(parts):
        square = average(first)
        if square is None or len(square.body) < 2:
            continue
        for j, (minus, second) in enumerate(parts):
            if j == i or k * minus >= 0 or second.shape != first.shape:
                continue
            found = _split(square, k, minus, second)
            if found is not None:
                rest = tuple(p for n, p in enumerate(parts) if n not in (i, j))
                return Cancelling(square, *found, k * square.scale, rest)
    return None


def _split(square: Average, k: Fraction, minus: Fraction, second: Value) -> tuple[Factors, Factors] | None:
    """(x, y) when k·square + minus·second = k·scale·(E[xy] − E[x]E[y])."""
    means, factor = product(second)
    sides = [average(m) for m in means]
    if len(sides) != 2 or sides[0] is None or sides[1] is None:
        return None
    x, y = sides[0], sides[1]
    if x.measure != square.measure or y.measure != square.measure or without(square.body, x.body) != y.body:
        return None
    return (x.body, y.body) if k * square.scale + minus * factor * x.scale * y.scale == 0 else None


def _centred(factors: Factors, over: Average) -> bool:
    """x − mean x: what a compensated two-pass variance subtracts the square of is a rounding error, and wanted."""
    for factor in factors:
        for k, part in terms(factor):
            mean = average(part) if k < 0 else None
            if mean is not None and mean.moment.axes == over.moment.axes:
                return True
    return False


def two_pass(ctx: Context, found: Cancelling) -> Value:
    """scale·E[(x − E[x])·(y − E[y])] + rest, in at least float32."""
    b, m = ctx.builder, found.average.moment
    dtype = carrier(f.dtype for f in m.factors)
    weights = found.average.weights
    deviations = tuple(_deviation(ctx, f, found.average, dtype) for f in (found.x, found.y))
    body = b.expand(multiplied(b, (*weights, *deviations), dtype), m.source)
    if weights or not m.mean:
        result = b.reduce("sum", body, m.axes, m.keepdim)
        scale = found.scale / (m.count or 1) if not weights else found.scale
    else:
        result, scale = b.reduce("mean", body, m.axes, m.keepdim), found.scale
    if weights and not _normalised(weights):
        result = b.make("div", result, _total(ctx, found.average, dtype, m.keepdim))
    return summed(b, ctx.engine.algebra.times(result, scale), found.rest)


def _deviation(ctx: Context, factors: Factors, over: Average, dtype: str) -> Value:
    """x − E[x]."""
    b, m = ctx.builder, over.moment
    x = b.expand(multiplied(b, factors, dtype), m.source)
    if not over.weights:
        return b.make("sub", x, b.reduce("mean", x, m.axes))
    mean = b.reduce("sum", multiplied(b, (*over.weights, x), dtype), m.axes)
    if not _normalised(over.weights):
        mean = b.make("div", mean, _total(ctx, over, dtype, True))
    return b.make("sub", x, mean)


def _normalised(weights: Factors) -> bool:
    return len(weights) == 1 and weights[0].op == "softmax"


def _total(ctx: Context, over: Average, dtype: str, keepdim: bool) -> Value:
    """Σ of the weights."""
    b = ctx.builder
    return b.reduce("sum", b.expand(multiplied(b, over.weights, dtype), over.moment.source), over.moment.axes, keepdim)


RULE = Rule("STB401", "naive-variance", frozenset({"sub", "add"}), match, __doc__, "warning")

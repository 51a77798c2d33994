"""# log-of-difference (STB212)

## What it does
Finds log(eᵃ − eᵇ), log(1 − eˣ), log(eˣ − 1) and log(expm1(x)), in any spelling of the exponentials.

## Why it is unstable
Where the exponents are close the subtraction cancels; where one is large it overflows (inf − inf = NaN); where one is
small it is lost beside the other. Neither log1p(−exp(x)) nor log(−expm1(x)) alone is accurate for all x < 0.

## Example
    log(exp(a) - exp(b))
→
    a + log1mexp(b - a),   log1mexp(x) = where(x > -ln 2, log(-expm1(x)), log1p(-exp(x)))

## Shapes
Elementwise, any shape.

## Error
Absolute (4 + |a| + |b|)·u after; unbounded before.

## Safety
exact: equal over the reals; NaN where b > a, as before. The branch not taken is evaluated at a harmless point, so it
can spoil no gradient.

## Source
Mächler, Accurately computing log(1 − exp(−|a|)), 2012.
"""

from __future__ import annotations

import math

from stabilize.graph.value import Value
from stabilize.passes.cancellation.shapes import one_plus
from stabilize.passes.linear import Linear
from stabilize.passes.rule import Context, Proposal, Rule
from stabilize.passes.scaled import number_of


def match(ctx: Context, value: Value) -> Proposal | None:
    found = _exponents(ctx, value)
    if found is None:
        return None
    larger, smaller = found
    gap = smaller - larger
    lo, hi = ctx.bounds(value, gap)
    if hi <= -0.5 if value.op == "log1p" else lo >= -1.0 and _is_expm1(value):
        return None  # the form that is accurate there
    carrier = ctx.emitter.carrier(value, larger + smaller)
    new = log1mexp(ctx, ctx.emitter.operand(gap, carrier))
    if not larger.is_zero:
        new = ctx.builder.make("add", ctx.emitter.build(larger, carrier), new)
    return RULE.proposal(value, ctx.emitter.finish(new, value))


def _exponents(ctx: Context, value: Value) -> tuple[Linear, Linear] | None:
    """(a, b) when value = log(eᵃ − eᵇ)."""
    if value.op == "log1p" and value.operands[0].op == "neg":
        b = _exponent(ctx, value.operands[0].operands[0])
        return None if b is None else (Linear(), b)
    if value.op != "log":
        return None
    inside = value.operands[0]
    if inside.op == "expm1":
        return ctx.engine.linear(inside.operands[0]), Linear()
    if inside.op == "neg" and inside.operands[0].op == "expm1":
        return Linear(), ctx.engine.linear(inside.operands[0].operands[0])
    found = one_plus(inside)
    if found is not None and found[1] < 0:
        b = _exponent(ctx, found[0])
        return None if b is None else (Linear(), b)
    if inside.op == "sub":
        a, b = _exponent(ctx, inside.operands[0]), _exponent(ctx, inside.operands[1])
        if number_of(inside.operands[1]) == 1:
            b = Linear()
        return None if a is None or b is None else (a, b)
    return None


def _exponent(ctx: Context, value: Value) -> Linear | None:
    """The exponent of a plain exponential (a softmax or sigmoid loses nothing here that its log would keep)."""
    reading = ctx.engine.scaled(value)
    if value.op not in ("exp", "pow", "mul", "div", "sqrt") or reading.trivial or reading.number != 1:
        return None
    fused = any(a.op in ("logsumexp", "softplus") for a in reading.exponent.atoms)
    return None if fused else reading.exponent


def _is_expm1(value: Value) -> bool:
    inside = value.operands[0]
    return inside.op == "neg" and inside.operands[0].op == "expm1"


def log1mexp(ctx: Context, x: Value) -> Value:
    """log(1 − exp(x)), accurate for every x ≤ 0; NaN for x > 0, with a gradient of 0 where nothing depends on it."""
    b = ctx.builder
    near = b.make("gt", x, b.constant(-math.log(2.0), x.dtype))
    capped = b.apply("minimum", x, 1.0)  # expm1 of a large x is inf, and its gradient 0·inf
    here = b.apply("where", near, capped, -0.5)
    there = b.apply("where", near, b.constant(-1.0, x.dtype), x)
    close = b.make("log", b.neg(b.make("expm1", here)))
    far = b.make("log1p", b.neg(b.make("exp", there)))
    return b.make("where", near, close, far)


RULE = Rule("STB212", "log-of-difference", frozenset({"log", "log1p"}), match, __doc__, "warning")

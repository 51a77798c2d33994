"""# log-one-minus-exp (STB212)

## What it does
Finds log(1 − exp(x)) for x ≤ 0, in any spelling of the exponential.

## Why it is unstable
Near 0 the subtraction cancels; far below, exp(x) is lost beside 1 and the log is 0. Neither log1p(−exp(x)) nor
log(−expm1(x)) alone is accurate on both sides.

## Example
    log(1 - exp(-a))
→
    where(a < ln 2, log(-expm1(-a)), log1p(-exp(-a)))

## Shapes
Elementwise, any shape.

## Error
Relative 4u after; unbounded before.

## Safety
exact: equal over the reals. The branch not taken is evaluated at a harmless point, so it can spoil no gradient.

## Source
Mächler, Accurately computing log(1 − exp(−|a|)), 2012.
"""

from __future__ import annotations

import math

from stabilize.graph.value import Value
from stabilize.passes.cancellation.shapes import one_plus
from stabilize.passes.rule import Context, Proposal, Rule


def match(ctx: Context, value: Value) -> Proposal | None:
    if value.op not in ("log", "log1p"):
        return None
    inner = value.operands[0]
    if value.op == "log":
        found = one_plus(inner)
        if found is None or found[1] > 0:
            return None
        inner = found[0]
    elif inner.op == "neg":
        inner = inner.operands[0]
    else:
        return None
    reading = ctx.engine.scaled(inner)
    if inner.op not in ("exp", "pow") or reading.trivial or reading.number != 1:
        return None
    carrier = ctx.emitter.carrier(value, reading.exponent)
    x = ctx.emitter.build(reading.exponent, carrier)
    return RULE.proposal(value, ctx.emitter.finish(log1mexp(ctx, x), value))


def log1mexp(ctx: Context, x: Value) -> Value:
    """log(1 − exp(x)), accurate for every x ≤ 0."""
    b = ctx.builder
    near = b.make("gt", x, b.constant(-math.log(2.0), x.dtype))
    here = b.apply("where", near, x, -0.5)
    there = b.apply("where", near, b.constant(-1.0, x.dtype), x)
    close = b.make("log", b.neg(b.make("expm1", here)))
    far = b.make("log1p", b.neg(b.make("exp", there)))
    return b.make("where", near, close, far)


RULE = Rule("STB212", "log-one-minus-exp", frozenset({"log", "log1p"}), match, __doc__, "warning")

"""# log-of-sigmoid-difference (STB228)

## What it does
Finds log(σ(a) − σ(b)): the log-probability of an interval of a logistic distribution (discretised logistic mixtures).

## Why it is unstable
Both sigmoids round to 1 (or to 0) when the interval lies in a tail: the difference is 0 and its log −inf; for a narrow
interval it cancels.

## Example
    log(sigmoid(a) - sigmoid(b))
→
    log_sigmoid(a) + log_sigmoid(-b) + log1mexp(b - a)

## Shapes
Elementwise, any shape.

## Error
Absolute (6 + |a| + |b|)·u after; infinite before.

## Safety
exact: σ(a) − σ(b) = σ(a)·σ(−b)·(1 − e^(b − a)); NaN where b > a, as before.

## Source
Salimans et al., PixelCNN++, ICLR 2017 (the loss); Mächler 2012 (log1mexp).
"""

from __future__ import annotations

from fractions import Fraction

from stabilize.graph.value import Value
from stabilize.passes.cancellation.complement_of_sigmoid import logit_of
from stabilize.passes.cancellation.log_of_difference import log1mexp
from stabilize.passes.rule import Context, Proposal, Rule, exponents


def match(ctx: Context, value: Value) -> Proposal | None:
    inside = value.operands[0]
    if inside.op != "sub":
        return None
    a, b = (logit_of(ctx, ctx.engine.scaled(o)) for o in inside.operands)
    if a is None or b is None:
        return None
    minus = Fraction(-1)
    dtype = ctx.emitter.carrier(value, a + b)
    make = ctx.builder.make
    parts = [make("log_sigmoid", ctx.emitter.operand(form, dtype)) for form in (a, b.scale(minus))]
    # NaN above 0 all the same: the cap keeps the gradient of a NaN from being one
    gap = log1mexp(ctx, ctx.builder.apply("minimum", ctx.emitter.operand(b - a, dtype), 1.0))
    return RULE.proposal(value, ctx.emitter.finish(make("add", make("add", *parts), gap), value))


RULE = Rule("STB228", "log-of-sigmoid-difference", frozenset({"log"}), match, __doc__, "error", exponents)

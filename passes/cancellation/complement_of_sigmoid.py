"""# complement-of-sigmoid (STB218)

## What it does
Finds 1 − σ(x), 1 − 2σ(x), σ(x) − ½ in any spelling of the sigmoid, and 1 − tanh(x)².

## Why it is unstable
σ(x) rounds to 1 above 17 in float32 (8 in float16): the difference, and its gradient, is exactly 0.

## Example
    1 - sigmoid(x)
→
    sigmoid(-x)

## Shapes
Elementwise, any shape.

## Error
Relative 3u after; relative u/(1 − σ) before.

## Safety
exact: 1 − σ(x) = σ(−x), 1 − 2σ(x) = −tanh(x/2), 1 − tanh(x)² = 4·σ(2x)·σ(−2x).

## Source
Identity.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from stabilize.graph.value import Value
from stabilize.passes.cancellation.shapes import one_plus
from stabilize.passes.linear import Linear
from stabilize.passes.rule import Context, Proposal, Rule
from stabilize.passes.scaled import Scaled


def match(ctx: Context, value: Value) -> Proposal | None:
    reading = ctx.engine.scaled(value)
    found = one_plus(value)
    if found is not None and found[0].op == "tanh":
        return None  # half of a GELU: what 1 + tanh loses at −1 is absorbed there
    if not reading.trivial and reading.number is not None:
        split = ctx.emitter.split(reading.exponent)
        if found and not split.constant and all(t.kind == "log_sigmoid" for _, t in split.terms):
            return RULE.proposal(value, ctx.emitter.scaled(reading, value))
    return _double(ctx, value)


def _double(ctx: Context, value: Value) -> Proposal | None:
    """k − 2k·σ(w) = −k·tanh(w/2), and 2k·σ(w) − k."""
    if value.op != "sub":
        return None
    level, other = (ctx.engine.scaled(o) for o in value.operands)
    sign = Fraction(-1)
    if not level.trivial:
        level, other, sign = other, level, Fraction(1)
    k = level.number
    if not level.trivial or not k or other.number != 2 * k or other.trivial:
        return None
    w = logit_of(ctx, replace(other, coefficient=ctx.engine.one(value.dtype)))
    if w is None:
        return None
    half = w.scale(sign / 2)
    body = ctx.builder.make("tanh", ctx.emitter.operand(half, ctx.emitter.carrier(value, half)))
    return RULE.proposal(value, ctx.emitter.finish(ctx.engine.algebra.times(body, k), value))


def logit_of(ctx: Context, reading: Scaled) -> Linear | None:
    """w when a value read as `reading` is σ(w), in any spelling."""
    if reading.trivial or reading.number != 1:
        return None
    split = ctx.emitter.split(reading.exponent)
    if len(split.terms) != 1 or split.constant:
        return None
    k, term = split.terms[0]
    return term.form if term.kind == "log_sigmoid" and k == 1 and not term.views else None


RULE = Rule("STB218", "complement-of-sigmoid", frozenset({"sub", "add"}), match, __doc__, "info")

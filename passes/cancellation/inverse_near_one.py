"""# inverse-function-near-one (STB412)

## What it does
Finds arccos(1 − t), arcosh(1 + t) and artanh(1 − t): angles and hyperbolic distances (the Poincaré ball) from what
separates their argument from 1.

## Why it is unstable
1 ± t rounds away the low digits of a small t: in float32 the distance arcosh(1 + t) is 0 for every t below 6e-8, where
it is about √(2t), up to 3.4e-4.

## Example
    acosh(1 + t)
→
    2 * asinh(sqrt(t/2))
    acos(1 - t)
→
    2 * asin(sqrt(t/2))
    atanh(1 - t)
→
    where(0 < t < 1/2, log1p(2*(1 - t)/t) / 2, atanh(1 - t))

## Shapes
Elementwise, any shape.

## Error
Relative 4u after; relative u/t before.

## Safety
exact: half-argument identities, with the same domains; NaN outside them as before.

## Source
NIST DLMF 4.35 and 4.21; Nickel & Kiela, NeurIPS 2017 (the distance of the Poincaré ball).
"""

from __future__ import annotations

from fractions import Fraction

from stabilize.formats import FORMATS
from stabilize.graph.value import Value
from stabilize.passes.cancellation.shapes import one_plus, square_of, widened
from stabilize.passes.polynomial import polynomial
from stabilize.passes.rule import Context, Proposal, Rule


def match(ctx: Context, value: Value) -> Proposal | None:
    found = one_plus(value.operands[0])
    if found is None:
        return None
    b, bounds = ctx.builder, ctx.ranges.of(found[0])
    if bounds.lo > 1 or bounds.hi < -1:
        return None
    t = widened(ctx, found[0])
    if (found[1] < 0) == (value.op == "acosh"):
        t = b.neg(t)  # what is subtracted for arccos and artanh, added for arcosh
    if value.op == "atanh":
        return RULE.proposal(value, ctx.emitter.finish(_artanh(ctx, t), value))
    half = (_length(ctx, t) if value.op == "acosh" else None) or b.make("sqrt", b.apply("mul", t, 0.5))
    angle = b.make("asinh" if value.op == "acosh" else "asin", half)
    return RULE.proposal(value, ctx.emitter.finish(b.apply("mul", angle, 2.0), value))


def _length(ctx: Context, t: Value) -> Value | None:
    """√(t/2) for t = k·‖v‖²/d, as a length: ‖v‖² underflows long before ‖v‖."""
    if t.op != "div":
        return None
    terms = polynomial(t.operands[0]).terms
    ((monomial, k),) = terms.items() if len(terms) == 1 else (((), Fraction(0)),)
    if len(monomial) != 1 or monomial[0].op != "sum" or k <= 0:
        return None
    (total,) = monomial
    vector = square_of(total.operands[0])
    if vector is None:
        return None
    b, v = ctx.builder, widened(ctx, vector)
    fmt = FORMATS[v.dtype]
    largest = b.make("detach", b.reduce("max", b.make("abs", v), total.axes))
    scale = b.apply("minimum", b.apply("maximum", largest, fmt.min_normal), fmt.max)
    length = b.make("mul", b.reduce("norm", b.make("div", v, scale), total.axes), scale)
    length = length if total.attr("keepdim") else b.squeeze(length, total.axes)
    return b.make("mul", length, b.make("sqrt", b.apply("div", float(k / 2), widened(ctx, t.operands[1]))))


def _artanh(ctx: Context, t: Value) -> Value:
    """artanh(1 − t) = ln(1 + 2(1 − t)/t)/2 for 0 < t < ½; beyond it 1 − t is exact, or its rounding harmless."""
    b = ctx.builder
    near = b.make("and", b.apply("gt", t, 0.0), b.apply("lt", t, 0.5))
    inside = b.apply("where", near, t, 0.25)
    odds = b.make("div", b.apply("mul", b.apply("sub", 1.0, inside), 2.0), inside)
    far = b.make("atanh", b.apply("where", near, 0.0, b.apply("sub", 1.0, t)))
    return b.make("where", near, b.apply("mul", b.make("log1p", odds), 0.5), far)


RULE = Rule("STB412", "inverse-function-near-one", frozenset({"acos", "acosh", "atanh"}), match, __doc__, "warning")

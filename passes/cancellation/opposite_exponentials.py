"""# opposite-exponentials (STB227)

## What it does
Finds eˣ − e⁻ˣ: sinh by hand.

## Why it is unstable
Near 0 both exponentials are near 1: in float32 every |x| below 3e-8 gives 0, and at 1e-4 four digits are left.

## Example
    (exp(x) - exp(-x)) / 2
→
    sinh(x)

## Shapes
Elementwise, any shape.

## Error
Relative 3u after; relative u/|x| before.

## Safety
exact: the definition. Both overflow at the same point, up to a factor of 2.

## Source
NIST DLMF 4.28.1.
"""

from __future__ import annotations

from fractions import Fraction

from stabilize.graph.value import Value
from stabilize.passes.cancellation.shapes import widened
from stabilize.passes.rule import Context, Proposal, Rule
from stabilize.passes.scaled import number_of


def match(ctx: Context, value: Value) -> Proposal | None:
    halved = _halved(value)
    difference, factor = (value, Fraction(1)) if halved is None else halved
    if difference.op != "sub":
        return None
    up, down = (ctx.engine.scaled(o) for o in difference.operands)
    if up.trivial or down.trivial or up.number is None or up.number != down.number:
        return None
    if up.exponent + down.exponent != up.exponent - up.exponent or len(up.exponent.terms) != 1:
        return None
    bounds = ctx.ranges.bounds(up.exponent)
    if bounds[0] > 1 or bounds[1] < -1:
        return None
    x = ctx.emitter.operand(up.exponent, widened(ctx, value).dtype)
    new = ctx.engine.algebra.times(ctx.builder.make("sinh", x), 2 * up.number * factor)
    return RULE.proposal(value, ctx.emitter.finish(new, value))


def _halved(value: Value) -> tuple[Value, Fraction] | None:
    """(d, k) when value = k·d, k a number."""
    if value.op not in ("mul", "div"):
        return None
    a, b = value.operands
    k = number_of(b)
    if k:
        return a, (k if value.op == "mul" else 1 / k)
    k = number_of(a)
    return (b, k) if k and value.op == "mul" else None


RULE = Rule("STB227", "opposite-exponentials", frozenset({"sub", "mul", "div"}), match, __doc__, "warning")

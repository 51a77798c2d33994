"""# complementary-power (STB214)

## What it does
Finds 1 − pᵠ and 1 − (1 − p)ᴺ: the chance of at least one success, generalised cross-entropy.

## Why it is unstable
The power is near 1 when p is near 1 (or Np is small) and the subtraction cancels: 1 − (1 − 1e-9)^1000 is 0 in float32
where the answer is 1e-6.

## Example
    1 - (1 - p)**N
→
    -expm1(N*log1p(-p))

## Shapes
Elementwise, any shape.

## Error
Relative (3 + |q·log p|)·u after; relative u/(1 − pᵠ) before.

## Safety
exact where the base cannot be negative, or the power is no integer (a negative base gives NaN in both). For an
integer power pass the range of p: a base known to be non-negative is needed.

## Source
Zhang & Sabuncu, NeurIPS 2018 (generalised cross-entropy); Higham 2002, §1.14.1.
"""

from __future__ import annotations

from stabilize.graph.value import Value
from stabilize.passes.cancellation.shapes import one_plus
from stabilize.passes.rule import Context, Proposal, Rule
from stabilize.passes.scaled import number_of


def match(ctx: Context, value: Value) -> Proposal | None:
    found = one_plus(value)
    if found is None or found[1] > 0 or found[0].op != "pow":
        return None
    base, power = found[0].operands
    n = number_of(power)
    if n is None or n <= 0 or not ctx.engine.scaled(base).trivial:
        return None
    if n.denominator == 1 and ctx.ranges.of(base).lo < 0:
        return None
    b = ctx.builder
    inside = one_plus(base)
    if inside is not None:
        x, sign = inside
        logarithm = b.make("log1p", x if sign > 0 else b.neg(x))
    else:
        logarithm = b.make("log", base)
    new = b.neg(b.make("expm1", ctx.engine.algebra.times(logarithm, n)))
    return RULE.proposal(value, ctx.emitter.finish(new, value))


RULE = Rule("STB214", "complementary-power", frozenset({"sub", "add"}), match, __doc__, "warning")

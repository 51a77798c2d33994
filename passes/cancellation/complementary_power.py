"""# complementary-power (STB214)

## What it does
Finds 1 − pᵠ and 1 − (1 − p)ᴺ: generalised cross-entropy, the chance of at least one success.

## Why it is unstable
The power is near 1 when p is near 1 (or Np is small) and the subtraction cancels: 1 − (1 − 1e-9)^1000 is 0 in float32
where the answer is 1e-6.

## Example
    1 - (1 - p)**N
→
    p·(1 + q + q² + … + q^(N−1)), q = 1 - p     for an integer N ≤ 1024, by repeated squaring: 2·log2 N products
    where(pᵠ > 1/2, -expm1(q*log p), 1 - pᵠ)    else

## Shapes
Elementwise, any shape.

## Error
Relative (3·log2 N + 3)·u, or (3 + |q·log p|)·u, after; relative u/(1 − pᵠ) before.

## Safety
exact: an identity of polynomials for an integer power; for other powers a negative base gives NaN in both. An
integer power of a base other than 1 − p is rewritten when the base is known not to be negative.

## Source
Zhang & Sabuncu, NeurIPS 2018 (generalised cross-entropy); Higham 2002, §1.14.1.
"""

from __future__ import annotations

from fractions import Fraction

from stabilize.graph.value import Value
from stabilize.passes.cancellation.shapes import one_plus
from stabilize.passes.rule import Context, Proposal, Rule
from stabilize.passes.scaled import number_of

_MOST_FACTORS = 1024


def match(ctx: Context, value: Value) -> Proposal | None:
    found = one_plus(value)
    if found is None or found[1] > 0 or found[0].op != "pow":
        return None
    base, power = found[0].operands
    n = number_of(power)
    if n is None or n <= 0 or not ctx.engine.scaled(base).trivial:
        return None
    inside = one_plus(base)
    if inside is not None and inside[1] < 0 and n.denominator == 1 and n <= _MOST_FACTORS:
        return RULE.proposal(value, _geometric(ctx, inside[0], base, int(n)))
    if n.denominator == 1 and ctx.ranges.of(base).lo < 0:
        return None
    return RULE.proposal(value, _by_expm1(ctx, found[0], n))


def _by_expm1(ctx: Context, power: Value, n: Fraction) -> Value:
    """−expm1(n·log base) where the power is near 1, 1 − power where it is not (there expm1 would lose the gradient)."""
    b, base = ctx.builder, power.operands[0]
    near = b.make("gt", power, b.constant(0.5, power.dtype))
    inside = one_plus(base)
    if inside is not None:
        x, sign = inside
        shown = b.apply("where", near, x, 0.0)
        logarithm = b.make("log1p", shown if sign > 0 else b.neg(shown))
    else:
        logarithm = b.make("log", b.apply("where", near, base, 1.0))
    cancelling = b.neg(b.make("expm1", ctx.engine.algebra.times(logarithm, n)))
    return b.make("where", near, cancelling, b.apply("sub", 1.0, b.apply("where", near, 0.0, power)))


def _geometric(ctx: Context, p: Value, q: Value, n: int) -> Value:
    """1 − qⁿ with q = 1 − p: 1 − q²ᵏ = (1 − qᵏ)(1 + qᵏ), 1 − qᵏ⁺¹ = p + q·(1 − qᵏ). No term is negative in [0, 1]."""
    b = ctx.builder
    result, power, k = p, q, 1  # 1 − qᵏ and qᵏ
    for bit in bin(n)[3:]:
        result = b.make("mul", result, b.apply("add", power, 1.0))
        power, k = b.make("mul", power, power), 2 * k
        if bit == "1":
            result = b.make("add", p, b.make("mul", q, result))
            power, k = b.make("mul", power, q), k + 1
    assert k == n
    return result


RULE = Rule("STB214", "complementary-power", frozenset({"sub", "add"}), match, __doc__, "warning")

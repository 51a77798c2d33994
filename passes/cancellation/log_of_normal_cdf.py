"""# log-of-normal-cdf (STB224)

## What it does
Finds log Φ(x), log((1 + erf(x))/2) and log erfc(x) in any spelling: the logarithm of a tail of the normal distribution.

## Why it is unstable
1 + erf(x/√2) cancels from x = −3 on and is 0 in float32 from −5.3 on, and Φ(x) itself underflows from −14.2 on: the log
is −inf where it is about −x²/2.

## Example
    log(0.5 * (1 + erf(x / sqrt(2))))
→
    log_ndtr(x)

## Shapes
Elementwise, any shape.

## Error
Relative (6 + x²·δ)·u after, δ the error of x in ulps; infinite before. ONNX, which has erf alone, gets exponentials and
a polynomial: relative 6u.

## Safety
exact: log((1 + erf z)/2) = ln Φ(√2·z), erfc z = erfcx(z)·exp(−z²). √2 times a constant of the user is rounded
to float64 once.

## Source
NIST DLMF 7.2 and 7.18; Cody, Math. Comp. 23 (1969).
"""

from __future__ import annotations

import math
from fractions import Fraction

from stabilize.formats import FORMATS
from stabilize.graph.value import Value
from stabilize.passes.cancellation.shapes import widened
from stabilize.passes.linear import Linear
from stabilize.passes.polynomial import Polynomial, polynomial
from stabilize.passes.rule import Context, Proposal, Rule

#: √2 to 32 digits: products with it are rounded once.
ROOT_TWO = Fraction(14142135623730950488016887242097, 10**31)


def match(ctx: Context, value: Value) -> Proposal | None:
    form = polynomial(value.operands[0])
    if value.op == "log1p":
        form = form + Polynomial.collect([((), Fraction(1))])
    tail = _tail(form)
    if tail is None:
        return None
    k, (z, sign) = tail
    if k == Fraction(1, 2):
        x = _argument(ctx, z, sign, value)
        candidates = [ctx.builder.make("log_ndtr", x), _by_erfcx(ctx, x)]
    else:
        wide = widened(ctx, z)
        new = _log_one_plus_erf(ctx, wide if sign > 0 else ctx.builder.neg(wide))
        candidates = [new if k == 1 else ctx.builder.apply("add", new, math.log(k))]
    return RULE.proposal(value, *(ctx.emitter.finish(c, value) for c in candidates))


def _argument(ctx: Context, z: Value, sign: int, like: Value) -> Value:
    """±√2·z, a constant factor of z and √2 taken together and rounded to the format it meets."""
    dtype = widened(ctx, like).dtype
    scaled = ctx.engine.linear(z).scale(ROOT_TWO * sign)
    terms = tuple((a, _rounded(k, dtype)) for a, k in scaled.terms)
    return ctx.emitter.operand(Linear(terms, _rounded(scaled.constant, dtype)), dtype)


def _rounded(k: Fraction, dtype: str) -> Fraction:
    return Fraction(FORMATS[dtype].nearest(float(k)))


def _by_erfcx(ctx: Context, x: Value) -> Value:
    """ln(erfcx(z)/2) − x²/2 below −1, log1p(−erfc(−z)/2) above, z = −x/√2: its gradient keeps its digits far out, where
    PyTorch takes that of log_ndtr as an exponential of a difference of large numbers."""
    b, root = ctx.builder, math.sqrt(0.5)
    below = b.apply("lt", x, -1.0)
    low, high = b.apply("where", below, x, -2.0), b.apply("where", below, 0.0, x)
    scaled = b.apply("mul", b.make("erfcx", b.apply("mul", low, -root)), 0.5)
    lower = b.make("sub", b.make("log", scaled), b.make("mul", b.apply("mul", low, 0.5), low))
    upper = b.make("log1p", b.apply("mul", b.make("erfc", b.apply("mul", high, root)), -0.5))
    return b.make("where", below, lower, upper)


def _log_one_plus_erf(ctx: Context, z: Value) -> Value:
    """ln(erfcx(−z)) − z² below −1, log1p(erf(z)) above."""
    b = ctx.builder
    below = b.apply("lt", z, -1.0)
    low, high = b.apply("where", below, z, -2.0), b.apply("where", below, 0.0, z)
    lower = b.make("sub", b.make("log", b.make("erfcx", b.neg(low))), b.make("mul", low, low))
    return b.make("where", below, lower, b.make("log1p", b.make("erf", high)))


def _tail(form: Polynomial) -> tuple[Fraction, tuple[Value, int]] | None:
    """(k, (z, ±1)) when the polynomial is k·(1 + erf(±z)) or k·erfc(∓z), k > 0."""
    variables = [(m[0], k) for m, k in form.terms.items() if len(m) == 1]
    k = form.terms.get((), Fraction(0))
    if len(variables) != 1 or len(form.terms) != 1 + bool(k):
        return None
    function, j = variables[0]
    if function.op == "erfc" and not k and j > 0:
        return j, (function.operands[0], -1)
    if function.op == "erfc" and j < 0 and k == -2 * j:
        return -j, (function.operands[0], 1)  # 2 − erfc(z) = erfc(−z)
    if function.op == "erf" and k > 0 and abs(j) == k:
        return k, (function.operands[0], 1 if j > 0 else -1)
    return None


RULE = Rule("STB224", "log-of-normal-cdf", frozenset({"log", "log1p"}), match, __doc__, "error",
            lambda fmt: f"x below -{math.sqrt(-2 * fmt.exp_underflow):.3g} in {fmt.name}")  # fmt: skip

"""# erfc-times-gaussian (STB225)

## What it does
Finds exp(x²)·erfc(x), erfc(x)/exp(−x²) and exp(−x²)/erfc(x): Mills ratios, hazard rates, expected improvement.

## Why it is unstable
One factor underflows where the other overflows: in float32 the product is 0·inf = NaN from x = 10.06 on, where it is
about 1/(x√π).

## Example
    exp(x*x) * erfc(x)
→
    erfcx(x)

## Shapes
Elementwise, any shape.

## Error
Relative 5u after; NaN, and relative 2x²·u, before.

## Safety
exact: what the constants of the two factors differ by, if anything (√½ rounded, against ½), stays as an exponential.

## Source
NIST DLMF 7.2.3, 7.8 (Mills' ratio).
"""

from __future__ import annotations

from fractions import Fraction

from stabilize.graph.value import Value
from stabilize.passes.cancellation.shapes import widened
from stabilize.passes.polynomial import Polynomial, materialise, polynomial
from stabilize.passes.rule import Context, Proposal, Rule

#: What may be left of the exponent: the two constants are one number rounded twice.
_SLACK = Fraction(1, 2**20)


def match(ctx: Context, value: Value) -> Proposal | None:
    divided = value.op == "div"
    for a, b in (value.operands, value.operands[::-1]):
        gauss, tail = _factor(a, "exp"), _factor(b, "erfc")
        if gauss is None or tail is None:
            continue
        inverse = divided and b is value.operands[1]  # the tail is below
        exponent = polynomial(gauss[1]).scale(Fraction(-1 if divided and not inverse else 1))
        z = polynomial(tail[1])
        rest = exponent + (z * z if inverse else (z * z).scale(Fraction(-1)))
        if not _small(rest, z * z):
            return None
        factor = gauss[0] / tail[0] if inverse else tail[0] / gauss[0] if divided else gauss[0] * tail[0]
        new = _ratio(ctx, tail[1], gauss[1]) if inverse else ctx.builder.make("erfcx", widened(ctx, tail[1]))
        return RULE.proposal(value, ctx.emitter.finish(_scaled(ctx, new, rest, factor), value))
    return None


def _factor(value: Value, op: str) -> tuple[Fraction, Value] | None:
    """(k, x) when value = k·op(x)."""
    form = polynomial(value)
    if len(form.terms) != 1:
        return None
    ((monomial, k),) = form.terms.items()
    if len(monomial) != 1 or monomial[0].op != op:
        return None
    return k, monomial[0].operands[0]


def _small(rest: Polynomial, square: Polynomial) -> bool:
    """Whether `rest` is nothing, or the rounding of the coefficients of `square`."""
    return all(m in square.terms and abs(k) <= _SLACK * abs(square.terms[m]) for m, k in rest.terms.items())


def _ratio(ctx: Context, z: Value, exponent: Value) -> Value:
    """exp(−z²)/erfc(z): 1/erfcx(z) for z > 0, the quotient where erfc is between 1 and 2 and erfcx overflows."""
    b = ctx.builder
    z, exponent = widened(ctx, z), widened(ctx, exponent)
    above = b.apply("gt", z, 0.0)
    upper = b.apply("div", 1.0, b.make("erfcx", b.apply("where", above, z, 0.0)))
    lower = b.make("div", b.make("exp", exponent), b.make("erfc", b.apply("where", above, 0.0, z)))
    return b.make("where", above, upper, lower)


def _scaled(ctx: Context, value: Value, rest: Polynomial, k: Fraction) -> Value:
    """k·exp(rest)·value."""
    b = ctx.builder
    if rest.terms:
        value = b.make("mul", value, b.make("exp", materialise(b, rest, value.dtype)))
    return value if k == 1 else b.apply("mul", value, float(k))


RULE = Rule("STB225", "erfc-times-gaussian", frozenset({"mul", "div"}), match, __doc__)

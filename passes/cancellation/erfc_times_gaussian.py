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

import math
from fractions import Fraction

from stabilize.formats import FORMATS
from stabilize.graph.value import Value
from stabilize.passes.cancellation.shapes import widened
from stabilize.passes.polynomial import Polynomial, materialise, polynomial
from stabilize.passes.rule import Context, Proposal, Rule

#: What may be left of the exponent, in units of roundoff: the two constants are one number rounded twice.
_SLACK = 4


def match(ctx: Context, value: Value) -> Proposal | None:
    divided = value.op == "div"
    for a, b in (value.operands, value.operands[::-1]):
        gauss = _factor(a, "exp")
        tail = None if gauss is None else _factor(b, "erfc")
        if gauss is None or tail is None:
            continue
        inverse = divided and b is value.operands[1]  # the tail is below
        exponent = polynomial(gauss[1]).scale(Fraction(-1 if divided and not inverse else 1))
        z = polynomial(tail[1])
        rest = exponent + (z * z if inverse else (z * z).scale(Fraction(-1)))
        if not _small(rest, z * z, value.dtype):
            return None
        factor = gauss[0] / tail[0] if inverse else tail[0] / gauss[0] if divided else gauss[0] * tail[0]
        make = _ratio if inverse else _product
        new = make(ctx, tail[1], gauss[1], rest)
        new = new if factor == 1 else ctx.builder.apply("mul", new, float(factor))
        return RULE.proposal(value, ctx.emitter.finish(new, value))
    return None


def _factor(value: Value, op: str) -> tuple[Fraction, Value] | None:
    """(k, x) when value = k·op(x); k·(1 − erf(x)) is k·erfc(x)."""
    form = polynomial(value)
    if op == "erfc" and len(form.terms) == 2 and () in form.terms:
        op, form = "erf", form - Polynomial.collect([((), form.terms[()])])
        if -form.terms[next(iter(form.terms))] != polynomial(value).terms[()]:
            return None
        form = form.scale(Fraction(-1))
    if len(form.terms) != 1:
        return None
    ((monomial, k),) = form.terms.items()
    if len(monomial) != 1 or monomial[0].op != op:
        return None
    return k, monomial[0].operands[0]


def _small(rest: Polynomial, square: Polynomial, dtype: str) -> bool:
    """Whether `rest` is nothing, or the rounding of the coefficients of `square` to `dtype`, or to float32."""
    slack = Fraction(_SLACK * max(FORMATS[dtype].u, FORMATS["float32"].u))
    return all(m in square.terms and abs(k) <= slack * abs(square.terms[m]) for m, k in rest.terms.items())


def _product(ctx: Context, z: Value, exponent: Value, rest: Polynomial) -> Value:
    """exp(exponent)·erfc(z), the exponent being z² + rest."""
    return _times_exp(ctx, ctx.builder.make("erfcx", widened(ctx, z)), rest)


def _ratio(ctx: Context, z: Value, exponent: Value, rest: Polynomial) -> Value:
    """exp(exponent)/erfc(z), the exponent being rest − z²: exp(rest)/erfcx(z) for z > 0, the quotient as it was where
    erfc is between 1 and 2 and erfcx overflows."""
    b = ctx.builder
    z, exponent = widened(ctx, z), widened(ctx, exponent)
    above = b.apply("gt", z, 0.0)
    upper = b.apply("div", 1.0, b.make("erfcx", b.apply("where", above, z, 0.0)))
    lower = b.make("div", b.make("exp", exponent), b.make("erfc", b.apply("where", above, 0.0, z)))
    return b.make("where", above, _times_exp(ctx, upper, rest), lower)


def _times_exp(ctx: Context, value: Value, rest: Polynomial) -> Value:
    b = ctx.builder
    return b.make("mul", value, b.make("exp", materialise(b, rest, value.dtype))) if rest.terms else value


RULE = Rule("STB225", "erfc-times-gaussian", frozenset({"mul", "div"}), match, __doc__, "error",
            lambda fmt: f"x above {math.sqrt(-fmt.exp_underflow):.3g} in {fmt.name}")  # fmt: skip

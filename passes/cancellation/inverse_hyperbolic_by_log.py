"""# inverse-hyperbolic-by-log (STB413)

## What it does
Finds log(x + √(x² + 1)), log(x + √(x² − 1)) and log((1 + x)/(1 − x)): arsinh, arcosh and 2·artanh by hand.

## Why it is unstable
x + √(x² + 1) cancels for negative x (in float32 it is 0, and its log −inf, from −4096 on), x² overflows from 1.8e19 on,
and near 0 all digits of x are lost beside 1.

## Example
    log(x + sqrt(x*x + 1))
→
    asinh(x)
    log((1 + x) / (1 - x))
→
    2 * atanh(x)

## Shapes
Elementwise, any shape.

## Error
Relative 3u after; absolute u·x²/(x + √(x² + 1)), and relative u/|x|, before.

## Safety
exact: the definitions. Outside the domain of arcosh and artanh both are NaN.

## Source
NIST DLMF 4.37.16–4.37.24.
"""

from __future__ import annotations

from fractions import Fraction

from stabilize.graph.value import Value
from stabilize.passes.cancellation.shapes import widened
from stabilize.passes.polynomial import Polynomial, polynomial
from stabilize.passes.rule import Context, Proposal, Rule
from stabilize.passes.scaled import number_of


def match(ctx: Context, value: Value) -> Proposal | None:
    inside = value.operands[0]
    new = _of_sum(ctx, inside) if inside.op == "add" else _of_quotient(ctx, inside) if inside.op == "div" else None
    return None if new is None else RULE.proposal(value, ctx.emitter.finish(new, value))


def _of_sum(ctx: Context, inside: Value) -> Value | None:
    for root, x in (inside.operands, inside.operands[::-1]):
        if root.op != "sqrt" or number_of(x) is not None:
            continue
        rest = (polynomial(root.operands[0]) - polynomial(x) * polynomial(x)).number
        if rest in (1, -1):
            return ctx.builder.make("asinh" if rest == 1 else "acosh", widened(ctx, x))
    return None


def _of_quotient(ctx: Context, inside: Value) -> Value | None:
    """(1 + x)/(1 − x), either way up."""
    top, bottom = (polynomial(o) for o in inside.operands)
    if (top + bottom).number != 2 or len(top.terms) != 2:
        return None
    x = _variable(top)
    if x is None:
        return None
    angle = ctx.builder.make("atanh", widened(ctx, x[0]))
    return ctx.builder.apply("mul", angle, 2.0 * x[1])


def _variable(form: Polynomial) -> tuple[Value, int] | None:
    """(x, ±1) when the polynomial is 1 ± x."""
    for monomial, k in form.terms.items():
        if len(monomial) == 1 and abs(k) == 1 and form.terms.get(()) == Fraction(1):
            return monomial[0], int(k)
    return None


RULE = Rule("STB413", "inverse-hyperbolic-by-log", frozenset({"log"}), match, __doc__, "warning")

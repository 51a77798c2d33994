"""# law-of-cosines (STB415)

## What it does
Finds a² + b² − 2ab·cos θ, and 1 + ρ² − 2ρ·cos θ: the squared distance of two points in polar coordinates, poles of
filters.

## Why it is unstable
For b near a and a small angle the terms cancel: in float32 at a = b = 1, θ = 1e-4 the sum is 0, where it is 1e-8.

## Example
    1 + r*r - 2*r*cos(t)
→
    (1 - r)**2 + 4*r*sin(t/2)**2

## Shapes
Elementwise, any shape.

## Error
Relative 6u after, where ab ≥ 0; relative u·(a² + b²)/result before.

## Safety
exact: cos θ = 1 − 2·sin²(θ/2).

## Source
Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., §1.7; half-angle identity.
"""

from __future__ import annotations

from fractions import Fraction
from math import isqrt

from stabilize.graph.value import Value
from stabilize.passes.cancellation.shapes import widened
from stabilize.passes.polynomial import Monomial, Polynomial, materialise, polynomial
from stabilize.passes.rule import Context, Proposal, Rule


def match(ctx: Context, value: Value) -> Proposal | None:
    if not any(v.op in ("mul", "sub", "add") for v in value.operands):
        return None
    form = polynomial(value)
    if len(form.terms) != 3:
        return None
    mixed = next(((m, k) for m, k in form.terms.items() if sum(v.op == "cos" for v in m) == 1), None)
    found = [_root(m, k) for m, k in form.terms.items() if mixed is not None and m != mixed[0]]
    squares = [s for s in found if s is not None]
    if mixed is None or len(squares) != 2:
        return None
    (a, j), (b, k) = squares
    cosine = next(v for v in mixed[0] if v.op == "cos")
    rest = tuple(v for v in mixed[0] if v is not cosine)
    product = Polynomial.collect([((*a, *b), j * k)])
    if product.scale(Fraction(-2)) != Polynomial.collect([(rest, mixed[1])]):
        return None
    builder = ctx.builder
    dtype = widened(ctx, value).dtype
    gap = materialise(builder, Polynomial.collect([(a, j), (b, -k)]), dtype)
    sine = builder.make("sin", builder.apply("mul", widened(ctx, cosine.operands[0]), 0.5))
    tail = builder.make("mul", materialise(builder, product.scale(Fraction(4)), dtype), builder.make("mul", sine, sine))
    return RULE.proposal(value, ctx.emitter.finish(builder.make("add", builder.make("mul", gap, gap), tail), value))


def _root(monomial: Monomial, k: Fraction) -> tuple[Monomial, Fraction] | None:
    """(a, j) when the term is (j·a)²."""
    if k <= 0 or len(monomial) not in (0, 2) or len(set(monomial)) > 1:
        return None
    j = Fraction(isqrt(k.numerator), isqrt(k.denominator))
    return (monomial[:1], j) if j * j == k else None


RULE = Rule("STB415", "law-of-cosines", frozenset({"sub", "add"}), match, __doc__, "warning")

"""# cancelling-roots (STB221)

## What it does
Finds √p − √q, √p − a and a + √p where p − q, or p − a², is simpler than its parts: √(x + 1) − √x,
√(1 + x²) − 1 (pseudo-Huber, Charbonnier), the roots of a quadratic equation.

## Why it is unstable
Both parts agree in more and more digits: √(1 + x²) − 1 is 0 in float32 for every |x| below 3.4e-4, where it is x²/2.

## Example
    sqrt(1 + x*x) - 1
→
    x*x / (sqrt(1 + x*x) + 1)
    sqrt(b*b - 4*a*c) - b
→
    where(b > 0, -4*a*c / s, s),  s = sqrt(b*b - 4*a*c) + |b|

## Shapes
Elementwise, any shape.

## Error
Relative 6u after; relative u·√p/|√p − √q| before.

## Safety
exact: (√p − a)(√p + a) = p − a². The sign of a decides which factor is formed, where it is not known; the branch not
taken divides by 1. At infinity the original is inf − inf = NaN and the new form the limit.

## Source
Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., §1.8 (the quadratic), §1.7.
"""

from __future__ import annotations

from stabilize.graph.value import Value
from stabilize.passes.cancellation.shapes import signed_terms, widened
from stabilize.passes.polynomial import Polynomial, materialise, polynomial
from stabilize.passes.rule import Context, Proposal, Rule

_MOST_TERMS = 2  # of the difference: longer ones may cancel in their turn


def match(ctx: Context, value: Value) -> Proposal | None:
    found = signed_terms(value)
    if found is None:
        return None
    (s, p), (t, q) = found
    if p.op != "sqrt":
        (s, p), (t, q) = (t, q), (s, p)
    if p.op != "sqrt":
        return None
    if q.op == "sqrt" and s == t:
        return None
    new = _two_roots(ctx, p, q) if q.op == "sqrt" else _root_and_number(ctx, p, q, -s * t)
    if new is None:
        return None
    return RULE.proposal(value, ctx.emitter.finish(new if s > 0 else ctx.builder.neg(new), value))


def _simpler(p: Polynomial, q: Polynomial) -> Polynomial | None:
    """p − q, when terms cancel in it and few are left."""
    rest = p - q
    shorter = len(rest.terms) < len(p.terms) + len(q.terms)
    return rest if shorter and 0 < len(rest.terms) <= _MOST_TERMS else None


def _two_roots(ctx: Context, p: Value, q: Value) -> Value | None:
    """√p − √q = (p − q)/(√p + √q); 0 where both are."""
    rest = _simpler(polynomial(p.operands[0]), polynomial(q.operands[0]))
    if rest is None:
        return None
    b = ctx.builder
    total = b.make("add", _root(ctx, p), _root(ctx, q))
    if not ctx.ranges.of(total).lo > 0:
        total = b.apply("where", b.apply("eq", total, 0.0), 1.0, total)
    return b.make("div", materialise(b, rest, total.dtype), total)


def _root_and_number(ctx: Context, p: Value, a: Value, sign: int) -> Value | None:
    """√p − sign·a."""
    rest = _simpler(polynomial(p.operands[0]), polynomial(a) * polynomial(a))
    bounds = ctx.ranges.of(a)
    lo, hi = (bounds.lo, bounds.hi) if sign > 0 else (-bounds.hi, -bounds.lo)
    if rest is None or hi <= 0:
        return None
    b = ctx.builder
    subtracted, root = widened(ctx, a), _root(ctx, p)
    if sign < 0:
        subtracted = b.neg(subtracted)
    over = materialise(b, rest, root.dtype)
    if lo > 0:
        return b.make("div", over, b.make("add", root, subtracted))
    cancels = b.apply("gt", subtracted, 0.0)
    # the magnitude; abs has no slope at 0, where the formula has one
    total = b.make("add", root, b.make("where", cancels, subtracted, b.neg(subtracted)))
    return b.make("where", cancels, b.make("div", over, b.apply("where", cancels, total, 1.0)), total)


def _root(ctx: Context, root: Value) -> Value:
    """√p in at least float32: in half precision p may leave the format."""
    if root.dtype in ("float32", "float64"):
        return root
    return ctx.builder.make("sqrt", materialise(ctx.builder, polynomial(root.operands[0]), "float32"))


RULE = Rule("STB221", "cancelling-roots", frozenset({"sub", "add"}), match, __doc__, "warning")

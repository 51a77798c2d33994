"""# difference-of-squares (STB222)

## What it does
Finds a² − b² and 1 − a².

## Why it is unstable
The squares round before they are subtracted: at a = 4097, b = 4096 in float32 the difference is off by 1, and 1 − a²
next to a = 1 keeps half of the digits of 1 − a.

## Example
    a*a - b*b
→
    (a - b) * (a + b)

## Shapes
Elementwise, any shape.

## Error
Relative 3u after; relative u·a²/|a² − b²| before.

## Safety
exact: an identity. Where both squares overflow, the original is inf − inf = NaN.

## Source
Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., problem 3.8.
"""

from __future__ import annotations

from stabilize.graph.value import Value
from stabilize.passes.cancellation.shapes import one_minus, signed_terms, square_of, widened
from stabilize.passes.rule import Context, Proposal, Rule

#: Functions whose own rules know what 1 minus their square is.
_KNOWN = frozenset({"tanh", "sin", "cos", "sigmoid"})


def match(ctx: Context, value: Value) -> Proposal | None:
    found = one_minus(value)
    if found is not None:
        root = square_of(found[0])
        if root is None or root.op in _KNOWN or not _near(ctx, root):
            return None
        a = widened(ctx, root)
        pair = (ctx.builder.constant(1.0, a.dtype), a)
        return RULE.proposal(value, ctx.emitter.finish(_product(ctx, *pair[:: found[1]]), value))
    terms = signed_terms(value)
    if terms is None or terms[0][0] == terms[1][0]:
        return None
    roots = [square_of(t) for _, t in sorted(terms, key=lambda t: -t[0])]
    if roots[0] is None or roots[1] is None or roots[0] is roots[1]:
        return None
    return RULE.proposal(value, ctx.emitter.finish(_product(ctx, *(widened(ctx, r) for r in roots if r)), value))


def _near(ctx: Context, root: Value) -> bool:
    """Whether `root` may be near ±1, and is no exponential (those have their own rules)."""
    bounds = ctx.ranges.of(root)
    return (bounds.hi > 0.5 or bounds.lo < -0.5) and ctx.engine.scaled(root).trivial


def _product(ctx: Context, a: Value, b: Value) -> Value:
    return ctx.builder.make("mul", ctx.builder.make("sub", a, b), ctx.builder.make("add", a, b))


RULE = Rule("STB222", "difference-of-squares", frozenset({"sub", "add"}), match, __doc__, "info")

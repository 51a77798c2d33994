"""# one-minus-cosine (STB223)

## What it does
Finds 1 − cos x, 1 − cos²x and 1 − sin²x.

## Why it is unstable
cos x is 1 to the last digit for |x| below 2.4e-4 in float32: the difference is 0 where it is x²/2.

## Example
    1 - cos(x)
→
    2 * sin(x/2) * sin(x/2)

## Shapes
Elementwise, any shape.

## Error
Relative 4u after; relative 2u/x² before.

## Safety
exact: 1 − cos x = 2·sin²(x/2), 1 − cos²x = sin²x, 1 − sin²x = cos²x.

## Source
Goldberg, What every computer scientist should know about floating-point arithmetic, 1991; Higham 2002, §1.7.
"""

from __future__ import annotations

from stabilize.graph.value import Value
from stabilize.passes.cancellation.shapes import one_minus, square_of, widened
from stabilize.passes.rule import Context, Proposal, Rule


def match(ctx: Context, value: Value) -> Proposal | None:
    found = one_minus(value)
    new = None if found is None else _complement(ctx, found[0])
    if found is None or new is None:
        return None
    return RULE.proposal(value, ctx.emitter.finish(new if found[1] > 0 else ctx.builder.neg(new), value))


def _complement(ctx: Context, inside: Value) -> Value | None:
    """1 − inside."""
    b = ctx.builder
    if inside.op == "cos":
        half = b.make("sin", b.apply("mul", widened(ctx, inside.operands[0]), 0.5))
        return b.apply("mul", b.make("mul", half, half), 2.0)
    root = square_of(inside)
    if root is None or root.op not in ("sin", "cos"):
        return None
    other = b.make("cos" if root.op == "sin" else "sin", widened(ctx, root.operands[0]))
    return b.make("mul", other, other)


RULE = Rule("STB223", "one-minus-cosine", frozenset({"sub", "add"}), match, __doc__, "warning")

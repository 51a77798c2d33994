"""# relative-increment (STB220)

## What it does
Finds (exp(h) − 1)/h and expm1(h)/h.

## Why it is unstable
The numerator cancels for small h and overflows for large h, where the quotient still is an ordinary number.

## Example
    (exp(h) - 1) / h
→
    m/h * (m + 2),  m = expm1(h/2)

## Shapes
Elementwise, any shape.

## Error
Relative 6u after; relative u/|h|, and inf from h = 88.72 in float32, before.

## Safety
exact: eʰ − 1 = (e^(h/2) − 1)(e^(h/2) + 1). At h = 0 both are 0/0.

## Source
Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., §1.14.1.
"""

from __future__ import annotations

from stabilize.graph.value import Value
from stabilize.passes.cancellation.exp_minus_one import difference
from stabilize.passes.rule import Context, Proposal, Rule


def match(ctx: Context, value: Value) -> Proposal | None:
    top, h = value.operands
    found = (top.operands[0], 1) if top.op == "expm1" else difference(top)
    if found is None or found[0] is not h or found[1] < 0:
        return None
    if ctx.ranges.of(h).hi <= 1 and top.op == "expm1":
        return None
    b = ctx.builder
    wide = b.cast(h, "float64" if value.dtype == "float64" else "float32")
    m = b.make("expm1", b.apply("mul", wide, 0.5))
    new = b.make("mul", b.make("div", m, wide), b.apply("add", m, 2.0))
    return RULE.proposal(value, ctx.emitter.finish(new, value))


RULE = Rule("STB220", "relative-increment", frozenset({"div"}), match, __doc__, "warning")

"""# log-one-plus (STB210)

## What it does
Finds log(1 + x) and log(1 − x).

## Why it is unstable
1 + x rounds away the low digits of a small x: in float32 every |x| below 6e-8 gives log 1 = 0, and at x = 1e-4 only
four digits are left. log1p keeps them all.

## Example
    log(1 + x)
→
    log1p(x)

## Shapes
Elementwise, any shape.

## Error
Relative 2u after; relative u/|x| before.

## Safety
exact: equal over the reals, the same domain, −inf at the same point.

## Source
Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., §1.14.1.
"""

from __future__ import annotations

from stabilize.graph.value import Value
from stabilize.passes.cancellation.shapes import one_plus
from stabilize.passes.rule import Context, Proposal, Rule


def match(ctx: Context, value: Value) -> Proposal | None:
    found = one_plus(value.operands[0])
    if found is None:
        return None
    x, k = found
    away = ctx.ranges.of(x)
    if away.lo > 1 or away.hi < -1:
        return None
    argument = x if k > 0 else ctx.builder.neg(x)
    return RULE.proposal(value, ctx.emitter.finish(ctx.builder.make("log1p", argument), value))


RULE = Rule("STB210", "log-one-plus", frozenset({"log"}), match, __doc__, "warning")

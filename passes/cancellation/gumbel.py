"""# gumbel-of-uniform (STB217)

## What it does
Finds log(−log(u)): Gumbel noise made from uniform numbers.

## Why it is unstable
A generator returns u = 0 (and rounding gives u = 1): the noise is ±inf, and the sum with a masked logit NaN.

## Example
    -log(-log(u))
→
    -log(-log(clamp(u, tiny, 1 - u)))        with allow="approximate"

## Shapes
Elementwise, any shape.

## Error
None inside the clamp; at u = 0 and u = 1 a large finite number instead of ±inf.

## Safety
approximate: the ends of the interval move. The random numbers drawn stay the same.

## Source
Maddison, Tarlow & Minka, NIPS 2014 (the Gumbel trick).
"""

from __future__ import annotations

from stabilize.formats import FORMATS
from stabilize.graph.value import Value
from stabilize.passes.rule import Context, Proposal, Rule


def match(ctx: Context, value: Value) -> Proposal | None:
    if value.operands[0].op != "neg":
        return None
    inner = value.operands[0].operands[0]
    if inner.op != "log" or not ctx.engine.scaled(inner.operands[0]).trivial:
        return None
    u = inner.operands[0]
    bounds = ctx.ranges.of(u)
    if bounds.lo > 0 and bounds.hi < 1:
        return None
    if ctx.options.allow != "approximate":
        return RULE.proposal(value, safety="approximate", message='±inf at u = 0 and 1: fixed with allow="approximate"')
    b, fmt = ctx.builder, FORMATS[value.dtype]
    kept = b.apply("minimum", b.apply("maximum", u, fmt.tiny), 1.0 - fmt.u)
    return RULE.proposal(value, b.make("log", b.neg(b.make("log", kept))), safety="approximate")


RULE = Rule("STB217", "gumbel-of-uniform", frozenset({"log"}), match, __doc__, "warning")

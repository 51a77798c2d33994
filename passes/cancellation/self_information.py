"""# zero-times-log-zero (STB310)

## What it does
Finds p·log(p) where p may be 0: entropy, Kullback–Leibler terms, mutual information of given probabilities.

## Why it is unstable
0·log 0 = 0·(−inf) = NaN, although the limit, and the convention of information theory, is 0.

## Example
    p * log(p)
→
    xlogy(p, p)                              with allow="approximate"

## Shapes
Elementwise, any shape.

## Error
Relative 3u; NaN before at p = 0.

## Safety
approximate: at p = 0 the formula has no value over the reals; the limit is put in its place.

## Source
Cover & Thomas, Elements of Information Theory, §2.1.
"""

from __future__ import annotations

from stabilize.graph.value import Value
from stabilize.passes.rule import Context, Proposal, Rule


def match(ctx: Context, value: Value) -> Proposal | None:
    for p, logarithm in (value.operands, value.operands[::-1]):
        if logarithm.op != "log" or logarithm.operands[0] is not p:
            continue
        if ctx.ranges.of(p).lo > 0 or not ctx.engine.scaled(p).trivial:
            return None
        if ctx.options.allow != "approximate":
            return RULE.proposal(value, safety="approximate", message='NaN at p = 0: fixed with allow="approximate"')
        return RULE.proposal(value, ctx.builder.make("xlogy", p, p), safety="approximate")
    return None


RULE = Rule("STB310", "zero-times-log-zero", frozenset({"mul"}), match, __doc__, "warning")

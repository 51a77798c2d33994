"""# iterated-exp (STB216)

## What it does
Finds exp(−exp(w)) in PyTorch graphs, where its gradient is taken.

## Why it is unstable
The value is right (0 for large w), the gradient −exp(w)·exp(−exp(w)) is inf·0 = NaN once exp(w) overflows (w = 88.72 in
float32, 11.09 in float16).

## Example
    exp(-exp(w))
→
    exp(-exp(min(w, T))),  T = ln(-ln(tiny/4))

## Shapes
Elementwise, any shape.

## Error
Values are bit-identical: beyond T the result is 0 in this format. Gradients: 0 after, NaN before, where both the
gradient and the value are below the smallest number of the format.

## Safety
exact to the last bit.

## Source
Gumbel distribution function; the threshold follows from the format.
"""

from __future__ import annotations

import math

from stabilize.formats import FORMATS
from stabilize.graph.value import Value
from stabilize.passes.rule import Context, Proposal, Rule


def match(ctx: Context, value: Value) -> Proposal | None:
    if ctx.options.host != "fx":
        return None
    inner = value.operands[0]
    if inner.op != "neg" or inner.operands[0].op != "exp":
        return None
    w = inner.operands[0].operands[0]
    fmt = FORMATS[value.dtype]
    # past this point exp(−exp(w))·exp(w) is below half the smallest number
    threshold = math.log(-fmt.exp_underflow + 8.0)
    if ctx.ranges.of(w).hi <= fmt.exp_overflow:
        return None
    b = ctx.builder
    capped = b.apply("minimum", w, math.ceil(threshold * 8) / 8)
    return RULE.proposal(value, b.make("exp", b.neg(b.make("exp", capped))))


RULE = Rule("STB216", "iterated-exp", frozenset({"exp"}), match, __doc__, "warning")

"""# inverse-function-at-its-end (STB417)

## What it does
Finds arccos, arcsin, arcosh and artanh of something computed that may reach, or by rounding pass, the end of their
domain: acos((trace − 1)/2), asin(tanh(z)), atanh(x/‖x‖).

## Why it is unstable
Beyond ±1 (below 1 for arcosh) the result is NaN; at the end its slope is infinite, and 0·∞ = NaN in the gradient.

## Example
    torch.acos((trace - 1) / 2)
→
    c = ((trace - 1) / 2).clamp(-1 + 1e-6, 1 - 1e-6);  torch.acos(c)    or    torch.atan2(sine, cosine)

## Shapes
Elementwise, any shape.

## Error
Total beyond the end; near it the result is off by √u.

## Safety
There is no fix that computes the same function: how far to stay from the end is a choice of the model's author.
Arguments that are clamped, and inputs of the model as they are, are left alone; cosines of two vectors are STB411.

## Source
IEEE 754-2019, §9.2 (domains of the inverse functions).
"""

from __future__ import annotations

import math

from stabilize.graph.ops import LAYOUT
from stabilize.graph.value import Value
from stabilize.passes.rule import Context, Proposal, Rule

_ENDS = {"acos": (-1.0, 1.0), "asin": (-1.0, 1.0), "atanh": (-1.0, 1.0), "acosh": (1.0, math.inf)}
_BOUNDED = frozenset({"maximum", "minimum", "where", "input", "opaque"})


def match(ctx: Context, value: Value) -> Proposal | None:
    x, (low, high) = value.operands[0], _ENDS[value.op]
    bounds = ctx.ranges.of(x)
    source = x
    while source.op in LAYOUT | {"cast", "detach"}:
        source = source.operands[0]
    if source.op in _BOUNDED or not ctx.of_data(x) or (low < bounds.lo and (bounds.hi < high or high == math.inf)):
        return None
    return RULE.proposal(value, safety=None)


RULE = Rule("STB417", "inverse-function-at-its-end", frozenset(_ENDS), match, __doc__, "warning",
            lambda fmt: "an argument at or beyond the end of the domain", poles=True)  # fmt: skip

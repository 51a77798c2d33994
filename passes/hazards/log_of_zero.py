"""# log-of-zero (STB241)

## What it does
Finds the logarithm of a number that is 0 or negative for some inputs and has no guard: log(relu(x)), log of a
histogram, log|x|, log of what a given range takes below 0.

## Why it is unstable
log 0 is −inf, its gradient is infinite, and what they are multiplied by or averaged with becomes −inf or NaN; the log
of a negative number is NaN.

## Example
    torch.log(relu(x))
→
    torch.log(relu(x) + 1e-6)    or    torch.log(relu(x).clamp(min=1e-6))

## Shapes
Elementwise, any shape.

## Error
Total at 0 and below.

## Safety
There is no fix that computes the same function, which has no value there: a guard is a choice of the model's author,
of a size that the format holds (1e-8 is 0 in float16). A number that is 0 for whole ranges of inputs (rectified,
masked, counted) is an error, one that is 0 at single points a warning. Of an unknown number nothing is said.

## Source
IEEE 754-2019, §7.3 (division by zero and exact infinite results) and 7.2 (invalid operations).
"""

from __future__ import annotations

import math

from stabilize.graph.value import Value
from stabilize.passes.cancellation.shapes import is_positive, may_vanish
from stabilize.passes.rule import Context, Proposal, Rule


def match(ctx: Context, value: Value) -> Proposal | None:
    x = value.operands[0]
    pole = 0.0 if value.op == "log" else -1.0
    bounds = ctx.ranges.of(x)
    if not ctx.of_data(x) or is_positive(x):
        return None
    if value.op == "log" and may_vanish(x) and bounds.lo <= pole:
        return RULE.proposal(value, safety=None)
    if not -math.inf < bounds.lo <= pole or not ctx.engine.scaled(x).trivial:
        return None
    return RULE.proposal(value, safety=None, severity="warning", message=_MESSAGE.format(bounds.lo, pole))


_MESSAGE = "The number may be as small as {:g}, where the logarithm has no value: at {:g} it is −inf, below NaN"

RULE = Rule("STB241", "log-of-zero", frozenset({"log", "log1p"}), match, __doc__, "error",
            lambda fmt: "a number that is 0 or below", poles=True)  # fmt: skip

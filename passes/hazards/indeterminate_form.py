"""# indeterminate-form (STB242)

## What it does
Finds inf/inf, 0/0, logarithms and roots of underflowed numbers that the ranges of the formats allow, in expressions
that no rule rewrites.

## Why it is unstable
An operand leaves the format, correctly rounded to inf or to 0, although the result of the formula is an ordinary
number: from there on it is NaN, or wrong beyond any bound.

## Example
    a = exp(x) * weight;  a / a.sum(-1, keepdim=True)
→
    a = exp(x - x.amax(-1, keepdim=True)) * weight;  a / a.sum(-1, keepdim=True)

## Shapes
Any.

## Error
Total where an operand left the format.

## Safety
Reported only: what takes the place of the expression depends on what is known of its operands (the sign of a weight,
the size of a sum). Take the largest exponent off first, or compute in the log domain.

## Source
Goldberg, What every computer scientist should know about floating-point arithmetic, ACM Computing Surveys 23 (1991).
"""

from __future__ import annotations

from stabilize.graph.value import Value
from stabilize.passes.rule import Context, Proposal, Rule

#: Sums and products in which an operand's infinity is lost are told where the infinity comes from (STB243).
_FORMS = {
    "div": "inf/inf or 0/0", "log": "the log of an underflowed number",
    "log1p": "the log of a number that was rounded to 0", "sqrt": "the root of a number that left the format",
    "pow": "a power of a number that left the format", "prod": "a product that left the format",
}  # fmt: skip


def match(ctx: Context, value: Value) -> Proposal | None:
    if not ctx.broken(value) or not ctx.of_data(value):
        return None
    return RULE.proposal(value, safety=None, message=f"{_FORMS[value.op]}, where an operand has left its format")


RULE = Rule("STB242", "indeterminate-form", frozenset(_FORMS), match, __doc__, "error",
            lambda fmt: f"operands that left the range of {fmt.name}")  # fmt: skip

"""# root-of-zero (STB432)

## What it does
Finds √r and rᵃ, 0 < a < 1, of a product r that is 0 for whole ranges of inputs (masked, rectified), in PyTorch graphs;
a lint finds those of any number known to be as small as 0 (|x|, its mean).

## Why it is unstable
The slope of a root is infinite at 0, and that of the product is the factor that is 0 there: the gradient is inf·0 =
NaN.

## Example
    sqrt(x * mask)
→
    where(r == 0, 0, sqrt(where(r == 0, 1, r))),  r = x * mask        with allow="approximate"

## Shapes
Elementwise, any shape.

## Error
Values are bit-identical. Gradients: 0 where r is 0, NaN before.

## Safety
approximate: the function has no derivative at 0; 0 is put in its place. Roots of guarded numbers are left alone.

## Source
Goodfellow, Bengio & Courville, Deep Learning, §4.1 and 6.3 (subgradients at kinks).
"""

from __future__ import annotations

from stabilize.graph.ops import LAYOUT
from stabilize.graph.value import Value, gradient_free
from stabilize.passes.cancellation.moments import moment
from stabilize.passes.cancellation.shapes import is_guarded, may_vanish
from stabilize.passes.rule import Context, Proposal, Rule, Severity
from stabilize.passes.scaled import number_of

_MESSAGE = 'the gradient is NaN where the root is 0: taken as 0 with allow="approximate"'


def match(ctx: Context, value: Value) -> Proposal | None:
    r = value.operands[0]
    power = number_of(value.operands[1]) if value.op == "pow" else None
    if ctx.options.host != "fx" or (value.op == "pow" and not (power is not None and 0 < power < 1)):
        return None
    if ctx.broken(value):
        return None
    product = r.op == "mul" and r.operands[0] is not r.operands[1] and may_vanish(r)
    if not product and not (ctx.options.hazards and _reaches_zero(ctx, r)):
        return None
    if ctx.options.allow != "approximate":
        severity: Severity | None = None
        if ctx.options.hazards:  # a lint shows an input that breaks it; of a sum all terms have to be 0
            terms = r.op == "add" and all(number_of(o) is None for o in r.operands)
            severity = "error" if product else "info" if terms else "warning"
        return RULE.proposal(value, safety="approximate", message=_MESSAGE, severity=severity)
    b = ctx.builder
    zero = b.apply("eq", r, 0.0)
    root = b.make(value.op, b.apply("where", zero, 1.0, r), *value.operands[1:])
    return RULE.proposal(value, b.apply("where", zero, 0.0, root), safety="approximate", message=_MESSAGE)


#: What is 0 where a choice was made: the gradient is 0 there, whatever comes back.
_RECTIFIED = frozenset({"relu", "maximum", "minimum", "where"})
_THROUGH = LAYOUT | {"cast", "sum", "mean"}


def _reaches_zero(ctx: Context, r: Value) -> bool:
    """Whether r is known to be as small as 0, at single points maybe; sums of squares are naive-norm's (STB402)."""
    source = r
    while source.op in _THROUGH:
        source = source.operands[0]
    if source.op in _RECTIFIED:
        return False
    found = moment(r)
    squares = found is not None and len(found.factors) == 2 and found.factors[0] is found.factors[1]
    if ctx.ranges.of(r).lo != 0 or squares or is_guarded(ctx, r):
        return False
    return ctx.engine.scaled(r).trivial and not gradient_free(r)


RULE = Rule("STB432", "root-of-zero", frozenset({"sqrt", "pow"}), match, __doc__, "info")

"""# zero-over-zero (STB431)

## What it does
Finds x/s where s is a sum of terms that are all 0 for some inputs, unguarded: relu(x)/Σ relu(x), masked means, TP/(TP +
FP).

## Why it is unstable
A row of which every term is 0 (nothing above 0, an empty mask, no positive prediction) gives 0/0 = NaN, and the NaN
reaches every parameter through the gradient.

## Example
    r / r.sum(-1, keepdim=True),  r = relu(x)
→
    r / where(s == 0, 1, s),  s = r.sum(-1, keepdim=True)        with allow="approximate"

## Shapes
Any.

## Error
None but at s = 0, where the result is x (0 in all of the above).

## Safety
approximate: 0/0 has no value; x/1 is put in its place. Divisors with a guard, or that cannot be 0, are left alone.

## Source
Pedregosa et al., scikit-learn (its zero_division, for precision and recall), JMLR 12 (2011).
"""

from __future__ import annotations

from itertools import islice

from stabilize.formats import is_float
from stabilize.graph.value import Value, latest_first
from stabilize.passes.cancellation.shapes import may_vanish
from stabilize.passes.rule import Context, Proposal, Rule, Severity

_NEAR = 32

_MESSAGE = 'NaN where every term of the divisor is 0: guarded with allow="approximate"'


def match(ctx: Context, value: Value) -> Proposal | None:
    top, bottom = value.operands
    if not is_found(value) or ctx.ranges.of(bottom).lo > 0 or ctx.broken(value):
        return None
    if ctx.options.allow != "approximate":
        # a lint asks for an input that breaks it: rectified terms are all 0 for ordinary ones, masks for empty ones
        severity = _severity(bottom) if ctx.options.hazards else None
        return RULE.proposal(value, safety="approximate", message=_MESSAGE, severity=severity)
    b = ctx.builder
    kept = b.apply("where", b.apply("eq", bottom, 0.0), 1.0, bottom)
    return RULE.proposal(value, b.make("div", top, kept), safety="approximate", message=_MESSAGE)


def is_found(value: Value) -> bool:
    """Whether the divisor is a sum of terms that are all 0 for some inputs."""
    bottom = value.operands[1]
    return _is_sum(bottom) and may_vanish(bottom)


def _severity(bottom: Value) -> Severity:
    near = list(islice(latest_first(bottom), _NEAR))
    if any(v.op in ("relu", "maximum") for v in near):
        return "error"
    # a count of targets that are not to be ignored: there is one, or the loss has no meaning
    floats = any(v.op in ("input", "opaque") and is_float(v.dtype) for v in near)
    return "warning" if floats or len(near) == _NEAR else "info"


def _is_sum(value: Value) -> bool:
    while value.op in ("unsqueeze", "squeeze", "expand", "cast"):
        value = value.operands[0]
    return value.op in ("sum", "mean", "add")


RULE = Rule("STB431", "zero-over-zero", frozenset({"div"}), match, __doc__, "info", poles=True)

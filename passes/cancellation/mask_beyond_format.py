"""# mask-beyond-format (STB602)

## What it does
Finds scores that are masked by what is beyond their format, on the way to a softmax or a log-sum-exp. The mask is a
finite number (−1e9 in float16), the sum of two masks (twice the lowest number), or a product with an infinity
(−inf·(1 − mask)).

## Why it is unstable
The number is stored as −inf: a row that is masked throughout becomes −inf − (−inf) = NaN, where the finite mask gives a
mean over all entries. A product with an infinity is NaN wherever nothing is masked, since inf·0 is NaN.

## Example
    softmax(scores.masked_fill(~mask, -1e9), -1)      in float16
→
    softmax(scores.float().masked_fill(~mask, -1e9), -1).half()

## Shapes
Any.

## Error
Half an ulp of float16 after; NaN in rows that are masked throughout before.

## Safety
exact for a number that a wider format holds: the same operations in float32 (in float64 where the softmax is), rounded
once at the end. The sum of two masks that no wider format holds, and products with an infinity, are reported only: a
repair would change the model.

## Source
IEEE 754-2019, §7.2: inf − inf and 0·inf are invalid operations.
"""

from __future__ import annotations

import math

from stabilize.formats import FORMATS, is_float
from stabilize.graph.build import constant_of
from stabilize.graph.ops import LAYOUT
from stabilize.graph.value import Value
from stabilize.passes.cancellation.moments import carrier
from stabilize.passes.cancellation.widening import Widening
from stabilize.passes.rule import Context, Proposal, Rule
from stabilize.passes.scaled import number_of

_SINKS = frozenset({"softmax", "log_softmax", "logsumexp"})
_DEPTH = 6

#: How masks are put on scores.
_MASKING = LAYOUT - {"gather", "one_hot"} | {"add", "cast", "div", "maximum", "minimum", "mul", "neg", "sub", "where"}

_INFINITE = "a product with an infinity: inf·0 is NaN wherever nothing is masked"
_TWICE = "masks or a bias add up to a number beyond the format: rows that they mask throughout are NaN"


def match(ctx: Context, value: Value) -> Proposal | None:
    source = value.operands[0]
    beyond = _Beyond(ctx, carrier([source.dtype]))
    found = beyond.follow(source, _DEPTH)
    if beyond.infinite:
        return RULE.proposal(value, safety=None, message=_INFINITE)
    if not found:
        return None
    if beyond.hopeless:
        return RULE.proposal(value, safety=None, message=_TWICE, severity="warning")
    new = ctx.builder.make(value.op, beyond.widening.widened(source), **dict(value.attrs))
    return RULE.proposal(value, ctx.emitter.finish(new, value), message=_TWICE if beyond.twice else "")


class _Beyond:
    """What depends on a number beyond its format.

    infinite: a product with an infinity was met. twice: a sum of two numbers was, each of which the format holds.
    hopeless: nor does the wider format hold that sum.
    """

    def __init__(self, ctx: Context, wide: str) -> None:
        self.ctx = ctx
        self.limit = FORMATS[wide].max
        self.widening = Widening(ctx.builder, wide)
        self.infinite = self.twice = self.hopeless = False

    def follow(self, value: Value, depth: int) -> bool:
        """Whether `value` depends on such a number; if so it is to be computed in the wider format."""
        if not is_float(value.dtype):
            return False
        number = number_of(value)
        if number is not None:
            return FORMATS[value.dtype].max < abs(float(number)) <= self.limit
        if not depth or value.op not in _MASKING:
            return False
        followed = [self.follow(o, depth - 1) for o in value.operands]
        found = any(followed)  # all of them are looked at
        if value.op == "mul" and any(abs(constant_of(o) or 0) == math.inf for o in value.operands):
            self.infinite |= any(0.0 in self.ctx.ranges.of(o) for o in value.operands if constant_of(o) is None)
        if value.op == "add":
            found |= self._overflows(value)
        if found:
            self.widening.inside.add(value)
        return found

    def _overflows(self, value: Value) -> bool:
        """A sum of two bounded numbers that is beyond the format where neither is: a mask and a mask, or a bias."""
        limit = FORMATS[value.dtype].max
        lows = [self._low(o) for o in value.operands]
        masks = [low <= -limit / 4 for low in lows]
        # of a mask and a bias a lint tells; which rows they leave is not known
        if not (all(masks) or (any(masks) and self.ctx.options.hazards)):
            return False
        if not all(-limit <= low for low in lows) or sum(lows) > -FORMATS[value.dtype].overflow:
            return False
        self.twice = True
        self.hopeless |= sum(lows) < -self.limit
        return True

    def _low(self, value: Value) -> float:
        """How low a mask is: the least of what is known to be bounded; the number that a mask of 0 and 1 multiplies."""
        known = self.ctx.ranges.of(value).lo
        while value.op in LAYOUT | {"cast"}:
            value = value.operands[0]
        if known > -math.inf or value.op != "mul":
            return known
        numbers = [float(k) for o in value.operands if (k := number_of(o)) is not None]
        lowest = -FORMATS[value.dtype].max / 4
        return next((k for k in numbers if k <= lowest), known)


RULE = Rule("STB602", "mask-beyond-format", _SINKS, match, __doc__, "error",
            lambda fmt: f"a row that is masked throughout, in {fmt.name}")  # fmt: skip

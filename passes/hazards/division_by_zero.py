"""# division-by-zero (STB433)

## What it does
Finds x/d where d is data, or a difference, norm, deviation or product of data, that can be 0 and has no guard.

## Why it is unstable
x/0 is inf and 0/0 is NaN: a constant column, an empty mask, a row of zeros or a pad token is enough, and the NaN
reaches every parameter through the gradient.

## Example
    (x - x.mean(0)) / x.std(0)
→
    (x - x.mean(0)) / (x.std(0) + 1e-6)

## Shapes
Any.

## Error
Total where d is 0; beside it as large as 1/d.

## Safety
There is no fix that computes the same function: what is wanted at 0 is known to the model's author. Sums of terms that
are all 0 for whole ranges of inputs are zero-over-zero (STB431). Divisors with a positive number added, that are
clamped or chosen by a comparison, trainable parameters, and the branches of a condition are left alone.

## Source
IEEE 754-2019, §7.3 and 7.2.
"""

from __future__ import annotations

from stabilize.formats import is_float
from stabilize.graph.ops import LAYOUT
from stabilize.graph.value import Value
from stabilize.passes.cancellation import zero_over_zero
from stabilize.passes.cancellation.shapes import is_guarded, is_positive, may_vanish
from stabilize.passes.rule import Context, Proposal, Rule
from stabilize.passes.scaled import number_of

#: What leaves a divisor as it was found: it can be 0 where its operand can.
_THROUGH = (LAYOUT - {"gather", "concat", "one_hot"}) | {"abs", "cast", "detach", "neg", "sqrt"}
#: Divisors that are looked at: others (a ratio, a cosine, a loss) are 0 by coincidence only.
_DATA = frozenset({"input", "sub", "sum", "mean", "norm", "mul", "matmul", "prod", "max", "min", "add"})
#: In which a number may be added to each term, or each factor.
_GUARDED = ("sum", "mean", "mul", "matmul")
#: Operators that are not read and give deviations.
_SPREADS = ("aten.std", "aten.var")


def match(ctx: Context, value: Value) -> Proposal | None:
    divisor = _divisor(value)
    if divisor is None or ctx.options.inside:
        return None
    bounds = ctx.ranges.of(divisor)
    if not bounds.lo <= 0 <= bounds.hi or number_of(divisor) is not None or is_positive(divisor):
        return None
    if value.op == "div" and zero_over_zero.is_found(value):
        return None
    if may_vanish(divisor) and ctx.of_data(divisor):
        return RULE.proposal(value, safety=None)
    source = divisor
    while source.op in _THROUGH or (source.op == "mul" and any(number_of(o) for o in source.operands)):
        source = next((o for o in source.operands if number_of(o) is None), source.operands[0])
    if source.op == "add" and not (bounds.lo == 0 and all(ctx.ranges.of(o).lo == 0 for o in source.operands)):
        return None  # an unknown number may be a guard
    if source.op == "sub" and not all(_is_plain(o) for o in source.operands):
        return None  # edges of bins, prices, times: differences that are never 0 for reasons that are not seen
    spread = source.op == "opaque" and str(source.attr("target")).startswith(_SPREADS)
    if not (spread or source.op in _DATA) or not is_float(source.dtype) or not ctx.of_data(source):
        return None
    if source.op in _GUARDED and (not ctx.engine.scaled(source).trivial or is_guarded(ctx, source)):
        return None
    return RULE.proposal(value, safety=None)


def _is_plain(value: Value) -> bool:
    """An input as it is, or a mean or an extreme."""
    while value.op in LAYOUT | {"cast", "detach"}:
        value = value.operands[0]
    return value.op in ("input", "max", "min", "mean", "sum") or number_of(value) is not None


def _divisor(value: Value) -> Value | None:
    """d in x/d and in d to a negative power."""
    if value.op == "div":
        return value.operands[1]
    power = number_of(value.operands[1])
    return value.operands[0] if power is not None and power < 0 else None


RULE = Rule("STB433", "division-by-zero", frozenset({"div", "pow"}), match, __doc__, "warning",
            lambda fmt: "a divisor of 0", poles=True)  # fmt: skip

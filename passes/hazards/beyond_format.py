"""# number-beyond-format (STB502)

## What it does
Finds numbers beyond the format they are used in: −1e12 or the lowest float32 in float16, weights and bounded
expressions that are cast to a narrower format, sums and products whose known bounds pass it.

## Why it is unstable
The number is stored as an infinity: 0 times it is NaN, and so is its difference to another infinity; a row of scores
that it masks throughout has no softmax.

## Example
    scores.masked_fill(~mask, -1e12)      in float16
→
    scores.masked_fill(~mask, torch.finfo(scores.dtype).min)

## Shapes
Any.

## Error
Total: an infinity in the place of a number.

## Safety
There is no fix that computes the same function in the same format. On the way to a softmax, where computing in float32
is one, this is mask-beyond-format (STB602).

## Source
IEEE 754-2019, §7.4 (overflow).
"""

from __future__ import annotations

import math
from itertools import islice

from stabilize.formats import FORMATS, Format, is_float
from stabilize.graph.value import Value, latest_first
from stabilize.passes.ranges import Range
from stabilize.passes.rule import Context, Proposal, Rule
from stabilize.passes.scaled import number_of

_NEAR = 64
_ARITHMETIC = frozenset({"add", "sub", "mul", "div", "matmul", "sum", "pow", "cumsum", "norm"})
_OPS = _ARITHMETIC | {"where", "maximum", "minimum", "concat", "cast"}


def match(ctx: Context, value: Value) -> Proposal | None:
    if not is_float(value.dtype):
        return None
    fmt = FORMATS[value.dtype]
    if value.op == "cast":
        bounds = Range() if _is_held(value) else ctx.ranges.of(value.operands[0])
        beyond = [b for b in (bounds.lo, bounds.hi) if math.isfinite(b) and abs(b) >= fmt.overflow]
    else:
        numbers = (number_of(o) for o in value.operands if is_float(o.dtype))
        beyond = [float(k) for k in numbers if k is not None and fmt.overflow <= abs(float(k)) < math.inf]
        if not beyond and value.op in _ARITHMETIC:
            beyond = _overflow(ctx, value, fmt)
    if not beyond:
        return None
    message = f"{beyond[0]:g} is beyond {fmt.name}, whose largest number is {fmt.max:g}: it is stored as an infinity"
    return RULE.proposal(value, safety=None, message=message)


def _is_held(cast: Value) -> bool:
    """Whether bounds are those of a narrower format that the numbers were held in: all of them are rarely reached."""
    near = islice(latest_first(cast.operands[0]), _NEAR)
    casts = (v for v in near if v.op == "cast" and is_float(v.operands[0].dtype))
    return any(FORMATS[v.operands[0].dtype].emax < FORMATS[v.dtype].emax for v in casts)


def _overflow(ctx: Context, value: Value, fmt: Format) -> list[float]:
    """The bound of a result that is beyond the format where those of its operands are not."""
    bounds = ctx.ranges.of(value)
    known = math.isfinite(bounds.lo) and math.isfinite(bounds.hi)
    if not known or any(_size(ctx, o) > fmt.max for o in value.operands):
        return []
    found = [b for b in (bounds.lo, bounds.hi) if abs(b) >= fmt.overflow]
    if not found or not ctx.of_data(value):
        return []
    numbers = (number_of(v) for v in islice(latest_first(value), _NEAR) if v.op == "constant" and is_float(v.dtype))
    # clamps to the limits of a format say little; sums of masks are STB602
    return [] if any(k is not None and abs(float(k)) > fmt.max / 4 for k in numbers) else found


def _size(ctx: Context, value: Value) -> float:
    bounds = ctx.ranges.of(value)
    return max(abs(bounds.lo), abs(bounds.hi))


RULE = Rule("STB502", "number-beyond-format", _OPS, match, __doc__, "error",
            lambda fmt: f"any input, in {fmt.name}", poles=True)  # fmt: skip

"""# cast-out-of-range (STB521)

## What it does
Finds casts of floats to an integer type that cannot hold them: sigmoid(x)·255 as int8, tanh(x)·128 as int8.

## Why it is unstable
What a cast makes of a number outside the integers of its type is undefined: 200.0 as int8 is −56 here, 127 there, 0
elsewhere.

## Example
    (sigmoid(x) * 255).to(int8)
→
    (sigmoid(x) * 255).clamp(-128, 127).to(int8)        with allow="approximate"

## Shapes
Elementwise, any shape.

## Error
None where the number fits; the nearest integer of the type, for garbage before, where it does not.

## Safety
approximate: numbers outside the type are moved to its ends. Reported only when the bounds of the number are known (from
the formula, or from the ranges given) and pass those of the type: a cast of what may be anything is left alone.

## Source
ISO/IEC 9899:2018, 6.3.1.4 (a conversion that cannot be represented is undefined); ONNX Cast.
"""

from __future__ import annotations

import math

from stabilize.formats import FORMATS, is_float
from stabilize.graph.value import Value
from stabilize.passes.rule import Context, Proposal, Rule

#: Least and largest number of each integer type.
INTEGERS: dict[str, tuple[int, int]] = {
    **{f"int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    "uint8": (0, 255),
}


def match(ctx: Context, value: Value) -> Proposal | None:
    source = value.operands[0]
    if value.dtype not in INTEGERS or not is_float(source.dtype):
        return None
    least, most = INTEGERS[value.dtype]
    bounds = ctx.ranges.of(source)
    below = -math.inf < bounds.lo <= least - 1
    above = most + 1 <= bounds.hi < math.inf
    if not below and not above:
        return None
    message = f"the number is between {bounds.lo:g} and {bounds.hi:g}, {value.dtype} between {least} and {most}"
    if ctx.options.allow != "approximate":
        return RULE.proposal(value, safety="approximate", message=f'{message}: clamped with allow="approximate"')
    b = ctx.builder
    kept = b.apply("minimum", b.apply("maximum", source, float(least)), _largest(most, source.dtype))
    return RULE.proposal(value, b.cast(kept, value.dtype), safety="approximate", message=message)


def _largest(most: int, dtype: str) -> float:
    """The largest number of a float format that is not above `most`."""
    fmt = FORMATS[dtype]
    ulp = fmt.spacing(0.75 * most)
    return min(math.floor(most / ulp) * ulp, fmt.max) if ulp > 1 else float(most)


RULE = Rule("STB521", "cast-out-of-range", frozenset({"cast"}), match, __doc__, "warning")

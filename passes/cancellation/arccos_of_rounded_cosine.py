"""# arccos-of-rounded-cosine (STB411)

## What it does
Finds arccos and arcsin of what lies in [−1, 1] over the reals and may not after rounding: the dot product of
normalised vectors.

## Why it is unstable
The cosine of a vector with itself comes out as 1 + 1.2e-7 in float32 one time in five, whose arccos is NaN.

## Example
    acos((n * m).sum(-1)),  n = u/‖u‖, m = v/‖v‖
→
    2 * atan(‖n − m‖ / ‖n + m‖)
    acos(n @ m)
→
    acos(clamp(n @ m, -1, 1))

## Shapes
Elementwise, any shape.

## Error
As before where the argument is in [−1, 1]; NaN before where rounding took it outside, then √(2·u·n).

## Safety
exact: by Cauchy and Schwarz the argument is in [−1, 1], and the clamp is the identity there. Arguments of which that is
not known are left alone.

## Source
Cauchy–Schwarz inequality; Kahan, How futile are mindless assessments of roundoff, 2006, §12.
"""

from __future__ import annotations

from stabilize.formats import FORMATS
from stabilize.graph.value import Value
from stabilize.passes.cancellation.shapes import widened
from stabilize.passes.normalised import Unit, units_of
from stabilize.passes.rule import Context, Proposal, Rule

#: Primitives whose computed results are in [−1, 1] whenever the exact ones are.
_KEPT = frozenset(
    {
        "constant", "maximum", "minimum", "tanh", "sin", "cos", "sigmoid", "softmax", "erf", "sign", "input", "opaque",
        "where", "exp", "relu", "floor",
    }
)  # fmt: skip
#: Rounding does not take such a number over 1 in any format.
_WELL_INSIDE = 0.95
_PASSED_ON = frozenset(
    {
        "neg", "abs", "cast", "detach", "reshape", "unsqueeze", "squeeze", "transpose", "expand", "slice", "gather",
        "max", "min", "topk_values", "concat",
    }
)  # fmt: skip


def match(ctx: Context, value: Value) -> Proposal | None:
    cosine = value.operands[0]
    bounds = ctx.ranges.of(cosine)
    reach = max(-bounds.lo, bounds.hi)
    if reach > 1 or reach < _WELL_INSIDE or _is_kept(cosine):
        return None
    b = ctx.builder
    inside = b.make(value.op, b.apply("minimum", b.apply("maximum", cosine, -1.0), 1.0))
    pair = units_of(cosine) if value.op == "acos" else None
    angle = None if pair is None else _angle(ctx, pair, cosine)
    return RULE.proposal(value, *([] if angle is None else [ctx.emitter.finish(angle, value)]), inside)


def _angle(ctx: Context, pair: tuple[Unit, Unit], cosine: Value) -> Value | None:
    """2·arctan(√(‖n − m‖² + r)/√(‖n + m‖² + r)), where r is what guards take off ‖n‖² and ‖m‖²."""
    if any(each.guarded and each.length.type.rank != each.divisor.type.rank for each in pair):
        return None  # the two do not line up
    b = ctx.builder
    n, m = (widened(ctx, each.value) for each in pair)
    axes, keepdim = cosine.axes, bool(cosine.attr("keepdim"))
    lost = [_lost(ctx, each, axes, keepdim) for each in pair]
    totals: list[Value] = []
    for op in ("sub", "add"):
        gap = b.make(op, n, m)
        total = b.reduce("sum", b.make("mul", gap, gap), axes, keepdim)
        for each in lost:
            total = total if each is None else b.make("add", total, each)
        totals.append(total)
    # both are 0 where both lengths overflowed: the cosine is then 0 as well
    neither = b.apply("eq", b.make("add", *totals), 0.0)
    roots: list[Value] = []
    for total in totals:
        total = b.apply("where", neither, 1.0, total)
        none = b.apply("eq", total, 0.0)
        # the root of 0 has no gradient: that of parallel vectors is taken as 0, a subgradient
        root = b.make("sqrt", b.apply("where", none, 1.0, total))
        roots.append(b.apply("where", none, 0.0, root))
    return b.apply("mul", b.make("atan", b.make("div", *roots)), 2.0)


def _lost(ctx: Context, each: Unit, axes: tuple[int, ...], keepdim: bool) -> Value | None:
    """1 − ‖n‖² where the divisor is not the length itself."""
    if not each.guarded:
        return None
    b, n = ctx.builder, widened(ctx, each.value)
    size = b.reduce("sum", b.make("mul", n, n), axes, keepdim)
    # a divisor that is the length in another precision is no guard
    length = b.apply("mul", each.length, 1 + 4 * FORMATS[each.value.dtype].u)
    short = b.cast(b.make("lt", length, each.divisor), n.dtype)
    return b.make("mul", b.reduce("max", short, axes, keepdim), b.apply("sub", 1.0, size))


def _is_kept(value: Value) -> bool:
    """Whether rounding cannot take `value` out of [−1, 1]."""
    while value.op in _PASSED_ON and len(value.operands) == 1:
        value = value.operands[0]
    return value.op in _KEPT


RULE = Rule("STB411", "arccos-of-rounded-cosine", frozenset({"acos", "asin"}), match, __doc__, "warning")

"""# log-one-minus-tanh-squared (STB213)

## What it does
Finds log(1 − tanh(u)²), the log-determinant of a tanh squashing (soft actor-critic, normalising flows).

## Why it is unstable
tanh(u) rounds to 1 for u above 9 in float32 (4.2 in float16): the log is −inf although the value is about −2u.

## Example
    log(1 - tanh(u)**2)
→
    where(|u| < 1, log1p(-tanh(u)**2), 2*(ln 2 - |u| - log1p(exp(-2|u|))))

## Shapes
Elementwise, any shape.

## Error
Relative 8u after; infinite before from |u| = 9.

## Safety
exact: 1 − tanh² = sech² = 4/(eᵘ + e⁻ᵘ)². Guards such as 1 − tanh(u)² + 1e-6 are another function and are left alone.

## Source
Identity; the branch at 1 keeps relative accuracy near 0, where the second form cancels.
"""

from __future__ import annotations

import math

from stabilize.graph.value import Value
from stabilize.passes.cancellation.shapes import one_plus, square_of
from stabilize.passes.rule import Context, Proposal, Rule


def match(ctx: Context, value: Value) -> Proposal | None:
    inner = value.operands[0]
    if value.op == "log":
        found = one_plus(inner)
        square = found[0] if found is not None and found[1] < 0 else None
    else:
        square = inner.operands[0] if inner.op == "neg" else None
    root = None if square is None else square_of(square)
    if root is None or root.op != "tanh":
        return None
    bounds = ctx.ranges.of(root.operands[0])
    if value.op == "log1p" and bounds.lo >= -1 and bounds.hi <= 1:
        return None  # accurate as it is
    u = ctx.builder.cast(root.operands[0], "float64" if value.dtype == "float64" else "float32")
    return RULE.proposal(value, ctx.emitter.finish(_log_sech_squared(ctx, u), value))


def _log_sech_squared(ctx: Context, u: Value) -> Value:
    b = ctx.builder
    size = b.make("abs", u)
    small = b.make("lt", size, b.constant(1.0, u.dtype))
    t = b.make("tanh", b.apply("where", small, u, 0.0))
    near = b.make("log1p", b.neg(b.make("mul", t, t)))
    w = b.make("where", small, b.constant(1.0, u.dtype), size)
    tail = b.make("log1p", b.make("exp", b.apply("mul", w, -2.0)))
    far = b.apply("mul", b.make("sub", b.apply("sub", math.log(2.0), w), tail), 2.0)
    return b.make("where", small, near, far)


RULE = Rule("STB213", "log-one-minus-tanh-squared", frozenset({"log", "log1p"}), match, __doc__, "error",
            lambda fmt: f"|u| above {0.5 * math.log(4 / fmt.u):.3g} in {fmt.name}")  # fmt: skip

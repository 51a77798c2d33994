"""# exp-minus-one (STB211)

## What it does
Finds exp(x) − 1 and 1 − exp(x).

## Why it is unstable
exp(x) is near 1 for small x and the subtraction cancels: in float32 every |x| below 6e-8 gives 0.

## Example
    exp(x) - 1
→
    expm1(x)

Where a gradient may be asked for, `where(x < -1, exp(x) - 1, expm1(x))`.

## Shapes
Elementwise, any shape.

## Error
Relative 2u after; relative u/|x| before.

## Safety
exact: equal over the reals; overflow, −1 at −inf and NaN stay.

## Source
Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., §1.14.1.
"""

from __future__ import annotations

from stabilize.graph.value import Value, gradient_free
from stabilize.passes.cancellation.shapes import one_plus
from stabilize.passes.rule import Context, Proposal, Rule
from stabilize.passes.scaled import number_of


def match(ctx: Context, value: Value) -> Proposal | None:
    found = difference(value)
    if found is None:
        return _power(ctx, value)
    exponent, sign = found
    bounds = ctx.ranges.of(exponent)
    if bounds.lo > 1 or bounds.hi <= _FAR:
        return None
    new = _expm1(ctx, exponent)
    return RULE.proposal(value, ctx.emitter.finish(new if sign > 0 else ctx.builder.neg(new), value))


def _power(ctx: Context, value: Value) -> Proposal | None:
    """1 − pᵠ of a probability p whose logarithm is known: −expm1(q·log p)."""
    found = one_plus(value)
    if found is None or found[1] > 0 or found[0].op != "pow":
        return None
    reading = ctx.engine.scaled(found[0])
    if reading.trivial or reading.number != 1:
        return None
    exponent = ctx.emitter.build(reading.exponent, ctx.emitter.carrier(value, reading.exponent))
    return RULE.proposal(value, ctx.emitter.finish(ctx.builder.neg(_expm1(ctx, exponent)), value))


#: Below it exp(x) − 1 is as accurate as expm1(x).
_FAR = -1.0


def _expm1(ctx: Context, x: Value) -> Value:
    """expm1(x), with a gradient that is right where eˣ is small: PyTorch's, expm1(x) + 1, cancels there."""
    b = ctx.builder
    near = b.make("expm1", x)
    if ctx.options.host != "fx" or gradient_free(x) or ctx.ranges.of(x).lo >= _FAR:
        return near
    far = b.apply("sub", b.make("exp", b.apply("minimum", x, _FAR)), 1.0)
    return b.make("where", b.apply("lt", x, _FAR), far, near)


def difference(value: Value) -> tuple[Value, int] | None:
    """(x, ±1) when value = ±(exp(x) − 1)."""
    if value.op == "sub":
        a, b = value.operands
        if a.op == "exp" and number_of(b) == 1:
            return a.operands[0], 1
        if b.op == "exp" and number_of(a) == 1:
            return b.operands[0], -1
    if value.op == "add":
        for a, b in (value.operands, value.operands[::-1]):
            if a.op == "exp" and number_of(b) == -1:
                return a.operands[0], 1
            if number_of(b) == 1 and a.op == "neg" and a.operands[0].op == "exp":
                return a.operands[0].operands[0], -1
    return None


RULE = Rule("STB211", "exp-minus-one", frozenset({"sub", "add"}), match, __doc__, "warning")

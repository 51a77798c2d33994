"""# scores-before-scaling (STB603)

## What it does
Finds a product of float16 matrices that is scaled down only afterwards: q·kᵀ/√d.

## Why it is unstable
The product is stored before it is scaled: with d = 64, entries of 32 in q and k are enough for a score of 65536, which
is inf in float16, although the scaled score is 8192. A row with an inf is NaN after the softmax.

## Example
    scores = (q @ k.transpose(-1, -2)) / d**0.5      in float16
→
    scores = (q / d**0.5) @ k.transpose(-1, -2)

## Shapes
Any that the product takes, with views between it and the scale.

## Error
Relative (n + 2)·u beside Σ|q·k| after, as before; total loss above 65504 before.

## Safety
exact: equal over the reals. Where the product is widened before it is scaled, it is computed in the wider format.

## Source
Shoeybi et al., Megatron-LM, arXiv 1909.08053 (its query-key layer scaling); Micikevicius et al., ICLR 2018.
"""

from __future__ import annotations

from fractions import Fraction

from stabilize.formats import FORMATS
from stabilize.graph.ops import LAYOUT
from stabilize.graph.value import Value
from stabilize.passes.cancellation.moments import unscaled
from stabilize.passes.rule import Context, Proposal, Rule

_VIEWS = LAYOUT - {"gather", "concat", "slice", "one_hot"}
_LIMIT = FORMATS["float16"].max


def match(ctx: Context, value: Value) -> Proposal | None:
    inner, k = unscaled(value)
    if not 0 < abs(k) < 1:
        return None
    views: list[Value] = []
    while inner.op in _VIEWS or inner.op == "cast":
        views.append(inner)
        inner = inner.operands[0]
    product, rest = _product(inner)
    if product is None or inner.dtype != "float16" or not all(ctx.of_data(o) for o in product.operands):
        return None
    bound = ctx.ranges.of(product)
    if max(abs(bound.lo), abs(bound.hi)) <= _LIMIT:
        return None
    new = _scaled(ctx, product, k, value.dtype)
    if rest is not None:
        new = ctx.builder.make("add", new, ctx.engine.algebra.times(ctx.builder.cast(rest, value.dtype), k))
    for view in reversed(views):
        new = new if view.op == "cast" else ctx.builder.make(view.op, new, **dict(view.attrs))
    return RULE.proposal(value, new)


def _product(inner: Value) -> tuple[Value | None, Value | None]:
    """(a·b, c) of a·b + c."""
    if inner.op == "matmul":
        return inner, None
    for a, b in (inner.operands, inner.operands[::-1]) if inner.op == "add" else ():
        if a.op == "matmul" and a.shape == inner.shape:
            return a, b
    return None, None


def _scaled(ctx: Context, product: Value, k: Fraction, dtype: str) -> Value:
    """k times the product, in `dtype`."""
    left, right = (ctx.builder.cast(o, dtype) for o in product.operands)
    if dtype == product.dtype:
        return ctx.builder.make("matmul", ctx.engine.algebra.times(left, k), right)
    return ctx.engine.algebra.times(ctx.builder.make("matmul", left, right), k)


RULE = Rule("STB603", "scores-before-scaling", frozenset({"mul", "div"}), match, __doc__, "error",
            lambda fmt: f"a product above {_LIMIT:g} before it is scaled, in float16")  # fmt: skip

"""# fully-masked-row (STB604)

## What it does
Finds attention softmax(scores + mask) v, or with masked scores replaced by −inf, whose weights are not 0 in a row that
is masked throughout. Looked for on request alone (allow="approximate").

## Why it is unstable
A row that is −inf throughout gives −inf − (−inf) = NaN, which the next layer spreads to every token. A mask of the
lowest finite number absorbs the scores: the row then attends to all that it must not see.

## Example
    softmax(where(m, scores, -inf), -1) @ v
→
    where(r, 0, softmax(where(r, 0, where(m, scores, -inf)), -1)) @ v,  r = ~m.any(-1)       with allow="approximate"

## Shapes
Any; the mask broadcasts to the scores.

## Error
None in rows in which something is left.

## Safety
approximate: 0/0 has no value, and what PyTorch's scaled_dot_product_attention and the ONNX operator Attention give, 0,
is put in its place. Rows that hold a NaN keep it. Masks that add neither an infinity nor the lowest number of the
format are left alone, since they say what such a row is; so are weights that a guard follows already.

## Source
PyTorch 2.5, `torch.ops.aten._safe_softmax`; ONNX operator Attention (opset 23).
"""

from __future__ import annotations

import math

from stabilize.formats import FORMATS, is_float
from stabilize.graph.build import constant_of
from stabilize.graph.ops import LAYOUT
from stabilize.graph.value import Value
from stabilize.passes.rule import Context, Proposal, Rule
from stabilize.passes.scaled import number_of

#: What scores are computed by from their product.
_SCALING = (LAYOUT - {"gather", "concat", "one_hot"}) | {"cast", "mul", "div", "add"}


def match(ctx: Context, value: Value) -> Proposal | None:
    if ctx.options.allow != "approximate" or ctx.options.hazards:
        return None
    weights, v = value.operands
    inner = _unguarded(weights)
    if inner is None:
        return None
    narrow = [inner]
    while narrow[-1].op == "cast":
        narrow.append(narrow[-1].operands[0])
    softmax = narrow[-1]
    if softmax.op != "softmax" or softmax.axes != (softmax.type.rank - 1,):
        return None
    masked = _masked(ctx, softmax.operands[0])
    if masked is None or not masked.type.rank:
        return None
    b, scores = ctx.builder, softmax.operands[0]
    rows = b.reduce("all", masked, (masked.type.rank - 1,), keepdim=True)
    kept = b.apply("where", rows, 0.0, scores)
    new = b.apply("where", rows, 0.0, b.make("softmax", kept, axis=softmax.axes[0]))
    for cast in reversed(narrow[:-1]):
        new = b.cast(new, cast.dtype)
    if inner is not weights:  # of a NaN in the row
        new = b.apply("where", b.make("isnan", new), 0.0, new)
    return RULE.proposal(value, ctx.emitter.finish(b.make("matmul", new, v), value), safety="approximate")


def _unguarded(weights: Value) -> Value | None:
    """The weights behind where(isnan(p), 0, p), which does nothing where a mask is finite; None behind other guards."""
    if weights.op != "where":
        return weights
    condition, zero, p = weights.operands
    return p if condition.op == "isnan" and condition.operands[0] is p and number_of(zero) == 0 else None


def _masked(ctx: Context, scores: Value) -> Value | None:
    """Which scores are masked, to be broadcast to the scores; None where no mask is seen."""
    b = ctx.builder
    source = scores
    while source.op in ("cast", "expand"):
        source = source.operands[0]
    if source.op == "where":
        return _chosen(ctx, source, -math.inf)
    if source.op != "add":
        return None
    for mask, other in (source.operands, source.operands[::-1]):
        if not _is_product(other) or _is_product(mask):
            continue
        plain = mask
        while plain.op in ("cast", "expand"):
            plain = plain.operands[0]
        if plain.op == "where":
            return _chosen(ctx, plain, -FORMATS[plain.dtype].max)
        if ctx.ranges.of(mask).lo == -math.inf:
            return b.apply("eq", scores, -math.inf)
    return None


def _chosen(ctx: Context, value: Value, highest: float) -> Value | None:
    """When where(c, a, k) is a number that masks: no higher than `highest`."""
    condition, yes, no = value.operands
    for number, other, masked in ((no, yes, False), (yes, no, True)):
        k = constant_of(number)
        if k is not None and float(k) <= highest and constant_of(other) in (None, 0):
            return condition if masked else ctx.builder.make("not", condition)
    return None


def _is_product(value: Value) -> bool:
    """A product of matrices, scaled or laid out."""
    stack = [value]
    while stack:
        each = stack.pop()
        if each.op == "matmul":
            return True
        if each.op in _SCALING and is_float(each.dtype):
            stack.extend(each.operands)
    return False


RULE = Rule("STB604", "fully-masked-row", frozenset({"matmul"}), match, __doc__, "info",
            lambda fmt: "a row that is masked throughout")  # fmt: skip

"""The exact cure of Softmax Collapse: cross-entropy in its log1p form.

    loss = M + log1p(expm1(−M) + Σ_{k≠y} e^{d_k − M}),   d_k = z_k − z_y,   M = max(0, max_{k≠y} d_k)

Where z_y = −inf the loss is +inf and where a row is NaN, +inf or all −inf it is NaN, as in every other form.
For M = 0 (y leads) this is log1p(Σ_{k≠y} e^{d_k}), which does not round to 0 until the sum itself underflows. The
derivative by z_y is −Σ_{k≠y} p_k, formed without the cancellation of p_y − 1; the one by z_k is p_k. M carries no
gradient (its contributions cancel over the reals). Masked classes (−inf) contribute 0; nothing is ever inf − inf
for a finite z_y.

Source of the phenomenon: Prieto et al., Grokking at the Edge of Numerical Stability, ICLR 2025, arXiv 2501.04697.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import cast, final

from stabilize.formats import FORMATS, is_float
from stabilize.graph.value import Value
from stabilize.passes.catalogue import COLLAPSE
from stabilize.passes.fused import LOSS_SINKS, ReducedLoss, RowLoss, class_axis, read_loss
from stabilize.passes.rule import Context, Proposal

NAME = "collapse-free"
_ONE = Fraction(1)


def propose(ctx: Context, value: Value) -> Proposal | None:
    """Any cross-entropy, in any spelling, when the user asked for `form="collapse-free"`."""
    if ctx.options.form != NAME:
        return None
    if value.op == "cross_entropy" and not is_float(value.operands[1].dtype):
        return _fused(ctx, value)
    if value.op == "nll_loss":
        return _nll(ctx, value)
    if value.op not in LOSS_SINKS:
        return None
    found = read_loss(ctx, value)
    if found is None or not isinstance(found.row.logits.shape[found.row.axis], int):
        return None
    return COLLAPSE.proposal(value, ctx.emitter.finish(_reduced(ctx, found), value))


def _reduced(ctx: Context, found: ReducedLoss) -> Value:
    rows = row_loss(ctx, found.row)
    if found.reduction != "none":
        rows = ctx.builder.reduce(found.reduction, rows, range(rows.type.rank), keepdim=False)
    return ctx.engine.algebra.times(rows, found.factor * found.row.factor)


def row_loss(ctx: Context, row: RowLoss) -> Value:
    """−log_softmax(logits)[target] of each row, in at least float32; shape of the target."""
    b, axis = ctx.builder, row.axis
    dtype = row.logits.dtype if row.logits.dtype == "float64" else "float32"
    z = b.cast(row.logits, dtype)
    index = b.unsqueeze(row.target, (axis,))
    picked = b.make("gather", z, index, axis=axis)
    true = b.apply("maximum", picked, -FORMATS[dtype].max)  # finite, so that a masked class stays −inf beside it
    others = b.make("where", _is_target(ctx, row), b.constant(-math.inf, dtype), b.make("sub", z, true))
    top = b.make("detach", b.apply("maximum", b.reduce("max", others, (axis,)), 0.0))
    total = b.reduce("sum", b.make("exp", b.make("sub", others, top)), (axis,))
    excess = b.make("add", total, b.make("expm1", b.neg(top)))
    loss = b.make("add", top, b.make("log1p", excess))
    masked = b.make("detach", b.make("sub", true, picked))  # 0, or +inf where the target is masked
    undefined = b.apply("mul", b.make("detach", b.reduce("max", z, (axis,))), 0.0)  # 0, or NaN
    return b.squeeze(b.make("add", loss, b.make("add", masked, undefined)), (axis,))


def _is_target(ctx: Context, row: RowLoss) -> Value:
    """The one-hot of the target as booleans, of the shape of the logits."""
    b, axis, rank = ctx.builder, row.axis, row.logits.type.rank
    hot = b.make("one_hot", row.target, classes=cast(int, row.logits.shape[axis]))
    if axis == rank - 1:
        return hot
    perm = (*range(axis), rank - 1, *range(axis, rank - 1))
    return b.make("transpose", hot, perm=perm)


def _fused(ctx: Context, value: Value) -> Proposal | None:
    """cross_entropy(x, y) with its reduction, class weights, ignored targets and label smoothing."""
    logits, target = value.operands[:2]
    axis = class_axis(logits)
    if target.type.rank != logits.type.rank - 1 or not isinstance(logits.shape[axis], int):
        return None  # probabilities as targets: no single true class
    smoothing = cast(float, value.attr("label_smoothing"))
    parts = _Parts(ctx, logits, target, value)
    rows = parts.rows(row_loss(ctx, RowLoss(logits, parts.safe_target, axis, _ONE)))
    if smoothing:
        rows = ctx.builder.make("add", ctx.builder.apply("mul", rows, 1.0 - smoothing), parts.smooth(axis, smoothing))
    return COLLAPSE.proposal(value, ctx.emitter.finish(parts.reduce(rows), value))


def _nll(ctx: Context, value: Value) -> Proposal | None:
    """nll_loss(log_softmax(x), y): the same with the log-softmax outside."""
    form = ctx.engine.linear(value.operands[0])
    split = ctx.emitter.split(form)
    axis = class_axis(value.operands[0])
    if len(split.terms) != 1 or split.constant or split.terms[0][0] != 1:
        return None
    term = split.terms[0][1]
    if term.kind != "log_softmax" or term.axes != (axis,) or term.views:
        return None
    logits = ctx.emitter.operand(term.form, ctx.engine.algebra.dtype_of(term.form))
    if not isinstance(logits.shape[axis], int):
        return None
    parts = _Parts(ctx, logits, value.operands[1], value)
    rows = parts.rows(row_loss(ctx, RowLoss(logits, parts.safe_target, axis, _ONE)))
    return COLLAPSE.proposal(value, ctx.emitter.finish(parts.reduce(rows), value))


@final
class _Parts:
    """Weights, ignored rows and reduction of a fused class loss, around the losses of its rows."""

    def __init__(self, ctx: Context, logits: Value, target: Value, loss: Value) -> None:
        b = ctx.builder
        self._ctx, self._logits, self._target, self._loss = ctx, logits, target, loss
        # class weights have no gradient in the operator that is replaced
        self._weight = b.make("detach", loss.operands[2]) if len(loss.operands) > 2 else None
        ignored = cast(int, loss.attr("ignore_index"))
        self._kept = b.make("ne", target, b.constant(ignored, target.dtype))
        #: an ignored target may be out of range: point it at class 0, its row is dropped
        self.safe_target = b.make("where", self._kept, target, b.constant(0, target.dtype))

    def _row_weight(self, dtype: str) -> Value:
        b = self._ctx.builder
        kept = b.cast(self._kept, dtype)
        if self._weight is None:
            return kept
        rank, axis = self._logits.type.rank, class_axis(self._logits)
        table = b.unsqueeze(self._weight, [i for i in range(rank) if i != axis])
        table = b.expand(b.cast(table, dtype), self._logits.shape)
        index = b.unsqueeze(self.safe_target, (axis,))
        picked = b.squeeze(b.make("gather", table, index, axis=axis), (axis,))
        return b.make("mul", picked, kept)

    def rows(self, losses: Value) -> Value:
        b = self._ctx.builder
        zero = b.constant(0.0, losses.dtype)
        dropped = b.make("where", self._kept, losses, zero)
        return dropped if self._weight is None else b.make("mul", dropped, self._row_weight(losses.dtype))

    def smooth(self, axis: int, smoothing: float) -> Value:
        """ε/C · Σ_k w_k·(−log_softmax_k), 0 for ignored rows."""
        b, shape = self._ctx.builder, self._logits.shape
        dtype = self._logits.dtype if self._logits.dtype == "float64" else "float32"
        logp = b.make("log_softmax", b.cast(self._logits, dtype), axis=axis)
        if self._weight is not None:
            table = b.unsqueeze(self._weight, [i for i in range(len(shape)) if i != axis])
            logp = b.make("mul", logp, b.cast(table, dtype))
        total = b.apply("mul", b.reduce("sum", logp, (axis,), keepdim=False), -smoothing / cast(int, shape[axis]))
        return b.make("where", self._kept, total, b.constant(0.0, dtype))

    def reduce(self, rows: Value) -> Value:
        b, reduction = self._ctx.builder, self._loss.attr("reduction")
        if reduction == "none":
            return rows
        axes = range(rows.type.rank)
        total = b.reduce("sum", rows, axes, keepdim=False) if rows.type.rank else rows
        if reduction == "sum":
            return total
        weight = self._row_weight(rows.dtype)
        count = b.reduce("sum", weight, axes, keepdim=False) if rows.type.rank else weight
        return b.make("div", total, count)

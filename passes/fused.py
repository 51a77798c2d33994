"""Recognise whole losses and attention in normal form: cross-entropy, binary cross-entropy, scaled dot product.

The normal forms make these short: the negative log-likelihood of a row is −log_softmax(x)[y] however it was
written, so recognising it is reading one term, not matching spellings.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import final

from stabilize.graph.build import constant_of, element_count
from stabilize.graph.value import Value
from stabilize.passes.catalogue import ATTENTION, BINARY_CROSS_ENTROPY, CROSS_ENTROPY, TANH
from stabilize.passes.emit import Term
from stabilize.passes.linear import ONE, Linear
from stabilize.passes.rule import Context, Proposal
from stabilize.passes.scaled import Scaled, boolean, number_of

LOSS_SINKS = frozenset({"neg", "mean", "sum", "mul", "div", "nll_loss"})


@final
@dataclass(frozen=True, slots=True)
class RowLoss:
    """factor · (−log_softmax(logits, axis)[target]), one number a row; `ignore_index` rows count 0."""

    logits: Value
    target: Value
    axis: int
    factor: Fraction


@final
@dataclass(frozen=True, slots=True)
class ReducedLoss:
    """factor · reduction of a row loss ("none", "mean", "sum")."""

    row: RowLoss
    reduction: str
    factor: Fraction


# --- cross-entropy ----------------------------------------------------------------------------------------------------


def propose_cross_entropy(ctx: Context, value: Value) -> Proposal | None:
    """A hand-written negative log-likelihood of a naive softmax as one cross_entropy."""
    if value.op not in LOSS_SINKS or value.op == "nll_loss":
        return None
    found = read_loss(ctx, value)
    if found is None or found.row.axis != class_axis(found.row.logits):
        return None
    loss = ctx.builder.make(
        "cross_entropy", found.row.logits, found.row.target,
        reduction=found.reduction, ignore_index=-100, label_smoothing=0.0,
    )  # fmt: skip
    new = ctx.emitter.finish(ctx.engine.algebra.times(loss, found.factor * found.row.factor), value)
    return CROSS_ENTROPY.proposal(value, new) if ctx.repairs(value, new) else None


def class_axis(logits: Value) -> int:
    return 1 if logits.type.rank > 1 else 0


def read_loss(ctx: Context, value: Value) -> ReducedLoss | None:
    """`value` as a reduction of a row loss, seen through signs and scale."""
    factor = ONE
    while True:
        inner, k = _scale_of(value)
        if inner is None:
            break
        value, factor = inner, factor * k
    if value.op in ("mean", "sum") and len(value.axes) == value.operands[0].type.rank:
        inner_value, k = _stripped(value.operands[0])
        row = read_row(ctx, inner_value, reduced=True)
        if row is not None:
            return ReducedLoss(row, value.op, factor * k)
    row = read_row(ctx, value)
    return None if row is None else ReducedLoss(row, "none", factor)


def _scale_of(value: Value) -> tuple[Value | None, Fraction]:
    """(u, k) when value = k·u with a number k."""
    if value.op == "neg":
        return value.operands[0], Fraction(-1)
    if value.op == "mul":
        for a, b in (value.operands, value.operands[::-1]):
            k = number_of(b)
            if k:
                return a, k
    if value.op == "div":
        k = number_of(value.operands[1])
        if k:
            return value.operands[0], 1 / k
    return None, ONE


def _stripped(value: Value) -> tuple[Value, Fraction]:
    factor = ONE
    while True:
        inner, k = _scale_of(value)
        if inner is None:
            return value, factor
        value, factor = inner, factor * k


def read_row(ctx: Context, value: Value, *, reduced: bool = False) -> RowLoss | None:
    """`value` as a multiple of −log_softmax(x)[y], by gather or by a one-hot sum.

    reduced: all of it is summed, so that the class axis may be there still, with size 1.
    """
    if value.op == "sum" and len(value.axes) == 1 and value.operands[0].op == "mul":
        return _one_hot_row(ctx, value)
    form = ctx.engine.linear(value)
    if form.single is value:
        return None
    split = ctx.emitter.split(form)
    if len(split.terms) != 1 or split.constant:
        return None
    k, term = split.terms[0]
    if term.kind != "log_softmax" or not term.views:
        return None
    return _picked_row(ctx, term, k, reduced)


def _picked_row(ctx: Context, term: Term, k: Fraction, reduced: bool) -> RowLoss | None:
    """A term log_softmax(x) → gather(unsqueeze(y)) → squeeze."""
    pick, rest = term.views[0], term.views[1:]
    if pick.op != "gather" or term.axes != pick.axes:
        return None
    (axis,) = pick.axes
    index = pick.operands[1]
    if index.op != "unsqueeze" or index.axes != (axis,):
        return None
    if not (reduced and not rest) and not (len(rest) == 1 and rest[0].op == "squeeze" and rest[0].axes == (axis,)):
        return None
    return RowLoss(_logits(ctx, term.form), index.operands[0], axis, -k)


def _one_hot_row(ctx: Context, value: Value) -> RowLoss | None:
    """Σ_k onehot(y)_k · log_softmax(x)_k over the class axis."""
    (axis,) = value.axes
    if value.attr("keepdim"):
        return None
    product = value.operands[0]
    for weight, body in (product.operands, product.operands[::-1]):
        hot = boolean(ctx.engine, weight) or (weight.operands[0] if weight.op == "cast" else weight)
        if hot.op == "cast":
            hot = hot.operands[0]
        if hot.op != "one_hot" or axis != product.type.rank - 1 or hot.shape != product.shape:
            continue
        split = ctx.emitter.split(ctx.engine.linear(body))
        if len(split.terms) != 1 or split.constant:
            continue
        k, term = split.terms[0]
        if term.kind == "log_softmax" and not term.views and term.axes == (axis,):
            return RowLoss(_logits(ctx, term.form), hot.operands[0], axis, -k)
    return None


def _logits(ctx: Context, form: Linear) -> Value:
    """The logits in their own format where that holds them, else in float32."""
    dtype = ctx.engine.algebra.dtype_of(form)
    return ctx.emitter.unwidened(ctx.emitter.logits(form, "float64" if dtype == "float64" else "float32"), dtype)


# --- binary cross-entropy ---------------------------------------------------------------------------------------------


def propose_binary_cross_entropy(ctx: Context, value: Value) -> Proposal | None:
    """y·log σ(z) + (1−y)·log(1−σ(z)) as −(softplus(z) − z·y)."""
    if value.op not in ("add", "sub"):
        return None
    first, second = (_weighted_log(ctx, o) for o in value.operands)
    if first is None or second is None:
        return None
    (ka, ya, za), (kb, yb, zb) = first, second
    if value.op == "sub":
        kb = -kb
    if ka != kb or not (za + zb).is_zero:
        return None
    for y, other, z in ((ya, yb, za), (yb, ya, zb)):
        if _is_complement(other, y):
            wide = "float64" if value.dtype == "float64" else "float32"  # the operator rounds at every step
            logits, labels = (ctx.builder.cast(v, wide) for v in (_logits(ctx, z), _like(ctx, y, value)))
            loss = ctx.builder.make("bce_with_logits", logits, labels, reduction="none")
            new = ctx.emitter.finish(ctx.engine.algebra.times(loss, -ka), value)
            if ctx.repairs(value, new):
                return BINARY_CROSS_ENTROPY.proposal(value, new)
    return None


def _like(ctx: Context, value: Value, like: Value) -> Value:
    return ctx.builder.expand(ctx.builder.cast(value, like.dtype), like.shape)


def _weighted_log(ctx: Context, value: Value) -> tuple[Fraction, Value, Linear] | None:
    """(k, y, z) when value = k·y·log σ(z)."""
    value, k = _stripped(value)
    if value.op != "mul":
        return None
    for y, body in (value.operands, value.operands[::-1]):
        inner, n = _stripped(body)
        split = ctx.emitter.split(ctx.engine.linear(inner))
        if len(split.terms) != 1 or split.constant:
            continue
        m, term = split.terms[0]
        if term.kind == "log_sigmoid" and not term.views:
            y, q = _stripped(y)
            return k * n * m * q, y, term.form
        if term.kind == "softplus" and not term.views:
            y, q = _stripped(y)
            return -k * n * m * q, y, term.form.scale(Fraction(-1))
    return None


def _is_complement(other: Value, y: Value) -> bool:
    """other = 1 − y."""
    return other.op == "sub" and constant_of(other.operands[0]) == 1 and other.operands[1] is y


# --- attention --------------------------------------------------------------------------------------------------------


def propose_attention(ctx: Context, value: Value) -> Proposal | None:
    """exp(q kᵀ/√d) v / Σ, in either order, as scaled dot-product attention (unmasked: masks differ at empty rows)."""
    if value.op not in ("matmul", "div", "mul"):
        return None
    reading = ctx.engine.scaled(value) if value.op != "matmul" else _product(ctx, value)
    if reading is None or not reading.exponent.is_zero or reading.coefficient is value:
        return None
    plain = ctx.emitter.finish(reading.coefficient, value)
    if not ctx.repairs(value, plain):
        return None
    fused = _attention(ctx, plain) if ctx.options.host == "fx" else None
    if fused is None:
        return None
    return ATTENTION.proposal(value, fused, plain)


def _product(ctx: Context, value: Value) -> Scaled | None:
    """softmax-weighted product: naive_softmax(S) @ v."""
    weights, v = value.operands
    reading = ctx.engine.scaled(weights)
    if reading.trivial or reading.number != 1:
        return None
    emitted = ctx.emitter.scaled(reading, weights)
    if emitted.op != "softmax":
        return None
    return Scaled(ctx.builder.make("matmul", emitted, v), Linear())


def _attention(ctx: Context, product: Value) -> Value | None:
    if product.op != "matmul" or product.operands[0].op != "softmax":
        return None
    weights, v = product.operands
    if weights.axes != (weights.type.rank - 1,):
        return None
    form = ctx.engine.linear(weights.operands[0])
    if len(form.terms) != 1 or form.constant:
        return None
    scores, scale = form.terms[0]
    if scores.op != "matmul" or scores.dtype != v.dtype or scores.type.rank < 3:
        return None
    q, kt = scores.operands
    rank = kt.type.rank
    if q.type.rank != rank or v.type.rank != rank:
        return None
    swap = (*range(rank - 2), rank - 1, rank - 2)
    transposed = kt.op == "transpose" and kt.attr("perm") == swap
    k = kt.operands[0] if transposed else ctx.builder.make("transpose", kt, perm=swap)
    if element_count(k.shape, range(rank)) == 0:
        return None
    return ctx.builder.make("attention", q, k, v, scale=float(scale))


# --- hyperbolic tangent -----------------------------------------------------------------------------------------------


def propose_tanh(ctx: Context, value: Value) -> Proposal | None:
    """(eᵃ − eᵇ)/(eᵃ + eᵇ) = tanh((a − b)/2)."""
    if value.op != "div":
        return None
    top, bottom = value.operands
    if top.op != "sub" or bottom.op != "add":
        return None
    ups = [ctx.engine.scaled(o) for o in top.operands]
    downs = [ctx.engine.scaled(o) for o in bottom.operands]
    if any(r.number is None for r in ups + downs) or ups[0].number != ups[1].number or not ups[0].number:
        return None
    if downs[0].number != downs[1].number or not downs[0].number:
        return None
    if {r.exponent for r in ups} != {r.exponent for r in downs}:
        return None
    half = (ups[0].exponent - ups[1].exponent).scale(Fraction(1, 2))
    body = ctx.builder.make("tanh", ctx.emitter.operand(half, ctx.emitter.carrier(value, half)))
    ratio = ups[0].number / downs[0].number
    new = ctx.emitter.finish(ctx.engine.algebra.times(ctx.emitter.narrow(body, value.dtype), ratio), value)
    return TANH.proposal(value, new) if ctx.repairs(value, new) else None

"""Rules of the oracle for fused losses, attention and normalisations, by their definitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from flint import arb

from stabilize.errors import UsageError
from stabilize.formats import is_float
from stabilize.graph.value import Value
from stabilize.verify import reals
from stabilize.verify.oracle_rules import Context, OracleArray, elementwise_map, matmul
from stabilize.verify.reals import ONE, ZERO, Reals, Scalar


def cross_entropy(context: Context, value: Value, operands: Sequence[OracleArray]) -> OracleArray:
    """−Σ_c t_c·w_c·log_softmax(x)_c with t the (smoothed) target; the mean is over Σ w_y, as in PyTorch."""
    logits = _class_rows(operands[0])
    logs = [context.reals.log_softmax(row) for row in logits]
    smoothing = cast(float, value.attr("label_smoothing"))
    if is_float(value.operands[1].dtype):
        return _soft_targets(context, value, operands, logs, smoothing)
    return _hard_targets(context, value, operands, logs, smoothing)


def nll_loss(context: Context, value: Value, operands: Sequence[OracleArray]) -> OracleArray:
    """−w_y·x_y."""
    return _hard_targets(context, value, operands, _class_rows(operands[0]), 0.0)


def _class_rows(logits: OracleArray) -> list[list[Scalar]]:
    """One list of class scores for every position; classes are axis 1, or axis 0 of a single position."""
    rows = np.moveaxis(logits, 1, -1) if logits.ndim > 1 else logits
    return cast("list[list[Scalar]]", rows.reshape((-1, rows.shape[-1])).tolist())


def _weights(operands: Sequence[OracleArray], classes: int) -> list[Scalar]:
    return cast("list[Scalar]", operands[2].tolist()) if len(operands) > 2 else [ONE] * classes


def _weighted_sum(arithmetic: Reals, weights: Sequence[Scalar], terms: Sequence[Scalar]) -> Scalar:
    return arithmetic.sum([arithmetic.mul(w, t) for w, t in zip(weights, terms, strict=True)])


def _hard_targets(
    context: Context, value: Value, operands: Sequence[OracleArray], scores: list[list[Scalar]], smoothing: float
) -> OracleArray:
    arithmetic, ignored = context.reals, value.attr("ignore_index")
    losses: list[Scalar] = []
    mass: list[Scalar] = []
    for row, target in zip(scores, operands[1].flat, strict=True):
        y = int(cast(int, target))
        if y == ignored:
            losses.append(ZERO)
            continue
        if not 0 <= y < len(row):
            raise UsageError(f"target {y} is not one of {len(row)} classes")
        weights = _weights(operands, len(row))
        loss = arithmetic.mul(weights[y], -row[y])
        if smoothing:
            spread = arithmetic.mul(arb(smoothing) / len(row), -_weighted_sum(arithmetic, weights, row))
            loss = arithmetic.add(arithmetic.mul(1 - arb(smoothing), loss), spread)
        losses.append(loss)
        mass.append(weights[y])
    return _reduced(context, value, losses, arithmetic.sum(mass), operands[1].shape)


def _soft_targets(
    context: Context, value: Value, operands: Sequence[OracleArray], logs: list[list[Scalar]], smoothing: float
) -> OracleArray:
    arithmetic = context.reals
    losses: list[Scalar] = []
    for row, target in zip(logs, _class_rows(operands[1]), strict=True):
        share = arb(smoothing) / len(row)
        smooth = [arithmetic.add(arithmetic.mul(1 - arb(smoothing), t), share) for t in target]
        weights = [arithmetic.mul(w, t) for w, t in zip(_weights(operands, len(row)), smooth, strict=True)]
        losses.append(-_weighted_sum(arithmetic, weights, row))
    shape = operands[0].shape[:1] + operands[0].shape[2:] if operands[0].ndim > 1 else ()
    return _reduced(context, value, losses, arb(len(losses)), shape)


def _reduced(context: Context, value: Value, losses: list[Scalar], mass: Scalar, shape: tuple[int, ...]) -> OracleArray:
    """Losses under `reduction`; a mean divides by `mass`."""
    reduction = value.attr("reduction")
    result = np.empty(shape if reduction == "none" else (), dtype=object)
    if reduction == "none":
        result.reshape(-1)[:] = losses
    else:
        total = context.reals.sum(losses)
        result[()] = context.reals.div(total, mass) if reduction == "mean" else total
    return result


def bce_with_logits(context: Context, value: Value, operands: Sequence[OracleArray]) -> OracleArray:
    """softplus(x) − x·y."""
    arithmetic = context.reals

    def loss(x: Scalar, y: Scalar) -> Scalar:
        return arithmetic.sub(reals.softplus(x), arithmetic.mul(x, y))

    losses = elementwise_map(loss, *operands)
    return _reduced(context, value, cast("list[Scalar]", list(losses.flat)), arb(losses.size), losses.shape)


def attention(context: Context, value: Value, operands: Sequence[OracleArray]) -> OracleArray:
    """softmax(q·kᵀ·scale + mask)·v; a row whose scores are all −inf gives zeros, as PyTorch and ONNX define it."""
    arithmetic = context.reals
    q, k, v = operands[:3]
    given = cast("float | None", value.attr("scale"))
    scale = arb(given) if given is not None else 1 / arb(q.shape[-1]).sqrt()

    def scaled(s: Scalar) -> Scalar:
        return arithmetic.mul(s, scale)

    scores = elementwise_map(scaled, matmul(context, q, np.swapaxes(k, -1, -2)))
    if len(operands) > 3:
        boolean = value.operands[3].dtype == "bool"

        def masked(s: Scalar, m: Scalar | bool) -> Scalar:
            if boolean:
                return s if m else -float("inf")
            return arithmetic.add(s, cast(Scalar, m))

        scores = elementwise_map(masked, scores, operands[3])
    weights = np.empty(scores.shape, dtype=object)
    for index in np.ndindex(*scores.shape[:-1]):
        row = cast("list[Scalar]", scores[index].tolist())
        empty = all(not isinstance(s, arb) and s == -float("inf") for s in row)
        weights[index] = [ZERO] * len(row) if empty else arithmetic.softmax(row)
    return matmul(context, weights, v)


def layer_norm(context: Context, value: Value, operands: Sequence[OracleArray]) -> OracleArray:
    """(x − E[x])/√(E[(x − E[x])²] + ε)·w + b."""
    return _normalised(context, value, operands, centred=True)


def rms_norm(context: Context, value: Value, operands: Sequence[OracleArray]) -> OracleArray:
    """x/√(E[x²] + ε)·w."""
    return _normalised(context, value, operands, centred=False)


def _normalised(context: Context, value: Value, operands: Sequence[OracleArray], *, centred: bool) -> OracleArray:
    arithmetic, epsilon = context.reals, arb(cast(float, value.attr("epsilon")))
    x, affine = operands[0], [cast("list[Scalar]", list(o.flat)) for o in operands[1:]]
    shape = x.shape[value.axes[0] :]
    width = int(np.prod(shape, dtype=np.int64))
    result = np.empty((x.size // max(width, 1), width), dtype=object)
    for i, row in enumerate(cast("list[list[Scalar]]", x.reshape((-1, width)).tolist() if x.size else [])):
        if centred:
            mean = arithmetic.div(arithmetic.sum(row), arb(width))
            row = [arithmetic.sub(v, mean) for v in row]
        square = arithmetic.div(arithmetic.sum([arithmetic.mul(v, v) for v in row]), arb(width))
        root = arithmetic.sqrt(arithmetic.add(square, epsilon))
        row = [arithmetic.div(v, root) for v in row]
        if affine:
            row = [arithmetic.mul(v, w) for v, w in zip(row, affine[0], strict=True)]
        if len(affine) > 1:
            row = [arithmetic.add(v, b) for v, b in zip(row, affine[1], strict=True)]
        result[i, :] = row
    return result.reshape(x.shape)

"""Primitives in the operators that ONNX runtimes compute well, in the vocabulary itself.

The emitter writes them so; the export of a PyTorch program does it before `torch.onnx.export` sees them. What has an
accurate operator of its own is not spelled. Half precision is computed in float32 and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, cast

import numpy as np

from stabilize.formats import is_float
from stabilize.frontends import onnx_expand, onnx_norms
from stabilize.frontends.onnx_emitter import CannotEmit
from stabilize.frontends.onnx_expand import EXPANSIONS, bce_rows, log1pexp
from stabilize.frontends.onnx_runtimes import PORTABLE, Runtime
from stabilize.frontends.onnx_types import numpy_dtype
from stabilize.graph.build import Builder
from stabilize.graph.value import Value, cone

_HALVES: Final = ("float16", "bfloat16")

#: Primitive → the operator that computes it by itself, where the runtime does that stably.
_OPERATORS: Final = {
    "sigmoid": "Sigmoid",
    "softplus": "Softplus",
    "logsumexp": "ReduceLogSumExp",
    "log_softmax": "LogSoftmax",
    "norm": "ReduceL2",
}


def is_spelled(value: Value, runtime: Runtime = PORTABLE) -> bool:
    """Whether the primitive of `value` needs a spelling to be computed stably."""
    match value.op:
        case "sigmoid" | "softplus" | "log_softmax":
            return not runtime.computes(_OPERATORS[value.op], value.dtype)
        case "logsumexp" | "norm":
            return bool(value.axes) and not runtime.computes(_OPERATORS[value.op], value.dtype)
        case "logcumsumexp":
            return isinstance(value.shape[value.axes[0]], int)
        case "cross_entropy":
            return is_float(value.operands[1].dtype) or value.attr("label_smoothing") != 0.0
        case "attention":
            return value.type.rank != 4 or len(value.operands) > 3  # a mask may close a row
        case "layer_norm":
            return onnx_norms.is_spelled(value, runtime)
        case _:
            return value.op in _SPELLINGS


def spelled(builder: Builder, value: Value, runtime: Runtime = PORTABLE) -> Value:
    """`value`, its operands given, in primitives that need no spelling. CannotEmit where none is known."""
    if not is_spelled(value, runtime):
        return value
    if value.dtype in _HALVES and value.op not in ("attention", "cross_entropy", "layer_norm"):
        operands = [builder.cast(o, "float32") if o.dtype in _HALVES else o for o in value.operands]
        new = builder.cast(builder.make(value.op, *operands, **dict(value.attrs)), value.dtype)
    else:
        new = _SPELLINGS[value.op](builder, value)
    given = max((o.index for o in value.operands), default=-1)  # −(−x) leads below the operands
    made: dict[Value, Value] = {}
    for v in cone([new], value.operands):
        made[v] = v
        if v.index > given:
            again = builder.make(v.op, *(made[o] for o in v.operands), **dict(v.attrs))
            made[v] = spelled(builder, again, runtime)
    return made[new]


# --- one primitive in others ------------------------------------------------------------------------------------------


def _expanded(b: Builder, v: Value) -> Value:
    return EXPANSIONS[v.op].build(b, *v.operands, **dict(v.attrs))


def log_sigmoid(b: Builder, v: Value) -> Value:
    return b.neg(b.make("softplus", b.neg(v.operands[0])))


def logcumsumexp(b: Builder, v: Value) -> Value:
    if not isinstance(v.shape[v.axes[0]], int):
        raise CannotEmit("logcumsumexp along a symbolic axis")
    return onnx_expand.logcumsumexp(b, v.operands[0], v.axes[0])


def bce_with_logits(b: Builder, v: Value) -> Value:
    x, y = v.operands
    return _reduced(b, v, bce_rows(b, x, y, log1pexp(b, b.neg(b.make("abs", x)))))


def _reduced(b: Builder, v: Value, rows: Value) -> Value:
    reduction = v.attr("reduction")
    return rows if reduction == "none" else b.reduce(str(reduction), rows, range(rows.type.rank), False)


def cross_entropy(b: Builder, v: Value) -> Value:
    """−Σ over classes of weight · label · log_softmax, where labels are smoothed or probabilities."""
    return _soft_loss(b, v) if is_float(v.operands[1].dtype) else smoothed(b, v)


def smoothed(b: Builder, v: Value) -> Value:
    """(1 − ε)·nll + ε·mean over classes of −w·log_softmax, over the rows that are not ignored."""
    x, y, *weight = v.operands
    axis = _class_axis(x)
    epsilon = float(cast(float, v.attr("label_smoothing")))
    logs = b.make("log_softmax", x, axis=axis)
    attrs = {"reduction": "none", "ignore_index": v.attr("ignore_index")}
    nll = b.make("nll_loss", logs, y, *weight, **attrs)
    spread = b.neg(b.reduce("mean", _weighted(b, logs, weight, axis), [axis], False))
    rows = b.make("add", b.apply("mul", nll, 1.0 - epsilon), b.apply("mul", spread, epsilon))
    ignored = b.apply("eq", y, cast(int, v.attr("ignore_index")))
    rows = b.apply("where", ignored, 0.0, rows)
    if v.attr("reduction") != "mean":
        return _reduced(b, v, rows)
    # what the rows weigh: the loss where every log-probability is −1
    weights = b.make("nll_loss", b.constant(-1.0, x.dtype, x.shape), y, *weight, **attrs)
    every = range(rows.type.rank)
    return b.make("div", b.reduce("sum", rows, every, False), b.reduce("sum", weights, every, False))


def _soft_loss(b: Builder, v: Value) -> Value:
    """With probabilities as labels: the mean is over the rows, whatever they weigh."""
    x, y, *weight = v.operands
    axis = _class_axis(x)
    epsilon, classes = float(cast(float, v.attr("label_smoothing"))), x.shape[axis]
    if epsilon:
        if not isinstance(classes, int):
            raise CannotEmit("smoothed labels over a symbolic number of classes")
        y = b.apply("add", b.apply("mul", y, 1.0 - epsilon), epsilon / classes)
    logs = b.make("log_softmax", x, axis=axis)
    terms = _weighted(b, b.make("mul", y, logs), weight, axis)
    return _reduced(b, v, b.neg(b.reduce("sum", terms, [axis], False)))


def _class_axis(x: Value) -> int:
    return 1 if x.type.rank > 1 else 0


def _weighted(b: Builder, x: Value, weight: list[Value], axis: int) -> Value:
    if not weight:
        return x
    return b.make("mul", x, b.unsqueeze(weight[0], range(1, x.type.rank - axis)))


def attention(b: Builder, v: Value) -> Value:
    """softmax(q·kᵀ·scale + mask)·v, zeros in the rows that the mask closes entirely."""
    q, k, value, *masks = v.operands
    scale, width = v.attr("scale"), q.shape[-1]
    if scale is None:
        if not isinstance(width, int):
            raise CannotEmit("attention whose head size is symbolic and whose scale is not given")
        scale = 1.0 / math.sqrt(width)
    perm = (*range(k.type.rank - 2), k.type.rank - 1, k.type.rank - 2)
    factor = b.constant(float(np.asarray(scale).astype(numpy_dtype(q.dtype))), q.dtype)
    scores = b.make("matmul", b.make("mul", q, factor), b.make("transpose", k, perm=perm))
    for mask in masks:
        boolean = mask.dtype == "bool"
        scores = b.apply("where", mask, scores, -math.inf) if boolean else b.make("add", scores, mask)
    result = b.make("matmul", b.make("softmax", scores, axis=scores.type.rank - 1), value)
    for mask in masks:  # without one, no row is closed
        last = (mask.type.rank - 1,)
        if mask.dtype == "bool":
            closed = b.make("not", b.reduce("any", mask, last))
        else:
            closed = b.apply("eq", b.reduce("max", mask, last), -math.inf)
        result = b.apply("where", closed, 0.0, result)
    return result


_SPELLINGS: Final[dict[str, Callable[[Builder, Value], Value]]] = {
    **dict.fromkeys(EXPANSIONS, _expanded),
    "log_sigmoid": log_sigmoid,
    "bce_with_logits": bce_with_logits,
    "logcumsumexp": logcumsumexp,
    "cross_entropy": cross_entropy,
    "attention": attention,
    "layer_norm": onnx_norms.spelled,
}

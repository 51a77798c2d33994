"""Run an ONNX graph in bfloat16: the reference evaluator of the onnx package, with three of its operators mended.

ONNX Runtime has no bfloat16 kernels on a CPU. The reference evaluator computes LogSoftmax as log(softmax(x)),
ReduceLogSumExp of a row of −∞ as NaN, and refuses GatherElements along axis −1: not what a runtime does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

Array = npt.NDArray[Any]


class GatherElements(OpRun):
    """Along negative axes too."""

    op_domain = ""

    def _run(self, data: Array, indices: Array, axis: int = 0) -> tuple[Array]:
        return (np.take_along_axis(data, indices, axis=axis),)


class LogSoftmax(OpRun):
    """x − ln Σ eˣ, shifted, rounded once."""

    op_domain = ""

    def _run(self, x: Array, axis: int = -1) -> tuple[Array]:
        wide = x.astype(np.float64)
        return ((wide - _logsumexp(wide, (axis,))).astype(x.dtype),)


class ReduceLogSumExp(OpRun):
    """ln Σ eˣ, −∞ where every x is."""

    op_domain = ""

    def _run(
        self, x: Array, axes: Array | None = None, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> tuple[Array]:
        along = tuple(range(x.ndim)) if axes is None else tuple(int(a) for a in np.atleast_1d(axes))
        wide = _logsumexp(x.astype(np.float64), along)
        return ((wide if keepdims else np.squeeze(wide, along)).astype(x.dtype),)


def _logsumexp(x: Array, axes: tuple[int, ...]) -> Array:
    top = np.max(x, axis=axes, keepdims=True)
    shift = np.where(np.isinf(top), 0.0, top)
    return np.log(np.sum(np.exp(x - shift), axis=axes, keepdims=True)) + shift


def evaluate(model: onnx.ModelProto, feeds: dict[str, Array]) -> Array:
    """The first output."""
    with np.errstate(all="ignore"):
        evaluator = ReferenceEvaluator(model, new_ops=[GatherElements, LogSoftmax, ReduceLogSumExp])
        return np.asarray(evaluator.run(None, feeds)[0])

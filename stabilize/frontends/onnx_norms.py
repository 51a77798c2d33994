"""Normalisations: LayerNormalization and RMSNormalization read and emitted, and spelled out where an opset lacks them.

GroupNormalization is not emitted: its function body in the standard is E[x²] − E[x]², and ONNX Runtime, which has no
kernel of its own for it on CPUs, gives NaN at a mean of 1e4.
"""

from __future__ import annotations

from typing import cast

import numpy as np

from stabilize.frontends.onnx_call import Call, Refused
from stabilize.frontends.onnx_emitter import Emitter, Ref
from stabilize.frontends.onnx_runtimes import Runtime
from stabilize.frontends.onnx_types import numpy_dtype
from stabilize.graph.build import Builder
from stabilize.graph.value import Value

_OPERATORS = {"layer_norm": "LayerNormalization", "rms_norm": "RMSNormalization"}

#: The default of the standard, a float32.
_EPSILON = float(np.float32(1e-5))


def read(primitive: str, call: Call) -> tuple[Value | None, ...]:
    """The normalised values; mean and reciprocal deviation, which are outputs too, have no primitive."""
    x = call.floating()
    affine = [v for v in (call.optional(1), call.optional(2)) if v is not None]
    axis = call.axis(-1, x.type.rank)
    if call.int_attr("stash_type", 1) != 1 and x.dtype in ("float16", "bfloat16"):
        raise Refused("a normalisation that is carried in half precision")
    if any(v.dtype != x.dtype or v.shape != x.shape[axis:] for v in affine):
        raise Refused("a scale of another format, or one that broadcasts")
    value = call.builder.make(primitive, x, *affine, axis=axis, epsilon=call.float_attr("epsilon", _EPSILON))
    return (value, *[None] * (len(call.node.outputs) - 1))


def emit(e: Emitter, v: Value) -> Ref:
    """The operator where the opset has it and the runtime computes it stably, else two passes."""
    if _is_rounded(v) or not e.computes(_OPERATORS[v.op], v.dtype):
        return e.value(spelled(e.builder, v))
    x, *affine = (e.value(o) for o in v.operands)
    if not affine:
        shape = v.shape[v.axes[0] :]
        if not all(isinstance(d, int) for d in shape):
            return e.value(spelled(e.builder, v))
        affine = [e.array(np.ones(cast("tuple[int, ...]", shape), numpy_dtype(v.dtype)), v.dtype)]
    return e.op(_OPERATORS[v.op], x, *affine, type=v.type, axis=v.axes[0], epsilon=v.attr("epsilon"))


def is_spelled(v: Value, runtime: Runtime) -> bool:
    """Whether the operator, if the opset has it, does not compute this stably."""
    return _is_rounded(v) or not runtime.computes(_OPERATORS[v.op], v.dtype)


def _is_rounded(v: Value) -> bool:
    """Whether ε is another number in the operator: its attribute is a float32."""
    epsilon = cast(float, v.attr("epsilon"))
    return v.dtype == "float64" and float(np.float32(epsilon)) != epsilon


def spelled(b: Builder, v: Value) -> Value:
    """The definition, with a variance in two passes, in at least float32."""
    dtype = "float64" if v.dtype == "float64" else "float32"
    x, *affine = (b.cast(o, dtype) for o in v.operands)
    axes = range(v.axes[0], v.type.rank)
    if v.op == "layer_norm":
        x = b.make("sub", x, b.reduce("mean", x, axes))
    square = b.reduce("mean", b.make("mul", x, x), axes)
    result = b.make("div", x, b.make("sqrt", b.apply("add", square, cast(float, v.attr("epsilon")))))
    for op, tensor in zip(("mul", "add"), affine, strict=False):
        result = b.make(op, result, tensor)
    return b.cast(result, v.dtype)

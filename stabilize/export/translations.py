"""Translations of ATen operators that need no spelling, but other ONNX operators than the exporter's, or fewer.

Each is called with ONNX values by `torch.onnx.export(custom_translation_table=…)`, inside its recorder.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, cast

import numpy as np
import onnx_ir as ir
import onnxscript
import torch

_aten = cast(Any, torch.ops.aten)
op = cast(Any, onnxscript.opset18)  # its methods are typed for scripts, not for values


def scalar_tensor(s: Any, dtype: int = -1, **_: Any) -> Any:
    """A constant of its own type: the exporter makes a float32 of it first, which in float64 is another number."""
    kind = ir.DataType.FLOAT if dtype == -1 else ir.DataType(dtype)
    if isinstance(s, ir.Value):
        return op.Cast(s, to=kind)
    return _constant(s, kind)


def full(size: Any, fill_value: Any, dtype: int = -1, **_: Any) -> Any:
    """The same for a whole tensor."""
    if dtype == -1 and isinstance(fill_value, (bool, int)):
        dtype = int(ir.DataType.BOOL if isinstance(fill_value, bool) else ir.DataType.INT64)
    number = fill_value if dtype == -1 and isinstance(fill_value, ir.Value) else scalar_tensor(fill_value, dtype)
    if isinstance(size, ir.Value):
        return op.Expand(number, size)
    sizes = cast("list[Any]", size)
    if not sizes:
        return number
    if all(isinstance(n, int) for n in sizes):
        return op.Expand(number, _constant(sizes, ir.DataType.INT64))
    one = _constant([-1], ir.DataType.INT64)
    parts = [op.Reshape(_constant(n, ir.DataType.INT64) if isinstance(n, int) else n, one) for n in sizes]
    return op.Expand(number, op.Concat(*parts, axis=0))


def _constant(number: Any, kind: ir.DataType) -> Any:
    return op.Constant(value=ir.tensor(np.array(number).astype(kind.numpy()), dtype=kind))


def _number(number: float, like: Any) -> Any:
    """A constant in the type of `like`."""
    return _constant(number, like.dtype) if like.dtype is not None else op.CastLike(number, like)


def _operand(x: Any, like: Any) -> Any:
    """An operand that may be a Python number."""
    return x if isinstance(x, ir.Value) else _number(x, like)


def softplus(self: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """softplus(βx)/β. With β = 1 the identity from a threshold of 20 on is within half an ulp of float32 of it."""
    if beta == 1.0 and threshold >= 20.0:
        return op.Softplus(self)
    scaled = op.Mul(self, _number(beta, self))
    smooth = op.Div(op.Softplus(scaled), _number(beta, self))
    return op.Where(op.Greater(scaled, _number(threshold, self)), self, smooth)


def mish(self: Any) -> Any:
    """x·tanh(softplus(x)): the operator Mish loses three digits of it."""
    return op.Mul(self, op.Tanh(op.Softplus(self)))


def log2(self: Any) -> Any:
    """log₂: the exporter divides by ln 2 in float32."""
    return op.Div(op.Log(self), _number(math.log(2.0), self))


def log10(self: Any) -> Any:
    """log₁₀, as `log2`."""
    return op.Div(op.Log(self), _number(math.log(10.0), self))


def leaky_relu(self: Any, negative_slope: float = 0.01) -> Any:
    """The operator holds its slope as a float32, and runtimes have no kernel for it in float64."""
    if self.dtype != ir.DataType.DOUBLE:
        return op.LeakyRelu(self, alpha=negative_slope)
    return op.Where(op.Less(self, _number(0, self)), op.Mul(self, _number(negative_slope, self)), self)


def hardsigmoid(self: Any) -> Any:
    """As `leaky_relu`."""
    if self.dtype != ir.DataType.DOUBLE:
        return op.HardSigmoid(self, alpha=1.0 / 6.0, beta=0.5)
    shifted = op.Add(self, _number(3, self))
    return op.Div(op.Min(op.Max(shifted, _number(0, self)), _number(6, self)), _number(6, self))


def hardswish(self: Any) -> Any:
    """As `leaky_relu`."""
    return op.HardSwish(self) if self.dtype != ir.DataType.DOUBLE else op.Mul(self, hardsigmoid(self))


def remainder(self: Any, other: Any) -> Any:
    """a − b·⌊a/b⌋ with the sign of b, without rounding the quotient: from the exact remainder of truncated division."""
    other = _operand(other, self)
    rest = op.Mod(self, other, fmod=1)
    return op.Where(_other_sign(rest, other), op.Add(rest, other), rest)


def _other_sign(rest: Any, other: Any) -> Any:
    zero = _number(0, rest)
    return op.And(op.Not(op.Equal(rest, zero)), op.Xor(op.Less(rest, zero), op.Less(other, zero)))


def divide(self: Any, other: Any, rounding_mode: str | None = None) -> Any:
    """Division rounded down or towards 0. What remains of it is exact, and the quotient of the rest is whole but for
    its own rounding, where a/b itself may be rounded up to the next whole number. Integers stay integers."""
    other = _operand(other, self)
    if rounding_mode is None:
        return op.Div(self, other)
    if self.dtype is not None and self.dtype.is_integer():
        return op.Div(self if rounding_mode == "trunc" else op.Sub(self, op.Mod(self, other)), other)
    rest = op.Mod(self, other, fmod=1)
    whole = op.Div(op.Sub(self, rest), other)
    if rounding_mode == "floor":
        whole = op.Sub(whole, op.CastLike(_other_sign(rest, other), whole))
    return op.Where(op.Equal(other, _number(0, other)), op.Div(self, other), op.Round(whole))


def floor_divide(self: Any, other: Any) -> Any:
    """As `divide`."""
    return divide(self, other, "floor")


def atan2(self: Any, other: Any) -> Any:
    """The angle of the point (other, self): atan of its smaller coordinate by the larger, turned into its octant."""
    high, wide = op.Abs(self), op.Abs(other)
    small, large, zero, pi = op.Min(high, wide), op.Max(high, wide), _number(0, self), _number(math.pi, self)
    same = op.Where(op.Equal(large, zero), zero, _number(1, self))  # 0/0 and ∞/∞
    angle = op.Atan(op.Where(op.Equal(small, large), same, op.Div(small, large)))
    angle = op.Where(op.Greater(high, wide), op.Sub(_number(math.pi / 2, self), angle), angle)
    angle = op.Where(_negative(other), op.Sub(pi, angle), angle)
    return op.Where(_negative(self), op.Neg(angle), angle)


def _negative(x: Any) -> Any:
    """Whether x has a minus sign, −0 included."""
    zero = _number(0, x)
    return op.Or(op.Less(x, zero), op.Less(op.Reciprocal(x), zero))


def hypot(self: Any, other: Any) -> Any:
    """m·√(1 + (n/m)²), m the larger of both: no square overflows or vanishes."""
    high, wide = op.Abs(self), op.Abs(other)
    small, large = op.Min(high, wide), op.Max(high, wide)
    ratio = op.Where(op.Equal(small, large), _number(1, self), op.Div(small, large))
    return op.Mul(large, op.Sqrt(op.Add(_number(1, self), op.Mul(ratio, ratio))))


# --- reductions -------------------------------------------------------------------------------------------------------


def vector_norm(self: Any, ord: float = 2.0, dim: Any = None, keepdim: bool = False, dtype: int = -1) -> Any:
    """m·‖x/m‖, m the largest magnitude (held inside the finite range): no power overflows or vanishes."""
    x = self if dtype == -1 else op.Cast(self, to=dtype)
    axes = None if not dim and dim != 0 else _constant([dim] if isinstance(dim, int) else list(dim), ir.DataType.INT64)
    if ord == 1.0:
        return op.ReduceL1(x, axes, keepdims=keepdim)
    sizes = op.Abs(x)
    if math.isinf(ord):
        return (op.ReduceMax if ord > 0 else op.ReduceMin)(sizes, axes, keepdims=keepdim)
    if ord == 0.0:
        return op.ReduceSum(op.Cast(op.Not(op.Equal(x, _number(0, x))), to=x.dtype), axes, keepdims=keepdim)
    largest = op.ReduceMax(sizes, axes, keepdims=1)
    info = torch.finfo(_TORCH[x.dtype])
    scale = op.Min(op.Max(largest, _number(info.smallest_normal, x)), _number(info.max, x))
    shares = op.Div(x if ord == 2.0 else sizes, scale)
    scale = scale if keepdim else op.Squeeze(scale, axes)
    if ord == 2.0:
        return op.Mul(op.ReduceL2(shares, axes, keepdims=keepdim), scale)
    total = op.ReduceSum(op.Pow(shares, _number(ord, x)), axes, keepdims=keepdim)
    return op.Mul(op.Pow(total, _number(1.0 / ord, x)), scale)


_TORCH: Final = {
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.DOUBLE: torch.float64,
}


def variance(self: Any, dim: Any = None, correction: float | None = None, keepdim: bool = False) -> Any:
    """Σ ((x − mean)·w)² with w² = 1/(n − correction): a sum that overflows only if the variance does."""
    rank = len(self.shape)
    dims = [d % rank for d in ([dim] if isinstance(dim, int) else dim)] if dim else list(range(rank))
    less = 1.0 if correction is None else float(correction)
    axes = _constant(dims, ir.DataType.INT64)
    x = op.Cast(self, to=ir.DataType.FLOAT) if self.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16) else self
    if all(isinstance(self.shape[d], int) for d in dims):
        free = max(math.prod(self.shape[d] for d in dims) - less, 0.0)
        weight = _number(math.sqrt(1.0 / free) if free else math.inf, x)
    else:
        count = op.ReduceProd(op.Gather(op.Shape(self), axes), keepdims=0)
        free = op.Max(op.Sub(op.Cast(count, to=x.dtype), _number(less, x)), _number(0, x))
        weight = op.Sqrt(op.Reciprocal(free))
    away = op.Sub(x, op.ReduceMean(x, axes, keepdims=1))
    away = op.Mul(op.Sub(away, op.ReduceMean(away, axes, keepdims=1)), weight)  # what rounding the mean left of it
    result = op.ReduceSum(op.Mul(away, away), axes, keepdims=keepdim)
    return result if x is self else op.Cast(result, to=self.dtype)


TRANSLATIONS: Final[dict[Any, Callable[..., Any]]] = {
    _aten.scalar_tensor.default: scalar_tensor,
    _aten.full.default: full,
    _aten.softplus.default: softplus,
    _aten.mish.default: mish,
    _aten.log2.default: log2,
    _aten.log10.default: log10,
    _aten.leaky_relu.default: leaky_relu,
    _aten.hardsigmoid.default: hardsigmoid,
    _aten.hardswish.default: hardswish,
    _aten.remainder.Tensor: remainder,
    _aten.remainder.Scalar: remainder,
    _aten.div.Tensor_mode: divide,
    _aten.div.Scalar_mode: divide,
    _aten.floor_divide.default: floor_divide,
    _aten.atan2.default: atan2,
    _aten.hypot.default: hypot,
    _aten.linalg_vector_norm.default: vector_norm,
    _aten.var.correction: variance,
}

"""Running error analysis: how far a formula may be off when each operation rounds once.

To first order, in units of the unit roundoff u, every primitive hands on the errors of its operands through its
derivative and adds its own rounding (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., §3.3).
Beside the error E, the analysis carries M, the magnitude of the exponents a value was made from: a stable form
works in the log domain, where a rounding error of an exponent s is |s|·u, so that its own bound grows with M
(Blanchard, Higham & Higham, IMA J. Numer. Anal. 41(4), 2021). Exponents are computed in at least float32, and
exponents beyond the range of exp do not count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast, final

import numpy as np
import torch
from flint import arb

from stabilize.formats import FLOAT32, Format, is_float
from stabilize.graph.ops import VOCABULARY
from stabilize.graph.value import Value, cone
from stabilize.verify.compare import AnyArray
from stabilize.verify.execute import EXECUTE, torch_dtype
from stabilize.verify.inputs import EXPONENTIAL, exponents_of


@final
@dataclass(frozen=True, slots=True)
class Term:
    """A value with its error bound, as float64 tensors: v, E (in units of u) and M."""

    v: torch.Tensor
    error: torch.Tensor
    exponent: torch.Tensor


@final
@dataclass(frozen=True, slots=True)
class Scales:
    """What the format contributes: the largest exponent that counts, and the roundoff of exponents in units of u."""

    reach: float
    exponent_unit: float

    @classmethod
    def of(cls, fmt: Format) -> Scales:
        return cls(max(fmt.exp_overflow, -fmt.exp_underflow), min(fmt.u, FLOAT32.u) / fmt.u)


Bound: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""(E, M)."""

Rule: TypeAlias = Callable[[Value, torch.Tensor, Sequence[Term], Scales], Bound]


@final
@dataclass(frozen=True, slots=True)
class Analysis:
    """The bound of a result, and the largest error of an exponent on the way to it (in units of u)."""

    term: Term
    exponent_error: float


def analyse(
    root: Value,
    leaves: Mapping[Value, object],
    arrays: Mapping[int, AnyArray],
    sizes: Mapping[str, int],
    fmt: Format,
) -> Analysis:
    """The error bound of `root`; `arrays` holds the exact values of its cone."""
    scales = Scales.of(fmt)
    terms: dict[int, Term] = {}
    for value in cone([root], leaves):
        v = to_float64(arrays[value.index], value)
        zero = torch.zeros(v.shape, dtype=torch.float64)
        if value in leaves or not is_float(value.dtype) or not value.operands:
            terms[value.index] = Term(v, zero, zero)
            continue
        operands = [terms[o.index] for o in value.operands]
        rule = _RULES.get(value.op) or _layout(sizes)
        error, exponent = rule(value, v, operands, scales)
        error = error.expand(v.shape)
        if bool((v == 0).any()):
            # a number too small for float64 has no analysis here
            error = error.masked_fill(_underflowed(arrays[value.index]), math.inf)
        terms[value.index] = Term(v, error, exponent.nan_to_num(0.0).clamp(max=scales.reach).expand(v.shape))
    exponents = [terms[o.index] for v in cone([root], leaves) if v.op in EXPONENTIAL for o in exponents_of(v)]
    return Analysis(terms[root.index], max((_largest_error(t) for t in exponents), default=0.0))


def _largest_error(term: Term) -> float:
    """The largest finite error of an exponent, itself about to be rounded."""
    if term.error.dtype != torch.float64 or term.v.dtype != torch.float64 or not term.v.numel():
        return 0.0
    return float((term.error + term.v.abs()).nan_to_num(0.0, 0.0, 0.0).max())


def to_float64(array: AnyArray, value: Value) -> torch.Tensor:
    """Oracle scalars rounded to float64; indices and conditions as integers and bools."""
    if array.dtype != object:
        return torch.tensor(array)
    numbers: list[Any] = list(cast("Any", array).flat)
    if is_float(value.dtype):
        flat = torch.tensor([float(x) for x in numbers], dtype=torch.float64)
    else:
        flat = torch.tensor([int(x) for x in numbers], dtype=torch_dtype(value.dtype))
    return flat.reshape(array.shape)


def _underflowed(array: AnyArray) -> torch.Tensor:
    """Where an oracle scalar is known not to be 0, and float64 cannot tell."""
    flags = [isinstance(x, arb) and float(x) == 0 and (x > 0 or x < 0) for x in array.flat]
    return torch.tensor(flags, dtype=torch.bool).reshape(array.shape)


# --- how errors propagate ----------------------------------------------------------------------------------


def _times(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a·b with 0·inf = 0: an exact operand hands on nothing."""
    return torch.where((a == 0) | (b == 0), 0.0, a * b)


def _unary(slope: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Rule:
    """E = |f′(a)|·Eₐ + |v|."""

    def rule(value: Value, v: torch.Tensor, operands: Sequence[Term], scales: Scales) -> Bound:
        (a,) = operands
        return _times(slope(a.v, v).abs(), a.error) + v.abs(), a.exponent

    return rule


def _from_exponent(inner: Rule) -> Rule:
    """The result is made from an exponent: M = |a|."""

    def rule(value: Value, v: torch.Tensor, operands: Sequence[Term], scales: Scales) -> Bound:
        error, _ = inner(value, v, operands, scales)
        return error, operands[0].v.abs()

    return rule


def _to_log(inner: Rule, *, of_exponents: bool) -> Rule:
    """The result is in the log domain: the stable form's roundings of exponents are added to E, and M ends."""

    def rule(value: Value, v: torch.Tensor, operands: Sequence[Term], scales: Scales) -> Bound:
        error, _ = inner(value, v, operands, scales)
        sources = [t.v.abs() if of_exponents else t.exponent for t in operands]
        magnitude = sum((_peak(value, s.nan_to_num(0.0), scales) for s in sources), torch.zeros(()))
        return error + scales.exponent_unit * magnitude, torch.zeros_like(v)

    return rule


def _peak(value: Value, magnitude: torch.Tensor, scales: Scales) -> torch.Tensor:
    """The largest exponent that takes part in each element of the result."""
    capped = magnitude.clamp(max=scales.reach)
    if VOCABULARY[value.op].kind == "reduction":
        return _largest(capped, value.axes, bool(value.attr("keepdim")))
    return _largest(capped, value.axes, True) if VOCABULARY[value.op].kind == "scan" else capped


def _largest(x: torch.Tensor, axes: Sequence[int], keepdim: bool) -> torch.Tensor:
    return (
        torch.amax(x, tuple(axes), keepdim) if axes and x.numel() else torch.sum(x, tuple(axes), keepdim) if axes else x
    )


def _widest(operands: Sequence[Term]) -> torch.Tensor:
    result = operands[0].exponent
    for term in operands[1:]:
        result = torch.maximum(result, term.exponent)
    return result


def _binary(
    slopes: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
) -> Rule:
    """E = |∂f/∂a|·Eₐ + |∂f/∂b|·E_b + |v|."""

    def rule(value: Value, v: torch.Tensor, operands: Sequence[Term], scales: Scales) -> Bound:
        a, b = operands
        da, db = slopes(a.v, b.v, v)
        return _times(da.abs(), a.error) + _times(db.abs(), b.error) + v.abs(), _widest(operands)

    return rule


def _larger_error(value: Value, v: torch.Tensor, operands: Sequence[Term], scales: Scales) -> Bound:
    a, b = operands
    return torch.maximum(a.error, b.error), _widest(operands)


def _where(value: Value, v: torch.Tensor, operands: Sequence[Term], scales: Scales) -> Bound:
    condition, a, b = operands
    return torch.where(condition.v, a.error, b.error), torch.where(condition.v, a.exponent, b.exponent)


def _sum(value: Value, v: torch.Tensor, operands: Sequence[Term], scales: Scales) -> Bound:
    a, axes, keepdim = operands[0], value.axes, bool(value.attr("keepdim"))
    n = max(1, int(np.prod([a.v.shape[i] for i in axes], dtype=np.int64)))
    error = (a.error + n * a.v.abs()).sum(axes, keepdim) if axes else a.error
    if value.op == "mean":
        error = error / n + v.abs()
    return error, _largest(a.exponent, axes, keepdim)


def _extreme(value: Value, v: torch.Tensor, operands: Sequence[Term], scales: Scales) -> Bound:
    a, axes, keepdim = operands[0], value.axes, bool(value.attr("keepdim"))
    return _largest(a.error, axes, keepdim), _largest(a.exponent, axes, keepdim)


def _prod(value: Value, v: torch.Tensor, operands: Sequence[Term], scales: Scales) -> Bound:
    a, axes, keepdim = operands[0], value.axes, bool(value.attr("keepdim"))
    relative = torch.where(a.error == 0, 0.0, a.error / a.v.abs())
    return v.abs() * ((relative + 1).sum(axes, keepdim) if axes else relative), _largest(a.exponent, axes, keepdim)


def _logsumexp(value: Value, v: torch.Tensor, operands: Sequence[Term], scales: Scales) -> Bound:
    a, axes, keepdim = operands[0], value.axes, bool(value.attr("keepdim"))
    n = max(1, int(np.prod([a.v.shape[i] for i in axes], dtype=np.int64)))
    return _largest(a.error, axes, keepdim) + n + v.abs(), torch.zeros_like(v)


def _norm(value: Value, v: torch.Tensor, operands: Sequence[Term], scales: Scales) -> Bound:
    a, axes, keepdim = operands[0], value.axes, bool(value.attr("keepdim"))
    n = max(1, int(np.prod([a.v.shape[i] for i in axes], dtype=np.int64)))
    handed_on = _times(a.v.abs(), a.error).sum(axes, keepdim)
    error = torch.where(handed_on == 0, 0.0, handed_on / v)
    return error + n * v.abs(), _largest(a.exponent, axes, keepdim)


def _running(inner: Callable[[Term, torch.Tensor, int], torch.Tensor]) -> Rule:
    """A scan: errors accumulate along the axis."""

    def rule(value: Value, v: torch.Tensor, operands: Sequence[Term], scales: Scales) -> Bound:
        a, axis = operands[0], value.axes[0]
        return inner(a, v, axis), _largest(a.exponent, (axis,), True)

    return rule


def _softmax(value: Value, v: torch.Tensor, operands: Sequence[Term], scales: Scales) -> Bound:
    a, axis = operands[0], value.axes[0]
    total = (v * a.error).sum(axis, keepdim=True)
    return v * (a.error + total + v.shape[axis] + 3), a.v.abs()


def _log_softmax(value: Value, v: torch.Tensor, operands: Sequence[Term], scales: Scales) -> Bound:
    a, axis = operands[0], value.axes[0]
    total = _largest(a.error, (axis,), True)
    return a.error + total + v.shape[axis] + v.abs(), torch.zeros_like(v)


def _matmul(value: Value, v: torch.Tensor, operands: Sequence[Term], scales: Scales) -> Bound:
    a, b = operands
    n = a.v.shape[-1]
    size_a, size_b = a.v.abs().nan_to_num(0.0), b.v.abs().nan_to_num(0.0)
    error = torch.matmul(size_a, b.error) + torch.matmul(a.error, size_b) + n * torch.matmul(size_a, size_b)
    widest = max((float(t.exponent.max()) for t in operands if t.exponent.numel()), default=0.0)
    return error, torch.full_like(v, widest)


def _topk(value: Value, v: torch.Tensor, operands: Sequence[Term], scales: Scales) -> Bound:
    a, axes = operands[0], value.axes
    return _largest(a.error, axes, True), _largest(a.exponent, axes, True)


def _gather(value: Value, v: torch.Tensor, operands: Sequence[Term], scales: Scales) -> Bound:
    a, index = operands
    axis = value.axes[0]
    return torch.gather(a.error, axis, index.v.long()), torch.gather(a.exponent, axis, index.v.long())


def _fused(value: Value, v: torch.Tensor, operands: Sequence[Term], scales: Scales) -> Bound:
    """Losses and attention: the worst operand error, every length summed over, and the size of the operands."""
    largest = [float(t.v.abs().nan_to_num(0.0, 0.0, 0.0).max()) if t.v.numel() else 0.0 for t in operands]
    errors = [float(t.error.nan_to_num(0.0, 0.0, 0.0).max()) if t.error.numel() else 0.0 for t in operands]
    lengths = sum(operands[0].v.shape) + operands[-1].v.shape[-1] if operands[-1].v.dim() else 1
    scale = max(1.0, largest[2]) if value.op == "attention" else 1.0
    terms = operands[0].v.numel() if value.op != "attention" and value.attr("reduction") == "sum" else 1
    reach = min(max(largest[:2]), scales.reach) * scales.exponent_unit
    magnitude = scale * terms * (2 * sum(errors) + lengths + reach)
    return torch.full_like(v, magnitude) + v.abs(), torch.zeros_like(v)


def _normalised(value: Value, v: torch.Tensor, operands: Sequence[Term], scales: Scales) -> Bound:
    """d x̂ᵢ = (dxᵢ − E[dx] − x̂ᵢ·E[x̂·dx])/σ, and the roundings of x − E[x], of a weight and of a bias."""
    x = operands[0]
    axes = tuple(range(value.axes[0], x.v.dim()))
    n = max(1, int(np.prod([x.v.shape[a] for a in axes], dtype=np.int64)))
    mean = x.v.mean(axes, keepdim=True) if value.op == "layer_norm" else torch.zeros(())
    epsilon = cast(float, value.attr("epsilon"))
    sigma = ((x.v - mean).pow(2).mean(axes, keepdim=True) + epsilon).sqrt()
    unit = ((x.v - mean) / sigma).abs()
    dx = x.error + (n * x.v.abs() + mean.abs() if value.op == "layer_norm" else 0.0)
    error = (dx + dx.mean(axes, keepdim=True) + unit * (unit * dx).mean(axes, keepdim=True)) / sigma + n * unit
    for affine in operands[1:2]:
        error = error * affine.v.abs() + unit * affine.error
    for affine in operands[2:]:
        error = error + affine.error
    return error + 2 * v.abs(), x.exponent


def _layout(sizes: Mapping[str, int]) -> Rule:
    """Errors are moved about as the elements are."""

    def rule(value: Value, v: torch.Tensor, operands: Sequence[Term], scales: Scales) -> Bound:
        move = EXECUTE[value.op]
        return move(value, [t.error for t in operands], sizes), move(value, [t.exponent for t in operands], sizes)

    return rule


def _kept(value: Value, v: torch.Tensor, operands: Sequence[Term], scales: Scales) -> Bound:
    return operands[0].error, operands[0].exponent


def _step(value: Value, v: torch.Tensor, operands: Sequence[Term], scales: Scales) -> Bound:
    return torch.zeros_like(v), operands[0].exponent


def _pow(value: Value, v: torch.Tensor, operands: Sequence[Term], scales: Scales) -> Bound:
    """aᵇ = exp(b·ln a)."""
    a, b = operands
    error, exponent = _binary(lambda x, y, z: (z * y / x, z * torch.log(x.abs())))(value, v, operands, scales)
    return error, torch.maximum(exponent, (b.v * torch.log(a.v.abs())).abs())


_GAUSS: Final = 2.0 / float(np.sqrt(np.pi))

#: Primitive → rule; layout primitives are handled by moving the errors.
_RULES: dict[str, Rule] = {
    "neg": _kept,
    "abs": _kept,
    "relu": _kept,
    "detach": _kept,
    "sign": _step,
    "floor": _step,
    "cast": _unary(lambda a, v: torch.ones_like(v)),
    "exp": _from_exponent(_unary(lambda a, v: v)),
    "expm1": _from_exponent(_unary(lambda a, v: v + 1)),
    "log": _to_log(_unary(lambda a, v: 1 / a), of_exponents=False),
    "log1p": _to_log(_unary(lambda a, v: 1 / (1 + a)), of_exponents=False),
    "sqrt": _unary(lambda a, v: 0.5 / v),
    "sigmoid": _from_exponent(_unary(lambda a, v: v * (1 - v))),
    "softplus": _to_log(_unary(lambda a, v: torch.sigmoid(a)), of_exponents=True),
    "log_sigmoid": _to_log(_unary(lambda a, v: torch.sigmoid(-a)), of_exponents=True),
    "tanh": _from_exponent(_unary(lambda a, v: 1 - v * v)),
    "erf": _unary(lambda a, v: _GAUSS * torch.exp(-a * a)),
    "erfc": _unary(lambda a, v: _GAUSS * torch.exp(-a * a)),
    "erfcx": _unary(lambda a, v: 2 * a * v - _GAUSS),
    "log_ndtr": _unary(lambda a, v: _GAUSS / (np.sqrt(2.0) * torch.ops.aten.special_erfcx(-a * np.sqrt(0.5)))),
    "erfinv": _unary(lambda a, v: torch.exp(v * v) / _GAUSS),
    "ndtri": _unary(lambda a, v: np.sqrt(2 * np.pi) * torch.exp(v * v / 2)),
    "asin": _unary(lambda a, v: 1 / torch.sqrt((1 - a) * (1 + a))),
    "acos": _unary(lambda a, v: 1 / torch.sqrt((1 - a) * (1 + a))),
    "atan": _unary(lambda a, v: 1 / (1 + a * a)),
    "sinh": _from_exponent(_unary(lambda a, v: torch.cosh(a))),
    "asinh": _to_log(_unary(lambda a, v: 1 / torch.sqrt(1 + a * a)), of_exponents=False),
    "acosh": _to_log(_unary(lambda a, v: 1 / torch.sqrt((a - 1) * (a + 1))), of_exponents=False),
    "atanh": _to_log(_unary(lambda a, v: 1 / ((1 - a) * (1 + a))), of_exponents=False),
    "sin": _unary(lambda a, v: torch.cos(a)),
    "cos": _unary(lambda a, v: torch.sin(a)),
    "add": _binary(lambda a, b, v: (torch.ones_like(v), torch.ones_like(v))),
    "sub": _binary(lambda a, b, v: (torch.ones_like(v), torch.ones_like(v))),
    "mul": _binary(lambda a, b, v: (b, a)),
    "div": _binary(lambda a, b, v: (1 / b, v / b)),
    "pow": _pow,
    "xlogy": _binary(lambda a, b, v: (torch.log(b), a / b)),
    "logaddexp": _to_log(_binary(lambda a, b, v: (torch.ones_like(v), torch.ones_like(v))), of_exponents=True),
    "maximum": _larger_error,
    "minimum": _larger_error,
    "where": _where,
    "sum": _sum,
    "mean": _sum,
    "norm": _norm,
    "prod": _prod,
    "max": _extreme,
    "min": _extreme,
    "logsumexp": _to_log(_logsumexp, of_exponents=True),
    "cumsum": _running(lambda a, v, axis: (a.error + v.shape[axis] * a.v.abs()).cumsum(axis)),
    "cumprod": _running(lambda a, v, axis: v.abs() * (a.error / a.v.abs() + 1).nan_to_num(1.0).cumsum(axis)),
    "logcumsumexp": _to_log(
        _running(lambda a, v, axis: a.error.cummax(axis).values + v.shape[axis] + v.abs()), of_exponents=True
    ),
    "softmax": _softmax,
    "log_softmax": _to_log(_log_softmax, of_exponents=True),
    "topk_values": _topk,
    "matmul": _matmul,
    "gather": _gather,
    "cross_entropy": _fused,
    "nll_loss": _fused,
    "bce_with_logits": _fused,
    "attention": _fused,
    "layer_norm": _normalised,
    "rms_norm": _normalised,
}

"""Reference functions in arbitrary precision: mpmath numbers in NumPy object arrays.

Written from the textbook definitions, in the form that loses nothing at 256 bits (log1p of the terms beside the
maximum, expm1, σ by softplus), and independent of the code under test. Extended reals: exp(−∞) = 0, log 0 = −∞,
∞ − ∞ = NaN, and the logarithm of a negative number is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

import mpmath
import numpy as np
import numpy.typing as npt
import torch
from mpmath import mp

Array: TypeAlias = npt.NDArray[Any]
Axis: TypeAlias = int | tuple[int, ...]

PRECISION = 256
INF = mpmath.inf
NAN = mpmath.nan
LN2 = 0.6931471805599453

_CONSTANTS: ContextVar[torch.dtype] = ContextVar("constants", default=torch.float64)


@contextmanager
def arithmetic(constants: torch.dtype, bits: int = PRECISION) -> Iterator[None]:
    """Work with `bits` of precision, literals of a formula rounded to the dtype in which its host keeps them."""
    token = _CONSTANTS.set(constants)
    try:
        with mp.workprec(bits):
            yield
    finally:
        _CONSTANTS.reset(token)


def const(value: float) -> Any:
    """A literal of the user's program, as the host sees it (1e-9 is 0 once a graph is float16)."""
    return mpmath.mpf(torch.tensor(value, dtype=torch.float64).to(_CONSTANTS.get()).double().item())


def lift(tensor: torch.Tensor) -> Array:
    """The exact numbers of a tensor: mpf for floats, NumPy integers and booleans otherwise."""
    if not tensor.is_floating_point():
        return np.asarray(tensor.numpy())
    flat = [mpmath.mpf(v) for v in tensor.detach().double().flatten().tolist()]
    return array(flat).reshape(tuple(tensor.shape))


def array(values: Sequence[Any]) -> Array:
    """A one-dimensional object array of `values`."""
    out = np.empty(len(values), dtype=object)
    out[:] = list(values)
    return out


def _elementwise(function: Callable[[Any], Any]) -> Callable[[Array], Array]:
    ufunc = np.frompyfunc(lambda v: v if mpmath.isnan(v) else function(v), 1, 1)

    def apply(x: Array) -> Array:
        return np.asarray(ufunc(x), dtype=object)

    return apply


def _softplus(v: Any) -> Any:
    return v + mpmath.log1p(mpmath.exp(-v)) if v > 0 else mpmath.log1p(mpmath.exp(v))


def _tanh(v: Any) -> Any:
    if mpmath.isinf(v):
        return mpmath.sign(v)
    return mpmath.expm1(2 * v) / (mpmath.exp(2 * v) + 1) if v < 0 else -mpmath.expm1(-2 * v) / (1 + mpmath.exp(-2 * v))


exp = _elementwise(mpmath.exp)
expm1 = _elementwise(mpmath.expm1)
log = _elementwise(lambda v: mpmath.log(v) if v >= 0 else NAN)
log1p = _elementwise(lambda v: NAN if v < -1 else (-INF if v == -1 else mpmath.log1p(v)))
sqrt = _elementwise(lambda v: mpmath.sqrt(v) if v >= 0 else NAN)
softplus = _elementwise(_softplus)
sigmoid = _elementwise(lambda v: mpmath.exp(-_softplus(-v)))
log_sigmoid = _elementwise(lambda v: -_softplus(-v))
tanh = _elementwise(_tanh)
absolute = _elementwise(abs)
erf = _elementwise(mpmath.erf)
erfc = _elementwise(mpmath.erfc)
#: log(1 − e⁻ᵃ) for a > 0
log1mexp = _elementwise(lambda a: mpmath.log(-mpmath.expm1(-a)) if a < 1 else mpmath.log1p(-mpmath.exp(-a)))


def _larger(a: Any, b: Any) -> Any:
    if mpmath.isnan(a) or mpmath.isnan(b):
        return NAN
    return max(a, b)


_maximum = np.frompyfunc(_larger, 2, 1)


def maximum(a: Array | Any, b: Array | Any) -> Array:
    """Elementwise maximum that keeps NaN."""
    return np.asarray(_maximum(a, b), dtype=object)


def largest(x: Array, axis: Axis = -1, keepdims: bool = False) -> Array:
    """Maximum along `axis` that keeps NaN."""
    return _reduce(_maximum.reduce, x, axis, keepdims)


def total(x: Array, axis: Axis = -1, keepdims: bool = False) -> Array:
    """Σ x along `axis`."""
    return np.asarray(np.sum(x, axis=axis, keepdims=keepdims), dtype=object)


def mean(x: Array, axis: Axis | None = None, keepdims: bool = False) -> Array:
    """Σ x / n along `axis`, or over every element."""
    s = np.asarray(np.sum(x, axis=axis, keepdims=keepdims), dtype=object)
    return np.asarray(s * max(s.size, 1) / mpmath.mpf(x.size), dtype=object)


def where(mask: Array, a: Array | Any, b: Array | Any) -> Array:
    """`a` where the mask holds, else `b`."""
    return np.asarray(np.where(mask, a, b), dtype=object)


def _rows(x: Array, axis: Axis) -> tuple[Array, list[int], list[int]]:
    """`x` as rows along `axis` (several are flattened), with the axes that number the rows and those along them."""
    axes = [a % x.ndim for a in ((axis,) if isinstance(axis, int) else axis)]
    rest = [a for a in range(x.ndim) if a not in axes]
    width = int(np.prod([x.shape[a] for a in axes]))
    return np.transpose(x, [*rest, *axes]).reshape(-1, width), rest, axes


def _reduce(function: Callable[[Array], Any], x: Array, axis: Axis, keepdims: bool) -> Array:
    rows, rest, axes = _rows(x, axis)
    flat = array([function(row) for row in rows]).reshape([x.shape[a] for a in rest])
    return np.expand_dims(flat, tuple(sorted(axes))) if keepdims else flat


def _map(function: Callable[[Array], Array], x: Array, axis: Axis) -> Array:
    rows, rest, axes = _rows(x, axis)
    full = np.stack([function(row) for row in rows]).reshape([x.shape[a] for a in [*rest, *axes]])
    return np.transpose(full, np.argsort([*rest, *axes]))


def _split(row: Array) -> tuple[Any, Any]:
    """(maximum, Σ exp(x − maximum) over the other terms); the maximum may be NaN or ±∞, then the sum is NaN."""
    if any(mpmath.isnan(v) for v in row):
        return NAN, NAN
    top = max(range(len(row)), key=lambda i: row[i])
    if mpmath.isinf(row[top]):
        return row[top], NAN
    return row[top], mpmath.fsum(mpmath.exp(v - row[top]) for i, v in enumerate(row) if i != top)


def _lse_row(row: Array) -> Any:
    top, rest = _split(row)
    return top if mpmath.isinf(top) else top + mpmath.log1p(rest)


def _log_softmax_row(row: Array) -> Array:
    top, rest = _split(row)
    tail = NAN if mpmath.isnan(rest) else mpmath.log1p(rest)
    if top == INF:
        return array([-INF if v < INF else NAN for v in row])
    return array([v - top - tail for v in row])


def _quotient(a: Any, b: Any) -> Any:
    if b == 0:
        return NAN if a == 0 or mpmath.isnan(a) else mpmath.sign(a) * INF
    return a / b


_divide = np.frompyfunc(_quotient, 2, 1)


def divide(a: Array, b: Array | Any) -> Array:
    """a/b with the conventions of IEEE 754 at 0."""
    return np.asarray(_divide(a, b), dtype=object)


def lse(x: Array, axis: Axis = -1, keepdims: bool = False) -> Array:
    """ln Σ eˣ as max + log1p(the other terms)."""
    return _reduce(_lse_row, x, axis, keepdims)


def log_softmax(x: Array, axis: Axis = -1) -> Array:
    """x − lse(x) = (x − max) − log1p(the other terms): both parts are ≤ 0, nothing cancels."""
    return _map(_log_softmax_row, x, axis)


def softmax(x: Array, axis: Axis = -1) -> Array:
    """eˣ / Σ eˣ."""
    return exp(log_softmax(x, axis))


def masked(x: Array, mask: Array) -> Array:
    """−∞ where the mask does not hold."""
    return where(mask, x, -INF)


def pick(x: Array, y: Array, axis: int = -1) -> Array:
    """x[…, y] along `axis`."""
    return np.squeeze(np.take_along_axis(x, np.expand_dims(y, axis), axis), axis)


def cross_entropy(x: Array, y: Array) -> Array:
    """−log_softmax(x)[y], one per row."""
    return -pick(log_softmax(x), y)


def weighted_mean(x: Array, v: Array, axis: Axis = -1) -> Array:
    """Σ softmax(x)·v, with 0 weight times any finite v = 0."""
    return total(softmax(x, axis) * v, axis)


def log_plus(a: Array, eps: Any) -> Array:
    """ln(eᵃ + eps)."""
    shift = mpmath.log(eps) if eps else -INF
    return _elementwise(lambda v: shift if v == -INF else max(v, shift) + mpmath.log1p(mpmath.exp(-abs(v - shift))))(a)


def plogp(logp: Array) -> Array:
    """p·ln p from ln p, 0 at p = 0."""
    return where(logp == -INF, mpmath.mpf(0), exp(logp) * where(logp == -INF, mpmath.mpf(0), logp))


def gradient(function: Callable[..., Array], args: Sequence[Array], wrt: int, bits: int) -> Array:
    """∂(Σ f)/∂args[wrt] by central differences whose step is 2^(−bits/3): truncation error near 2^(−2·bits/3).

    Entries at ±∞ or NaN are NaN: not judged.
    """
    step = mpmath.ldexp(mpmath.mpf(1), -(bits // 3))
    base = args[wrt]
    out = np.empty(base.size, dtype=object)
    for i in range(base.size):
        if not mpmath.isfinite(base.flat[i]):
            out[i] = NAN
            continue
        sides = []
        for sign in (1, -1):
            moved = base.copy()
            moved.flat[i] = base.flat[i] + sign * step
            sides.append(np.sum(function(*args[:wrt], moved, *args[wrt + 1 :])))
        out[i] = (sides[0] - sides[1]) / (2 * step)
    return out.reshape(base.shape)

"""Compare results with the oracle, within a stated bound.

The bound follows Blanchard, Higham and Higham (IMA J. Numer. Anal. 41, 2021) for shifted softmax and log-sum-exp.
With u the unit roundoff of the format, n the longest sum and R the largest magnitude (or spread) of the exponents:

    linear domain   |error| ≤ (exp(chain · (n + 16 + 2R) · u) − 1) · |y|
    log domain      |error| ≤ chain · (16 · |y| + R + n) · u
    gradients       |error| ≤ 4 · chain · (n + 16 + 2R) · u · max(|gradient|, slope)

plus four times the smallest subnormal (and `flush`, see `Spelling`); `chain` counts composed formulas, and |y| is
replaced by Σ |terms| where the result is a signed sum. 16 covers the elementary functions and the few operations
around them. An exponent that is off by δ is a factor e^δ, hence the exponential: its argument where that is small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
import torch

from stabilize.formats import FORMATS, Format
from tests.panel import oracle as O
from tests.panel.entry import Spelling
from tests.panel.inputs import DTYPES

#: Bits for gradients: the truncation error of the central differences, 2^(−2·bits/3), is below every subnormal.
GRADIENT_BITS = {"float16": 192, "bfloat16": 320, "float32": 320, "float64": 1800}


@dataclass(frozen=True)
class Expected:
    """What the oracle says about one result: the values and the error allowed at each."""

    truth: O.Array
    allowed: O.Array
    fmt: Format


@dataclass(frozen=True)
class Verdict:
    """ok: within the bound everywhere. broken: not finite, lost or over 1000 ulps somewhere. worst: in ulps."""

    ok: bool
    broken: bool
    worst: float
    detail: str


def literals(dtype: str, host: str) -> torch.dtype:
    """The dtype in which a host keeps a Python number of a program whose tensors are `dtype`."""
    if host == "onnx":  # exported in float32, then retargeted
        return torch.float32 if dtype == "float64" else DTYPES[dtype]
    return torch.float64 if dtype == "float64" else torch.float32


def _magnitude(entry: Spelling, args: Sequence[O.Array]) -> float:
    """R: the largest finite magnitude or spread among the exponents."""
    if entry.exponents is not None:
        arrays = [entry.exponents(*args)]
    else:
        arrays = [a for spec, a in zip(entry.inputs, args, strict=True) if spec.exponent]
    result = 0.0
    for a in arrays:
        finite = [float(v) for v in a.flat if mpmath.isfinite(v)]
        if finite:
            result += max(max(map(abs, finite)), max(finite) - min(finite))
    return result * entry.gain


def expected(entry: Spelling, inputs: Sequence[torch.Tensor], dtype: str, host: str) -> Expected:
    """The oracle's values for `inputs` and the error allowed there."""
    fmt = FORMATS[dtype]
    with O.arithmetic(literals(dtype, host)):
        args = [O.lift(t) for t in inputs]
        truth = np.asarray(entry.oracle(*args), dtype=object)
        r = _magnitude(entry, args)
        scale = O.absolute(truth) if entry.scale is None else np.asarray(entry.scale(*args), dtype=object)
        if entry.domain == "log":
            allowed = entry.chain * fmt.u * (16 * scale + (r + entry.n))
        else:
            allowed = mpmath.expm1(entry.chain * fmt.u * (entry.n + 16 + 2 * r)) * scale
            allowed = _capped(allowed, scale)
        floor = 4 * fmt.tiny + entry.flush * (fmt.min_normal if fmt.precision >= 24 else fmt.tiny / 2)
        return Expected(truth, np.broadcast_to(np.asarray(allowed + floor, dtype=object), truth.shape), fmt)


def _capped(allowed: O.Array, scale: O.Array) -> O.Array:
    """Never more than half of the largest result: where R·u exceeds 1 the bound alone would let anything pass."""
    finite = [v for v in np.asarray(scale).flat if mpmath.isfinite(v)]
    half = max(finite, default=mpmath.mpf(0)) / 2
    return -O.maximum(-allowed, -half)


def expected_gradients(entry: Spelling, inputs: Sequence[torch.Tensor], dtype: str, host: str) -> dict[int, Expected]:
    """The oracle's gradient of the summed result, for each argument that a loss is differentiated by."""
    fmt = FORMATS[dtype]
    result: dict[int, Expected] = {}
    with O.arithmetic(literals(dtype, host), GRADIENT_BITS[dtype]):
        args = [O.lift(t) for t in inputs]
        r = _magnitude(entry, args)
        for i, spec in enumerate(entry.inputs):
            if not spec.differentiable:
                continue
            g = O.gradient(entry.oracle, args, i, GRADIENT_BITS[dtype])
            top = max((abs(v) for v in g.flat if mpmath.isfinite(v)), default=mpmath.mpf(0))
            top = max(top, mpmath.mpf(entry.slope))
            if top > fmt.max:  # the loss itself leaves the format: nothing to judge
                g = O.array([O.NAN] * g.size).reshape(g.shape)
            allowed = 4 * entry.chain * fmt.u * (entry.n + 16 + 2 * r) * top + 4 * fmt.tiny
            result[i] = Expected(g, O.array([allowed] * g.size).reshape(g.shape), fmt)
    return result


def judge(result: torch.Tensor, want: Expected, *, nan_is_free: bool = False) -> Verdict:
    """Compare element by element. With `nan_is_free`, entries whose truth is NaN are not judged (gradients)."""
    if tuple(result.shape) != want.truth.shape:
        return Verdict(False, True, math.inf, f"shape {tuple(result.shape)} instead of {want.truth.shape}")
    ok, broken, worst, detail = True, False, 0.0, ""
    flat = result.detach().double().flatten().tolist()
    with O.arithmetic(torch.float64):
        for index, (got, truth, allowed) in enumerate(zip(flat, want.truth.flat, want.allowed.flat, strict=True)):
            if nan_is_free and mpmath.isnan(truth):
                continue
            fine, lost, ulps = _element(got, truth, allowed, want.fmt)
            broken |= lost
            if (ok and not fine) or (ulps > worst and (ok == fine)):
                detail = f"[{index}] {got!r}, expected {mpmath.nstr(truth, 17)} ± {mpmath.nstr(allowed, 3)}"
            ok &= fine
            worst = max(worst, ulps)
    return Verdict(ok, broken, worst, detail)


def _element(got: float, truth: Any, allowed: Any, fmt: Format) -> tuple[bool, bool, float]:
    """(within the bound, broken, error in ulps) of one number."""
    if mpmath.isnan(truth) or mpmath.isinf(truth):
        same = math.isnan(got) if mpmath.isnan(truth) else got == float(truth)
        return same, not same, 0.0 if same else math.inf
    beyond = abs(truth) + allowed > fmt.max
    if beyond and math.isinf(got) and (got > 0) == (truth > 0):
        return True, False, 0.0
    if not math.isfinite(got):
        return False, True, math.inf
    error = abs(mpmath.mpf(got) - truth)
    ulps = float(error / fmt.spacing(float(min(abs(truth), mpmath.mpf(fmt.max)))))
    fine = error <= allowed
    vanished = got == 0 and abs(truth) > fmt.min_normal
    return bool(fine), bool(not fine and (vanished or ulps > 1000)), ulps

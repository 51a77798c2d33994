"""Error measures: a computed tensor against exact values, in absolute terms and in ulps of its format.

One ulp is the spacing of the format at the true value, subnormals included. NaN agrees with NaN only, ±inf with the
same infinity, or with a true magnitude that rounds to infinity. Where the oracle could not bound the value
nothing is judged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias, cast, final

import numpy as np
import numpy.typing as npt
import torch
from flint import arb

from stabilize.formats import FORMATS, Format

Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]
AnyArray: TypeAlias = "npt.NDArray[Any]"
"""An `OracleArray`, or plain float64 numbers that stand for the truth."""


@final
@dataclass(frozen=True, slots=True)
class Errors:
    """Elementwise errors of a tensor. `absolute` and `ulps` are inf where a number, an infinity and NaN are confused.

    known: where the oracle has an answer; elsewhere both errors are NaN.
    """

    absolute: Floats
    ulps: Floats
    known: Bools

    @property
    def worst(self) -> float:
        """The largest finite error in ulps; 0 when there is none."""
        return self.worst_at(self.known)

    def worst_at(self, where: Bools) -> float:
        """The largest finite error in ulps among some elements; 0 when there is none."""
        finite = self.ulps[where & np.isfinite(self.ulps)]
        return float(finite.max()) if finite.size else 0.0

    @property
    def confused(self) -> int:
        """How many elements are of the wrong class (NaN or inf for a number, or the reverse)."""
        return int(np.isinf(self.ulps).sum())

    def worst_index(self) -> tuple[int, ...] | None:
        """Where the largest error is; None when nothing was judged."""
        if not self.known.any():
            return None
        flat = int(np.argmax(np.where(self.known, self.ulps, -1.0)))
        return tuple(int(i) for i in np.unravel_index(flat, self.ulps.shape))


def errors_of(computed: torch.Tensor, exact: AnyArray) -> Errors:
    """The errors of `computed` against `exact`: oracle scalars, or float64 numbers (of which NaN is "not known")."""
    shape = tuple(computed.shape)
    name = str(computed.dtype).removeprefix("torch.")
    truth = list(cast("Any", exact).flat)
    if name not in FORMATS:
        both = zip(computed.flatten().numpy(), truth, strict=True)
        known = np.array([not isinstance(t, arb) for t in truth], dtype=bool)  # what no precision decided is a ball
        same = np.array([not k or int(c) == int(t) for (c, t), k in zip(both, known, strict=True)], dtype=bool)
        wrong = np.where(same, 0.0, math.inf).reshape(shape)
        return Errors(wrong, wrong, known.reshape(shape))
    fmt = FORMATS[name]
    if exact.dtype != object:
        return _against_float64(computed.detach().double().numpy(), exact, fmt)
    numbers = computed.detach().double().flatten().numpy()
    pairs = [_error(float(c), t, fmt) for c, t in zip(numbers, truth, strict=True)]
    absolute = np.array([p[0] for p in pairs], dtype=np.float64).reshape(shape)
    ulps = np.array([p[1] for p in pairs], dtype=np.float64).reshape(shape)
    return Errors(absolute, ulps, ~np.isnan(absolute))


def _against_float64(computed: Floats, true: Floats, fmt: Format) -> Errors:
    known = np.isfinite(true)
    with np.errstate(all="ignore"):
        gap = np.where(known, np.abs(computed - true), np.nan)
        gap = np.where(known & ~np.isfinite(computed), math.inf, gap)
        beyond = known & (np.abs(true) > fmt.max) & (np.isinf(computed)) & (np.sign(computed) == np.sign(true))
        gap = np.where(beyond, 0.0, gap)
        exponent = np.clip(np.frexp(true)[1] - 1, fmt.emin, fmt.emax)
        return Errors(gap, gap / np.ldexp(1.0, exponent + 1 - fmt.precision), known)


def _error(computed: float, true: arb | float, fmt: Format) -> tuple[float, float]:
    """(absolute error, error in ulps) of one number."""
    if not isinstance(true, arb) and not math.isfinite(true):
        agree = computed == true or (math.isnan(computed) and math.isnan(true))
        return (0.0, 0.0) if agree else (math.inf, math.inf)
    if isinstance(true, arb) and not true.is_finite():
        return math.nan, math.nan
    if math.isnan(computed):
        return math.inf, math.inf
    magnitude = abs(float(true))
    if math.isinf(computed) or magnitude > fmt.max:
        return _near_overflow(computed, float(true), fmt)
    absolute = abs(float(arb(computed) - true))
    return absolute, absolute / fmt.spacing(magnitude)


def _near_overflow(computed: float, true: float, fmt: Format) -> tuple[float, float]:
    """The error of an infinity, or against a number beyond the format: infinity counts as the first such number."""
    last, largest = fmt.spacing(fmt.max), abs(true)
    if (computed < 0) != (true < 0) or largest < 2.0**fmt.emax:
        return math.inf, math.inf
    # in units of the last place, counted from the largest finite number: float64 cannot hold the first beyond it
    true_steps = 1.0 if math.isinf(largest) else min((largest - fmt.max) / last, 1.0)
    steps = 1.0 if math.isinf(computed) else (abs(computed) - fmt.max) / last
    if math.isinf(computed) and true_steps >= 0.5:
        return 0.0, 0.0
    gap = abs(steps - true_steps)
    return gap * last, gap


def class_of(tensor: torch.Tensor) -> npt.NDArray[np.int8]:
    """0 finite, 1 +inf, −1 −inf, 2 NaN, element by element."""
    numbers = tensor.detach().double().numpy()
    result = np.zeros(numbers.shape, dtype=np.int8)
    result[np.isposinf(numbers)] = 1
    result[np.isneginf(numbers)] = -1
    result[np.isnan(numbers)] = 2
    return result

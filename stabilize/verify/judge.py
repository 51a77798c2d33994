"""When a replacement is harmful: the bounds, and the comparison of both expressions with the truth.

Values. An element y of the replacement may be off by

    E·u + ((n + 16)·u + 4·R·u_s)·max(|y|, least normal number) + 2·tiny

E: running error bound of the *original* formula (`stabilize.verify.running`): each of its operations rounds once.
n: longest length summed over. R: magnitude of the exponents behind y, |ln |y|| included, at most the range of exp.
u: unit roundoff of the format. u_s: that of exponents, which are carried in at least float32. tiny: the least
subnormal. In the log domain E holds R·u_s as an absolute term. That is the bound of Blanchard, Higham & Higham
(IMA J. Numer. Anal. 41(4), 2021) for shifted softmax and log-sum-exp of exact exponents, (n + 2 + 2·R)·u, with as much
again for the rounding of the exponents themselves, and room for a few more operations.

Where the original is finite, the replacement must be within that bound, or no more than twice as far off as the
original. Where the original is NaN or infinite and the truth is that too, the replacement must agree. Where the
original failed, a replacement that is finite must be right to 64 times the bound, and to a sixteenth if that is more
than the bound: a wrong number is worse than NaN. At singular points (the truth is NaN) the class of the original's
result is kept, unless the formula has a limit there (∞/∞ in eˣ/(1 + eˣ) at +inf, 0·NaN at a masked entry) and the
replacement gives that limit.

Gradients. 4·(n + 16 + E_s)·u + 8·R·u_s, with E_s the error of the exponents, relative to the largest entry, or to the
terms that cancel in it; or four times as far off as the original's worst entry. No finite entry may become NaN or
infinite, unless all results that depend on it are.

An approximate replacement is another function where the original fails: it is judged where the original is right.

Exceptions. Where an exponent is +inf (which is no mask), what depends on it through a reduction may become NaN: a
softmax of such a row is NaN throughout, where the naive quotient has zeros beside the NaN. So may what depends on any
infinite input, if the original already gives NaN at an element that depends on the same one, and what is NaN just
beside the infinity too. PyTorch's binary cross-entropy of an infinite logit is not defined.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch

from stabilize.formats import FORMATS, Format
from stabilize.verify.compare import AnyArray, Bools, Errors, Floats, class_of, errors_of
from stabilize.verify.running import Scales, Term

_SLACK: Final = 16
_SILENT: Final = 64.0
_SHARE: Final = 1 / 16
_FAR: Final = 20.0
_HOPELESS: Final = 0.5


@final
@dataclass(frozen=True, slots=True)
class Bounds:
    """Absolute errors that are allowed to a replacement, from the running analysis of the original.

    n: longest reduction. reach: largest float input. exponent_error: largest error of an exponent, in units of u.
    flushes: whether the replacement uses kernels that may give 0 for a subnormal result.
    """

    fmt: Format
    n: int
    reach: float
    exponent_error: float
    flushes: bool

    @property
    def exponent_roundoff(self) -> float:
        return Scales.of(self.fmt).exponent_unit * self.fmt.u

    def of_values(self, term: Term, logarithmic: bool) -> Floats:
        """The bound of every element of the result."""
        size = np.abs(term.v.numpy())
        with np.errstate(all="ignore"):
            own = np.minimum(np.nan_to_num(np.abs(np.log(size)), posinf=math.inf), Scales.of(self.fmt).reach)
            exponents = np.maximum(term.exponent.numpy(), own)
            relative = (self.n + _SLACK) * self.fmt.u + 4 * self.exponent_roundoff * exponents
            normal = np.maximum(size, self.fmt.min_normal)
            bound = term.error.numpy() * self.fmt.u + relative * normal
            # where the running analysis overflowed: the largest exponents, and their errors, in its place
            rough = (self.n + _SLACK + 2 * self.exponent_error) * self.fmt.u + 4 * self.exponent_roundoff * self.reach
            # exponents that are off by one or more say nothing about the result
            plain = rough * normal if self.exponent_error * self.fmt.u < _HOPELESS else np.full(size.shape, math.inf)
            if logarithmic:
                plain = plain + self.exponent_roundoff * self.reach + (self.n + self.exponent_error) * self.fmt.u
        bound = np.where(np.isfinite(bound), bound, plain)
        flushed = self.fmt.min_normal if self.flushes else 0.0
        return np.where(np.isfinite(size), bound, 0.0) + 2 * self.fmt.tiny + flushed

    def of_gradients(self, scale: float) -> float:
        """The bound of a gradient entry beside a largest entry (or cancelled term) of `scale`."""
        exponents = min(self.reach, Scales.of(self.fmt).reach)
        relative = 4 * (self.n + _SLACK + self.exponent_error) * self.fmt.u + 8 * self.exponent_roundoff * exponents
        return relative * scale + 2 * self.fmt.tiny + (self.fmt.min_normal if self.flushes else 0.0)


@final
@dataclass(frozen=True, slots=True)
class Verdict:
    """Errors before and after on one family, and the first harm found (None: no harm).

    excused: elements of the wrong class that an exception allows.
    """

    before: Errors
    after: Errors
    harm: str | None
    excused: int = 0


def judge_values(
    before: torch.Tensor,
    after: torch.Tensor,
    exact: AnyArray,
    allowed: Floats | None,
    excused: Bools | None,
    approximate: bool = False,
) -> Verdict:
    """Compare results. `allowed` is None for integers; `excused` marks elements that are right whatever they are.

    approximate: only elements are judged at which the original was right.
    """
    before, after = before.detach(), after.detach()
    old, new = errors_of(before, exact), errors_of(after, exact)
    limit = np.zeros(old.absolute.shape) if allowed is None else allowed
    harm = np.zeros(old.absolute.shape, dtype=bool)
    kinds_before, kinds_after = class_of(before), class_of(after)
    with np.errstate(all="ignore"):
        sound = old.known & np.isfinite(old.absolute)
        harm |= sound & ~(new.absolute <= np.maximum(limit, 2 * old.absolute))
        failed = old.known & ~sound
        silent = np.maximum(limit, np.minimum(_SILENT * limit, _SHARE * _sizes(exact)))
        harm |= failed & (kinds_after == 0) & _finite(exact) & ~(new.absolute <= silent)
        harm |= failed & ~_finite(exact) & ~_same(before, after, kinds_before, kinds_after) & ~(new.absolute == 0)
    if approximate:
        harm &= sound & (old.absolute <= limit) & _finite(exact)
    pardoned = harm & excused if excused is not None else np.zeros_like(harm)
    excuses = int((pardoned & np.isinf(new.ulps)).sum())
    return Verdict(old, new, _describe(harm & ~pardoned, old, new, before, after), excuses)


def at_limit(after: torch.Tensor, limits: tuple[Floats, Floats], n: int) -> Bools:
    """Where a result is the limit of the formula, approached twice: finite and equal, or running off to infinity."""
    first, second = limits
    computed = after.detach().double().numpy()
    fmt = FORMATS[str(after.dtype).removeprefix("torch.")]
    tolerance = 4 * (n + _SLACK) * fmt.u
    with np.errstate(all="ignore"):
        scale = np.maximum(np.abs(first), 1.0)
        settled = (np.abs(first - second) <= 2.0**-40 * scale) & (np.abs(computed - first) <= tolerance * scale)
        diverging = (np.abs(first) > _FAR) & (np.abs(second) > _FAR) & np.isinf(computed)
        return np.asarray(settled | (diverging & (first * computed > 0) & (second * computed > 0)), dtype=bool)


def judge_gradient(
    before: torch.Tensor,
    after: torch.Tensor,
    exact: AnyArray,
    allowed: float,
    excused: Callable[[Bools], Bools],
    approximate: bool = False,
) -> Verdict:
    """Compare gradients with respect to one leaf; entries that `exact` does not know are not judged.

    excused: given entries that were finite and no longer are, those that no finite result depends on.
    approximate: as in `judge_values`.
    """
    old, new = errors_of(before, exact), errors_of(after, exact)
    sound = old.known & np.isfinite(old.absolute)
    worst = float(old.absolute[sound].max()) if sound.any() else 0.0
    with np.errstate(all="ignore"):
        harm = sound & ~(new.absolute <= max(allowed, 4 * worst))
        harm |= old.known & ~sound & np.isfinite(new.absolute) & ~(new.absolute <= _SILENT * allowed)
    if approximate:
        harm &= sound & (old.absolute <= allowed)
    lost = (class_of(before) == 0) & (class_of(after) != 0)
    if lost.any():
        pardoned = lost & excused(lost)
        harm = (harm | lost) & ~pardoned
    return Verdict(old, new, _describe(harm, old, new, before, after))


def _sizes(exact: AnyArray) -> Floats:
    """Magnitudes of exact values; NaN and infinite ones are 0."""
    flat = [abs(float(x)) for x in exact.flat]
    return np.array([x if math.isfinite(x) else 0.0 for x in flat], dtype=np.float64).reshape(exact.shape)


def largest(exact: AnyArray) -> float:
    """The largest finite magnitude in an array of exact values."""
    sizes = [abs(float(x)) for x in exact.flat]
    return max((s for s in sizes if math.isfinite(s)), default=0.0)


def is_nan(exact: AnyArray) -> Bools:
    """Where the oracle says NaN (rather than that it does not know)."""
    flat = [exact.dtype == object and isinstance(x, float) and math.isnan(x) for x in exact.flat]
    return np.array(flat, dtype=bool).reshape(exact.shape)


def _finite(exact: AnyArray) -> Bools:
    # a ball beyond float64 is a finite number all the same
    flat = [not isinstance(x, float) or math.isfinite(x) for x in exact.flat]
    return np.array(flat, dtype=bool).reshape(exact.shape)


def _same(before: torch.Tensor, after: torch.Tensor, kinds_before: object, kinds_after: object) -> Bools:
    """Whether two results are of one class and, where finite, of one value up to rounding and underflow."""
    fmt = FORMATS.get(str(before.dtype).removeprefix("torch."))
    underflow = 0.0 if fmt is None else fmt.min_normal
    equal = torch.isclose(before.double(), after.double(), rtol=_closeness(before), atol=underflow, equal_nan=True)
    return np.asarray(equal.numpy(), dtype=bool)


def _closeness(tensor: torch.Tensor) -> float:
    fmt = FORMATS.get(str(tensor.dtype).removeprefix("torch."))
    return 0.0 if fmt is None else _SILENT * fmt.u


def _describe(harm: Bools, old: Errors, new: Errors, before: torch.Tensor, after: torch.Tensor) -> str | None:
    """The worst harmed element in words."""
    if not harm.any():
        return None
    severity = np.where(harm, np.nan_to_num(new.ulps, nan=0.0, posinf=1e300), -1.0)
    index = np.unravel_index(int(np.argmax(severity)), harm.shape) if harm.shape else ()
    place = f"element ({', '.join(str(int(i)) for i in index)})" if index else "the result"
    was, now = before.double().numpy()[index], after.double().numpy()[index]
    if math.isfinite(now) and math.isfinite(was):
        off, was_off = (f"{float(e.ulps[index]):.3g} ulp off" for e in (new, old))
        return f"{place} is {now:.6g}, {off}; the original gave {was:.6g}, {was_off}"
    return f"{place} is {now:.6g} where the original gave {was:.6g}"

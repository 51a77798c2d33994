"""An input on which an expression breaks: looked for on small shapes, judged against arbitrary precision.

The families of a certificate are tried, the ordinary ones first, moved into the ranges that are known. Of the first
that breaks, the smallest multiple that still does is taken, in round numbers where those do: a witness is to be
believed at a glance.

An expression breaks at an element that is NaN or infinite where the exact result is a number of the format, or that is
another index or truth value. Of poles (a logarithm of 0, a number beyond its format) whatever is not finite counts.
Failing that, an element that is off by half of the largest result; failing that, a gradient that is NaN where all
results are finite; failing that, an element that is off by more than a sixteenth of itself. But for the last, inputs
that are nearly 0 are 0: what only 1e-20 breaks is not worth telling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, TypeAlias, cast, final

import numpy as np
import torch
from flint import arb

from stabilize.errors import UsageError
from stabilize.formats import FORMATS, is_float
from stabilize.graph.text import show
from stabilize.graph.value import Value, cone
from stabilize.verify.certificate import undisturbed
from stabilize.verify.compare import AnyArray, Bools, errors_of
from stabilize.verify.execute import execute
from stabilize.verify.inputs import families
from stabilize.verify.oracle import evaluate
from stabilize.verify.recent import Recent
from stabilize.verify.shrink import Problem, full_size, shrink

Bounds: TypeAlias = tuple[float, float]
Tensors: TypeAlias = Mapping[Value, torch.Tensor]

#: Inputs of which nothing is known are ordinary numbers: no larger than this, or their format's largest.
ORDINARY: Final = 1e4
#: What is further off than this share of the exact result is wrong.
SHARE: Final = 1 / 16
#: What is off by this share of the largest result is lost.
HALF: Final = 1 / 2
#: Inputs below this are 0.
_DUST: Final = 1e-6
#: Of an alternative in the same format: where both agree to this, neither is looked at more closely.
_AGREE: Final = 1 / 64
_HALVINGS: Final = 12
_DIGITS: Final = (1, 2, 3)
_MOST_ELEMENTS: Final = 4096
MOST_OPERATIONS: Final = 256


#: NaN, infinite, another index, or off by half of the largest result; a gradient that is NaN; less far off.
Kind: TypeAlias = Literal["lost", "gradient", "off"]


@final
@dataclass(frozen=True, slots=True)
class Break:
    """One element that is wrong.

    exact: None where the formula has no value. gradient: position of the leaf whose gradient it is, None for a result.
    """

    index: tuple[int, ...]
    computed: float
    exact: float | None
    kind: Kind
    gradient: int | None = None


@final
@dataclass(frozen=True, slots=True)
class Breakage:
    """Small tensors for the leaves of a problem, in their order, and what breaks on them."""

    problem: Problem
    tensors: tuple[torch.Tensor, ...]
    first: Break


def search(
    old: Value,
    new: Value | None,
    leaves: Sequence[Value],
    bounds: Callable[[Value], Bounds],
    data: Tensors,
    *,
    seed: int = 0,
    gradients: bool = False,
    poles: bool = False,
) -> Breakage | None:
    """An input on which `old` breaks; None when none is found.

    new: what is proposed in its place, None where nothing is. leaves: what the input consists of. bounds: of a leaf,
    as far as they are known. data: of leaves that are not free. gradients: whether they count. poles: whether whatever
    is not finite counts.
    """
    known = {leaf: tensor for leaf, tensor in data.items() if leaf in leaves}
    if any(leaf.dtype == "other" for leaf in leaves):
        return None
    if len(cone([old, new or old], leaves)) > MOST_OPERATIONS:
        return None
    limits = [ordinary(leaf, bounds(leaf)) for leaf in leaves]
    small = shrink(old, new or old, leaves, known)
    problems = [] if small is None else [small]
    if small is None or small.shrunk:  # some sums pass their format at full length only
        problems += filter(None, [full_size(old, new or old, leaves, known)])
    for problem in problems:
        if _elements(cone([problem.old, problem.new], problem.leaves)) <= _MOST_ELEMENTS:
            found = _found(_Question(problem, tuple(limits), new is not None, gradients, poles), seed)
            if found is not None:
                return found
    return None


@final
@dataclass(frozen=True)
class _Question:
    """limits: of the leaves. repaired: whether another expression is proposed. For the rest see `search`."""

    problem: Problem
    limits: tuple[Bounds, ...]
    repaired: bool
    gradients: bool
    poles: bool

    @property
    def text(self) -> str:
        """All there is to say about it."""
        frozen = sorted(map(str, self.problem.frozen))
        asked = (self.limits, self.repaired, self.gradients, self.poles)
        return f"{show([self.problem.old, self.problem.new])} without gradients of {frozen}, {asked}"


def _found(question: _Question, seed: int) -> Breakage | None:
    def answer() -> Breakage | None:
        with undisturbed():
            return _Search(question).run(seed)

    return _searched.get(None if question.problem.data else (question.text, seed), answer)


_searched: Final = Recent[tuple[str, int], Breakage | None]()


def _elements(values: Sequence[Value]) -> int:
    return max(math.prod(max(d, 1) for d in v.shape if isinstance(d, int)) for v in values)


def ordinary(leaf: Value, known: Bounds) -> Bounds:
    """The numbers that a leaf is given: those that are known to be possible, ordinary ones where no bound is known."""
    if not is_float(leaf.dtype):
        return known
    limit = FORMATS[leaf.dtype].max
    most = min(ORDINARY, limit)
    low, high = (min(max(bound, -limit), limit) for bound in known)
    if known[0] == -math.inf:
        low = -most if -most < high else max(2 * high, -limit)
    if known[1] == math.inf:
        high = most if low < most else min(2 * low, limit)
    return low, high


@final
class _Search:
    """Tries families of inputs on one problem."""

    def __init__(self, question: _Question) -> None:
        problem = self.problem = question.problem
        self.repaired, self.poles = question.repaired, question.poles
        self.limits = dict(zip(problem.leaves, question.limits, strict=True))
        self.wrt = [leaf for leaf in problem.leaves if is_float(leaf.dtype) and leaf not in problem.frozen]
        self.gradients = question.gradients and bool(self.wrt) and is_float(problem.old.dtype)

    def run(self, seed: int) -> Breakage | None:
        tried = [self._moved(tensors) for tensors in self._families(seed)]
        plain = [self._changed(tensors, without_dust) for tensors in tried]
        for breaks in (self._lost, self._half_off, *((self._gradient,) if self.gradients else ()), self._off):
            for tensors in tried if breaks == self._off else plain:
                if breaks(tensors) is not None:
                    mild = self._milder(tensors, breaks)
                    first = breaks(mild)
                    assert first is not None
                    return Breakage(self.problem, tuple(mild[leaf] for leaf in self.problem.leaves), first)
        return None

    def _families(self, seed: int) -> Generator[Tensors]:
        """Those of a certificate; the ends of ranges; masks that hold everywhere and nowhere; integers between bounds
        that are known."""
        roots = [self.problem.old, self.problem.new]
        first: Tensors | None = None
        generator = torch.Generator().manual_seed(seed)
        for family in families(roots, self.problem.leaves, self.problem.data, seed):
            if not family.poisoned:
                first = first or family.tensors
                yield self._integers(family.tensors, generator)
        for end in (1, 0):
            if first is not None:
                free = {v: self.limits[v][end] for v in first if self._is_free(v)}
                yield {v: torch.full_like(t, free[v]) if v in free else t for v, t in first.items()}
        for every in (True, False):
            if first is not None and any(leaf.dtype == "bool" for leaf in first):
                yield {v: torch.full_like(t, every) if v.dtype == "bool" else t for v, t in first.items()}

    def _integers(self, tensors: Tensors, generator: torch.Generator) -> Tensors:
        found = dict(tensors)
        for leaf, tensor in tensors.items():
            if is_float(leaf.dtype) or leaf.dtype == "bool" or leaf in self.problem.data:
                continue
            if all(map(math.isfinite, self.limits[leaf])):
                most = torch.iinfo(tensor.dtype)
                low, high = (min(max(k, most.min), most.max - 1) for k in _integers_in(*self.limits[leaf]))
                if low <= high:
                    found[leaf] = torch.randint(low, high + 1, tensor.shape, generator=generator).to(tensor.dtype)
        return found

    def _moved(self, tensors: Tensors) -> dict[Value, torch.Tensor]:
        """Into the ranges. Data stays what it is."""
        return {
            leaf: within(tensor, *self.limits[leaf]) if self._is_free(leaf) else tensor
            for leaf, tensor in tensors.items()
        }

    def _is_free(self, leaf: Value) -> bool:
        return is_float(leaf.dtype) and leaf not in self.problem.data

    def _milder(self, tensors: Tensors, breaks: Callable[[Tensors], Break | None]) -> Tensors:
        """The smallest multiple (with entries of 1 at least) that still breaks, and round numbers."""
        largest = max((float(t.abs().max()) for v, t in tensors.items() if self._is_free(v) and t.numel()), default=0.0)
        good, bad, mildest = min(1.0, 1.0 / largest) if largest else 1.0, 1.0, tensors
        for _ in range(_HALVINGS if good < bad else 0):
            middle = (good + bad) / 2
            scaled = self._changed(tensors, partial(_times, middle))
            if breaks(scaled) is None:
                good = middle
            else:
                bad, mildest = middle, scaled
        for digits in _DIGITS:
            rounded = self._changed(mildest, partial(_rounded, digits))
            if breaks(rounded) is not None:
                return rounded
        return mildest

    def _changed(self, tensors: Tensors, change: Callable[[torch.Tensor], torch.Tensor]) -> dict[Value, torch.Tensor]:
        return self._moved({v: change(t) if self._is_free(v) else t for v, t in tensors.items()})

    # --- what breaks ------------------------------------------------------------------------------------------

    def _lost(self, tensors: Tensors) -> Break | None:
        return self._value(tensors, math.inf)

    def _half_off(self, tensors: Tensors) -> Break | None:
        return None if self.poles else self._value(tensors, HALF)

    def _off(self, tensors: Tensors) -> Break | None:
        return None if self.poles else self._value(tensors, SHARE)

    def _value(self, tensors: Tensors, share: float) -> Break | None:
        """share: of the exact result (of the largest one, where it is a half or more) that an error may have."""
        try:
            (computed,) = execute([self.problem.old], tensors)
        except (RuntimeError, IndexError, UsageError) as error:
            # these inputs do not suit the expression, or it holds a number that torch does not put into its format
            return Break((), math.nan, None, "lost") if is_overflow(error) and share == math.inf else None
        try:
            suspicious = self._suspicious(computed, tensors, share)
            if not suspicious.any():
                return None
            (exact,) = evaluate([self.problem.old], tensors, max_bits=2**13)
        except (RuntimeError, IndexError, UsageError):
            return None
        wrong = suspicious & self._wrong(computed, exact, share)
        if not wrong.any():
            return None
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        return Break(index, float(computed[index]), _number(exact[index]), "lost" if share >= HALF else "off")

    def _suspicious(self, computed: torch.Tensor, tensors: Tensors, share: float) -> Bools:
        """Elements to look at: not finite, or other than those of what is proposed instead."""
        finite = torch.isfinite(computed)
        if not self.repaired and share < math.inf:
            return np.ones(tuple(computed.shape), dtype=bool)
        if self.repaired and (share < math.inf or not computed.is_floating_point()):
            (other,) = execute([self.problem.new], tensors)
            size = computed.double().abs()
            finite &= (computed.double() - other.double()).abs() <= _AGREE * size
        return np.asarray(~finite.numpy(), dtype=bool)

    def _wrong(self, computed: torch.Tensor, exact: AnyArray, share: float) -> Bools:
        errors = errors_of(computed, exact)
        if not computed.is_floating_point():
            return np.asarray(errors.known & np.isinf(errors.ulps), dtype=bool)
        fmt = FORMATS[self.problem.old.dtype]
        lost = ~np.isfinite(computed.double().numpy())
        if self.poles:
            return np.asarray(lost, dtype=bool)
        size = np.array([abs(_number(x) or 0.0) for x in exact.flat], dtype=np.float64).reshape(exact.shape)
        held = np.array([_number(x) is not None for x in exact.flat], dtype=bool).reshape(exact.shape)
        held &= (size <= fmt.max) & errors.known
        with np.errstate(all="ignore"):
            beside = np.where(held, size, 0.0).max(initial=0.0) if share == HALF else size
            off = (errors.absolute > np.maximum(share * beside, 2 * fmt.min_normal)) & (np.asarray(beside) > 0)
        return np.asarray(held & (lost | off), dtype=bool)

    def _gradient(self, tensors: Tensors) -> Break | None:
        leaves = dict(tensors)
        for leaf in self.wrt:
            leaves[leaf] = leaves[leaf].detach().clone().requires_grad_()
        try:
            (result,) = execute([self.problem.old], leaves)
        except (RuntimeError, IndexError, UsageError):
            return None
        if not result.requires_grad or not bool(torch.isfinite(result).all()):
            return None
        wanted = [leaves[leaf] for leaf in self.wrt]
        found = torch.autograd.grad(result.sum(), wanted, allow_unused=True, materialize_grads=True)
        for leaf, slope in zip(self.wrt, found, strict=True):
            if bool(slope.isnan().any()):
                index = tuple(int(i) for i in slope.isnan().nonzero()[0])
                return Break(index, math.nan, None, "gradient", self.problem.leaves.index(leaf))
        return None


def within(tensor: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Made smaller as a whole where that suffices, so that what differs still does; then entry by entry."""
    if tensor.numel() and low <= 0 <= high:
        least, most = float(tensor.min()), float(tensor.max())
        factor = min(high / most if most > high else 1.0, low / least if least < low else 1.0)
        if 0 < factor < 1:
            tensor = tensor * factor
    return tensor.clamp(low, high)


def _integers_in(low: float, high: float) -> tuple[int, int]:
    """The first and the last integer between two numbers."""
    return math.ceil(low), math.floor(high)


def is_overflow(error: BaseException) -> bool:
    """Whether torch refused to put a number into a format that does not hold it."""
    return "without overflow" in str(error)


def _number(exact: object) -> float | None:
    """An exact value as a float; None where the formula has none or it is not known."""
    number = float(cast("arb | float", exact))
    return number if math.isfinite(number) else None


def without_dust(tensor: torch.Tensor) -> torch.Tensor:
    return torch.where(tensor.abs() < _DUST, torch.zeros_like(tensor), tensor)


def _times(factor: float, tensor: torch.Tensor) -> torch.Tensor:
    return tensor * factor


def _rounded(digits: int, tensor: torch.Tensor) -> torch.Tensor:
    """To significant decimal digits."""
    wide = tensor.double()
    scale = torch.pow(10.0, digits - 1 - wide.abs().clamp(min=1e-300).log10().floor())
    return torch.where(wide == 0, wide, (wide * scale).round() / scale).to(tensor.dtype)

"""A converted model against the original in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, final

import numpy as np
import numpy.typing as npt
import torch

from stabilize.conversion.running import Array, Arrays
from stabilize.conversion.samples import Sample
from stabilize.errors import ModelError
from stabilize.formats import FORMATS
from stabilize.records import Json, json_clean

Run: TypeAlias = Callable[[Arrays], Sequence[Array]]
Truth: TypeAlias = Callable[[Sample], list[torch.Tensor]]

#: An output may be this many times as far off as that of the float32 model, where that is more than the tolerance.
_FACTOR: Final = 2.0


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """One family of inputs. before, after: the largest error of the float32 model and of the converted one, relative to
    the largest entry of the output it is in. lost: entries that are not finite and should be. differ: the share of
    integer and boolean entries that are others than in float32. reason: the first harm."""

    family: str
    before: float
    after: float
    lost: int
    differ: float
    reason: str | None

    def to_dict(self) -> dict[str, Json]:
        return {
            "family": self.family,
            "error_before": json_clean(self.before),
            "error_after": json_clean(self.after),
            "lost": self.lost,
            "differ": self.differ,
        }


@final
@dataclass(frozen=True, slots=True)
class Evidence:
    """What a converted model was judged on. tolerance: what its errors may be, relative to the largest entry of an
    output; errors that the float32 model has itself are allowed twice over. obstacle: why float32 stands for the truth,
    where nothing computes the model in float64. runtime: what became of a run of the model itself. broken: why that
    failed, where the float32 model runs."""

    tolerance: float
    outcomes: tuple[Outcome, ...]
    obstacle: str | None = None
    runtime: str = "not run"
    broken: str | None = None

    @property
    def accepted(self) -> bool:
        return self.reason is None

    @property
    def reason(self) -> str | None:
        told = next((f"on {o.family} inputs, {o.reason}" for o in self.outcomes if o.reason is not None), None)
        return told or self.broken

    def text(self) -> str:
        """One line."""
        if self.reason is not None:
            return f"declined: {self.reason}"
        before, after = (max(getattr(o, n) for o in self.outcomes) for n in ("before", "after"))
        truth = "float64" if self.obstacle is None else f"float32 ({self.obstacle})"
        return (
            f"error relative to the largest entry {before:.2g} → {after:.2g} of at most {self.tolerance:.2g} (or twice "
            f"that of float32), no entry lost; {len(self.outcomes)} sets of inputs against {truth}; rounding "
            f"emulated; {self.runtime}"
        )

    def to_dict(self) -> dict[str, object]:
        return {
            "accepted": self.accepted,
            "reason": self.reason,
            "tolerance": self.tolerance,
            "obstacle": self.obstacle,
            "runtime": self.runtime,
            "outcomes": [o.to_dict() for o in self.outcomes],
        }


@final
@dataclass(frozen=True, slots=True)
class _Case:
    """Inputs, what is right, and what float32 makes of them. Where nothing computes the model in float64, float32 is
    what is right."""

    sample: Sample
    truth: list[npt.NDArray[np.float64]]
    before: list[Array]


@final
class Judge:
    """Compares converted models with one original on the same inputs.

    truths: the original in float64, and what stands in where that leaves even float64. before: the float32 model.
    """

    def __init__(
        self,
        truths: Sequence[Truth],
        before: Run,
        samples: Sequence[Sample],
        tolerance: float,
    ) -> None:
        self._tolerance = tolerance
        self._cases: list[_Case] = []
        self.obstacle: str | None = None
        for sample in samples:
            try:
                results = _flat(before(sample.feeds))
            except ModelError:
                if sample.given:
                    raise
                continue  # of inputs that only this program made
            self._cases.append(_Case(sample, self._truth(truths, sample, results), results))

    def _truth(
        self, truths: Sequence[Truth], sample: Sample, results: Sequence[Array]
    ) -> list[npt.NDArray[np.float64]]:
        try:
            return _known(truths, sample, results)
        except ModelError as error:
            self.obstacle = str(error)
            return [a.astype(np.float64) if _is_float(a) else np.full(a.shape, np.nan) for a in results]

    def verdict(self, run: Run, *, given_only: bool = False) -> Evidence:
        cases = [c for c in self._cases if c.sample.given or not given_only]
        return Evidence(self._tolerance, tuple(self._outcome(case, run) for case in cases), self.obstacle)

    def _outcome(self, case: _Case, run: Run) -> Outcome:
        try:
            after = _flat(run(case.sample.feeds))
        except ModelError as error:
            return Outcome(case.sample.family, 0.0, 0.0, 0, 0.0, str(error))
        worst = [0.0, 0.0]
        lost, differ = 0, 0.0
        reason: str | None = None
        if len(after) != len(case.before):
            return Outcome(case.sample.family, 0.0, 0.0, 0, 0.0, "a sequence has another length")
        for i, (exact, old, new) in enumerate(zip(case.truth, case.before, after, strict=True)):
            if old.shape != new.shape:
                reason = reason or f"output {i} has the shape {list(new.shape)} instead of {list(old.shape)}"
                continue
            if not _is_float(old):
                share = float((old != new).mean()) if old.size else 0.0
                differ = max(differ, share)
                if share > self._tolerance:
                    reason = reason or f"output {i}: {share:.1%} of its entries differ"
                continue
            before, off, gone = _errors(exact, old, new)
            worst = [max(worst[0], before), max(worst[1], off)]
            lost += gone
            if gone:
                reason = reason or f"output {i}: {gone} entries are not finite, or are and should not be"
            elif off > max(self._tolerance, _FACTOR * before):
                reason = reason or f"output {i} is {off:.2g} off, relative to its largest entry (float32: {before:.2g})"
        return Outcome(case.sample.family, worst[0], worst[1], lost, differ, reason)


def _known(truths: Sequence[Truth], sample: Sample, like: Sequence[Array]) -> list[npt.NDArray[np.float64]]:
    """The first that is finite, entry by entry; NaN where nothing is known."""
    known: list[npt.NDArray[np.float64]] = [np.full(a.shape, np.nan) for a in like]
    failure: ModelError | None = None
    for truth in truths:
        if all(bool(np.isfinite(k).all()) for k in known):
            break
        try:
            found = truth(sample)
        except ModelError as error:
            failure = error
            continue
        failure = None
        for i, (tensor, old) in enumerate(zip(found, known, strict=False)):
            if tuple(tensor.shape) == old.shape:
                known[i] = np.where(np.isfinite(old), old, tensor.detach().double().numpy())
    if failure is not None:
        raise failure
    return known


def _errors(exact: npt.NDArray[np.float64], old: Array, new: Array) -> tuple[float, float, int]:
    """Relative errors of both, and how many entries the new one lost: finite there and not here, or the reverse."""
    fmt = FORMATS.get(new.dtype.name)
    wide, narrow = old.astype(np.float64), new.astype(np.float64)
    most = np.inf if fmt is None else fmt.max
    known = np.isfinite(exact) & np.isfinite(wide) & (np.abs(exact) <= most)
    gone = known & ~np.isfinite(narrow)
    settled = (np.isinf(exact) & (wide == exact)) & (narrow != exact)
    if not known.any():
        return 0.0, 0.0, int(settled.sum())
    scale = float(np.abs(exact[known]).max())
    off, was = (float(np.abs(each[known & ~gone] - exact[known & ~gone]).max(initial=0.0)) for each in (narrow, wide))
    if scale == 0.0:
        return (0.0 if was == 0 else 1.0), (0.0 if off == 0 else 1.0), int(gone.sum() + settled.sum())
    return was / scale, off / scale, int(gone.sum() + settled.sum())


def _flat(outputs: Sequence[Array | Sequence[Array]]) -> list[Array]:
    """Arrays, those of sequences one by one."""
    flat: list[Array] = []
    for each in outputs:
        flat += [each] if isinstance(each, np.ndarray) else list(each)
    return flat


def _is_float(array: Array) -> bool:
    return array.dtype.kind == "f" or array.dtype.name in FORMATS

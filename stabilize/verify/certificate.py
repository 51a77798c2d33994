"""The evidence for one rewrite: the original expression and its replacement, judged on every family of inputs."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
import torch

from stabilize.errors import UsageError
from stabilize.formats import FORMATS, is_float
from stabilize.graph.text import show
from stabilize.graph.value import Value, cone
from stabilize.verify.compare import Errors
from stabilize.verify.execute import execute
from stabilize.verify.inputs import Family, families
from stabilize.verify.judge import Verdict
from stabilize.verify.recent import Recent
from stabilize.verify.shrink import Problem, full_size, shrink
from stabilize.verify.slice import cut
from stabilize.verify.trial import Nature, Oracle, Trial

_ARB_ELEMENTS: Final = 4096
_SHADOW_ELEMENTS: Final = 2**22


@final
@dataclass(frozen=True, slots=True)
class FamilyResult:
    """Both expressions on one family of inputs. Errors are the largest, in ulps.

    judged: elements at which the original had a number, or the right NaN or infinity.
    before, after: errors at those elements.
    failed_before, failed_after: elements that are NaN or infinite where they should not be, or the reverse.
    excused: further ones after that `stabilize.verify.judge` allows: NaN beside an infinite exponent.
    repaired: the error of the replacement where only the original failed.
    gradient_before, gradient_after: likewise for gradients; None where they were not compared.
    """

    name: str
    judged: int
    before: float
    after: float
    failed_before: int
    failed_after: int
    excused: int = 0
    repaired: float = 0.0
    gradient_before: float | None = None
    gradient_after: float | None = None

    @classmethod
    def of(
        cls,
        name: str,
        values: Sequence[tuple[Errors, Errors]],
        slopes: Sequence[tuple[Errors, Errors]] = (),
        excused: int = 0,
    ) -> FamilyResult:
        """From the errors (before, after) of the results, and of the gradients."""
        sound = [old.known & np.isfinite(old.absolute) for old, _ in values]
        failed = [old.known & ~np.isfinite(old.absolute) for old, _ in values]
        return cls(
            name,
            sum(int(s.sum()) for s in sound),
            max((old.worst_at(s) for (old, _), s in zip(values, sound, strict=True)), default=0.0),
            max((new.worst_at(s) for (_, new), s in zip(values, sound, strict=True)), default=0.0),
            sum(old.confused for old, _ in values),
            sum(new.confused for _, new in values) - excused,
            excused,
            max((new.worst_at(f) for (_, new), f in zip(values, failed, strict=True)), default=0.0),
            _worst(old.worst for old, _ in slopes),
            _worst(new.worst for _, new in slopes),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "judged": self.judged,
            "ulps_before": self.before,
            "ulps_after": self.after,
            "failed_before": self.failed_before,
            "failed_after": self.failed_after,
            "excused": self.excused,
            "ulps_repaired": self.repaired,
            "gradient_ulps_before": self.gradient_before,
            "gradient_ulps_after": self.gradient_after,
        }


@final
@dataclass(frozen=True, slots=True)
class Certificate:
    """What was found. `oracle` names the truth: Arb balls, or the original in float64 at full size.

    gradients: "compared", or why they were not. approximate: see `certify_rewrite`.
    """

    accepted: bool
    reason: str | None
    oracle: Oracle
    families: tuple[FamilyResult, ...]
    gradients: str = "compared"
    shrunk: bool = False
    approximate: bool = False

    def __str__(self) -> str:
        return self.text()

    def text(self) -> str:
        """One line: the verdict, the largest errors before and after, and what it was judged against."""
        if not self.accepted:
            return f"declined: {self.reason}"
        shapes = " on small shapes" if self.shrunk else ""
        return (
            f"{self.errors()}; {len(self.families)} input families against {self.oracle}{shapes}; "
            f"gradients {self.gradients}"
        )

    @property
    def idle(self) -> str | None:
        """Why an accepted replacement is of no use: it fails where the original does, and is no better elsewhere."""
        if self.approximate:
            return None
        lost, left = sum(f.failed_before for f in self.families), sum(f.failed_after for f in self.families)
        before = max((f.before for f in self.families), default=0.0)
        after = max((f.after for f in self.families), default=0.0)
        if left >= lost > 0 and 2 * after >= before:
            return f"it repairs nothing: {left} elements fail as they did before"
        return None

    def errors(self) -> str:
        """The largest error where the original was right, and the elements where it was not, before → after."""
        before = max((f.before for f in self.families), default=0.0)
        after = max((f.after for f in self.families), default=0.0)
        repaired = max((f.repaired for f in self.families), default=0.0)
        lost, left = sum(f.failed_before for f in self.families), sum(f.failed_after for f in self.families)
        text = f"max error {before:.3g} → {after:.3g} ulp"
        if lost:
            text += f", failed elements {lost} → {left}" + (
                f" (repaired within {repaired:.3g} ulp)" if left < lost else ""
            )
        excused = sum(f.excused for f in self.families)
        if excused:
            text += f", NaN beside an infinity {excused}"
        return text

    def to_dict(self) -> dict[str, Any]:
        return {
            "accepted": self.accepted,
            "reason": self.reason,
            "oracle": self.oracle,
            "shrunk": self.shrunk,
            "gradients": self.gradients,
            "families": [f.to_dict() for f in self.families],
        }


def certify_rewrite(
    old: Value,
    new: Value,
    *,
    data: Mapping[Value, torch.Tensor] | None = None,
    seed: int = 0,
    approximate: bool = False,
    effort: Effort | None = None,
) -> Certificate:
    """Judge the replacement of `old` by `new`, two values of one graph and one type.

    data: tensors of leaves whose values are known (weights, buffers); other leaves are drawn.
    seed: of the inputs that are drawn.
    approximate: the replacement may be another function where the original fails, and is judged elsewhere.
    effort: what certificates of one run share; this one's own where it is None.
    """
    if old.type != new.type:
        return Certificate(False, f"the replacement is {new.type} where the original is {old.type}", "arb", ())
    leaves = cut(old, new)
    known = {leaf: tensor for leaf, tensor in (data or {}).items() if leaf in leaves}
    unusable = [leaf for leaf in leaves if leaf.dtype == "other"]
    if unusable:
        return Certificate(False, f"{unusable[0]!r} has a dtype that cannot be evaluated", "arb", ())
    problem = shrink(old, new, leaves, known) or full_size(old, new, leaves, known)
    size = _elements(problem) if problem is not None else 0
    if problem is None or size > _SHADOW_ELEMENTS:
        return Certificate(False, "its shapes can be neither made small nor evaluated as they are", "float64", ())
    # the layers of a network pose the same small problem many times
    text = f"{show([problem.old, problem.new])} without gradients of {sorted(map(str, problem.frozen))}"
    refusal = (effort or Effort()).refusal(len(cone([problem.old, problem.new], problem.leaves)), text)
    if refusal is not None:
        return Certificate(False, refusal, "arb", ())

    def answer() -> Certificate:
        with undisturbed():
            return _Judge(problem, "arb" if size <= _ARB_ELEMENTS else "float64", seed, approximate).certificate()

    return _decided.get((text, seed, approximate) if problem.shrunk and not problem.data else None, answer)


_decided: Final = Recent[tuple[str, int, bool], Certificate]()


@final
class Effort:
    """What the certificates of one run may cost: formulas are judged all, long recurrences until it is spent.

    Towers of hundreds of hazards inside each other would else be judged once for each, with all below it.
    """

    def __init__(self) -> None:
        self._spare = _MOST_OPERATIONS
        self._booked: set[str] = set()

    def refusal(self, operations: int, text: str) -> str | None:
        """Why a problem is not judged; what judging it costs is booked, once for all of one text."""
        if operations <= _FORMULA:
            return None
        if operations > _MOST_TOGETHER:
            return f"it is judged with all it depends on, over {_MOST_TOGETHER} operations"
        if text in self._booked:
            return None
        if self._booked and operations > self._spare:
            return f"it is judged with all it depends on, {operations} operations, after others as long"
        self._booked.add(text)
        self._spare -= operations
        return None


_FORMULA: Final = 32
#: Operations that are judged together: formulas have tens, recurrences that are written out hundreds.
_MOST_TOGETHER: Final = 512
#: Of all that are longer than a formula, but for the first: twice what public models have.
_MOST_OPERATIONS: Final = 256


@contextmanager
def undisturbed() -> Generator[None]:
    """Torch on one thread (on tensors this small, waking the others costs more than the work), and without the
    anomaly mode that may be on to hunt the very NaN that is looked for here."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.autograd.set_detect_anomaly(False):
            yield
    finally:
        torch.set_num_threads(threads)


def _elements(problem: Problem) -> int:
    """Elements of the largest value, axes of size 0 counted as 1: the strides of such a tensor are those."""
    shapes = [v.shape for v in cone([problem.old, problem.new])]
    return max(math.prod(max(d, 1) for d in s if isinstance(d, int)) for s in shapes)


@final
class _Judge:
    """Runs both expressions of a problem on all families."""

    def __init__(self, problem: Problem, oracle: Oracle, seed: int, approximate: bool = False) -> None:
        self.problem, self.seed, self.approximate = problem, seed, approximate
        self.oracle: Oracle = oracle
        self.nature = Nature.of(problem, approximate)

    def certificate(self) -> Certificate:
        results: list[FamilyResult] = []
        reason: str | None = None
        gradients = self._why_no_gradients()
        for family in families([self.problem.old, self.problem.new], self.problem.leaves, self.problem.data, self.seed):
            if family.poisoned and self.problem.old.dtype not in ("bool", *FORMATS):
                continue  # which index stands for NaN or inf is nobody's promise
            result, harm = self._family(family, with_gradients=gradients is None)
            if result is not None:
                results.append(result)
            if harm is not None:
                reason = f"on {family.name} inputs {harm}"
                break
        return Certificate(
            reason is None,
            reason,
            self.oracle,
            tuple(results),
            gradients or "compared",
            self.problem.shrunk,
            self.approximate,
        )

    def _why_no_gradients(self) -> str | None:
        if not is_float(self.problem.old.dtype):
            return f"not compared: the result is {self.problem.old.dtype}"
        if not self.nature.wrt:
            return "not compared: none can be taken"
        return None

    def _family(self, family: Family, *, with_gradients: bool) -> tuple[FamilyResult | None, str | None]:
        """The result, and the harm in words; (None, None) when the original does not run on these inputs."""
        for root, blame in ((self.problem.old, None), (self.problem.new, "the replacement does not run")):
            try:
                execute([root], family.tensors)
            except (RuntimeError, IndexError) as error:
                return None, blame and f"{blame}: {str(error).splitlines()[0]}"
        try:
            trial = Trial(self.problem, self.nature, family, self.oracle)
        except UsageError:
            return None, None
        values = trial.values()
        if values.harm is not None or not (with_gradients and family.gradients) or trial.overflows():
            return _result(family, values, []), values.harm
        slopes = trial.gradients(self.seed)
        harmed = [(leaf, v.harm) for leaf, v in zip(self.nature.wrt, slopes, strict=True) if v.harm is not None]
        if not harmed:
            return _result(family, values, slopes), None
        leaf, harm = harmed[0]
        return _result(family, values, slopes), f"the gradient with respect to {leaf.attr('name')} is harmed: {harm}"


def _result(family: Family, values: Verdict, slopes: Sequence[Verdict]) -> FamilyResult:
    return FamilyResult.of(
        family.name, [(values.before, values.after)], [(v.before, v.after) for v in slopes], values.excused
    )


def _worst(errors: Iterable[float]) -> float | None:
    found = list(errors)
    return max(found) if found else None

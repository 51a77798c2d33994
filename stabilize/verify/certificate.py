"""The evidence for one rewrite: the original expression and its replacement, judged on every family of inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, final

import numpy as np
import torch

from stabilize.errors import UsageError
from stabilize.formats import FORMATS, is_float
from stabilize.graph.value import Value, cone
from stabilize.verify.compare import Bools, Floats
from stabilize.verify.execute import execute
from stabilize.verify.inputs import EXPONENTIAL, Family, families
from stabilize.verify.judge import Bounds, Verdict, at_limit, is_nan, judge_gradient, judge_values, largest
from stabilize.verify.running import Scales, Term, analyse
from stabilize.verify.shrink import Problem, full_size, shrink
from stabilize.verify.slice import cut
from stabilize.verify.truth import ArbTruth, ShadowTruth, Truth, backward

Oracle: TypeAlias = Literal["arb", "float64"]

_LOGARITHMIC: Final = frozenset(
    {
        "log", "log1p", "logsumexp", "log_softmax", "softplus", "log_sigmoid", "logaddexp", "logcumsumexp",
        "cross_entropy", "bce_with_logits", "xlogy",
    }
)  # fmt: skip
_ARB_ELEMENTS: Final = 4096
_SHADOW_ELEMENTS: Final = 2**22
_GRADIENT_ENTRIES: Final = 8

#: Operators that PyTorch computes as NaN at infinite operands, by their definition as (1 − y)·x + softplus(−x).
_UNDEFINED_AT_INFINITY: Final = frozenset({"bce_with_logits"})


@final
@dataclass(frozen=True, slots=True)
class FamilyResult:
    """Both expressions on one family of inputs. Errors are the largest in ulps among elements of the right class.

    judged: elements at which the original had a number, or the right NaN or infinity.
    failed_before, failed_after: elements that are NaN or infinite where they should not be, or the reverse.
    gradient_before, gradient_after: likewise for gradients; None where they were not compared.
    """

    name: str
    judged: int
    before: float
    after: float
    failed_before: int
    failed_after: int
    gradient_before: float | None = None
    gradient_after: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "judged": self.judged,
            "ulps_before": self.before,
            "ulps_after": self.after,
            "failed_before": self.failed_before,
            "failed_after": self.failed_after,
            "gradient_ulps_before": self.gradient_before,
            "gradient_ulps_after": self.gradient_after,
        }


@final
@dataclass(frozen=True, slots=True)
class Certificate:
    """What was found. `oracle` names the truth: Arb balls, or the original in float64 at full size.

    gradients: "compared", or why they were not.
    """

    accepted: bool
    reason: str | None
    oracle: Oracle
    families: tuple[FamilyResult, ...]
    gradients: str = "compared"
    shrunk: bool = False

    def text(self) -> str:
        """One line: the verdict, the largest errors before and after, and what it was judged against."""
        if not self.accepted:
            return f"declined: {self.reason}"
        before = max((f.before for f in self.families), default=0.0)
        after = max((f.after for f in self.families), default=0.0)
        lost, kept = (sum(getattr(f, k) for f in self.families) for k in ("failed_before", "failed_after"))
        shapes = " on small shapes" if self.shrunk else ""
        return (
            f"max error {before:.3g} → {after:.3g} ulp, failed elements {lost} → {kept}; "
            f"{len(self.families)} input families against {self.oracle}{shapes}; gradients {self.gradients}"
        )

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
    old: Value, new: Value, *, data: Mapping[Value, torch.Tensor] | None = None, seed: int = 0
) -> Certificate:
    """Judge the replacement of `old` by `new`, two values of one graph and one type.

    data: tensors of leaves whose values are known (weights, buffers); other leaves are drawn.
    seed: of the inputs that are drawn.
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
    with _single_threaded():
        return _Judge(problem, "arb" if size <= _ARB_ELEMENTS else "float64", seed).certificate()


@contextmanager
def _single_threaded() -> Generator[None]:
    """Torch on one thread: on tensors this small, waking the others costs more than the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _elements(problem: Problem) -> int:
    """Elements of the largest value."""
    shapes = [v.shape for v in cone([problem.old, problem.new])]
    return max(math.prod(d for d in s if isinstance(d, int)) for s in shapes)


@final
class _Judge:
    """Runs both expressions of a problem on all families."""

    def __init__(self, problem: Problem, oracle: Oracle, seed: int) -> None:
        self.problem, self.seed = problem, seed
        self.oracle: Oracle = oracle
        both = cone([problem.old, problem.new])
        original = cone([problem.old])
        self.logarithmic = any(v.op in _LOGARITHMIC for v in original)
        self.reduces = any(_reduced_length(v) > 1 for v in both)
        self.undefined_at_infinity = any(v.op in _UNDEFINED_AT_INFINITY for v in both)
        self.n = max(_reduced_length(v) for v in both)
        self.drivers = [o for v in original if v.op in EXPONENTIAL for o in v.operands if is_float(o.dtype)]
        self.wrt = [leaf for leaf in problem.leaves if is_float(leaf.dtype)]

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
            reason is None, reason, self.oracle, tuple(results), gradients or "compared", self.problem.shrunk
        )

    def _why_no_gradients(self) -> str | None:
        if not is_float(self.problem.old.dtype):
            return f"not compared: the result is {self.problem.old.dtype}"
        if not self.wrt:
            return "not compared: no float leaf"
        return None

    def _family(self, family: Family, *, with_gradients: bool) -> tuple[FamilyResult | None, str | None]:
        """The result, and the harm in words; (None, None) when the original does not run on these inputs."""
        try:
            before, inputs = self._run(self.problem.old, family)
        except (RuntimeError, IndexError):
            return None, None
        try:
            after, inputs_after = self._run(self.problem.new, family)
        except (RuntimeError, IndexError) as error:
            return None, f"the replacement does not run: {str(error).splitlines()[0]}"
        try:
            truth: Truth = (ArbTruth if self.oracle == "arb" else ShadowTruth)(self.problem, family.tensors)
        except UsageError:
            return None, None
        values = self._values(family, before, after, truth)
        if values.harm is not None or not (with_gradients and family.gradients) or self._overflows(truth):
            return _result(family, values, []), values.harm
        slopes = self._gradients(family, (before, inputs), (after, inputs_after), truth)
        harmed = [(leaf, v.harm) for leaf, v in zip(self.wrt, slopes, strict=True) if v.harm is not None]
        reason = (
            f"the gradient with respect to {harmed[0][0].attr('name')} is harmed: {harmed[0][1]}" if harmed else None
        )
        return _result(family, values, slopes), reason

    def _overflows(self, truth: Truth) -> bool:
        """Whether some result exceeds the format, so that its gradient does too."""
        limit = FORMATS[self.problem.old.dtype].max
        numbers = [x for x in truth.values.flat if not isinstance(x, float) or math.isfinite(x)]
        return any(abs(float(x)) > limit for x in numbers)

    def _run(self, root: Value, family: Family) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The result, connected by autograd to fresh copies of the float leaves."""
        tensors = dict(family.tensors)
        for leaf in self.wrt:
            tensors[leaf] = tensors[leaf].detach().clone().requires_grad_()
        return execute([root], tensors)[0], [tensors[leaf] for leaf in self.wrt]

    def _values(self, family: Family, before: torch.Tensor, after: torch.Tensor, truth: Truth) -> Verdict:
        excused = self._excused(family, before, after, truth) if is_float(self.problem.old.dtype) else None
        allowed = None
        if is_float(before_dtype := self.problem.old.dtype):
            term = self._analysis(truth)
            if term is not None:
                bounds = Bounds(FORMATS[before_dtype], self.n, self._reach(family))
                allowed = bounds.of_values(term, self.logarithmic)
        return judge_values(before, after, truth.values, allowed, excused)

    def _analysis(self, truth: Truth) -> Term | None:
        if truth.intermediates is None:
            return None
        fmt = FORMATS[self.problem.old.dtype]
        return analyse(self.problem.old, dict.fromkeys(self.problem.leaves), truth.intermediates, {}, fmt)

    def _reach(self, family: Family) -> float:
        """The largest finite magnitude among the float inputs."""
        sizes = [family.tensors[leaf].double().abs().flatten() for leaf in self.wrt]
        finite = [s[torch.isfinite(s)] for s in sizes]
        return max((float(s.max()) for s in finite if s.numel()), default=0.0)

    def _excused(self, family: Family, before: torch.Tensor, after: torch.Tensor, truth: Truth) -> Bools | None:
        """Elements that are as they should be though neither the truth nor the original says so."""
        excused: Bools | None = None
        lost = torch.isnan(after)
        if family.poisoned and self.reduces and bool(lost.any()):
            excused = np.asarray(lost.numpy(), dtype=bool) & self._depends_on(family, torch.isposinf)
        if self.undefined_at_infinity and not bool(torch.isfinite(after).all()):
            excused = np.asarray((~torch.isfinite(after)).numpy(), dtype=bool) & self._depends_on(family, torch.isinf)
        singular = is_nan(truth.values) & np.asarray((torch.isnan(before) & ~lost).numpy(), dtype=bool)
        if singular.any():
            limit = at_limit(after, (self._approached(family, 1), self._approached(family, 2)), self.n)
            excused = singular & limit if excused is None else excused | (singular & limit)
        return excused

    def _depends_on(self, family: Family, special: Callable[[torch.Tensor], torch.Tensor]) -> Bools:
        """Elements of the result that depend on a special input: those that turn NaN when it does."""
        tensors = {
            leaf: t.masked_fill(special(t), math.nan) if leaf in self.wrt else t for leaf, t in family.tensors.items()
        }
        return np.asarray(torch.isnan(execute([self.problem.old], tensors)[0]).numpy(), dtype=bool)

    def _approached(self, family: Family, draw: int) -> Floats:
        """The truth where inputs of ±inf are large numbers, and inputs of NaN any numbers, drawn anew each time."""
        generator = torch.Generator().manual_seed(draw)
        tensors: dict[Value, torch.Tensor] = {}
        for leaf, tensor in family.tensors.items():
            tensors[leaf] = tensor
            if leaf in self.wrt and not bool(torch.isfinite(tensor).all()):
                unit = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
                large = torch.sign(tensor.double()) * Scales.of(FORMATS[leaf.dtype]).reach * (2.0 + unit)
                stand_in = torch.where(torch.isnan(tensor), unit, large)
                tensors[leaf] = torch.where(torch.isfinite(tensor), tensor.double(), stand_in)
        exact = ArbTruth(self.problem, tensors).values
        return np.array([float(x) for x in exact.flat], dtype=np.float64).reshape(exact.shape)

    # --- gradients ------------------------------------------------------------------------------------------

    def _gradients(
        self,
        family: Family,
        before: tuple[torch.Tensor, list[torch.Tensor]],
        after: tuple[torch.Tensor, list[torch.Tensor]],
        truth: Truth,
    ) -> list[Verdict]:
        cotangent = self._cotangent(before[0], truth)
        bounds = Bounds(FORMATS[self.problem.old.dtype], self.n, self._reach(family))
        old = backward(before[0], before[1], cotangent)
        new = backward(after[0], after[1], cotangent)
        cancelled = self._cancelled(family, truth)
        verdicts: list[Verdict] = []
        positions = [_spread(a, b) for a, b in zip(old, new, strict=True)]
        for i, exact in enumerate(truth.gradients(self.wrt, cotangent, positions)):
            allowed = bounds.of_gradients(max(largest(exact), cancelled[i]))
            verdicts.append(judge_gradient(old[i], new[i], exact, allowed))
        return verdicts

    def _cotangent(self, result: torch.Tensor, truth: Truth) -> torch.Tensor:
        """±1 and ±½ at random, exact in every format; 0 where the result is not a finite number."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        drawn = torch.randint(0, 4, result.shape, generator=generator)
        numbers = torch.tensor([1.0, -1.0, 0.5, -0.5], dtype=result.dtype)[drawn]
        finite = [math.isfinite(float(x)) for x in truth.values.flat]
        return numbers * torch.tensor(finite, dtype=result.dtype).reshape(result.shape)

    def _cancelled(self, family: Family, truth: Truth) -> list[float]:
        """For each leaf, the size of the terms that may cancel in its gradient.

        A result c·exp(s) has the slope c·exp(s) in s, one in the log domain the slope 1; exponents in turn have a
        slope in the leaf.
        """
        size = 1.0 if self.logarithmic else largest(truth.values)
        if not self.drivers:
            return [0.0 for _ in self.wrt]
        try:
            drivers, inputs = self._run_drivers(family)
        except (RuntimeError, IndexError):
            return [size for _ in self.wrt]
        steepest = [0.0 for _ in self.wrt]
        for driver in drivers:
            # uneven weights, so that a shift by a mean does not cancel
            weights = 1.0 + 0.5 * torch.cos(torch.arange(driver.numel())).reshape(driver.shape)
            slopes = backward(driver, inputs, weights.to(driver.dtype), keep=True)
            sizes = [float(s.abs().nan_to_num(0.0, 0.0, 0.0).max()) if s.numel() else 0.0 for s in slopes]
            steepest = [max(a, b) for a, b in zip(steepest, sizes, strict=True)]
        return [size * slope for slope in steepest]

    def _run_drivers(self, family: Family) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        tensors = dict(family.tensors)
        for leaf in self.wrt:
            tensors[leaf] = tensors[leaf].detach().clone().requires_grad_()
        return execute(self.drivers, tensors), [tensors[leaf] for leaf in self.wrt]


def _reduced_length(value: Value) -> int:
    """How many terms one element of `value` sums, multiplies or compares."""
    if not value.operands:
        return 1
    shape = [d if isinstance(d, int) else 1 for d in value.operands[0].shape]
    if value.op in ("matmul", "attention"):
        return shape[-1]
    if value.op in ("cross_entropy", "nll_loss", "bce_with_logits"):
        return math.prod(shape)
    if value.op in ("sum", "mean", "prod", "logsumexp", "max", "min"):
        return math.prod(shape[a] for a in value.axes)
    if value.op in ("softmax", "log_softmax", "cumsum", "cumprod", "logcumsumexp"):
        return shape[value.axes[0]]
    return 1


def _spread(before: torch.Tensor, after: torch.Tensor) -> list[int]:
    """Flat positions at which gradients are judged: evenly spread ones, and the largest entry of either."""
    count = before.numel()
    chosen = set(range(0, count, max(1, -(-count // _GRADIENT_ENTRIES))))
    if count:
        chosen |= {int(g.double().abs().nan_to_num(-1.0, -1.0, -1.0).argmax()) for g in (before, after)}
    return sorted(chosen)


def _result(family: Family, values: Verdict, slopes: Sequence[Verdict]) -> FamilyResult:
    return FamilyResult(
        family.name,
        values.judged,
        values.before.worst,
        values.after.worst,
        values.before.confused,
        values.after.confused,
        _worst(v.before.worst for v in slopes),
        _worst(v.after.worst for v in slopes),
    )


def _worst(errors: Iterable[float]) -> float | None:
    found = list(errors)
    return max(found) if found else None

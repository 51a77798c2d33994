"""One rewrite on one family of inputs: run both expressions, find the truth, judge values and gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, final

import torch

from stabilize.formats import FORMATS, is_float
from stabilize.graph.value import Value, cone
from stabilize.verify.compare import Bools
from stabilize.verify.excuses import excused_gradient, excused_values
from stabilize.verify.execute import execute
from stabilize.verify.inputs import EXPONENTIAL, Family, exponents_of
from stabilize.verify.judge import Bounds, Verdict, judge_gradient, judge_values, largest
from stabilize.verify.running import Analysis, analyse
from stabilize.verify.shrink import Problem
from stabilize.verify.truth import ArbTruth, ShadowTruth, Truth, backward

Oracle: TypeAlias = Literal["arb", "float64"]

_LOGARITHMIC: Final = frozenset(
    {
        "log", "log1p", "logsumexp", "log_softmax", "softplus", "log_sigmoid", "logaddexp", "logcumsumexp",
        "cross_entropy", "bce_with_logits", "xlogy", "log_ndtr", "asinh", "acosh", "atanh",
    }
)  # fmt: skip

#: Operators with kernels that give 0 where the result is subnormal: σ as 1/(1 + e⁻ˣ), matrix products.
_FLUSHING: Final = frozenset({"sigmoid", "attention", "matmul"})

#: Evenly spread entries of a gradient that are judged: of each leaf, of all leaves together, and at least.
_GRADIENT_ENTRIES: Final = 8
_MOST_ENTRIES: Final = 64
_FEWEST_ENTRIES: Final = 2
#: Operations to carry out again for the entries of one leaf: recurrences that are written out have hundreds for each.
_MOST_OPERATIONS: Final = 256


@final
@dataclass(frozen=True, slots=True)
class Nature:
    """What the judgement needs to know of a problem, whatever the inputs.

    n: longest reduction. operations: how many the original has. logarithmic: whether it takes logs. drivers: its
    exponents. flushes: whether the replacement may flush subnormal results. wrt: leaves that gradients are taken by.
    approximate: whether the replacement may be another function where the original fails.
    """

    n: int
    operations: int
    logarithmic: bool
    flushes: bool
    drivers: tuple[Value, ...]
    wrt: tuple[Value, ...]
    approximate: bool = False

    @classmethod
    def of(cls, problem: Problem, approximate: bool = False) -> Nature:
        original = cone([problem.old])
        return cls(
            max(_reduced_length(v) for v in cone([problem.old, problem.new])),
            len(original),
            any(v.op in _LOGARITHMIC for v in original),
            problem.old.dtype != "float16" and any(v.op in _FLUSHING for v in cone([problem.new])),
            tuple(o for v in original if v.op in EXPONENTIAL for o in exponents_of(v) if is_float(o.dtype)),
            tuple(leaf for leaf in problem.leaves if is_float(leaf.dtype) and leaf not in problem.frozen),
            approximate,
        )


def _reduced_length(value: Value) -> int:
    """How many terms one element of `value` sums, multiplies or compares."""
    if not value.operands:
        return 1
    shape = [d if isinstance(d, int) else 1 for d in value.operands[0].shape]
    if value.op in ("matmul", "attention"):
        return shape[-1]
    if value.op in ("cross_entropy", "nll_loss", "bce_with_logits"):
        return math.prod(shape)
    if value.op in ("sum", "mean", "prod", "logsumexp", "max", "min", "norm"):
        return math.prod(shape[a] for a in value.axes)
    if value.op in ("layer_norm", "rms_norm"):
        return math.prod(shape[value.axes[0] :])
    if value.op in ("softmax", "log_softmax", "cumsum", "cumprod", "logcumsumexp"):
        return shape[value.axes[0]]
    return 1


Run: TypeAlias = "tuple[torch.Tensor, list[torch.Tensor]]"
"""A result, connected by autograd to the copies of the float leaves beside it."""


@final
class Trial:
    """Both expressions of a problem on one family.

    results: of both, where a runtime computed them; without them torch does.
    """

    def __init__(
        self,
        problem: Problem,
        nature: Nature,
        family: Family,
        oracle: Oracle,
        results: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> None:
        self.problem, self.nature, self.family = problem, nature, family
        self.truth: Truth = (ArbTruth if oracle == "arb" else ShadowTruth)(problem, family.tensors)
        self.before: Run = self._run([problem.old]) if results is None else (results[0], [])
        self.after: Run = self._run([problem.new]) if results is None else (results[1], [])
        self.analysis = self._analysis()

    def _run(self, roots: Sequence[Value]) -> Run:
        results, inputs = self._run_all(roots)
        return results[0], inputs

    def _run_all(self, roots: Sequence[Value]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        tensors = dict(self.family.tensors)
        for leaf in self.nature.wrt:
            tensors[leaf] = tensors[leaf].detach().clone().requires_grad_()
        return execute(roots, tensors), [tensors[leaf] for leaf in self.nature.wrt]

    def _analysis(self) -> Analysis | None:
        if self.truth.intermediates is None or not is_float(self.problem.old.dtype):
            return None
        leaves: Mapping[Value, object] = dict.fromkeys(self.problem.leaves)
        return analyse(self.problem.old, leaves, self.truth.intermediates, {}, FORMATS[self.problem.old.dtype])

    def _bounds(self) -> Bounds:
        sizes = [self.family.tensors[leaf].double().abs().flatten() for leaf in self.nature.wrt]
        finite = [s[torch.isfinite(s)] for s in sizes]
        reach = max((float(s.max()) for s in finite if s.numel()), default=0.0)
        exponent_error = 0.0 if self.analysis is None else self.analysis.exponent_error
        return Bounds(FORMATS[self.problem.old.dtype], self.nature.n, reach, exponent_error, self.nature.flushes)

    # --- values ---------------------------------------------------------------------------------------------

    def values(self) -> Verdict:
        """Compare the results."""
        before, after = self.before[0].detach(), self.after[0].detach()
        allowed = None
        if self.analysis is not None:
            allowed = self._bounds().of_values(self.analysis.term, self.nature.logarithmic)
        free = self.nature.approximate
        verdict = judge_values(before, after, self.truth.values, allowed, None, free)
        if verdict.harm is None:
            return verdict
        excused = excused_values(self.problem, self.family, before, after, self.truth, self.nature.n)
        return judge_values(before, after, self.truth.values, allowed, excused, free)

    # --- gradients ------------------------------------------------------------------------------------------

    def overflows(self) -> bool:
        """Whether some result exceeds the format, so that its gradient does too."""
        limit = FORMATS[self.problem.old.dtype].max
        numbers = [x for x in self.truth.values.flat if not isinstance(x, float) or math.isfinite(x)]
        return any(abs(float(x)) > limit for x in numbers)

    def gradients(self, seed: int) -> list[Verdict]:
        """Compare the gradients of Σ cotangent·result with respect to each float leaf."""
        cotangent = self._cotangent(seed)
        old = backward(self.before[0], self.before[1], cotangent)
        new = backward(self.after[0], self.after[1], cotangent)
        nature = self.nature
        entries = min(_GRADIENT_ENTRIES, _MOST_ENTRIES // len(nature.wrt), _MOST_OPERATIONS // nature.operations)
        entries = max(_FEWEST_ENTRIES, entries)
        positions = [_spread(a, b, entries) for a, b in zip(old, new, strict=True)]
        exact = self.truth.gradients(self.nature.wrt, cotangent, positions)
        bounds, cancelled = self._bounds(), self._cancelled()
        verdicts: list[Verdict] = []
        for i, leaf in enumerate(self.nature.wrt):
            allowed = bounds.of_gradients(max(largest(exact[i]), cancelled[i]))

            def excused(lost: Bools, leaf: Value = leaf) -> Bools:
                return excused_gradient(self.problem, self.family.tensors, leaf, lost, self.truth)

            verdicts.append(judge_gradient(old[i], new[i], exact[i], allowed, excused, self.nature.approximate))
        return verdicts

    def _cotangent(self, seed: int) -> torch.Tensor:
        """±1 and ±½ at random, exact in every format; 0 where the result is not a finite number."""
        result = self.before[0]
        generator = torch.Generator().manual_seed(seed + 1)
        drawn = torch.randint(0, 4, result.shape, generator=generator)
        numbers = torch.tensor([1.0, -1.0, 0.5, -0.5], dtype=result.dtype)[drawn]
        finite = [math.isfinite(float(x)) for x in self.truth.values.flat]
        return numbers * torch.tensor(finite, dtype=result.dtype).reshape(result.shape)

    def _cancelled(self) -> list[float]:
        """For each leaf, the size of the terms that may cancel in its gradient.

        A result c·exp(s) has the slope c·exp(s) in s, one in the log domain the slope 1, and s in turn a slope in the
        leaf. A leaf that enters as a factor c has terms of the size of the result over c.
        """
        size = 1.0 if self.nature.logarithmic else largest(self.truth.values)
        factors = [self.family.tensors[leaf].double().abs().nan_to_num(0.0, 0.0, 0.0) for leaf in self.nature.wrt]
        steepest = [1.0 / max(float(f.max()), 1.0) if f.numel() else 0.0 for f in factors]
        drivers, inputs = self._run_all(self.nature.drivers)
        for driver in drivers:
            # uneven weights, so that a shift by a mean does not cancel
            weights = 1.0 + 0.5 * torch.cos(torch.arange(driver.numel())).reshape(driver.shape)
            slopes = backward(driver, inputs, weights.to(driver.dtype), keep=True)
            sizes = [float(s.abs().nan_to_num(0.0, 0.0, 0.0).max()) if s.numel() else 0.0 for s in slopes]
            steepest = [max(a, b) for a, b in zip(steepest, sizes, strict=True)]
        return [size * slope for slope in steepest]


def _spread(before: torch.Tensor, after: torch.Tensor, entries: int) -> list[int]:
    """Flat positions at which gradients are judged: evenly spread ones, and the largest entry of either."""
    count = before.numel()
    chosen = set(range(0, count, max(1, -(-count // entries))))
    if count:
        chosen |= {int(g.double().abs().nan_to_num(-1.0, -1.0, -1.0).argmax()) for g in (before, after)}
    return sorted(chosen)

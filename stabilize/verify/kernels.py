"""The evidence for writing one operator in others: the function stays, and what changes is how a runtime computes it.

Both are run in that runtime on the families of inputs of every certificate, and judged against arbitrary precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch

from stabilize.errors import ModelError, UsageError
from stabilize.formats import FORMATS, is_float
from stabilize.graph.value import Value
from stabilize.verify.certificate import Certificate, FamilyResult, undisturbed
from stabilize.verify.compare import AnyArray
from stabilize.verify.execute import torch_dtype
from stabilize.verify.inputs import Family, families
from stabilize.verify.judge import Verdict
from stabilize.verify.shrink import Problem, full_size, shrink
from stabilize.verify.trial import Nature, Trial

Kernel: TypeAlias = Callable[[Sequence[torch.Tensor]], torch.Tensor]
"""What a runtime computes from the leaves of an expression, which may have any size."""

_GRADIENTS = "not compared: a runtime has none"


def certify_kernels(value: Value, leaves: Sequence[Value], before: Kernel | None, after: Kernel) -> Certificate | None:
    """Judge what a runtime makes of `value`, a formula over `leaves`, by two kernels; None when `after` is not better.

    before: None where the runtime is not at hand: `after` is then compared with the exact results, rounded.
    """
    problem = shrink(value, value, leaves, {}) or full_size(value, value, leaves, {})
    if problem is None:
        return Certificate(False, "its shapes can be neither made small nor evaluated as they are", "arb", ())
    results: list[FamilyResult] = []
    nature = Nature.of(problem)
    with undisturbed():
        for family in (*families([problem.old], problem.leaves, {}, 0), _deep(problem)):
            tensors = [family.tensors[leaf] for leaf in problem.leaves]
            try:
                new = after(tensors)
                old = new if before is None else before(tensors)
                trial = Trial(problem, nature, family, "arb", (old, new))
            except ModelError as error:
                return Certificate(False, f"on {family.name} inputs it fails: {error}", "arb", tuple(results))
            except UsageError:
                continue
            if before is None:
                trial.before = (_rounded(trial.truth.values, new), [])
            verdict = trial.values()
            results.append(_result(family.name, verdict))
            if verdict.harm is not None:
                return Certificate(False, f"on {family.name} inputs {verdict.harm}", "arb", tuple(results), _GRADIENTS)
    if before is not None and _is_idle(results):
        return None
    return Certificate(True, None, "arb", tuple(results), _GRADIENTS, problem.shrunk)


def _deep(problem: Problem) -> Family:
    """Everything far below the underflow of exp, −inf in front of it: kernels that start from 0 lose such rows."""
    tensors: dict[Value, torch.Tensor] = {}
    for leaf in problem.leaves:
        dtype, shape = torch_dtype(leaf.dtype), [d for d in leaf.shape if isinstance(d, int)]
        depth = 1.4 * FORMATS[leaf.dtype].exp_underflow if is_float(leaf.dtype) else 0
        tensors[leaf] = torch.full(shape, depth, dtype=dtype)
        if is_float(leaf.dtype) and shape and shape[-1]:
            tensors[leaf][..., 0] = -math.inf
    return Family("deep", tensors, gradients=False)


def _result(name: str, verdict: Verdict) -> FamilyResult:
    return FamilyResult.of(name, [(verdict.before, verdict.after)], (), verdict.excused)


def _is_idle(results: Sequence[FamilyResult]) -> bool:
    """Whether the operator, as this version of the runtime computes it, is as good as what would stand for it."""
    before, after = max((r.before for r in results), default=0.0), max((r.after for r in results), default=0.0)
    return before <= 2 * after and sum(r.failed_before for r in results) <= sum(r.failed_after for r in results)


def _rounded(exact: AnyArray, like: torch.Tensor) -> torch.Tensor:
    """The nearest numbers of a format; NaN where nothing is known."""
    numbers = [float(x) for x in exact.flat]
    return torch.tensor(numbers, dtype=torch.float64).reshape(like.shape).to(like.dtype)

"""What a rewrite is compared with: exact values and gradients of the original formula on one set of inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, Protocol, cast, final

import numpy as np
import torch

from stabilize.formats import FORMATS
from stabilize.graph.value import Value, cone
from stabilize.verify import gradient
from stabilize.verify.compare import AnyArray
from stabilize.verify.execute import execute
from stabilize.verify.oracle import evaluate_cone
from stabilize.verify.shrink import Problem, widen

#: Precision at which the oracle of a certificate gives up on an element (`oracle.evaluate` alone goes further).
_MAX_BITS: Final = 2**13


class Truth(Protocol):
    """The original formula without its rounding errors."""

    @property
    def values(self) -> AnyArray: ...

    @property
    def intermediates(self) -> Mapping[int, AnyArray] | None:
        """Every value of the original's cone by index, or None when they are not all known."""
        ...

    def gradients(
        self, wrt: Sequence[Value], cotangent: torch.Tensor, positions: Sequence[Sequence[int]]
    ) -> list[AnyArray]:
        """The gradient with respect to each leaf of `wrt`, known at least at `positions` (flat, for each leaf)."""
        ...


@final
class ArbTruth:
    """Arbitrary precision."""

    def __init__(self, problem: Problem, tensors: Mapping[Value, torch.Tensor]) -> None:
        self._root, self._tensors = problem.old, tensors
        self._floor = _floor(problem.old)
        (self.values,), arrays = evaluate_cone([problem.old], tensors, digits=24, floor=self._floor, max_bits=_MAX_BITS)
        needed = cone([problem.old], tensors)
        self.intermediates = arrays if all(v.index in arrays for v in needed) else None

    def gradients(
        self, wrt: Sequence[Value], cotangent: torch.Tensor, positions: Sequence[Sequence[int]]
    ) -> list[AnyArray]:
        return list(
            gradient.gradient(self._root, self._tensors, wrt, cotangent, floor=self._floor, positions=positions)
        )


@final
class ShadowTruth:
    """The original formula in float64; where that is not finite, or overflowed on the way, nothing is known."""

    def __init__(self, problem: Problem, tensors: Mapping[Value, torch.Tensor]) -> None:
        wide = widen(problem)
        self._twin = wide.made
        self._leaves: dict[Value, torch.Tensor] = {}
        for leaf, tensor in tensors.items():
            moved = tensor.double().requires_grad_() if tensor.is_floating_point() else tensor
            self._leaves[wide.made[leaf.index]] = moved
        order = cone([problem.old], problem.leaves)
        results = execute([wide.made[v.index] for v in order], self._leaves)
        arrays = {v.index: r.detach().numpy() for v, r in zip(order, results, strict=True)}
        self.intermediates: Mapping[int, AnyArray] | None = arrays
        self.values = arrays[problem.old.index]
        given = all(bool(torch.isfinite(t).all()) for t in tensors.values())
        if given and not all(bool(np.isfinite(a).all()) for a in arrays.values()):
            # an overflow on the way may end in a number, such as e/∞ = 0
            self.values = np.full(self.values.shape, math.nan)
        self._result = execute([wide.old], self._leaves)[0]

    def gradients(
        self, wrt: Sequence[Value], cotangent: torch.Tensor, positions: Sequence[Sequence[int]]
    ) -> list[AnyArray]:
        inputs = [self._leaves[self._twin[leaf.index]] for leaf in wrt]
        return [g.numpy() for g in backward(self._result, inputs, cotangent.double())]


def backward(
    result: torch.Tensor, inputs: Sequence[torch.Tensor], cotangent: torch.Tensor, *, keep: bool = False
) -> list[torch.Tensor]:
    """Gradients of Σ cotangent·result by autograd, zero where there is no path; `keep` the graph for another call."""
    if not result.requires_grad:
        return [torch.zeros_like(i) for i in inputs]
    found = cast(
        "Sequence[torch.Tensor | None]",
        torch.autograd.grad(result, inputs, cotangent, allow_unused=True, retain_graph=keep),
    )
    return [torch.zeros_like(i) if g is None else g for g, i in zip(found, inputs, strict=True)]


def _floor(root: Value) -> int:
    """Exponent below which a number is 0 to the format of `root`, with room for the judge's arithmetic."""
    fmt = FORMATS.get(root.dtype)
    return -1200 if fmt is None else fmt.emin - fmt.precision - 60

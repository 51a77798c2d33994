"""What is known of a model's numbers before it runs: ranges and data that the user gives, weights that stay."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import TypeAlias, final

import torch

from stabilize.errors import UsageError
from stabilize.graph.host import Host
from stabilize.graph.value import Value

Bounds: TypeAlias = tuple[float, float]


@final
class Weights:
    """The data behind leaves that is what it will be when the model is used.

    Buffers, initializers and frozen parameters are; parameters that train may become anything.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._numbers: dict[Value, TensorNumbers | None] = {}

    def tensor(self, leaf: Value) -> torch.Tensor | None:
        """The data of a leaf, if it is known to stay."""
        if leaf.op != "input":
            return None
        tensor = self._host.tensor(leaf)
        return None if tensor is None or tensor.requires_grad or tensor.is_meta else tensor

    def numbers(self, leaf: Value) -> TensorNumbers | None:
        """The same for the interval analysis."""
        if leaf not in self._numbers:
            tensor = self.tensor(leaf)
            usable = tensor is not None and tensor.is_floating_point() and tensor.numel() > 0
            self._numbers[leaf] = TensorNumbers(tensor) if usable and tensor is not None else None
        return self._numbers[leaf]


@final
class TensorNumbers:
    """The `Numbers` of a tensor. Sums are in float64 and rounded outward by what their length costs."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor.detach()

    @cached_property
    def _bounds(self) -> Bounds:
        low, high = torch.aminmax(self._tensor)
        return _finite(float(low), float(high))

    def bounds(self) -> Bounds:
        return self._bounds

    def combined(self, lo: float, hi: float, axis: int) -> Bounds:
        # Σ w⁺ and Σ w⁻, of Σ|w| and Σ w: no copy in float64 is made
        sizes, sums = (w.sum(axis, dtype=torch.float64) for w in (self._tensor.abs(), self._tensor))
        up, down = (sizes + sums) / 2, (sums - sizes) / 2
        least, most = up * lo + down * hi, up * hi + down * lo
        slack = float(sizes.max()) * max(abs(lo), abs(hi)) * (self._tensor.shape[axis] + 4) * 2.0**-51
        return _finite(float(least.min()) - slack, float(most.max()) + slack)

    def longest(self, axis: int) -> float:
        squares = float(self._tensor.double().square().sum(axis).max())
        return math.sqrt(squares) * (1.0 + self._tensor.shape[axis] * 2.0**-52) if squares < math.inf else math.inf


def _finite(low: float, high: float) -> Bounds:
    """The bounds; nothing is known of a weight that holds NaN or an infinity."""
    return (low, high) if math.isfinite(low) and math.isfinite(high) else (-math.inf, math.inf)


def ranges_of(data: Mapping[str, torch.Tensor]) -> dict[str, Bounds]:
    """The range of each float tensor; UsageError for one that holds NaN or no number."""
    found: dict[str, Bounds] = {}
    for name, tensor in data.items():
        if not tensor.is_floating_point():
            continue
        if not tensor.numel() or bool(tensor.isnan().any()):
            raise UsageError(
                f"input data {name!r} holds {'NaN' if tensor.numel() else 'no numbers'}: no range is known"
            )
        low, high = torch.aminmax(tensor.double())
        found[name] = float(low), float(high)
    return found

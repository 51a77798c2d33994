"""A spelling: a naive formula as a user writes it, its meaning by an independent oracle, and how it is judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from tests.panel.inputs import SOFT, Arg
from tests.panel.oracle import Array

Formula: TypeAlias = Callable[..., Tensor]
Oracle: TypeAlias = Callable[..., Array]


@dataclass(frozen=True)
class Spelling:
    """One row of the panel.

    name: family/function name.          rows: the rows of the rule catalogue that it belongs to.
    fn: the user's formula.              oracle: what it means, over mpmath arrays.
    inputs: what each argument is.       families: the input families that it is judged on.
    domain: "linear" (relative bound) or "log" (plus an absolute bound), see `judge`.
    loss: part of a training loss, so that its gradient is judged too.
    exact: False when the repair needs allow="approximate".
    gain: the largest factor between an input and an exponent of the formula (1/τ, ln 10, 2, …).
    chain: how many such formulas are composed.
    n: the longest sum in the formula.
    exponents: the arguments of the formula's exponentials, when they are not inputs times `gain`.
    slope: a gradient to which errors of gradients are relative, where it exceeds the largest of the tensor.
    exportable: False when ONNX has no operator for it or for its repaired form (cumprod).
    unrepaired: formats in which the repair is declined, with a finding: the result is not held to the bound there.
    flush: multiples of the smallest normal number below which a result may be 0 in float32 and float64 (σ: its
        own kernels in PyTorch and ONNX Runtime form 1/(1 + e⁻ˣ), where e⁻ˣ overflows before σ underflows), and of
        half the smallest subnormal in 16 bits (x·σ(x), where σ(x) is rounded among subnormals).
    scale: magnitudes to which the error is relative, when not those of the result (signed sums).
    """

    name: str
    rows: str
    fn: Formula
    inputs: tuple[Arg, ...]
    oracle: Oracle
    families: tuple[str, ...] = SOFT
    domain: str = "linear"
    loss: bool = False
    exact: bool = True
    gain: float = 1.0
    chain: float = 1.0
    n: int = 8
    scale: Oracle | None = None
    exponents: Oracle | None = None
    slope: float = 0.0
    exportable: bool = True
    unrepaired: tuple[str, ...] = ()
    flush: float = 0.0

    @property
    def family(self) -> str:
        """The part of the name before the slash."""
        return self.name.split("/")[0]


class Panel:
    """Collects spellings; `add` is a decorator for the formula."""

    def __init__(self) -> None:
        self.entries: list[Spelling] = []

    def add(
        self, family: str, inputs: tuple[Arg, ...], oracle: Oracle, *, rows: str, **options: Any
    ) -> Callable[[Formula], Formula]:
        """Register the decorated formula as `family/its name`; `options` are the other fields of `Spelling`."""

        def register(fn: Formula) -> Formula:
            self.entries.append(Spelling(f"{family}/{fn.__name__}", rows, fn, inputs, oracle, **options))
            return fn

        return register

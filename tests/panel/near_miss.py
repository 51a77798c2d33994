"""A near miss: a formula one edit away from a spelling, and what must become of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from tests.panel.inputs import Arg

#: Rows with NaN, with +∞, partly masked, entirely masked, and tied.
SPECIAL = (
    (0.0, float("nan"), 1.0, -2.0, 0.5),
    (0.0, float("inf"), 1.0, -2.0, 0.5),
    (float("-inf"), 0.0, 1.0, float("-inf"), 2.0),
    (float("-inf"),) * 5,
    (0.0, 0.0, 0.0, 0.0, 0.0),
)


Formula: TypeAlias = Callable[..., Tensor | tuple[Tensor, ...]]


@dataclass(frozen=True)
class NearMiss:
    """`fn` may return several tensors; each of `rows` is tried as the first row of the first real-valued argument.

    exportable: False when the ONNX exporter's own decomposition is not the formula (log1p becomes log(1 + x)).
    differentiable: False when autograd refuses the original (a saved tensor is changed in place).
    in_float16: the demand there, where it is another one (squares overflow).
    """

    name: str
    why: str
    fn: Formula
    inputs: tuple[Arg, ...]
    demand: str
    families: tuple[str, ...] = ("benign", "large", "low")
    domain: str = "linear"
    rows: tuple[tuple[float, ...], ...] = ()
    exportable: bool = True
    differentiable: bool = True
    in_float16: str | None = None

    def demand_in(self, dtype: str) -> str:
        return self.in_float16 or self.demand if dtype == "float16" else self.demand


class NearMisses:
    """Collects near misses; `near` is a decorator for the formula."""

    def __init__(self) -> None:
        self.entries: list[NearMiss] = []

    def near(
        self,
        demand: str,
        inputs: tuple[Arg, ...],
        why: str,
        *,
        families: tuple[str, ...] = ("benign", "large", "low"),
        domain: str = "linear",
        rows: tuple[tuple[float, ...], ...] = (),
        exportable: bool = True,
        differentiable: bool = True,
        in_float16: str | None = None,
    ) -> Callable[[Formula], Formula]:
        """Register the decorated formula."""

        def register(fn: Formula) -> Formula:
            self.entries.append(
                NearMiss(
                    fn.__name__, why, fn, inputs, demand, families, domain, rows, exportable, differentiable, in_float16
                )
            )  # fmt: skip
            return fn

        return register

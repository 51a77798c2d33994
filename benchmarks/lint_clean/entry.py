"""One healthy model: the lint must not call an error in it, and should say nothing at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from lint_cases.entry import Tensors
from torch import Tensor, nn

Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Healthy:
    """`make` gives the model and its inputs, None where it needs none; ranges: of the inputs, where they are known."""

    name: str
    group: str
    make: Callable[[], tuple[Any, Tensors | None]]
    ranges: Ranges = field(default_factory=dict[str, tuple[float, float]])


class Formula(nn.Module):
    """A function of tensors as a module, whose inputs are named as those of the function."""

    def __new__(cls, function: Callable[..., Any]) -> nn.Module:
        kind = type("Formula", (nn.Module,), {"forward": staticmethod(function)})
        return kind()


class Forms:
    """Stable formulas, in order: `@forms(example, …)` before a function."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.entries: list[Healthy] = []

    def __call__(self, *example: Tensor, half: bool = False, **ranges: tuple[float, float]) -> Callable[..., Any]:
        def keep(function: Callable[..., Any]) -> Callable[..., Any]:
            name = function.__name__.strip("_").replace("_", "-")
            given = tuple(t.half() if half and t.is_floating_point() else t for t in example)
            self.entries.append(Healthy(name, self.group, lambda: (Formula(function), given), ranges))
            return function

        return keep


def seeded(make: Callable[[], nn.Module], *inputs: Tensor, half: bool = False, train: bool = False
           ) -> Callable[[], tuple[nn.Module, Tensors]]:  # fmt: skip
    """A module with seeded weights."""

    def made() -> tuple[nn.Module, Tensors]:
        torch.manual_seed(0)
        module = make().train(train)
        given = tuple(t.half() if half and t.is_floating_point() else t for t in inputs)
        return (module.half().requires_grad_(False) if half else module), given

    return made

"""What a forward reads and changes in Python: numbers, strings, lists and dictionaries of a module."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import stabilize
from stabilize.errors import ModelError

X = torch.linspace(-2, 2, 8).reshape(2, 4)


class Settings(nn.Module):
    """A softmax by hand that reads attributes of every plain kind."""

    logarithm: object = True

    def __init__(self) -> None:
        super().__init__()
        self.table = {"scale": 1.0}
        self.scales = [1.0, 5.0]
        self.offset = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        e = torch.exp(x * self.table["scale"] * self.scales[0] + self.offset)
        p = e / e.sum(-1, keepdim=True)
        return torch.log(p) if self.logarithm else p


class Derived(Settings):
    """A class attribute of another type than the base class has."""

    logarithm = ("yes",)


class Counter(nn.Module):
    """An annealed softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        e = torch.exp(x / self.steps)
        return e / e.sum(-1, keepdim=True)


class Diary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(1)
        e = torch.exp(x)
        return e / e.sum(-1, keepdim=True)


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.table.update(scale=3.0),
        lambda m: m.scales.__setitem__(0, 2.0),
        lambda m: setattr(m, "logarithm", False),
        lambda m: setattr(m, "offset", 1),
    ],
)
def test_changes_of_settings_are_followed(change: Callable[[Any], object], lazy: bool) -> None:
    module = Settings()
    fixed = stabilize.optimize(module) if lazy else stabilize.optimize(module, (X,))
    assert isinstance(fixed, nn.Module)
    torch.testing.assert_close(fixed(X), module(X))
    for each in (module, fixed):  # lists and dictionaries are the same objects, numbers are not
        change(each)
    torch.testing.assert_close(fixed(X), module(X))


def test_attributes_of_derived_classes_hide_those_of_their_bases() -> None:
    fixed = stabilize.optimize(Derived(), (X,))
    assert isinstance(fixed, nn.Module)
    torch.testing.assert_close(fixed(X), Derived()(X))


def test_a_module_that_counts_its_calls_goes_on_counting() -> None:
    plain, fixed = Counter(), stabilize.optimize(Counter())
    assert isinstance(fixed, nn.Module)
    for _ in range(3):
        torch.testing.assert_close(fixed(X), plain(X))
    assert fixed.steps == plain.steps == 3
    assert not fixed(X * 1e4).isnan().any()


@pytest.mark.parametrize(("module", "name"), [(Counter(), "steps"), (Diary(), "seen")])
def test_what_a_graph_would_not_change_is_refused_by_name(module: nn.Module, name: str) -> None:
    before = repr(module.__dict__[name])
    with pytest.raises(ModelError, match=f"changes its attribute {name} when it is called"):
        stabilize.optimize(module, (X,))
    assert repr(module.__dict__[name]) == before


def test_lists_that_forward_appends_to_are_appended_to_at_each_call() -> None:
    fixed = stabilize.optimize(Diary())
    assert isinstance(fixed, nn.Module)
    for _ in range(2):
        fixed(X)
    assert fixed.seen == [1, 1]


def test_a_setting_that_is_nan_is_no_change() -> None:
    module = Settings()
    module.fill = math.nan
    fixed: Any = stabilize.optimize(module, (X,))
    for _ in range(2):
        fixed(X)
    assert len(fixed._rewritten.variants) == 1


def test_anomaly_mode_disturbs_nothing() -> None:
    """It raises at the first NaN of a backward pass, which certificates look for."""
    with torch.autograd.set_detect_anomaly(True):
        fixed, report = stabilize.optimize(Settings(), (X,), return_report=True)
        assert report.rewrites
        assert stabilize.certify(Settings(), fixed, (X,)).accepted
        assert torch.is_anomaly_enabled()


def test_torchscript_is_refused() -> None:
    traced = torch.jit.trace(nn.Linear(4, 4), X)
    with pytest.raises(ModelError, match=r"TorchScript .* pass the nn\.Module"):
        stabilize.optimize(traced, (X,))

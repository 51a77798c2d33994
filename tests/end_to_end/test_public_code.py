"""Code of public packages, reduced to what was once read wrongly, slowly or not at all. The packages are not needed."""

from __future__ import annotations

import math
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import stabilize
from stabilize.api import open_host
from stabilize.errors import ModelError
from stabilize.passes.linear import Linear
from stabilize.passes.propose import context, proposals
from stabilize.passes.ranges import Ranges
from stabilize.passes.rule import Options
from stabilize.report import Report


class Code(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: Tensor) -> Any:
        return self.function(*tensors)


def optimized(function: Callable[..., Any], *inputs: Tensor) -> tuple[nn.Module, Report]:
    return stabilize.optimize(Code(function), inputs, return_report=True)


# -- windows made of constants ---------------------------------------------------------------------------------------


def _window(size: int, sigma: float) -> Callable[[Tensor], Tensor]:
    """The kernel of structural similarity measures."""

    def blur(x: Tensor) -> Tensor:
        distance = torch.arange((1 - size) / 2, (1 + size) / 2, step=1)
        gauss = torch.exp(-torch.pow(distance / sigma, 2) / 2)
        return (x * (gauss / gauss.sum())).sum(-1)

    return blur


@pytest.mark.parametrize(("size", "sigma"), [(11, 1.5), (41, 1.0), (10, 0.5)])
def test_a_window_of_constants_is_healthy(size: int, sigma: float) -> None:
    _, report = optimized(_window(size, sigma), torch.randn(3, size))
    assert report.findings == []


def test_a_window_of_a_learned_width_is_found() -> None:
    """No element lies in its middle: every term underflows when the width shrinks, and 0/0 is left."""

    def narrow(x: Tensor, sigma: Tensor) -> Tensor:
        gauss = torch.exp(-torch.pow(torch.arange(-4.5, 5.0) / sigma, 2) / 2)
        return x * (gauss / gauss.sum())

    inputs = torch.ones(10), torch.tensor(0.01)
    fixed, report = optimized(narrow, *inputs)
    assert [r.code for r in report.rewrites] == ["STB101"]
    assert torch.isnan(narrow(*inputs)).all()
    assert fixed(*inputs).sum() == pytest.approx(1.0)


# -- normalised by the sum of everything ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4)])
def test_a_softmax_over_everything_is_one(shape: tuple[int, ...]) -> None:
    """e / e.sum(): exp(x − lse x) would lose about |x| units in the last place."""

    def normalised(x: Tensor) -> Tensor:
        e = torch.exp(x)
        return e / e.sum()

    x = 300 * torch.randn(shape)
    fixed, report = optimized(normalised, x)
    assert [r.code for r in report.rewrites] == ["STB101"]
    assert "softmax" in report.rewrites[0].stable
    expected = torch.softmax(x.double().flatten(), 0).reshape(shape)
    spread = float(x.max() - x.min())
    bound = (x.numel() + 2 + 2 * spread) * 2.0**-24  # Blanchard, Higham and Higham 2021
    torch.testing.assert_close(fixed(x).double(), expected, rtol=bound, atol=torch.finfo(torch.float32).tiny)


@pytest.mark.parametrize("axes", [(2, 3), (1, 2, 3), (0, 1)])
def test_a_softmax_over_neighbouring_axes_is_one(axes: tuple[int, ...]) -> None:
    def attended(x: Tensor) -> Tensor:
        e = torch.exp(x)
        return torch.log(e / e.sum(axes, keepdim=True))

    x = 300 * torch.randn(2, 3, 4, 5)
    fixed, report = optimized(attended, x)
    assert [r.code for r in report.rewrites] == ["STB102"]
    expected = x.double() - torch.logsumexp(x.double(), axes, keepdim=True)
    torch.testing.assert_close(fixed(x).double(), expected, rtol=1e-6, atol=1e-4)


def test_a_softmax_over_axes_apart_is_shifted() -> None:
    def attended(x: Tensor) -> Tensor:
        e = torch.exp(x)
        return e / e.sum((1, 3), keepdim=True)

    x = 300 * torch.randn(2, 3, 4, 5)
    fixed, _ = optimized(attended, x)
    torch.testing.assert_close(fixed(x).sum((1, 3)), torch.ones(2, 4))


# -- entries picked from tensors of different lengths ---------------------------------------------------------------


def _knots(index: Tensor, heights: Tensor, slopes: Tensor) -> Tensor:
    """What a rational quadratic spline adds up: bins of n heights, slopes at their n + 1 ends, picked by one index."""
    ends = torch.nn.functional.softplus(slopes)
    delta = heights / heights.sum(-1, keepdim=True)
    picked = [t.gather(-1, index).squeeze(-1) for t in (ends, ends[..., 1:], delta)]
    return picked[0] + picked[1] - 2 * picked[2]


def test_picks_from_tensors_of_different_lengths_are_no_pick_from_their_sum() -> None:
    inputs = torch.randint(10, (6, 1)), torch.rand(6, 10), torch.randn(6, 11)
    fixed, report = optimized(_knots, *inputs)
    assert report.findings == []
    assert torch.equal(fixed(*inputs), _knots(*inputs))


@pytest.mark.parametrize("pick", [lambda t: t[:, 1:4], lambda t: t.reshape(-1)[:4]])
def test_views_of_different_shapes_are_no_view_of_a_sum(pick: Callable[[Tensor], Tensor]) -> None:
    def mixed(a: Tensor, b: Tensor) -> Tensor:
        return pick(torch.nn.functional.softplus(a)) + pick(torch.nn.functional.softplus(b)) - 2 * pick(b)

    inputs = torch.randn(2, 6), torch.randn(2, 4)
    fixed, _ = optimized(mixed, *inputs)
    torch.testing.assert_close(fixed(*inputs), mixed(*inputs))


# -- what is known of an argument is known of a function of it -----------------------------------------------------


def test_one_plus_the_tanh_of_a_square_is_at_least_one() -> None:
    """A robust loss as kornia writes it: 2t / (1 + t), t = tanh(x² / 4)."""

    def welsch(x: Tensor) -> Tensor:
        t = torch.tanh(x.pow(2) / 4)
        return 2 * t / (1 + t)

    _, report = optimized(welsch, torch.randn(9))
    assert report.findings == []


def test_one_plus_the_tanh_of_anything_may_vanish() -> None:
    def ratio(x: Tensor) -> Tensor:
        return 2 * torch.tanh(x) / (1 + torch.tanh(x))

    _, report = optimized(ratio, torch.randn(9))
    assert [f.severity for f in report.findings] == ["error"]


def test_a_mixture_of_cosines_over_a_temperature_is_shifted() -> None:
    """Bounds of ±200 say nothing about its exponentials: those relative to the largest decide (a recommender)."""

    def mixed(x: Tensor, kinds: Tensor, prototypes: Tensor) -> Tensor:
        x, kinds, prototypes = (nn.functional.normalize(t, dim=1) for t in (x, kinds, prototypes))
        share = torch.softmax(kinds @ prototypes.T / 0.005, -1)
        parts = [
            torch.exp(nn.functional.normalize(x * k, dim=1) @ kinds.T / 0.005) * share[:, i]
            for i, k in enumerate(prototypes)
        ]
        return torch.log(parts[0] + parts[1] + parts[2])

    torch.manual_seed(0)
    inputs = torch.randn(4, 8), torch.randn(20, 8), torch.randn(3, 8)
    fixed, report = optimized(mixed, *inputs)
    assert [r.code for r in report.rewrites] == ["STB102"]
    exact = mixed(*(t.double() for t in inputs))
    assert not torch.isfinite(mixed(*inputs)).all()
    torch.testing.assert_close(fixed(*inputs).double(), exact, rtol=1e-5, atol=1e-4)


# -- the accurate half of a function, chosen by its argument ------------------------------------------------------


@pytest.mark.parametrize("border", [-0.6931471805599453, -torch.tensor(0.6931471805599453)])
def test_halves_that_are_used_where_they_are_accurate(border: float | Tensor) -> None:
    """log(1 − exp(x)) as botorch has it."""

    def log1mexp(x: Tensor) -> Tensor:
        return torch.where(border < x, (-x.expm1()).log(), (-x.exp()).log1p())

    x = -torch.rand(9)
    fixed, report = optimized(log1mexp, x)
    assert report.findings == []
    assert torch.equal(fixed(x), log1mexp(x))


@pytest.mark.parametrize("function", [lambda x: x + torch.log(-torch.expm1(-x)), lambda x: torch.log1p(-torch.exp(-x))])
def test_the_log_of_a_complement_is_repaired_once(function: Callable[[Tensor], Tensor]) -> None:
    """An inverse softplus as gpytorch has it; then there is nothing left to do."""
    x = torch.rand(9) + 0.01
    fixed, report = optimized(function, x)
    assert [r.code for r in report.rewrites] == ["STB212"]
    assert stabilize.optimize(fixed, (x,)) is fixed
    torch.testing.assert_close(fixed(x).double(), function(x.double()), rtol=1e-6, atol=1e-6)


# -- softmaxes of flattened maps, mixed and flattened again ---------------------------------------------------------


def test_the_log_of_a_mixture_of_reshaped_softmaxes_keeps_both_log_softmaxes() -> None:
    """Divergences of heat maps as kornia has them."""

    def mixture(a: Tensor, b: Tensor) -> Tensor:
        p, q = (t.flatten(2).softmax(-1).view_as(t) for t in (a, b))
        return torch.log((0.5 * (p + q)).reshape(2, 16))

    generator = torch.Generator().manual_seed(0)
    inputs = tuple(300 * torch.randn(2, 1, 4, 4, generator=generator) for _ in range(2))
    fixed, report = optimized(mixture, *inputs)
    assert [r.code for r in report.rewrites] == ["STB102"]
    assert "logaddexp(log_softmax" in report.rewrites[0].stable
    assert not torch.isfinite(mixture(*inputs)).all()
    # a mixture of float64 is 0 where its logarithm is below −745
    logs = [F.log_softmax(t.double().reshape(2, 16), -1) for t in inputs]
    torch.testing.assert_close(fixed(*inputs).double(), torch.logaddexp(*logs) - math.log(2), rtol=1e-6, atol=1e-3)


# -- modules that cache what they computed ----------------------------------------------------------------------------


class Caching(nn.Module):
    """A position bias that is computed at the first call, as x-transformers keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bias", None, persistent=False)
        self.latest: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is None:
            self.register_buffer("bias", torch.arange(x.shape[-1]) * -0.5, persistent=False)
        e = torch.exp(x + self.bias)
        return e / e.sum(-1, keepdim=True)


def test_a_module_that_makes_a_buffer_when_called_is_refused_and_left_alone() -> None:
    """The program that torch.export makes of it writes the bias into x."""
    module, x = Caching(), torch.randn(3, 5)
    attributes = dict(module.__dict__)
    with pytest.raises(ModelError, match=r"Caching replaces its buffer bias .* Call the module once before"):
        stabilize.optimize(module, (x,))
    assert module.__dict__ == attributes
    assert (module.bias, module.latest) == (None, None)
    module(x)
    fixed = stabilize.optimize(module, (x,))
    given = x.clone()
    torch.testing.assert_close(fixed(x), module(x))
    assert torch.equal(x, given)


def test_a_module_that_keeps_its_latest_result_is_left_without_a_fake_one() -> None:
    class Keeping(Caching):
        def forward(self, x: Tensor) -> Tensor:
            self.latest = torch.exp(x)
            return self.latest / self.latest.sum(-1, keepdim=True)

    module, x = Keeping(), torch.randn(3, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of the attribute that it sees assigned
        fixed = stabilize.optimize(module, (x,))
    assert module.latest is None
    torch.testing.assert_close(fixed(x), torch.softmax(x, -1))


def test_positions_that_are_integers_have_bounds_once_they_are_floats() -> None:
    """Counted from 0, or given: those may be anything."""

    def decayed(x: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        counted = torch.exp(-torch.arange(8)[None, 1:5].float())
        asked = torch.exp(-given.float())
        return x / counted, x / (asked / asked.sum(-1, keepdim=True))

    _, report = optimized(decayed, torch.randn(2, 4), torch.randint(5, (2, 4)))
    assert [f.severity for f in report.findings] == ["error"]
    assert "sum(exp(neg_1), 1)" in str(report.findings[0].naive)


class Frozen(OrderedDict[str, float]):
    """A configuration whose entries are attributes too, as diffusers has it: no copy of it has them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, value in self.items():
            setattr(self, name, value)


def test_a_configuration_of_a_class_of_its_own_stays_one() -> None:
    class Configured(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = Frozen(temperature=0.5)

        def forward(self, x: Tensor) -> Tensor:
            e = torch.exp(x / cast(Any, self.config).temperature)
            return e / e.sum(-1, keepdim=True)

    module, x = Configured(), torch.randn(3, 5)
    fixed = stabilize.optimize(module, (x,))
    assert fixed.config is module.config
    torch.testing.assert_close(fixed(x), torch.softmax(2 * x, -1))


# -- recurrences that carry a maximum ---------------------------------------------------------------------------------


def _receptance(steps: int) -> Callable[..., Tensor]:
    """The linear attention of RWKV, as its models write it for the CPU: shifted by a running maximum."""

    def attend(decay: Tensor, first: Tensor, key: Tensor, value: Tensor) -> Tensor:
        top = torch.full_like(key[0], -1e38)
        numerator, denominator = torch.zeros_like(key[0]), torch.zeros_like(key[0])
        outputs: list[Tensor] = []
        for t in range(steps):
            here = torch.maximum(top, key[t] + first)
            past, now = torch.exp(top - here), torch.exp(key[t] + first - here)
            outputs.append((past * numerator + now * value[t]) / (past * denominator + now))
            here = torch.maximum(top + decay, key[t])
            past, now = torch.exp(top + decay - here), torch.exp(key[t] - here)
            numerator, denominator, top = past * numerator + now * value[t], past * denominator + now, here
        return torch.stack(outputs)

    return attend


def test_bounds_of_a_recurrence_are_found_without_trying_the_same_forms_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = 0
    search = Ranges._search  # pyright: ignore[reportPrivateUsage]

    def counted(self: Ranges, form: Linear, depth: int) -> float:
        nonlocal tried
        tried += 1
        return search(self, form, depth)

    monkeypatch.setattr(Ranges, "_search", counted)
    inputs = torch.rand(5), torch.rand(5), torch.randn(16, 5), torch.randn(16, 5)
    view = open_host(Code(_receptance(16)), inputs).view
    assert proposals(view, context(view, Options()), lambda proposal: pytest.fail(str(proposal))) == {}
    assert 0 < tried < 10_000  # 140,000 when each bound starts from nothing

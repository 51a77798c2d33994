"""STB433: divisors that data can make 0."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import stabilize
from stabilize.passes.hazards.division_by_zero import RULE
from tests.frontends.onnx_support import model
from tests.passes.graphs import Options, Outcome, Ranges, assert_not_told, assert_told

_MAX, _MIN = (f"{op}(x, axes=(1,), keepdim=True)" for op in ("max", "min"))

FOUND = [
    "div(x, z)",
    "div(1.0, x)",
    "div(h, abs(h))",
    "pow(x, -1.0)",
    "pow(x, -0.5)",
    "div(x, detach(neg(z)))",
    "div(x, mul(z, 2.0))",
    "div(x, mul(z, w))",
    "div(x, sub(z, 1.0))",
    f"div(sub(x, {_MIN}), sub({_MAX}, {_MIN}))",
    "div(x, max(abs(x), axes=(1,), keepdim=True))",
    "div(x, mean(z, axes=(1,), keepdim=True))",
    "div(x, sum(z, axes=(1,), keepdim=True))",
    "div(x, matmul(x, s))",
    "div(x, transpose(reshape(z, shape=(5, 4)), perm=(1, 0)))",
    "div(x, add(abs(z), abs(w)))",
    "div(x, div(z, w))",
    # --- 0 for whole ranges of inputs ---
    "div(x, relu(z))",
    "div(x, maximum(z, 0.0))",
    "div(x, where(B, z, 0.0))",
    "div(x, cast(B, dtype='float32'))",
    "pow(relu(x), -1.0)",
]
NEAR_MISSES: list[tuple[str, Ranges]] = [
    ("div(x, 2.0)", {}),
    ("div(x, add(z, 1e-06))", {}),
    ("div(x, maximum(z, 1e-06))", {}),
    ("div(x, where(eq(z, 0.0), 1.0, z))", {}),
    ("div(x, add(z, w))", {}),  # an unknown number may be a guard
    ("div(x, sum(add(z, 0.001), axes=(1,), keepdim=True))", {}),
    ("div(x, sub(mul(z, 2.0), w))", {}),  # a difference of what is computed may be known not to be 0
    ("div(x, exp(z))", {}),
    ("div(x, sum(exp(z), axes=(0,), keepdim=True))", {}),
    ("div(x, softplus(z))", {}),
    ("div(x, tanh(z))", {}),
    ("div(x, log(z))", {}),
    ("div(x, gather(z, I, axis=1))", {}),
    ("div(x, sum(relu(x), axes=(1,), keepdim=True))", {}),  # STB431
    ("div(x, z)", {"z": (0.5, 1)}),
    ("div(x, z)", {"z": (-2, -1)}),
    ("div(x, sub(z, 1.0))", {"z": (2, 3)}),
    ("pow(x, 2.0)", {}),
    ("pow(x, z)", {}),
    ("pow(2.0, x)", {}),
    ("pow(x, -1.0)", {"x": (0.1, 1)}),
    ("div(x, constant(value=0.0, dtype='float32', shape=()))", {}),
]


@pytest.mark.parametrize("host", ["fx", "onnx"])
@pytest.mark.parametrize("body", FOUND)
def test_divisors_that_may_be_0(body: str, host: str) -> None:
    proposal = assert_told(RULE, body, host=host)
    assert proposal.message == ""
    assert (RULE.severity, RULE.poles) == ("warning", True)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 0), (-1, 1)])
def test_ranges_that_reach_0(low: float, high: float) -> None:
    assert_told(RULE, "div(x, z)", {"z": (low, high)})


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body: str, ranges: Ranges) -> None:
    assert_not_told(RULE, body, ranges)


def test_branches_of_a_condition_may_be_taken_where_they_suit() -> None:
    assert Outcome("div(x, z)", Options(hazards=True, inside=True)).codes == []


class _Standardised(nn.Module):
    def __init__(self, guard: float) -> None:
        super().__init__()
        self.guard = guard

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)) / (x.std(0) + self.guard if self.guard else x.std(0))


def test_deviations_are_operators_that_are_not_read() -> None:
    x = torch.randn(4, 3)
    (finding,) = stabilize.lint(_Standardised(0.0), x, budget=0).findings
    assert (finding.code, finding.severity) == ("STB433", "warning")
    assert stabilize.lint(_Standardised(1e-6), x, budget=0).findings == []


class _Scaled(nn.Module):
    def __init__(self, trains: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3), requires_grad=trains)

    def forward(self, x: Tensor) -> Tensor:
        return x / self.scale


def test_a_divisor_of_weights_alone_is_the_trainings_matter() -> None:
    x = torch.randn(4, 3)
    for trains in (True, False):
        assert stabilize.lint(_Scaled(trains), x, budget=0).findings == []


def test_in_onnx() -> None:
    text = "g (float[2, 3] x, float[2, 3] d) => (float[2, 3] y) { y = Div(x, d) }"
    assert [f.code for f in stabilize.lint(model(text), budget=0).findings] == ["STB433"]
    text = "g (float[2, 3] x) => (float[2, 3] y) <float[3] d = {1, 2, 4}> { y = Div(x, d) }"
    assert stabilize.lint(model(text), budget=0).findings == []

"""STB416: ‖a‖² + ‖b‖² − 2·a·b with a product of matrices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import stabilize
from stabilize.formats import FORMATS
from stabilize.passes.hazards.expanded_distance import RULE
from tests.passes.graphs import Options, Outcome, assert_not_told, assert_told

_X = "sum(mul(x, x), axes=(1,), keepdim=True)"
_W = "unsqueeze(sum(mul(w, w), axes=(1,), keepdim=False), axes=(0,))"
_WT = "transpose(w, perm=(1, 0))"
_XW = f"matmul(x, {_WT})"

FOUND = [
    f"sub(add({_X}, {_W}), mul({_XW}, 2.0))",
    f"sub(add({_X}, {_W}), mul(2.0, {_XW}))",
    f"add(sub({_X}, mul({_XW}, 2.0)), {_W})",
    f"add(add({_X}, {_W}), mul({_XW}, -2.0))",
    f"sub(add({_X}, {_W}), matmul(mul(x, 2.0), {_WT}))",
    f"sub(add({_X}, {_W}), matmul(x, mul({_WT}, 2.0)))",
    f"sub(mul({_XW}, 2.0), add({_X}, {_W}))",
    f"sub(add({_X}, sum(pow({_WT}, 2.0), axes=(0,), keepdim=True)), mul({_XW}, 2.0))",
    f"sub(add({_X}, transpose(sum(mul(w, w), axes=(1,), keepdim=True), perm=(1, 0))), mul({_XW}, 2.0))",
    f"sub(add(mul({_X}, 0.5), mul({_W}, 0.5)), {_XW})",
    "sub(add(sum(mul(x, x), axes=(1,), keepdim=True), unsqueeze(sum(mul(x, x), axes=(1,), keepdim=False), "
    "axes=(0,))), mul(matmul(x, transpose(x, perm=(1, 0))), 2.0))",
]
NEAR_MISSES = [
    f"sub(add({_X}, {_W}), {_XW})",
    f"sub(add({_X}, {_W}), mul({_XW}, 1.9))",
    f"add(add({_X}, {_W}), mul({_XW}, 2.0))",  # ‖a + b‖² of other signs is told by nobody: nor does it cancel for these
    f"sub(add({_X}, {_X}), mul({_XW}, 2.0))",
    f"sub({_X}, mul({_XW}, 2.0))",
    f"sub(add({_X}, {_W.replace('sum', 'mean')}), mul({_XW}, 2.0))",
    f"sub(add({_X}, {_W.replace('w', 'z')}), mul({_XW}, 2.0))",
    f"sub(add({_X}, {_W.replace('mul(w, w)', 'abs(w)')}), mul({_XW}, 2.0))",
    f"sub(sub({_X}, {_W}), mul({_XW}, 2.0))",
    f"sub(add({_X}, mul({_W}, 2.0)), mul({_XW}, 2.0))",
]


@pytest.mark.parametrize("host", ["fx", "onnx"])
@pytest.mark.parametrize("body", FOUND)
def test_expanded_distances(body: str, host: str) -> None:
    proposal = assert_told(RULE, body, host=host)
    assert proposal.message == ""
    assert proposal.old.op in ("add", "sub")


@pytest.mark.parametrize("around", ["sqrt({})", "maximum({}, 0.0)", "neg({})", "exp(mul({}, -0.5))"])
def test_what_is_computed_from_them(around: str) -> None:
    told = assert_told(RULE, around.format(FOUND[0]), alone=False)
    assert told.old.shape == (4, 4)


@pytest.mark.parametrize("body", NEAR_MISSES)
def test_near_misses(body: str) -> None:
    assert_not_told(RULE, body)


def test_the_condition_is_that_of_the_format() -> None:
    assert RULE.condition is not None
    assert RULE.condition(FORMATS["float32"]) == (
        "rows that are nearer to each other than 0.0002 of their length, in float32"
    )
    assert (RULE.severity, RULE.poles) == ("warning", False)
    assert Outcome(FOUND[0], Options(hazards=True)).proposed[0].candidates == ()


class _Distances(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a * a).sum(-1)[:, None] + (b * b).sum(-1) - 2 * a @ b.T


def test_the_defect_is_real() -> None:
    """Rows of length 1e3·√8 that are 0.03 apart: the square, 8e-3, is 0, or noise of its size."""
    a = torch.full((3, 8), 1e3) + torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    b = a + 0.03
    exact = torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
    assert ((_Distances()(a, b) - exact).abs().diagonal() > exact.diagonal() / 2).all()
    assert [f.code for f in stabilize.lint(_Distances(), (a, b), budget=0).findings] == ["STB416"]
    assert stabilize.lint(lambda_module(), (a, b), budget=0).findings == []


def lambda_module() -> nn.Module:
    class Expanded(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return (a[:, None] - b).square().sum(-1)

    return Expanded()

"""STB417: inverse functions of what may reach the end of their domain."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import stabilize
from stabilize.passes.hazards.inverse_at_its_end import RULE
from tests.passes.graphs import Ranges, assert_not_told, assert_told

_OPS = ("acos", "asin", "atanh", "acosh")
FOUND: list[tuple[str, Ranges]] = [
    *((f"{op}(sub(x, 1.0))", {}) for op in _OPS),
    *((f"{op}(tanh(x))", {}) for op in _OPS),
    ("acos(div(sub(sum(x, axes=(1,), keepdim=True), 1.0), 2.0))", {}),
    ("acos(transpose(sub(x, 1.0), perm=(1, 0)))", {}),
    ("asin(cast(sub(h, 1.0), dtype='float32'))", {}),
    ("acosh(mul(tanh(x), 0.9))", {}),
    ("atanh(abs(tanh(x)))", {}),
    ("asin(mul(x, 3.0))", {"x": (-0.1, 0.4)}),
    ("atanh(mul(x, 3.0))", {"x": (-0.4, 0.1)}),
    ("acosh(mul(x, 2.0))", {"x": (0.5, 0.8)}),
]
NEAR_MISSES: list[tuple[str, Ranges]] = [
    *((f"{op}(x)", {}) for op in _OPS),  # an input of the model as it is
    *((f"{op}(transpose(x, perm=(1, 0)))", {}) for op in _OPS),
    *((f"{op}(maximum(minimum(sub(x, 1.0), 0.9), -0.9))", {}) for op in _OPS),
    *((f"{op}(where(B, sub(x, 1.0), 0.5))", {}) for op in _OPS),
    ("acos(mul(tanh(x), 0.9))", {}),
    ("asin(mul(x, 2.0))", {"x": (-0.4, 0.4)}),
    ("acosh(mul(x, 2.0))", {"x": (0.6, 0.8)}),
    ("acosh(add(relu(x), 1.5))", {}),
    ("acosh(mul(x, 2.0))", {"x": (0.6, float("inf"))}),
    ("asin(mul(constant(value=1.0, dtype='float32', shape=(5,)), 0.5))", {}),
]


@pytest.mark.parametrize("host", ["fx", "onnx"])
@pytest.mark.parametrize(("body", "ranges"), FOUND)
def test_arguments_that_may_reach_an_end(body: str, ranges: Ranges, host: str) -> None:
    proposal = assert_told(RULE, body, ranges, host=host)
    assert proposal.message == ""
    assert (RULE.severity, RULE.poles) == ("warning", True)


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body: str, ranges: Ranges) -> None:
    assert_not_told(RULE, body, ranges)


class _Angle(nn.Module):
    def __init__(self, clamp: bool) -> None:
        super().__init__()
        self.clamp = clamp

    def forward(self, rotation: Tensor) -> Tensor:
        c = (rotation.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
        return torch.acos(c.clamp(-1 + 1e-6, 1 - 1e-6) if self.clamp else c)


def test_the_defect_is_real() -> None:
    """A rotation by 0, one unit in the last place off: NaN; and NaN in the gradient at exactly 0."""
    rotation = torch.eye(3) * (1 + 2.0**-22)
    assert _Angle(False)(rotation).isnan()
    assert [f.code for f in stabilize.lint(_Angle(False), rotation, budget=0).findings] == ["STB417"]
    assert stabilize.lint(_Angle(True), rotation, budget=0).findings == []

"""STB501: float16 sums of products are carried in float32, from the products to where the sum is used."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import stabilize
from stabilize.passes.cancellation.float16_accumulation import RULE
from tests.passes.graphs import assert_no_match

_H = "cast(h, dtype='float32')"
_MEAN = "mean(mul({0}, {0}), axes=(1,), keepdim=True)"

AFTER = {
    _MEAN.format("h"): "cast(mean(mul({0}, {0}), axes=(1,), keepdim=True), dtype='float16')",
    f"mul({_MEAN}, 0.001)".format("h"):
        "cast(mul(mean(mul({0}, {0}), axes=(1,), keepdim=True), 0.001), dtype='float16')",
    "log(add(sum(pow(h, 2.0), axes=(1,), keepdim=True), 0.5))":
        "cast(log(add(sum(pow({0}, 2.0), axes=(1,), keepdim=True), 0.5)), dtype='float16')",
    f"cast({_MEAN}, dtype='float32')".format("h"): "mean(mul({0}, {0}), axes=(1,), keepdim=True)",
    "div(sum(h, axes=(1,), keepdim=False), 5.0)": "cast(div(sum({0}, axes=(1,), keepdim=False), 5.0), dtype='float16')",
    f"div(h, add({_MEAN}, 1.0))".format("h"):
        "cast(div({0}, add(mean(mul({0}, {0}), axes=(1,), keepdim=True), 1.0)), dtype='float16')",
}  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), AFTER.items())
def test_is_carried_in_float32(rewrite, body, expected):
    outcome = rewrite(body)
    assert outcome.codes == ["STB501"]
    name, text = "h", outcome.after()
    if text.count("\n"):  # the widened input has a name
        first, _, text = text.partition("\n")
        name, _, widened = first.partition(" = ")
        assert widened == _H
    else:
        name = _H
    assert text == "return " + expected.format(name)


NEAR_MISSES = [
    (_MEAN.format("x"), {}),
    (_MEAN.format("G"), {}),  # bfloat16 has the range of float32
    (_MEAN.format(_H), {}),
    (_MEAN.format("h"), {"h": (-200.0, 200.0)}),
    ("mean(h, axes=(1,), keepdim=True)", {}),
    ("sum(h, axes=(1,), keepdim=True)", {}),
    ("sum(mul(h, log(h)), axes=(1,), keepdim=True)", {}),
    ("mul(h, h)", {}),
    ("sum(mul(softmax(h, axis=1), h), axes=(1,), keepdim=True)", {}),
    ("sum(mul(h, cast(B, dtype='float16')), axes=(1,), keepdim=True)", {}),
    ("sum(mul(h, 2.0), axes=(1,), keepdim=True)", {}),
    ("neg(matmul(h, transpose(h, perm=(1, 0))))", {}),  # the hosts' products are summed in float32
]


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)


class _Energy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-3)


def test_the_defect_is_real_and_repaired():
    """Entries of 300: the naive row is 0."""
    x = torch.full((2, 8), 300.0, dtype=torch.float16)
    assert (_Energy()(x) == 0).all()
    assert torch.allclose(
        stabilize.optimize(_Energy(), (x,))(x).double(), torch.full((2, 8), 8**-0.5).double(), atol=2e-4
    )


def test_special_rows():
    rows = torch.tensor([[0.0, torch.nan], [0.0, torch.inf], [-torch.inf, -torch.inf], [0.0, 0.0]], dtype=torch.float16)
    fixed = stabilize.optimize(_Energy(), (torch.randn(4, 2).half(),))
    assert torch.equal(fixed(rows).isnan(), _Energy()(rows).isnan())
    for shape in ((4, 1), (4, 0)):
        x = torch.ones(shape, dtype=torch.float16)
        assert torch.allclose(stabilize.optimize(_Energy(), (x,))(x), _Energy()(x), atol=1e-3)

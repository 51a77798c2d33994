"""STB402: norms by hand are scaled by their largest entry; what is guarded, bounded or fused stays."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import stabilize
from stabilize.passes.cancellation.naive_norm import RULE
from tests.passes.graphs import assert_no_match


def _norm(kept: str = "True") -> str:
    return f"sqrt(sum(mul(x, x), axes=(1,), keepdim={kept}))"


FOUND = [
    _norm(), _norm("False"), "pow(sum(pow(x, 2.0), axes=(1,), keepdim=True), 0.5)",
    "sqrt(mean(mul(x, x), axes=(0, 1), keepdim=False))", "sqrt(sum(pow(abs(x), 2.0), axes=(1,), keepdim=True))",
    "sqrt(mul(sum(mul(x, x), axes=(1,), keepdim=True), 0.25))", "sqrt(matmul(a, a))",
    f"div(x, {_norm()})", f"div(x, expand({_norm()}, shape=(4, 5)))", f"div(x, unsqueeze({_norm('False')}, axes=(1,)))",
    f"div(x, add({_norm()}, 0.001))", f"div(x, maximum({_norm()}, 0.001))",
    f"div(sum(mul(x, z), axes=(1,), keepdim=True), mul({_norm()}, sqrt(sum(mul(z, z), axes=(1,), keepdim=True))))",
    "sqrt(sum(mul(D, D), axes=(1,), keepdim=True))", "sqrt(sum(mul(G, G), axes=(1,), keepdim=True))",
]  # fmt: skip


@pytest.mark.parametrize("body", FOUND)
def test_is_found(rewrite, body):
    assert set(rewrite(body).codes) == {"STB402"}


def test_the_largest_entry_is_the_scale(rewrite):
    text = rewrite(_norm()).after()
    assert "norm(div(x, " in text
    assert "clamp" not in text
    assert "1.1754943508222875e-38" in text
    assert "3.4028234663852886e+38" in text


def test_float16_needs_no_scale(rewrite):
    body = "sqrt(sum(mul(h, h), axes=(1,), keepdim=True))"
    assert rewrite(body).after() == "return norm(h, axes=(1,), keepdim=True)"


NEAR_MISSES = [
    ("sqrt(add(sum(mul(x, x), axes=(1,), keepdim=True), 0.001))", {}),
    ("sqrt(sum(mul(x, z), axes=(1,), keepdim=True))", {}),
    ("sqrt(sum(x, axes=(1,), keepdim=True))", {}),
    ("sqrt(sum(pow(x, 3.0), axes=(1,), keepdim=True))", {}),
    ("sqrt(neg(sum(mul(x, x), axes=(1,), keepdim=True)))", {}),
    ("pow(sum(mul(x, x), axes=(1,), keepdim=True), 0.25)", {}),
    ("sqrt(sum(mul(x, x), axes=(1,), keepdim=True))", {"x": (-100.0, 100.0)}),
    ("div(x, norm(x, axes=(1,), keepdim=True))", {}),
    ("sqrt(mul(x, x))", {}),
    ("sqrt(mean(mul(n, n), axes=(0,), keepdim=True))", {}),
]


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)


@pytest.mark.parametrize(
    "body",
    [
        "div(s, sqrt(sum(mul(s, s), axes=(1,), keepdim=False)))",  # row norms laid out as a row
        "div(x, sqrt(sum(mul(z, z), axes=(1,), keepdim=True)))",
    ],
)
def test_a_quotient_by_another_norm_keeps_it(rewrite, body):
    outcome = rewrite(body)
    after = outcome.after()
    assert "norm(div(" in after
    assert not after.splitlines()[-1].startswith("return div(div(")


def test_a_cosine_along_other_axes_is_none(rewrite):
    other = "sqrt(sum(mul(s, s), axes=(0,), keepdim=False))"
    body = f"div(sum(mul(s, s), axes=(1,), keepdim=False), mul({other}, {other}))"
    assert rewrite(body).after().count("norm(") == 1


class _Unit(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / x.pow(2).sum(-1, keepdim=True).sqrt()


class _Length(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.pow(2).sum(-1).sqrt()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("power", [1, -1])
def test_the_defect_is_real_and_repaired(dtype, power):
    """Squares beyond the format, on either side: the naive unit vector is 0 or NaN, the new one has norm 1."""
    generator = torch.Generator().manual_seed(0)
    size = torch.finfo(dtype).max ** 0.7 if power > 0 else torch.finfo(dtype).smallest_normal ** 0.95
    x = (torch.randn(4, 16, generator=generator, dtype=torch.float64) * size).to(dtype)
    scaled = x.double() / x.double().abs().max()
    truth = scaled / torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    naive = _Unit()
    fixed = stabilize.optimize(naive, (x,))
    assert not torch.allclose(naive(x).double(), truth, atol=0.01)
    assert torch.allclose(fixed(x).double(), truth, rtol=32 * torch.finfo(dtype).eps, atol=1e-9)


def test_the_gradient_at_zero_is_zero():
    x = torch.randn(3, 5)
    x[1] = 0.0
    slopes = []
    for module in (_Length(), stabilize.optimize(_Length(), (x,))):
        leaf = x.clone().requires_grad_()
        module(leaf).sum().backward()
        slopes.append(leaf.grad)
    assert slopes[0][1].isnan().all()
    assert (slopes[1][1] == 0).all()
    assert torch.allclose(slopes[0][[0, 2]], slopes[1][[0, 2]])


def test_special_rows():
    rows = torch.tensor([[0.0, torch.nan, 1.0], [0.0, torch.inf, 1.0], [-torch.inf] * 3, [0.0] * 3, [1e-45] * 3])
    fixed = stabilize.optimize(_Length(), (torch.randn(5, 3),))
    assert fixed(rows)[0].isnan()
    assert fixed(rows)[1:4].tolist() == [torch.inf, torch.inf, 0.0]
    assert 0 < fixed(rows)[4] < 1e-44
    unit = stabilize.optimize(_Unit(), (torch.randn(5, 3),))
    assert torch.equal(unit(rows).isnan()[:4], _Unit()(rows).isnan()[:4])
    for shape in ((4, 1), (4, 0)):
        x = torch.ones(shape)
        assert torch.equal(stabilize.optimize(_Length(), (x,))(x), _Length()(x))

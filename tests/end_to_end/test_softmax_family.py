"""Rewritten modules of the softmax family run as the originals do: gradients, guards, NaN."""

from __future__ import annotations

import torch
from torch import nn

import stabilize


def test_a_gradient_of_zero_stays_zero_where_a_quotient_is_infinite():
    """As in a clipped importance ratio: both exponentials are finite, their quotient is not."""

    class Clipped(nn.Module):
        def forward(self, new, old):
            return torch.clamp(torch.exp(new) / torch.exp(old), 0.8, 1.2)

    for dtype, size in ((torch.float32, 60.0), (torch.bfloat16, 60.0), (torch.float16, 8.0)):
        new, old = (torch.full((4,), s, dtype=dtype, requires_grad=True) for s in (size, -size))
        fixed, report = stabilize.optimize(Clipped(), (new, old), return_report=True)
        assert [r.code for r in report.rewrites] == ["STB205"]
        fixed(new, old).sum().backward()
        assert new.grad.tolist() == old.grad.tolist() == [0.0] * 4


def test_a_guard_is_not_scaled_by_a_factor_of_the_sum():
    """Σ m·exp(x − c) + ε: taking exp(−c) out of the sum would multiply ε; no certificate stands between here."""

    class Guarded(nn.Module):
        def forward(self, x, m, c):
            e = torch.exp(x - c) * m
            total = e.sum(-1, keepdim=True) + 0.1
            return e / total, torch.log(total), torch.log((torch.exp(x) * m).sum(-1, keepdim=True) * torch.exp(c) + 0.1)

    generator = torch.Generator().manual_seed(0)
    x, c = torch.randn(3, 5, generator=generator), 3 * torch.randn(3, 1, generator=generator)
    inputs = (x, (x > -0.5).float(), c)
    fixed = stabilize.optimize(Guarded(), inputs, certify=False)
    for actual, wanted in zip(fixed(*inputs), Guarded()(*inputs), strict=True):
        torch.testing.assert_close(actual, wanted)


def test_a_query_of_nan_gives_nan():
    """PyTorch's fused kernel for CPUs, which takes four axes, gives 0."""

    class Attention(nn.Module):
        def forward(self, q, k, v):
            e = torch.exp(q @ k.transpose(-1, -2))
            return e / e.sum(-1, keepdim=True) @ v

    inputs = tuple(torch.randn(1, 2, 5, 8, generator=torch.Generator().manual_seed(i)) for i in range(3))
    fixed, report = stabilize.optimize(Attention(), inputs, return_report=True)
    assert [r.code for r in report.rewrites] == ["STB601"]
    inputs[0][0, 1, 3, 2] = torch.nan
    assert torch.equal(fixed(*inputs).isnan(), Attention()(*inputs).isnan())


def test_entries_picked_along_another_axis_are_no_cross_entropy():
    class Picked(nn.Module):
        def forward(self, x, y):
            e = torch.exp(x)
            p = e / e.sum(0, keepdim=True)
            return -torch.log(p.gather(1, y[:, None])).mean()

    inputs = (torch.randn(4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2, 1, 3]))
    fixed, report = stabilize.optimize(Picked(), inputs, return_report=True, certify=False)
    assert "STB301" not in [r.code for r in report.rewrites]
    torch.testing.assert_close(fixed(*inputs), Picked()(*inputs))


def test_a_quotient_that_is_1_over_the_reals_keeps_a_nan():
    class One(nn.Module):
        def forward(self, x):
            e = torch.exp(x)
            return e / e, e[:, :1] / e[:, :1].sum(-1, keepdim=True)

    x = torch.tensor([[torch.nan, 1.0], [2.0, torch.nan]])
    fixed = stabilize.optimize(One(), (torch.zeros(2, 2),), certify=False)
    for actual, wanted in zip(fixed(x), One()(x), strict=True):
        assert torch.equal(actual.isnan(), wanted.isnan())

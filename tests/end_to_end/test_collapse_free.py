"""Softmax Collapse: the loss and gradient of the collapse-free form against arbitrary precision, in every spelling."""

from __future__ import annotations

from collections.abc import Callable

import mpmath
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import stabilize

LEADS = (5.0, 10.0, 16.0, 17.0, 20.0, 40.0, 60.0, 80.0)
CLASSES = 7

Loss = Callable[[Tensor, Tensor], Tensor]


def _gathered(x: Tensor, y: Tensor) -> Tensor:
    return -F.log_softmax(x, dim=1).gather(1, y[:, None]).squeeze(1).mean()


def _indexed(x: Tensor, y: Tensor) -> Tensor:
    return -torch.log_softmax(x, 1)[torch.arange(x.shape[0]), y].mean()


def _by_hand(x: Tensor, y: Tensor) -> Tensor:
    e = torch.exp(x)
    return -torch.log((e / e.sum(1, keepdim=True)).gather(1, y[:, None]).squeeze(1)).mean()


def _one_hot(x: Tensor, y: Tensor) -> Tensor:
    return -(F.one_hot(y, CLASSES).float() * torch.log_softmax(x, 1)).sum(1).mean()


SPELLINGS: dict[str, Loss] = {
    "cross_entropy": F.cross_entropy,
    "nll_loss": lambda x, y: F.nll_loss(F.log_softmax(x, dim=1), y),
    "gather": _gathered,
    "index": _indexed,
    "one_hot": _one_hot,
    "by_hand": _by_hand,
}


class Head(nn.Module):
    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.loss(x, y)


def _rows(lead: float, leads_at_target: bool = True) -> tuple[Tensor, Tensor]:
    """Rows whose target leads (or trails) all other classes by `lead`."""
    generator = torch.Generator().manual_seed(int(lead))
    x = torch.randn(4, CLASSES, generator=generator)
    y = torch.tensor([0, 3, 6, 2])
    others = x.scatter(1, y[:, None], float("-inf")).max(1).values
    top = others + (lead if leads_at_target else -lead)
    return x.scatter(1, y[:, None], top[:, None]), y


def _exact(x: Tensor, y: Tensor) -> tuple[float, list[list[float]]]:
    """Mean loss and its gradient to 60 digits."""
    with mpmath.workdps(60):
        loss, gradient = mpmath.mpf(0), []
        for row, target in zip(x.double().tolist(), y.tolist(), strict=True):
            z = [mpmath.mpf(v) for v in row]
            total = mpmath.fsum(mpmath.exp(v) for v in z)
            loss += (mpmath.log(total) - z[target]) / len(y)
            p = [mpmath.exp(v) / total for v in z]
            others = mpmath.fsum(p[k] for k in range(len(z)) if k != target)
            gradient.append([float((-others if k == target else q) / len(y)) for k, q in enumerate(p)])
        return float(loss), gradient


def _measured(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, Tensor]:
    leaf = x.clone().requires_grad_()
    loss = model(leaf, y)
    loss.backward()
    assert leaf.grad is not None
    return float(loss.detach()), leaf.grad


@pytest.mark.parametrize("name", SPELLINGS)
def test_within_1e5_of_the_oracle_at_every_lead(name: str) -> None:
    naive = Head(SPELLINGS[name])
    fixed, report = stabilize.optimize(naive, _rows(5.0), form="collapse-free", return_report=True)
    assert [r.code for r in report.rewrites] == ["STB303"], str(report)
    for lead in LEADS:
        for at_target in (True, False):
            x, y = _rows(lead, at_target)
            loss, gradient = _exact(x, y)
            got, slope = _measured(fixed, x, y)
            assert got == pytest.approx(loss, rel=1e-5)
            torch.testing.assert_close(slope.double(), torch.tensor(gradient).double(), rtol=1e-5, atol=0.0)


def test_the_plain_form_collapses() -> None:
    x, y = _rows(20.0)
    loss, slope = _measured(Head(F.cross_entropy), x, y)
    assert loss == 0.0
    assert float(slope.gather(1, y[:, None]).abs().max()) == 0.0


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_option_of_cross_entropy_is_kept(reduction: str, smoothing: float, weighted: bool) -> None:
    weight = torch.linspace(0.5, 2.0, CLASSES) if weighted else None
    y = torch.tensor([0, 3, -100, 2])

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(x, y, weight=weight, reduction=reduction, label_smoothing=smoothing)

    x = torch.randn(4, CLASSES, generator=torch.Generator().manual_seed(1))
    fixed = stabilize.optimize(Head(loss), (x, y), form="collapse-free")
    torch.testing.assert_close(fixed(x, y), loss(x.double(), y).float() if not weighted else loss(x, y))


def test_axes_after_the_class_axis() -> None:
    x = torch.randn(2, CLASSES, 3, generator=torch.Generator().manual_seed(2))
    y = torch.tensor([[0, 1, 2], [3, 4, 5]])
    fixed = stabilize.optimize(Head(F.cross_entropy), (x, y), form="collapse-free")
    torch.testing.assert_close(fixed(x, y), F.cross_entropy(x, y))


def test_the_default_form_leaves_cross_entropy_alone() -> None:
    model = Head(F.cross_entropy)
    assert stabilize.optimize(model, _rows(5.0)) is model

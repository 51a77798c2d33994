"""What people train with, around and inside optimized modules: checkpoints, autocast, scaled gradients, freezing."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import stabilize

X = torch.randn(6, 8, generator=torch.Generator().manual_seed(2))


class Head(nn.Module):
    """Log-probabilities over logits of some hundreds. run: how the logits are computed."""

    def __init__(self, run: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.run = run
        self.linear = nn.Linear(8, 8)
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(8) * 300)
            self.linear.bias.zero_()

    def logits(self, x: Tensor) -> Tensor:
        return self.linear(x)

    def forward(self, x: Tensor) -> Tensor:
        e = torch.exp(self.logits(x) if self.run is None else self.run(self.logits, x))
        return torch.log(e / e.sum(-1, keepdim=True))


def check_gradient(model: Head, x: Tensor = X, factor: float = 1.0) -> None:
    """Against float64. A logit of up to 900 carries 900·2⁻²⁴ absolute, 2⁻¹³ in a probability; six rows are summed."""
    weight = model.linear.weight.detach().double().requires_grad_()
    torch.log_softmax(x.double() @ weight.T + model.linear.bias.detach().double(), -1)[:, 0].sum().backward()
    assert weight.grad is not None
    wanted = weight.grad.float() * factor
    torch.testing.assert_close(model.linear.weight.grad, wanted, rtol=0, atol=2**-11 * float(wanted.abs().max()))


REENTRANT = pytest.mark.parametrize("reentrant", [False, True])


@REENTRANT
@pytest.mark.parametrize("captured", [False, True])
def test_checkpointed_from_outside(captured: bool, reentrant: bool) -> None:
    """The first call, which is captured, happens under the hooks of the checkpoint."""
    model = Head()
    fixed = stabilize.optimize(model, (X,)) if captured else stabilize.optimize(model)
    x = X.clone().requires_grad_()
    checkpoint(fixed, x, use_reentrant=reentrant)[:, 0].sum().backward()
    check_gradient(model)


@REENTRANT
def test_checkpointed_inside(reentrant: bool) -> None:
    """A captured program would keep what the checkpoint gives up: it is refused, or left to torch.compile."""
    model = Head(lambda function, x: checkpoint(function, x, use_reentrant=reentrant))
    with pytest.raises(stabilize.ModelError, match="activation checkpointing"):
        stabilize.optimize(model, (X,))
    x = X.clone().requires_grad_()
    stabilize.optimize(model)(x)[:, 0].sum().backward()
    check_gradient(model)


def test_scaled_gradients() -> None:
    model = Head()
    fixed = stabilize.optimize(model, (X,))
    optimizer = torch.optim.SGD(fixed.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for _ in range(3):
        optimizer.zero_grad()
        scaler.scale(fixed(X)[:, 0].sum()).backward()
        check_gradient(model, factor=scaler.get_scale())
        scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() == 2.0**10


def test_accumulated_gradients() -> None:
    model = Head()
    fixed = stabilize.optimize(model)
    for part in X.split(2):
        fixed(part)[:, 0].sum().backward()
    check_gradient(model)


def test_frozen_when_captured() -> None:
    model = Head()
    model.requires_grad_(False)
    fixed = stabilize.optimize(model, (X,))
    assert not fixed(X).requires_grad
    model.requires_grad_(True)
    fixed(X)[:, 0].sum().backward()
    check_gradient(model)


class Loss(nn.Module):
    """Mean loss of hand-written probabilities, and these."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        e = torch.exp(self.linear(x) * 300)
        p = e / e.sum(-1, keepdim=True)
        return -torch.log(p[torch.arange(x.shape[0]), y]).mean(), p


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_formats_under_autocast_are_those_of_the_original(captured: bool, dtype: torch.dtype) -> None:
    """cross_entropy is float32 under autocast, the formula is not: a program is for the autocast it was captured in."""
    torch.manual_seed(0)
    model, y = Loss(), torch.tensor([0, 1, 2, 3, 4, 5])
    fixed = stabilize.optimize(model, (X, y)) if captured else stabilize.optimize(model)
    for module in (fixed, pickle.loads(pickle.dumps(fixed)), torch.compile(fixed, backend="eager", fullgraph=True)):
        with torch.autocast("cpu", dtype):
            inside, wanted = module(X, y), model(X, y)
            assert [t.dtype for t in inside] == [t.dtype for t in wanted] == [dtype, dtype]
        outside = module(X, y)
        assert [t.dtype for t in outside] == [torch.float32, torch.float32]
        for loss, p in (inside, outside):
            assert torch.isfinite(loss)
            # probabilities of eight classes, each rounded once
            torch.testing.assert_close(p.sum(-1).float(), torch.ones(6), rtol=0, atol=8 * torch.finfo(p.dtype).eps)
    assert not torch.isfinite(model(X, y)[0])

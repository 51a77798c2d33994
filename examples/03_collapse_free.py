"""Softmax Collapse, measured and cured.

When the true class leads by more than 16.6 in float32, Σ exp(z − max) rounds to 1: cross-entropy and its gradient are
exactly 0 and the row no longer teaches anything (Prieto et al., ICLR 2025, arXiv 2501.04697). The max-shift does not
help. `form="collapse-free"` computes the same function as log1p(Σ_{k≠y} exp(z_k − z_y)), whose gradient never is 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import stabilize

MODULUS, EPOCHS = 31, 800


class Loss(nn.Module):
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits, target, reduction="none")


class Network(nn.Module):
    """Two one-hot numbers in, their sum modulo 31 out; the loss of each row."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * MODULUS, 200, bias=False), nn.ReLU(), nn.Linear(200, MODULUS, bias=False)
        )

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(self.layers(x), target, reduction="none")


def leads() -> None:
    """Loss and gradient of the true class when it leads the other 9 by a given amount."""
    target = torch.zeros(1, dtype=torch.long)
    fixed = stabilize.optimize(Loss(), (torch.randn(1, 10), target), form="collapse-free")
    print("lead   cross-entropy  gradient       collapse-free  gradient       exact loss")
    for lead in (5.0, 10.0, 16.0, 17.0, 20.0, 40.0, 80.0):
        line = f"{lead:4.0f}"
        exact = torch.log1p(9 * torch.exp(torch.tensor(-lead, dtype=torch.float64)))
        for module in (Loss(), fixed):
            z = torch.zeros(1, 10)
            z[0, 0] = lead
            z.requires_grad_()
            loss = module(z, target)
            loss.sum().backward()
            assert z.grad is not None
            line += f"   {loss.item():<12.6g}  {z.grad[0, 0].item():<12.6g}"
            if module is fixed:
                torch.testing.assert_close(loss.double(), exact.reshape(1), rtol=1e-5, atol=0)
                torch.testing.assert_close(z.grad[:, 0].double(), torch.expm1(-exact).reshape(1), rtol=1e-5, atol=0)
        print(f"{line}   {exact.item():.6g}")


def training() -> dict[str, float]:
    """Share of training rows whose loss is exactly zero, after training on 60% of all sums."""
    a, b = torch.cartesian_prod(torch.arange(MODULUS), torch.arange(MODULUS)).T
    x = torch.cat([F.one_hot(a, MODULUS), F.one_hot(b, MODULUS)], dim=1).float()
    y = (a + b) % MODULUS
    chosen = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))[: int(0.6 * len(y))]
    x, y = x[chosen], y[chosen]
    collapsed: dict[str, float] = {}
    for form in ("softmax", "collapse-free"):
        torch.manual_seed(0)
        network = stabilize.optimize(Network(), (x, y), form=form)
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.0)
        for _ in range(EPOCHS):
            losses = network(x, y)
            optimizer.zero_grad()
            losses.mean().backward()
            optimizer.step()
        collapsed[form] = (losses == 0).float().mean().item()
        print(f"{form:<14} {collapsed[form]:6.1%} of rows have loss 0, mean loss {losses.mean().item():.3g}")
    return collapsed


def main() -> None:
    torch.set_num_threads(1)
    leads()
    print(f"\n{EPOCHS} epochs on a + b mod {MODULUS}:")
    collapsed = training()
    assert collapsed["softmax"] > 0.3
    assert collapsed["collapse-free"] == 0.0


if __name__ == "__main__":
    main()

"""The loss of direct preference optimisation on the tokens of two answers."""

import torch
from torch import Tensor, nn


class Loss(nn.Module):
    def __init__(self, beta: float = 0.1) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, logits: Tensor, tokens: Tensor, reference: Tensor) -> Tensor:
        p = torch.softmax(logits, dim=-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        chosen, rejected = torch.log(p).sum(-1)
        return -torch.log(torch.sigmoid(self.beta * (chosen - rejected - reference))).mean()


def loss() -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    return Loss(), (torch.randn(2, 4, 6, 50), torch.randint(50, (2, 4, 6)), torch.randn(4))

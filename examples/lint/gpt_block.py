"""A transformer block in float16 whose attention is written by hand."""

import math

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Causal self-attention with four heads."""

    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.register_buffer("future", torch.ones(context, context).triu(1).bool())

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (4, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        scores = scores.masked_fill(self.future, -1e4)
        weights = torch.exp(scores)
        weights = weights / weights.sum(dim=-1, keepdim=True)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class Norm(nn.Module):
    """RMS normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.scale


class Block(nn.Module):
    """Attention, then a feed-forward layer, each after a normalisation."""

    def __init__(self, width: int = 64, context: int = 16) -> None:
        super().__init__()
        self.norm1, self.norm2, self.attention = Norm(width), Norm(width), Attention(width, context)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


def block() -> tuple[nn.Module, tuple[Tensor]]:
    torch.manual_seed(0)
    return Block().half(), (torch.randn(2, 16, 64).half(),)

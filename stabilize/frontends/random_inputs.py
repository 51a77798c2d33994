"""Inputs drawn from types, for models that come without examples. The same numbers every time."""

from __future__ import annotations

import torch


def draw(like: torch.Tensor, position: int, low: int = 0, high: int = 2) -> torch.Tensor:
    """A tensor of the shape and dtype of `like`: normal floats, integers in [low, high), random bools.

    position: of the input in its model, so that inputs of one type differ.
    """
    generator = torch.Generator().manual_seed(position)
    shape = tuple(int(n) for n in like.shape)
    if like.dtype.is_floating_point or like.dtype.is_complex:
        wide = torch.complex128 if like.dtype.is_complex else torch.float64
        return torch.randn(shape, generator=generator, dtype=wide).to(like.dtype)
    if like.dtype is torch.bool:
        return torch.rand(shape, generator=generator) < 0.5
    return torch.randint(low, high, shape, generator=generator).to(like.dtype)

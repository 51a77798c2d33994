"""Inputs drawn from types, for models that come without examples. The same numbers every time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from stabilize.errors import UsageError

#: Elements of one drawn input: 128 MiB in float64, and a comparison holds several copies.
_MOST_ELEMENTS = 1 << 24


def check_size(shape: Sequence[int], name: str, model: str) -> None:
    """UsageError for an input too large to be drawn, or of no size at all. An axis of size 0 makes no other smaller:
    the strides of the tensor are those of the rest."""
    if len(shape) > 64 or any(n < 0 for n in shape) or math.prod(max(n, 1) for n in shape) > _MOST_ELEMENTS:
        told = "×".join(map(str, shape[:8]))
        raise UsageError(f"input {name!r} of {model} has the shape {told}, too large to draw: pass example inputs")


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

"""Inputs of the sweep, seeded: numbers of a whole format, and rows that break reductions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_BITS = {
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}
_PLACES = (0.0, 1e-10, 1e-5, 1e-3, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 8.5, 9.5, 16.6, 17.0, 18.0, 20.0, 37.0, 88.5, 89.0,
           100.0, 103.5, 104.0, 200.0, 500.0, 700.0, 709.5, 745.0, 1e4, 6e4, 1e10, 1e18, 1e20, 1e25, 1e30)  # fmt: skip


def numbers(dtype: torch.dtype, count: int) -> Tensor:
    """Numbers evenly over the ordered bits of the format, evenly over [−25, 25], and awkward ones; both signs."""
    integers = _BITS[dtype]
    info = torch.finfo(dtype)
    last = torch.tensor(info.max, dtype=dtype).view(integers).item()
    bits = torch.linspace(0, 1, count, dtype=torch.float64).mul(last).to(torch.int64).clamp(0, int(last))
    spread = bits.to(integers).view(dtype)
    linear = torch.linspace(0, 25, count, dtype=torch.float64).to(dtype)
    places = torch.tensor([p for p in _PLACES if p <= info.max], dtype=torch.float64).to(dtype)
    near = torch.cat([places * f for f in (1 - 2e-3, 1 - 1e-6, 1.0, 1 + 1e-6, 1 + 2e-3)]).to(dtype)
    special = torch.tensor([info.max, info.tiny, info.smallest_normal / 4, math.inf], dtype=torch.float64).to(dtype)
    positive = torch.cat([spread, linear, near, special])
    return torch.cat([positive, -positive, torch.tensor([math.nan], dtype=dtype)]).unique()


def unit(dtype: torch.dtype, count: int) -> Tensor:
    """Numbers of [0, 1] and a few beyond, dense at both ends."""
    x = numbers(dtype, count)
    small = x[(x >= 0) & (x <= 1)]
    return torch.cat([small, 1 - small, torch.tensor([-0.5, 1.5, math.nan], dtype=dtype)])


def pairs(dtype: torch.dtype, count: int) -> tuple[Tensor, Tensor]:
    """Pairs of ordinary, awkward and random numbers of the format, and pairs of neighbours."""
    x = numbers(dtype, count)
    generator = torch.Generator().manual_seed(0)
    first = x[torch.randint(len(x), (count * 6,), generator=generator)]
    second = x[torch.randint(len(x), (count * 6,), generator=generator)]
    a = torch.randn(count * 2, generator=generator, dtype=torch.float64).mul(20).to(dtype)
    b = torch.randn(count * 2, generator=generator, dtype=torch.float64).mul(20).to(dtype)
    ordinary = x[(x.abs() < 1e4) & (x.abs() > 1e-4)]
    near = ordinary * (1 + 4 * torch.finfo(dtype).eps)
    return torch.cat([first, a, ordinary, x, x]), torch.cat([second, b, near, x, torch.zeros_like(x)])


def rows(dtype: torch.dtype) -> Tensor:
    """Rows of 6: ordinary, wide, large, small, masked, infinite, equal, far from zero; a square would mix up axes."""
    info = torch.finfo(dtype)
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(8, 6, generator=generator, dtype=torch.float64)
    big, ramp = float(info.max), torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    found = [
        base, base * 10, base * 30, base[:3] * 1e3, base[:3] * min(1e4, big / 8), base[:2] * (big / 16),
        base[:3] * math.sqrt(big), base[:2] * math.sqrt(info.tiny), base[:2] * info.tiny * 4,
        base[:3] * 1e-6, base[:3] + 100.0, base[:3] * 0.01 + 100.0, base[:2] * 4 + min(1e4, big / 8),
        ramp[None] * 100, ramp[None] * 20, torch.zeros(1, 6), torch.ones(1, 6) * 3, torch.ones(1, 6) * -200,
        ramp[None] * 0 + 1e4,
    ]  # fmt: skip
    special = torch.stack([base[0]] * 6)
    special[0, 1], special[1, :3], special[2, :] = -math.inf, -math.inf, -math.inf
    special[3, 2], special[4, 2], special[5, :2] = math.inf, math.nan, torch.tensor([math.inf, -math.inf])
    return torch.cat([r.double() for r in (*found, special)]).to(dtype)


def image(dtype: torch.dtype) -> Tensor:
    """[6, 4, 4, 4]: ordinary, shifted, wide, small, constant channels, zeros."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(6, 4, 4, 4, generator=generator, dtype=torch.float64)
    x[1] += 100.0
    x[2] *= min(1e4, float(torch.finfo(dtype).max) / 16)
    x[3] *= 1e-5
    x[4, 1] = 3.0
    x[5] = 0.0
    return x.to(dtype)


def inputs(kind: str, dtype: torch.dtype, count: int) -> tuple[Tensor, ...]:
    """What the operators of a kind are called with."""
    match kind:
        case "x":
            return (numbers(dtype, count),)
        case "unit":
            return (unit(dtype, count),)
        case "xy":
            return pairs(dtype, count)
        case "rows":
            return (rows(dtype),)
        case _:
            return (image(dtype),)

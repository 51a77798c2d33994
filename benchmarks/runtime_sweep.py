"""Numbers that operators are tried on: evenly over the bit patterns of a format, and densely where functions break."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
import torch

from stabilize.formats import FORMATS

_BITS = {
    "float16": torch.int16, "bfloat16": torch.int16, "float32": torch.int32, "float64": torch.int64,
}  # fmt: skip

#: Zeros, poles, branch points and saturations of the functions in use; what a format makes of its own is added.
PLACES = (
    0.0, 1e-8, 1e-4, 0.1, 0.25, 1 / 3, 0.5, math.log(2), 0.8, 0.9, 0.99, 1.0, 1.01, math.sqrt(2), 1.5, math.pi / 2, 2.0,
    2.5, math.e, 3.0, math.pi, 3.92, 4.0, 4.5, 5.0, 3 * math.pi / 2, 2 * math.pi, 7.9, 9.0, 10.0, 12.0, 13.29, 16.0,
    17.0, 17.33, 18.0, 20.0, 27.3, 36.74, 37.4, 44.4, 65.0, 86.6, 87.34, 88.03, 88.38, 88.73, 100 * math.pi, 103.3,
    103.98, 105.0, 708.4, 709.8, 745.2, 746.0, 1e4, 65504.0, 1e6 * math.pi,
)  # fmt: skip

#: Spans that are tried evenly in the number itself, not in its logarithm.
SPANS = (1.0, 6.0, 30.0, 120.0, 800.0)


def sweep(dtype: str, points: int) -> torch.Tensor:
    """Numbers of `dtype` in ascending order, then NaN: [n].

    Every number of a 16-bit format when `points` allows it; else about `points` of them: half evenly over the bit
    patterns from −inf to +inf, a quarter in the neighbourhoods of `PLACES`, a quarter over `SPANS`.
    """
    fmt, integers = FORMATS[dtype], _BITS[dtype]
    top = int(torch.tensor(math.inf, dtype=_torch(dtype)).view(integers))
    if 2 * top <= 2 * points:
        steps = np.arange(-top, top + 1)
    else:
        steps = np.array([round(-top + i * 2 * top / (points // 2)) for i in range(points // 2 + 1)])
    numbers = [_from_steps(steps, dtype)]
    reach = max(points // (8 * len(PLACES)), 1)
    own = (fmt.max, fmt.min_normal, fmt.tiny, fmt.exp_overflow, -fmt.exp_underflow, math.sqrt(fmt.max), fmt.u)
    for place in (*PLACES, *own):
        middle = int(torch.tensor(place, dtype=torch.float64).to(_torch(dtype)).view(integers))
        near = np.clip(np.arange(middle - reach, middle + reach + 1), -top, top)
        numbers += [_from_steps(near, dtype), _from_steps(-near, dtype)]
    for span in SPANS:
        numbers.append(
            torch.linspace(-span, span, max(points // (4 * len(SPANS)), 3), dtype=torch.float64).to(_torch(dtype))
        )
    found = torch.cat(numbers)
    found = torch.unique(found.double()).to(found.dtype)
    return torch.cat([found, torch.tensor([math.nan], dtype=found.dtype)])


def pairs(dtype: str, points: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs from two sweeps, drawn at random; every pair of the most special numbers; neighbours: [n], [n]."""
    fmt, draw = FORMATS[dtype], generator("pairs", dtype)
    line = sweep(dtype, min(points, 1 << 13))[:-1]
    special = torch.tensor(
        [0.0, 1.0, -1.0, 2.0, -2.0, 0.5, 3.0, -0.5, 88.0, fmt.max, -fmt.max, fmt.tiny, fmt.min_normal, math.inf,
         -math.inf, math.nan],
        dtype=torch.float64,
    ).to(line.dtype)  # fmt: skip
    left, right = torch.meshgrid(special, special, indexing="ij")
    moderate = (torch.randn(2, points // 4, generator=draw, dtype=torch.float64) * 4).to(line.dtype)
    near = moderate[0] * (1 + 4 * fmt.u * torch.randint(-3, 4, moderate[0].shape, generator=draw)).to(line.dtype)
    anywhere = [line[torch.randint(len(line), (points // 2,), generator=draw)] for _ in range(2)]
    return (
        torch.cat([left.flatten(), moderate[0], moderate[0], anywhere[0]]),
        torch.cat([right.flatten(), moderate[1], near, anywhere[1]]),
    )


def rows(dtype: str, points: int, width: int) -> tuple[list[str], torch.Tensor]:
    """Rows for reductions and normalisations, [n, width], and the name of the family that each is of."""
    fmt, draw = FORMATS[dtype], generator("rows", dtype)
    each = max(points // (width * 12), 2)

    def normal() -> torch.Tensor:
        return torch.randn(each, width, generator=draw, dtype=torch.float64)

    peak = normal()
    peak[:, 0] = fmt.max / 2
    masked = normal().masked_fill(torch.rand(each, width, generator=draw) < 0.5, -math.inf)
    masked[:, :1] = -math.inf
    families = {
        "benign": normal(),
        "wide": normal() * 1e4,
        "positive": normal().abs() + fmt.min_normal,
        "offset": normal() + 1e4,
        "deep": normal() * 10 - 0.9 * math.log(fmt.max),
        "leading": torch.cat([torch.full((each, 1), -2 * fmt.exp_underflow / 4), normal()[:, 1:]], 1),
        "huge": normal() * (fmt.max / (8 * width)),
        "square overflows": normal() * math.sqrt(fmt.max),
        "square underflows": normal() * math.sqrt(fmt.min_normal),
        "tiny": normal() * (fmt.min_normal * 64),
        "peak": peak,
        "masked": masked,
        "special": _special(width, 1.4 * fmt.exp_underflow),
    }
    names = [name for name, block in families.items() for _ in block]
    return names, torch.cat(list(families.values())).to(_torch(dtype))


def _special(width: int, deep: float) -> torch.Tensor:
    """Zeros, ones, all −inf, one deep number among −inf (last, then first), one NaN, one +inf."""
    table = torch.zeros(7, width, dtype=torch.float64)
    table[1] = 1.0
    table[2:5] = -math.inf
    table[3, -1] = deep
    table[4, 0] = deep
    table[5, 1] = math.nan
    table[6, 1] = math.inf
    return table


def generator(*what: Any) -> torch.Generator:
    """Random numbers that depend on nothing but what they are for."""
    return torch.Generator().manual_seed(zlib.crc32(repr(what).encode()))


def _from_steps(steps: np.ndarray, dtype: str) -> torch.Tensor:
    """The numbers so many steps above 0 (below, where negative) in the order of the format."""
    magnitude = torch.tensor([abs(int(s)) for s in steps], dtype=torch.int64).to(_BITS[dtype]).view(_torch(dtype))
    return torch.where(torch.tensor([s < 0 for s in steps]), -magnitude, magnitude)


def _torch(dtype: str) -> torch.dtype:
    found: torch.dtype = getattr(torch, dtype)
    return found

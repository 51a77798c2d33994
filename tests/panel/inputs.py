"""Inputs of the panel: what each argument is, and the families of numbers it is given.

No family is scaled down to spare a formula: `large` is chosen from the format's own overflow threshold of exp.

family   logits                                             reals, positives, probabilities
benign   standard normal                                    standard normal, O(1), inside (0.05, 0.95)
large    ±2·ln(max): overflow, silent zeros, wide gaps      ±(1.01 … 1.9)·ln(max), a quarter of them close
low      every entry below the underflow threshold          as large
huge     ±10⁴                                               ±10⁴
masked   −∞ (or a false mask) in some entries of each row   as benign
dead     one row entirely masked: a genuine singularity     as benign
nan      one NaN in the first row (with a mask: as benign)  as benign
offset, hundreds, great, minute, zero: of the role `data`, see `_data`
small    as benign                                          ±10⁻² … 10⁻¹² (10⁻⁴ in float16); p near 0
tail     as benign                                          ±(0.3 … 1.6)·ln(1/u), where 1 + eˣ absorbs; p near 1
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from stabilize.formats import FORMATS, Format

SOFT = ("benign", "large", "low", "huge", "masked", "dead", "nan")
UNMASKED = ("benign", "large", "low", "huge")
SCALAR = ("benign", "small", "tail", "large")

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in FORMATS}
Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Arg:
    """One argument of a spelling. `axis` is the one that a softmax, sum or mask runs along."""

    role: str
    shape: Shape
    axis: int = -1
    classes: int = 0

    @property
    def exponent(self) -> bool:
        """Whether the argument goes through an exponential, so that its magnitude enters the error bound."""
        return self.role in ("logits", "real", "positive")

    @property
    def differentiable(self) -> bool:
        """Whether a loss is differentiated with respect to it."""
        return self.role in ("logits", "real", "positive", "queries", "data")


def logits(*shape: int, axis: int = -1) -> Arg:
    """Unnormalised log-probabilities."""
    return Arg("logits", shape, axis)


def real(*shape: int) -> Arg:
    """Any real number: argument of an elementwise function."""
    return Arg("real", shape)


def positive(*shape: int) -> Arg:
    """A positive real number."""
    return Arg("positive", shape)


def probability(*shape: int) -> Arg:
    """A number inside (0, 1)."""
    return Arg("probability", shape)


def values(*shape: int) -> Arg:
    """Signed O(1) numbers that are averaged or added, never exponentiated."""
    return Arg("values", shape)


def queries(*shape: int) -> Arg:
    """Vectors whose inner products become exponents: their products overflow exp in the family `large`."""
    return Arg("queries", shape)


def data(*shape: int) -> Arg:
    """Signed numbers that are averaged, squared and multiplied: activations, features, residuals."""
    return Arg("data", shape)


def weights(*shape: int) -> Arg:
    """Positive O(1) numbers."""
    return Arg("weights", shape)


def distribution(*shape: int) -> Arg:
    """Positive numbers that sum to about 1 along the last axis."""
    return Arg("distribution", shape)


def mask(*shape: int, axis: int = -1) -> Arg:
    """Booleans, at least one true along `axis` (but in the dead row)."""
    return Arg("mask", shape, axis)


def target(*shape: int, classes: int) -> Arg:
    """Class indices."""
    return Arg("target", shape, classes=classes)


def labels(*shape: int) -> Arg:
    """0.0 or 1.0."""
    return Arg("labels", shape)


def signs(*shape: int) -> Arg:
    """−1.0 or 1.0."""
    return Arg("signs", shape)


def temperature() -> Arg:
    """A positive scalar tensor."""
    return Arg("temperature", ())


def generate(args: tuple[Arg, ...], family: str, dtype: str, seed: str = "") -> tuple[Tensor, ...]:
    """Deterministic tensors for `args`."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{family}/{dtype}".encode()))
    has_mask = any(a.role == "mask" for a in args)
    if has_mask and family == "nan":
        families = dict.fromkeys(args, "benign")
    elif has_mask and family in ("masked", "dead"):
        families = {a: family if a.role == "mask" else ("large" if family == "masked" else "benign") for a in args}
    else:
        families = dict.fromkeys(args, family)
    return tuple(_generate(a, families[a], FORMATS[dtype], generator) for a in args)


def _generate(arg: Arg, family: str, fmt: Format, g: torch.Generator) -> Tensor:
    shape = arg.shape
    if arg.role == "target":
        return torch.randint(arg.classes, shape, generator=g)
    if arg.role == "mask":
        return _mask(arg, family, g)
    if arg.role == "logits":
        x = _logits(arg, family, fmt, g)
    elif arg.role in ("real", "positive"):
        x = _real(shape, family, fmt, g)
        x = x.abs() + (1e-3 if family == "benign" else 0.0) if arg.role == "positive" else x
    elif arg.role == "data":
        x = _data(shape, family, fmt, g)
    elif arg.role == "probability":
        x = _probability(shape, family, fmt, g)
    elif arg.role == "labels":
        x = torch.randint(2, shape, generator=g).double()
    elif arg.role == "signs":
        x = torch.randint(2, shape, generator=g).double() * 2 - 1
    elif arg.role == "queries":
        x = torch.randn(shape, generator=g, dtype=torch.float64)
        x = x if family == "benign" else 1.2 * fmt.exp_overflow**0.5 * x
    elif arg.role == "values":
        x = torch.randn(shape, generator=g, dtype=torch.float64)
    elif arg.role == "distribution":
        x = torch.rand(shape, generator=g, dtype=torch.float64) + 0.1
        x = x / x.sum(-1, keepdim=True)
    else:  # weights, temperature
        x = torch.rand(shape, generator=g, dtype=torch.float64) * 1.75 + 0.25
    return x.to(DTYPES[fmt.name])


def _mask(arg: Arg, family: str, g: torch.Generator) -> Tensor:
    m = torch.rand(arg.shape, generator=g) < 0.6
    rows = m.movedim(arg.axis, -1)
    rows[..., 0] |= ~rows.any(-1)
    if family == "dead":
        rows[(0,) * (rows.dim() - 1)] = False
    return m


def _logits(arg: Arg, family: str, fmt: Format, g: torch.Generator) -> Tensor:
    x = torch.randn(arg.shape, generator=g, dtype=torch.float64)
    uniform = torch.rand(arg.shape, generator=g, dtype=torch.float64) * 2 - 1
    over, under = fmt.exp_overflow, -fmt.exp_underflow
    if family == "large":
        x = _large(x, uniform, arg, over, under)
    elif family == "low":
        x = x - 1.5 * under
    elif family == "huge":
        x = uniform * 1e4
    elif family == "nan":
        x[(0,) * x.dim()] = torch.nan
    elif family in ("masked", "dead"):
        rows = x.movedim(arg.axis, -1)
        hole = uniform.movedim(arg.axis, -1) > 0.2
        hole[..., 0] = False
        rows[hole] = -torch.inf
        if family == "dead":
            rows[(0,) * (rows.dim() - 1)] = -torch.inf
    return x


def _large(x: Tensor, uniform: Tensor, arg: Arg, over: float, under: float) -> Tensor:
    """Rows in turn: ±2·ln(max); all above ln(max); sums that overflow though no term does; a gap below underflow."""
    rows = x.movedim(arg.axis, -1)
    spread = uniform.movedim(arg.axis, -1)
    flat = rows.reshape(-1, rows.shape[-1]).clone()
    kinds = spread.reshape(-1, rows.shape[-1])
    for i in range(flat.shape[0]):
        if i % 4 == 0:
            flat[i] = kinds[i] * 2 * over
        elif i % 4 == 1:
            flat[i] = 1.5 * over + flat[i]
        elif i % 4 == 2:
            flat[i] = over - 0.2 - 0.1 * kinds[i].abs()
        else:
            flat[i, 1:] = -1.4 * under - flat[i, 1:].abs()
    return flat.reshape(rows.shape).movedim(-1, arg.axis).contiguous()


def _real(shape: Shape, family: str, fmt: Format, g: torch.Generator) -> Tensor:
    x = torch.randn(shape, generator=g, dtype=torch.float64)
    uniform = torch.rand(shape, generator=g, dtype=torch.float64)
    sign = torch.where(x < 0, -1.0, 1.0).double()
    if family == "small":
        return sign * _tiny(uniform, fmt)
    if family == "tail":
        return sign * (0.3 + 1.3 * uniform) * -torch.log(torch.tensor(fmt.u, dtype=torch.float64))
    if family == "huge":
        return sign * (0.5 + 0.5 * uniform) * 1e4
    if family in ("large", "low"):
        near = torch.arange(x.numel()).reshape(shape) % 4 == 0
        return sign * (1.01 + torch.where(near, 0.1, 0.9) * uniform) * fmt.exp_overflow
    return x


def _data(shape: Shape, family: str, fmt: Format, g: torch.Generator) -> Tensor:
    """Spread 1 around a mean (offset: 1e4 in float32, 110 in float16), around 300, with squares beyond the format on
    either side (great, minute), and with a row of zeros."""
    x = torch.randn(shape, generator=g, dtype=torch.float64)
    if family == "offset":
        return x + 2.0 ** (fmt.precision / 2 + 1.3)
    if family in ("hundreds", "great", "minute"):
        scale = {"hundreds": 300.0, "great": 2 * fmt.max**0.5, "minute": 0.5 * fmt.tiny**0.5}
        return x.clamp(-3, 3) * scale[family]
    if family == "zero":
        x[0] = 0.0
    if family == "nan":
        x[(0,) * x.dim()] = torch.nan
    return x


def _probability(shape: Shape, family: str, fmt: Format, g: torch.Generator) -> Tensor:
    uniform = torch.rand(shape, generator=g, dtype=torch.float64)
    if family == "small":
        return _tiny(uniform, fmt)
    if family == "tail":
        return (1 - _tiny(uniform, fmt)).clamp(max=1 - fmt.u)
    return 0.05 + 0.9 * uniform


def _tiny(uniform: Tensor, fmt: Format) -> Tensor:
    """Log-uniform magnitudes from 10⁻² down to 10⁻¹² (10⁻⁴ in float16, whose normal numbers end at 6·10⁻⁵)."""
    decades = 2.0 if fmt.name == "float16" else 10.0
    return 10.0 ** (-2 - decades * uniform)

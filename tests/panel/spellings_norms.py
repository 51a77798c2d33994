"""Variances, norms, normalisations and float16 sums by hand, and masks beyond their format."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from tests.panel import oracle as O
from tests.panel.entry import Panel
from tests.panel.inputs import data, logits, mask, weights

PANEL = Panel()
X = (data(4, 7),)
XY = (data(4, 7), data(4, 7))
CENTRED = ("benign", "hundreds", "offset", "nan")
NORMED = ("benign", "hundreds", "great", "minute", "zero", "nan")
NARROW = ("benign", "hundreds", "nan")

#: Two passes: relative (n + 4)·u and (n·u·μ/σ)², which is 2 to 4 u where the naive form has lost everything.
variance = functools.partial(PANEL.add, "variance", rows="21", families=CENTRED, n=64)
norm = functools.partial(PANEL.add, "norm", rows="22", families=NORMED)
normalisation = functools.partial(PANEL.add, "normalisation", rows="21, 27", families=CENTRED, n=64)
accumulation = functools.partial(PANEL.add, "accumulation", rows="27", families=NARROW)
masks = functools.partial(PANEL.add, "mask", rows="28", families=("benign", "masked", "dead"))


def _mean(x: O.Array, axis: O.Axis = -1) -> O.Array:
    return O.mean(x, axis, keepdims=True)


def _centred(x: O.Array, axis: O.Axis = -1) -> O.Array:
    return x - _mean(x, axis)


def _var(x: O.Array, axis: O.Axis = -1, keepdims: bool = False) -> O.Array:
    return O.mean(_centred(x, axis) ** 2, axis, keepdims)


def _unit(x: O.Array, eps: float, axis: O.Axis = -1) -> O.Array:
    return O.divide(_centred(x, axis), O.sqrt(_var(x, axis, True) + O.const(eps)))


def _size(x: O.Array, eps: float = 1e-5, axis: O.Axis = -1) -> O.Array:
    """(|x| + |μ|)/σ: what the rounding of x − μ is relative to."""
    return O.divide(O.absolute(x) + O.absolute(_mean(x, axis)), O.sqrt(_var(x, axis, True) + O.const(eps)))


def _norm(x: O.Array, keepdims: bool = False) -> O.Array:
    return O.sqrt(O.total(x**2, -1, keepdims))


# --- variance ---------------------------------------------------------------------------------------------


@variance(X, _var)
def mean_of_squares(x: Tensor) -> Tensor:
    return x.pow(2).mean(-1) - x.mean(-1).pow(2)


@variance(X, _var)
def sums_over_n(x: Tensor) -> Tensor:
    n = x.shape[-1]
    return (x * x).sum(-1) / n - (x.sum(-1) / n) ** 2


@variance(X, lambda x: O.total(_centred(x) ** 2) / 6)
def bessel(x: Tensor) -> Tensor:
    n = x.shape[-1]
    return ((x * x).sum(-1) - x.sum(-1) ** 2 / n) / (n - 1)


@variance(X, lambda x: O.total(_centred(x) ** 2) / 6)
def bessel_by_the_mean(x: Tensor) -> Tensor:
    n = x.shape[-1]
    return (torch.square(x).sum(-1) - n * x.mean(-1) ** 2) / (n - 1)


@variance(X, _var)
def negated_first(x: Tensor) -> Tensor:
    return -(x.mean(-1) ** 2) + (x.abs() ** 2).mean(-1)


@variance(X, _var)
def clamped(x: Tensor) -> Tensor:
    return torch.clamp((x * x).mean(-1) - x.mean(-1) * x.mean(-1), min=0)


@variance(X, lambda x: O.sqrt(_var(x)))
def standard_deviation(x: Tensor) -> Tensor:
    return torch.sqrt((x * x).mean(-1) - x.mean(-1) ** 2)


@variance(X, lambda x: O.divide(O.array([1] * 4), O.sqrt(_var(x) + O.const(1e-5))))
def reciprocal_deviation(x: Tensor) -> Tensor:
    return torch.rsqrt((x * x).mean(-1) - x.mean(-1) ** 2 + 1e-5)


@variance(X, lambda x: _var(x, 0, True))
def over_rows(x: Tensor) -> Tensor:
    return (x * x).mean(0, keepdim=True) - x.mean(0, keepdim=True) ** 2


@variance((data(3, 4, 5),), lambda x: _var(x, (0, 2)))
def over_two_axes(x: Tensor) -> Tensor:
    return (x * x).mean((0, 2)) - x.mean((0, 2)) ** 2


@variance(XY, lambda x, y: O.mean(_centred(x) * _centred(y), -1),
          scale=lambda x, y: O.mean(O.absolute(_centred(x) * _centred(y)), -1) + O.sqrt(_var(x) * _var(y)))  # fmt: skip
def covariance(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).mean(-1) - x.mean(-1) * y.mean(-1)


def _weighted(w: O.Array, x: O.Array) -> O.Array:
    p = O.divide(w, O.total(w, -1, True))
    return O.total(p * (x - O.total(p * x, -1, True)) ** 2)


@variance((weights(4, 7), data(4, 7)), _weighted)
def weighted(w: Tensor, x: Tensor) -> Tensor:
    s = w.sum(-1)
    return (w * x * x).sum(-1) / s - ((w * x).sum(-1) / s) ** 2


@variance((weights(4, 7), data(4, 7)), lambda w, x: _weighted(O.exp(w), x))
def under_a_softmax(w: Tensor, x: Tensor) -> Tensor:
    p = torch.softmax(w, -1)
    return (p * x**2).sum(-1) - (p * x).sum(-1) ** 2


# --- norms ------------------------------------------------------------------------------------------------


@norm(X, _norm)
def root_of_sum(x: Tensor) -> Tensor:
    return torch.sqrt((x * x).sum(-1))


@norm(X, _norm)
def half_power(x: Tensor) -> Tensor:
    return x.pow(2).sum(-1) ** 0.5


@norm(X, _norm, loss=True, families=("benign", "zero"))
def trained(x: Tensor) -> Tensor:
    return x.pow(2).sum(-1).sqrt()


@norm(X, lambda x: O.sqrt(O.mean(x**2, -1)))
def root_mean_square(x: Tensor) -> Tensor:
    return x.square().mean(-1).sqrt()


@norm(X, lambda x: O.divide(x, _norm(x, True)))
def unit_vector(x: Tensor) -> Tensor:
    return x / x.pow(2).sum(-1, keepdim=True).sqrt()


@norm(X, lambda x: O.divide(x, _norm(x, True)))
def unit_vector_unsqueezed(x: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).sum(-1)).unsqueeze(-1)


@norm(X, lambda x: O.divide(x, _norm(x, True) + O.const(1e-4)), families=("benign", "hundreds", "great", "zero", "nan"))
def unit_plus_eps(x: Tensor) -> Tensor:
    return x / (x.pow(2).sum(-1, keepdim=True).sqrt() + 1e-4)


@norm(X, lambda x: O.divide(x, O.maximum(_norm(x, True), O.const(1e-4))),
      families=("benign", "hundreds", "great", "zero", "nan"))  # fmt: skip
def unit_clamped(x: Tensor) -> Tensor:
    return x / x.pow(2).sum(-1, keepdim=True).sqrt().clamp(min=1e-4)


@norm(X, lambda x: O.divide(x, O.sqrt(O.total(x**2, -1, True) + O.const(1e-3))), families=NARROW)
def unit_eps_inside(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-3)


def _cosine(x: O.Array, y: O.Array) -> O.Array:
    return O.divide(O.total(x * y), _norm(x) * _norm(y))


@norm(XY, _cosine, scale=lambda x, y: _cosine(O.absolute(x), O.absolute(y)))
def cosine(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(-1) / (x.pow(2).sum(-1).sqrt() * y.pow(2).sum(-1).sqrt())


@norm(XY, _cosine, scale=lambda x, y: _cosine(O.absolute(x), O.absolute(y)))
def cosine_of_norms(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1))


@norm(XY, _cosine, scale=lambda x, y: _cosine(O.absolute(x), O.absolute(y)))
def cosine_one_after_the_other(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(-1) / torch.linalg.vector_norm(x, dim=-1) / torch.linalg.vector_norm(y, dim=-1)


@norm(XY, lambda x, y: _norm(x - y), families=("benign", "hundreds", "zero"))
def distance(x: Tensor, y: Tensor) -> Tensor:
    return ((x - y) ** 2).sum(-1).sqrt()


# --- normalisations -----------------------------------------------------------------------------------------


@normalisation(X, lambda x: _unit(x, 1e-5), scale=_size)
def naive_layer_norm(x: Tensor) -> Tensor:
    m = x.mean(-1, keepdim=True)
    return (x - m) * torch.rsqrt((x * x).mean(-1, keepdim=True) - m * m + 1e-5)


@normalisation(X, lambda x: _unit(x, 1e-5), scale=_size)
def naive_layer_norm_clamped(x: Tensor) -> Tensor:
    m = x.mean(-1, keepdim=True)
    return (x - m) / torch.sqrt(torch.relu(x.pow(2).mean(-1, keepdim=True) - m**2) + 1e-5)


@normalisation((data(4, 7), weights(7), weights(7)), lambda x, w, b: _unit(x, 1e-5) * w + b,
               scale=lambda x, w, b: _size(x) * w + b)  # fmt: skip
def naive_layer_norm_affine(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    m = x.mean(-1, keepdim=True)
    return w * (x - m) / (x.pow(2).mean(-1, keepdim=True) - m**2 + 1e-5).sqrt() + b


@normalisation((data(2, 4, 6),), lambda x: _unit(x.reshape(2, 2, 12), 1e-5).reshape(2, 4, 6),
               scale=lambda x: _size(x.reshape(2, 2, 12)).reshape(2, 4, 6))  # fmt: skip
def naive_group_norm(x: Tensor) -> Tensor:
    g = x.reshape(2, 2, 12)
    m = g.mean(-1, keepdim=True)
    return ((g - m) / torch.sqrt((g * g).mean(-1, keepdim=True) - m**2 + 1e-5)).reshape(2, 4, 6)


@normalisation((data(2, 3, 3, 4),), lambda x: _unit(x, 1e-5, (2, 3)), scale=lambda x: _size(x, 1e-5, (2, 3)))
def naive_instance_norm(x: Tensor) -> Tensor:
    m = x.mean((2, 3), keepdim=True)
    return (x - m) / torch.sqrt((x * x).mean((2, 3), keepdim=True) - m**2 + 1e-5)


@normalisation((data(4, 3, 5),), lambda x: _unit(x, 1e-5, (0, 2)), scale=lambda x: _size(x, 1e-5, (0, 2)))
def naive_batch_norm(x: Tensor) -> Tensor:
    m = x.mean((0, 2), keepdim=True)
    return (x - m) * ((x * x).mean((0, 2), keepdim=True) - m**2 + 1e-5) ** -0.5


@normalisation((data(4, 7),), lambda x: _unit(x, 1e-5), scale=_size)
def two_pass_layer_norm(x: Tensor) -> Tensor:
    c = x - x.mean(-1, keepdim=True)
    return c / torch.sqrt(c.pow(2).mean(-1, keepdim=True) + 1e-5)


def _rms(x: O.Array) -> O.Array:
    return O.divide(x, O.sqrt(O.mean(x**2, -1, True) + O.const(1e-5)))


@normalisation((data(4, 7), weights(7)), lambda x, w: w * _rms(x), families=NARROW)
def rms_norm(x: Tensor, w: Tensor) -> Tensor:
    return w * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))


@normalisation((data(4, 7), weights(7)), lambda x, w: _rms(x) * w, families=NARROW)
def rms_norm_divided(x: Tensor, w: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5) * w


# --- accumulation in float16 ----------------------------------------------------------------------------------


@accumulation(X, lambda x: O.mean(x**2, -1) / 1000)
def scaled_mean_square(x: Tensor) -> Tensor:
    return x.pow(2).mean(-1) / 1000


@accumulation(XY, lambda x, y: O.mean((x - y) ** 2) / 512)
def mean_squared_error(x: Tensor, y: Tensor) -> Tensor:
    return ((x - y) ** 2).mean() / 512


@accumulation(XY, lambda x, y: O.total(x * y) / 64, scale=lambda x, y: O.total(O.absolute(x * y)) / 64)
def scaled_dot_product(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(-1) / 64


@accumulation(X, lambda x: O.log(O.mean(x**2, -1)), domain="log", families=("benign", "hundreds"))
def log_energy(x: Tensor) -> Tensor:
    return torch.log(x.pow(2).mean(-1))


@accumulation((data(2, 512),), lambda x: O.mean(O.absolute(x), -1), n=512)
def sum_over_n(x: Tensor) -> Tensor:
    return x.abs().sum(-1) / x.shape[-1]


# --- masks ------------------------------------------------------------------------------------------------


@masks((logits(4, 7), mask(4, 7)), lambda x, m: O.softmax(O.where(m, x, O.const(-1e9))))
def where_mask(x: Tensor, m: Tensor) -> Tensor:
    return torch.softmax(torch.where(m, x, -1e9), -1)


@masks((logits(4, 7), mask(4, 7)), lambda x, m: O.log_softmax(O.where(m, x, O.const(-1e6))), domain="log")
def where_mask_log(x: Tensor, m: Tensor) -> Tensor:
    return torch.log_softmax(torch.where(m, x, -1e6), -1)


@masks((logits(4, 7), mask(4, 7)), lambda x, m: O.softmax(O.masked(x, m)), families=("benign", "masked"))
def masked_afterwards(x: Tensor, m: Tensor) -> Tensor:
    p = torch.softmax(x, -1) * m
    return p / p.sum(-1, keepdim=True)

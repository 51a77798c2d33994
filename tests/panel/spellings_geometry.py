"""Geometry, special functions, guards and casts: differences of near-equal scalars, and what follows from them."""

from __future__ import annotations

import math
from functools import partial

import mpmath
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.panel import oracle as O
from tests.panel.entry import Panel
from tests.panel.inputs import SCALAR, data, mask, positive, probability, real, values, weights

PANEL = Panel()

Z = (real(12),)
A = (positive(12),)
P = (probability(12),)
D = (data(4, 6), data(4, 6))
ANGLES = ("benign", "small", "tail")
MOMENTS = ("benign", "offset", "hundreds")
roots = partial(PANEL.add, "roots", rows="STB221", n=1, families=SCALAR)
squares = partial(PANEL.add, "squares", rows="STB222", n=1, families=MOMENTS)
versine = partial(PANEL.add, "versine", rows="STB223", n=1, families=ANGLES)
# Φ is an exponential of −x²/2, and so is the slope that PyTorch takes of its own log_ndtr
log_cdf = partial(PANEL.add, "log_cdf", rows="STB224", n=1, families=SCALAR, exponents=lambda x: x * x / 2)
mills = partial(PANEL.add, "mills", rows="STB225", n=1, families=SCALAR)
quantile = partial(PANEL.add, "quantile", rows="STB226", n=1, families=SCALAR, exportable=False)
sinh = partial(PANEL.add, "sinh", rows="STB227", n=1, families=SCALAR)
interval = partial(PANEL.add, "interval", rows="STB228", domain="log", families=SCALAR, n=4)
half = partial(PANEL.add, "half", rows="STB218", n=1, families=SCALAR, loss=True, slope=0.25)
# in float64 the gradient of neighbours is lost beside 1, and a wrong number is not put in the place of NaN
angle = partial(PANEL.add, "angle", rows="STB411", domain="log", n=12, chain=2, families=("benign", "hundreds"),
                unrepaired=("float64",))  # fmt: skip
near_one = partial(PANEL.add, "near_one", rows="STB412", n=1, families=("benign", "small"))
by_log = partial(PANEL.add, "by_log", rows="STB413", n=1, families=SCALAR)
polar = partial(PANEL.add, "polar", rows="STB415", n=4, families=ANGLES)
guard = partial(PANEL.add, "guard", exact=False)
cast = partial(PANEL.add, "cast", rows="STB521", n=1, exact=False, families=("large",))

ndtri = O._elementwise(lambda p: mpmath.sqrt(2) * mpmath.erfinv(2 * p - 1))
cos = O._elementwise(mpmath.cos)
sin = O._elementwise(mpmath.sin)
acos = O._elementwise(lambda v: mpmath.acos(max(-1, min(1, v))))
acosh = O._elementwise(mpmath.acosh)
asinh = O._elementwise(mpmath.asinh)
atanh = O._elementwise(mpmath.atanh)
erfcx = O._elementwise(lambda v: mpmath.exp(v * v) * mpmath.erfc(v))


log_half_erfc = O._elementwise(
    lambda v: mpmath.log(mpmath.erfc(v) / 2) if v > 0 else mpmath.log1p(-mpmath.erfc(-v) / 2)
)


def log_ndtr(x: O.Array) -> O.Array:
    """ln Φ(x), √2 as the host keeps it."""
    return log_half_erfc(-x / O.const(math.sqrt(2)))


def at_most(largest: int, x: O.Array) -> O.Array:
    """⌊x⌋ in a type that ends at `largest`."""
    return -O.maximum(-O._elementwise(mpmath.floor)(x), mpmath.mpf(-largest))


# --- conjugate roots ----------------------------------------------------------------------------------------


@roots(A, lambda x: 1 / (O.sqrt(x + 1) + O.sqrt(x)))
def root_gap(x: Tensor) -> Tensor:
    return torch.sqrt(x + 1) - torch.sqrt(x)


@roots(Z, lambda x: x * x / (O.sqrt(1 + x * x) + 1), loss=True, slope=1.0)
def pseudo_huber(x: Tensor) -> Tensor:
    return torch.sqrt(1 + x**2) - 1


@roots(Z, lambda x: O.mean((x / 2) ** 2 * 4 / (O.sqrt(1 + (2 * x) ** 2) + 1)), loss=True, n=12, gain=2)
def charbonnier(x: Tensor) -> Tensor:
    return (0.25 * ((1 + (x / 0.5).square()).sqrt() - 1)).mean()


@roots((real(12), weights(12)), lambda b, c: (O.sqrt(b * b + 4 * c) - b) / 2)
def quadratic_formula(b: Tensor, c: Tensor) -> Tensor:
    return (-b + torch.sqrt(b * b + 4 * c)) / 2


@roots((real(12), weights(12)), lambda b, c: -2 * c / (b + O.sqrt(b * b + 4 * c)))
def other_root(b: Tensor, c: Tensor) -> Tensor:
    return (b - (b.pow(2) + 4.0 * c).sqrt()) * 0.5


@roots((real(12), values(12)), lambda x, y: O.sqrt(x * x + y * y) - x)
def hypotenuse_excess(x: Tensor, y: Tensor) -> Tensor:
    return torch.sqrt(x * x + y * y) - x


# --- a² − b² ------------------------------------------------------------------------------------------------


@squares(D, lambda a, b: (a - b) * (a + b))
def products(a: Tensor, b: Tensor) -> Tensor:
    return a * a - b * b


@squares(D, lambda a, b: (a - b) * (a + b))
def powers(a: Tensor, b: Tensor) -> Tensor:
    return a**2 - b.pow(2)


@squares(D, lambda a, b: (a - b) * (a + b))
def squared(a: Tensor, b: Tensor) -> Tensor:
    return torch.square(a) - torch.square(b)


@squares(P, lambda p: (1 - p) * (1 + p), families=("benign", "small", "tail"))
def one_minus_square(p: Tensor) -> Tensor:
    return 1 - p * p


@squares(P, lambda p: O.sqrt((1 - p) * (1 + p)), families=("benign", "small", "tail"))
def sine_from_cosine(p: Tensor) -> Tensor:
    return torch.sqrt(1 - p**2)


@squares(P, lambda p: -(1 - p) * (1 + p), families=("benign", "small", "tail"))
def square_minus_one(p: Tensor) -> Tensor:
    return p.square() - 1.0


# --- 1 − cos x ----------------------------------------------------------------------------------------------


@versine(Z, lambda x: 2 * sin(x / 2) ** 2, loss=True)
def one_minus_cosine(x: Tensor) -> Tensor:
    return 1 - torch.cos(x)


@versine(Z, lambda x: sin(x / 2) ** 2)
def half_versine(x: Tensor) -> Tensor:
    return (1.0 - x.cos()) / 2


@versine(Z, lambda x: -2 * sin(x / 2) ** 2)
def cosine_minus_one(x: Tensor) -> Tensor:
    return torch.cos(x) - 1


@versine(Z, lambda x: sin(x) ** 2)
def sine_squared(x: Tensor) -> Tensor:
    return 1 - torch.cos(x) ** 2


@versine((real(12), real(12)), lambda a, b: O.mean(2 * sin((a - b) / 2) ** 2), n=12, loss=True, slope=1 / 12)
def angular_loss(a: Tensor, b: Tensor) -> Tensor:
    return (1 - torch.cos(a - b)).mean()


# no small angles: in float16, 500 times what underflows is 0
@versine(Z, lambda x: 1000 * sin(x / 2) ** 2, chain=2, families=("benign", "tail"))
def von_mises(x: Tensor) -> Tensor:
    return 500 * (1 - torch.cos(x))


# --- tails of the normal distribution -----------------------------------------------------------------------


@log_cdf(Z, log_ndtr, loss=True, slope=1.0)
def log_of_cdf(x: Tensor) -> Tensor:
    return torch.log(0.5 * (1 + torch.erf(x / math.sqrt(2.0))))


@log_cdf(Z, log_ndtr)
def log_of_erfc(x: Tensor) -> Tensor:
    return (torch.erfc(-x / math.sqrt(2)) / 2).log()


@log_cdf(Z, lambda x: log_half_erfc(-x * O.const(math.sqrt(0.5))))
def log_of_ndtr(x: Tensor) -> Tensor:
    return torch.log(torch.special.ndtr(x))


@log_cdf(Z, log_ndtr)
def log_of_distribution(x: Tensor) -> Tensor:
    return torch.distributions.Normal(0.0, 1.0, validate_args=False).cdf(x).log()


@log_cdf(Z, lambda x: log_half_erfc(x * O.const(math.sqrt(0.5))))
def log_survival(x: Tensor) -> Tensor:
    return torch.log(1 - 0.5 * (1 + torch.erf(x * 0.7071067811865476)))


@log_cdf(Z, lambda x: -O.mean(log_ndtr(x)), n=12, loss=True, slope=1 / 12)
def probit_loss(x: Tensor) -> Tensor:
    return -torch.log((1 + torch.erf(x / 2**0.5)) / 2).mean()


@mills(Z, erfcx, families=("benign", "small", "tail"))
def scaled_erfc(x: Tensor) -> Tensor:
    return torch.exp(x * x) * torch.erfc(x)


@mills(A, erfcx)
def erfc_over_gaussian(x: Tensor) -> Tensor:
    return torch.erfc(x) / torch.exp(-(x**2))


@mills(A, lambda x: O.exp(-x * x / 2) / O.const(math.sqrt(2 * math.pi)) / (O.erfc(x / O.const(math.sqrt(2))) / 2),
       exponents=lambda x: x * x / 2)  # fmt: skip
def hazard(x: Tensor) -> Tensor:
    density = torch.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)
    return density / (0.5 * torch.erfc(x / math.sqrt(2)))


@quantile(P, ndtri, families=("benign", "small"))
def normal_quantile(p: Tensor) -> Tensor:
    return math.sqrt(2) * torch.erfinv(2 * p - 1)


@quantile(P, lambda p: ndtri(p) / mpmath.sqrt(2), families=("benign", "small"))
def method(p: Tensor) -> Tensor:
    return (p * 2).sub(1).erfinv()


@quantile(P, lambda p: -ndtri(p) / mpmath.sqrt(2), families=("benign", "small"))
def upper_tail(p: Tensor) -> Tensor:
    return torch.special.erfinv(1 - 2 * p)


# --- sinh, and differences of sigmoids ----------------------------------------------------------------------


@sinh(Z, lambda x: (O.exp(x) - O.exp(-x)) / 2)
def halved(x: Tensor) -> Tensor:
    return (torch.exp(x) - torch.exp(-x)) / 2


@sinh(Z, lambda x: O.exp(x) - O.exp(-x))
def plain(x: Tensor) -> Tensor:
    return x.exp() - (-x).exp()


@sinh(Z, lambda x: (O.exp(x) - O.exp(-x)) / 2)
def by_reciprocal(x: Tensor) -> Tensor:
    e = torch.exp(x)
    return 0.5 * (e - 1 / e)


def _bin(x: O.Array, h: float) -> O.Array:
    """ln(σ(x + h) − σ(x − h))."""
    return O.log_sigmoid(x + h) + O.log_sigmoid(h - x) + mpmath.log(-mpmath.expm1(mpmath.mpf(-2 * h)))


@interval(Z, lambda x: _bin(x, 0.5))
def bin_of_one(x: Tensor) -> Tensor:
    return torch.log(torch.sigmoid(x + 0.5) - torch.sigmoid(x - 0.5))


@interval(Z, lambda x: -O.mean(_bin(x, 0.0625)), n=16, loss=True, slope=1 / 12)
def discretised_logistic(x: Tensor) -> Tensor:
    upper, lower = torch.sigmoid(x + 1 / 16), torch.sigmoid(x - 1 / 16)
    return -(upper - lower).log().mean()


@interval(Z, lambda x: _bin(x, 0.25))
def naive_sigmoids(x: Tensor) -> Tensor:
    return torch.log(1 / (1 + torch.exp(-(x + 0.25))) - 1 / (1 + torch.exp(-(x - 0.25))))


@half(Z, lambda x: O.tanh(x / 2) / 2)
def sigmoid_minus_half(x: Tensor) -> Tensor:
    return torch.sigmoid(x) - 0.5


@half(Z, lambda x: -O.tanh(x / 2) / 2)
def half_minus_sigmoid(x: Tensor) -> Tensor:
    return 0.5 - 1 / (1 + torch.exp(-x))


@half(Z, lambda x: -O.tanh(x / 2), slope=0.5)
def one_minus_two_sigmoids(x: Tensor) -> Tensor:
    return 1 - 2 * x.sigmoid()


# --- angles and inverse functions ---------------------------------------------------------------------------


def _cosine(u: O.Array, v: O.Array) -> O.Array:
    return O.total(u * v) / O.sqrt(O.total(u * u) * O.total(v * v))


def _angle(u: O.Array, v: O.Array) -> O.Array:
    """That of nearly parallel vectors."""
    return acos(_cosine(u, u + v / 1024))


@angle(D, _angle)
def between_normalised(u: Tensor, v: Tensor) -> Tensor:
    w = u + v / 1024
    return torch.acos((F.normalize(u, dim=-1) * F.normalize(w, dim=-1)).sum(-1))


@angle(D, _angle)
def divided_by_norms(u: Tensor, v: Tensor) -> Tensor:
    w = u + v / 1024
    n = u / u.norm(dim=-1, keepdim=True)
    m = w / torch.linalg.vector_norm(w, dim=-1, keepdim=True)
    return torch.arccos(torch.sum(n * m, dim=-1))


@near_one(A, lambda t: acosh(1 + t), loss=True)
def arcosh_of_one_plus(t: Tensor) -> Tensor:
    return torch.acosh(1 + t)


@near_one(P, lambda t: acos(1 - t))
def arccos_of_one_minus(t: Tensor) -> Tensor:
    return torch.acos(1 - t)


@near_one(P, lambda t: atanh(1 - t))
def artanh_of_one_minus(t: Tensor) -> Tensor:
    return torch.atanh(1 - t)


# the bound is absolute: neighbours are rounded when they are formed. In 16 bits the rule has nothing to gain on them
@near_one((values(4, 6), values(4, 6)), lambda u, v: 2 * asinh(O.sqrt(_poincare(u, v))), n=12, families=("benign",),
          chain=2, domain="log")  # fmt: skip
def poincare_distance(u: Tensor, v: Tensor) -> Tensor:
    a, b = u / 16, u / 16 + v / 4096
    gap = (a - b).pow(2).sum(-1)
    return torch.acosh(1 + 2 * gap / ((1 - a.pow(2).sum(-1)) * (1 - b.pow(2).sum(-1))))


def _poincare(u: O.Array, v: O.Array) -> O.Array:
    a, b = u / 16, u / 16 + v / 4096
    return O.total((a - b) ** 2) / ((1 - O.total(a * a)) * (1 - O.total(b * b)))


@by_log(Z, asinh)
def arsinh(x: Tensor) -> Tensor:
    return torch.log(x + torch.sqrt(x * x + 1))


@by_log(Z, asinh)
def arsinh_of_powers(x: Tensor) -> Tensor:
    return ((1 + x**2).sqrt() + x).log()


@by_log((data(12),), lambda t: acosh(O.absolute(t) + 2), families=("benign", "great"))
def arcosh(t: Tensor) -> Tensor:
    x = t.abs() + 2
    return torch.log(x + torch.sqrt(x**2 - 1))


@by_log(P, atanh, families=("benign", "small", "tail"))
def artanh(p: Tensor) -> Tensor:
    return 0.5 * torch.log((1 + p) / (1 - p))


@polar((weights(12), real(12)), lambda r, t: (1 - r) ** 2 + 4 * r * sin(t / 2) ** 2)
def distance_from_one(r: Tensor, t: Tensor) -> Tensor:
    return 1 + r * r - 2 * r * torch.cos(t)


@polar((weights(12), weights(12), real(12)), lambda a, b, t: (a - b) ** 2 + 4 * a * b * sin(t / 2) ** 2)
def law_of_cosines(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    return a**2 + b**2 - 2 * a * b * torch.cos(t)


@polar((weights(12), weights(12), real(12)), lambda a, b, t: O.sqrt((a - b) ** 2 + 4 * a * b * sin(t / 2) ** 2))
def chord(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    return torch.sqrt(a.square() + b.square() - 2 * a * b * t.cos())


# --- 0/0, roots of 0, casts ---------------------------------------------------------------------------------


def _over(a: O.Array, b: O.Array) -> O.Array:
    return O.divide(a, O.where(b == 0, mpmath.mpf(1), b))


def _relu(x: O.Array) -> O.Array:
    return O.maximum(x, mpmath.mpf(0))


@guard((data(4, 6),), lambda x: _over(_relu(x), O.total(_relu(x), keepdims=True)), rows="STB431",
       families=("benign", "zero"))  # fmt: skip
def share_of_rectified(x: Tensor) -> Tensor:
    r = torch.relu(x)
    return r / r.sum(-1, keepdim=True)


@guard((values(4, 6), mask(4, 6)), lambda x, m: _over(O.total(O.where(m, x, mpmath.mpf(0))), m.sum(-1)), rows="STB431",
       families=("benign", "dead"), scale=lambda x, m: O.total(O.absolute(x)))  # fmt: skip
def masked_mean(x: Tensor, m: Tensor) -> Tensor:
    kept = m.to(x.dtype)
    return (x * kept).sum(-1) / kept.sum(-1)


@guard((positive(4, 6), mask(4, 6)), lambda x, m: O.where(m, O.sqrt(x), mpmath.mpf(0)), rows="STB432", n=1, loss=True,
       families=("benign", "dead"))  # fmt: skip
def root_of_masked(x: Tensor, m: Tensor) -> Tensor:
    return torch.sqrt(x * m.to(x.dtype))


# 1 to the last digit, and 128 or 256 then, which the type does not hold
@cast(Z, lambda x: at_most(127, 128 * O.sigmoid(x)))
def sigmoid_as_int8(x: Tensor) -> Tensor:
    return (torch.sigmoid(x) * 128).to(torch.int8)


@cast(Z, lambda x: at_most(127, 128 * O.tanh(O.absolute(x))))
def tanh_as_int8(x: Tensor) -> Tensor:
    return (torch.tanh(x.abs()) * 128).to(torch.int8)


@cast(Z, lambda x: at_most(255, 128 * (O.tanh(x) + 1)))
def tanh_as_uint8(x: Tensor) -> Tensor:
    return ((x.tanh() + 1) * 128).to(torch.uint8)

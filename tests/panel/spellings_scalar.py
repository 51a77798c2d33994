"""Elementwise functions that overflow or cancel (rows 7–18 of the rule catalogue) as users spell them."""

from __future__ import annotations

from functools import partial

import mpmath
import torch
from torch import Tensor

from tests.panel import oracle as O
from tests.panel.entry import Panel
from tests.panel.inputs import SCALAR, positive, probability, real, values

PANEL = Panel()

Z = (real(12),)
A = (positive(12),)
P = (probability(12),)
ACTIVATION = {"n": 1, "families": SCALAR, "loss": True, "slope": 1.0}
softplus = partial(PANEL.add, "softplus", rows="7", **ACTIVATION)
log_sigmoid = partial(PANEL.add, "log_sigmoid", rows="8", **ACTIVATION)
sigmoid = partial(PANEL.add, "sigmoid", rows="10", **ACTIVATION, flush=1.0)
tanh = partial(PANEL.add, "tanh", rows="10", n=1, families=SCALAR)
cancel = partial(PANEL.add, "cancellation", rows="12", n=1, families=SCALAR)
odds = partial(PANEL.add, "odds", rows="13", n=1, families=SCALAR)


# --- softplus ---------------------------------------------------------------------------------------------


@softplus(Z, O.softplus)
def log_one_plus_exp(x: Tensor) -> Tensor:
    return torch.log(1 + torch.exp(x))


@softplus(Z, O.softplus)
def methods(x: Tensor) -> Tensor:
    return (x.exp() + 1.0).log()


@softplus(Z, O.softplus)
def log1p_of_exp(x: Tensor) -> Tensor:
    return torch.log1p(x.exp())


@softplus(Z, lambda x: O.softplus(2 * x) / 2, gain=2)
def with_beta(x: Tensor) -> Tensor:
    return torch.log(1 + torch.exp(2.0 * x)) / 2.0


@softplus(Z, lambda x: O.softplus(-x))
def of_negative(x: Tensor) -> Tensor:
    return torch.log(1 + torch.exp(-x))


@softplus(Z, O.softplus)
def through_sigmoid(x: Tensor) -> Tensor:
    return -torch.log(torch.sigmoid(-x))


@softplus(Z, lambda x: O.softplus(-O.absolute(x)))
def of_minus_abs(x: Tensor) -> Tensor:
    return torch.log(1 + torch.exp(-torch.abs(x)))


@softplus(Z, O.softplus)
def relu_plus_log(x: Tensor) -> Tensor:
    return torch.relu(x) + torch.log(1 + torch.exp(-x.abs()))


@softplus((real(12), real(12)), lambda a, b: O.softplus(a - b))
def of_difference(a: Tensor, b: Tensor) -> Tensor:
    return torch.log(1 + torch.exp(a) / torch.exp(b))


@softplus(Z, lambda x: O.softplus(2 * x) - x - mpmath.log(2), families=("benign", "large"), domain="log", gain=2)
def log_cosh(x: Tensor) -> Tensor:
    return torch.log((torch.exp(x) + torch.exp(-x)) / 2)


# --- log-sigmoid ------------------------------------------------------------------------------------------


@log_sigmoid(Z, O.log_sigmoid)
def log_of_sigmoid(x: Tensor) -> Tensor:
    return torch.log(torch.sigmoid(x))


@log_sigmoid(Z, O.log_sigmoid)
def log_of_naive_sigmoid(x: Tensor) -> Tensor:
    return torch.log(1 / (1 + torch.exp(-x)))


@log_sigmoid(Z, O.log_sigmoid)
def minus_log(x: Tensor) -> Tensor:
    return -torch.log(1 + torch.exp(-x))


@log_sigmoid(Z, O.log_sigmoid)
def log_of_exp_quotient(x: Tensor) -> Tensor:
    return (x.exp() / (1 + x.exp())).log()


@log_sigmoid(Z, O.log_sigmoid)
def x_minus_softplus(x: Tensor) -> Tensor:
    return x - torch.log(1 + x.exp())


@log_sigmoid(Z, lambda x: O.log_sigmoid(-x))
def log_of_complement(x: Tensor) -> Tensor:
    return torch.log(1 - torch.sigmoid(x))


@log_sigmoid(Z, lambda x: O.log_sigmoid(-x))
def log_of_naive_complement(x: Tensor) -> Tensor:
    return torch.log(1 - 1 / (1 + torch.exp(-x)))


# --- sigmoid and what is built from it ---------------------------------------------------------------------


@sigmoid(Z, O.sigmoid)
def one_over_one_plus_exp(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


@sigmoid(Z, O.sigmoid)
def exp_over_one_plus_exp(x: Tensor) -> Tensor:
    return torch.exp(x) / (1 + torch.exp(x))


@sigmoid(Z, O.sigmoid)
def exp_over_exp_plus_one(x: Tensor) -> Tensor:
    e = x.exp()
    return e.div(e.add(1))


@sigmoid(Z, O.sigmoid)
def reciprocal(x: Tensor) -> Tensor:
    return (1 + (-x).exp()).reciprocal()


@sigmoid(Z, O.sigmoid)
def power_minus_one(x: Tensor) -> Tensor:
    return torch.pow(1 + torch.exp(-x), -1)


@sigmoid(Z, lambda x: O.sigmoid(-x), rows="11")
def complement(x: Tensor) -> Tensor:
    return 1 - torch.sigmoid(x)


@sigmoid(Z, lambda x: O.sigmoid(-x), rows="11")
def naive_complement(x: Tensor) -> Tensor:
    return 1 - 1 / (1 + torch.exp(-x))


@sigmoid(Z, lambda x: O.sigmoid(-x))
def exp_minus_over_one_plus(x: Tensor) -> Tensor:
    return torch.exp(-x) / (1 + torch.exp(-x))


@sigmoid(Z, lambda x: O.sigmoid(x) * O.sigmoid(-x), chain=2, rows="11")
def derivative(x: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    return s * (1 - s)


@sigmoid(Z, lambda x: O.sigmoid(2 * x - 1), gain=2)
def affine_argument(x: Tensor) -> Tensor:
    return 1.0 / (1.0 + torch.exp(1.0 - 2.0 * x))


@sigmoid(Z, lambda x: x * O.sigmoid(x), flush=100)
def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


@sigmoid(Z, lambda x: x * O.sigmoid(x), flush=100)
def silu_of_quotient(x: Tensor) -> Tensor:
    return x * (torch.exp(x) / (torch.exp(x) + 1))


@sigmoid(Z, lambda x: x * O.sigmoid(O.const(1.702) * x), gain=2, flush=100)
def swish(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-1.702 * x))


@sigmoid((values(12), real(12)), lambda a, b: a * O.sigmoid(b))
def gated_linear_unit(a: Tensor, b: Tensor) -> Tensor:
    return a * (b.exp() / (1 + b.exp()))


@sigmoid(Z, lambda x: x * O.tanh(O.softplus(x)), rows="16", flush=100)
def mish(x: Tensor) -> Tensor:
    return x * torch.tanh(torch.log(1 + torch.exp(x)))


# --- tanh -------------------------------------------------------------------------------------------------


def log_sech_squared(x: O.Array) -> O.Array:
    """ln(1 − tanh²x) = ln 4 + ln σ(2x) + ln σ(−2x)."""
    return O.log_sigmoid(2 * x) + O.log_sigmoid(-2 * x) + mpmath.log(4)


@tanh(Z, O.tanh)
def exps(x: Tensor) -> Tensor:
    return (torch.exp(x) - torch.exp(-x)) / (torch.exp(x) + torch.exp(-x))


@tanh(Z, O.tanh, gain=2)
def exp_of_double(x: Tensor) -> Tensor:
    e = torch.exp(2 * x)
    return (e - 1) / (e + 1)


@tanh(Z, O.tanh, gain=2)
def one_minus(x: Tensor) -> Tensor:
    return 1 - 2 / (torch.exp(2 * x) + 1)


@tanh(Z, O.tanh, gain=2)
def exp_of_minus_double(x: Tensor) -> Tensor:
    e = (-2 * x).exp()
    return (1 - e) / (1 + e)


@tanh(Z, log_sech_squared, rows="14", domain="log", gain=2)
def log_one_minus_square(x: Tensor) -> Tensor:
    return torch.log(1 - torch.tanh(x) ** 2)


@tanh(Z, log_sech_squared, rows="14", domain="log", gain=2)
def squashed_gaussian_correction(u: Tensor) -> Tensor:
    return torch.log(1 - u.tanh().pow(2))


@tanh(Z, lambda x: O.log_plus(log_sech_squared(x), O.const(1e-6)), rows="14",
      domain="log", gain=2, families=("benign", "tail", "large"))  # fmt: skip
def squashed_gaussian_correction_eps(u: Tensor) -> Tensor:
    return torch.log(1 - torch.tanh(u) ** 2 + 1e-6)


# --- log1p, expm1 and their relatives -----------------------------------------------------------------------


@cancel(A, O.log1p)
def log_one_plus(x: Tensor) -> Tensor:
    return torch.log(1 + x)


@cancel(A, O.log1p)
def log_plus_one(x: Tensor) -> Tensor:
    return (x + 1.0).log()


@cancel(P, lambda p: O.log1p(-p), rows="11")
def log_one_minus(p: Tensor) -> Tensor:
    return torch.log(1 - p)


@cancel(P, lambda p: O.log1p(p) - O.log1p(-p))
def atanh_by_logs(p: Tensor) -> Tensor:
    return torch.log(1 + p) - torch.log(1 - p)


@cancel(Z, O.expm1)
def exp_minus_one(x: Tensor) -> Tensor:
    return torch.exp(x) - 1


@cancel(Z, O.expm1)
def exp_sub_one(x: Tensor) -> Tensor:
    return x.exp().sub(1.0)


@cancel(Z, lambda x: -O.expm1(-x), rows="11")
def one_minus_exp(x: Tensor) -> Tensor:
    return 1 - torch.exp(-x)


@cancel(Z, lambda x: O.expm1(x) / x)
def relative_increment(h: Tensor) -> Tensor:
    return (torch.exp(h) - 1) / h


@cancel(A, O.log1mexp, rows="11")
def log_one_minus_exp(a: Tensor) -> Tensor:
    return torch.log(1 - torch.exp(-a))


@cancel(A, lambda a: a + O.log1mexp(a), rows="11", domain="log")
def inverse_softplus(y: Tensor) -> Tensor:
    return torch.log(torch.exp(y) - 1)


@cancel(A, lambda a: a + O.log1mexp(a), rows="11", domain="log")
def inverse_softplus_expm1(y: Tensor) -> Tensor:
    return torch.log(torch.expm1(y))


@cancel(P, lambda p: -O.expm1(10 * O.log1p(-p)), rows="15", gain=10)
def at_least_one_of_ten(p: Tensor) -> Tensor:
    return 1 - (1 - p) ** 10


@cancel(P, lambda p: -O.expm1(O.const(0.7) * O.log(p)) / O.const(0.7), rows="15")
def generalized_loss_of_probability(p: Tensor) -> Tensor:
    return (1 - p**0.7) / 0.7


@cancel(Z, lambda x: -O.exp(-x), rows="18")
def log_of_gumbel_cdf(x: Tensor) -> Tensor:
    return torch.log(torch.exp(-torch.exp(-x)))


@cancel(A, lambda r: -O.expm1(-r) / r, rows="12")
def exponential_integrator(r: Tensor) -> Tensor:
    return (1 - torch.exp(-r)) / r


# --- odds -------------------------------------------------------------------------------------------------


@odds(Z, O.exp)
def of_sigmoid(z: Tensor) -> Tensor:
    p = torch.sigmoid(z)
    return p / (1 - p)


@odds(Z, lambda z: z)
def log_odds(z: Tensor) -> Tensor:
    p = torch.sigmoid(z)
    return torch.log(p / (1 - p))


@odds(Z, lambda z: z)
def log_odds_split(z: Tensor) -> Tensor:
    p = 1 / (1 + torch.exp(-z))
    return torch.log(p) - torch.log(1 - p)


# --- what the stability rewrites of PyTensor know besides -----------------------------------------------------


@sigmoid(Z, lambda x: O.sigmoid(-x), flush=1)
def times_exp_of_minus(x: Tensor) -> Tensor:
    return torch.sigmoid(x) * torch.exp(-x)


@log_sigmoid(Z, lambda x: O.log_sigmoid(-x))
def log1p_of_minus_sigmoid(x: Tensor) -> Tensor:
    return torch.log1p(-torch.sigmoid(x))


@cancel(A, O.log1mexp, rows="11")
def log1p_of_minus_exp(a: Tensor) -> Tensor:
    return torch.log1p(-torch.exp(-a))


@cancel(A, O.erfc, rows="34", exponents=lambda x: x * x)
def one_minus_erf(x: Tensor) -> Tensor:
    return 1 - torch.erf(x)


@cancel(A, O.erf, rows="34", exponents=lambda x: O.maximum(0 * x, 1))
def one_minus_erfc(x: Tensor) -> Tensor:
    return 1 - torch.erfc(x)

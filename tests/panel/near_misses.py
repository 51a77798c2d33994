"""Near misses: formulas one edit away from a spelling, which must not become its fused form.

demand "clean":      already stable; must come back bit for bit with no finding at all.
demand "untouched":  nothing to repair; must come back bit for bit (findings are allowed: a bug pattern is reported).
demand "preserved":  may be rewritten, but values and gradients stay those of the formula as written wherever the
                     original was right, special rows included.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.panel.inputs import labels, logits, mask, positive, real, target, values, weights
from tests.panel.near_miss import SPECIAL, NearMisses

FORMS = NearMisses()
near = FORMS.near
X = (logits(5, 5),)
XX = (logits(5, 5), logits(5, 5))
R = (real(5, 5),)


# --- shapes and axes --------------------------------------------------------------------------------------


@near("preserved", X, "on a square matrix the row sums without keepdim divide the columns", rows=SPECIAL)
def square_wrong_axis(x: Tensor) -> Tensor:
    e = x.exp()
    return e / e.sum(1)


@near("preserved", X, "row sums laid out as a row")
def square_unsqueezed_wrongly(x: Tensor) -> Tensor:
    e = x.exp()
    return e / e.sum(-1).unsqueeze(0)


@near("preserved", X, "the log-sum-exp of columns subtracted from rows", domain="log")
def log_of_other_axis(x: Tensor) -> Tensor:
    return x - torch.log(x.exp().sum(0)).unsqueeze(1)


@near("preserved", X, "the sum of another row")
def rolled_sum(x: Tensor) -> Tensor:
    e = x.exp()
    return e / e.sum(-1, keepdim=True).flip(0)


@near("preserved", X, "the sum of some of the terms")
def sum_of_slice(x: Tensor) -> Tensor:
    e = x.exp()
    return e / e[:, :3].sum(-1, keepdim=True)


@near("preserved", X, "transposed before the division")
def transposed_numerator(x: Tensor) -> Tensor:
    e = x.exp()
    return e.T / e.sum(-1, keepdim=True)


@near("preserved", (logits(4, 1),), "an axis of size 1: the softmax is 1", families=("benign", "large"))
def size_one_axis(x: Tensor) -> Tensor:
    e = x.exp()
    return e / e.sum(-1, keepdim=True)


@near("preserved", (logits(4, 0),), "an empty axis", families=("benign",))
def empty_axis(x: Tensor) -> Tensor:
    e = x.exp()
    return e / e.sum(-1, keepdim=True)


@near("preserved", X, "probabilities picked at [y, row] instead of [row, y]", domain="log", families=("benign",))
def index_transposed(x: Tensor) -> Tensor:
    y = torch.tensor([1, 0, 3, 4, 2])
    p = torch.softmax(x, dim=-1)
    return -torch.log(p[y, torch.arange(5)]).mean()


# --- the wrong operand ------------------------------------------------------------------------------------


@near("preserved", XX, "the sum is that of another exponential")
def sum_of_another(x: Tensor, z: Tensor) -> Tensor:
    return x.exp() / z.exp().sum(-1, keepdim=True)


@near("untouched", X, "the sum of the logits, not of their exponentials", families=("benign",))
def sum_of_logits(x: Tensor) -> Tensor:
    return x.exp() / x.sum(-1, keepdim=True)


@near("preserved", X, "numerator and denominator have different temperatures")
def two_temperatures(x: Tensor) -> Tensor:
    return torch.exp(x / 2) / torch.exp(x / 4).sum(-1, keepdim=True)


@near("preserved", (logits(5, 5), values(5, 5)), "weights in the numerator only, of both signs", families=("benign",))
def signed_weights(x: Tensor, w: Tensor) -> Tensor:
    e = x.exp()
    return (e * w) / (e * w * w).sum(-1, keepdim=True)


@near("preserved", R, "1/(2 + e⁻ˣ) is not a sigmoid", families=("benign", "tail", "large"), rows=SPECIAL)
def two_instead_of_one(x: Tensor) -> Tensor:
    return 1 / (2 + torch.exp(-x))


@near("preserved", R, "eˣ/(1 + e²ˣ)", families=("benign", "tail"))
def double_in_denominator(x: Tensor) -> Tensor:
    return torch.exp(x) / (1 + torch.exp(2 * x))


@near("preserved", (real(5, 5), real(5, 5)), "tanh with another variable in one place", families=("benign",))
def tanh_of_two(x: Tensor, z: Tensor) -> Tensor:
    return (x.exp() - (-x).exp()) / (x.exp() + (-z).exp())


@near("untouched", R, "eˣ − 1.0001 is not expm1", families=("benign", "small"))
def almost_expm1(x: Tensor) -> Tensor:
    return torch.exp(x) - 1.001


@near("untouched", (positive(5, 5),), "ln(1.001 + x) is not log1p", families=("benign", "small"), domain="log")
def almost_log1p(x: Tensor) -> Tensor:
    return torch.log(1.001 + x)


@near("untouched", R, "1 − tanh is not 1 − tanh²", families=("benign",))
def one_minus_tanh(x: Tensor) -> Tensor:
    return torch.log(1.5 - torch.tanh(x) ** 2)


@near("preserved", (real(8), labels(8)), "the same label on both logs", families=("benign", "tail"), domain="log")
def same_label_twice(x: Tensor, y: Tensor) -> Tensor:
    p = torch.sigmoid(x)
    return -(y * torch.log(p) + y * torch.log(1 - p)).mean()


@near("preserved", X, "log q − log p: minus the divergence", families=("benign",), domain="log")
def reversed_divergence(x: Tensor) -> Tensor:
    p = torch.softmax(x, -1)
    q = torch.softmax(2 * x, -1)
    return (p * (torch.log(q) - torch.log(p))).sum(-1)


# --- guards -----------------------------------------------------------------------------------------------


@near("preserved", X, "an eps that decides the value: the row sums are near it", families=("benign",),
      rows=((-18.0, -19.0, -20.0, -17.5, -30.0), (-14.0, -40.0, -22.0, -18.0, -19.0)))  # fmt: skip
def eps_that_matters(x: Tensor) -> Tensor:
    e = x.exp()
    return e / (e.sum(-1, keepdim=True) + 1e-6)


@near("untouched", (positive(5, 5),), "log(x + eps) of a positive input", families=("benign", "small"), domain="log")
def log_with_eps(x: Tensor) -> Tensor:
    return torch.log(x + 1e-6)


@near("preserved", X, "log(softmax(x) + eps) is finite and exact as it is", families=("benign",), domain="log")
def log_softmax_with_large_eps(x: Tensor) -> Tensor:
    return torch.log(F.softmax(x, dim=-1) + 0.5)


@near("preserved", X, "below the clamp the gradient is zero", domain="log", families=("benign",),
      rows=((0.0, 9.0, -9.0, 1.0, 5.0), (0.0, 0.0, -12.0, -12.0, 3.0)))  # fmt: skip
def clamp_stops_gradient(x: Tensor) -> Tensor:
    return torch.log(torch.softmax(x, -1).clamp(min=1e-2))


@near("preserved", (logits(5, 5), mask(5, 5)), "an all-masked row with an eps is 0, not NaN",
      families=("benign", "dead", "masked"))  # fmt: skip
def dead_row_with_eps(x: Tensor, m: Tensor) -> Tensor:
    e = x.exp() * m.to(x.dtype)
    return e / (e.sum(-1, keepdim=True) + 1e-4)


@near("preserved", (logits(5, 5), mask(5, 5)), "an all-masked row without an eps is NaN",
      families=("benign", "dead", "masked"))  # fmt: skip
def dead_row_without_eps(x: Tensor, m: Tensor) -> Tensor:
    e = torch.where(m, x.exp(), 0.0)
    return e / e.sum(-1, keepdim=True)


@near("preserved", X, "the maximum is masked: only what is left may be the shift", families=("benign",),
      rows=((80.0, -30.0, -30.0, -31.0, -32.0), (11.0, -5.0, -5.5, -6.0, -7.0)))  # fmt: skip
def masked_maximum(x: Tensor) -> Tensor:
    keep = torch.tensor([False, True, True, True, True])
    e = torch.where(keep, x, float("-inf")).exp()
    return e / e.sum(-1, keepdim=True)


@near("preserved", (logits(5, 5), mask(5, 5)), "softmax over all, then masked: the mass is not redistributed",
      families=("benign", "masked"))  # fmt: skip
def masked_after_normalizing(x: Tensor, m: Tensor) -> Tensor:
    e = x.exp()
    return e / e.sum(-1, keepdim=True) * m.to(x.dtype)


# --- signs and domains ------------------------------------------------------------------------------------


@near("preserved", XX, "the logarithm of a negative difference stays NaN", domain="log", families=("benign",))
def log_of_difference(a: Tensor, b: Tensor) -> Tensor:
    return torch.log(a.exp() - b.exp())


@near("preserved", X, "ln(1 − eˣ) is NaN for positive x", domain="log", families=("benign",), rows=SPECIAL)
def log_one_minus_exp(x: Tensor) -> Tensor:
    return torch.log(1 - torch.exp(x))


@near("preserved", R, "ln(1 − x) is −∞ at 1 and NaN beyond", domain="log", families=("benign",),
      rows=((1.0, 0.5, 2.0, 0.999, -3.0),))  # fmt: skip
def log_one_minus_beyond_one(x: Tensor) -> Tensor:
    return torch.log(1 - x)


@near("preserved", R, "ln(1 + x) is NaN below −1", domain="log", families=("benign",),
      rows=((-1.0, -2.0, 0.5, 1e-3, 3.0),))  # fmt: skip
def log_one_plus_below_minus_one(x: Tensor) -> Tensor:
    return torch.log(1 + x)


@near("preserved", R, "ln x² is not 2·ln x for negative x", domain="log", families=("benign",))
def log_of_square(x: Tensor) -> Tensor:
    return torch.log(x**2)


@near("preserved", R, "√x² is |x|, not x", families=("benign",))
def root_of_square(x: Tensor) -> Tensor:
    return torch.sqrt(x**2)


@near("preserved", R, "a product of two negatives under a log", domain="log", families=("benign",))
def log_of_product_of_negatives(x: Tensor) -> Tensor:
    return torch.log(x * -x.abs())


@near("preserved", R, "powers of negative numbers over their sum", families=("benign",))
def power_softmax(x: Tensor) -> Tensor:
    return x**4 / (x**4).sum(-1, keepdim=True)


@near("preserved", (weights(5, 5), real(5, 5)), "a tensor base", families=("benign",))
def tensor_base(a: Tensor, x: Tensor) -> Tensor:
    e = torch.pow(a, x)
    return e / e.sum(-1, keepdim=True)


@near("untouched", (real(5, 5),), "x ln x of raw numbers: 0·−∞ is the user's", families=("benign",),
      rows=((0.0, 1.0, 0.5, 2.0, 3.0),), domain="log")  # fmt: skip
def x_log_x(x: Tensor) -> Tensor:
    return (x * torch.log(x)).sum(-1)


# --- integers and other things that only look alike ---------------------------------------------------------


@near("untouched", (target(5, 5, classes=9),), "integer powers are exact", families=("benign",))
def integer_power(n: Tensor) -> Tensor:
    return 2**n


@near("untouched", (target(5, 5, classes=9),), "integer division of integers", families=("benign",))
def integer_share(n: Tensor) -> Tensor:
    return n // (n.sum(-1, keepdim=True) + 1)


@near("untouched", R, "the L1 norm", families=("benign",))
def l1_share(x: Tensor) -> Tensor:
    return x / x.abs().sum(-1, keepdim=True)


@near("untouched", (positive(5, 5),), "a share of positive numbers", families=("benign",))
def plain_share(x: Tensor) -> Tensor:
    return x / x.sum(-1, keepdim=True)


@near("untouched", X, "(x − mean)/std, with nothing exponential", families=("benign",), in_float16="preserved")
def standardized(x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()


@near("preserved", X, "softmax-one with the 1 left unshifted: reported, never silently repaired")
def softmax_one_shifted_wrongly(x: Tensor) -> Tensor:
    e = torch.exp(x - x.amax(-1, keepdim=True))
    return e / (1 + e.sum(-1, keepdim=True))


# --- gradients and effects ----------------------------------------------------------------------------------


@near("preserved", X, "a detached denominator: the gradient is not that of softmax", families=("benign",))
def detached_denominator(x: Tensor) -> Tensor:
    e = x.exp()
    return e / e.sum(-1, keepdim=True).detach()


@near("preserved", X, "a detached target distribution", families=("benign",), domain="log")
def detached_weights(x: Tensor) -> Tensor:
    p = torch.softmax(x, -1)
    return -(p.detach() * torch.log(p)).sum(-1)


@near("preserved", (logits(5, 5), real(5, 5)), "no gradient through the weights", families=("benign",))
def no_grad_weights(x: Tensor, v: Tensor) -> Tensor:
    with torch.no_grad():
        e = x.exp()
        p = e / e.sum(-1, keepdim=True)
    return (p * v).sum(-1)


@near("preserved", X, "the exponentials are an output too: inf stays inf")
def exponentials_used_elsewhere(x: Tensor) -> tuple[Tensor, Tensor]:
    e = x.exp()
    return e / e.sum(-1, keepdim=True), e


@near("preserved", X, "the sum is an output too")
def sum_used_elsewhere(x: Tensor) -> tuple[Tensor, Tensor]:
    s = x.exp().sum(-1)
    return torch.log(s), s


@near("preserved", X, "an alias sees the division in place", families=("benign",), differentiable=False)
def aliased(x: Tensor) -> Tensor:
    e = x.exp()
    alias = e.view(-1)
    e /= e.sum(-1, keepdim=True)
    return alias


@near("preserved", X, "divided in place after another use", families=("benign",), differentiable=False)
def used_before_inplace(x: Tensor) -> tuple[Tensor, Tensor]:
    e = x.exp()
    doubled = e * 2
    e /= e.sum(-1, keepdim=True)
    return doubled, e

"""Log-softmax and log-sum-exp (rows 2, 3 and 31–33 of the rule catalogue) as users spell them."""

from __future__ import annotations

import math
from functools import partial

import mpmath
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.panel import oracle as O
from tests.panel.entry import Panel
from tests.panel.inputs import UNMASKED, logits, mask, values, weights

PANEL = Panel()

X = (logits(4, 7),)
AB = (logits(4, 7), logits(4, 7))
log_softmax = partial(PANEL.add, "log_softmax", rows="2", domain="log")
lse = partial(PANEL.add, "logsumexp", rows="3", domain="log")

# --- log-softmax ------------------------------------------------------------------------------------------


@log_softmax(X, O.log_softmax)
def log_of_quotient(x: Tensor) -> Tensor:
    e = x.exp()
    return torch.log(e / e.sum(-1, keepdim=True))


@log_softmax(X, O.log_softmax)
def log_of_softmax(x: Tensor) -> Tensor:
    return torch.log(F.softmax(x, dim=-1))


@log_softmax(X, O.log_softmax)
def log_method_of_softmax(x: Tensor) -> Tensor:
    return x.softmax(dim=1).log()


@log_softmax(X, O.log_softmax)
def log_difference(x: Tensor) -> Tensor:
    e = x.exp()
    return e.log() - e.sum(-1, keepdim=True).log()


@log_softmax(X, O.log_softmax)
def minus_log_sum(x: Tensor) -> Tensor:
    return x - torch.log(torch.sum(torch.exp(x), dim=-1, keepdim=True))


@log_softmax(X, O.log_softmax)
def minus_log_of_inverse(x: Tensor) -> Tensor:
    e = x.exp()
    return -torch.log(e.sum(-1, keepdim=True) / e)


@log_softmax(X, O.log_softmax)
def log_of_reciprocal_product(x: Tensor) -> Tensor:
    e = x.exp()
    return (e * e.sum(-1, keepdim=True).reciprocal()).log()


@log_softmax((logits(5, 6, axis=0),), partial(O.log_softmax, axis=0))
def along_axis_zero(x: Tensor) -> Tensor:
    e = torch.exp(x)
    return torch.log(e / torch.sum(e, 0))


@log_softmax((logits(2, 5, 3, axis=1),), partial(O.log_softmax, axis=1))
def along_middle_axis(x: Tensor) -> Tensor:
    e = x.exp()
    return (e / e.sum(1).unsqueeze(1)).log()


@log_softmax(X, lambda x: O.log_softmax(x / O.const(0.1)), gain=10, chain=2)
def tempered(x: Tensor) -> Tensor:
    e = torch.exp(x / 0.1)
    return torch.log(e / e.sum(-1, keepdim=True))


@log_softmax(X, lambda x: O.log_softmax(-x), families=UNMASKED)
def of_negative(x: Tensor) -> Tensor:
    e = torch.exp(-x)
    return torch.log(e / e.sum(-1, keepdim=True))


@log_softmax(X, O.log_softmax, families=UNMASKED)
def shifted_by_mean(x: Tensor) -> Tensor:
    z = x - x.mean(-1, keepdim=True)
    return z - z.exp().sum(-1, keepdim=True).log()


@log_softmax(X, lambda x: O.log_softmax(x) / O.const(math.log(2)), gain=2)
def in_bits(x: Tensor) -> Tensor:
    e = x.exp()
    return torch.log(e / e.sum(-1, keepdim=True)) / math.log(2)


@log_softmax(X, lambda x: O.log_softmax(x) / mpmath.log(2), gain=2)
def log2_of_softmax(x: Tensor) -> Tensor:
    return torch.log2(torch.softmax(x, -1))


@log_softmax(X, lambda x: 2 * O.log_softmax(x), gain=2)
def log_of_square(x: Tensor) -> Tensor:
    e = x.exp()
    return torch.log((e / e.sum(-1, keepdim=True)) ** 2)


@log_softmax(X, lambda x: O.log_softmax(x) / 2)
def log_of_root(x: Tensor) -> Tensor:
    e = x.exp()
    return torch.log(torch.sqrt(e / e.sum(-1, keepdim=True)))


@log_softmax((logits(4, 7), mask(4, 7)), lambda x, m: O.log_softmax(O.masked(x, m)))
def log_of_masked(x: Tensor, m: Tensor) -> Tensor:
    e = x.exp() * m.to(x.dtype)
    return torch.log(e / e.sum(-1, keepdim=True))


@log_softmax(X, lambda x: O.log_plus(O.log_softmax(x), O.const(1e-9)))
def eps_in_log(x: Tensor) -> Tensor:
    e = x.exp()
    return torch.log(e / e.sum(-1, keepdim=True) + 1e-9)


@log_softmax(X, lambda x: O.maximum(O.log_softmax(x), O.log(np.asarray(O.const(1e-6)))))
def clamped(x: Tensor) -> Tensor:
    e = x.exp()
    return torch.log((e / e.sum(-1, keepdim=True)).clamp(min=1e-6))


@log_softmax(X, lambda x: x - O.log_plus(O.lse(x, keepdims=True), O.const(1e-6)))
def eps_in_denominator(x: Tensor) -> Tensor:
    e = x.exp()
    return torch.log(e / (e.sum(-1, keepdim=True) + 1e-6))


@log_softmax(AB, lambda a, b: O.log_softmax(a) - O.log_softmax(b), families=UNMASKED, chain=2)
def log_probability_difference(a: Tensor, b: Tensor) -> Tensor:
    p = a.exp() / a.exp().sum(-1, keepdim=True)
    q = b.exp() / b.exp().sum(-1, keepdim=True)
    return torch.log(p) - torch.log(q)


@log_softmax(AB, lambda a, b: O.log_softmax(a) - O.log_softmax(b), families=UNMASKED, chain=2)
def log_of_probability_ratio(a: Tensor, b: Tensor) -> Tensor:
    return torch.log(a.softmax(-1) / b.softmax(-1))


@log_softmax(AB, lambda a, b: O.log_sigmoid(a - b), families=UNMASKED)
def log_of_pair(a: Tensor, b: Tensor) -> Tensor:
    return torch.log(a.exp() / (a.exp() + b.exp()))


@log_softmax(AB, lambda a, b: O.lse(np.stack([O.log_softmax(a), O.log_softmax(b)]), 0) - mpmath.log(2),
             families=UNMASKED, chain=2)  # fmt: skip
def log_mean_of_ensemble(a: Tensor, b: Tensor) -> Tensor:
    p = a.exp() / a.exp().sum(-1, keepdim=True)
    q = b.exp() / b.exp().sum(-1, keepdim=True)
    return torch.log((p + q) / 2)


# --- log-sum-exp ------------------------------------------------------------------------------------------


@lse(X, O.lse)
def functions(x: Tensor) -> Tensor:
    return torch.log(torch.sum(torch.exp(x), dim=-1))


@lse(X, O.lse)
def methods(x: Tensor) -> Tensor:
    return x.exp().sum(-1).log()


@lse(X, partial(O.lse, keepdims=True))
def keepdim(x: Tensor) -> Tensor:
    return torch.log(x.exp().sum(dim=1, keepdim=True))


@lse((logits(5, 6, axis=0),), partial(O.lse, axis=0))
def axis_zero(x: Tensor) -> Tensor:
    return torch.log(torch.exp(x).sum(0))


@lse((logits(2, 3, 4),), partial(O.lse, axis=(1, 2)), families=UNMASKED, n=12)
def two_axes(x: Tensor) -> Tensor:
    return x.exp().sum((1, 2)).log()


@lse((logits(9),), O.lse)
def whole_vector(x: Tensor) -> Tensor:
    return x.exp().sum().log()


@lse(X, lambda x: O.lse(x) - mpmath.log(7))
def log_mean_exp(x: Tensor) -> Tensor:
    return torch.log(torch.mean(torch.exp(x), dim=-1))


@lse(X, lambda x: O.lse(x) - mpmath.log(7))
def log_of_sum_over_n(x: Tensor) -> Tensor:
    return (x.exp().sum(-1) / 7).log()


@lse((logits(4, 7), weights(7)), lambda x, w: O.lse(x + O.log(w)))
def weighted(x: Tensor, w: Tensor) -> Tensor:
    return torch.log((w * torch.exp(x)).sum(-1))


@lse((logits(4, 7), weights(7)), lambda x, w: O.lse(x + O.log(w)))
def weighted_by_matmul(x: Tensor, w: Tensor) -> Tensor:
    return torch.log(x.exp() @ w)


@lse(AB, lambda a, b: O.lse(np.stack([a, b]), 0), families=UNMASKED)
def log_add_exp(a: Tensor, b: Tensor) -> Tensor:
    return torch.log(torch.exp(a) + torch.exp(b))


@lse(AB, lambda a, b: O.lse(np.stack([a, b + mpmath.log(2)]), 0), families=UNMASKED)
def log_add_exp_weighted(a: Tensor, b: Tensor) -> Tensor:
    return (a.exp() + 2 * b.exp()).log()


@lse((logits(9), logits(9), logits(9)), lambda a, b, c: O.lse(np.stack([a, b, c]), 0), families=UNMASKED)
def three_terms(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.log(a.exp() + b.exp() + c.exp())


@lse(X, lambda x: O.const(0.1) * (O.lse(x / O.const(0.1)) - mpmath.log(7)))
def tempered_mean(x: Tensor) -> Tensor:
    return 0.1 * torch.log(torch.exp(x / 0.1).mean(-1))


@lse(X, lambda x: O.lse(x * 5) / 5)
def smooth_maximum(x: Tensor) -> Tensor:
    return torch.exp(5 * x).sum(-1).log() / 5


@lse(X, lambda x: -O.const(0.2) * O.lse(-x / O.const(0.2)), families=UNMASKED)
def smooth_minimum(x: Tensor) -> Tensor:
    return -0.2 * torch.log(torch.sum(torch.exp(-x / 0.2), dim=-1))


@lse(X, lambda e: -O.const(0.6) * O.lse(-e / O.const(0.6)), families=UNMASKED)
def free_energy(energy: Tensor) -> Tensor:
    kt = 0.6
    partition = torch.exp(-energy / kt).sum(dim=-1)
    return -kt * torch.log(partition)


@lse(X, lambda x: -2 * O.lse(x / 2))
def energy_score(x: Tensor) -> Tensor:
    return -2.0 * (x / 2.0).exp().sum(-1).log()


@lse(X, lambda x: O.lse(x * mpmath.log(2)))
def of_exp2(x: Tensor) -> Tensor:
    return torch.log(torch.exp2(x).sum(-1))


@lse(X, lambda x: O.lse(x), families=UNMASKED)
def mean_shifted(x: Tensor) -> Tensor:
    m = x.mean(-1, keepdim=True)
    return torch.log(torch.exp(x - m).sum(-1)) + m.squeeze(-1)


@lse(X, O.lse)
def globally_shifted(x: Tensor) -> Tensor:
    m = x.max()
    return torch.log(torch.exp(x - m).sum(-1)) + m


@lse((logits(4, 3), logits(4, 5)), lambda a, b: O.lse(np.concatenate([a, b], 1)), families=UNMASKED)
def of_concatenation(a: Tensor, b: Tensor) -> Tensor:
    return torch.log(torch.cat([a.exp(), b.exp()], dim=1).sum(1))


@lse((logits(4, 3), logits(4, 5)), lambda a, b: O.lse(np.concatenate([a, b], 1)), families=UNMASKED)
def of_two_sums(a: Tensor, b: Tensor) -> Tensor:
    return torch.log(a.exp().sum(1) + b.exp().sum(1))


@lse(AB, lambda a, b: O.lse(np.stack([a, b]), 0), families=UNMASKED)
def of_stack(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([a, b], dim=0).exp().sum(0).log()


@lse(X, lambda x: O.log_plus(O.lse(x), O.const(1e-6)))
def eps_guarded(x: Tensor) -> Tensor:
    return torch.log(x.exp().sum(-1) + 1e-6)


@lse((logits(4, 7), mask(4, 7)), lambda x, m: O.lse(O.masked(x, m)))
def masked(x: Tensor, m: Tensor) -> Tensor:
    return torch.log((x.exp() * m.to(x.dtype)).sum(-1))


@lse(AB, lambda a, b: O.lse(a) - O.lse(b), families=UNMASKED, chain=2)
def log_of_partition_ratio(a: Tensor, b: Tensor) -> Tensor:
    return torch.log(a.exp().sum(-1) / b.exp().sum(-1))


@lse(AB, lambda a, b: O.lse(a) - O.lse(b), families=UNMASKED, chain=2)
def log_partition_difference(a: Tensor, b: Tensor) -> Tensor:
    return a.exp().sum(-1).log() - b.exp().sum(-1).log()


@lse(X, lambda x: O.softplus(O.lse(x)))
def of_one_plus_sum(x: Tensor) -> Tensor:
    return torch.log(1 + x.exp().sum(-1))


@lse(X, lambda x: O.lse(2 * x), gain=2)
def of_squares(x: Tensor) -> Tensor:
    return torch.log(torch.sum(x.exp() ** 2, dim=-1))


@lse(X, lambda x: O.lse(2 * O.log_softmax(x)), gain=2, chain=2)
def of_squared_softmax(x: Tensor) -> Tensor:
    e = x.exp()
    return torch.log(((e / e.sum(-1, keepdim=True)) ** 2).sum(-1))


@lse(AB, lambda a, b: O.lse(a + b), families=UNMASKED)
def of_products(a: Tensor, b: Tensor) -> Tensor:
    return torch.log((a.exp() * b.exp()).sum(-1))


@lse(X, lambda x: O.total(x), scale=lambda x: O.total(O.absolute(x)))
def log_of_product(x: Tensor) -> Tensor:
    return torch.log(torch.prod(torch.exp(x), dim=-1))


@lse((logits(4, 7), weights(4, 7)), lambda b, d: b + d + O.log1mexp(d), families=UNMASKED)
def log_sub_exp(b: Tensor, d: Tensor) -> Tensor:
    return torch.log(torch.exp(b + d) - torch.exp(b))


@lse((logits(4, 7), values(4, 7)), lambda a, n: O.lse(a + n), families=UNMASKED)
def log_evidence(log_prior: Tensor, log_likelihood: Tensor) -> Tensor:
    return torch.log((log_prior.exp() * log_likelihood.exp()).sum(-1))

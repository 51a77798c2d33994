"""Losses on logits and targets (rows 4, 19 and 20 of the rule catalogue), judged on value and gradient."""

from __future__ import annotations

from functools import partial

import mpmath
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.panel import oracle as O
from tests.panel.entry import Panel
from tests.panel.inputs import UNMASKED, distribution, logits, target, values, weights

PANEL = Panel()

XY = (logits(4, 6), target(4, classes=6))
AB = (logits(3, 5), logits(3, 5))
nll = partial(PANEL.add, "cross_entropy", rows="4", domain="log", loss=True, families=UNMASKED)
divergence = partial(PANEL.add, "divergence", rows="19", domain="log", loss=True, families=UNMASKED, slope=1 / 3)


def softmax(x: Tensor) -> Tensor:
    """The naive softmax that every loss below starts from."""
    e = x.exp()
    return e / e.sum(-1, keepdim=True)


def mean_ce(x: O.Array, y: O.Array) -> O.Array:
    return O.mean(O.cross_entropy(x, y))


@nll(XY, mean_ce)
def indexed_probability(x: Tensor, y: Tensor) -> Tensor:
    p = softmax(x)
    return -torch.log(p[torch.arange(4), y]).mean()


@nll(XY, mean_ce)
def indexed_log_probability(x: Tensor, y: Tensor) -> Tensor:
    return -torch.log(softmax(x))[torch.arange(x.shape[0]), y].mean()


@nll(XY, lambda x, y: O.total(O.cross_entropy(x, y)), chain=4)
def indexed_sum(x: Tensor, y: Tensor) -> Tensor:
    return -softmax(x)[range(4), y].log().sum()


@nll(XY, O.cross_entropy)
def gathered_log_probability(x: Tensor, y: Tensor) -> Tensor:
    return -torch.log(softmax(x)).gather(1, y.unsqueeze(1)).squeeze(1)


@nll(XY, mean_ce)
def gathered_probability(x: Tensor, y: Tensor) -> Tensor:
    return -(torch.gather(softmax(x), -1, y[:, None]).log()).mean()


@nll(XY, mean_ce)
def taken_along_dim(x: Tensor, y: Tensor) -> Tensor:
    return torch.take_along_dim(softmax(x), y.view(-1, 1), dim=1).log().mean().neg()


@nll(XY, mean_ce)
def nll_loss_of_log(x: Tensor, y: Tensor) -> Tensor:
    return F.nll_loss(torch.log(softmax(x)), y)


@nll(XY, mean_ce)
def nll_loss_of_log_softmax_split(x: Tensor, y: Tensor) -> Tensor:
    return F.nll_loss(torch.log(F.softmax(x, dim=1)), y)


@nll(XY, lambda x, y: O.total(O.cross_entropy(x, y)), chain=4)
def nll_loss_sum(x: Tensor, y: Tensor) -> Tensor:
    return F.nll_loss((x.exp() / x.exp().sum(1, keepdim=True)).log(), y, reduction="sum")


@nll(XY, lambda x, y: -O.mean(O.log_plus(O.pick(O.log_softmax(x), y), O.const(1e-6))))
def nll_loss_eps(x: Tensor, y: Tensor) -> Tensor:
    return F.nll_loss(torch.log(softmax(x) + 1e-6), y)


@nll(XY, lambda x, y: -O.mean(O.log_plus(O.pick(O.log_softmax(x), y), O.const(1e-6))))
def indexed_eps(x: Tensor, y: Tensor) -> Tensor:
    return -torch.log(softmax(x)[torch.arange(4), y] + 1e-6).mean()


@nll(XY, mean_ce)
def one_hot(x: Tensor, y: Tensor) -> Tensor:
    hot = F.one_hot(y, 6).to(x.dtype)
    return -(hot * torch.log(softmax(x))).sum(dim=-1).mean()


@nll(XY, mean_ce)
def one_hot_inside(x: Tensor, y: Tensor) -> Tensor:
    hot = F.one_hot(y, num_classes=6).to(x.dtype)
    return -torch.log((softmax(x) * hot).sum(-1)).mean()


@nll((logits(4, 6), distribution(4, 6)), lambda x, q: -O.mean(O.total(q * O.log_softmax(x))), chain=2)
def soft_labels(x: Tensor, q: Tensor) -> Tensor:
    return -(q * torch.log(softmax(x))).sum(-1).mean()


@nll(XY, lambda x, y: O.const(0.9) * mean_ce(x, y) - O.const(0.1) * O.mean(O.log_softmax(x)), chain=2)
def label_smoothing(x: Tensor, y: Tensor) -> Tensor:
    logp = torch.log(softmax(x))
    target_term = -logp.gather(1, y[:, None]).mean()
    return 0.9 * target_term - 0.1 * logp.mean()


@nll(XY, mean_ce)
def target_exponential_over_sum(x: Tensor, y: Tensor) -> Tensor:
    chosen = x.gather(1, y[:, None]).exp().squeeze(1)
    return -torch.log(chosen / x.exp().sum(1)).mean()


@nll(XY, mean_ce)
def log_sum_minus_target(x: Tensor, y: Tensor) -> Tensor:
    chosen = x[torch.arange(x.shape[0]), y]
    return (torch.log(torch.exp(x).sum(1)) - chosen).mean()


@nll((logits(2, 5, 3, axis=1), target(2, 3, classes=5)), lambda x, y: O.mean(-O.pick(O.log_softmax(x, 1), y, 1)))
def per_pixel(x: Tensor, y: Tensor) -> Tensor:
    e = x.exp()
    p = e / e.sum(1, keepdim=True)
    return F.nll_loss(p.log(), y)


@nll((logits(2, 3, 5), target(2, 3, classes=5)), lambda x, y: O.mean(O.cross_entropy(x, y)))
def per_token(x: Tensor, y: Tensor) -> Tensor:
    p = softmax(x)
    return -p.view(-1, 5).log()[torch.arange(6), y.view(-1)].mean()


@nll((logits(4, 6), target(4, classes=6), weights(6)),
     lambda x, y, w: O.total(w[y] * O.cross_entropy(x, y)) / O.total(w[y]))  # fmt: skip
def class_weights(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    losses = -torch.log(softmax(x)[torch.arange(4), y])
    return (w[y] * losses).sum() / w[y].sum()


@nll(XY, lambda x, y: O.mean(_one_minus_p(x, y) ** 2 * O.cross_entropy(x, y)), chain=3)
def focal(x: Tensor, y: Tensor) -> Tensor:
    p = softmax(x).gather(1, y[:, None]).squeeze(1)
    return (-((1 - p) ** 2) * torch.log(p)).mean()


def _one_minus_p(x: O.Array, y: O.Array) -> O.Array:
    return -O.expm1(O.pick(O.log_softmax(x), y))


@nll((logits(4, 6), target(4, classes=6), values(4)), lambda x, y, a: O.mean(O.cross_entropy(x, y) * a), chain=4)
def policy_gradient(x: Tensor, action: Tensor, advantage: Tensor) -> Tensor:
    chosen = softmax(x).gather(1, action[:, None])[:, 0]
    return -(torch.log(chosen) * advantage).mean()


@nll(XY, lambda x, y: O.exp(mean_ce(x, y)), domain="linear", families=("benign", "large", "low"), chain=2)
def perplexity(x: Tensor, y: Tensor) -> Tensor:
    p = softmax(x)
    return torch.exp(-torch.log(p[torch.arange(4), y]).mean())


@nll(XY, lambda x, y: O.mean(-O.expm1(O.const(0.7) * -O.cross_entropy(x, y))) / O.const(0.7), chain=2)
def generalized(x: Tensor, y: Tensor) -> Tensor:
    p = softmax(x).gather(1, y[:, None])
    return ((1 - p**0.7) / 0.7).mean()


@nll(XY, lambda x, y: O.mean(O.pick(O.log_softmax(x), y) / O.total(O.log_softmax(x))), chain=4)
def normalized(x: Tensor, y: Tensor) -> Tensor:
    logp = torch.log(softmax(x))
    return (logp.gather(1, y[:, None]).squeeze(1) / logp.sum(1)).mean()


@nll(XY, lambda x, y: mean_ce(x, y) + O.const(1e-4) * O.mean(O.lse(x) ** 2),
     scale=lambda x, y: mean_ce(x, y) + O.mean(O.largest(O.absolute(x))) ** 2, chain=2)  # fmt: skip
def with_z_loss(x: Tensor, y: Tensor) -> Tensor:
    log_z = torch.log(x.exp().sum(-1))
    return (log_z - x.gather(1, y[:, None]).squeeze(1)).mean() + 1e-4 * (log_z**2).mean()


# --- divergences ------------------------------------------------------------------------------------------


def _kl(a: O.Array, b: O.Array) -> O.Array:
    return O.total(O.softmax(a) * (O.log_softmax(a) - O.log_softmax(b)))


@divergence(AB, lambda a, b: O.mean(_kl(a, b)), chain=4)
def kl_of_log_difference(a: Tensor, b: Tensor) -> Tensor:
    p, q = softmax(a), softmax(b)
    return (p * (torch.log(p) - torch.log(q))).sum(-1).mean()


@divergence(AB, lambda a, b: O.mean(_kl(a, b)), chain=4)
def kl_of_log_ratio(a: Tensor, b: Tensor) -> Tensor:
    p, q = softmax(a), softmax(b)
    return torch.sum(p * torch.log(p / q), dim=-1).mean()


@divergence((logits(3, 5), distribution(3, 5)), lambda x, t: O.total(O.total(t * (O.log(t) - O.log_softmax(x)))) / 3,
            chain=4)  # fmt: skip
def kl_div_function(x: Tensor, t: Tensor) -> Tensor:
    return F.kl_div(torch.log(softmax(x)), t, reduction="batchmean")


@divergence((logits(3, 5), distribution(3, 5)), lambda x, t: O.mean(O.total(t * (O.log(t) - O.log_softmax(x)))),
            chain=4)  # fmt: skip
def kl_from_given(x: Tensor, t: Tensor) -> Tensor:
    return (t * (t.log() - softmax(x).log())).sum(-1).mean()


@divergence(AB, lambda a, b: 9 * O.mean(_kl(a / 3, b / 3)), chain=9)
def distillation(teacher: Tensor, student: Tensor) -> Tensor:
    p, q = softmax(teacher / 3.0), softmax(student / 3.0)
    return (p * torch.log(p / q)).sum(-1).mean() * 9.0


@divergence((logits(3, 5),), lambda x: O.mean(-O.total(O.plogp(O.log_softmax(x)))), chain=4)
def entropy(x: Tensor) -> Tensor:
    p = softmax(x)
    return -(p * torch.log(p)).sum(-1).mean()


@divergence((logits(3, 5),), lambda x: -O.mean(O.total(O.plogp(O.log_softmax(x)))), chain=4)
def entropy_of_softmax(x: Tensor) -> Tensor:
    p = F.softmax(x, dim=-1)
    return -torch.sum(p * p.log(), dim=-1).mean()


@divergence((logits(3, 5),), lambda x: -O.mean(O.total(O.softmax(x) * O.log_plus(O.log_softmax(x), O.const(1e-6)))),
            chain=4)  # fmt: skip
def entropy_eps(x: Tensor) -> Tensor:
    p = softmax(x)
    return -(p * torch.log(p + 1e-6)).sum(-1).mean()


@divergence(AB, lambda a, b: -O.mean(O.total(O.softmax(a) * O.log_softmax(b))), chain=4)
def cross_entropy_of_two(a: Tensor, b: Tensor) -> Tensor:
    return -(softmax(a) * torch.log(softmax(b))).sum(-1).mean()


def _js(a: O.Array, b: O.Array) -> O.Array:
    la, lb = O.log_softmax(a), O.log_softmax(b)
    lm = O.lse(np.stack([la, lb]), 0) - mpmath.log(2)
    return (O.total(O.exp(la) * (la - lm)) + O.total(O.exp(lb) * (lb - lm))) / 2


@divergence(AB, lambda a, b: O.mean(_js(a, b)), chain=6)
def jensen_shannon(a: Tensor, b: Tensor) -> Tensor:
    p, q = softmax(a), softmax(b)
    m = 0.5 * (p + q)
    left = (p * (torch.log(p) - torch.log(m))).sum(-1)
    right = (q * (torch.log(q) - torch.log(m))).sum(-1)
    return (0.5 * (left + right)).mean()


@divergence(AB, lambda a, b: O.mean(_kl(a, b) + _kl(b, a)), chain=8)
def jeffreys(a: Tensor, b: Tensor) -> Tensor:
    p, q = softmax(a), softmax(b)
    return ((p - q) * torch.log(p / q)).sum(-1).mean()


@divergence(AB, lambda a, b: -2 * O.mean(O.lse((O.log_softmax(a) + O.log_softmax(b)) / 2)), chain=4)
def bhattacharyya(a: Tensor, b: Tensor) -> Tensor:
    overlap = torch.sqrt(softmax(a) * softmax(b)).sum(-1)
    return -2 * torch.log(overlap).mean()

"""Binary, preference and contrastive losses (rows 4, 8, 9 and 20 of the rule catalogue), value and gradient."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.panel import oracle as O
from tests.panel.entry import Panel
from tests.panel.inputs import SCALAR, UNMASKED, labels, logits, real, signs, values, weights

PANEL = Panel()

Z = (real(8),)
ZY = (real(8), labels(8))
bce = partial(PANEL.add, "bce", rows="9", domain="log", loss=True, families=SCALAR, slope=1 / 8)
preference = partial(PANEL.add, "preference", rows="8", loss=True, families=SCALAR)
contrast = partial(PANEL.add, "contrastive", rows="4", domain="log", loss=True, families=UNMASKED)


def each_bce(x: O.Array, y: O.Array) -> O.Array:
    return y * O.softplus(-x) + (1 - y) * O.softplus(x)


# --- binary cross-entropy ---------------------------------------------------------------------------------


@bce(ZY, lambda x, y: O.mean(each_bce(x, y)))
def two_logs(x: Tensor, y: Tensor) -> Tensor:
    p = torch.sigmoid(x)
    return -(y * torch.log(p) + (1 - y) * torch.log(1 - p)).mean()


@bce(ZY, lambda x, y: O.mean(each_bce(x, y)))
def naive_sigmoid(x: Tensor, y: Tensor) -> Tensor:
    p = 1 / (1 + torch.exp(-x))
    return -(y * p.log() + (1.0 - y) * (1.0 - p).log()).mean()


@bce(ZY, lambda x, y: O.mean(each_bce(x, y)))
def naive_sigmoid_two(x: Tensor, y: Tensor) -> Tensor:
    e = x.exp()
    p = e / (1 + e)
    return torch.mean(-y * torch.log(p) - (1 - y) * torch.log(1 - p))


@bce(ZY, lambda x, y: O.total(each_bce(x, y)), chain=8)
def summed(x: Tensor, y: Tensor) -> Tensor:
    p = x.sigmoid()
    return -torch.sum(y * p.log() + (1 - y) * (1 - p).log())


@bce(ZY, each_bce)
def unreduced(x: Tensor, y: Tensor) -> Tensor:
    p = torch.sigmoid(x)
    return -y * torch.log(p) - (1 - y) * torch.log(1 - p)


@bce((real(8), weights(8)), lambda x, w: O.mean(each_bce(x, w / 2)), chain=2)
def soft_targets(x: Tensor, w: Tensor) -> Tensor:
    y = w / 2
    p = torch.sigmoid(x)
    return -(y * torch.log(p) + (1 - y) * torch.log(1 - p)).mean()


@bce(ZY, lambda x, y: O.mean(3 * y * O.softplus(-x) + (1 - y) * O.softplus(x)), chain=3)
def positive_weight(x: Tensor, y: Tensor) -> Tensor:
    p = torch.sigmoid(x)
    return -(3.0 * y * torch.log(p) + (1 - y) * torch.log(1 - p)).mean()


@bce(ZY, lambda x, y: -O.mean(y * O.log_plus(O.log_sigmoid(x), O.const(1e-6))
     + (1 - y) * O.log_plus(O.log_sigmoid(-x), O.const(1e-6))))  # fmt: skip
def eps_guarded(x: Tensor, y: Tensor) -> Tensor:
    p = torch.sigmoid(x)
    return -(y * torch.log(p + 1e-6) + (1 - y) * torch.log(1 - p + 1e-6)).mean()


@bce((real(8), labels(8)), lambda x, y: O.mean(O.where(y == 1, O.softplus(-x), O.softplus(x))))
def where_label(x: Tensor, y: Tensor) -> Tensor:
    p = torch.sigmoid(x)
    return -torch.log(torch.where(y > 0.5, p, 1 - p)).mean()


@bce((real(8), signs(8)), lambda x, s: O.mean(O.softplus(-s * x)))
def logistic_loss(x: Tensor, s: Tensor) -> Tensor:
    return torch.log(1 + torch.exp(-s * x)).mean()


@bce(ZY, lambda x, y: O.mean(each_bce(x, y)))
def softplus_minus_product(x: Tensor, y: Tensor) -> Tensor:
    return (torch.log(1 + x.exp()) - x * y).mean()


@bce(ZY, lambda x, y: O.mean(y * O.sigmoid(-x) ** 2 * O.softplus(-x) + (1 - y) * O.sigmoid(x) ** 2 * O.softplus(x)),
     chain=4)  # fmt: skip
def binary_focal(x: Tensor, y: Tensor) -> Tensor:
    p = torch.sigmoid(x)
    positive = (1 - p) ** 2 * torch.log(p)
    negative = p**2 * torch.log(1 - p)
    return -(y * positive + (1 - y) * negative).mean()


@bce(Z, lambda x: O.mean(O.sigmoid(x) * O.softplus(-x) + O.sigmoid(-x) * O.softplus(x)), chain=4)
def binary_entropy(x: Tensor) -> Tensor:
    p = torch.sigmoid(x)
    return -(p * torch.log(p) + (1 - p) * torch.log(1 - p)).mean()


# --- preferences ------------------------------------------------------------------------------------------


@preference((real(8), real(8)), lambda a, b: O.mean(O.softplus(O.const(0.5) * (b - a))), domain="log",
            families=(*SCALAR, "huge"))  # fmt: skip
def dpo(chosen: Tensor, rejected: Tensor) -> Tensor:
    return -torch.log(torch.sigmoid(0.5 * (chosen - rejected))).mean()


@preference((real(8), real(8)), lambda a, b: O.mean(O.softplus(b - a)), domain="log")
def bradley_terry(a: Tensor, b: Tensor) -> Tensor:
    return -torch.log(a.exp() / (a.exp() + b.exp())).mean()


@preference((real(8), real(8)), lambda a, b: O.mean(O.softplus(b - a)), domain="log")
def bradley_terry_sigmoid(chosen: Tensor, rejected: Tensor) -> Tensor:
    return -torch.log(1 / (1 + torch.exp(-(chosen - rejected)))).mean()


@preference((real(8), real(8)), lambda a, b: O.mean(O.softplus(b - a)), domain="log")
def ranknet(chosen: Tensor, rejected: Tensor) -> Tensor:
    return torch.log(1 + torch.exp(rejected - chosen)).mean()


@preference((real(8), real(8)), lambda a, b: O.mean(O.softplus(a - b)), domain="log")
def triplet(positive: Tensor, negative: Tensor) -> Tensor:
    return torch.mean((1 + (positive - negative).exp()).log())


@preference(
    (logits(8), logits(8), values(8)),
    lambda a, b, v: -O.mean(-O.maximum(-O.exp(a - b) * v, -_clip(O.exp(a - b)) * v)),
    families=("benign", "low"),
    scale=lambda a, b, v: O.mean(O.exp(a - b) * O.absolute(v)),
)
def clipped_ratio(new: Tensor, old: Tensor, advantage: Tensor) -> Tensor:
    ratio = new.exp() / old.exp()
    return -torch.min(ratio * advantage, torch.clamp(ratio, 0.8, 1.2) * advantage).mean()


def _clip(r: O.Array) -> O.Array:
    return -O.maximum(-O.maximum(r, O.const(0.8)), -O.const(1.2))


# --- contrastive ------------------------------------------------------------------------------------------


def _diagonal_ce(x: O.Array) -> O.Array:
    return O.mean(-np.diagonal(O.log_softmax(x)))


@contrast((logits(5, 5),), lambda x: _diagonal_ce(x / O.const(0.1)), gain=10, chain=2)
def info_nce(similarity: Tensor) -> Tensor:
    e = torch.exp(similarity / 0.1)
    return -torch.log(torch.diagonal(e) / e.sum(dim=1)).mean()


@contrast((logits(5, 5),), lambda x: (_diagonal_ce(x) + _diagonal_ce(x.T)) / 2, chain=2)
def clip_symmetric(similarity: Tensor) -> Tensor:
    e = similarity.exp()
    rows = e / e.sum(1, keepdim=True)
    columns = e / e.sum(0, keepdim=True)
    return -0.5 * (rows.diagonal().log().mean() + columns.diagonal().log().mean())


def _without_diagonal(x: O.Array) -> O.Array:
    return O.masked(x, ~np.eye(x.shape[0], dtype=bool))


@contrast((logits(4, 4),), lambda x: O.mean(-O.pick(O.log_softmax(_without_diagonal(2 * x)), np.array([2, 3, 0, 1]))),
          gain=2)  # fmt: skip
def nt_xent(similarity: Tensor) -> Tensor:
    e = torch.exp(similarity / 0.5) * (1 - torch.eye(4, dtype=similarity.dtype))
    partner = torch.tensor([2, 3, 0, 1])
    return -torch.log(e[torch.arange(4), partner] / e.sum(1)).mean()


@contrast((logits(4, 1), logits(4, 6)), lambda p, n: O.mean(O.softplus(O.lse(n) - p[:, 0])))
def positive_against_negatives(positive: Tensor, negatives: Tensor) -> Tensor:
    top = positive.squeeze(1).exp()
    return -torch.log(top / (top + negatives.exp().sum(1))).mean()


@contrast((logits(4, 1), logits(4, 6)), lambda p, n: O.mean(O.softplus(O.lse(n - p))))
def n_pair(positive: Tensor, negatives: Tensor) -> Tensor:
    return torch.log(1 + torch.exp(negatives - positive).sum(dim=1)).mean()


@contrast((logits(4, 3), logits(4, 6)), lambda p, n: O.mean(O.softplus(O.lse(n)) + O.softplus(O.lse(-p))), chain=2)
def multilabel_log_sum(positive: Tensor, negative: Tensor) -> Tensor:
    return (torch.log(1 + negative.exp().sum(-1)) + torch.log(1 + torch.exp(-positive).sum(-1))).mean()


@contrast((logits(4, 3), logits(4, 6)), lambda p, n: O.mean(O.softplus(O.lse(n) + O.lse(-p))), chain=2)
def circle(positive: Tensor, negative: Tensor) -> Tensor:
    return torch.log(1 + negative.exp().sum(-1) * torch.exp(-positive).sum(-1)).mean()


@contrast((logits(4, 5), values(4, 5)), lambda x, r: -O.mean(O.total(O.softmax(r) * O.log_softmax(x))), chain=2)
def list_net(scores: Tensor, relevance: Tensor) -> Tensor:
    p = F.softmax(relevance, dim=-1)
    q = scores.exp() / scores.exp().sum(-1, keepdim=True)
    return -(p * torch.log(q)).sum(-1).mean()


def _running_lse(x: O.Array) -> O.Array:
    return np.stack([O.lse(x[..., : i + 1]) for i in range(x.shape[-1])], -1)


@contrast((logits(3, 5),), lambda x: O.mean(O.total(_running_lse(x) - x)), rows="33", chain=6)
def cox_partial_likelihood(risk: Tensor) -> Tensor:
    at_risk = torch.log(torch.cumsum(torch.exp(risk), dim=-1))
    return (at_risk - risk).sum(-1).mean()

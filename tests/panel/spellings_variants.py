"""Softmax with weights, masks, guards, shifts and products, in place and inside larger expressions (row 1)."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.panel import oracle as O
from tests.panel.entry import Panel
from tests.panel.inputs import UNMASKED, distribution, logits, mask, values, weights

PANEL = Panel()

X = (logits(4, 7),)
AB = (logits(4, 7), logits(4, 7))
softmax = partial(PANEL.add, "softmax", rows="1")


@softmax((logits(4, 7), weights(7)), lambda x, w: O.softmax(x + O.log(w)))
def weighted(x: Tensor, w: Tensor) -> Tensor:
    e = w * x.exp()
    return e / e.sum(-1, keepdim=True)


@softmax((logits(4, 7), distribution(4, 7)), lambda x, p: O.softmax(x + O.log(p)))
def posterior(x: Tensor, prior: Tensor) -> Tensor:
    joint = prior * torch.exp(x)
    return joint / torch.sum(joint, dim=-1, keepdim=True)


@softmax((logits(4, 7), mask(4, 7)), lambda x, m: O.softmax(O.masked(x, m)))
def mask_multiplied(x: Tensor, m: Tensor) -> Tensor:
    e = x.exp() * m.to(x.dtype)
    return e / e.sum(-1, keepdim=True)


@softmax((logits(4, 7), mask(4, 7)), lambda x, m: O.softmax(O.masked(x, m)))
def mask_bool_multiplied(x: Tensor, m: Tensor) -> Tensor:
    e = torch.exp(x) * m
    return e / e.sum(-1, keepdim=True)


@softmax((logits(4, 7), mask(4, 7)), lambda x, m: O.softmax(O.masked(x, m)))
def mask_filled_after(x: Tensor, m: Tensor) -> Tensor:
    e = x.exp().masked_fill(~m, 0.0)
    return e / e.sum(-1, keepdim=True)


@softmax((logits(4, 7), mask(4, 7)), lambda x, m: O.softmax(O.masked(x, m)))
def mask_filled_before(x: Tensor, m: Tensor) -> Tensor:
    e = x.masked_fill(~m, float("-inf")).exp()
    return e / e.sum(-1, keepdim=True)


@softmax((logits(4, 7), mask(4, 7)), lambda x, m: O.softmax(O.masked(x, m)))
def mask_where(x: Tensor, m: Tensor) -> Tensor:
    e = torch.where(m, torch.exp(x), 0.0)
    return e / e.sum(-1, keepdim=True)


@softmax(
    (logits(4, 7), mask(4, 7)),
    lambda x, m: O.softmax(O.where(m, x, x - 10000)),
    families=("benign", "large", "masked"),
)
def mask_additive(x: Tensor, m: Tensor) -> Tensor:
    e = torch.exp(x + (1.0 - m.to(x.dtype)) * -10000.0)
    return e / e.sum(-1, keepdim=True)


@softmax(X, lambda x: O.divide(O.exp(x), O.total(O.exp(x), keepdims=True) + O.const(1e-8)))
def eps_in_denominator(x: Tensor) -> Tensor:
    e = x.exp()
    return e / (e.sum(-1, keepdim=True) + 1e-8)


@softmax(
    (logits(4, 7), mask(4, 7)),
    lambda x, m: O.divide(O.where(m, O.exp(x), 0), O.total(O.where(m, O.exp(x), 0), keepdims=True) + O.const(1e-6)),
)
def eps_with_mask(x: Tensor, m: Tensor) -> Tensor:
    e = x.exp() * m.to(x.dtype)
    return e / (e.sum(-1, keepdim=True) + 1e-6)


@softmax(X, lambda x: O.divide(O.exp(x), O.maximum(O.total(O.exp(x), keepdims=True), O.const(1e-6))))
def clamped_denominator(x: Tensor) -> Tensor:
    e = x.exp()
    return e / e.sum(-1, keepdim=True).clamp(min=1e-6)


@softmax(X, lambda x: O.divide(O.exp(x), O.maximum(O.total(O.exp(x), keepdims=True), O.const(1e-12))))
def l1_normalized(x: Tensor) -> Tensor:
    return F.normalize(x.exp(), p=1, dim=-1)


@softmax(X, O.softmax)
def global_max_shift(x: Tensor) -> Tensor:
    e = torch.exp(x - x.max())
    return e / e.sum(-1, keepdim=True)


@softmax(X, O.softmax, families=UNMASKED)
def detached_global_shift(x: Tensor) -> Tensor:
    e = torch.exp(x - x.max().detach())
    return e / e.sum(-1, keepdim=True)


@softmax(X, O.softmax, families=UNMASKED)
def mean_shift(x: Tensor) -> Tensor:
    e = torch.exp(x - x.mean(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)


@softmax(X, O.softmax, families=UNMASKED)
def min_shift(x: Tensor) -> Tensor:
    e = torch.exp(x - x.min(dim=-1, keepdim=True).values)
    return e / e.sum(-1, keepdim=True)


@softmax(X, O.softmax)
def constant_shift(x: Tensor) -> Tensor:
    e = torch.exp(x + 5)
    return e / e.sum(-1, keepdim=True)


@softmax(X, lambda x: O.softmax(x - O.largest(x, 0, True)), families=UNMASKED, gain=2)
def max_over_wrong_axis(x: Tensor) -> Tensor:
    e = torch.exp(x - x.max(dim=0, keepdim=True).values)
    return e / e.sum(dim=1, keepdim=True)


@softmax(X, O.softmax)
def factored_shift(x: Tensor) -> Tensor:
    e = x.exp() * math.exp(-3.0)
    return e / e.sum(-1, keepdim=True)


@softmax(AB, lambda a, b: O.softmax(a + b), families=UNMASKED)
def product_of_experts(a: Tensor, b: Tensor) -> Tensor:
    e = a.exp() * b.exp()
    return e / e.sum(-1, keepdim=True)


@softmax(AB, lambda a, b: O.softmax(a - b), families=UNMASKED)
def expert_ratio(a: Tensor, b: Tensor) -> Tensor:
    e = a.exp() / b.exp()
    return e / e.sum(-1, keepdim=True)


@softmax(AB, lambda a, b: O.softmax(a + b), families=UNMASKED, chain=2)
def product_of_softmaxes(a: Tensor, b: Tensor) -> Tensor:
    p = a.exp() / a.exp().sum(-1, keepdim=True)
    q = b.exp() / b.exp().sum(-1, keepdim=True)
    return p * q / (p * q).sum(-1, keepdim=True)


@softmax((logits(4, 3), values(4, 3, 2)), lambda g, f: O.total(O.softmax(g)[:, :, None] * f, 1),
         families=UNMASKED, scale=lambda g, f: O.total(O.softmax(g)[:, :, None] * O.absolute(f), 1))  # fmt: skip
def mixture_of_outputs(g: Tensor, f: Tensor) -> Tensor:
    w = g.exp()
    return (w.unsqueeze(-1) * f).sum(1) / w.sum(-1, keepdim=True)


@softmax(X, lambda x: O.softmax(x) ** 2, gain=2)
def squared(x: Tensor) -> Tensor:
    e = x.exp()
    return (e / e.sum(-1, keepdim=True)) ** 2


@softmax(X, lambda x: O.sqrt(O.softmax(x)))
def square_root(x: Tensor) -> Tensor:
    e = x.exp()
    return torch.sqrt(e / e.sum(-1, keepdim=True))


@softmax(X, lambda x: O.softmax(2 * x), gain=2)
def sharpened(x: Tensor) -> Tensor:
    e = x.exp()
    p = (e / e.sum(-1, keepdim=True)) ** 2
    return p / p.sum(-1, keepdim=True)


@softmax(X, lambda x: O.softmax(x * 20), gain=20, chain=3)
def sharpened_by_temperature(x: Tensor) -> Tensor:
    p = torch.softmax(x, dim=-1) ** (1 / 0.05)
    return p / p.sum(-1, keepdim=True)


@softmax(X, O.softmax)
def normalized_twice(x: Tensor) -> Tensor:
    e = x.exp()
    p = e / e.sum(-1, keepdim=True)
    return p / p.sum(-1, keepdim=True)


@softmax((logits(4, 7), logits(4, 1)), lambda x, s: O.exp(x - O.lse(np.concatenate([x, s], 1), keepdims=True)),
         families=UNMASKED)  # fmt: skip
def attention_sink(x: Tensor, sink: Tensor) -> Tensor:
    e = x.exp()
    return e / (sink.exp() + e.sum(-1, keepdim=True))


@softmax(X, lambda x: O.exp(x - O.softplus(O.lse(x, keepdims=True))))
def softmax_one(x: Tensor) -> Tensor:
    e = torch.exp(x)
    return e / (1 + e.sum(-1, keepdim=True))


@softmax(AB, lambda a, b: O.sigmoid(a - b), families=UNMASKED, flush=1)
def pair(a: Tensor, b: Tensor) -> Tensor:
    return torch.exp(a) / (torch.exp(a) + torch.exp(b))


@softmax((logits(9), logits(9), logits(9)), lambda a, b, c: O.softmax(np.stack([a, b, c]), 0)[0], families=UNMASKED)
def triple(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    ea, eb, ec = a.exp(), b.exp(), c.exp()
    return ea / (ea + eb + ec)


@softmax(AB, lambda a, b: O.softmax(np.stack([a, b]), 0), families=UNMASKED)
def stacked(a: Tensor, b: Tensor) -> Tensor:
    e = torch.stack([a.exp(), b.exp()])
    return e / e.sum(0)


@softmax(X, O.softmax)
def exp_of_log_difference(x: Tensor) -> Tensor:
    return torch.exp(x - torch.log(x.exp().sum(-1, keepdim=True)))


@softmax(X, O.softmax)
def exp_of_logs(x: Tensor) -> Tensor:
    e = x.exp()
    return torch.exp(torch.log(e) - torch.log(e.sum(-1, keepdim=True)))


@softmax(X, O.softmax)
def inplace_operator(x: Tensor) -> Tensor:
    e = x.exp()
    e /= e.sum(-1, keepdim=True)
    return e


@softmax(X, O.softmax)
def inplace_method(x: Tensor) -> Tensor:
    e = torch.exp(x)
    return e.div_(e.sum(dim=-1, keepdim=True))


@softmax(X, O.softmax)
def inplace_reciprocal(x: Tensor) -> Tensor:
    e = x.exp()
    e.mul_(1 / e.sum(-1, keepdim=True))
    return e


@softmax(X, O.softmax)
def inplace_exp(x: Tensor) -> Tensor:
    e = (x - 1.0).exp_()
    return e / e.sum(-1, keepdim=True)

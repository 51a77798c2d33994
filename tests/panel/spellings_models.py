"""What models are made of: attention, gating, optimal transport, sequences, mixtures (rows 4–6, 29 and 33)."""

from __future__ import annotations

import math
from functools import partial

import mpmath
import numpy as np
import torch
from torch import Tensor

from tests.panel import oracle as O
from tests.panel.entry import Panel
from tests.panel.inputs import UNMASKED, distribution, logits, mask, probability, queries, values, weights

PANEL = Panel()

QKV = (queries(3, 4), queries(5, 4), values(5, 2))
SCORES = (logits(4, 5), values(5, 3))
attention = partial(PANEL.add, "attention", rows="5", families=UNMASKED)
expectation = partial(PANEL.add, "expectation", rows="5", families=UNMASKED)
gate = partial(PANEL.add, "gate", rows="29", families=UNMASKED)
sequence = partial(PANEL.add, "sequence", rows="33", families=UNMASKED, domain="log")
mixture = partial(PANEL.add, "mixture", rows="6", families=UNMASKED)


def _attend(s: O.Array, v: O.Array) -> O.Array:
    return O.softmax(s) @ v


def _attend_magnitude(s: O.Array, v: O.Array) -> O.Array:
    return O.softmax(s) @ O.absolute(v)


# --- attention --------------------------------------------------------------------------------------------


@attention(SCORES, _attend, scale=_attend_magnitude)
def weights_then_values(s: Tensor, v: Tensor) -> Tensor:
    e = s.exp()
    return (e / e.sum(-1, keepdim=True)) @ v


@attention(SCORES, _attend, scale=_attend_magnitude)
def values_then_normalize(s: Tensor, v: Tensor) -> Tensor:
    e = torch.exp(s)
    return (e @ v) / e.sum(-1, keepdim=True)


@attention(SCORES, _attend, scale=_attend_magnitude)
def with_matmul_function(s: Tensor, v: Tensor) -> Tensor:
    e = torch.exp(s)
    return torch.matmul(e * (1 / e.sum(dim=-1).unsqueeze(-1)), v)


@attention((logits(2, 4, 5), values(2, 5, 3)), _attend, scale=_attend_magnitude)
def batched(s: Tensor, v: Tensor) -> Tensor:
    e = s.exp()
    return torch.bmm(e / e.sum(2, keepdim=True), v)


@attention(QKV, lambda q, k, v: _attend(q @ k.T / mpmath.mpf(2), v), n=16,
           exponents=lambda q, k, v: O.absolute(q) @ O.absolute(k).T,
           scale=lambda q, k, v: _attend_magnitude(q @ k.T / mpmath.mpf(2), v))  # fmt: skip
def scaled_dot_product(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q @ k.transpose(-2, -1) / math.sqrt(4)
    e = torch.exp(scores)
    return e / e.sum(dim=-1, keepdim=True) @ v


def _causal(s: O.Array) -> O.Array:
    return O.masked(s, np.tril(np.ones(s.shape[-2:], dtype=bool)))


@attention((logits(5, 5), values(5, 3)), lambda s, v: _attend(_causal(s), v),
           scale=lambda s, v: _attend_magnitude(_causal(s), v))  # fmt: skip
def causal_by_tril(s: Tensor, v: Tensor) -> Tensor:
    e = s.exp() * torch.tril(torch.ones(5, 5, dtype=s.dtype))
    return (e @ v) / e.sum(-1, keepdim=True)


@attention((logits(5, 5), values(5, 3)), lambda s, v: _attend(_causal(s), v),
           scale=lambda s, v: _attend_magnitude(_causal(s), v))  # fmt: skip
def causal_by_fill(s: Tensor, v: Tensor) -> Tensor:
    allowed = torch.tril(torch.ones(5, 5, dtype=torch.bool))
    e = torch.exp(s.masked_fill(~allowed, float("-inf")))
    return (e / e.sum(-1, keepdim=True)) @ v


@attention((logits(4, 5), values(5, 3), mask(4, 5)), lambda s, v, m: _attend(O.masked(s, m), v),
           families=(*UNMASKED, "masked", "dead"),
           scale=lambda s, v, m: _attend_magnitude(O.masked(s, m), v))  # fmt: skip
def key_mask(s: Tensor, v: Tensor, m: Tensor) -> Tensor:
    e = torch.exp(s) * m.to(s.dtype)
    return e @ v / e.sum(-1, keepdim=True)


@attention((logits(4, 5), values(5, 3), values(4, 5)), lambda s, v, b: _attend(s + b, v),
           scale=lambda s, v, b: _attend_magnitude(s + b, v))  # fmt: skip
def additive_bias(s: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    e = torch.exp(s + bias)
    return (e / torch.sum(e, -1, keepdim=True)) @ v


# --- expectations under a softmax -------------------------------------------------------------------------


@expectation((logits(4, 7),), lambda x: O.weighted_mean(x, x), scale=lambda x: O.largest(O.absolute(x)))
def of_logits(x: Tensor) -> Tensor:
    e = x.exp()
    return (x * e).sum(-1) / e.sum(-1)


@expectation((logits(4, 7),), lambda x: O.weighted_mean(x, np.arange(7)), scale=lambda x: O.total(0 * x) + 6)
def soft_argmax(x: Tensor) -> Tensor:
    e = x.exp()
    p = e / e.sum(-1, keepdim=True)
    return (p * torch.arange(7, dtype=x.dtype)).sum(-1)


@expectation((logits(4, 7), values(7)), O.weighted_mean, scale=lambda x, v: O.weighted_mean(x, O.absolute(v)))
def of_values(x: Tensor, v: Tensor) -> Tensor:
    e = torch.exp(x)
    return torch.sum(e * v, dim=-1) / torch.sum(e, dim=-1)


@expectation((logits(4, 7), values(7)), O.weighted_mean, scale=lambda x, v: O.weighted_mean(x, O.absolute(v)))
def by_matrix_vector(x: Tensor, v: Tensor) -> Tensor:
    e = x.exp()
    return (e @ v) / e.sum(-1)


def _variance(x: O.Array, v: O.Array) -> O.Array:
    return O.total(O.softmax(x) * (v - O.weighted_mean(x, v)[:, None]) ** 2)


@expectation((logits(4, 7), values(7)), _variance,
             scale=lambda x, v: _variance(x, v) + O.weighted_mean(x, O.absolute(v)) ** 2, chain=3)  # fmt: skip
def variance_about_mean(x: Tensor, v: Tensor) -> Tensor:
    e = x.exp()
    p = e / e.sum(-1, keepdim=True)
    mu = (p * v).sum(-1, keepdim=True)
    return (p * (v - mu) ** 2).sum(-1)


@expectation((logits(4, 7),), lambda x: 1 / O.total(O.softmax(x) ** 2), gain=2, chain=2)
def effective_sample_size(log_weights: Tensor) -> Tensor:
    w = log_weights.exp()
    return w.sum(-1) ** 2 / (w**2).sum(-1)


@expectation((logits(4, 7), values(4, 7)), O.weighted_mean, scale=lambda x, v: O.weighted_mean(x, O.absolute(v)))
def importance_sampling(log_weights: Tensor, f: Tensor) -> Tensor:
    w = torch.exp(log_weights)
    w = w / w.sum(dim=-1, keepdim=True)
    return (w * f).sum(dim=-1)


@expectation((logits(4, 7), values(4, 7)), lambda x, g: O.softmax((x + g) / O.const(0.5)), gain=2)
def gumbel_softmax(x: Tensor, noise: Tensor) -> Tensor:
    e = torch.exp((x + noise) / 0.5)
    return e / e.sum(-1, keepdim=True)


@expectation((queries(4, 3), queries(5, 3)), lambda a, b: O.softmax(-2 * _distances(a, b)),
             families=("benign", "large"),
             exponents=lambda a, b: 2 * _distances(O.absolute(a), -O.absolute(b)))  # fmt: skip
def kernel_regression_weights(a: Tensor, b: Tensor) -> Tensor:
    d = ((a[:, None] - b[None]) ** 2).sum(-1)
    k = torch.exp(-d / (2 * 0.5**2))
    return k / k.sum(1, keepdim=True)


def _distances(a: O.Array, b: O.Array) -> O.Array:
    return O.total((a[:, None] - b[None]) ** 2)


# --- gates ------------------------------------------------------------------------------------------------


def _top(x: O.Array, k: int) -> O.Array:
    return -np.sort(-x, axis=-1)[..., :k]


@gate((logits(4, 7),), lambda x: O.softmax(_top(x, 2)))
def top_two_renormalized(x: Tensor) -> Tensor:
    e = x.exp()
    top = torch.topk(e / e.sum(-1, keepdim=True), 2, dim=-1).values
    return top / top.sum(-1, keepdim=True)


@gate((logits(4, 7),), lambda x: O.log_softmax(_top(x, 3)), domain="log")
def log_of_top_three(x: Tensor) -> Tensor:
    top, _ = torch.softmax(x, dim=-1).topk(3)
    return torch.log(top / top.sum(dim=-1, keepdim=True))


@gate((logits(4, 7),), lambda x: _top(O.softmax(x), 2))
def top_two_probabilities(x: Tensor) -> Tensor:
    e = x.exp()
    return torch.topk(e / e.sum(-1, keepdim=True), 2).values


@gate((logits(4, 3), values(4, 3, 2)), lambda g, f: O.total(O.softmax(g)[..., None] * f, 1), rows="5",
      scale=lambda g, f: O.total(O.softmax(g)[..., None] * O.absolute(f), 1))  # fmt: skip
def mixture_of_experts(g: Tensor, expert_outputs: Tensor) -> Tensor:
    e = torch.exp(g)
    p = e / e.sum(-1, keepdim=True)
    return (p.unsqueeze(-1) * expert_outputs).sum(dim=1)


@gate((logits(4, 7),), lambda x: O.largest(O.softmax(x)), rows="1")
def confidence(x: Tensor) -> Tensor:
    e = x.exp()
    return (e / e.sum(-1, keepdim=True)).max(-1).values


@gate((logits(4, 7),), lambda x: O.softmax(x)[:, 0] - O.softmax(x)[:, 1], rows="1",
      scale=lambda x: O.softmax(x)[:, 0] + O.softmax(x)[:, 1])  # fmt: skip
def margin_of_two_classes(x: Tensor) -> Tensor:
    e = x.exp()
    p = e / e.sum(-1, keepdim=True)
    return p[:, 0] - p[:, 1]


# --- sequences --------------------------------------------------------------------------------------------


def _running_lse(x: O.Array) -> O.Array:
    return np.stack([O.lse(x[..., : i + 1]) for i in range(x.shape[-1])], -1)


@sequence((logits(3, 6),), _running_lse)
def log_of_running_sum(x: Tensor) -> Tensor:
    return torch.log(torch.cumsum(torch.exp(x), dim=-1))


@sequence((logits(3, 6),), lambda x: x - _running_lse(x), chain=2)
def running_softmax_log(x: Tensor) -> Tensor:
    e = x.exp()
    return torch.log(e / e.cumsum(-1))


@sequence((logits(3, 6),), lambda x: O.exp(x - _running_lse(x)), domain="linear")
def running_share(x: Tensor) -> Tensor:
    e = x.exp()
    return e / torch.cumsum(e, -1)


@sequence((logits(3, 6),), lambda x: np.cumsum(x, -1), scale=lambda x: np.cumsum(O.absolute(x), -1),
          exportable=False)  # fmt: skip
def log_of_running_product(x: Tensor) -> Tensor:
    return torch.log(torch.cumprod(torch.exp(x), dim=-1))


@sequence((probability(3, 40),), lambda p: O.total(O.log(p)), families=("benign", "small"), n=60)
def log_of_product_of_probabilities(p: Tensor) -> Tensor:
    return torch.log(torch.prod(p, dim=-1))


@sequence((probability(3, 40),), lambda p: np.cumsum(O.log(p), -1), families=("benign", "small"), n=60,
          exportable=False)  # fmt: skip
def log_of_cumprod(p: Tensor) -> Tensor:
    return torch.cumprod(p, -1).log()


@sequence((probability(3, 40),), lambda p: O.exp(O.total(O.log(p)) * O.const(1 / 40)), families=("benign", "small"),
          domain="linear", n=150)  # fmt: skip
def geometric_mean(p: Tensor) -> Tensor:
    return torch.prod(p, dim=-1) ** (1 / 40)


@sequence((logits(4), logits(4, 4), logits(4)), lambda a, t, e: O.lse(a[:, None] + t, 0) + e, rows="6")
def crf_forward_step(alpha: Tensor, transition: Tensor, emission: Tensor) -> Tensor:
    return torch.log(torch.exp(alpha[:, None] + transition + emission[None, :]).sum(0))


@sequence((logits(4), logits(4, 4)), lambda a, t: O.lse(a[:, None] + t, 0), rows="6")
def forward_by_matmul(alpha: Tensor, transition: Tensor) -> Tensor:
    return torch.log(alpha.exp() @ transition.exp())


@sequence((logits(4), distribution(4, 4), logits(4)), lambda a, t, e: O.softmax(O.lse(a[:, None] + O.log(t), 0) + e),
          rows="6", domain="linear", chain=2)  # fmt: skip
def normalized_filter_step(log_belief: Tensor, transition: Tensor, log_likelihood: Tensor) -> Tensor:
    predicted = log_belief.exp() @ transition
    joint = predicted * log_likelihood.exp()
    return joint / joint.sum()


# --- mixtures and transport ---------------------------------------------------------------------------------


@mixture((logits(4, 3), weights(3)), lambda x, w: O.softmax(x + O.log(w)), rows="1")
def responsibilities(log_density: Tensor, w: Tensor) -> Tensor:
    joint = w * torch.exp(log_density)
    return joint / joint.sum(1, keepdim=True)


@mixture((logits(4, 1), logits(3)), lambda x, mu: O.softmax(-((x - mu) ** 2) / 2), families=("benign", "large"),
         exponents=lambda x, mu: (O.absolute(x) + O.absolute(mu)) ** 2, rows="1")  # fmt: skip
def gaussian_responsibilities(x: Tensor, mu: Tensor) -> Tensor:
    density = torch.exp(-0.5 * (x - mu) ** 2)
    return density / density.sum(-1, keepdim=True)


@mixture((logits(4, 3), weights(3)), lambda x, w: O.lse(x + O.log(w)), domain="log", rows="3")
def mixture_log_likelihood(log_density: Tensor, w: Tensor) -> Tensor:
    return torch.log((w * torch.exp(log_density)).sum(-1))


@mixture((logits(3, 4),), lambda c: -O.lse(-c / O.const(0.1)), gain=10, domain="log")
def sinkhorn_first_scaling(cost: Tensor) -> Tensor:
    k = torch.exp(-cost / 0.1)
    return torch.log(1.0 / k.sum(-1))


@mixture((logits(3, 4), weights(3), values(4)), lambda c, a, g: O.log(a) - O.lse(g - c), chain=2, domain="log")
def sinkhorn_update(cost: Tensor, a: Tensor, g: Tensor) -> Tensor:
    k = torch.exp(-cost)
    return torch.log(a / (k @ g.exp()))


def _balanced(c: O.Array) -> O.Array:
    rows = O.log_softmax(-c, 1)
    return O.softmax(rows, 0)


@mixture((logits(3, 4),), _balanced, chain=2)
def sinkhorn_rows_then_columns(cost: Tensor) -> Tensor:
    k = torch.exp(-cost)
    k = k / k.sum(dim=1, keepdim=True)
    return k / k.sum(dim=0, keepdim=True)


@mixture((logits(3, 4), weights(3), weights(4)),
         lambda c, a, b: _transport(c, a, b), chain=4, families=("benign", "large"))  # fmt: skip
def sinkhorn_plan(cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
    k = torch.exp(-cost)
    u = a / k.sum(1)
    v = b / (u @ k)
    return u[:, None] * k * v


def _transport(c: O.Array, a: O.Array, b: O.Array) -> O.Array:
    log_u = O.log(a) - O.lse(-c, 1)
    log_v = O.log(b) - O.lse(-c + log_u[:, None], 0)
    return O.exp(log_u[:, None] - c + log_v)


@mixture((logits(4, 6), logits(4, 6)), lambda a, b: O.exp(O.lse(a) - O.lse(b)), rows="20", chain=2)
def ratio_of_partitions(a: Tensor, b: Tensor) -> Tensor:
    return torch.exp(torch.log(a.exp().sum(-1))) / torch.exp(torch.log(b.exp().sum(-1)))


@mixture((logits(8), logits(8)), lambda a, b: O.exp(a - b), rows="20")
def ratio_of_exponentials(a: Tensor, b: Tensor) -> Tensor:
    return a.exp() / b.exp()

"""Formulas that are written by hand and stable."""

from __future__ import annotations

import math

import torch
from lint_cases.entry import bits, classes, normal, one_hot, shares, uniform
from torch import Tensor
from torch.nn import functional

from lint_clean.entry import Forms

forms = Forms("stable formulas")

torch.manual_seed(0)
X, Z, POSITIVE = normal(4, 8), normal(4, 8), uniform(4, 8) + 0.5
IMAGE, LABELS, TARGET = normal(2, 3, 6, 6), classes(4, below=8), one_hot(4, 8)


# -- softmax, logsumexp, losses ----------------------------------------------------------------------------------------


@forms(X)
def shifted_softmax(x: Tensor) -> Tensor:
    e = torch.exp(x - x.amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)


@forms(X)
def shifted_by_detached_maximum(x: Tensor) -> Tensor:
    e = torch.exp(x - x.max(dim=1, keepdim=True).values.detach())
    return e / torch.sum(e, dim=1, keepdim=True)


@forms(X)
def log_softmax_by_hand(x: Tensor) -> Tensor:
    shifted = x - x.amax(-1, keepdim=True)
    return shifted - shifted.exp().sum(-1, keepdim=True).log()


@forms(X)
def logsumexp_by_hand(x: Tensor) -> Tensor:
    m = x.amax(-1, keepdim=True)
    return (m + torch.log(torch.sum(torch.exp(x - m), -1, keepdim=True))).squeeze(-1)


@forms(X, LABELS)
def cross_entropy_of_log_softmax(x: Tensor, y: Tensor) -> Tensor:
    return functional.nll_loss(functional.log_softmax(x, -1), y)


@forms(X, TARGET)
def soft_cross_entropy(x: Tensor, y: Tensor) -> Tensor:
    return -(y * functional.log_softmax(x, -1)).sum(-1).mean()


@forms(X, LABELS)
def label_smoothing(x: Tensor, y: Tensor) -> Tensor:
    logp = functional.log_softmax(x, -1)
    picked = logp.gather(1, y[:, None])[:, 0]
    return -(0.9 * picked + 0.1 * logp.mean(-1)).mean()


@forms(X, Z)
def distillation(x: Tensor, teacher: Tensor) -> Tensor:
    logp, logq = functional.log_softmax(x / 2, -1), functional.log_softmax(teacher / 2, -1)
    return functional.kl_div(logp, logq, log_target=True, reduction="batchmean") * 4


@forms(X)
def entropy(x: Tensor) -> Tensor:
    logp = functional.log_softmax(x, -1)
    return -(logp.exp() * logp).sum(-1)


@forms(X)
def entropy_by_logsumexp(x: Tensor) -> Tensor:
    return torch.logsumexp(x, -1) - (functional.softmax(x, -1) * x).sum(-1)


@forms(shares(4, 8), p=(0.0, 1.0))
def entropy_by_xlogy(p: Tensor) -> Tensor:
    return -torch.special.xlogy(p, p).sum(-1)


@forms(X, Z)
def divergence_of_logits(x: Tensor, z: Tensor) -> Tensor:
    p, q = functional.log_softmax(x, -1), functional.log_softmax(z, -1)
    return (p.exp() * (p - q)).sum(-1)


@forms(X, Z)
def contrastive(x: Tensor, z: Tensor) -> Tensor:
    a, b = functional.normalize(x, dim=-1), functional.normalize(z, dim=-1)
    return functional.cross_entropy(a @ b.T / 0.07, torch.arange(4))


@forms(X, Z, torch.tensor(2.6))
def clip_with_bounded_scale(x: Tensor, z: Tensor, scale: Tensor) -> Tensor:
    a, b = functional.normalize(x, dim=-1), functional.normalize(z, dim=-1)
    return scale.clamp(max=math.log(100.0)).exp() * a @ b.T


@forms(X, bits(4, 8))
def binary_cross_entropy(x: Tensor, y: Tensor) -> Tensor:
    return (x.clamp(min=0) - x * y + torch.log1p(torch.exp(-x.abs()))).mean()


@forms(X)
def softplus_by_hand(x: Tensor) -> Tensor:
    return torch.relu(x) + torch.log1p(torch.exp(-torch.abs(x)))


@forms(X, bits(4, 8))
def focal_by_logsigmoid(x: Tensor, y: Tensor) -> Tensor:
    signed = (2 * y - 1) * x
    return -(torch.sigmoid(-signed) ** 2 * functional.logsigmoid(signed)).mean()


@forms(X[:, 0], Z[:, 0])
def preference(chosen: Tensor, rejected: Tensor) -> Tensor:
    return -functional.logsigmoid(0.1 * (chosen - rejected)).mean()


@forms(X)
def free_energy(v: Tensor) -> Tensor:
    return -functional.softplus(v).sum(-1)


@forms(X, X[:, :1])
def log_mixture(x: Tensor, target: Tensor) -> Tensor:
    weight, mean = x.chunk(2, -1)
    return -torch.logsumexp(functional.log_softmax(weight, -1) - 0.5 * (target - mean) ** 2, -1)


@forms(uniform(4, 4), cost=(0.0, 1e4))
def sinkhorn_in_logs(cost: Tensor) -> Tensor:
    s = -cost / 0.1
    for _ in range(3):
        s = s - torch.logsumexp(s, 1, keepdim=True)
        s = s - torch.logsumexp(s, 0, keepdim=True)
    return s.exp()


@forms(normal(5, 4), normal(4, 4))
def forward_algorithm_in_logs(emitted: Tensor, move: Tensor) -> Tensor:
    logs = functional.log_softmax(move, -1)
    alpha = emitted[0]
    for step in emitted[1:]:
        alpha = torch.logsumexp(alpha[:, None] + logs, 0) + step
    return torch.logsumexp(alpha, -1)


@forms(X)
def likelihood_as_sum_of_logs(x: Tensor) -> Tensor:
    return functional.logsigmoid(x).cumsum(-1)


# -- exponentials that cannot overflow ---------------------------------------------------------------------------------


@forms(X)
def gaussian_window(x: Tensor) -> Tensor:
    return torch.exp(-0.5 * x**2)


@forms(X)
def laplace_window(x: Tensor) -> Tensor:
    return torch.exp(-x.abs())


@forms(X)
def decay(x: Tensor) -> Tensor:
    return torch.exp(-functional.softplus(x))


@forms(X)
def bounded_gain(x: Tensor) -> Tensor:
    return torch.exp(torch.tanh(x))


@forms(X, Z)
def clamped_variance(mean: Tensor, log_variance: Tensor) -> Tensor:
    s = log_variance.clamp(-10.0, 10.0)
    return -0.5 * (1 + s - mean.clamp(-100, 100) ** 2 - s.exp()).sum(-1)


@forms(X, Z)
def clamped_ratio(new: Tensor, old: Tensor) -> Tensor:
    return torch.exp((new - old).clamp(-20, 20))


@forms(X)
def squashed_policy(u: Tensor) -> Tensor:
    return 2 * (math.log(2.0) - u - functional.softplus(-2 * u))


@forms(X, uniform(4, 8, low=0.1, high=0.9), u=(0.0, 1.0))
def gumbel_inside(x: Tensor, u: Tensor) -> Tensor:
    g = -torch.log(-torch.log(u.clamp(1e-6, 1 - 1e-6)))
    return torch.softmax(x + g, -1)


@forms(IMAGE)
def soft_cap(x: Tensor) -> Tensor:
    return 30.0 * torch.tanh(x / 30.0)


@forms(X)
def gelu_by_tanh(x: Tensor) -> Tensor:
    y = x.clamp(-1e3, 1e3)
    return 0.5 * y * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y * y * y)))


@forms(X)
def quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


@forms(X)
def mish(x: Tensor) -> Tensor:
    return x * torch.tanh(functional.softplus(x))


# -- guarded divisions, logs and roots ---------------------------------------------------------------------------------


@forms(POSITIVE, counts=(0.0, 1e6))
def guarded_shares(counts: Tensor) -> Tensor:
    return counts / (counts.sum(-1, keepdim=True) + 1e-6)


@forms(normal(2, 6, 8), torch.ones(2, 6), mask=(0.0, 1.0))
def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1.0)


@forms(bits(9), bits(9), predicted=(0.0, 1.0), actual=(0.0, 1.0))
def smoothed_dice(predicted: Tensor, actual: Tensor) -> Tensor:
    return 1 - (2 * (predicted * actual).sum() + 1) / (predicted.sum() + actual.sum() + 1)


@forms(POSITIVE)
def replaced_zeros(x: Tensor) -> Tensor:
    safe = torch.where(x == 0, torch.ones_like(x), x)
    return torch.where(x == 0, torch.zeros_like(x), 1.0 / safe.abs().clamp(min=1e-3))


@forms(X)
def normalised(x: Tensor) -> Tensor:
    return functional.normalize(x, dim=-1)


@forms(X, x=(-1e6, 1e6))
def clamped_norm(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)


@forms(X, Z)
def cosine(x: Tensor, z: Tensor) -> Tensor:
    return functional.cosine_similarity(x, z)


@forms(X, x=(-1e6, 1e6))
def rms_norm(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


@forms(X, x=(-1e6, 1e6))
def layer_norm(x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt(centred.pow(2).mean(-1, keepdim=True) + 1e-5)


@forms(IMAGE, x=(-1e6, 1e6))
def instance_norm(x: Tensor) -> Tensor:
    variance, mean = torch.var_mean(x, dim=(2, 3), keepdim=True, correction=0)
    return (x - mean) * torch.rsqrt(variance + 1e-5)


@forms(X)
def standardised_with_guard(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / (x.std(0) + 1e-5)


@forms(shares(4, 8), p=(0.0, 1.0))
def clamped_log(p: Tensor) -> Tensor:
    return torch.log(p.clamp(min=1e-8))


@forms(shares(4, 8), p=(0.0, 1.0))
def guarded_log(p: Tensor) -> Tensor:
    return torch.log(p + 1e-6)


@forms(POSITIVE, x=(0.0, 1e6))
def log_of_one_plus(x: Tensor) -> Tensor:
    return torch.log1p(x)


@forms(X, x=(-1e6, 1e6))
def charbonnier(x: Tensor) -> Tensor:
    return torch.sqrt(x * x + 1e-6).mean()


@forms(IMAGE, x=(0.0, 100.0))
def generalised_mean_pooling(x: Tensor) -> Tensor:
    return x.clamp(min=1e-3).pow(3.0).mean((-2, -1)).pow(1 / 3.0)


@forms(X, Z)
def clamped_angle(x: Tensor, z: Tensor) -> Tensor:
    c = functional.cosine_similarity(x, z)
    return torch.acos(c.clamp(-1 + 1e-6, 1 - 1e-6))


@forms(X, Z, x=(-1e6, 1e6), z=(-1e6, 1e6))
def angle_by_atan2(x: Tensor, z: Tensor) -> Tensor:
    return torch.atan2((x - z).norm(dim=-1), (x + z).norm(dim=-1) + 1e-6)


@forms(uniform(3, 4), uniform(3, 4), a=(0.0, 1e3), b=(0.0, 1e3))
def intersection_over_union(a: Tensor, b: Tensor) -> Tensor:
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    sizes = (a[:, 2:] - a[:, :2]).clamp(min=0).prod(-1) + (b[:, 2:] - b[:, :2]).clamp(min=0).prod(-1)
    return shared / (sizes - shared).clamp(min=1e-6)


@forms(X, x=(-1e6, 1e6))
def min_max_with_guard(x: Tensor) -> Tensor:
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    return (x - low) / (high - low).clamp(min=1e-6)


@forms(torch.eye(4) + 0.5, X, adjacency=(0.0, 1.0))
def graph_convolution(adjacency: Tensor, x: Tensor) -> Tensor:
    loops = adjacency + torch.eye(4)
    root = loops.sum(-1).rsqrt()
    return root[:, None] * loops * root @ x


@forms(X, x=(-1e6, 1e6))
def two_pass_variance(x: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)).square().mean(-1)

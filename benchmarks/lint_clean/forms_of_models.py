"""Attention, images, schedules and 16-bit arithmetic that are written by hand and stable."""

from __future__ import annotations

import math
from typing import Any

import torch
from lint_cases.entry import causal, classes, normal, uniform
from torch import Tensor
from torch.nn import functional

from lint_clean.entry import Forms

forms = Forms("stable formulas")

torch.manual_seed(0)
X, Z, POSITIVE = normal(4, 8), normal(4, 8), uniform(4, 8) + 0.5
IMAGE, LABELS = normal(2, 3, 6, 6), classes(4, below=8)


# -- attention ---------------------------------------------------------------------------------------------------------

Q, K, V = normal(1, 2, 6, 8), normal(1, 2, 6, 8), normal(1, 2, 6, 8)


@forms(Q, K, V)
def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v)


@forms(Q, K, V)
def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


@forms(Q, K, V)
def attention_by_softmax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.mT / math.sqrt(8.0), -1) @ v


@forms(Q, K, V, causal(6))
def masked_with_infinity(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = (q @ k.mT / math.sqrt(8.0)).masked_fill(~torch.ones(6, 6).tril().bool(), -math.inf)
    return torch.softmax(scores.masked_fill(~mask, -1e4), -1) @ v


@forms(Q, K, causal(6))
def masked_with_minimum(q: Tensor, k: Tensor, mask: Tensor) -> Tensor:
    scores = q @ k.mT / math.sqrt(8.0)
    return torch.softmax(torch.where(mask, scores, torch.finfo(torch.float32).min), -1)


@forms(Q, K, torch.ones(1, 6), mask=(0.0, 1.0))
def masked_with_minus_billion(q: Tensor, k: Tensor, mask: Tensor) -> Tensor:
    return torch.softmax(q @ k.mT * 8**-0.5 + (1.0 - mask) * -1e9, -1)


@forms(Q, K)
def attention_with_linear_bias(q: Tensor, k: Tensor) -> Tensor:
    distance = torch.arange(6)[None, :] - torch.arange(6)[:, None]
    return torch.softmax(q @ k.mT * 8**-0.5 - 0.5 * distance.abs(), -1)


@forms(Q)
def rotary(q: Tensor) -> Tensor:
    angle = torch.arange(6.0)[:, None] * torch.exp(-math.log(1e4) * torch.arange(4.0) / 4)
    a, b = q.chunk(2, -1)
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


@forms(normal(4, 6))
def top_experts(x: Tensor) -> tuple[Tensor, Tensor]:
    values, indices = torch.topk(x, 2)
    return torch.softmax(values, -1), indices


@forms(X)
def linear_attention(x: Tensor) -> Tensor:
    q, k = functional.elu(x) + 1, functional.elu(x.clamp(-1e3, 1e3)) + 1
    return (q @ (k.T @ x.clamp(-1e3, 1e3))) / (q @ k.sum(0)[:, None] + 1e-6)


# -- images, schedules, geometry ---------------------------------------------------------------------------------------


@forms(IMAGE, x=(0.0, 1.0))
def standardised_image(x: Tensor) -> Tensor:
    mean, spread = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (x - mean[:, None, None]) / spread[:, None, None]


@forms(IMAGE, torch.tensor([3, 7]))
def diffusion_step(x: Tensor, t: Tensor) -> Tensor:
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 10), 0)[t][:, None, None, None]
    return (x - torch.sqrt(1 - kept) * 0.5) / torch.sqrt(kept)


@forms(torch.tensor([3.0, 7.0]), t=(0.0, 1000.0))
def sinusoids(t: Tensor) -> Tensor:
    frequency = torch.exp(-math.log(10000.0) * torch.arange(4) / 4)
    angle = t[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], -1)


@forms(IMAGE)
def bilinear(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


@forms(normal(5, 3), x=(-1e3, 1e3))
def pairwise_distances(x: Tensor) -> Tensor:
    return torch.sqrt((x[:, None] - x[None]).square().sum(-1) + 1e-6)


@forms(normal(5, 3))
def distances_by_cdist(x: Tensor) -> Tensor:
    return torch.cdist(x, x)


@forms(POSITIVE, x=(0.0, 10.0))
def periodic(x: Tensor) -> Tensor:
    return torch.sin(x) ** 2 + torch.cos(x)


@forms(X)
def statistics(x: Tensor) -> tuple[Any, ...]:
    return x.mean(-1), x.amax(-1), x.median(-1).values, x.std(-1)


# -- 16 bits -----------------------------------------------------------------------------------------------------------

_SMALL = (-8.0, 8.0)


@forms(X, half=True)
def softmax_in_half(x: Tensor) -> Tensor:
    return torch.softmax(x, -1)


@forms(X, half=True)
def softmax_in_float_of_half(x: Tensor) -> Tensor:
    return torch.softmax(x.float(), -1).half()


@forms(X, half=True)
def rms_norm_in_float_of_half(x: Tensor) -> Tensor:
    y = x.float()
    return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)


@forms(X, half=True)
def layer_norm_of_half(x: Tensor) -> Tensor:
    return functional.layer_norm(x, (8,))


@forms(Q, K, V, half=True, q=_SMALL, k=_SMALL, v=_SMALL)
def attention_of_half(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v)


@forms(Q, K, V, half=True, q=_SMALL, k=_SMALL, v=_SMALL)
def scaled_scores_of_half(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax((q * 8**-0.5) @ k.mT, -1) @ v


@forms(Q, K, causal(6), half=True, q=_SMALL, k=_SMALL)
def masked_scores_of_half(q: Tensor, k: Tensor, mask: Tensor) -> Tensor:
    scores = (q * 8**-0.5) @ k.mT
    return torch.softmax(scores.masked_fill(~mask, torch.finfo(torch.float16).min), -1)


@forms(X, half=True)
def gelu_of_half(x: Tensor) -> Tensor:
    return functional.gelu(x)


@forms(X.bfloat16())
def bfloat16_softmax(x: Tensor) -> Tensor:
    return torch.softmax(x, -1)


@forms(X.bfloat16(), Z.bfloat16())
def bfloat16_product(x: Tensor, z: Tensor) -> Tensor:
    return torch.relu(x @ z.T)


@forms(X.bfloat16(), LABELS)
def bfloat16_loss(x: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(x.float(), y)


@forms(X.double())
def float64_softmax(x: Tensor) -> Tensor:
    return torch.softmax(x, -1)

"""Near misses that are already stable: they come back bit for bit, with no finding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.panel.inputs import labels, logits, real, target, values
from tests.panel.near_miss import SPECIAL, NearMisses

FORMS = NearMisses()
near = FORMS.near
X = (logits(5, 5),)
XX = (logits(5, 5), logits(5, 5))
R = (real(5, 5),)


@near("clean", X, "max-shifted softmax by hand", rows=SPECIAL)
def stable_softmax(x: Tensor) -> Tensor:
    e = torch.exp(x - x.max(dim=-1, keepdim=True).values)
    return e / e.sum(-1, keepdim=True)


@near("clean", X, "amax, detached", rows=SPECIAL)
def stable_softmax_detached(x: Tensor) -> Tensor:
    e = torch.exp(x - x.amax(dim=-1, keepdim=True).detach())
    return e / e.sum(-1, keepdim=True)


@near("clean", X, "max-shifted log-softmax by hand", rows=SPECIAL, domain="log")
def stable_log_softmax(x: Tensor) -> Tensor:
    z = x - x.amax(-1, keepdim=True)
    return z - z.exp().sum(-1, keepdim=True).log()


@near("clean", X, "max-shifted log-sum-exp by hand", rows=SPECIAL, domain="log")
def stable_logsumexp(x: Tensor) -> Tensor:
    m = x.amax(-1, keepdim=True)
    return (m + (x - m).exp().sum(-1, keepdim=True).log()).squeeze(-1)


@near(
    "clean",
    R,
    "softplus by hand, the stable way",
    families=("benign", "small", "tail", "large"),
    rows=SPECIAL,
    exportable=False,
)
def stable_softplus(x: Tensor) -> Tensor:
    return torch.clamp(x, min=0) + torch.log1p(torch.exp(-torch.abs(x)))


@near(
    "clean",
    (real(5, 5), labels(5, 5)),
    "binary cross-entropy by hand, the stable way",
    families=("benign", "tail", "large"),
    exportable=False,
)
def stable_bce(x: Tensor, y: Tensor) -> Tensor:
    return (torch.relu(x) - x * y + torch.log1p(torch.exp(-x.abs()))).mean()


@near("clean", R, "log1p and expm1 themselves", families=("benign", "small"), exportable=False)
def stable_increments(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.log1p(x * x), torch.expm1(x)


@near("clean", X, "the fused softmax, log-softmax and log-sum-exp", rows=SPECIAL)
def fused_family(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return F.softmax(x, -1), F.log_softmax(x, -1), torch.logsumexp(x, -1)


@near(
    "clean", R, "the fused elementwise functions", families=("benign", "tail", "large"), rows=SPECIAL, exportable=False
)
def fused_elementwise(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return F.softplus(x), F.logsigmoid(x), torch.sigmoid(x)


@near("clean", (logits(5, 5), target(5, classes=5)), "the fused cross-entropy", exportable=False)
def fused_cross_entropy(x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(x, y)


@near("clean", (real(5, 5), labels(5, 5)), "the fused binary cross-entropy", exportable=False,
      families=("benign", "tail", "large"))  # fmt: skip
def fused_bce(x: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(x, y)


@near("clean", (values(2, 5, 4), values(2, 5, 4), values(2, 5, 3)), "the fused attention", families=("benign",),
      exportable=False)  # fmt: skip
def fused_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


@near("clean", XX, "logaddexp", domain="log", exportable=False)
def fused_logaddexp(a: Tensor, b: Tensor) -> Tensor:
    return torch.logaddexp(a, b)


@near("clean", X, "attention with a shifted softmax by hand", families=("benign", "large"))
def stable_attention(x: Tensor) -> Tensor:
    e = torch.exp(x - x.amax(-1, keepdim=True))
    return (e / e.sum(-1, keepdim=True)) @ x


@near("clean", R, "a two-pass variance", families=("benign",), in_float16="preserved")
def two_pass_variance(x: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)).pow(2).mean(-1)

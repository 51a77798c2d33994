"""The ATen operators that `export_accuracy.py` sweeps: how each is called, on which inputs.

Kinds of inputs (see `export_inputs.py`): "x" numbers of the whole format; "unit" numbers around [0, 1]; "xy" pairs of
them; "rows" a matrix of awkward rows, reduced along its last axis; "image" a small batch of channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Op:
    """name: as in the exporter's registry, without "aten::", "+" and what is special about this call behind it.
    terms: the sizes of what is added up, where the result may cancel: its error is measured against theirs."""

    name: str
    kind: str
    call: Callable[..., Any]

    @property
    def terms(self) -> Callable[..., Tensor] | None:
        return _TERMS.get(self.name) or _TERMS.get(self.name.partition("+")[0])


def _same(kind: str, calls: dict[str, Callable[..., Any]]) -> list[Op]:
    return [Op(name, kind, call) for name, call in calls.items()]


_TERMS: dict[str, Callable[..., Tensor]] = {
    "tanhshrink": lambda x: x.abs(),
    "rsub.Scalar": lambda x: x.abs() + 1.0,
    "log+guard": lambda x: torch.log(x.abs() + 1e-9).abs() + 1.0,
    "log+guard12": lambda x: torch.log(x.abs() + 1e-12).abs() + 1.0,
    "special_log_ndtr": lambda x: torch.special.log_ndtr(x).abs() + torch.finfo(torch.float32).tiny,
    "logaddexp": lambda x, y: torch.maximum(x.abs(), y.abs()) + 1.0,
    "logaddexp2": lambda x, y: torch.maximum(x.abs(), y.abs()) + 1.0,
    "lerp.Scalar": lambda x, y: x.abs() + y.abs(),
    "addcmul": lambda x, y: x.abs() + 0.5 * y * y,
    "addcdiv": lambda x, y: x.abs() + 0.5,
    "poisson_nll_loss": lambda x, y: torch.exp(x) + (x * y).abs(),
    "binary_cross_entropy_with_logits": lambda x, y: F.softplus(x.abs()) + x.abs(),
    "logsumexp": lambda x: x.abs().amax(-1) + 1.0,
    "logcumsumexp": lambda x: x.abs().cummax(-1).values + 1.0,
    "log_softmax.int": lambda x: x.abs().amax(-1, keepdim=True) + 1.0 + 0 * x,
    "log_softmax.int+first": lambda x: x.abs().amax(0, keepdim=True) + 1.0 + 0 * x,
    "cross_entropy_loss": lambda x: x.abs().amax(-1) * 2 + 1.0,
    "kl_div": lambda x: F.softmax(x.flip(-1), -1) * (x.abs().amax(-1, keepdim=True) * 4 + 1.0),
    "multilabel_soft_margin_loss": lambda x: x.abs().mean(-1) + 1.0,
    "mean.dim": lambda x: x.abs().mean(-1), "sum.dim_IntList": lambda x: x.abs().sum(-1),
    "cumsum": lambda x: x.abs().cumsum(-1),
    "matmul": lambda x: x.abs() @ x.abs().T,
    "scaled_dot_product_attention": lambda x: x[None].abs().amax(-2, keepdim=True) + 0 * x[None],
    "cosine_similarity": lambda x: torch.ones(x.shape[0], dtype=x.dtype),
    "pairwise_distance": lambda x: x.abs().amax(-1) * 2 + 1e-6,
    "cdist": lambda x: (x.abs().amax(-1)[:, None] + x.abs().amax(-1)[None, :]),
    "var.correction": lambda x: x.var(-1) + x.abs().amax(-1) ** 2 * 2.0**-40,
    "var.correction+0": lambda x: x.var(-1, correction=0) + x.abs().amax(-1) ** 2 * 2.0**-40,
    "layer_norm": lambda x: torch.ones_like(x), "rms_norm": lambda x: torch.ones_like(x),
    "group_norm": lambda x: torch.ones_like(x), "instance_norm": lambda x: torch.ones_like(x),
    "batch_norm": lambda x: torch.ones_like(x) * 1e2,
}  # fmt: skip


_UNARY = _same(
    "x",
    {
        "abs": torch.abs, "acos": torch.acos, "acosh": torch.acosh, "asin": torch.asin, "asinh": torch.asinh,
        "atan": torch.atan, "atanh": torch.atanh, "ceil": torch.ceil, "celu": F.celu,
        "celu+alpha": lambda x: F.celu(x, 0.5), "cos": torch.cos, "cosh": torch.cosh, "deg2rad": torch.deg2rad,
        "elu": F.elu, "elu+alpha": lambda x: F.elu(x, 2.0), "erf": torch.erf, "erfc": torch.erfc, "exp": torch.exp,
        "exp2": torch.exp2, "expm1": torch.expm1, "floor": torch.floor, "frac": torch.frac, "gelu": F.gelu,
        "gelu+tanh": lambda x: F.gelu(x, approximate="tanh"), "hardsigmoid": F.hardsigmoid, "hardswish": F.hardswish,
        "hardtanh": F.hardtanh, "leaky_relu": F.leaky_relu, "log": torch.log, "log10": torch.log10,
        "log1p": torch.log1p, "log2": torch.log2, "log_sigmoid": F.logsigmoid, "mish": F.mish, "neg": torch.neg,
        "pow.Tensor_Scalar+2": lambda x: x**2, "pow.Tensor_Scalar+3": lambda x: x**3,
        "pow.Tensor_Scalar+0.5": lambda x: x**0.5, "pow.Tensor_Scalar+-0.5": lambda x: x**-0.5,
        "pow.Tensor_Scalar+-1": lambda x: x**-1, "pow.Tensor_Scalar+1.5": lambda x: x**1.5,
        "pow.Scalar+2": lambda x: 2.0**x, "pow.Scalar+10": lambda x: 10.0**x,
        "rad2deg": torch.rad2deg, "reciprocal": torch.reciprocal, "relu": F.relu, "relu6": F.relu6,
        "round": torch.round, "round.decimals": lambda x: torch.round(x, decimals=2), "rsqrt": torch.rsqrt,
        "selu": F.selu, "sigmoid": torch.sigmoid, "sign": torch.sign, "silu": F.silu, "sin": torch.sin,
        "sinc": torch.sinc, "sinh": torch.sinh, "softplus": F.softplus,
        "softplus+beta": lambda x: F.softplus(x, 2.0, 30.0), "sqrt": torch.sqrt, "square": torch.square,
        "tan": torch.tan, "tanh": torch.tanh, "trunc": torch.trunc, "softsign": F.softsign,
        "special_erfcx": torch.special.erfcx, "special_log_ndtr": torch.special.log_ndtr,
        "special_ndtr": torch.special.ndtr, "threshold": lambda x: F.threshold(x, 0.1, 20.0),
        "nan_to_num": torch.nan_to_num, "hardshrink": F.hardshrink, "softshrink": F.softshrink,
        "tanhshrink": F.tanhshrink, "clamp": lambda x: torch.clamp(x, -1.5, 1e-9),
        "add.Scalar+tiny": lambda x: x + 1e-9, "sub.Scalar+tiny": lambda x: x - 1e-9,
        "mul.Scalar+near1": lambda x: x * 1.000001, "div.Scalar+near1": lambda x: x / 1.000001,
        "div.Scalar+3": lambda x: x / 3.0, "rsub.Scalar": lambda x: 1.0 - x,
        "log+guard": lambda x: torch.log(x + 1e-9), "log+guard12": lambda x: torch.log(x.abs() + 1e-12),
        "heaviside": lambda x: torch.heaviside(x, torch.zeros_like(x)),
    },
)  # fmt: skip

_UNIT = _same(
    "unit",
    {
        "logit": torch.logit, "logit+eps": lambda p: torch.logit(p, 1e-6), "erfinv": torch.erfinv,
        "special_entr": torch.special.entr, "special_ndtri": torch.special.ndtri,
    },
)  # fmt: skip

_BINARY = _same(
    "xy",
    {
        "add.Tensor": torch.add, "add.Tensor+alpha": lambda x, y: torch.add(x, y, alpha=0.5), "atan2": torch.atan2,
        "div.Tensor": torch.div, "div.Tensor_mode+floor": lambda x, y: torch.div(x, y, rounding_mode="floor"),
        "div.Tensor_mode+trunc": lambda x, y: torch.div(x, y, rounding_mode="trunc"),
        "fmod.Tensor": torch.fmod, "remainder.Tensor": torch.remainder, "hypot": torch.hypot,
        "lerp.Scalar": lambda x, y: torch.lerp(x, y, 0.3), "logaddexp": torch.logaddexp,
        "logaddexp2": torch.logaddexp2, "maximum": torch.maximum, "minimum": torch.minimum, "mul.Tensor": torch.mul,
        "pow.Tensor_Tensor": torch.pow, "sub.Tensor": torch.sub, "xlogy.Tensor": torch.xlogy,
        "special_xlog1py": torch.special.xlog1py, "copysign.Tensor": torch.copysign,
        "prelu": lambda x, y: F.prelu(x, y.flatten()[:1]), "where.self": lambda x, y: torch.where(x > y, x, y),
        "glu": lambda x, y: F.glu(torch.stack((x, y), -1), -1),
        "binary_cross_entropy_with_logits": lambda x, y: F.binary_cross_entropy_with_logits(
            x, torch.sigmoid(y), reduction="none"
        ),
        "smooth_l1_loss": lambda x, y: F.smooth_l1_loss(x, y, reduction="none"),
        "huber_loss": lambda x, y: F.huber_loss(x, y, reduction="none"),
        "mse_loss": lambda x, y: F.mse_loss(x, y, reduction="none"),
        "soft_margin_loss": lambda x, y: F.soft_margin_loss(x, torch.sign(y), reduction="none"),
        "poisson_nll_loss": lambda x, y: F.poisson_nll_loss(x, y, reduction="none"),
        "addcdiv": lambda x, y: torch.addcdiv(x, y, y, value=0.5),
        "addcmul": lambda x, y: torch.addcmul(x, y, y, value=0.5),
    },
)  # fmt: skip

_ROWS = _same(
    "rows",
    {
        "softmax.int": lambda x: F.softmax(x, -1), "log_softmax.int": lambda x: F.log_softmax(x, -1),
        "softmax.int+first": lambda x: F.softmax(x, 0), "log_softmax.int+first": lambda x: F.log_softmax(x, 0),
        "logsumexp": lambda x: torch.logsumexp(x, -1), "logcumsumexp": lambda x: torch.logcumsumexp(x, -1),
        "mean.dim": lambda x: x.mean(-1), "sum.dim_IntList": lambda x: x.sum(-1), "prod.dim_int": lambda x: x.prod(-1),
        "cumsum": lambda x: x.cumsum(-1), "cumprod": lambda x: x.cumprod(-1),
        "var.correction": lambda x: x.var(-1), "var.correction+0": lambda x: x.var(-1, correction=0),
        "std.correction": lambda x: x.std(-1), "std.correction+0": lambda x: x.std(-1, correction=0),
        "linalg_vector_norm": lambda x: x.norm(dim=-1), "linalg_vector_norm+1": lambda x: x.norm(p=1, dim=-1),
        "linalg_vector_norm+3": lambda x: x.norm(p=3, dim=-1),
        "linalg_vector_norm+inf": lambda x: x.norm(p=float("inf"), dim=-1),
        "normalize": lambda x: F.normalize(x, dim=-1),
        "normalize+guard": lambda x: x / (x.norm(dim=-1, keepdim=True) + 1e-8),
        "cosine_similarity": lambda x: F.cosine_similarity(x, x.flip(-1), dim=-1),
        "pairwise_distance": lambda x: F.pairwise_distance(x, x.flip(-1)),
        "layer_norm": lambda x: F.layer_norm(x, x.shape[-1:]),
        "layer_norm+eps": lambda x: F.layer_norm(x, x.shape[-1:], eps=1e-12),
        "rms_norm": lambda x: F.rms_norm(x, x.shape[-1:]),
        "rms_norm+eps": lambda x: F.rms_norm(x, x.shape[-1:], eps=1e-6),
        "amax": lambda x: x.amax(-1), "amin": lambda x: x.amin(-1), "max.dim": lambda x: x.max(-1).values,
        "cross_entropy_loss": lambda x: F.cross_entropy(x, _labels(x), reduction="none"),
        "cross_entropy_loss+smooth": lambda x: F.cross_entropy(x, _labels(x), reduction="none", label_smoothing=0.1),
        "nll_loss": lambda x: F.nll_loss(x, _labels(x), reduction="none"),
        "kl_div": lambda x: F.kl_div(F.log_softmax(x, -1), F.softmax(x.flip(-1), -1), reduction="none"),
        "softmin": lambda x: F.softmin(x, -1), "log_softmax+half": lambda x: F.log_softmax(x * 0.5, -1),
        "scaled_dot_product_attention": lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None]),
        "scaled_dot_product_attention+mask": lambda x: _attention(x, _mask(x)),
        "scaled_dot_product_attention+bias": lambda x: _attention(x, _mask(x).to(x.dtype).log()),
        "matmul": lambda x: x @ x.T, "cdist": lambda x: torch.cdist(x, x.flip(-1)),
        "multilabel_soft_margin_loss": lambda x: F.multilabel_soft_margin_loss(
            x, (x > 0).to(x.dtype), reduction="none"
        ),
        "local_response_norm": lambda x: F.local_response_norm(x[:, :, None], 3),
    },
)  # fmt: skip

_IMAGE = _same(
    "image",
    {
        "group_norm": lambda x: F.group_norm(x, 2), "instance_norm": F.instance_norm,
        "batch_norm": lambda x: F.batch_norm(x, x[0].mean((1, 2)), x[0].var((1, 2))),
        "avg_pool2d": lambda x: F.avg_pool2d(x, 2), "max_pool2d": lambda x: F.max_pool2d(x, 2),
        "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 1),
        "upsample_bilinear2d.vec": lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"),
        "softmax.int+channels": lambda x: F.softmax(x, 1),
    },
)  # fmt: skip

OPS: tuple[Op, ...] = (*_UNARY, *_UNIT, *_BINARY, *_ROWS, *_IMAGE)


def _attention(x: Tensor, mask: Tensor) -> Tensor:
    q = x[None, None].clamp(-1e3, 1e3)
    return F.scaled_dot_product_attention(q, q, q, attn_mask=mask)


def _mask(x: Tensor) -> Tensor:
    """Nothing to attend to in the first row."""
    return torch.ones(x.shape[0], x.shape[0]).tril(-1).bool()


def _labels(x: Tensor) -> Tensor:
    return torch.arange(x.shape[0]) % x.shape[-1]

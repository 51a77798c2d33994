"""float16 and bfloat16: scores, norms, masks and constants that float32 holds and they do not."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lint_cases.entry import Attention, Registry, Tokens, classes, filled, normal, times, uniform

register = Registry()

_SCORES = "float16 QKᵀ"
_NORMS = "norms in float16"
_SUMS = "sums in float16"
_CONSTANTS = "constants beyond float16"
_MASKS = "finfo.min + bias masks"
_EXPONENTIALS = "exp in float16"

_BOUNDED = {"q": (-60.0, 60.0), "k": (-60.0, 60.0)}


def _projected() -> tuple[Tensor, ...]:
    return normal(1, 2, 6, 64), normal(1, 2, 6, 64), normal(1, 2, 6, 64)


def _padding() -> Tensor:
    mask = torch.ones(2, 6)
    mask[:, -2:] = 0
    return mask


@register("scores-before-scaling", _SCORES, "STB5", "STB6", half=True, overflows=True, ranges=_BOUNDED,
          example=_projected, breaking=filled(60.0, 0, 1))  # fmt: skip
class ScoresBeforeScaling(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = torch.matmul(q, k.transpose(-1, -2)) / 8.0  # defect
        return torch.softmax(scores, -1) @ v


@register("scores-by-einsum", _SCORES, "STB5", "STB6", half=True, overflows=True, ranges=_BOUNDED,
          example=_projected, breaking=filled(60.0, 0, 1))  # fmt: skip
class ScoresByEinsum(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = torch.einsum("bhid,bhjd->bhij", q, k)  # defect
        weights = torch.softmax(scores * 0.125, -1)  # defect
        return torch.einsum("bhij,bhjd->bhid", weights, v)


@register("scores-by-bmm", _SCORES, "STB5", "STB6", half=True, overflows=True, ranges=_BOUNDED,
          example=lambda: (normal(2, 6, 64), normal(2, 6, 64)), breaking=filled(60.0, 0, 1))  # fmt: skip
class ScoresByBmm(nn.Module):
    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        scores = torch.bmm(q, k.mT)  # defect
        return torch.softmax(scores.float() * 0.125, -1)  # defect


@register("scores-of-projections", _SCORES, "STB5", "STB6", half=True, overflows=True, ranges={"x": (-100.0, 100.0)},
          example=lambda: (normal(2, 6, 16),), breaking=filled(100.0))  # fmt: skip
class ScoresOfProjections(Attention):
    """What a model that trained in bfloat16 does in float16."""

    def __init__(self) -> None:
        super().__init__()
        for layer in (self.query, self.key):
            nn.init.constant_(layer.weight, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        scores = q @ k.transpose(-1, -2) / self.depth**0.5  # defect
        return self.joined(torch.softmax(scores, -1) @ v)


@register("logits-of-large-vocabulary", _SCORES, "STB5", "STB6", half=True, overflows=True,
          ranges={"x": (-200.0, 200.0), "table": (-200.0, 200.0)},
          example=lambda: (normal(4, 64), normal(64, 64)), breaking=filled(200.0, 0, 1))  # fmt: skip
class TiedLogits(nn.Module):
    """Logits of features and tied embeddings, scaled afterwards."""

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        logits = torch.addmm(torch.zeros(64, dtype=x.dtype), x, table.t())  # defect
        return torch.log_softmax(logits * 0.01, -1)  # defect


@register("cosine-in-half", _NORMS, "STB242", "STB4", "STB5", half=True, overflows=True, ranges={"a": (-1e3, 1e3)},
          example=lambda: (normal(4, 8), normal(4, 8)), breaking=times(400.0, 0))  # fmt: skip
class CosineInHalf(nn.Module):
    """Squares pass 65504 from 255.9 on."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        lengths = a.pow(2).sum(-1).sqrt() * b.pow(2).sum(-1).sqrt()  # defect
        return (a * b).sum(-1) / lengths.clamp(min=1e-4)  # defect


@register("unit-vectors-in-half", _NORMS, "STB242", "STB4", "STB5", half=True, overflows=True,
          ranges={"x": (-1e3, 1e3)},
          example=lambda: (normal(4, 8),), breaking=times(400.0))  # fmt: skip
class UnitVectorsInHalf(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        length = torch.sqrt(torch.sum(x * x, dim=-1, keepdim=True))  # defect
        return x / (length + 1e-3)  # defect


@register("rms-norm-in-half", _NORMS, "STB242", "STB4", "STB5", half=True, overflows=True, ranges={"x": (-1e3, 1e3)},
          example=lambda: (normal(4, 8),), breaking=times(400.0))  # fmt: skip
class RmsNormInHalf(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        variance = x.pow(2).mean(-1, keepdim=True)  # defect
        return self.weight * x * torch.rsqrt(variance + 1e-5)  # defect


@register("layer-norm-in-half", _NORMS, "STB242", "STB4", "STB5", half=True, overflows=True, ranges={"x": (-2e3, 2e3)},
          example=lambda: (normal(4, 8),), breaking=times(600.0))  # fmt: skip
class LayerNormInHalf(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = (centred * centred).mean(-1, keepdim=True)  # defect
        return centred / torch.sqrt(variance + 1e-5)  # defect


@register("vanishing-guard-in-half", _NORMS, "STB242", "STB4", "STB5", half=True, breaking=filled(0.0),
          example=lambda: (normal(4, 8),), ranges={"x": (-10.0, 10.0)})  # fmt: skip
class VanishingGuardInHalf(nn.Module):
    """An epsilon of 1e-8 is 0 in float16."""

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.abs().sum(-1, keepdim=True) + 1e-8)  # defect


@register("gradient-penalty-in-half", _NORMS, "STB242", "STB4", "STB5", half=True, overflows=True,
          example=lambda: (normal(2, 64),), breaking=times(1e3), ranges={"slopes": (-6e4, 6e4)})  # fmt: skip
class PenaltyInHalf(nn.Module):
    def forward(self, slopes: Tensor) -> Tensor:
        return ((slopes.square().sum(-1).sqrt() - 1) ** 2).mean()  # defect


@register("counts-in-half", _SUMS, "STB242", "STB4", "STB5", half=True, overflows=True, ranges={"x": (0.0, 1000.0)},
          example=lambda: (uniform(2, 128, low=1.0),), breaking=filled(1000.0))  # fmt: skip
class CountsInHalf(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / x.sum(-1, keepdim=True)  # defect


@register("squared-error-in-half", _SUMS, "STB242", "STB4", "STB5", half=True, overflows=True,
          ranges={"x": (-500.0, 500.0),
          "y": (-500.0, 500.0)}, example=lambda: (normal(4, 8), normal(4, 8)),
          breaking=lambda i: (i[0] * 0 + 400, i[1] * 0 - 400))  # fmt: skip
class SquaredErrorInHalf(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.sqrt(((x - y) ** 2).mean())  # defect


@register("softmax-in-half", _EXPONENTIALS, "STB1", half=True, overflows=True, ranges={"x": (-40.0, 40.0)},
          example=lambda: (normal(4, 8),), breaking=filled(40.0))  # fmt: skip
class SoftmaxInHalf(nn.Module):
    """Logits of 12 are enough."""

    def forward(self, x: Tensor) -> Tensor:
        e = torch.exp(x)  # defect
        return e / e.sum(-1, keepdim=True)  # defect


@register("softplus-in-bfloat16", _EXPONENTIALS, "STB2", overflows=True, breaking=filled(1e3),
          ranges={"x": (-2e3, 2e3)},
          example=lambda: (normal(4, 8),))  # fmt: skip
class SoftplusInBfloat16(nn.Module):
    """Cast down for speed."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.bfloat16()
        return torch.log(1 + torch.exp(y)).float()  # defect


@register("exp-of-scale-in-half", _EXPONENTIALS, "STB2", "STB5", half=True, overflows=True, breaking=filled(30.0),
          ranges={"s": (-50.0, 50.0)}, example=lambda: (normal(4, 8), normal(4, 8)))  # fmt: skip
class ExpOfScaleInHalf(nn.Module):
    def forward(self, s: Tensor, noise: Tensor) -> Tensor:
        return noise * torch.exp(s)  # defect


@register("cast-of-large-activations", _CONSTANTS, "STB5", overflows=True, breaking=times(1e5),
          ranges={"x": (-1e6, 1e6)}, example=lambda: (normal(4, 8),))  # fmt: skip
class CastOfLargeActivations(nn.Module):
    """float32 activations handed to a float16 head."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 5).half()

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.head(x.half()), -1)  # defect


@register("masked-fill-in-half", _CONSTANTS, "STB242", "STB5", "STB6", half=True, overflows=True,
          ranges={"scores": (-50.0, 50.0)}, breaking=lambda i: (i[0], i[1] * 0),
          example=lambda: (normal(2, 6, 6), _padding()[:, None, :].expand(2, 6, 6).clone()))  # fmt: skip
class MinusBillionInHalf(nn.Module):
    """(1 − mask)·(−1e9): 0·−inf is NaN wherever nothing is masked."""

    def forward(self, scores: Tensor, mask: Tensor) -> Tensor:
        scores = scores + (1 - mask) * -1e9  # defect
        return torch.softmax(scores, -1)  # defect


@register("minus-trillion-buffer", _CONSTANTS, "STB242", "STB5", "STB6", overflows=True,
          breaking=lambda i: (i[0], torch.ones_like(i[1])), ranges={"x": (-50.0, 50.0)},
          example=lambda: (normal(2, 6, 6), _padding()[:, None, :].expand(2, 6, 6) == 0))  # fmt: skip
class MinusTrillionCast(nn.Module):
    """−1e12 in float32 is −inf after the cast: a row with everything masked is NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(-1e12))

    def forward(self, x: Tensor, absent: Tensor) -> Tensor:
        low = self.low.half()  # defect
        return torch.softmax(torch.where(absent, low, x.half()), -1).float()  # defect


@register(
    "largest-float-cast",
    _CONSTANTS,
    "STB242",
    "STB5",
    "STB6",
    overflows=True,
    breaking=lambda i: (i[0], i[1] * 0),
    ranges={"x": (-50.0, 50.0)},
    example=lambda: (normal(2, 6, 6), torch.ones(2, 6, 6).tril().bool().float()),
)
class LargestFloatCast(nn.Module):
    """−3.4e38 is −inf in float16: a row with everything masked is NaN."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        bias = torch.where(mask > 0, 0.0, torch.finfo(torch.float32).min)
        scores = x.half() + bias.half()  # defect
        return torch.softmax(scores, -1).float()  # defect


@register("two-minimum-masks", _MASKS, "STB242", "STB5", "STB6", overflows=True, breaking=lambda i: (i[0], i[1] * 0),
          ranges={"scores": (-50.0, 50.0)}, example=lambda: (normal(2, 6, 6), torch.ones(2, 6)))  # fmt: skip
class TwoMinimumMasks(nn.Module):
    """Absent queries plus absent keys, each the most negative number: their sum is −inf, whole rows of it NaN."""

    def forward(self, scores: Tensor, padding: Tensor) -> Tensor:
        absent = (1.0 - padding) * torch.finfo(torch.float32).min
        bias = absent[:, None, :] + absent[:, :, None]  # defect
        return torch.softmax(scores + bias, -1)  # defect


@register("minimum-mask-plus-bias", _MASKS, "STB242", "STB5", "STB6", half=True, overflows=True,
          breaking=lambda i: (i[0] * 0 - 30.0, i[1] * 0 - 50.0, i[2] * 0), ranges={"scores": (-50.0, 50.0),
          "bias": (-50.0, 50.0)}, example=lambda: (normal(2, 6, 6), normal(6, 6), _padding()))  # fmt: skip
class MinimumMaskPlusBias(nn.Module):
    """A position bias on top of finfo.min: −65504 − 50 is −inf from 16 on."""

    def forward(self, scores: Tensor, bias: Tensor, padding: Tensor) -> Tensor:
        lowest = torch.finfo(torch.float16).min
        absent = (1.0 - padding)[:, None, :] * lowest
        return torch.softmax(scores + bias + absent, -1)  # defect


@register("tokens-in-half", _SUMS, "STB242", "STB4", "STB5", half=True, breaking=lambda i: i, weights=300.0,
          overflows=True,
          example=lambda: (classes(2, 6, below=20),))  # fmt: skip
class TokensInHalf(Tokens):
    """Squares of embeddings, which overflow for trained weights above 255.9."""

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        return self.head(x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-3))  # defect

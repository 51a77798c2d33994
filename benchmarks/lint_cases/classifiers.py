"""Cross-entropies over classes, written by hand: softmax, then log."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lint_cases.entry import Attention, Mlp, Registry, Tokens, classes, normal, one_hot, same, shares, times

register = Registry()

_LOG = "log of softmax"
_NAIVE = "exp/Σexp, then log"
_CODES = ("STB10", "STB30")


def _labelled() -> tuple[Tensor, ...]:
    return normal(4, 8), one_hot(4)


def _indexed() -> tuple[Tensor, ...]:
    return normal(4, 8), classes(4)


@register("nll-of-softmax", _LOG, *_CODES, example=_labelled, breaking=times(1e4))
class NllOfSoftmax(Mlp):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        p = torch.softmax(self.body(x), dim=1)
        return -torch.sum(y * torch.log(p))  # defect


@register("mean-of-sums", _LOG, *_CODES, example=_labelled, breaking=times(1e4))
class MeanOfSums(Mlp):
    """The loss of a thousand tutorials."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        y_conv = nn.functional.softmax(self.body(x), -1)
        return torch.mean(-torch.sum(y * y_conv.log(), dim=[1]))  # defect


@register("convolution-softmax-log", _LOG, *_CODES, breaking=times(1e4),
          example=lambda: (normal(2, 3, 8, 8), one_hot(2)))  # fmt: skip
class ConvolutionSoftmaxLog(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        features = torch.relu(self.convolution(x)).mean((-2, -1))
        p = torch.softmax(self.head(features), -1)
        return (-y * torch.log(p)).sum(-1).mean()  # defect


@register("picked-probability", _LOG, *_CODES, example=_indexed, breaking=times(1e4))
class PickedProbability(Mlp):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        p = self.body(x).softmax(-1)
        picked = p.gather(1, y.unsqueeze(1)).squeeze(1)
        return -picked.log().mean()  # defect


@register("indexed-probability", _LOG, *_CODES, example=_indexed, breaking=times(1e4))
class IndexedProbability(Mlp):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        p = self.body(x).softmax(-1)
        return -torch.log(p[torch.arange(p.shape[0]), y]).mean()  # defect


@register("nll-loss-of-log", _LOG, *_CODES, example=_indexed, breaking=times(1e4))
class NllLossOfLog(Mlp):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        logp = torch.log(torch.softmax(self.body(x), dim=-1))  # defect
        return nn.functional.nll_loss(logp, y)


@register("language-model", _LOG, *_CODES, breaking=same, weights=30.0, example=lambda: (classes(2, 6, below=20),),
          )  # fmt: skip
class LanguageModel(Tokens):
    """Only tokens go in: what breaks are trained weights."""

    def forward(self, tokens: Tensor) -> Tensor:
        p = torch.softmax(self.head(self.embedding(tokens[:, :-1])), -1)
        picked = p.gather(-1, tokens[:, 1:].unsqueeze(-1))
        return -torch.log(picked).mean()  # defect


@register("exp-sum-log", _NAIVE, *_CODES, overflows=True, example=_labelled, breaking=times(1e4))
class ExpSumLog(Mlp):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        e = torch.exp(self.body(x))  # defect
        p = e / e.sum(-1, keepdim=True)  # defect
        return -(y * torch.log(p)).sum(-1).mean()  # defect


@register("exp-over-sum", _NAIVE, *_CODES, overflows=True, example=lambda: (normal(4, 8),), breaking=times(1e4))
class ExpOverSum(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        scores = self.body(x).exp()  # defect
        return scores / torch.sum(scores, dim=-1).unsqueeze(-1)  # defect


@register("log-of-sum-of-exps", _NAIVE, *_CODES, overflows=True, example=_indexed, breaking=times(1e4))
class LogOfSumOfExps(Mlp):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        z = self.body(x)
        partition = torch.log(torch.sum(torch.exp(z), dim=1))  # defect
        return (partition - z.gather(1, y[:, None])[:, 0]).mean()  # defect


@register("softmax-over-channels", _NAIVE, *_CODES, overflows=True, breaking=times(1e4),
          example=lambda: (normal(2, 3, 6, 6),))  # fmt: skip
class SoftmaxOverChannels(nn.Module):
    """A segmentation head."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        e = torch.exp(self.head(x))  # defect
        return e / e.sum(dim=1, keepdim=True)  # defect


@register("attention-pooling", _NAIVE, *_CODES, "STB242", "STB243", "STB601", overflows=True, breaking=times(1e4),
          example=lambda: (normal(2, 6, 8), torch.ones(2, 6)))  # fmt: skip
class AttentionPooling(nn.Module):
    """Document classification by attended words, with an epsilon against empty documents."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(8, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        a = torch.exp(self.score(x)).squeeze(-1)  # defect
        a = a * mask  # defect
        a = a / (a.sum(dim=1, keepdim=True) + 1e-7)  # defect
        return (x * a.unsqueeze(-1)).sum(1)  # defect


@register("naive-attention", _NAIVE, "STB601", "STB101", overflows=True, breaking=times(1e3),
          example=lambda: (normal(2, 6, 16),))  # fmt: skip
class NaiveAttention(Attention):
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        weights = torch.exp(q @ k.transpose(-2, -1) / self.depth**0.5)  # defect
        weights = weights / weights.sum(-1, keepdim=True)  # defect
        return self.joined(weights @ v)  # defect


@register("label-smoothing", _LOG, *_CODES, breaking=times(1e4), example=_labelled)
class LabelSmoothing(Mlp):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        p = torch.softmax(self.body(x), -1)
        target = y * 0.9 + 0.1 / self.out
        return -(target * torch.log(p)).sum(-1).mean()  # defect


@register("perplexity", _LOG, *_CODES, "STB243", breaking=times(1e4), example=_indexed)
class Perplexity(Mlp):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        p = torch.softmax(self.body(x), -1)
        loss = -torch.log(p.gather(1, y[:, None])).mean()  # defect
        return torch.exp(loss)  # defect


@register("exp-of-mean-loss", "exp of a loss", "STB2", overflows=True, breaking=times(1e4), example=_indexed)
class ExpOfMeanLoss(Mlp):
    """A perplexity whose loss is sound: exp overflows from a mean loss of 88.72 nats."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(self.body(x), y)
        return torch.exp(loss)  # defect


@register("distillation", _LOG, *_CODES, "STB3", breaking=times(1e4), example=lambda: (normal(4, 8), normal(4, 5)))
class Distillation(Mlp):
    def forward(self, x: Tensor, teacher: Tensor) -> Tensor:
        target = torch.softmax(teacher / 2.0, -1)
        p = torch.softmax(self.body(x) / 2.0, -1)
        return (target * (target.log() - p.log())).sum(-1).mean()  # defect


@register("entropy-of-softmax", "Σ p·log p, KL, JS", "STB1", "STB3", breaking=times(1e4),
          example=lambda: (normal(4, 8),))  # fmt: skip
class EntropyOfSoftmax(Mlp):
    """The bonus of a policy gradient: 0·−inf."""

    def forward(self, x: Tensor) -> Tensor:
        p = torch.softmax(self.body(x), -1)
        return -(p * torch.log(p)).sum(-1).mean()  # defect


@register("entropy-of-shares", "Σ p·log p, KL, JS", "STB2", "STB3", "STB4", breaking=lambda i: (torch.eye(4, 5),),
          example=lambda: (shares(4, 5),), ranges={"p": (0.0, 1.0)})  # fmt: skip
class EntropyOfShares(nn.Module):
    """Of probabilities that someone else computed."""

    def forward(self, p: Tensor) -> Tensor:
        return -(p * torch.log(p)).sum(-1).mean()  # defect


@register("divergence-of-softmaxes", "Σ p·log p, KL, JS", "STB1", "STB2", "STB3", breaking=times(1e4, 0, 1),
          example=lambda: (normal(4, 8), normal(4, 8)))  # fmt: skip
class DivergenceOfSoftmaxes(Mlp):
    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        p, q = torch.softmax(self.body(x), -1), torch.softmax(self.body(z), -1)
        return torch.sum(p * torch.log(p / q), -1).mean()  # defect


@register("jensen-shannon", "Σ p·log p, KL, JS", "STB1", "STB2", "STB3", breaking=times(1e4, 0, 1),
          example=lambda: (normal(4, 8), normal(4, 8)))  # fmt: skip
class JensenShannon(Mlp):
    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        p, q = torch.softmax(self.body(x), -1), torch.softmax(self.body(z), -1)
        m = 0.5 * (p + q)
        left = (p * (p / m).log()).sum(-1)  # defect
        right = (q * (q / m).log()).sum(-1)  # defect
        return 0.5 * (left + right).mean()


@register("integer-logits", _NAIVE, *_CODES, overflows=True, ranges={"votes": (0.0, 1000.0)},
          example=lambda: (classes(4, 5, below=9),), breaking=times(100))  # fmt: skip
class IntegerLogits(nn.Module):
    """Votes, turned into shares."""

    def forward(self, votes: Tensor) -> Tensor:
        e = torch.exp(votes.float())  # defect
        return e / e.sum(-1, keepdim=True)  # defect


@register("focal-loss", "focal loss", *_CODES, "STB2", "STB3", breaking=times(1e4), example=_indexed)
class FocalLoss(Mlp):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        p = torch.softmax(self.body(x), -1).gather(1, y[:, None])
        return (-((1 - p) ** 2.0) * torch.log(p)).mean()  # defect


@register("small-temperature", _NAIVE, "STB1", "STB2", overflows=True, breaking=times(1e4),
          example=lambda: (normal(4, 8),))  # fmt: skip
class SmallTemperature(Mlp):
    """Boltzmann exploration at a temperature of 0.01."""

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.exp(self.body(x) / 0.01)  # defect
        return weights / weights.sum(1, keepdim=True)  # defect


@register("wrong-shift", _NAIVE, *_CODES, overflows=False, breaking=times(1e4), example=lambda: (normal(4, 8),))
class ShiftOfTheBatch(Mlp):
    """Shifted by the maximum of the batch: rows far below it are 0/0."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.body(x)
        e = torch.exp(z - z.max())  # defect
        return e / e.sum(-1, keepdim=True)  # defect

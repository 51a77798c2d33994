"""Losses of one probability: sigmoids, preferences, log(1 + exp)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lint_cases.entry import Mlp, Registry, bits, classes, normal, one_entry, one_hot, shares, times, uniform

register = Registry()

_SIGMOID = "y·log σ + (1−y)·log(1−σ)"
_SOFTMAX = "y·log p + (1−y)·log(1−p)"
_ENERGY = "log(1 + exp)"
_PREFERENCE = "log σ"


class Scorer(Mlp):
    out = 1


def _binary() -> tuple[Tensor, ...]:
    return normal(4, 8), bits(4, 1)


@register("logistic-regression", _SIGMOID, "STB2", "STB302", breaking=times(1e4), example=_binary)
class LogisticRegression(Scorer):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        p = torch.sigmoid(self.body(x))
        return torch.mean(-(y * torch.log(p) + (1 - y) * torch.log(1 - p)))  # defect


@register("logistic-by-exp", _SIGMOID, "STB2", "STB302", overflows=True, breaking=times(1e4), example=_binary)
class LogisticByExp(Scorer):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        p = 1 / (1 + torch.exp(-self.body(x)))  # defect
        loss = y * torch.log(p) + (1 - y) * torch.log(1 - p)  # defect
        return -loss.mean()  # defect


@register("autoencoder-loss", _SIGMOID, "STB2", "STB302", breaking=times(1e4), example=lambda: (normal(4, 8),
          uniform(4, 8)), ranges={"pixels": (0.0, 1.0)})  # fmt: skip
class AutoencoderLoss(Mlp):
    out = 8

    def forward(self, x: Tensor, pixels: Tensor) -> Tensor:
        decoded = self.body(x).sigmoid()
        entropy = pixels * decoded.log() + (1.0 - pixels) * (1.0 - decoded).log()  # defect
        return -entropy.sum(1).mean()  # defect


@register("per-class-probability", _SOFTMAX, "STB1", "STB2", "STB3", breaking=times(1e4),
          example=lambda: (normal(4, 8), one_hot(4)))  # fmt: skip
class PerClassProbability(Mlp):
    """Each class of a softmax judged as if it were alone."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        p = torch.softmax(self.body(x), -1)
        loss = y * torch.log(p) + (1 - y) * torch.log(1 - p)  # defect
        return -loss.sum(-1).mean()  # defect


@register("probabilities-of-others", _SOFTMAX, "STB2", "STB3", "STB4", breaking=one_entry(0.0),
          ranges={"p": (0.0, 1.0)}, example=lambda: (shares(4, 5), one_hot(4)))  # fmt: skip
class ProbabilitiesOfOthers(nn.Module):
    """A loss of given probabilities."""

    def forward(self, p: Tensor, y: Tensor) -> Tensor:
        return -(y * torch.log(p) + (1 - y) * torch.log(1 - p)).mean()  # defect


@register("discriminator", _PREFERENCE, "STB2", "STB3", breaking=times(1e4, 0, 1),
          example=lambda: (normal(4, 8), normal(4, 8)))  # fmt: skip
class Discriminator(Scorer):
    """The two losses of the first adversarial networks."""

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        d_real, d_fake = torch.sigmoid(self.body(real)), torch.sigmoid(self.body(fake))
        return -torch.mean(torch.log(d_real) + torch.log(1.0 - d_fake))  # defect


@register("generator", _PREFERENCE, "STB2", breaking=times(1e4), example=lambda: (normal(32, 8),))
class Generator(Scorer):
    def forward(self, noise: Tensor) -> Tensor:
        return torch.mean(torch.log(1 - torch.sigmoid(self.body(noise))))  # defect


@register("pairwise-ranking", _PREFERENCE, "STB2", breaking=times(1e4, 0, 1), example=lambda: (normal(4, 8),
          normal(4, 8)))  # fmt: skip
class PairwiseRanking(Scorer):
    def forward(self, better: Tensor, worse: Tensor) -> Tensor:
        return -torch.log(torch.sigmoid(self.body(better) - self.body(worse))).mean()  # defect


@register("direct-preference", _PREFERENCE, "STB2", breaking=times(1e4, 0, 1), example=lambda: (normal(32), normal(32)))
class DirectPreference(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.tensor(0.5))

    def forward(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return -(self.beta * (chosen - rejected)).sigmoid().log().mean()  # defect


@register("skip-gram", _PREFERENCE, "STB2", weights=60.0, breaking=lambda i: i,
          example=lambda: (classes(6, below=20), classes(6, below=20), classes(6, 3, below=20)))  # fmt: skip
class SkipGram(nn.Module):
    """Word vectors with negative samples."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Embedding(20, 8), nn.Embedding(20, 8)

    def forward(self, word: Tensor, context: Tensor, negatives: Tensor) -> Tensor:
        v = self.inner(word)
        near = torch.log(torch.sigmoid((v * self.outer(context)).sum(-1)))  # defect
        far = torch.log(torch.sigmoid(-(v[:, None] * self.outer(negatives)).sum(-1)))  # defect
        return -(near + far.sum(-1)).mean()


@register("boltzmann-free-energy", _ENERGY, "STB201", overflows=True, breaking=times(1e4), example=lambda: (bits(4, 8),)
          )  # fmt: skip
class BoltzmannFreeEnergy(nn.Module):
    """Of a restricted Boltzmann machine."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(8, 6))
        self.visible, self.hidden = nn.Parameter(torch.zeros(8)), nn.Parameter(torch.zeros(6))

    def forward(self, v: Tensor) -> Tensor:
        wx = v @ self.w + self.hidden
        return -v @ self.visible - torch.sum(torch.log(1 + torch.exp(wx)), dim=1)  # defect


@register("contrastive-divergence", _ENERGY, "STB201", overflows=True, breaking=times(1e4, 0, 1),
          example=lambda: (normal(4, 8), normal(4, 8)))  # fmt: skip
class ContrastiveDivergence(Mlp):
    def energy(self, v: Tensor) -> Tensor:
        return -torch.exp(self.body(v)).add(1).log().sum(-1)  # defect

    def forward(self, data: Tensor, model: Tensor) -> Tensor:
        return self.energy(data).mean() - self.energy(model).mean()  # defect, as torch.onnx traces it


@register("softplus-scale", _ENERGY, "STB201", overflows=True, breaking=times(1e4), example=lambda: (normal(4, 8),))
class SoftplusScale(Mlp):
    """A scale that must be positive."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.log(torch.exp(self.body(x)) + 1.0)  # defect


@register("logistic-margin", _ENERGY, "STB201", "STB202", overflows=True, breaking=times(1e4),
          example=lambda: (normal(4, 8), bits(4, 1)))  # fmt: skip
class LogisticMargin(Scorer):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        margin = (2 * y - 1) * self.body(x)
        return torch.log(1 + torch.exp(-margin)).mean()  # defect


@register("soft-triplet", _ENERGY, "STB201", overflows=True, breaking=times(1e4, 0, 1, 2),
          example=lambda: (normal(4, 8), normal(4, 8), normal(4, 8)))  # fmt: skip
class SoftTriplet(Mlp):
    def forward(self, anchor: Tensor, near: Tensor, far: Tensor) -> Tensor:
        a, p, n = self.body(anchor), self.body(near), self.body(far)
        gap = (a - p).abs().sum(-1) - (a - n).abs().sum(-1)
        return torch.log1p(torch.exp(gap)).mean()  # defect


@register("mish-by-hand", _ENERGY, "STB2", gradient=True, breaking=times(1e4), example=lambda: (normal(2, 3, 6, 6),))
class MishByHand(nn.Module):
    """tanh(inf) is right after all; its slope is 0·inf."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.convolution(x)
        return y * torch.tanh(torch.log(1 + torch.exp(y)))  # defect


@register("sigmoid-of-positives", "exp/(1 + exp)", "STB203", overflows=True, breaking=times(1e4),
          example=lambda: (normal(4, 8),))  # fmt: skip
class SigmoidOfPositives(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        e = torch.exp(self.body(x))  # defect
        return e / (1 + e)  # defect


@register("tanh-by-exps", "exp/(1 + exp)", "STB204", overflows=True, breaking=times(1e4), example=lambda: (
          normal(4, 8),))  # fmt: skip
class TanhByExps(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        z = self.body(x)
        return (torch.exp(z) - torch.exp(-z)) / (torch.exp(z) + torch.exp(-z))  # defect


@register("odds", "p/(1 − p)", "STB2", "STB4", breaking=times(1e4), example=lambda: (normal(4, 8),))
class Odds(Scorer):
    def forward(self, x: Tensor) -> Tensor:
        p = torch.sigmoid(self.body(x))
        return torch.log(p / (1 - p))  # defect


@register("squashed-policy", "log(1 − tanh²)", "STB2", breaking=times(1e4), example=lambda: (normal(4, 8), normal(4, 5))
          )  # fmt: skip
class SquashedPolicy(Mlp):
    """The density of an action squashed by tanh."""

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        u = self.body(x) + 0.1 * noise
        return (-0.5 * noise**2 - torch.log(1 - torch.tanh(u) ** 2)).sum(-1)  # defect


@register("binary-focal", "focal loss", "STB2", "STB3", breaking=times(1e4), example=_binary)
class BinaryFocal(Scorer):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        p = torch.sigmoid(self.body(x))
        near = -y * (1 - p) ** 2 * torch.log(p)  # defect
        far = -(1 - y) * p**2 * torch.log(1 - p)  # defect
        return (near + far).mean()  # defect


@register("complementary-log-log", "log(1 − exp)", "STB2", breaking=times(1e4), example=lambda: (normal(4, 8),))
class ComplementaryLogLog(Scorer):
    """The chance of at least one event."""

    def forward(self, x: Tensor) -> Tensor:
        rate = nn.functional.softplus(self.body(x))
        return torch.log(1 - torch.exp(-rate))  # defect

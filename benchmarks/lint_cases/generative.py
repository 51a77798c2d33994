"""Variational autoencoders, mixtures, flows, samplers, policies, contrast: exponentials of what a network says."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lint_cases.entry import Mlp, Registry, filled, normal, one_entry, plus, shares, times, uniform

register = Registry()

_VAE = "VAE: exp, sqrt(exp), log(1 − σ)"
_MIXTURE = "mixture densities"
_RATIO = "π/π_old"
_CONTRAST = "InfoNCE"
_GUMBEL = "Gumbel"
_SINKHORN = "Sinkhorn"
_CHAIN = "products of probabilities"


class Encoder(nn.Module):
    """From 8 dimensions to a mean and a spread of 4, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.spread, self.decode = nn.Linear(8, 4), nn.Linear(8, 4), nn.Linear(4, 8)


@register("vae-divergence", _VAE, "STB2", overflows=True, breaking=times(1e4), example=lambda: (normal(4, 8),))
class VaeDivergence(Encoder):
    def forward(self, x: Tensor) -> Tensor:
        mean, log_variance = self.mean(x), self.spread(x)
        divergence = 1 + log_variance - mean.pow(2) - log_variance.exp()  # defect
        return -0.5 * divergence.sum(-1).mean()  # defect


@register("vae-sample", _VAE, "STB2", overflows=True, breaking=times(1e4), example=lambda: (normal(4, 8), normal(4, 4)))
class VaeSample(Encoder):
    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        deviation = torch.sqrt(torch.exp(self.spread(x)))  # defect
        return torch.tanh(self.decode(self.mean(x) + noise * deviation))


@register("vae-halved-exponent", _VAE, "STB2", overflows=True, breaking=times(1e4),
          example=lambda: (normal(4, 8), normal(4, 4)))  # fmt: skip
class VaeHalvedExponent(Encoder):
    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        z = self.mean(x) + noise * torch.exp(0.5 * self.spread(x))  # defect
        return torch.sigmoid(self.decode(z))


@register("vae-reconstruction", _VAE, "STB2", "STB302", breaking=times(1e4), ranges={"pixels": (0.0, 1.0)},
          example=lambda: (normal(4, 8), uniform(4, 8)))  # fmt: skip
class VaeReconstruction(Encoder):
    def forward(self, x: Tensor, pixels: Tensor) -> Tensor:
        p = torch.sigmoid(self.decode(self.mean(x)))
        seen = pixels * torch.log(p)  # defect
        return -(seen + (1 - pixels) * torch.log(1 - p)).sum(-1).mean()  # defect


@register("vae-small-guard", _VAE, "STB105", "STB2", "STB3", "STB5", breaking=times(1e4), half=True,
          ranges={"pixels": (0.0, 1.0)}, example=lambda: (normal(4, 8), uniform(4, 8)))  # fmt: skip
class VaeSmallGuard(Encoder):
    """A guard of 1e-8 is 0 in float16, and 1 + 1e-8 is 1."""

    def forward(self, x: Tensor, pixels: Tensor) -> Tensor:
        p = torch.sigmoid(self.decode(self.mean(x)))
        seen = pixels * torch.log(1e-8 + p)  # defect
        return -(seen + (1 - pixels) * torch.log(1e-8 + 1 - p)).sum(-1).mean()  # defect


@register("gaussian-by-variance", _VAE, "STB2", "STB4", "STB432", overflows=False, breaking=times(1e4),
          example=lambda: (normal(4, 8), normal(4, 4)))  # fmt: skip
class GaussianByVariance(Encoder):
    """Divided by a variance that underflows."""

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        variance = torch.exp(self.spread(x))  # defect
        return (torch.log(variance) + (target - self.mean(x)) ** 2 / variance).mean()  # defect


@register("free-bits", _VAE, "STB2", overflows=True, breaking=times(1e4), example=lambda: (normal(4, 8),))
class FreeBits(Encoder):
    def forward(self, x: Tensor) -> Tensor:
        mean, s = self.mean(x), self.spread(x)
        nats = 0.5 * (mean**2 + torch.exp(s) - s - 1)  # defect
        return torch.clamp(nats, min=0.1).sum(-1).mean()


@register("coupling-flow", "exp of a network", "STB2", overflows=True, breaking=times(1e4),
          example=lambda: (normal(4, 8),))  # fmt: skip
class CouplingFlow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x.chunk(2, -1)
        s = self.scale(a)
        moved = b * torch.exp(s) + self.shift(a)  # defect
        return torch.cat([a, moved], -1), s.sum(-1)


@register("poisson-rate", "exp of a network", "STB2", overflows=True, breaking=times(1e4),
          example=lambda: (normal(4, 8), normal(4, 5).abs().round()))  # fmt: skip
class PoissonRate(Mlp):
    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        rate = torch.exp(self.body(x))  # defect
        return (rate - counts * torch.log(rate)).mean()  # defect


@register("box-decoder", "exp of a network", "STB2", overflows=True, breaking=times(1e4),
          example=lambda: (normal(4, 8), uniform(4, 2) + 1))  # fmt: skip
class BoxDecoder(Mlp):
    """Widths and heights of boxes, as detectors decode them without a clamp."""

    out = 2

    def forward(self, x: Tensor, anchors: Tensor) -> Tensor:
        return anchors * torch.exp(self.body(x))  # defect


@register("mixture-density", _MIXTURE, "STB1", "STB2", "STB3", breaking=times(1e3, 1),
          example=lambda: (normal(4, 8), normal(4, 1)))  # fmt: skip
class MixtureDensity(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.mean, self.spread = nn.Linear(8, 3), nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        weight, s = torch.softmax(self.weight(x), -1), nn.functional.softplus(self.spread(x)) + 0.1
        z = (target - self.mean(x)) / s
        density = torch.exp(-0.5 * z**2) / (s * math.sqrt(2 * math.pi))  # defect
        return -torch.log((weight * density).sum(-1)).mean()  # defect


@register("mixture-of-logits", _MIXTURE, "STB1", "STB2", overflows=True, breaking=times(1e4),
          example=lambda: (normal(4, 8),))  # fmt: skip
class LogMeanExp(Mlp):
    """An ensemble's score."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.log(torch.mean(torch.exp(self.body(x)), dim=-1))  # defect


@register("gaussian-density", _MIXTURE, "STB2", breaking=times(1e3), example=lambda: (normal(4, 8),))
class GaussianDensity(nn.Module):
    """The density, and then its logarithm."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        density = torch.exp(-0.5 * ((x - self.mean) ** 2).sum(-1))  # defect
        return torch.log(density)  # defect


@register("policy-ratio", _RATIO, "STB2", "STB1", overflows=True, breaking=plus(200.0),
          example=lambda: (normal(4), normal(4), normal(4)))  # fmt: skip
class PolicyRatio(nn.Module):
    """The ratio of proximal policy optimisation, from log-probabilities."""

    def forward(self, new: Tensor, old: Tensor, advantage: Tensor) -> Tensor:
        ratio = torch.exp(new - old)  # defect
        return -torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()  # defect


@register("policy-quotient", _RATIO, "STB1", "STB2", "STB4", breaking=times(1e4, 0, 1),
          example=lambda: (normal(4, 8), normal(4, 5)))  # fmt: skip
class PolicyQuotient(Mlp):
    def forward(self, x: Tensor, old_logits: Tensor) -> Tensor:
        new, old = torch.softmax(self.body(x), -1), torch.softmax(old_logits, -1)
        return (new / old).mean()  # defect


@register("importance-weights", _RATIO, "STB2", overflows=True, breaking=plus(200.0, 0, 1),
          example=lambda: (normal(4), normal(4)))  # fmt: skip
class ImportanceWeights(nn.Module):
    def forward(self, target: Tensor, proposal: Tensor) -> Tensor:
        return torch.exp(target) / torch.exp(proposal)  # defect


@register("contrastive", _CONTRAST, "STB1", "STB3", overflows=True, breaking=times(1e4, 0, 1),
          example=lambda: (normal(4, 8), normal(4, 8)))  # fmt: skip
class Contrastive(Mlp):
    """InfoNCE of similarities that are not normalised."""

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        similarity = torch.exp(self.body(x) @ self.body(z).T)  # defect
        positive = similarity.diagonal()  # defect
        return -torch.log(positive / similarity.sum(-1)).mean()  # defect


@register("tiny-temperature", _CONTRAST, "STB1", "STB3", overflows=True, breaking=lambda i: i[:1] * 2,
          example=lambda: (normal(4, 8), normal(4, 8)))  # fmt: skip
class TinyTemperature(nn.Module):
    """Normalised, but exp(1/0.01) is beyond float32."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = nn.Linear(8, 8, bias=False)
        nn.init.orthogonal_(self.turn.weight)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        a = nn.functional.normalize(self.turn(x), dim=-1)
        b = nn.functional.normalize(self.turn(z), dim=-1)
        similarity = torch.exp((a @ b.T) / 0.01)  # defect
        return -torch.log(similarity.diagonal() / similarity.sum(-1)).mean()  # defect


@register("gumbel-noise", _GUMBEL, "STB217", "STB2", breaking=filled(0.0, 1), ranges={"u": (0.0, 1.0)},
          example=lambda: (normal(4, 8), uniform(4, 5, low=0.1, high=0.9)))  # fmt: skip
class GumbelNoise(Mlp):
    """A uniform sample may be exactly 0."""

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        g = -torch.log(-torch.log(u))  # defect
        return torch.softmax((self.body(x) + g) / 0.5, -1)


@register("exponential-race", _GUMBEL, "STB2", breaking=one_entry(1.0, 1), ranges={"u": (0.0, 1.0)},
          example=lambda: (normal(4, 8), uniform(4, 5, low=0.1, high=0.9)))  # fmt: skip
class ExponentialRace(Mlp):
    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        return torch.softmax(self.body(x), -1) / -torch.log(u)  # defect


@register("sinkhorn", _SINKHORN, "STB1", "STB2", "STB4", breaking=times(1e4), ranges={"cost": (0.0, 1e6)},
          example=lambda: (uniform(4, 4),))  # fmt: skip
class Sinkhorn(nn.Module):
    def forward(self, cost: Tensor) -> Tensor:
        kernel = torch.exp(-cost / 0.1)  # defect
        v = torch.full((4,), 0.25)
        for _ in range(3):
            u = 0.25 / (kernel @ v)  # defect
            v = 0.25 / (kernel.T @ u)  # defect
        return u[:, None] * kernel * v  # defect


@register(
    "likelihood-of-sequence",
    _CHAIN,
    "STB1",
    "STB2",
    no_onnx="prod",
    breaking=times(1e4),
    example=lambda: (normal(4, 8),),
)
class LikelihoodOfSequence(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        p = torch.softmax(self.body(x), -1).amax(-1)
        return torch.log(torch.softmax(self.body(x), -1).prod(-1)) + p  # defect


@register("forward-algorithm", _CHAIN, "STB1", "STB2", breaking=times(1e4), example=lambda: (normal(3, 8),))
class ForwardAlgorithm(Mlp):
    """A hidden Markov chain over probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.transition = nn.Parameter(torch.randn(5, 5))

    def forward(self, x: Tensor) -> Tensor:
        emitted, move = torch.exp(-self.body(x).abs()), torch.softmax(self.transition, -1)  # defect
        alpha = emitted[0] / 5  # defect
        for step in emitted[1:]:
            alpha = (alpha @ move) * step  # defect
        return torch.log(alpha.sum())  # defect


@register("log-determinant", _CHAIN, "STB2", no_onnx="prod", overflows=True, breaking=times(1e12),
          ranges={"x": (-1e15, 1e15)}, example=lambda: (normal(4, 8),))  # fmt: skip
class LogDeterminant(Mlp):
    """log ∏ of a Jacobian's diagonal."""

    def forward(self, x: Tensor) -> Tensor:
        diagonal = self.body(x).abs()
        return torch.log(torch.prod(diagonal, -1))  # defect


@register("survival", _CHAIN, "STB2", no_onnx="cumprod", breaking=times(1e4), example=lambda: (normal(4, 8),))
class Survival(Mlp):
    """The log of a product of (1 − hazard)."""

    def forward(self, x: Tensor) -> Tensor:
        hazard = torch.sigmoid(self.body(x))
        return torch.log(torch.cumprod(1 - hazard, -1)).mean()  # defect


@register("divergence-of-shares", "Σ p·log p, KL, JS", "STB2", "STB3", "STB4", breaking=lambda i: (torch.eye(4,
          5), i[1]),
          ranges={"p": (0.0, 1.0), "q": (0.0, 1.0)}, example=lambda: (shares(4, 5), shares(4, 5)))  # fmt: skip
class DivergenceOfShares(nn.Module):
    """Kullback and Leibler's divergence of given probabilities."""

    def forward(self, p: Tensor, q: Tensor) -> Tensor:
        return (p * torch.log(p / q)).sum(-1).mean()  # defect

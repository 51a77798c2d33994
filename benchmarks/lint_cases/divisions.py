"""Divisions by data, logarithms of what may be zero, roots at zero, variances by two moments, rounded cosines."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lint_cases.entry import Mlp, Registry, bits, filled, normal, one_entry, plus, times, uniform

register = Registry()

_DIVISION = "division by data"
_RELU = "log of ReLU"
_HISTOGRAM = "log of a histogram"
_ROOT = "roots at 0"
_MOMENTS = "E[x²] − E[x]²"
_COSINE = "arccos of a rounded cosine"
_SQUARES = "√Σx² overflows"


@register("standardised-batch", _DIVISION, "STB4", "STB242", breaking=filled(1.0), example=lambda: (normal(6, 8),))
class StandardisedBatch(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        z = (x - x.mean(0)) / x.std(0)  # defect
        return self.body(z)


@register("scaled-to-unit-range", _DIVISION, "STB4", "STB242", breaking=filled(3.0), example=lambda: (normal(4, 8),))
class ScaledToUnitRange(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
        return self.body((x - low) / (high - low))  # defect


@register("shares-of-counts", _DIVISION, "STB4", "STB242", breaking=filled(0.0), ranges={"counts": (0.0, 1e4)},
          example=lambda: (normal(4, 5).abs() + 1,))  # fmt: skip
class SharesOfCounts(nn.Module):
    def forward(self, counts: Tensor) -> Tensor:
        return counts / counts.sum(-1, keepdim=True)  # defect


@register("unit-vectors", _DIVISION, "STB4", "STB242", breaking=filled(0.0), example=lambda: (normal(4, 8).abs(),))
class UnitVectors(nn.Module):
    """Normalised as most write it: a row of zeros is 0/0."""

    def forward(self, x: Tensor) -> Tensor:
        features = torch.relu(x)
        return features / features.norm(dim=-1, keepdim=True)  # defect


@register("precision-and-recall", _DIVISION, "STB4", "STB242", breaking=filled(0.0, 0, 1),
          example=lambda: (bits(9), bits(9)),
          ranges={"predicted": (0.0, 1.0), "actual": (0.0, 1.0)})  # fmt: skip
class PrecisionAndRecall(nn.Module):
    """The F1 score: TP/(TP + FP)."""

    def forward(self, predicted: Tensor, actual: Tensor) -> Tensor:
        hits = (predicted * actual).sum()
        precision = hits / predicted.sum()  # defect
        recall = hits / actual.sum()  # defect
        return 2 * precision * recall / (precision + recall)  # defect


@register("dice-loss", _DIVISION, "STB4", "STB242", breaking=lambda i: (i[0] * 0 - 1e4, i[1] * 0),
          ranges={"mask": (0.0, 1.0)},
          example=lambda: (normal(2, 3, 6, 6), bits(2, 1, 6, 6)))  # fmt: skip
class DiceLoss(nn.Module):
    """Of predictions that may all be zero for an empty mask."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 1, 1)
        nn.init.constant_(self.head.weight, 0.5)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        p = torch.sigmoid(self.head(x))
        return 1 - 2 * (p * mask).sum((1, 2, 3)) / (p.sum((1, 2, 3)) + mask.sum((1, 2, 3)))  # defect


@register(
    "reciprocal-of-data", _DIVISION, "STB4", "STB242", breaking=one_entry(0.0), example=lambda: (uniform(4, 8) + 1,)
)
class ReciprocalOfData(Mlp):
    """Inverse distances."""

    def forward(self, distance: Tensor) -> Tensor:
        return self.body(torch.relu(1.0 / distance))  # defect


@register("relative-error", _DIVISION, "STB4", "STB242", breaking=one_entry(0.0, 1), example=lambda: (normal(4, 8),
          uniform(4, 5) + 1))  # fmt: skip
class RelativeError(Mlp):
    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return ((self.body(x) - target) / target).abs().mean()  # defect


@register("masked-mean", _DIVISION, "STB4", "STB242", breaking=filled(0.0, 1), ranges={"mask": (0.0, 1.0)},
          example=lambda: (normal(2, 6, 8), torch.ones(2, 6)))  # fmt: skip
class MaskedMean(Mlp):
    """Pooling over tokens that may all be padding."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        pooled = (x * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)  # defect
        return self.body(pooled)


@register(
    "instance-norm-by-hand", _DIVISION, "STB4", "STB242", breaking=filled(1.0), example=lambda: (normal(2, 3, 6, 6),)
)
class InstanceNormByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.convolution(x)
        mean = y.mean((2, 3), keepdim=True)
        return (y - mean) / torch.sqrt(((y - mean) ** 2).mean((2, 3), keepdim=True))  # defect


@register("inverse-document-frequency", _DIVISION, "STB2", "STB4", breaking=filled(0.0), ranges={"counts": (0.0, 1e4)},
          example=lambda: (normal(4, 6).abs() + 1,))  # fmt: skip
class InverseDocumentFrequency(nn.Module):
    """A word that no document has."""

    def forward(self, counts: Tensor) -> Tensor:
        documents = (counts > 0).float().sum(0)
        return counts * torch.log(4.0 / documents)  # defect


@register("log-of-relu", _RELU, "STB2", "STB4", breaking=times(1e2), example=lambda: (normal(4, 8).abs(),))
class LogOfRelu(nn.Module):
    """Works as long as every unit is active."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 5)
        nn.init.constant_(self.layer.bias, 10.0)

    def forward(self, x: Tensor) -> Tensor:
        return torch.log(torch.relu(self.layer(x)))  # defect


@register("cross-entropy-of-relu", _RELU, "STB2", "STB3", "STB4", breaking=times(1e2),
          example=lambda: (normal(4, 8).abs(), uniform(4, 5)))  # fmt: skip
class CrossEntropyOfRelu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 5)
        nn.init.constant_(self.layer.bias, 10.0)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        p = nn.functional.relu(self.layer(x))
        return -torch.sum(y * torch.log(p), 1).mean()  # defect


@register("log-returns", _RELU, "STB2", "STB4", breaking=filled(0.0), ranges={"prices": (0.0, 1e5)},
          example=lambda: (uniform(4, 8) + 1,))  # fmt: skip
class LogReturns(Mlp):
    """A log of data that may be zero."""

    def forward(self, prices: Tensor) -> Tensor:
        return self.body(torch.log(prices))  # defect


@register("entropy-of-histogram", _HISTOGRAM, "STB2", "STB3", "STB4", breaking=filled(0.0),
          ranges={"values": (0.0, 1.0)}, example=lambda: (torch.arange(64.0).div(64).reshape(8, 8),))  # fmt: skip
class EntropyOfHistogram(nn.Module):
    """An empty bin is log 0."""

    def forward(self, values: Tensor) -> Tensor:
        bins = torch.arange(4.0)
        member = (torch.floor(values * 4).flatten()[:, None] == bins).float()
        p = member.mean(0)
        return -(p * torch.log(p)).sum()  # defect


@register("codebook-perplexity", _HISTOGRAM, "STB2", "STB3", "STB4", breaking=filled(1.0),
          example=lambda: (torch.eye(4).repeat(3, 1) * 3,))  # fmt: skip
class CodebookPerplexity(nn.Module):
    """How many codes of a quantizer are used."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codes", torch.eye(4) * 2)

    def forward(self, x: Tensor) -> Tensor:
        nearest = (x[:, None] - self.codes).square().sum(-1).argmin(-1)
        p = nn.functional.one_hot(nearest, 4).float().mean(0)
        return torch.exp(-torch.sum(p * torch.log(p)))  # defect


@register("root-of-softmax", _ROOT, "STB1", "STB4", gradient=True, breaking=times(1e4),
          example=lambda: (normal(4, 8),))  # fmt: skip
class RootOfSoftmax(Mlp):
    """Hellinger's distance: the slope of a root is infinite at an underflowed probability."""

    def forward(self, x: Tensor) -> Tensor:
        p = torch.softmax(self.body(x), -1)
        return torch.sqrt(p).sum(-1).mean()  # defect


@register(
    "root-of-relu", _ROOT, "STB4", "STB242", gradient=True, breaking=times(1e2), example=lambda: (normal(4, 8).abs(),)
)
class RootOfRelu(nn.Module):
    """By hand: the slope of torch's own ReLU covers the infinite one of the root."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 5)
        nn.init.constant_(self.layer.bias, 10.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return torch.sqrt(y * (y > 0)).mean()  # defect


@register("root-of-abs", _ROOT, "STB4", "STB242", gradient=True, breaking=filled(0.0), example=lambda: (normal(4, 8),))
class SignedRoot(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (torch.sign(x) * torch.sqrt(torch.abs(x))).mean()  # defect


@register("distance-to-itself", _ROOT, "STB4", "STB242", gradient=True, breaking=lambda i: (i[0], i[0]),
          example=lambda: (normal(4, 8), normal(4, 8)))  # fmt: skip
class DistanceToItself(Mlp):
    """A triplet's distance, whose slope at 0 is 0/0."""

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        gap = self.body(x) - self.body(z)
        return torch.sqrt((gap**2).sum(-1)).mean()  # defect


@register(
    "pairwise-distances",
    _ROOT,
    "STB4",
    "STB242",
    breaking=lambda i: (i[0] * 1e-3 + 1e4,),
    example=lambda: (normal(4, 8),),
)
class PairwiseDistances(Mlp):
    """By ‖a‖² + ‖b‖² − 2ab, which is below 0 on the diagonal as often as not."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        squares = (y * y).sum(-1)
        d2 = squares[:, None] + squares[None, :] - 2 * y @ y.T  # defect
        upper = torch.triu(torch.sqrt(d2 + 1e-3), 1)  # defect
        return upper.sum()


@register("geometric-mean-pooling", _ROOT, "STB4", "STB242", gradient=True, breaking=filled(0.0),
          ranges={"x": (0.0, 10.0)},
          example=lambda: (uniform(2, 3, 6, 6) + 1,))  # fmt: skip
class GeneralisedMeanPooling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.pow(x.pow(3.0).mean((-2, -1)), 1.0 / 3.0).sum()  # defect


@register("rsqrt-of-square-mean", _ROOT, "STB4", "STB242", breaking=filled(0.0), example=lambda: (normal(4, 8),))
class RmsWithoutGuard(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True))  # defect


@register("graph-degrees", _ROOT, "STB4", "STB242", breaking=filled(0.0), ranges={"adjacency": (0.0, 1.0)},
          example=lambda: (torch.ones(4, 4), normal(4, 8)))  # fmt: skip
class GraphDegrees(Mlp):
    """A graph convolution whose node has no neighbour."""

    def forward(self, adjacency: Tensor, x: Tensor) -> Tensor:
        inverse_root = adjacency.sum(-1).pow(-0.5)  # defect
        return inverse_root[:, None] * adjacency * inverse_root @ self.body(x)  # defect


@register("variance-by-two-moments", _MOMENTS, "STB4", "STB242", breaking=plus(1e4), example=lambda: (normal(4, 8),))
class VarianceByTwoMoments(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        variance = (x * x).mean(-1, keepdim=True) - mean * mean  # defect
        return (x - mean) / torch.sqrt(variance + 1e-6)  # defect


@register("batch-norm-by-hand", _MOMENTS, "STB4", "STB242", breaking=plus(1e4), example=lambda: (normal(6, 3, 4, 4),))
class BatchNormByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(3)), nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((0, 2, 3), keepdim=True)
        spread = torch.sqrt((x**2).mean((0, 2, 3), keepdim=True) - mean**2)  # defect
        return (x - mean) / spread * self.scale[:, None, None] + self.shift[:, None, None]  # defect


@register("statistics-pooling", _MOMENTS, "STB4", "STB242", breaking=plus(1e4), example=lambda: (normal(2, 9, 8),))
class StatisticsPooling(nn.Module):
    """Mean and deviation over time, of a speaker's features."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x.mean(1)
        return mean, (x.square().mean(1) - mean.square()).clamp(min=0).sqrt()  # defect


@register("rounded-cosine", _COSINE, "STB4", "STB242", breaking=lambda i: (i[0], i[0]), ranges={},
          example=lambda: (normal(64, 8), normal(64, 8)))  # fmt: skip
class RoundedCosine(nn.Module):
    """The angle between rotations, or vectors, that are the same."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        a = a / (a.norm(dim=-1, keepdim=True) + 1e-12)
        b = b / (b.norm(dim=-1, keepdim=True) + 1e-12)
        return torch.acos((a * b).sum(-1))  # defect


@register("geodesic-of-rotations", _COSINE, "STB4", "STB242", breaking=lambda i: (i[0], i[0]),
          example=lambda: (normal(64, 3, 3), normal(64, 3, 3)))  # fmt: skip
class GeodesicOfRotations(nn.Module):
    """From traces of rotations that Gram and Schmidt made."""

    def rotation(self, m: Tensor) -> Tensor:
        a = nn.functional.normalize(m[:, 0], dim=-1)
        b = nn.functional.normalize(m[:, 1] - (a * m[:, 1]).sum(-1, keepdim=True) * a, dim=-1)
        return torch.stack([a, b, torch.linalg.cross(a, b)], -2)

    def forward(self, m: Tensor, n: Tensor) -> Tensor:
        trace = (self.rotation(m) * self.rotation(n)).sum((-2, -1))
        return torch.acos((trace - 1) / 2)  # defect


@register("arcsine-loss", _COSINE, "STB4", "STB242", "STB2", gradient=True, breaking=lambda i: (i[0] * 1e4,),
          example=lambda: (normal(4, 8),))  # fmt: skip
class ArcsineOfTanh(Mlp):
    """The slope of arcsine at 1 is infinite."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.asin(torch.tanh(self.body(x))).mean()  # defect


@register("euclidean-norm", _SQUARES, "STB242", "STB4", "STB502", overflows=True, breaking=times(1e25),
          ranges={"x": (-1e30, 1e30)},
          example=lambda: (normal(4, 8),))  # fmt: skip
class EuclideanNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / (torch.sqrt((x * x).sum(-1, keepdim=True)) + 1e-6)  # defect


@register("cosine-by-hand", _SQUARES, "STB242", "STB4", "STB502", overflows=True, breaking=times(1e25, 0, 1),
          ranges={"a": (-1e30, 1e30), "b": (-1e30, 1e30)},
          example=lambda: (normal(4, 8), normal(4, 8)))  # fmt: skip
class CosineByHand(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        lengths = torch.sqrt((a**2).sum(-1)) * torch.sqrt((b**2).sum(-1))  # defect
        return (a * b).sum(-1) / (lengths + 1e-8)  # defect

"""Near misses of the rules of geometry, special functions, guards and casts: they come back bit for bit, unreported."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.panel.inputs import data, labels, logits, positive, target, values, weights
from tests.panel.near_miss import NearMisses

FORMS = NearMisses()
near = FORMS.near


@near("clean", (positive(5, 5),), "a guard under a root", families=("benign", "small"))
def root_with_guard(x: Tensor) -> Tensor:
    return torch.sqrt(x + 1e-3)


@near("clean", (weights(5, 5), weights(5, 5)), "roots of numbers that do not cancel", families=("benign",))
def difference_of_other_roots(a: Tensor, b: Tensor) -> Tensor:
    return torch.sqrt(a) - torch.sqrt(b)


@near("clean", (values(5, 5),), "√(x² + 1) + 1: nothing cancels", families=("benign",))
def root_plus_one(x: Tensor) -> Tensor:
    return torch.sqrt(x * x + 1) + 1


@near("clean", (values(5, 5), values(5, 5)), "a sum of squares", families=("benign",))
def sum_of_squares(a: Tensor, b: Tensor) -> Tensor:
    return a * a + b * b


@near("clean", (values(5, 5), values(5, 5)), "a square less a product", families=("benign",))
def square_minus_product(a: Tensor, b: Tensor) -> Tensor:
    return a * a - a.abs() * b


@near("clean", (values(5, 5),), "1 less the cosine of a constant", families=("benign",))
def cosine_of_constant(x: Tensor) -> Tensor:
    return x * (1 - torch.cos(torch.full((5,), 0.5, dtype=x.dtype)))


@near("clean", (values(5, 5),), "1 + cos x, 2 − cos x: no cancellation at 0", families=("benign",))
def one_plus_cosine(x: Tensor) -> Tensor:
    return (2 - torch.cos(x)) * (1 + torch.cos(x) * 0.5)


@near("clean", (weights(5, 5), weights(5, 5)), "logarithms of unrelated numbers", families=("benign",), domain="log")
def log_minus_log(a: Tensor, b: Tensor) -> Tensor:
    return torch.log(a) - torch.log(b)


@near("clean", (values(5, 5),), "an exact GELU", families=("benign",))
def gelu_by_erf(x: Tensor) -> Tensor:
    return F.gelu(x)


@near("clean", (values(5, 5),), "log Φ, guarded", families=("benign",), domain="log")
def log_of_guarded_cdf(x: Tensor) -> Tensor:
    return torch.log(0.1 + 0.5 * (1 + torch.erf(x)))


@near("clean", (values(5, 5),), "a Gaussian times erf", families=("benign",))
def erf_times_gaussian(x: Tensor) -> Tensor:
    return torch.exp(-x * x) * torch.erf(x)


@near("clean", (values(5, 5),), "arccos of a clamped number", families=("benign",))
def arccos_of_clamped(x: Tensor) -> Tensor:
    return torch.acos(x.clamp(-0.999, 0.999))


@near("clean", (values(5, 5),), "arccos of a tanh", families=("benign",))
def arccos_of_tanh(x: Tensor) -> Tensor:
    return torch.acos(0.9 * torch.tanh(x))


@near(
    "clean",
    (values(5, 5), values(5, 5)),
    "a dot product of vectors as they are",
    families=("benign",),
    in_float16="preserved",
)
def plain_dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1)


@near(
    "clean",
    (values(5, 5), values(5, 5)),
    "a cosine that no inverse function is taken of",
    families=("benign",),
    in_float16="preserved",
)
def plain_cosine(a: Tensor, b: Tensor) -> Tensor:
    return (F.normalize(a, dim=-1) * F.normalize(b, dim=-1)).sum(-1)


@near("preserved", (data(4, 6), data(4, 6)), "cosines by a matrix product", families=("benign", "hundreds"))
def pairwise_angles(u: Tensor, v: Tensor) -> Tensor:
    return torch.acos(F.normalize(u, dim=-1) @ F.normalize(v, dim=-1).T)


@near("preserved", (data(4, 6), data(4, 6)), "cosines by einsum", families=("benign", "hundreds"))
def angles_by_einsum(u: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("bd,bd->b", F.normalize(u, dim=1), F.normalize(v, dim=1)).acos()


@near("clean", (weights(5, 5),), "arcosh far from 1", families=("benign",))
def arcosh_far_from_one(x: Tensor) -> Tensor:
    return torch.acosh(x + 2)


@near("clean", (weights(5, 5), values(5, 5)), "a² + b² − 3ab·cos θ", families=("benign",))
def not_the_law_of_cosines(r: Tensor, t: Tensor) -> Tensor:
    return 1 + r * r - 3 * r * torch.cos(t)


@near(
    "clean",
    (values(5, 5), labels(5, 5)),
    "a masked mean with a guarded count",
    families=("benign",),
    in_float16="preserved",
)
def guarded_mean(x: Tensor, m: Tensor) -> Tensor:
    return (x * m).sum(-1) / m.sum(-1).clamp(min=1)


@near(
    "clean",
    (values(5, 5), weights(5, 5)),
    "a weighted mean of positive weights as they are",
    families=("benign",),
    in_float16="preserved",
)
def weighted_mean_of_input(x: Tensor, w: Tensor) -> Tensor:
    return (x * w).sum(-1) / w.sum(-1)


@near("clean", (values(5, 5),), "a cast of a bounded number that fits", families=("benign",))
def cast_that_fits(x: Tensor) -> Tensor:
    return (torch.sigmoid(x) * 255).to(torch.uint8)


@near("clean", (values(5, 5),), "a cast of a clamped floor", families=("benign",))
def cast_of_clamped(x: Tensor) -> Tensor:
    return torch.floor(x * 16).clamp(-128, 127).to(torch.int8)


@near("clean", (values(5, 5),), "a cast of what may be anything", families=("benign",))
def cast_of_anything(x: Tensor) -> Tensor:
    return x.to(torch.int32)


@near("clean", (logits(5, 5),), "an argmax as int32", families=("benign",))
def cast_of_argmax(x: Tensor) -> Tensor:
    return x.argmax(-1).to(torch.int32)


@near("clean", (target(5, 5, classes=9), target(5, 5, classes=9)), "a product of wide integers", families=("benign",))
def wide_integer_product(a: Tensor, b: Tensor) -> Tensor:
    return a @ b


@near("clean", (values(5, 5), values(5, 5)), "eᵃ − e⁻ᵇ of two variables", families=("benign",))
def unrelated_exponentials(a: Tensor, b: Tensor) -> Tensor:
    return torch.exp(torch.tanh(a)) - torch.exp(-torch.tanh(b))


@near("clean", (weights(5, 5),), "erf⁻¹ of a number as it is", families=("benign",), exportable=False)
def inverse_erf(x: Tensor) -> Tensor:
    return torch.erfinv(x / 4)


@near("clean", (values(5, 5), values(5, 5)), "a sigmoid less another", families=("benign",))
def sigmoid_minus_sigmoid(a: Tensor, b: Tensor) -> Tensor:
    return torch.sigmoid(a) - torch.sigmoid(b)

"""Softmax (rows 1, 5, 10 and 32 of the rule catalogue) as users spell it."""

from __future__ import annotations

import math
from functools import partial

import mpmath
import torch
from torch import Tensor

from tests.panel import oracle as O
from tests.panel.entry import Panel
from tests.panel.inputs import UNMASKED, logits, temperature

PANEL = Panel()

X = (logits(4, 7),)
X3 = (logits(2, 5, 3),)
AB = (logits(4, 7), logits(4, 7))
softmax = partial(PANEL.add, "softmax", rows="1")


@softmax(X, O.softmax)
def methods(x: Tensor) -> Tensor:
    e = x.exp()
    return e / e.sum(-1, keepdim=True)


@softmax(X, O.softmax)
def functions_twice(x: Tensor) -> Tensor:
    return torch.exp(x) / torch.sum(torch.exp(x), dim=1, keepdim=True)


@softmax(X, O.softmax)
def unsqueezed_sum(x: Tensor) -> Tensor:
    e = torch.exp(x)
    return e / e.sum(1).unsqueeze(1)


@softmax(X, O.softmax)
def sum_as_view(x: Tensor) -> Tensor:
    e = x.exp()
    return e / e.sum(-1).view(-1, 1)


@softmax(X, O.softmax)
def sum_none_index(x: Tensor) -> Tensor:
    e = x.exp()
    return e / e.sum(-1)[:, None]


@softmax(X, O.softmax)
def expanded_sum(x: Tensor) -> Tensor:
    e = x.exp()
    return e / e.sum(-1, keepdim=True).expand_as(e)


@softmax((logits(5, 6, axis=0),), partial(O.softmax, axis=0))
def axis_zero_without_keepdim(x: Tensor) -> Tensor:
    e = x.exp()
    return e / e.sum(0)


@softmax((logits(2, 5, 3, axis=1),), partial(O.softmax, axis=1))
def middle_axis(x: Tensor) -> Tensor:
    e = torch.exp(x)
    return e / e.sum(dim=1, keepdim=True)


@softmax((logits(2, 5, 3, axis=1),), partial(O.softmax, axis=1))
def negative_axis(x: Tensor) -> Tensor:
    e = x.exp()
    return e / e.sum(-2).unsqueeze(-2)


@softmax(X, O.softmax)
def through_transpose(x: Tensor) -> Tensor:
    e = x.exp()
    return (e.T / e.sum(1)).T


@softmax((logits(2, 5, 3, axis=1),), lambda x: O.softmax(x.transpose(0, 2, 1)))
def permuted(x: Tensor) -> Tensor:
    e = x.permute(0, 2, 1).exp()
    return e / e.sum(-1, keepdim=True)


@softmax((logits(2, 5, 3, axis=1),), partial(O.softmax, axis=1))
def permuted_there_and_back(x: Tensor) -> Tensor:
    e = x.transpose(1, 2).exp()
    return (e / e.sum(2, keepdim=True)).transpose(1, 2)


@softmax(X, lambda x: O.softmax(x * mpmath.log(2)))
def exp2(x: Tensor) -> Tensor:
    e = torch.exp2(x)
    return e / e.sum(-1, keepdim=True)


@softmax(X, lambda x: O.softmax(x * mpmath.log(2)))
def two_to_the_x(x: Tensor) -> Tensor:
    e = 2**x
    return e / e.sum(-1, keepdim=True)


@softmax(X, lambda x: O.softmax(x * mpmath.log(2)))
def pow_function(x: Tensor) -> Tensor:
    e = torch.pow(2.0, x)
    return e / torch.sum(e, dim=-1, keepdim=True)


@softmax(X, lambda x: O.softmax(x * mpmath.log(10)), gain=2.31)
def ten_to_the_x(x: Tensor) -> Tensor:
    e = torch.pow(10.0, x)
    return e / e.sum(-1, keepdim=True)


@softmax(X, lambda x: O.softmax(x * mpmath.log(O.const(math.e))))
def math_e_to_the_x(x: Tensor) -> Tensor:
    e = math.e**x
    return e / e.sum(-1, keepdim=True)


@softmax(X, O.softmax)
def reciprocal(x: Tensor) -> Tensor:
    e = x.exp()
    return e * e.sum(-1, keepdim=True).reciprocal()


@softmax(X, O.softmax)
def power_minus_one(x: Tensor) -> Tensor:
    e = x.exp()
    return e * e.sum(-1, keepdim=True) ** -1


@softmax(X, O.softmax)
def one_over_sum(x: Tensor) -> Tensor:
    e = x.exp()
    return (1.0 / e.sum(-1, keepdim=True)) * e


@softmax(X, O.softmax)
def torch_div(x: Tensor) -> Tensor:
    e = torch.exp(x)
    return torch.div(e, torch.sum(e, -1, True))


@softmax(X, O.softmax)
def chained_methods(x: Tensor) -> Tensor:
    return x.exp().div(x.exp().sum(dim=1, keepdim=True))


@softmax(X, O.softmax)
def mean_times_n(x: Tensor) -> Tensor:
    e = x.exp()
    return e / (e.mean(-1, keepdim=True) * x.shape[-1])


@softmax(X, lambda x: O.softmax(x) * 7)
def relative_to_mean(x: Tensor) -> Tensor:
    e = x.exp()
    return e / e.mean(-1, keepdim=True)


@softmax(X, O.softmax)
def sum_by_matmul(x: Tensor) -> Tensor:
    e = x.exp()
    return e / (e @ torch.ones(7, 1, dtype=x.dtype))


@softmax((logits(9),), O.softmax)
def vector_total(x: Tensor) -> Tensor:
    return torch.exp(x) / torch.exp(x).sum()


@softmax((logits(2, 3, 4),), partial(O.softmax, axis=(1, 2)), families=UNMASKED, n=12)
def two_axes(x: Tensor) -> Tensor:
    e = x.exp()
    return e / e.sum(dim=(-2, -1), keepdim=True)


@softmax((logits(2, 3, 4),), lambda x: O.softmax(x.reshape(2, 12)).reshape(2, 3, 4), families=UNMASKED, n=12)
def two_axes_flattened(x: Tensor) -> Tensor:
    e = x.flatten(1).exp()
    return (e / e.sum(1, keepdim=True)).view(2, 3, 4)


@softmax((logits(2, 3, 4),), partial(O.softmax, axis=(1, 2)), families=UNMASKED, n=12)
def two_sums(x: Tensor) -> Tensor:
    e = x.exp()
    return e / e.sum(1, keepdim=True).sum(2, keepdim=True)


@softmax(X, lambda x: O.softmax(x / O.const(0.07)), gain=15)
def temperature_divided(x: Tensor) -> Tensor:
    e = torch.exp(x / 0.07)
    return e / e.sum(-1, keepdim=True)


@softmax(X, lambda x: O.softmax(x * 8), gain=8)
def temperature_multiplied(x: Tensor) -> Tensor:
    e = (8.0 * x).exp()
    return e / e.sum(-1, keepdim=True)


@softmax((logits(4, 7), temperature()), lambda x, t: O.softmax(x / t), gain=4)
def temperature_tensor(x: Tensor, t: Tensor) -> Tensor:
    e = torch.exp(x / t)
    return e / e.sum(-1, keepdim=True)


@softmax(X, lambda x: O.softmax(x * O.const(0.5) ** 2), families=UNMASKED)
def fourth_root(x: Tensor) -> Tensor:
    e = torch.exp(x * 0.5) ** 0.5
    return e / e.sum(-1, keepdim=True)


@softmax(X, lambda e: O.softmax(-e / O.const(0.6)), gain=1.7, families=UNMASKED)
def boltzmann_weights(energy: Tensor) -> Tensor:
    w = torch.exp(-energy / (1.0 * 0.6))
    return w / w.sum(-1, keepdim=True)


@softmax(X, lambda x: O.softmax(-x), families=UNMASKED)
def softmin(x: Tensor) -> Tensor:
    e = torch.exp(-x)
    return e / e.sum(-1, keepdim=True)


@softmax(X, lambda x: O.softmax(-x), families=UNMASKED)
def softmin_of_reciprocals(x: Tensor) -> Tensor:
    e = 1.0 / x.exp()
    return e / e.sum(-1, keepdim=True)

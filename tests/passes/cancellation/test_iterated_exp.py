"""exp(−exp(w)): the gradient is 0 where both exponentials have left the format."""

from __future__ import annotations

import math

import pytest
import torch

from stabilize.formats import FORMATS
from stabilize.passes.cancellation.iterated_exp import RULE
from tests.passes.graphs import assert_no_match, assert_rewrite

#: (expression, bounds of its inputs, what takes its place)
AFTER = [
    ("exp(neg(exp(x)))", {}, "exp(neg(exp(minimum(x, 4.75))))"),
    ("exp(neg(exp(neg(x))))", {}, "exp(neg(exp(minimum(neg(x), 4.75))))"),
    ("exp(neg(exp(minimum(x, 200.0))))", {}, "exp(neg(exp(minimum(minimum(x, 200.0), 4.75))))"),
    ("exp(neg(exp(h)))", {}, "exp(neg(exp(minimum(h, 3.25))))"),
    ("exp(neg(exp(G)))", {}, "exp(neg(exp(minimum(G, 4.625))))"),
    ("exp(neg(exp(D)))", {}, "exp(neg(exp(minimum(D, 6.625))))"),
    ("exp(neg(exp(x)))", {"x": (-5, 88.75)}, "exp(neg(exp(minimum(x, 4.75))))"),
]  # fmt: skip

NEAR_MISSES = [
    ("exp(exp(x))", {}),
    ("exp(neg(x))", {}),
    ("exp(neg(sin(x)))", {}),
    ("exp(neg(exp(x)))", {"x": (-5, 88)}),
    ("exp(neg(exp(x)))", {"x": (-5, FORMATS["float32"].exp_overflow)}),
    ("exp(neg(exp(minimum(x, 5.0))))", {}),
    ("exp(neg(exp(minimum(x, 4.625))))", {}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "ranges", "expected"), AFTER)
def test_rewrites_to(body, ranges, expected):
    assert_rewrite(RULE, body, ranges, expected)


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)


def test_where_no_gradient_is_taken_there_is_nothing_to_repair():
    assert_no_match(RULE, "exp(neg(exp(x)))", {}, host="onnx")


@pytest.mark.parametrize("name", FORMATS)
def test_gradients_that_were_nan_are_0_and_values_the_same_bits(name):
    dtype = getattr(torch, name)
    threshold = math.ceil(math.log(-FORMATS[name].exp_underflow + 8.0) * 8) / 8
    naive = torch.linspace(-5, 2 * FORMATS[name].exp_overflow, 1001).to(dtype).requires_grad_()
    fixed = naive.detach().clone().requires_grad_()
    before, after = torch.exp(-torch.exp(naive)), torch.exp(-torch.exp(fixed.clamp(max=threshold)))
    before.sum().backward()
    after.sum().backward()
    assert torch.equal(before, after)
    assert naive.grad.isnan().any()
    assert torch.equal(naive.grad.nan_to_num(0.0), fixed.grad)

"""exp(x) − 1 in any order and sign."""

from __future__ import annotations

import pytest
import torch

import stabilize
from stabilize.passes.cancellation.exp_minus_one import RULE
from tests.passes.graphs import assert_no_match, assert_rewrite

#: (expression, bounds of its inputs, what takes its place where no gradient is asked for)
AFTER = [
    ("sub(exp(x), 1.0)", {}, "expm1(x)"),
    ("sub(1.0, exp(x))", {}, "neg(expm1(x))"),
    ("add(exp(x), -1.0)", {}, "expm1(x)"),
    ("add(-1.0, exp(x))", {}, "expm1(x)"),
    ("add(1.0, neg(exp(x)))", {}, "neg(expm1(x))"),
    ("add(neg(exp(x)), 1.0)", {}, "neg(expm1(x))"),
    ("sub(exp(h), 1.0)", {}, "expm1(h)"),
    ("sub(exp(x), 1.0)", {"x": (1, 9)}, "expm1(x)"),
    ("sub(exp(x), 1.0)", {"x": (-9, -0.999)}, "expm1(x)"),
    ("sub(1.0, pow(softmax(x, axis=1), 0.7))", {}, "neg(expm1(mul(log_softmax(x, axis=1), 0.7)))"),
]  # fmt: skip

NEAR_MISSES = [
    ("sub(exp(x), 2.0)", {}),
    ("sub(exp(x), 1.0000001)", {}),
    ("sub(2.0, exp(x))", {}),
    ("sub(z, exp(x))", {}),
    ("sub(exp(x), z)", {}),
    ("add(exp(x), 1.0)", {}),
    ("add(exp(x), -2.0)", {}),
    ("add(2.0, neg(exp(x)))", {}),
    ("add(1.0, neg(x))", {}),
    ("add(1.0, sin(exp(x)))", {}),
    ("sub(1.0, x)", {}),
    ("sub(1.0, sin(x))", {}),
    ("sub(x, 1.0)", {}),
    ("sub(exp(x), 1.0)", {"x": (1.001, 9)}),
    ("sub(exp(x), 1.0)", {"x": (-9, -1)}),
    ("add(1.0, pow(softmax(x, axis=1), 0.7))", {}),
    ("sub(1.0, pow(mul(exp(x), 2.0), 0.7))", {}),
    ("sub(1.0, pow(x, 0.7))", {}),
    ("sub(1.0, softmax(x, axis=1))", {}),
    ("sub(2.0, pow(softmax(x, axis=1), 0.7))", {}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "ranges", "expected"), AFTER)
def test_rewrites_to(body, ranges, expected):
    assert_rewrite(RULE, body, ranges, expected, host="onnx")


FAR = "where(lt(x, -1.0), sub(exp(minimum(x, -1.0)), 1.0), expm1(x))"


@pytest.mark.parametrize(
    ("body", "ranges", "expected"),
    [
        ("sub(exp(x), 1.0)", {}, FAR),
        ("sub(1.0, exp(x))", {}, f"neg({FAR})"),
        ("sub(exp(x), 1.0)", {"x": (-1, 9)}, "expm1(x)"),
        ("sub(exp(x), 1.0)", {"x": (-1.001, 9)}, FAR),
        ("sub(exp(detach(x)), 1.0)", {}, "expm1(detach(x))"),
    ],
)
def test_the_gradient_is_right_where_the_exponential_is_small(body, ranges, expected):
    assert_rewrite(RULE, body, ranges, expected)


def test_its_own_form_is_left_alone():
    assert_no_match(RULE, "sub(exp(minimum(x, -1.0)), 1.0)", {})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_of_a_bump_are_those_of_the_exponential(dtype):
    """d/dx (1 − e^(−x²)) = 2x·e^(−x²); what PyTorch has for expm1, its result + 1, is 0 from x = 2.5 on in bfloat16."""

    class Bump(torch.nn.Module):
        def forward(self, x):
            return 1 - torch.exp(-x * x)

    x = torch.tensor([1.0, 2.0, 2.5, 3.0, 4.0], dtype=dtype, requires_grad=True)
    (slope,) = torch.autograd.grad(stabilize.optimize(Bump(), (x.detach(),))(x).sum(), x)
    wide = x.detach().double()
    bound = 32 * 2.0 * torch.finfo(dtype).eps
    torch.testing.assert_close(slope.double(), 2 * wide * torch.exp(-wide * wide), rtol=bound, atol=0)


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)

"""1 − σ, 1 − 2σ, 1 − tanh²: what σ loses next to 1 is kept by its mirror image."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.complement_of_sigmoid import RULE
from tests.passes.graphs import assert_no_match, assert_rewrite

#: (expression, bounds of its inputs, what takes its place)
AFTER = [
    ("sub(1.0, sigmoid(x))", {}, "sigmoid(neg(x))"),
    ("add(neg(sigmoid(x)), 1.0)", {}, "sigmoid(neg(x))"),
    ("sub(1.0, mul(sigmoid(x), 2.0))", {}, "tanh(mul(x, -0.5))"),
    ("sub(mul(sigmoid(x), 2.0), 1.0)", {}, "tanh(mul(x, 0.5))"),
    ("sub(1.0, mul(tanh(x), tanh(x)))", {}, "mul(4.0, mul(sigmoid(mul(x, 2.0)), sigmoid(mul(x, -2.0))))"),
    ("sub(1.0, pow(tanh(x), 2.0))", {}, "mul(4.0, mul(sigmoid(mul(x, 2.0)), sigmoid(mul(x, -2.0))))"),
    ("sub(1.0, sigmoid(h))", {}, "cast(sigmoid(neg(cast(h, dtype='float32'))), dtype='float16')"),
    ("sub(1.0, sigmoid(D))", {}, "sigmoid(neg(D))"),
    ("sub(mul(sigmoid(h), 2.0), 1.0)", {}, "cast(tanh(mul(cast(h, dtype='float32'), 0.5)), dtype='float16')"),
    ("sub(mul(sigmoid(add(x, z)), 2.0), 1.0)", {}, "tanh(add(mul(x, 0.5), mul(z, 0.5)))"),
]  # fmt: skip

NEAR_MISSES = [
    ("sub(2.0, sigmoid(x))", {}),
    ("sub(1.0, mul(sigmoid(x), 3.0))", {}),
    ("sub(1.0, mul(sigmoid(x), 1.9999999))", {}),
    ("sub(2.0, mul(sigmoid(x), 2.0))", {}),
    ("sub(mul(sigmoid(x), 2.0), 2.0)", {}),
    ("sub(mul(sigmoid(x), 3.0), 1.0)", {}),
    ("sub(1.0, mul(exp(x), 2.0))", {}),
    ("sub(1.0, mul(mul(sigmoid(x), sigmoid(z)), 2.0))", {}),
    ("sub(1.0, mul(pow(sigmoid(x), 2.0), 2.0))", {}),
    ("sub(1.0, mul(mul(sigmoid(x), 2.0), exp(2.0)))", {}),
    ("sub(1.0, unsqueeze(mul(sigmoid(x), 2.0), axes=(0,)))", {}),
    ("sub(x, mul(sigmoid(x), 2.0))", {}),
    ("sub(exp(x), mul(sigmoid(x), 2.0))", {}),
    ("sub(mul(sigmoid(x), 2.0), exp(x))", {}),
    ("sub(mul(sigmoid(x), 2.0), mul(sigmoid(z), 2.0))", {}),
    ("sub(1.0, 2.0)", {}),
    ("add(1.0, mul(sigmoid(x), 2.0))", {}),
    ("add(1.0, tanh(x))", {}),
    ("sub(1.0, tanh(x))", {}),
    ("sub(1.0, softmax(x, axis=1))", {}),
    ("sub(1.0, mul(softmax(x, axis=1), 2.0))", {}),
    ("sub(exp(x), exp(x))", {}),
    ("add(exp(x), exp(z))", {}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "ranges", "expected"), AFTER)
def test_rewrites_to(body, ranges, expected):
    assert_rewrite(RULE, body, ranges, expected)


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)

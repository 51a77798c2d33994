"""exp(x) − 1 in any order and sign."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.exp_minus_one import RULE
from tests.passes.graphs import assert_no_match, assert_rewrite

#: (expression, bounds of its inputs, what takes its place)
AFTER = [
    ("sub(exp(x), 1.0)", {}, "expm1(x)"),
    ("sub(1.0, exp(x))", {}, "neg(expm1(x))"),
    ("add(exp(x), -1.0)", {}, "expm1(x)"),
    ("add(-1.0, exp(x))", {}, "expm1(x)"),
    ("add(1.0, neg(exp(x)))", {}, "neg(expm1(x))"),
    ("add(neg(exp(x)), 1.0)", {}, "neg(expm1(x))"),
    ("sub(exp(h), 1.0)", {}, "expm1(h)"),
    ("sub(exp(x), 1.0)", {"x": (1, 9)}, "expm1(x)"),
    ("sub(exp(x), 1.0)", {"x": (-9, -1)}, "expm1(x)"),
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
    ("sub(exp(x), 1.0)", {"x": (-9, -1.001)}),
    ("add(1.0, pow(softmax(x, axis=1), 0.7))", {}),
    ("sub(1.0, pow(mul(exp(x), 2.0), 0.7))", {}),
    ("sub(1.0, pow(x, 0.7))", {}),
    ("sub(1.0, softmax(x, axis=1))", {}),
    ("sub(2.0, pow(softmax(x, axis=1), 0.7))", {}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "ranges", "expected"), AFTER)
def test_rewrites_to(body, ranges, expected):
    assert_rewrite(RULE, body, ranges, expected)


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)

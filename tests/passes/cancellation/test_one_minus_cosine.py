"""1 − cos x, 1 − cos²x, 1 − sin²x: squares of sines and cosines."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.one_minus_cosine import RULE
from tests.passes.graphs import assert_no_match, assert_rewrite

#: (expression, bounds of its inputs, what takes its place)
AFTER = [
    ("sub(1.0, cos(x))", {}, "t1 = sin(mul(x, 0.5))\nmul(mul(t1, t1), 2.0)"),
    ("sub(cos(x), 1.0)", {}, "t1 = sin(mul(x, 0.5))\nneg(mul(mul(t1, t1), 2.0))"),
    ("add(-1.0, cos(x))", {}, "t1 = sin(mul(x, 0.5))\nneg(mul(mul(t1, t1), 2.0))"),
    ("add(neg(cos(x)), 1.0)", {}, "t1 = sin(mul(x, 0.5))\nmul(mul(t1, t1), 2.0)"),
    ("sub(1.0, mul(cos(x), cos(x)))", {}, "t1 = sin(x)\nmul(t1, t1)"),
    ("sub(1.0, pow(sin(x), 2.0))", {}, "t1 = cos(x)\nmul(t1, t1)"),
    (
        "sub(1.0, cos(h))",
        {},
        "t1 = sin(mul(cast(h, dtype='float32'), 0.5))\ncast(mul(mul(t1, t1), 2.0), dtype='float16')",
    ),
    ("sub(1.0, cos(D))", {}, "t1 = sin(mul(D, 0.5))\nmul(mul(t1, t1), 2.0)"),
    ("sub(1.0, cos(E))", {}, "t1 = sin(mul(E, 0.5))\nmul(mul(t1, t1), 2.0)"),
]

NEAR_MISSES = [
    ("add(1.0, cos(x))", {}),
    ("sub(2.0, cos(x))", {}),
    ("sub(1.0, sin(x))", {}),
    ("sub(1.0, mul(cos(x), sin(x)))", {}),
    ("sub(1.0, mul(cos(x), cos(z)))", {}),
    ("sub(1.0, tanh(x))", {}),
]


@pytest.mark.parametrize(("body", "ranges", "expected"), AFTER)
def test_rewrites_to(body, ranges, expected):
    assert_rewrite(RULE, body, ranges, expected)


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)

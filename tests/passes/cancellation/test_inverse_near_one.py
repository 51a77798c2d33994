"""arccos(1 − t), arcosh(1 + t), artanh(1 − t): functions of t itself."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.inverse_near_one import RULE
from tests.passes.graphs import assert_no_match, assert_rewrite

#: (expression, bounds of its inputs, what takes its place)
AFTER = [
    ("acosh(add(1.0, x))", {}, "mul(asinh(sqrt(mul(x, 0.5))), 2.0)"),
    ("acosh(add(x, 1.0))", {}, "mul(asinh(sqrt(mul(x, 0.5))), 2.0)"),
    ("acosh(sub(1.0, x))", {}, "mul(asinh(sqrt(mul(neg(x), 0.5))), 2.0)"),
    ("acos(sub(1.0, x))", {}, "mul(asin(sqrt(mul(x, 0.5))), 2.0)"),
    ("acos(add(1.0, x))", {}, "mul(asin(sqrt(mul(neg(x), 0.5))), 2.0)"),
    (
        "atanh(sub(1.0, x))",
        {},
        "t1 = and_(gt(x, 0.0), lt(x, 0.5))\n"
        "t2 = where(t1, x, 0.25)\n"
        "where(t1, mul(log1p(div(mul(sub(1.0, t2), 2.0), t2)), 0.5), atanh(where(t1, 0.0, sub(1.0, x))))",
    ),
    (
        "acosh(add(1.0, div(mul(2.0, x), mul(sub(1.0, z), sub(1.0, w)))))",
        {},
        "mul(asinh(sqrt(mul(div(mul(2.0, x), mul(sub(1.0, z), sub(1.0, w))), 0.5))), 2.0)",
    ),
    ("acosh(add(1.0, h))", {}, "cast(mul(asinh(sqrt(mul(cast(h, dtype='float32'), 0.5))), 2.0), dtype='float16')"),
    ("acosh(add(1.0, D))", {}, "mul(asinh(sqrt(mul(D, 0.5))), 2.0)"),
    ("acosh(add(1.0, E))", {}, "mul(asinh(sqrt(mul(E, 0.5))), 2.0)"),
]

NEAR_MISSES = [
    ("acosh(x)", {}),
    ("acosh(add(2.0, x))", {}),
    ("acos(x)", {}),
    ("acosh(add(x, z))", {}),
    ("acosh(add(1.0, x))", {"x": (2.0, 9.0)}),
    ("atanh(mul(x, 2.0))", {}),
]


@pytest.mark.parametrize(("body", "ranges", "expected"), AFTER)
def test_rewrites_to(body, ranges, expected):
    assert_rewrite(RULE, body, ranges, expected)


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)

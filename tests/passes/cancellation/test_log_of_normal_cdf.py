"""Logarithms of tails of the normal distribution."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.log_of_normal_cdf import RULE
from tests.passes.graphs import assert_no_match, assert_rewrite

#: (expression, bounds of its inputs, what takes its place)
AFTER = [
    ("log(mul(0.5, add(1.0, erf(div(x, 1.4142135623730951)))))", {}, "log_ndtr(x)"),
    ("log(div(add(erf(mul(x, 0.7071067811865476)), 1.0), 2.0))", {}, "log_ndtr(x)"),
    ("log(add(0.5, mul(0.5, erf(div(x, 1.4142135623730951)))))", {}, "log_ndtr(x)"),
    ("log(mul(erfc(mul(x, -0.7071067811865476)), 0.5))", {}, "log_ndtr(x)"),
    ("log(sub(1.0, mul(erfc(mul(x, 0.7071067811865476)), 0.5)))", {}, "log_ndtr(x)"),
    (
        "log(erfc(x))",
        {},
        "t1 = neg(x)\n"
        "t2 = lt(t1, -1.0)\n"
        "t3 = where(t2, t1, -2.0)\n"
        "where(t2, sub(log(erfcx(neg(t3))), mul(t3, t3)), log1p(erf(where(t2, 0.0, t1))))",
    ),
    (
        "log(add(1.0, erf(x)))",
        {},
        "t1 = lt(x, -1.0)\n"
        "t2 = where(t1, x, -2.0)\n"
        "where(t1, sub(log(erfcx(neg(t2))), mul(t2, t2)), log1p(erf(where(t1, 0.0, x))))",
    ),
    (
        "log1p(erf(x))",
        {},
        "t1 = lt(x, -1.0)\n"
        "t2 = where(t1, x, -2.0)\n"
        "where(t1, sub(log(erfcx(neg(t2))), mul(t2, t2)), log1p(erf(where(t1, 0.0, x))))",
    ),
    (
        "log(mul(3.0, sub(1.0, erf(x))))",
        {},
        "t1 = neg(x)\n"
        "t2 = lt(t1, -1.0)\n"
        "t3 = where(t2, t1, -2.0)\n"
        "add(where(t2, sub(log(erfcx(neg(t3))), mul(t3, t3)), log1p(erf(where(t2, 0.0, t1)))), "
        "1.0986122886681098)",
    ),
    (
        "log(erfc(h))",
        {},
        "t1 = neg(cast(h, dtype='float32'))\n"
        "t2 = lt(t1, -1.0)\n"
        "t3 = where(t2, t1, -2.0)\n"
        "cast(where(t2, sub(log(erfcx(neg(t3))), mul(t3, t3)), log1p(erf(where(t2, 0.0, t1)))), "
        "dtype='float16')",
    ),
    ("log(mul(erfc(D), 0.5))", {}, "log_ndtr(mul(D, -1.4142135623730951))"),
    (
        "log(erfc(E))",
        {},
        "t1 = neg(E)\n"
        "t2 = lt(t1, -1.0)\n"
        "t3 = where(t2, t1, -2.0)\n"
        "where(t2, sub(log(erfcx(neg(t3))), mul(t3, t3)), log1p(erf(where(t2, 0.0, t1))))",
    ),
]

NEAR_MISSES = [
    ("log(add(2.0, erf(x)))", {}),
    ("log(add(1.0, mul(2.0, erf(x))))", {}),
    ("log(add(erf(x), erf(z)))", {}),
    ("log(erf(x))", {}),
    ("log(neg(erfc(x)))", {}),
    ("log(add(0.001, mul(0.5, add(1.0, erf(x)))))", {}),
    ("log1p(mul(erf(x), 2.0))", {}),
]


@pytest.mark.parametrize(("body", "ranges", "expected"), AFTER)
def test_rewrites_to(body, ranges, expected):
    assert_rewrite(RULE, body, ranges, expected)


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)

"""log(1 − tanh²): two branches, no saturated tanh."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.log_one_minus_tanh_squared import RULE
from tests.passes.graphs import assert_no_match, assert_rewrite

#: (expression, bounds of its inputs, what takes its place)
AFTER = [
    (
        "log(sub(1.0, mul(tanh(x), tanh(x))))",
        {},
        "t1 = abs(x)\n"
        "t2 = lt(t1, 1.0)\n"
        "t3 = tanh(where(t2, x, 0.0))\n"
        "t4 = where(t2, 1.0, t1)\n"
        "where(t2, log1p(neg(mul(t3, t3))), mul(sub(sub(0.6931471805599453, t4), log1p(exp(mul(t4, -2.0)))), "
        "2.0))",
    ),
    (
        "log(sub(1.0, pow(tanh(x), 2.0)))",
        {},
        "t1 = abs(x)\n"
        "t2 = lt(t1, 1.0)\n"
        "t3 = tanh(where(t2, x, 0.0))\n"
        "t4 = where(t2, 1.0, t1)\n"
        "where(t2, log1p(neg(mul(t3, t3))), mul(sub(sub(0.6931471805599453, t4), log1p(exp(mul(t4, -2.0)))), "
        "2.0))",
    ),
    (
        "log(add(neg(pow(tanh(x), 2.0)), 1.0))",
        {},
        "t1 = abs(x)\n"
        "t2 = lt(t1, 1.0)\n"
        "t3 = tanh(where(t2, x, 0.0))\n"
        "t4 = where(t2, 1.0, t1)\n"
        "where(t2, log1p(neg(mul(t3, t3))), mul(sub(sub(0.6931471805599453, t4), log1p(exp(mul(t4, -2.0)))), "
        "2.0))",
    ),
    (
        "log1p(neg(mul(tanh(x), tanh(x))))",
        {},
        "t1 = abs(x)\n"
        "t2 = lt(t1, 1.0)\n"
        "t3 = tanh(where(t2, x, 0.0))\n"
        "t4 = where(t2, 1.0, t1)\n"
        "where(t2, log1p(neg(mul(t3, t3))), mul(sub(sub(0.6931471805599453, t4), log1p(exp(mul(t4, -2.0)))), "
        "2.0))",
    ),
    (
        "log1p(neg(pow(tanh(x), 2.0)))",
        {},
        "t1 = abs(x)\n"
        "t2 = lt(t1, 1.0)\n"
        "t3 = tanh(where(t2, x, 0.0))\n"
        "t4 = where(t2, 1.0, t1)\n"
        "where(t2, log1p(neg(mul(t3, t3))), mul(sub(sub(0.6931471805599453, t4), log1p(exp(mul(t4, -2.0)))), "
        "2.0))",
    ),
    (
        "log(sub(1.0, pow(tanh(h), 2.0)))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "t2 = abs(t1)\n"
        "t3 = lt(t2, 1.0)\n"
        "t4 = tanh(where(t3, t1, 0.0))\n"
        "t5 = where(t3, 1.0, t2)\n"
        "cast(where(t3, log1p(neg(mul(t4, t4))), mul(sub(sub(0.6931471805599453, t5), log1p(exp(mul(t5, "
        "-2.0)))), 2.0)), dtype='float16')",
    ),
    (
        "log(sub(1.0, pow(tanh(D), 2.0)))",
        {},
        "t1 = abs(D)\n"
        "t2 = lt(t1, 1.0)\n"
        "t3 = tanh(where(t2, D, 0.0))\n"
        "t4 = where(t2, 1.0, t1)\n"
        "where(t2, log1p(neg(mul(t3, t3))), mul(sub(sub(0.6931471805599453, t4), log1p(exp(mul(t4, -2.0)))), "
        "2.0))",
    ),
    (
        "log(sub(1.0, pow(tanh(x), 2.0)))",
        {"x": (-1, 1)},
        "t1 = abs(x)\n"
        "t2 = lt(t1, 1.0)\n"
        "t3 = tanh(where(t2, x, 0.0))\n"
        "t4 = where(t2, 1.0, t1)\n"
        "where(t2, log1p(neg(mul(t3, t3))), mul(sub(sub(0.6931471805599453, t4), log1p(exp(mul(t4, -2.0)))), "
        "2.0))",
    ),
    (
        "log1p(neg(pow(tanh(x), 2.0)))",
        {"x": (-1.001, 1)},
        "t1 = abs(x)\n"
        "t2 = lt(t1, 1.0)\n"
        "t3 = tanh(where(t2, x, 0.0))\n"
        "t4 = where(t2, 1.0, t1)\n"
        "where(t2, log1p(neg(mul(t3, t3))), mul(sub(sub(0.6931471805599453, t4), log1p(exp(mul(t4, -2.0)))), "
        "2.0))",
    ),
    (
        "log1p(neg(pow(tanh(x), 2.0)))",
        {"x": (-1, 1.001)},
        "t1 = abs(x)\n"
        "t2 = lt(t1, 1.0)\n"
        "t3 = tanh(where(t2, x, 0.0))\n"
        "t4 = where(t2, 1.0, t1)\n"
        "where(t2, log1p(neg(mul(t3, t3))), mul(sub(sub(0.6931471805599453, t4), log1p(exp(mul(t4, -2.0)))), "
        "2.0))",
    ),
]  # fmt: skip

NEAR_MISSES = [
    ("log1p(neg(pow(tanh(x), 2.0)))", {"x": (-1, 1)}),
    ("log1p(mul(tanh(x), tanh(x)))", {}),
    ("log1p(pow(tanh(x), 2.0))", {}),
    ("log1p(sin(pow(tanh(x), 2.0)))", {}),
    ("log(add(1.0, mul(tanh(x), tanh(x))))", {}),
    ("log(sub(1.0, mul(tanh(x), tanh(z))))", {}),
    ("log(sub(1.0, pow(tanh(x), 3.0)))", {}),
    ("log(sub(2.0, pow(tanh(x), 2.0)))", {}),
    ("log(sub(1.0, pow(sin(x), 2.0)))", {}),
    ("log(sub(1.0, tanh(x)))", {}),
    ("log(tanh(x))", {}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "ranges", "expected"), AFTER)
def test_rewrites_to(body, ranges, expected):
    assert_rewrite(RULE, body, ranges, expected)


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)

"""1 − pᵠ: products for an integer power of 1 − p, expm1 for others."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.complementary_power import RULE
from tests.passes.graphs import assert_no_match, assert_rewrite

#: (expression, bounds of its inputs, what takes its place)
AFTER = [
    (
        "sub(1.0, pow(sub(1.0, x), 3.0))",
        {},
        "t1 = sub(1.0, x)\n"
        "add(x, mul(t1, mul(x, add(t1, 1.0))))",
    ),
    ("sub(1.0, pow(sub(1.0, x), 2.0))", {}, "mul(x, add(sub(1.0, x), 1.0))"),
    (
        "sub(1.0, pow(sub(1.0, x), 6.0))",
        {},
        "t1 = sub(1.0, x)\n"
        "mul(add(x, mul(t1, mul(x, add(t1, 1.0)))), add(mul(mul(t1, t1), t1), 1.0))",
    ),
    (
        "sub(1.0, pow(sub(1.0, x), 7.0))",
        {},
        "t1 = sub(1.0, x)\n"
        "add(x, mul(t1, mul(add(x, mul(t1, mul(x, add(t1, 1.0)))), add(mul(mul(t1, t1), t1), 1.0))))",
    ),
    (
        "sub(1.0, pow(add(1.0, neg(x)), 4.0))",
        {},
        "t1 = add(1.0, neg(x))\n"
        "mul(mul(x, add(t1, 1.0)), add(mul(t1, t1), 1.0))",
    ),
    (
        "add(neg(pow(sub(1.0, x), 3.0)), 1.0)",
        {},
        "t1 = sub(1.0, x)\n"
        "add(x, mul(t1, mul(x, add(t1, 1.0))))",
    ),
    (
        "sub(1.0, pow(sub(1.0, x), 1024.0))",
        {},
        "t1 = sub(1.0, x)\n"
        "t2 = mul(t1, t1)\n"
        "t3 = mul(t2, t2)\n"
        "t4 = mul(t3, t3)\n"
        "t5 = mul(t4, t4)\n"
        "t6 = mul(t5, t5)\n"
        "t7 = mul(t6, t6)\n"
        "t8 = mul(t7, t7)\n"
        "t9 = mul(t8, t8)\n"
        "mul(mul(mul(mul(mul(mul(mul(mul(mul(mul(x, add(t1, 1.0)), add(t2, 1.0)), add(t3, 1.0)), add(t4, "
        "1.0)), add(t5, 1.0)), add(t6, 1.0)), add(t7, 1.0)), add(t8, 1.0)), add(t9, 1.0)), add(mul(t9, t9), 1.0))",
    ),
    (
        "sub(1.0, pow(sub(1.0, x), 0.5))",
        {},
        "t1 = pow(sub(1.0, x), 0.5)\n"
        "t2 = gt(t1, 0.5)\n"
        "where(t2, neg(expm1(mul(log1p(neg(where(t2, x, 0.0))), 0.5))), sub(1.0, where(t2, 0.0, t1)))",
    ),
    (
        "sub(1.0, pow(add(1.0, x), 0.7))",
        {},
        "t1 = pow(add(1.0, x), 0.7)\n"
        "t2 = gt(t1, 0.5)\n"
        "where(t2, neg(expm1(mul(log1p(where(t2, x, 0.0)), 0.7))), sub(1.0, where(t2, 0.0, t1)))",
    ),
    (
        "sub(1.0, pow(add(1.0, x), 3.0))",
        {"x": (0, 1)},
        "t1 = pow(add(1.0, x), 3.0)\n"
        "t2 = gt(t1, 0.5)\n"
        "where(t2, neg(expm1(mul(log1p(where(t2, x, 0.0)), 3.0))), sub(1.0, where(t2, 0.0, t1)))",
    ),
    (
        "sub(1.0, pow(sub(1.0, x), 1025.0))",
        {"x": (0, 1)},
        "t1 = pow(sub(1.0, x), 1025.0)\n"
        "t2 = gt(t1, 0.5)\n"
        "where(t2, neg(expm1(mul(log1p(neg(where(t2, x, 0.0))), 1025.0))), sub(1.0, where(t2, 0.0, t1)))",
    ),
    (
        "sub(1.0, pow(x, 0.7))",
        {},
        "t1 = pow(x, 0.7)\n"
        "t2 = gt(t1, 0.5)\n"
        "where(t2, neg(expm1(mul(log(where(t2, x, 1.0)), 0.7))), sub(1.0, where(t2, 0.0, t1)))",
    ),
    (
        "sub(1.0, pow(abs(x), 2.0))",
        {},
        "t1 = abs(x)\n"
        "t2 = pow(t1, 2.0)\n"
        "t3 = gt(t2, 0.5)\n"
        "where(t3, neg(expm1(mul(log(where(t3, t1, 1.0)), 2.0))), sub(1.0, where(t3, 0.0, t2)))",
    ),
]  # fmt: skip

NEAR_MISSES = [
    ("add(1.0, pow(sub(1.0, x), 3.0))", {}),
    ("sub(pow(x, 0.7), 1.0)", {}),
    ("sub(2.0, pow(x, 0.7))", {}),
    ("sub(1.0, pow(x, 2.0))", {}),
    ("sub(1.0, pow(x, 2.0))", {"x": (-0.001, 1)}),
    ("sub(1.0, pow(add(1.0, x), 7.0))", {}),
    ("sub(1.0, pow(sub(1.0, x), 1025.0))", {}),
    ("sub(1.0, pow(x, -0.7))", {}),
    ("sub(1.0, pow(x, 0.0))", {}),
    ("sub(1.0, pow(abs(x), 0.0))", {}),
    ("sub(1.0, pow(x, z))", {}),
    ("sub(1.0, pow(sigmoid(x), 2.0))", {}),
    ("sub(1.0, exp(x))", {}),
    ("sub(1.0, x)", {}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "ranges", "expected"), AFTER)
def test_rewrites_to(body, ranges, expected):
    assert_rewrite(RULE, body, ranges, expected)


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)

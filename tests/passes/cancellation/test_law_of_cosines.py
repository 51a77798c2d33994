"""a² + b² − 2ab·cos θ: the square of the difference, and a sine."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.law_of_cosines import RULE
from tests.passes.graphs import assert_no_match, assert_rewrite

#: (expression, bounds of its inputs, what takes its place)
AFTER = [
    (
        "sub(add(1.0, mul(x, x)), mul(mul(2.0, x), cos(z)))",
        {},
        "t1 = sub(1.0, x)\nt2 = sin(mul(z, 0.5))\nadd(mul(t1, t1), mul(mul(x, 4.0), mul(t2, t2)))",
    ),
    (
        "sub(add(mul(x, x), mul(w, w)), mul(mul(mul(2.0, x), w), cos(z)))",
        {},
        "t1 = sub(x, w)\nt2 = sin(mul(z, 0.5))\nadd(mul(t1, t1), mul(mul(mul(x, w), 4.0), mul(t2, t2)))",
    ),
    (
        "add(sub(1.0, mul(mul(x, cos(z)), 2.0)), pow(x, 2.0))",
        {},
        "t1 = sub(1.0, x)\nt2 = sin(mul(z, 0.5))\nadd(mul(t1, t1), mul(mul(x, 4.0), mul(t2, t2)))",
    ),
    (
        "sub(add(4.0, mul(x, x)), mul(mul(4.0, x), cos(z)))",
        {},
        "t1 = sub(2.0, x)\nt2 = sin(mul(z, 0.5))\nadd(mul(t1, t1), mul(mul(x, 8.0), mul(t2, t2)))",
    ),
    (
        "sub(add(1.0, mul(h, h)), mul(mul(2.0, h), cos(h)))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "t2 = sub(1.0, t1)\n"
        "t3 = sin(mul(t1, 0.5))\n"
        "cast(add(mul(t2, t2), mul(mul(t1, 4.0), mul(t3, t3))), dtype='float16')",
    ),
]

NEAR_MISSES = [
    ("sub(add(1.0, mul(x, x)), mul(mul(3.0, x), cos(z)))", {}),
    ("sub(add(2.0, mul(x, x)), mul(mul(2.0, x), cos(z)))", {}),
    ("sub(add(1.0, mul(x, x)), mul(mul(2.0, x), sin(z)))", {}),
    ("sub(add(1.0, mul(x, x)), mul(mul(2.0, w), cos(z)))", {}),
    ("sub(add(1.0, mul(x, w)), mul(mul(2.0, x), cos(z)))", {}),
    ("add(add(1.0, mul(x, x)), x)", {}),
]


@pytest.mark.parametrize(("body", "ranges", "expected"), AFTER)
def test_rewrites_to(body, ranges, expected):
    assert_rewrite(RULE, body, ranges, expected)


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)

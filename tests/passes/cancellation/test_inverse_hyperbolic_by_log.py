"""Logarithms that spell arsinh, arcosh and artanh."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.inverse_hyperbolic_by_log import RULE
from tests.passes.graphs import assert_no_match, assert_rewrite

#: (expression, bounds of its inputs, what takes its place)
AFTER = [
    ("log(add(x, sqrt(add(mul(x, x), 1.0))))", {}, "asinh(x)"),
    ("log(add(sqrt(add(1.0, pow(x, 2.0))), x))", {}, "asinh(x)"),
    ("log(add(x, sqrt(sub(mul(x, x), 1.0))))", {}, "acosh(x)"),
    ("log(div(add(1.0, x), sub(1.0, x)))", {}, "mul(atanh(x), 2.0)"),
    ("log(div(sub(1.0, x), add(1.0, x)))", {}, "mul(atanh(x), -2.0)"),
    ("mul(0.5, log(div(add(1.0, x), sub(1.0, x))))", {}, "mul(atanh(x), 2.0)"),
    ("log(add(h, sqrt(add(mul(h, h), 1.0))))", {}, "cast(asinh(cast(h, dtype='float32')), dtype='float16')"),
    ("log(add(D, sqrt(add(mul(D, D), 1.0))))", {}, "asinh(D)"),
    ("log(add(E, sqrt(add(mul(E, E), 1.0))))", {}, "asinh(E)"),
]

NEAR_MISSES = [
    ("log(add(x, sqrt(add(mul(x, x), 2.0))))", {}),
    ("log(add(x, sqrt(add(mul(z, z), 1.0))))", {}),
    ("log(div(add(1.0, x), sub(1.0, z)))", {}),
    ("log(div(add(1.0, x), sub(2.0, x)))", {}),
    ("log(div(x, sub(1.0, x)))", {}),
    ("log(add(x, 1.0))", {}),
]


@pytest.mark.parametrize(("body", "ranges", "expected"), AFTER)
def test_rewrites_to(body, ranges, expected):
    assert_rewrite(RULE, body, ranges, expected)


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)

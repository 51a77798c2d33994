"""(eʰ − 1)/h: neither cancelled near 0 nor infinite where the quotient is not."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.relative_increment import RULE
from tests.passes.graphs import assert_no_match, assert_rewrite

#: (expression, bounds of its inputs, what takes its place)
AFTER = [
    (
        "div(sub(exp(x), 1.0), x)",
        {},
        "t1 = expm1(mul(x, 0.5))\n"
        "mul(div(t1, x), add(t1, 2.0))",
    ),
    (
        "div(add(exp(x), -1.0), x)",
        {},
        "t1 = expm1(mul(x, 0.5))\n"
        "mul(div(t1, x), add(t1, 2.0))",
    ),
    (
        "div(expm1(x), x)",
        {},
        "t1 = expm1(mul(x, 0.5))\n"
        "mul(div(t1, x), add(t1, 2.0))",
    ),
    (
        "div(expm1(x), x)",
        {"x": (-9, 1.001)},
        "t1 = expm1(mul(x, 0.5))\n"
        "mul(div(t1, x), add(t1, 2.0))",
    ),
    (
        "div(sub(exp(x), 1.0), x)",
        {"x": (-1, 1)},
        "t1 = expm1(mul(x, 0.5))\n"
        "mul(div(t1, x), add(t1, 2.0))",
    ),
    (
        "div(sub(exp(h), 1.0), h)",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "t2 = expm1(mul(t1, 0.5))\n"
        "cast(mul(div(t2, t1), add(t2, 2.0)), dtype='float16')",
    ),
    (
        "div(sub(exp(D), 1.0), D)",
        {},
        "t1 = expm1(mul(D, 0.5))\n"
        "mul(div(t1, D), add(t1, 2.0))",
    ),
]  # fmt: skip

NEAR_MISSES = [
    ("div(expm1(x), x)", {"x": (-9, 1)}),
    ("div(sub(1.0, exp(x)), x)", {}),
    ("div(sub(exp(x), 1.0), z)", {}),
    ("div(expm1(x), z)", {}),
    ("div(sub(exp(x), 2.0), x)", {}),
    ("div(add(exp(x), 1.0), x)", {}),
    ("div(sin(x), x)", {}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "ranges", "expected"), AFTER)
def test_rewrites_to(body, ranges, expected):
    assert_rewrite(RULE, body, ranges, expected)


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)

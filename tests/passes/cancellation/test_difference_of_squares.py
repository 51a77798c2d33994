"""a² − b² and 1 − a²: the product of difference and sum."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.difference_of_squares import RULE
from tests.passes.graphs import assert_no_match, assert_rewrite

#: (expression, bounds of its inputs, what takes its place)
AFTER = [
    ("sub(mul(x, x), mul(z, z))", {}, "mul(sub(x, z), add(x, z))"),
    ("sub(pow(x, 2.0), mul(z, z))", {}, "mul(sub(x, z), add(x, z))"),
    ("add(neg(mul(z, z)), mul(x, x))", {}, "mul(sub(x, z), add(x, z))"),
    ("sub(1.0, mul(x, x))", {}, "mul(sub(1.0, x), add(1.0, x))"),
    ("sub(mul(x, x), 1.0)", {}, "mul(sub(x, 1.0), add(x, 1.0))"),
    ("sub(1.0, pow(x, 2.0))", {}, "mul(sub(1.0, x), add(1.0, x))"),
    (
        "sub(1.0, mul(h, h))",
        {},
        "t1 = cast(h, dtype='float32')\ncast(mul(sub(1.0, t1), add(1.0, t1)), dtype='float16')",
    ),
    ("sub(1.0, mul(D, D))", {}, "mul(sub(1.0, D), add(1.0, D))"),
    ("sub(1.0, mul(E, E))", {}, "mul(sub(1.0, E), add(1.0, E))"),
]

NEAR_MISSES = [
    ("sub(mul(x, x), mul(z, w))", {}),
    ("add(mul(x, x), mul(z, z))", {}),
    ("sub(1.0, mul(x, z))", {}),
    ("sub(2.0, mul(x, x))", {}),
    ("sub(1.0, pow(x, 3.0))", {}),
    ("sub(1.0, mul(x, x))", {"x": (-0.4, 0.4)}),
    ("sub(mul(x, x), mul(x, x))", {}),
    ("sub(1.0, mul(sin(x), sin(x)))", {}),
]


@pytest.mark.parametrize(("body", "ranges", "expected"), AFTER)
def test_rewrites_to(body, ranges, expected):
    assert_rewrite(RULE, body, ranges, expected)


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)

"""eˣ − e⁻ˣ: sinh."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.opposite_exponentials import RULE
from tests.passes.graphs import assert_no_match, assert_rewrite

#: (expression, bounds of its inputs, what takes its place)
AFTER = [
    ("sub(exp(x), exp(neg(x)))", {}, "mul(sinh(x), 2.0)"),
    ("div(sub(exp(x), exp(neg(x))), 2.0)", {}, "sinh(x)"),
    ("mul(0.5, sub(exp(x), exp(neg(x))))", {}, "sinh(x)"),
    ("sub(exp(neg(x)), exp(x))", {}, "mul(sinh(neg(x)), 2.0)"),
    ("sub(exp(x), div(1.0, exp(x)))", {}, "mul(sinh(x), 2.0)"),
    ("sub(exp(mul(x, 2.0)), exp(mul(x, -2.0)))", {}, "mul(sinh(mul(x, 2.0)), 2.0)"),
    ("sub(exp(h), exp(neg(h)))", {}, "cast(mul(sinh(cast(h, dtype='float32')), 2.0), dtype='float16')"),
    ("sub(exp(D), exp(neg(D)))", {}, "mul(sinh(D), 2.0)"),
    ("sub(exp(E), exp(neg(E)))", {}, "mul(sinh(E), 2.0)"),
    ("mul(sub(exp(x), exp(neg(x))), 0.25)", {}, "mul(sinh(x), 0.5)"),
    ("div(sub(exp(x), exp(neg(x))), 4.0)", {}, "mul(sinh(x), 0.5)"),
    ("sub(exp(x), exp(neg(x)))", {"x": (1.0, 9.0)}, "mul(sinh(x), 2.0)"),
    ("sub(exp(x), exp(neg(x)))", {"x": (-9.0, -1.0)}, "mul(sinh(x), 2.0)"),
    ("sub(exp(add(x, 1.0)), exp(sub(-1.0, x)))", {}, "mul(sinh(add(x, 1.0)), 2.0)"),
    ("sub(mul(3.0, exp(x)), mul(3.0, exp(neg(x))))", {}, "mul(sinh(x), 6.0)"),
]

NEAR_MISSES = [
    ("sub(exp(x), exp(z))", {}),
    ("sub(exp(x), mul(2.0, exp(neg(x))))", {}),
    ("sub(exp(x), exp(mul(x, -2.0)))", {}),
    ("sub(exp(x), exp(neg(x)))", {"x": (1.5, 9.0)}),
    ("sub(exp(x), exp(neg(x)))", {"x": (-9.0, -1.5)}),
    ("sub(exp(x), z)", {}),
    ("sub(z, exp(x))", {}),
    ("sub(x, neg(x))", {}),
    ("sub(mul(z, exp(x)), mul(z, exp(neg(x))))", {}),
    ("sub(mul(3.0, exp(x)), mul(2.0, exp(neg(x))))", {}),
    ("sub(exp(add(x, z)), exp(sub(neg(x), z)))", {}),
    ("div(2.0, add(exp(x), exp(neg(x))))", {}),
    ("mul(add(exp(x), exp(neg(x))), 0.5)", {}),
]


@pytest.mark.parametrize(("body", "ranges", "expected"), AFTER)
def test_rewrites_to(body, ranges, expected):
    assert_rewrite(RULE, body, ranges, expected)


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)

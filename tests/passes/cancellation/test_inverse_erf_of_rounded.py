"""erf⁻¹(2p − 1): the quantile of p itself."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.inverse_erf_of_rounded import RULE
from tests.passes.graphs import assert_no_match, assert_rewrite

#: (expression, bounds of its inputs, what takes its place)
AFTER = [
    ("erfinv(sub(mul(2.0, x), 1.0))", {}, "mul(ndtri(x), 0.7071067811865476)"),
    ("erfinv(add(mul(x, 2.0), -1.0))", {}, "mul(ndtri(x), 0.7071067811865476)"),
    ("erfinv(sub(1.0, mul(2.0, x)))", {}, "mul(ndtri(x), -0.7071067811865476)"),
    ("erfinv(sub(x, 1.0))", {}, "mul(ndtri(mul(x, 0.5)), 0.7071067811865476)"),
    ("mul(erfinv(sub(mul(2.0, x), 1.0)), 1.4142135623730951)", {}, "mul(ndtri(x), 0.7071067811865476)"),
    (
        "erfinv(sub(mul(2.0, h), 1.0))",
        {},
        "cast(mul(ndtri(cast(h, dtype='float32')), 0.7071067811865476), dtype='float16')",
    ),
    ("erfinv(sub(mul(2.0, D), 1.0))", {}, "mul(ndtri(D), 0.7071067811865476)"),
    ("erfinv(sub(mul(2.0, E), 1.0))", {}, "mul(ndtri(E), 0.7071067811865476)"),
]

NEAR_MISSES = [
    ("erfinv(x)", {}),
    ("erfinv(mul(2.0, x))", {}),
    ("erfinv(add(x, 1.0))", {}),
    ("erfinv(sub(x, 0.5))", {}),
    ("erfinv(sub(x, z))", {}),
]


@pytest.mark.parametrize(("body", "ranges", "expected"), AFTER)
def test_rewrites_to(body, ranges, expected):
    assert_rewrite(RULE, body, ranges, expected)


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)

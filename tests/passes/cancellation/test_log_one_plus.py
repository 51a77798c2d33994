"""log(1 ± x): the sum is not rounded before the logarithm."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.log_one_plus import RULE
from tests.passes.graphs import assert_no_match, assert_rewrite

#: (expression, bounds of its inputs, what takes its place)
AFTER = [
    ("log(add(1.0, x))", {}, "log1p(x)"),
    ("log(add(x, 1.0))", {}, "log1p(x)"),
    ("log(sub(1.0, x))", {}, "log1p(neg(x))"),
    ("log(sub(x, -1.0))", {}, "log1p(x)"),
    ("log(add(1.0, neg(x)))", {}, "log1p(neg(x))"),
    ("log(sub(1.0, neg(x)))", {}, "log1p(x)"),
    ("log(add(1.0, h))", {}, "log1p(h)"),
    ("log(add(1.0, x))", {"x": (1, 9)}, "log1p(x)"),
    ("log(add(1.0, x))", {"x": (-9, -1)}, "log1p(x)"),
]  # fmt: skip

NEAR_MISSES = [
    ("log(sub(-1.0, x))", {}),
    ("log(add(x, 2.0))", {}),
    ("log(add(x, 1.0000001))", {}),
    ("log(sub(x, 1.0))", {}),
    ("log(add(x, -1.0))", {}),
    ("log(add(x, z))", {}),
    ("log(mul(1.0, x))", {}),
    ("log(add(1.0, x))", {"x": (1.001, 9)}),
    ("log(add(1.0, x))", {"x": (-9, -1.001)}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "ranges", "expected"), AFTER)
def test_rewrites_to(body, ranges, expected):
    assert_rewrite(RULE, body, ranges, expected)


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)

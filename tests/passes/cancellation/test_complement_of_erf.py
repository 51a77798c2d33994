"""1 − erf and 1 − erfc: the subtraction is the complementary function."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.complement_of_erf import RULE
from tests.passes.graphs import assert_no_match, assert_rewrite

#: (expression, bounds of its inputs, what takes its place)
AFTER = [
    ("sub(1.0, erf(x))", {}, "erfc(x)"),
    ("sub(1.0, erfc(x))", {}, "erf(x)"),
    ("add(neg(erf(x)), 1.0)", {}, "erfc(x)"),
    ("add(1.0, neg(erf(x)))", {}, "erfc(x)"),
    ("sub(1.0, erf(h))", {}, "cast(erfc(cast(h, dtype='float32')), dtype='float16')"),
    ("sub(1.0, erf(D))", {}, "erfc(D)"),
]  # fmt: skip

NEAR_MISSES = [
    ("add(1.0, erf(x))", {}),
    ("sub(erf(x), 1.0)", {}),
    ("sub(2.0, erf(x))", {}),
    ("sub(0.99999999, erf(x))", {}),
    ("sub(1.0, tanh(x))", {}),
    ("sub(1.0, x)", {}),
    ("sub(1.0, neg(erf(x)))", {}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "ranges", "expected"), AFTER)
def test_rewrites_to(body, ranges, expected):
    assert_rewrite(RULE, body, ranges, expected)


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)

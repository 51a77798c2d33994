"""log(σ(a) − σ(b)): two sigmoids and the gap."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.log_of_sigmoid_difference import RULE
from tests.passes.graphs import assert_no_match, assert_rewrite

#: (expression, bounds of its inputs, what takes its place)
AFTER = [
    (
        "log(sub(sigmoid(x), sigmoid(z)))",
        {},
        "t1 = minimum(sub(z, x), 1.0)\n"
        "t2 = gt(t1, -0.6931471805599453)\n"
        "add(add(log_sigmoid(x), log_sigmoid(neg(z))), where(t2, log(neg(expm1(where(t2, minimum(t1, "
        "1.0), -0.5)))), log1p(neg(exp(where(t2, -1.0, t1))))))",
    ),
    (
        "log(sub(sigmoid(add(x, 0.5)), sigmoid(sub(x, 0.5))))",
        {},
        "t1 = minimum(-1.0, 1.0)\n"
        "t2 = gt(t1, -0.6931471805599453)\n"
        "add(add(log_sigmoid(add(x, 0.5)), log_sigmoid(add(neg(x), 0.5))), where(t2, "
        "log(neg(expm1(where(t2, minimum(t1, 1.0), -0.5)))), log1p(neg(exp(where(t2, -1.0, t1))))))",
    ),
    (
        "log(sub(sigmoid(h), sigmoid(mul(h, 2.0))))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "t2 = minimum(t1, 1.0)\n"
        "t3 = gt(t2, -0.6931471805599453)\n"
        "cast(add(add(log_sigmoid(t1), log_sigmoid(mul(t1, -2.0))), where(t3, log(neg(expm1(where(t3, "
        "minimum(t2, 1.0), -0.5)))), log1p(neg(exp(where(t3, -1.0, t2)))))), dtype='float16')",
    ),
    (
        "log(sub(sigmoid(E), sigmoid(mul(E, 2.0))))",
        {},
        "t1 = minimum(E, 1.0)\n"
        "t2 = gt(t1, -0.6931471805599453)\n"
        "add(add(log_sigmoid(E), log_sigmoid(mul(E, -2.0))), where(t2, log(neg(expm1(where(t2, "
        "minimum(t1, 1.0), -0.5)))), log1p(neg(exp(where(t2, -1.0, t1))))))",
    ),
]

NEAR_MISSES = [
    ("log(sub(sigmoid(x), tanh(z)))", {}),
    ("log(add(sigmoid(x), sigmoid(z)))", {}),
    ("log(sub(sigmoid(x), mul(sigmoid(z), 2.0)))", {}),
    ("log(sub(sigmoid(x), z))", {}),
]


@pytest.mark.parametrize(("body", "ranges", "expected"), AFTER)
def test_rewrites_to(body, ranges, expected):
    assert_rewrite(RULE, body, ranges, expected)


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)

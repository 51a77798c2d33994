"""Products and quotients of erfc and the Gaussian it decays with."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.erfc_times_gaussian import RULE
from tests.passes.graphs import assert_no_match, assert_rewrite

#: (expression, bounds of its inputs, what takes its place)
AFTER = [
    ("mul(exp(mul(x, x)), erfc(x))", {}, "erfcx(x)"),
    ("mul(erfc(x), exp(pow(x, 2.0)))", {}, "erfcx(x)"),
    ("div(erfc(x), exp(neg(mul(x, x))))", {}, "erfcx(x)"),
    (
        "div(exp(neg(mul(x, x))), erfc(x))",
        {},
        "t1 = gt(x, 0.0)\n"
        "where(t1, div(1.0, erfcx(where(t1, x, 0.0))), div(exp(neg(mul(x, x))), erfc(where(t1, 0.0, "
        "x))))",
    ),
    (
        "mul(exp(div(mul(x, x), 2.0)), erfc(div(x, 1.4142135623730951)))",
        {},
        "mul(erfcx(div(x, 1.4142135623730951)), exp(mul(mul(x, x), 6.835808657661922e-17)))",
    ),
    (
        "div(mul(exp(neg(mul(x, x))), 3.0), mul(2.0, erfc(x)))",
        {},
        "t1 = gt(x, 0.0)\n"
        "mul(where(t1, div(1.0, erfcx(where(t1, x, 0.0))), div(exp(neg(mul(x, x))), erfc(where(t1, 0.0, "
        "x)))), 1.5)",
    ),
    ("mul(exp(mul(h, h)), erfc(h))", {}, "cast(erfcx(cast(h, dtype='float32')), dtype='float16')"),
    ("mul(exp(mul(D, D)), erfc(D))", {}, "erfcx(D)"),
    ("mul(mul(2.0, exp(mul(x, x))), mul(3.0, erfc(x)))", {}, "mul(erfcx(x), 6.0)"),
    ("div(mul(2.0, erfc(x)), mul(3.0, exp(neg(mul(x, x)))))", {}, "mul(erfcx(x), 0.6666666666666666)"),
    (
        "div(mul(2.0, exp(neg(mul(x, x)))), mul(3.0, erfc(x)))",
        {},
        "t1 = gt(x, 0.0)\n"
        "mul(where(t1, div(1.0, erfcx(where(t1, x, 0.0))), div(exp(neg(mul(x, x))), erfc(where(t1, 0.0, "
        "x)))), 0.6666666666666666)",
    ),
    ("mul(exp(mul(x, x)), sub(2.0, mul(2.0, erf(x))))", {}, "mul(erfcx(x), 2.0)"),
    (
        "div(exp(neg(mul(h, h))), erfc(h))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "t2 = gt(t1, 0.0)\n"
        "cast(where(t2, div(1.0, erfcx(where(t2, t1, 0.0))), div(exp(cast(neg(mul(h, h)), dtype='float32')), "
        "erfc(where(t2, 0.0, t1)))), dtype='float16')",
    ),
]

NEAR_MISSES = [
    ("mul(exp(mul(x, z)), erfc(x))", {}),
    ("mul(exp(neg(mul(x, x))), erfc(x))", {}),
    ("mul(exp(mul(x, x)), erfc(z))", {}),
    ("div(exp(mul(x, x)), erfc(x))", {}),
    ("mul(exp(mul(mul(x, x), 2.0)), erfc(x))", {}),
    ("mul(exp(mul(x, x)), erf(x))", {}),
    ("mul(exp(mul(x, x)), sub(2.0, erf(x)))", {}),
    ("mul(exp(mul(x, x)), sub(1.0, mul(2.0, erf(x))))", {}),
    ("mul(exp(mul(x, x)), add(1.0, erf(x)))", {}),
]


@pytest.mark.parametrize(("body", "ranges", "expected"), AFTER)
def test_rewrites_to(body, ranges, expected):
    assert_rewrite(RULE, body, ranges, expected)


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)

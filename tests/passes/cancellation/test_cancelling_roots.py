"""√p − √q and √p − a where the radicands differ by little: the conjugate quotient."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.cancelling_roots import RULE
from tests.passes.graphs import assert_no_match, assert_rewrite

#: (expression, bounds of its inputs, what takes its place)
AFTER = [
    (
        "sub(sqrt(add(x, 1.0)), sqrt(x))",
        {},
        "t1 = add(sqrt(add(x, 1.0)), sqrt(x))\ndiv(1.0, where(eq(t1, 0.0), 1.0, t1))",
    ),
    (
        "sub(sqrt(x), sqrt(add(1.0, x)))",
        {},
        "t1 = add(sqrt(x), sqrt(add(1.0, x)))\ndiv(-1.0, where(eq(t1, 0.0), 1.0, t1))",
    ),
    ("sub(sqrt(add(x, z)), sqrt(x))", {}, "t1 = add(sqrt(add(x, z)), sqrt(x))\ndiv(z, where(eq(t1, 0.0), 1.0, t1))"),
    ("sub(sqrt(add(mul(x, x), 1.0)), 1.0)", {}, "t1 = mul(x, x)\ndiv(t1, add(sqrt(add(t1, 1.0)), 1.0))"),
    ("add(sqrt(add(1.0, pow(x, 2.0))), -1.0)", {}, "div(mul(x, x), add(sqrt(add(1.0, pow(x, 2.0))), neg(-1.0)))"),
    ("sub(1.0, sqrt(sub(1.0, x)))", {}, "neg(div(neg(x), add(sqrt(sub(1.0, x)), 1.0)))"),
    (
        "sub(sqrt(add(mul(x, x), z)), x)",
        {},
        (
            "t1 = gt(x, 0.0)\n"
            "t2 = add(sqrt(add(mul(x, x), z)), where(t1, x, neg(x)))\n"
            "where(t1, div(z, where(t1, t2, 1.0)), t2)"
        ),
    ),
    (
        "add(sqrt(add(mul(x, x), z)), x)",
        {},
        (
            "t1 = neg(x)\n"
            "t2 = gt(t1, 0.0)\n"
            "t3 = add(sqrt(add(mul(x, x), z)), where(t2, t1, x))\n"
            "where(t2, div(z, where(t2, t3, 1.0)), t3)"
        ),
    ),
    (
        "add(neg(z), sqrt(sub(mul(z, z), mul(mul(4.0, x), w))))",
        {},
        (
            "t1 = gt(z, 0.0)\n"
            "t2 = add(sqrt(sub(mul(z, z), mul(mul(4.0, x), w))), where(t1, z, neg(z)))\n"
            "where(t1, div(mul(mul(x, w), -4.0), where(t1, t2, 1.0)), t2)"
        ),
    ),
    (
        "sub(neg(z), sqrt(sub(mul(z, z), mul(mul(4.0, x), w))))",
        {},
        (
            "t1 = neg(z)\n"
            "t2 = gt(t1, 0.0)\n"
            "t3 = add(sqrt(sub(mul(z, z), mul(mul(4.0, x), w))), where(t2, t1, z))\n"
            "neg(where(t2, div(mul(mul(x, w), -4.0), where(t2, t3, 1.0)), t3))"
        ),
    ),
    ("sub(sqrt(add(mul(x, x), z)), x)", {"x": (0.5, 9.0)}, "div(z, add(sqrt(add(mul(x, x), z)), x))"),
    (
        "sub(sqrt(add(mul(h, h), 1.0)), 1.0)",
        {},
        "t1 = cast(h, dtype='float32')\nt2 = mul(t1, t1)\ncast(div(t2, add(sqrt(add(1.0, t2)), 1.0)), dtype='float16')",
    ),
    (
        "sub(sqrt(add(D, 1.0)), sqrt(D))",
        {},
        "t1 = add(sqrt(add(D, 1.0)), sqrt(D))\ndiv(1.0, where(eq(t1, 0.0), 1.0, t1))",
    ),
    ("sub(sqrt(add(mul(E, E), 1.0)), 1.0)", {}, "t1 = mul(E, E)\ndiv(t1, add(sqrt(add(t1, 1.0)), 1.0))"),
]

NEAR_MISSES = [
    ("sub(sqrt(add(x, 1.0)), sqrt(z))", {}),
    ("sub(sqrt(add(x, 1.0)), x)", {}),
    ("add(sqrt(add(x, 1.0)), sqrt(x))", {}),
    ("add(sqrt(add(mul(x, x), 1.0)), 1.0)", {}),
    ("sub(sqrt(add(mul(x, z), 1.0)), x)", {}),
    ("sub(sqrt(add(mul(x, x), z)), x)", {"x": (-9.0, -0.5)}),
    ("sub(x, z)", {}),
]


@pytest.mark.parametrize(("body", "ranges", "expected"), AFTER)
def test_rewrites_to(body, ranges, expected):
    assert_rewrite(RULE, body, ranges, expected)


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)

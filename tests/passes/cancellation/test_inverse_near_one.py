"""arccos(1 − t), arcosh(1 + t), artanh(1 − t): functions of t itself."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.inverse_near_one import RULE
from tests.passes.graphs import assert_no_match, assert_rewrite


def _sum(v: str) -> str:
    return f"sum(mul({v}, {v}), axes=(1,), keepdim=True)"


_SUM = _sum("x")


def _length(v: str, least: str = "1.1754943508222875e-38", most: str = "3.4028234663852886e+38") -> str:
    """‖v‖ of rows by their largest entry, t1, from the text of v."""
    largest = f"maximum(detach(max(abs({v}), axes=(1,), keepdim=True)), {least})"
    return f"t1 = minimum({largest}, {most})\nmul(asinh(mul(mul(norm(div({v}, t1), axes=(1,), keepdim=True), t1), "


#: (expression, bounds of its inputs, what takes its place)
AFTER = [
    ("acosh(add(1.0, x))", {}, "mul(asinh(sqrt(mul(x, 0.5))), 2.0)"),
    ("acosh(add(x, 1.0))", {}, "mul(asinh(sqrt(mul(x, 0.5))), 2.0)"),
    ("acosh(sub(1.0, x))", {}, "mul(asinh(sqrt(mul(neg(x), 0.5))), 2.0)"),
    ("acos(sub(1.0, x))", {}, "mul(asin(sqrt(mul(x, 0.5))), 2.0)"),
    ("acos(add(1.0, x))", {}, "mul(asin(sqrt(mul(neg(x), 0.5))), 2.0)"),
    (
        "atanh(sub(1.0, x))",
        {},
        "t1 = and_(gt(x, 0.0), lt(x, 0.5))\n"
        "t2 = where(t1, x, 0.25)\n"
        "where(t1, mul(log1p(div(mul(sub(1.0, t2), 2.0), t2)), 0.5), atanh(where(t1, 0.0, sub(1.0, x))))",
    ),
    (
        "acosh(add(1.0, div(mul(2.0, x), mul(sub(1.0, z), sub(1.0, w)))))",
        {},
        "mul(asinh(sqrt(mul(div(mul(2.0, x), mul(sub(1.0, z), sub(1.0, w))), 0.5))), 2.0)",
    ),
    ("acosh(add(1.0, h))", {}, "cast(mul(asinh(sqrt(mul(cast(h, dtype='float32'), 0.5))), 2.0), dtype='float16')"),
    ("acosh(add(1.0, D))", {}, "mul(asinh(sqrt(mul(D, 0.5))), 2.0)"),
    ("acosh(add(1.0, E))", {}, "mul(asinh(sqrt(mul(E, 0.5))), 2.0)"),
    ("acosh(sub(x, -1.0))", {}, "mul(asinh(sqrt(mul(x, 0.5))), 2.0)"),
    ("acosh(add(1.0, x))", {"x": (1.0, 9.0)}, "mul(asinh(sqrt(mul(x, 0.5))), 2.0)"),
    ("acosh(add(1.0, x))", {"x": (-9.0, -1.0)}, "mul(asinh(sqrt(mul(x, 0.5))), 2.0)"),
    (
        "atanh(add(1.0, h))",
        {},
        "t1 = neg(cast(h, dtype='float32'))\n"
        "t2 = and_(gt(t1, 0.0), lt(t1, 0.5))\n"
        "t3 = where(t2, t1, 0.25)\n"
        "cast(where(t2, mul(log1p(div(mul(sub(1.0, t3), 2.0), t3)), 0.5), atanh(where(t2, 0.0, sub(1.0, t1)))), "
        "dtype='float16')",
    ),
    # what is divided is the square of a length
    (f"acosh(add(1.0, div({_SUM}, R)))", {}, _length("x") + "sqrt(div(0.5, R)))), 2.0)"),
    (f"acosh(add(1.0, div(mul({_SUM}, 0.5), R)))", {}, _length("x") + "sqrt(div(0.25, R)))), 2.0)"),
    (f"acosh(add(1.0, div(mul(2.0, {_SUM}), add(R, 1.0))))", {}, _length("x") + "sqrt(div(1.0, add(R, 1.0))))), 2.0)"),
    (
        f"acosh(add(1.0, div({_sum('D')}, 3.0)))",
        {},
        _length("D", "2.2250738585072014e-308", "1.7976931348623157e+308") + "sqrt(div(0.5, 3.0)))), 2.0)",
    ),
    (
        "acosh(add(1.0, div(sum(pow(sub(x, z), 2.0), axes=(1,), keepdim=False), U)))",
        {},
        "t1 = sub(x, z)\n"
        "t2 = minimum(maximum(detach(max(abs(t1), axes=(1,), keepdim=True)), 1.1754943508222875e-38), "
        "3.4028234663852886e+38)\n"
        "mul(asinh(mul(squeeze(mul(norm(div(t1, t2), axes=(1,), keepdim=True), t2), axes=(1,)), "
        "sqrt(div(0.5, U)))), 2.0)",
    ),
    # and what is not
    *(
        (f"acosh({one} {t}))", {}, f"mul(asinh(sqrt(mul({s}, 0.5))), 2.0)")
        for one, t, s in [
            ("sub(1.0,", f"div({_SUM}, R)", f"neg(div({_SUM}, R))"),
            *(
                ("add(1.0,", t, t)
                for t in (
                    f"div(mul(-0.5, {_SUM}), R)",
                    f"div(add({_SUM}, {_sum('z')}), R)",
                    "div(sum(mul(x, z), axes=(1,), keepdim=True), R)",
                    "div(mean(mul(x, x), axes=(1,), keepdim=True), R)",
                    f"div(mul(R, {_SUM}), add(R, 1.0))",
                    "div(max(mul(x, x), axes=(1,), keepdim=True), R)",
                    f"mul({_SUM}, R)",
                )
            ),
        ]
    ),
    (f"acos(sub(1.0, div({_SUM}, R)))", {}, f"mul(asin(sqrt(mul(div({_SUM}, R), 0.5))), 2.0)"),
]

NEAR_MISSES = [
    ("acosh(x)", {}),
    ("acosh(add(2.0, x))", {}),
    ("acos(x)", {}),
    ("acosh(add(x, z))", {}),
    ("acosh(add(1.0, x))", {"x": (1.01, 9.0)}),
    ("acosh(add(1.0, x))", {"x": (-9.0, -1.01)}),
    ("acosh(add(-1.0, x))", {}),
    ("atanh(sub(x, 1.0))", {}),
    ("atanh(mul(x, 2.0))", {}),
]


@pytest.mark.parametrize(("body", "ranges", "expected"), AFTER)
def test_rewrites_to(body, ranges, expected):
    assert_rewrite(RULE, body, ranges, expected)


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)

"""log(eᵃ − eᵇ) in any spelling: the accurate half on either side of ln 2."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.log_of_difference import RULE
from tests.passes.graphs import Options, Outcome, assert_no_match, assert_rewrite

#: (expression, bounds of its inputs, what takes its place)
AFTER = [
    (
        "log(sub(exp(x), exp(z)))",
        {},
        "t1 = sub(z, x)\n"
        "t2 = gt(t1, -0.6931471805599453)\n"
        "add(x, where(t2, log(neg(expm1(where(t2, minimum(t1, 1.0), -0.5)))), log1p(neg(exp(where(t2, -1.0, "
        "t1))))))",
    ),
    (
        "log(sub(1.0, exp(x)))",
        {},
        "t1 = gt(x, -0.6931471805599453)\n"
        "where(t1, log(neg(expm1(where(t1, minimum(x, 1.0), -0.5)))), log1p(neg(exp(where(t1, -1.0, x)))))",
    ),
    (
        "log(sub(exp(x), 1.0))",
        {},
        "t1 = neg(x)\n"
        "t2 = gt(t1, -0.6931471805599453)\n"
        "add(x, where(t2, log(neg(expm1(where(t2, minimum(t1, 1.0), -0.5)))), log1p(neg(exp(where(t2, -1.0, "
        "t1))))))",
    ),
    (
        "log(add(neg(exp(x)), 1.0))",
        {},
        "t1 = gt(x, -0.6931471805599453)\n"
        "where(t1, log(neg(expm1(where(t1, minimum(x, 1.0), -0.5)))), log1p(neg(exp(where(t1, -1.0, x)))))",
    ),
    (
        "log(expm1(x))",
        {},
        "t1 = neg(x)\n"
        "t2 = gt(t1, -0.6931471805599453)\n"
        "add(x, where(t2, log(neg(expm1(where(t2, minimum(t1, 1.0), -0.5)))), log1p(neg(exp(where(t2, -1.0, "
        "t1))))))",
    ),
    (
        "log(neg(expm1(x)))",
        {},
        "t1 = gt(x, -0.6931471805599453)\n"
        "where(t1, log(neg(expm1(where(t1, minimum(x, 1.0), -0.5)))), log1p(neg(exp(where(t1, -1.0, x)))))",
    ),
    (
        "log1p(neg(exp(x)))",
        {},
        "t1 = gt(x, -0.6931471805599453)\n"
        "where(t1, log(neg(expm1(where(t1, minimum(x, 1.0), -0.5)))), log1p(neg(exp(where(t1, -1.0, x)))))",
    ),
    (
        "log(sub(pow(2.0, x), 1.0))",
        {},
        "t1 = mul(x, -0.6931471805599453)\n"
        "t2 = gt(t1, -0.6931471805599453)\n"
        "add(mul(x, 0.6931471805599453), where(t2, log(neg(expm1(where(t2, minimum(t1, 1.0), -0.5)))), "
        "log1p(neg(exp(where(t2, -1.0, t1))))))",
    ),
    (
        "log(sub(exp(x), exp(neg(x))))",
        {},
        "t1 = mul(x, -2.0)\n"
        "t2 = gt(t1, -0.6931471805599453)\n"
        "add(x, where(t2, log(neg(expm1(where(t2, minimum(t1, 1.0), -0.5)))), log1p(neg(exp(where(t2, -1.0, "
        "t1))))))",
    ),
    (
        "log(sub(sqrt(exp(x)), exp(z)))",
        {},
        "t1 = mul(x, 0.5)\n"
        "t2 = sub(z, t1)\n"
        "t3 = gt(t2, -0.6931471805599453)\n"
        "add(t1, where(t3, log(neg(expm1(where(t3, minimum(t2, 1.0), -0.5)))), log1p(neg(exp(where(t3, -1.0, "
        "t2))))))",
    ),
    (
        "log(sub(div(exp(x), exp(w)), mul(exp(z), exp(w))))",
        {},
        "t1 = sub(add(z, mul(w, 2.0)), x)\n"
        "t2 = gt(t1, -0.6931471805599453)\n"
        "add(sub(x, w), where(t2, log(neg(expm1(where(t2, minimum(t1, 1.0), -0.5)))), log1p(neg(exp(where(t2, "
        "-1.0, t1))))))",
    ),
    (
        "log(sub(exp(h), 1.0))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "t2 = neg(t1)\n"
        "t3 = gt(t2, -0.6931471805599453)\n"
        "cast(add(t1, where(t3, log(neg(expm1(where(t3, minimum(t2, 1.0), -0.5)))), log1p(neg(exp(where(t3, "
        "-1.0, t2)))))), dtype='float16')",
    ),
    (
        "log1p(neg(exp(x)))",
        {"x": (-9, -0.4)},
        "t1 = gt(x, -0.6931471805599453)\n"
        "where(t1, log(neg(expm1(where(t1, minimum(x, 1.0), -0.5)))), log1p(neg(exp(where(t1, -1.0, x)))))",
    ),
    (
        "log(neg(expm1(x)))",
        {"x": (-1.5, -0.1)},
        "t1 = gt(x, -0.6931471805599453)\n"
        "where(t1, log(neg(expm1(where(t1, minimum(x, 1.0), -0.5)))), log1p(neg(exp(where(t1, -1.0, x)))))",
    ),
    (
        "log(sub(1.0, exp(x)))",
        {"x": (-0.4, -0.1)},
        "t1 = gt(x, -0.6931471805599453)\n"
        "where(t1, log(neg(expm1(where(t1, minimum(x, 1.0), -0.5)))), log1p(neg(exp(where(t1, -1.0, x)))))",
    ),
    (
        "log(sub(1.0, exp(x)))",
        {"x": (-9, -4)},
        "t1 = gt(x, -0.6931471805599453)\n"
        "where(t1, log(neg(expm1(where(t1, minimum(x, 1.0), -0.5)))), log1p(neg(exp(where(t1, -1.0, x)))))",
    ),
]  # fmt: skip

NEAR_MISSES = [
    ("log1p(neg(exp(x)))", {"x": (-9, -0.5)}),
    ("log(neg(expm1(x)))", {"x": (-1.0, -0.1)}),
    ("log(sub(sigmoid(x), exp(z)))", {}),
    ("log(sub(exp(z), sigmoid(x)))", {}),
    ("log(sub(div(exp(x), add(1.0, exp(x))), exp(z)))", {}),
    ("log(sub(exp(z), div(exp(x), sum(exp(x), axes=(1,), keepdim=True))))", {}),
    ("log(sub(1.0, sub(x, x)))", {}),
    ("log(sub(max(exp(x), axes=(1,), keepdim=True), exp(z)))", {}),
    ("log(sub(softmax(x, axis=1), exp(z)))", {}),
    ("log(sub(exp(z), softmax(x, axis=1)))", {}),
    ("log(sub(exp(x), 2.0))", {}),
    ("log(sub(exp(x), 1.0000001))", {}),
    ("log(sub(2.0, exp(x)))", {}),
    ("log(sub(x, exp(z)))", {}),
    ("log(sub(mul(exp(x), 2.0), exp(z)))", {}),
    ("log(add(1.0, exp(x)))", {}),
    ("log(neg(x))", {}),
    ("log(neg(sin(x)))", {}),
    ("log(x)", {}),
    ("log1p(x)", {}),
    ("log1p(neg(x))", {}),
    ("log1p(exp(x))", {}),
    ("log1p(neg(sigmoid(x)))", {}),
    ("log1p(neg(mul(exp(x), 2.0)))", {}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "ranges", "expected"), AFTER)
def test_rewrites_to(body, ranges, expected):
    assert_rewrite(RULE, body, ranges, expected)


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)


#: Both halves, as libraries write them: each is used where it is accurate, and nowhere else.
CHOSEN = [
    "where(gt(x, -0.6931471805599453), log(neg(expm1(x))), log1p(neg(exp(x))))",
    "where(lt(-0.6931471805599453, x), log(neg(expm1(x))), log1p(neg(exp(x))))",
    "where(le(x, -0.6931471805599453), log1p(neg(exp(x))), log(neg(expm1(x))))",
    "where(gt(sub(x, z), -0.7), log(neg(expm1(sub(x, z)))), log1p(neg(exp(sub(x, z)))))",
]
#: (expression, how often something is found): the halves the wrong way round, used elsewhere too, chosen by another.
NOT_CHOSEN = [
    ("where(lt(x, -0.6931471805599453), log(neg(expm1(x))), log1p(neg(exp(x))))", 2),
    ("t1 = log(neg(expm1(x)))\nadd(t1, where(gt(x, -0.6931471805599453), t1, log1p(neg(exp(x)))))", 1),
    ("t1 = log(neg(expm1(x)))\nwhere(gt(x, -0.6931471805599453), t1, t1)", 1),
    ("where(gt(z, -0.6931471805599453), log(neg(expm1(x))), log1p(neg(exp(x))))", 2),
    ("where(gt(x, -3.0), log(neg(expm1(x))), log1p(neg(exp(x))))", 1),
]


@pytest.mark.parametrize("body", [*CHOSEN, *(new for _, ranges, new in AFTER if not ranges)])
def test_the_accurate_half_is_left_alone(body):
    assert "STB212" not in Outcome(body, Options()).codes


@pytest.mark.parametrize(("body", "count"), NOT_CHOSEN)
def test_a_half_that_is_not_chosen_by_its_exponent(body, count):
    assert Outcome(body, Options()).codes == ["STB212"] * count

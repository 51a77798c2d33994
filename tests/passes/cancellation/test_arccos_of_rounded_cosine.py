"""arccos of the dot product of normalised vectors."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.arccos_of_rounded_cosine import RULE
from tests.passes.graphs import Options, Outcome, assert_no_match, assert_rewrite, brief

#: (expression, bounds of its inputs, what takes its place)
AFTER = [
    (
        "n2 = div(x, norm(x, axes=(1,), keepdim=True))\n"
        "m2 = div(z, norm(z, axes=(1,), keepdim=True))\n"
        "return acos(sum(mul(n2, m2), axes=(1,), keepdim=False))",
        {},
        (
            "t1 = div(x, norm(x, axes=(1,), keepdim=True))\n"
            "t2 = div(z, norm(z, axes=(1,), keepdim=True))\n"
            "t3 = sub(t1, t2)\n"
            "t4 = sum(mul(t3, t3), axes=(1,), keepdim=False)\n"
            "t5 = add(t1, t2)\n"
            "t6 = sum(mul(t5, t5), axes=(1,), keepdim=False)\n"
            "t7 = eq(add(t4, t6), 0.0)\n"
            "t8 = where(t7, 1.0, t4)\n"
            "t9 = eq(t8, 0.0)\n"
            "t10 = where(t7, 1.0, t6)\n"
            "t11 = eq(t10, 0.0)\n"
            "mul(atan(div(where(t9, 0.0, sqrt(where(t9, 1.0, t8))), where(t11, 0.0, sqrt(where(t11, 1.0, t10))))), 2.0)"
        ),
    ),
    (
        "n2 = div(x, norm(x, axes=(1,), keepdim=True))\n"
        "m2 = div(z, norm(z, axes=(1,), keepdim=True))\n"
        "return asin(sum(mul(n2, m2), axes=(1,), keepdim=True))",
        {},
        "asin(minimum(maximum(sum(mul(div(x, norm(x, axes=(1,), keepdim=True)), div(z, norm(z, "
        "axes=(1,), keepdim=True))), axes=(1,), keepdim=True), -1.0), 1.0))",
    ),
    (
        "n2 = div(x, norm(x, axes=(1,), keepdim=True))\n"
        "m2 = div(z, norm(z, axes=(1,), keepdim=True))\n"
        "return acos(matmul(n2, transpose(m2, perm=(1, 0))))",
        {},
        "acos(minimum(maximum(matmul(div(x, norm(x, axes=(1,), keepdim=True)), transpose(div(z, norm(z, "
        "axes=(1,), keepdim=True)), perm=(1, 0))), -1.0), 1.0))",
    ),
    (
        "n2 = norm(x, axes=(1,), keepdim=False)\n"
        "m2 = norm(z, axes=(1,), keepdim=False)\n"
        "return acos(div(sum(mul(x, z), axes=(1,), keepdim=False), mul(n2, m2)))",
        {"x": (-100.0, 100.0), "z": (-100.0, 100.0)},  # else STB402 speaks as well
        "acos(minimum(maximum(div(sum(mul(x, z), axes=(1,), keepdim=False), mul(norm(x, axes=(1,), "
        "keepdim=False), norm(z, axes=(1,), keepdim=False))), -1.0), 1.0))",
    ),
    (
        "n2 = div(x, maximum(norm(x, axes=(1,), keepdim=True), 0.001))\n"
        "m2 = div(z, add(norm(z, axes=(1,), keepdim=True), 0.001))\n"
        "return acos(sum(mul(n2, m2), axes=(1,), keepdim=False))",
        {},
        (
            "t1 = norm(x, axes=(1,), keepdim=True)\n"
            "t2 = maximum(t1, 0.001)\n"
            "t3 = div(x, t2)\n"
            "t4 = norm(z, axes=(1,), keepdim=True)\n"
            "t5 = add(t4, 0.001)\n"
            "t6 = div(z, t5)\n"
            "t7 = mul(max(cast(lt(mul(t1, 1.000000238418579), t2), dtype='float32'), axes=(1,), "
            "keepdim=False), sub(1.0, sum(mul(t3, t3), axes=(1,), keepdim=False)))\n"
            "t8 = mul(max(cast(lt(mul(t4, 1.000000238418579), t5), dtype='float32'), axes=(1,), "
            "keepdim=False), sub(1.0, sum(mul(t6, t6), axes=(1,), keepdim=False)))\n"
            "t9 = sub(t3, t6)\n"
            "t10 = add(add(sum(mul(t9, t9), axes=(1,), keepdim=False), t7), t8)\n"
            "t11 = add(t3, t6)\n"
            "t12 = add(add(sum(mul(t11, t11), axes=(1,), keepdim=False), t7), t8)\n"
            "t13 = eq(add(t10, t12), 0.0)\n"
            "t14 = where(t13, 1.0, t10)\n"
            "t15 = eq(t14, 0.0)\n"
            "t16 = where(t13, 1.0, t12)\n"
            "t17 = eq(t16, 0.0)\n"
            "mul(atan(div(where(t15, 0.0, sqrt(where(t15, 1.0, t14))), where(t17, 0.0, sqrt(where(t17, "
            "1.0, t16))))), 2.0)"
        ),
    ),
]

NEAR_MISSES = [
    ("acos(x)", {}),
    # the lengths of rows divide columns
    ("n2 = div(s, norm(s, axes=(1,), keepdim=False))\nreturn acos(sum(mul(n2, n2), axes=(1,), keepdim=False))", {}),
    ("acos(tanh(x))", {}),
    ("acos(minimum(maximum(x, -1.0), 1.0))", {}),
    ("acos(sum(mul(x, z), axes=(1,), keepdim=False))", {}),
    (
        "n2 = div(x, norm(x, axes=(0,), keepdim=True))\n"
        "m2 = div(z, norm(z, axes=(0,), keepdim=True))\n"
        "return acos(sum(mul(n2, m2), axes=(1,), keepdim=False))",
        {},
    ),
    ("n2 = div(x, norm(z, axes=(1,), keepdim=True))\nreturn acos(sum(mul(n2, n2), axes=(1,), keepdim=False))", {}),
    (
        "n2 = div(x, sum(mul(x, x), axes=(1,), keepdim=True))\nreturn acos(sum(mul(n2, n2), axes=(1,), keepdim=False))",
        {},
    ),
    (
        "n2 = div(x, norm(x, axes=(1,), keepdim=True))\n"
        "m2 = div(z, norm(z, axes=(1,), keepdim=True))\n"
        "return acos(mul(sum(mul(n2, m2), axes=(1,), keepdim=False), 2.0))",
        {},
    ),
]


@pytest.mark.parametrize(("body", "ranges", "expected"), AFTER)
def test_rewrites_to(body, ranges, expected):
    assert_rewrite(RULE, body, ranges, expected)


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)


def test_an_angle_by_a_cosine_that_overflows_is_clamped_and_scaled():
    outcome = Outcome(AFTER[3][0], Options())
    assert sorted(outcome.codes) == ["STB402", "STB411"]
    assert {old.op for old in outcome.replaced} == {"acos", "div"}


def test_a_length_that_was_put_back_is_no_guard():
    """Nothing is taken off ‖n‖² = 1 then; where a guard does not line up with the vector, the cosine is clamped."""
    body = "n2 = div(x, unsqueeze({}, axes=(1,)))\nreturn acos(sum(mul(n2, div(z, {})), axes=(1,), keepdim=False))"
    put_back, kept = "norm(x, axes=(1,), keepdim=False)", "norm(z, axes=(1,), keepdim=True)"
    _, _, expected = AFTER[0]
    expected = expected.replace("norm(x, axes=(1,), keepdim=True)", f"unsqueeze({put_back}, axes=(1,))")
    assert_rewrite(RULE, body.format(put_back, kept), {}, expected)
    (proposal,) = Outcome(body.format(f"add({put_back}, 0.001)", kept), Options()).proposed
    assert [brief(new).partition("(")[0] for new in proposal.candidates] == ["acos"]
    (proposal,) = Outcome(body.format(put_back, f"maximum({kept}, 0.001)"), Options()).proposed
    assert len(proposal.candidates) == 2


def test_the_angle_of_float16_vectors_is_taken_in_float32():
    length = "norm(h, axes=(1,), keepdim=True)"
    body = f"acos(sum(mul(div(h, {length}), div(h, maximum({length}, 0.001))), axes=(1,), keepdim=True))"
    assert_rewrite(
        RULE,
        body,
        {},
        "t1 = norm(h, axes=(1,), keepdim=True)\n"
        "t2 = maximum(t1, 0.001)\n"
        "t3 = cast(div(h, t1), dtype='float32')\n"
        "t4 = cast(div(h, t2), dtype='float32')\n"
        "t5 = mul(max(cast(lt(mul(t1, 1.001953125), t2), dtype='float32'), axes=(1,), keepdim=True), "
        "sub(1.0, sum(mul(t4, t4), axes=(1,), keepdim=True)))\n"
        "t6 = sub(t3, t4)\n"
        "t7 = add(sum(mul(t6, t6), axes=(1,), keepdim=True), t5)\n"
        "t8 = add(t3, t4)\n"
        "t9 = add(sum(mul(t8, t8), axes=(1,), keepdim=True), t5)\n"
        "t10 = eq(add(t7, t9), 0.0)\n"
        "t11 = where(t10, 1.0, t7)\n"
        "t12 = eq(t11, 0.0)\n"
        "t13 = where(t10, 1.0, t9)\n"
        "t14 = eq(t13, 0.0)\n"
        "cast(mul(atan(div(where(t12, 0.0, sqrt(where(t12, 1.0, t11))), "
        "where(t14, 0.0, sqrt(where(t14, 1.0, t13))))), 2.0), dtype='float16')",
    )

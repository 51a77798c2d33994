"""Sums of exponentials of different kinds: one common shift, finite; small values kept; and that it is an identity."""

from __future__ import annotations

import pytest

from tests.passes.graphs import assert_same_function, brief, read

#: ln of a mixture, or of a ratio over one.
LOG = {
    "log(add(add(exp(x), exp(z)), exp(w)))": (
        "t1 = detach(minimum(maximum(maximum(maximum(w, z), x), -3.4028234663852886e+38), "
        "3.4028234663852886e+38))\n"
        "add(t1, log1p(add(exp(sub(x, t1)), add(exp(sub(z, t1)), expm1(sub(w, t1))))))"
    ),
    "log(add(add(exp(x), exp(z)), 1.0))": (
        "t1 = detach(minimum(maximum(maximum(z, x), 0.0), 3.4028234663852886e+38))\n"
        "add(t1, log1p(add(exp(sub(x, t1)), add(exp(sub(z, t1)), expm1(sub(0.0, t1))))))"
    ),
    "log(div(exp(x), add(add(exp(x), exp(z)), exp(w))))": (
        "t1 = detach(minimum(maximum(maximum(maximum(w, z), x), -3.4028234663852886e+38), "
        "3.4028234663852886e+38))\n"
        "t2 = sub(x, t1)\n"
        "sub(t2, log(add(add(exp(sub(w, t1)), exp(sub(z, t1))), exp(t2))))"
    ),
    "log(div(exp(x), add(1.0, add(exp(x), exp(z)))))": (
        "t1 = detach(minimum(maximum(maximum(z, x), 0.0), 3.4028234663852886e+38))\n"
        "t2 = sub(x, t1)\n"
        "sub(t2, log(add(add(exp(neg(t1)), exp(sub(z, t1))), exp(t2))))"
    ),
    "log(add(sum(exp(x), axes=(1,), keepdim=True), 0.001))": (
        "t1 = detach(minimum(maximum(max(x, axes=(1,), keepdim=True), -6.907755278982137), "
        "3.4028234663852886e+38))\n"
        "add(t1, log1p(add(sum(exp(sub(x, t1)), axes=(1,), keepdim=True), expm1(sub(-6.907755278982137, t1)))))"
    ),
    "log(add(sum(exp(x), axes=(1,), keepdim=False), 0.001))": (
        "t1 = detach(minimum(maximum(squeeze(max(x, axes=(1,), keepdim=True), axes=(1,)), -6.907755278982137), "
        "3.4028234663852886e+38))\n"
        "add(t1, log1p(add(squeeze(sum(exp(sub(x, unsqueeze(t1, axes=(1,)))), axes=(1,), keepdim=True), "
        "axes=(1,)), expm1(sub(-6.907755278982137, t1)))))"
    ),
    "log(add(sum(exp(x), axes=(1,), keepdim=True), exp(R)))": (
        "t1 = detach(minimum(maximum(maximum(max(x, axes=(1,), keepdim=True), R), -3.4028234663852886e+38), "
        "3.4028234663852886e+38))\n"
        "add(t1, log1p(add(sum(exp(sub(x, t1)), axes=(1,), keepdim=True), expm1(sub(R, t1)))))"
    ),
    "log(add(sum(exp(x), axes=(1,), keepdim=True), sum(exp(z), axes=(1,), keepdim=True)))": (
        "t1 = detach(minimum(maximum(maximum(max(z, axes=(1,), keepdim=True), max(x, axes=(1,), "
        "keepdim=True)), -3.4028234663852886e+38), 3.4028234663852886e+38))\n"
        "add(t1, log(add(sum(exp(sub(z, t1)), axes=(1,), keepdim=True), sum(exp(sub(x, t1)), axes=(1,), "
        "keepdim=True))))"
    ),
    "log(div(exp(x), add(sum(exp(x), axes=(1,), keepdim=True), 0.001)))": (
        "t1 = detach(minimum(maximum(max(x, axes=(1,), keepdim=True), -6.907755278982137), "
        "3.4028234663852886e+38))\n"
        "t2 = sub(x, t1)\n"
        "sub(t2, log(add(exp(sub(-6.907755278982137, t1)), sum(exp(t2), axes=(1,), keepdim=True))))"
    ),
    "log(div(exp(x), add(sum(exp(x), axes=(1,), keepdim=True), exp(R))))": (
        "t1 = detach(minimum(maximum(maximum(max(x, axes=(1,), keepdim=True), R), -3.4028234663852886e+38), "
        "3.4028234663852886e+38))\n"
        "t2 = sub(x, t1)\n"
        "sub(t2, log(add(sum(exp(t2), axes=(1,), keepdim=True), exp(sub(R, t1)))))"
    ),
    "log(add(div(exp(x), add(sum(exp(x), axes=(1,), keepdim=True), 1.0)), 0.001))": (
        "t1 = detach(minimum(maximum(max(x, axes=(1,), keepdim=True), 0.0), 3.4028234663852886e+38))\n"
        "t2 = sub(x, t1)\n"
        "logaddexp(-6.907755278982137, sub(t2, log(add(exp(neg(t1)), sum(exp(t2), axes=(1,), keepdim=True)))))"
    ),
    "log(maximum(sum(exp(x), axes=(1,), keepdim=True), 0.001))": (
        "t1 = detach(minimum(maximum(max(x, axes=(1,), keepdim=True), -6.907755278982137), "
        "3.4028234663852886e+38))\n"
        "add(t1, log(maximum(sum(exp(sub(x, t1)), axes=(1,), keepdim=True), exp(sub(-6.907755278982137, t1)))))"
    ),
    "log(div(exp(x), maximum(sum(exp(x), axes=(1,), keepdim=True), 0.001)))": (
        "t1 = detach(minimum(maximum(max(x, axes=(1,), keepdim=True), -6.907755278982137), "
        "3.4028234663852886e+38))\n"
        "t2 = sub(x, t1)\n"
        "sub(t2, log(maximum(sum(exp(t2), axes=(1,), keepdim=True), exp(sub(-6.907755278982137, t1)))))"
    ),
    "log(mul(exp(z), maximum(sum(exp(x), axes=(1,), keepdim=True), 0.001)))": (
        "t1 = detach(minimum(maximum(max(x, axes=(1,), keepdim=True), -6.907755278982137), "
        "3.4028234663852886e+38))\n"
        "add(add(t1, log(maximum(sum(exp(sub(x, t1)), axes=(1,), keepdim=True), exp(sub(-6.907755278982137, "
        "t1))))), z)"
    ),
    "log(add(mul(sum(exp(x), axes=(1,), keepdim=True), exp(R)), 0.001))": (
        "t1 = detach(minimum(maximum(add(max(x, axes=(1,), keepdim=True), R), -6.907755278982137), "
        "3.4028234663852886e+38))\n"
        "add(t1, log1p(add(sum(exp(sub(x, add(t1, neg(R)))), axes=(1,), keepdim=True), "
        "expm1(sub(-6.907755278982137, t1)))))"
    ),
    "log(add(mul(sum(exp(x), axes=(1,), keepdim=True), sum(exp(z), axes=(1,), keepdim=True)), 0.001))": (
        "t1 = max(x, axes=(1,), keepdim=True)\n"
        "t2 = max(z, axes=(1,), keepdim=True)\n"
        "t3 = detach(minimum(maximum(add(t1, t2), -6.907755278982137), 3.4028234663852886e+38))\n"
        "t4 = detach(maximum(t1, -3.4028234663852886e+38))\n"
        "t5 = detach(maximum(t2, -3.4028234663852886e+38))\n"
        "add(t3, log1p(add(mul(mul(sum(exp(sub(x, t4)), axes=(1,), keepdim=True), sum(exp(sub(z, t5)), "
        "axes=(1,), keepdim=True)), exp(add(add(neg(t3), t4), t5))), expm1(sub(-6.907755278982137, t3)))))"
    ),
    "log(add(mul(sum(exp(x), axes=(1,), keepdim=False), sum(exp(z), axes=(1,), keepdim=False)), 0.001))": (
        "t1 = squeeze(max(x, axes=(1,), keepdim=True), axes=(1,))\n"
        "t2 = squeeze(max(z, axes=(1,), keepdim=True), axes=(1,))\n"
        "t3 = detach(minimum(maximum(add(t1, t2), -6.907755278982137), 3.4028234663852886e+38))\n"
        "t4 = detach(maximum(t1, -3.4028234663852886e+38))\n"
        "t5 = detach(maximum(t2, -3.4028234663852886e+38))\n"
        "add(t3, log1p(add(mul(mul(squeeze(sum(exp(sub(x, unsqueeze(t4, axes=(1,)))), axes=(1,), "
        "keepdim=True), axes=(1,)), squeeze(sum(exp(sub(z, unsqueeze(t5, axes=(1,)))), axes=(1,), "
        "keepdim=True), axes=(1,))), exp(add(add(neg(t3), t4), t5))), expm1(sub(-6.907755278982137, t3)))))"
    ),
    "log(add(mul(sum(exp(x), axes=(1,), keepdim=False), 3.0), 0.001))": (
        "t1 = detach(minimum(maximum(add(squeeze(max(x, axes=(1,), keepdim=True), axes=(1,)), "
        "1.098612288668109), -6.907755278982137), 3.4028234663852886e+38))\n"
        "add(t1, log1p(add(squeeze(sum(exp(sub(x, unsqueeze(add(t1, -1.098612288668109), axes=(1,)))), "
        "axes=(1,), keepdim=True), axes=(1,)), expm1(sub(-6.907755278982137, t1)))))"
    ),
    "log(add(exp(x), add(exp(z), exp(w))))": (
        "t1 = detach(minimum(maximum(maximum(maximum(w, z), x), -3.4028234663852886e+38), "
        "3.4028234663852886e+38))\n"
        "add(t1, log1p(add(exp(sub(x, t1)), add(exp(sub(z, t1)), expm1(sub(w, t1))))))"
    ),
    "log(div(exp(mul(x, -2.0)), add(exp(neg(x)), add(exp(z), 1.0))))": (
        "t1 = mul(x, 2.0)\n"
        "t2 = add(t1, z)\n"
        "t3 = detach(minimum(maximum(maximum(maximum(x, t1), t2), -3.4028234663852886e+38), "
        "3.4028234663852886e+38))\n"
        "sub(sub(0.0, t3), log(add(add(exp(sub(x, t3)), exp(sub(t1, t3))), exp(sub(t2, t3)))))"
    ),
    "log(add(sum(exp(add(z, x)), axes=(1,), keepdim=True), 0.001))": (
        "t1 = add(z, x)\n"
        "t2 = detach(minimum(maximum(max(t1, axes=(1,), keepdim=True), -6.907755278982137), "
        "3.4028234663852886e+38))\n"
        "add(t2, log1p(add(sum(exp(sub(t1, t2)), axes=(1,), keepdim=True), expm1(sub(-6.907755278982137, t2)))))"
    ),
    "log(add(sum(exp(q), axes=(1,), keepdim=False), 0.001))": (
        "t1 = detach(minimum(maximum(squeeze(max(q, axes=(1,), keepdim=True), axes=(1,)), -6.907755278982137), "
        "3.4028234663852886e+38))\n"
        "add(t1, log1p(add(squeeze(sum(exp(sub(q, unsqueeze(t1, axes=(1,)))), axes=(1,), keepdim=True), "
        "axes=(1,)), expm1(sub(-6.907755278982137, t1)))))"
    ),
    "log(add(sum(exp(q), axes=(0, 2), keepdim=False), 0.001))": (
        "t1 = detach(minimum(maximum(squeeze(max(q, axes=(0, 2), keepdim=True), axes=(0, 2)), "
        "-6.907755278982137), 3.4028234663852886e+38))\n"
        "add(t1, log1p(add(squeeze(sum(exp(sub(q, unsqueeze(t1, axes=(0, 2)))), axes=(0, 2), keepdim=True), "
        "axes=(0, 2)), expm1(sub(-6.907755278982137, t1)))))"
    ),
    "log(add(sum(exp(h), axes=(1,), keepdim=True), 0.001))": (
        "t1 = cast(h, dtype='float32')\n"
        "t2 = detach(minimum(maximum(max(t1, axes=(1,), keepdim=True), -6.907755278982137), "
        "3.4028234663852886e+38))\n"
        "cast(add(t2, log1p(add(sum(exp(sub(t1, t2)), axes=(1,), keepdim=True), expm1(sub(-6.907755278982137, "
        "t2))))), dtype='float16')"
    ),
}  # fmt: skip

#: A ratio over a mixture.
RATIO = {
    "div(exp(x), add(sum(exp(x), axes=(1,), keepdim=True), 0.001))": (
        "t1 = detach(minimum(maximum(max(x, axes=(1,), keepdim=True), -6.907755278982137), "
        "3.4028234663852886e+38))\n"
        "t2 = exp(sub(x, t1))\n"
        "div(t2, add(exp(sub(-6.907755278982137, t1)), sum(t2, axes=(1,), keepdim=True)))"
    ),
    "div(exp(x), add(sum(exp(x), axes=(1,), keepdim=True), exp(R)))": (
        "t1 = detach(minimum(maximum(maximum(max(x, axes=(1,), keepdim=True), R), -3.4028234663852886e+38), "
        "3.4028234663852886e+38))\n"
        "t2 = exp(sub(x, t1))\n"
        "div(t2, add(sum(t2, axes=(1,), keepdim=True), exp(sub(R, t1))))"
    ),
    "div(mul(exp(x), z), add(sum(exp(x), axes=(1,), keepdim=True), 0.001))": (
        "t1 = detach(minimum(maximum(max(x, axes=(1,), keepdim=True), -6.907755278982137), "
        "3.4028234663852886e+38))\n"
        "t2 = exp(sub(x, t1))\n"
        "mul(z, div(t2, add(exp(sub(-6.907755278982137, t1)), sum(t2, axes=(1,), keepdim=True))))"
    ),
    "div(exp(x), maximum(sum(exp(x), axes=(1,), keepdim=True), 0.001))": (
        "t1 = detach(minimum(maximum(max(x, axes=(1,), keepdim=True), -6.907755278982137), "
        "3.4028234663852886e+38))\n"
        "t2 = exp(sub(x, t1))\n"
        "div(t2, maximum(sum(t2, axes=(1,), keepdim=True), exp(sub(-6.907755278982137, t1))))"
    ),
    "div(exp(x), add(1.0, add(exp(x), exp(z))))": (
        "t1 = detach(minimum(maximum(maximum(z, x), 0.0), 3.4028234663852886e+38))\n"
        "t2 = exp(sub(x, t1))\n"
        "div(t2, add(add(exp(neg(t1)), exp(sub(z, t1))), t2))"
    ),
    "div(exp(x), add(add(exp(x), exp(z)), exp(w)))": (
        "t1 = detach(minimum(maximum(maximum(maximum(w, z), x), -3.4028234663852886e+38), "
        "3.4028234663852886e+38))\n"
        "t2 = exp(sub(x, t1))\n"
        "div(t2, add(add(exp(sub(w, t1)), exp(sub(z, t1))), t2))"
    ),
    "div(exp(h), add(sum(exp(h), axes=(1,), keepdim=True), 0.001))": (
        "t1 = cast(h, dtype='float32')\n"
        "t2 = detach(minimum(maximum(max(t1, axes=(1,), keepdim=True), -6.907755278982137), "
        "3.4028234663852886e+38))\n"
        "t3 = exp(sub(t1, t2))\n"
        "cast(div(t3, add(exp(sub(-6.907755278982137, t2)), sum(t3, axes=(1,), keepdim=True))), dtype='float16')"
    ),
    "mul(div(exp(x), add(sum(exp(x), axes=(1,), keepdim=True), 0.001)), 2.0)": (
        "t1 = detach(minimum(maximum(max(x, axes=(1,), keepdim=True), -6.907755278982137), "
        "3.4028234663852886e+38))\n"
        "t2 = exp(sub(x, t1))\n"
        "mul(2.0, div(t2, add(exp(sub(-6.907755278982137, t1)), sum(t2, axes=(1,), keepdim=True))))"
    ),
    "div(exp(add(x, 1.0)), add(sum(exp(x), axes=(1,), keepdim=True), 0.001))": (
        "t1 = detach(minimum(maximum(add(max(x, axes=(1,), keepdim=True), -1.0000000000000002), -7.907755278982137), "
        "3.4028234663852886e+38))\n"
        "div(exp(sub(x, t1)), add(exp(sub(-7.907755278982137, t1)), sum(exp(sub(x, add(t1, 1.0000000000000002))), "
        "axes=(1,), keepdim=True)))"
    ),
    "div(exp(x), add(mul(sum(exp(x), axes=(1,), keepdim=True), exp(R)), 0.001))": (
        "t1 = detach(minimum(maximum(add(max(x, axes=(1,), keepdim=True), R), -6.907755278982137), "
        "3.4028234663852886e+38))\n"
        "div(exp(sub(x, t1)), add(exp(sub(-6.907755278982137, t1)), sum(exp(sub(x, add(t1, neg(R)))), "
        "axes=(1,), keepdim=True)))"
    ),
    "div(exp(mul(x, -2.0)), add(exp(neg(x)), add(exp(z), 1.0)))": (
        "t1 = mul(x, 2.0)\n"
        "t2 = add(t1, z)\n"
        "t3 = detach(minimum(maximum(maximum(maximum(x, t1), t2), -3.4028234663852886e+38), "
        "3.4028234663852886e+38))\n"
        "div(exp(sub(0.0, t3)), add(add(exp(sub(x, t3)), exp(sub(t1, t3))), exp(sub(t2, t3))))"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), LOG.items())
def test_logarithm(body, expected):
    ctx, value = read(body)
    new = ctx.emitter.log(ctx.engine.linear(value), value)
    assert brief(new) == expected
    assert_same_function(value, new)
    assert not any(ctx.broken(v) for v in ctx.change(value, new).added)


@pytest.mark.parametrize(("body", "expected"), RATIO.items())
def test_ratio(body, expected):
    ctx, value = read(body)
    new = ctx.emitter.scaled(ctx.engine.scaled(value), value)
    assert brief(new) == expected
    assert_same_function(value, new)
    assert not any(ctx.broken(v) for v in ctx.change(value, new).added)

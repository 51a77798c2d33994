"""The additive reading of every primitive, v = Σ kᵢ·atomᵢ + k₀, and the algebra of forms behind it."""

from __future__ import annotations

import pytest

from tests.passes.graphs import G, M, assert_same_function, form_text, read

#: expression: Σ k·atom + k₀
READINGS = {
    # --- sums and scales ---
    "x": "x",
    "add(x, z)": "x + z",
    "add(x, 2.5)": "x + 5/2",
    "sub(x, z)": "x - z",
    "sub(x, x)": "0",
    "neg(x)": "-x",
    "mul(x, 3.0)": "3·x",
    "mul(3.0, x)": "3·x",
    "mul(x, z)": "mul(x, z)",
    "mul(x, 0.0)": "mul(x, 0.0)",
    "mul(0.0, x)": "mul(0.0, x)",
    "div(x, 0.5)": "2·x",
    "div(x, 3.0)": "1/3·x",
    "div(x, 0.0)": "div(x, 0.0)",
    "div(x, z)": "div(x, z)",
    "div(2.0, x)": "div(2.0, x)",
    "add(mul(x, 2.0), sub(z, x))": "x + z",
    # --- logarithms ---
    "log(exp(x))": "x",
    "log(x)": "log(x)",
    "log(2.0)": "0.69314718056",
    "log(add(exp(x), exp(z)))": "z + softplus(sub(x, z))",
    "log(neg(exp(x)))": "log(neg(exp(x)))",
    "log(mul(exp(x), 2.0))": "x + 0.69314718056",
    "log(mul(exp(x), z))": "x + log(z)",
    "log(mul(exp(x), -2.0))": "log(mul(exp(x), -2.0))",
    "log1p(exp(x))": "softplus(x)",
    "log1p(mul(exp(x), 2.0))": "softplus(add(x, 0.6931471805599453))",
    "log1p(neg(sigmoid(x)))": "-softplus(x)",
    "log1p(neg(mul(sigmoid(x), 2.0)))": "log1p(neg(mul(sigmoid(x), 2.0)))",
    "log1p(neg(exp(x)))": "log1p(neg(exp(x)))",
    "log1p(mul(exp(x), z))": "log1p(mul(exp(x), z))",
    "log1p(x)": "log1p(x)",
    "log(sum(mul(exp(x), z), axes=(1,), keepdim=True))":
        f"{M} + log(sum(mul(z, exp(minimum(sub(x, {M}), 71.0))), axes=(1,), keepdim=True))",
    "log(sum(mul(exp(x), z), axes=(1,), keepdim=False))": (
        f"squeeze({M}, axes=(1,)) + log(squeeze(sum(mul(z, exp(minimum(sub(x, {M}), 71.0))), axes=(1,), "
        "keepdim=True), axes=(1,)))"
    ),
    "log(mean(mul(exp(x), z), axes=(1,), keepdim=True))":
        f"{M} + log(mul(sum(mul(z, exp(minimum(sub(x, {M}), 71.0))), axes=(1,), keepdim=True), 0.2))",
    "log(add(sum(mul(exp(x), z), axes=(1,), keepdim=True), 0.5))": (
        f"{G} + log(add(sum(mul(z, exp(minimum(sub(x, {G}), 71.0))), axes=(1,), keepdim=True), "
        f"exp(sub(-0.6931471805599453, {G}))))"
    ),
    "log(add(sum(mul(exp(add(x, R)), z), axes=(1,), keepdim=True), 0.5))":
        "log(add(sum(mul(exp(add(x, R)), z), axes=(1,), keepdim=True), 0.5))",
    "log(mul(sum(mul(exp(x), z), axes=(1,), keepdim=True), exp(R)))":
        f"R + {M} + log(sum(mul(z, exp(minimum(sub(x, {M}), 71.0))), axes=(1,), keepdim=True))",
    # --- log-sum-exp ---
    "log_softmax(x, axis=1)": "x - logsumexp(x, axes=(1,), keepdim=True)",
    "log_softmax(x, axis=0)": "x - logsumexp(x, axes=(0,), keepdim=True)",
    "log_softmax(add(x, R), axis=1)": "x - logsumexp(x, axes=(1,), keepdim=True)",
    "log_softmax(E, axis=1)": "E - logsumexp(E, axes=(1,), keepdim=True)",
    "log_softmax(n, axis=0)": "n - logsumexp(n, axes=(0,), keepdim=True)",
    "logsumexp(x, axes=(1,), keepdim=True)": "logsumexp(x, axes=(1,), keepdim=True)",
    "logsumexp(x, axes=(1,), keepdim=False)": "squeeze(logsumexp(x, axes=(1,), keepdim=True), axes=(1,))",
    "logsumexp(x, axes=(0,), keepdim=False)": "squeeze(logsumexp(x, axes=(0,), keepdim=True), axes=(0,))",
    "logsumexp(x, axes=(0, 1), keepdim=False)": "squeeze(logsumexp(x, axes=(0, 1), keepdim=True), axes=(0, 1))",
    "logsumexp(x, axes=(0, 1), keepdim=True)": "logsumexp(x, axes=(0, 1), keepdim=True)",
    "logsumexp(add(x, R), axes=(1,), keepdim=True)": "R + logsumexp(x, axes=(1,), keepdim=True)",
    "logsumexp(add(x, R), axes=(1,), keepdim=False)":
        "squeeze(R, axes=(1,)) + squeeze(logsumexp(x, axes=(1,), keepdim=True), axes=(1,))",
    "logsumexp(add(x, c), axes=(1,), keepdim=True)": "logsumexp(add(x, c), axes=(1,), keepdim=True)",
    "logsumexp(add(x, c), axes=(0,), keepdim=True)": "c + logsumexp(x, axes=(0,), keepdim=True)",
    "logsumexp(add(x, c), axes=(0,), keepdim=False)": "c + squeeze(logsumexp(x, axes=(0,), keepdim=True), axes=(0,))",
    "logsumexp(sub(x, max(x, axes=(1,), keepdim=True)), axes=(1,), keepdim=True)":
        "-max(x, axes=(1,), keepdim=True) + logsumexp(x, axes=(1,), keepdim=True)",
    "logsumexp(R, axes=(1,), keepdim=True)": "R",
    "logsumexp(expand(R, shape=(4, 5)), axes=(1,), keepdim=True)": "R + 1.60943791243",
    "logsumexp(expand(R, shape=(4, 5)), axes=(0, 1), keepdim=True)":
        "logsumexp(R, axes=(0,), keepdim=True) + 1.60943791243",
    "logsumexp(expand(R, shape=(4, 5)), axes=(1,), keepdim=False)": "squeeze(R, axes=(1,)) + 1.60943791243",
    "logsumexp(E, axes=(1,), keepdim=True)": "logsumexp(E, axes=(1,), keepdim=True)",
    "logsumexp(n, axes=(0,), keepdim=True)": "logsumexp(n, axes=(0,), keepdim=True)",
    "logsumexp(expand(c, shape=(4, 5)), axes=(0,), keepdim=True)": "c + 1.38629436112",
    "logsumexp(expand(c, shape=('m', 5)), axes=(0,), keepdim=True)":
        "logsumexp(expand(c, shape=('m', 5)), axes=(0,), keepdim=True)",
    "logsumexp(logsumexp(x, axes=(1,), keepdim=True), axes=(0,), keepdim=True)":
        "logsumexp(x, axes=(0, 1), keepdim=True)",
    "logsumexp(logsumexp(x, axes=(1,), keepdim=False), axes=(0,), keepdim=False)":
        "squeeze(logsumexp(x, axes=(0, 1), keepdim=True), axes=(0, 1))",
    "logsumexp(logsumexp(q, axes=(1,), keepdim=False), axes=(1,), keepdim=True)":
        "squeeze(logsumexp(q, axes=(1, 2), keepdim=True), axes=(2,))",
    "logsumexp(logsumexp(q, axes=(0,), keepdim=False), axes=(0,), keepdim=False)":
        "squeeze(logsumexp(q, axes=(0, 1), keepdim=True), axes=(0, 1))",
    "logsumexp(logsumexp(q, axes=(2,), keepdim=True), axes=(0, 1), keepdim=False)":
        "squeeze(logsumexp(q, axes=(0, 1, 2), keepdim=True), axes=(1, 2))",
    "logsumexp(mul(x, 2.0), axes=(1,), keepdim=True)": "logsumexp(mul(x, 2.0), axes=(1,), keepdim=True)",
    "logsumexp(x, axes=(), keepdim=True)": "x",
    "logsumexp(unsqueeze(x, axes=(1,)), axes=(1, 2), keepdim=True)":
        "unsqueeze(logsumexp(x, axes=(1,), keepdim=True), axes=(2,))",
    "logsumexp(unsqueeze(x, axes=(1,)), axes=(0, 2), keepdim=True)":
        "unsqueeze(logsumexp(x, axes=(0, 1), keepdim=True), axes=(2,))",
    "logcumsumexp(x, axis=1)": "logcumsumexp(x, axis=1)",
    "logcumsumexp(add(x, R), axis=1)": "R + logcumsumexp(x, axis=1)",
    "logcumsumexp(add(x, R), axis=0)": "logcumsumexp(add(x, R), axis=0)",
    # --- maxima ---
    "max(x, axes=(1,), keepdim=True)": "max(x, axes=(1,), keepdim=True)",
    "max(x, axes=(1,), keepdim=False)": "squeeze(max(x, axes=(1,), keepdim=True), axes=(1,))",
    "max(mul(x, 2.0), axes=(1,), keepdim=True)": "2·max(x, axes=(1,), keepdim=True)",
    "max(mul(x, -2.0), axes=(1,), keepdim=True)": "2·max(neg(x), axes=(1,), keepdim=True)",
    "max(neg(x), axes=(1,), keepdim=True)": "max(neg(x), axes=(1,), keepdim=True)",
    "max(add(x, R), axes=(1,), keepdim=True)": "R + max(x, axes=(1,), keepdim=True)",
    "max(add(x, R), axes=(1,), keepdim=False)":
        "squeeze(R, axes=(1,)) + squeeze(max(x, axes=(1,), keepdim=True), axes=(1,))",
    "max(R, axes=(1,), keepdim=True)": "R",
    "max(add(mul(x, 2.0), mul(z, 4.0)), axes=(1,), keepdim=True)":
        "2·max(add(x, mul(z, 2.0)), axes=(1,), keepdim=True)",
    "max(add(x, 3.0), axes=(0, 1), keepdim=False)": "squeeze(max(x, axes=(0, 1), keepdim=True), axes=(0, 1)) + 3",
    "max(unsqueeze(x, axes=(0,)), axes=(2,), keepdim=True)": "unsqueeze(max(x, axes=(1,), keepdim=True), axes=(0,))",
    "max(unsqueeze(x, axes=(1,)), axes=(2,), keepdim=True)": "unsqueeze(max(x, axes=(1,), keepdim=True), axes=(2,))",
    "max(unsqueeze(x, axes=(2,)), axes=(0,), keepdim=True)": "unsqueeze(max(x, axes=(0,), keepdim=True), axes=(2,))",
    "topk_values(x, axis=1, k=2, largest=True, sorted=True)": "topk_values(x, axis=1, k=2, largest=True, sorted=True)",
    "topk_values(add(x, R), axis=1, k=2, largest=True, sorted=True)":
        "R + topk_values(x, axis=1, k=2, largest=True, sorted=True)",
    "topk_values(R, axis=1, k=1, largest=True, sorted=True)": "topk_values(R, axis=1, k=1, largest=True, sorted=True)",
    "topk_values(mul(x, 2.0), axis=0, k=2, largest=False, sorted=True)":
        "topk_values(mul(x, 2.0), axis=0, k=2, largest=False, sorted=True)",
    # --- two terms ---
    "softplus(x)": "softplus(x)",
    "softplus(neg(x))": "-x + softplus(x)",
    "softplus(sub(x, z))": "softplus(sub(x, z))",
    "softplus(sub(z, x))": "-x + z + softplus(sub(x, z))",
    "softplus(add(mul(x, -2.0), 1.0))": "-2·x + softplus(sub(mul(x, 2.0), 1.0)) + 1",
    "softplus(add(mul(x, 0.0), 1.0))": "softplus(add(mul(x, 0.0), 1.0))",
    "softplus(sub(x, x))": "0.69314718056",
    "softplus(sub(sub(x, 40.0), x))": "4.24835425529e-18",
    "log_sigmoid(x)": "x - softplus(x)",
    "log_sigmoid(neg(x))": "-softplus(x)",
    "logaddexp(x, z)": "z + softplus(sub(x, z))",
    "logaddexp(z, x)": "z + softplus(sub(x, z))",
    "logaddexp(x, add(x, 1.0))": "x + 1.31326168752",
    "logaddexp(x, 0.5)": "softplus(sub(x, 0.5)) + 1/2",
    # --- casts, views ---
    "cast(h, dtype='float32')": "h",
    "cast(x, dtype='float16')": "cast(x, dtype='float16')",
    "cast(x, dtype='float64')": "x",
    "cast(G, dtype='float32')": "G",
    "cast(h, dtype='bfloat16')": "cast(h, dtype='bfloat16')",
    "cast(G, dtype='float16')": "cast(G, dtype='float16')",
    "cast(y, dtype='float32')": "cast(y, dtype='float32')",
    "cast(add(x, z), dtype='float64')": "x + z",
    "add(cast(h, dtype='float32'), cast(G, dtype='float32'))": "h + G",
    "softplus(add(cast(h, dtype='float32'), cast(G, dtype='float32')))":
        "softplus(add(cast(h, dtype='float32'), cast(G, dtype='float32')))",
    "logsumexp(cast(h, dtype='float32'), axes=(1,), keepdim=True)": "logsumexp(h, axes=(1,), keepdim=True)",
    "detach(add(x, z))": "detach(x) + detach(z)",
    "detach(x)": "detach(x)",
    "unsqueeze(add(x, R), axes=(0,))": "unsqueeze(x, axes=(0,)) + unsqueeze(R, axes=(0,))",
    "unsqueeze(add(x, c), axes=(1,))": "unsqueeze(x, axes=(1,)) + unsqueeze(c, axes=(0, 1))",
    "squeeze(add(R, 2.0), axes=(1,))": "squeeze(R, axes=(1,)) + 2",
    "transpose(add(x, R), perm=(1, 0))": "transpose(x, perm=(1, 0)) + transpose(R, perm=(1, 0))",
    "transpose(add(x, c), perm=(1, 0))": "transpose(x, perm=(1, 0)) + transpose(unsqueeze(c, axes=(0,)), perm=(1, 0))",
    "transpose(add(x, U), perm=(1, 0))":
        "transpose(x, perm=(1, 0)) + transpose(unsqueeze(U, axes=(0, 1)), perm=(1, 0))",
    "slice(add(x, R), axis=1, start=0, stop=2, step=1)": "R + slice(x, axis=1, start=0, stop=2, step=1)",
    "slice(add(x, R), axis=0, start=0, stop=2, step=1)":
        "slice(x, axis=0, start=0, stop=2, step=1) + slice(R, axis=0, start=0, stop=2, step=1)",
    "slice(add(x, c), axis=1, start=1, stop=5, step=2)": (
        "slice(x, axis=1, start=1, stop=5, step=2) + slice(unsqueeze(c, axes=(0,)), axis=1, start=1, stop=5, "
        "step=2)"
    ),
    "expand(add(x, R), shape=(2, 4, 5))": "x + R",
    "expand(R, shape=(4, 5))": "R",
    "gather(add(x, R), I, axis=1)": "R + gather(x, I, axis=1)",
    "gather(add(x, c), I, axis=1)":
        "gather(x, I, axis=1) + gather(expand(unsqueeze(c, axes=(0,)), shape=(4, 5)), I, axis=1)",
    "gather(add(x, R), I, axis=0)": "gather(add(x, R), I, axis=0)",
    "gather(mul(x, 2.0), unsqueeze(y, axes=(1,)), axis=1)": "2·gather(x, unsqueeze(y, axes=(1,)), axis=1)",
    "gather(add(s, c), I, axis=1)": "gather(add(s, c), I, axis=1)",
    "reshape(add(x, z), shape=(20,))": "reshape(x, shape=(20,)) + reshape(z, shape=(20,))",
    "reshape(add(x, R), shape=(20,))": "reshape(add(x, R), shape=(20,))",
    "reshape(add(x, R), shape=(2, 2, 5))": "reshape(x, shape=(2, 2, 5)) + reshape(R, shape=(2, 2, 1))",
    "reshape(add(x, R), shape=(2, 10))": "reshape(add(x, R), shape=(2, 10))",
    "reshape(add(x, c), shape=(2, 2, 5))":
        "reshape(x, shape=(2, 2, 5)) + reshape(unsqueeze(c, axes=(0,)), shape=(1, 1, 5))",
    "reshape(add(x, U), shape=(20,))": "reshape(x, shape=(20,)) + reshape(unsqueeze(U, axes=(0, 1)), shape=(1,))",
    "reshape(add(x, 1.0), shape=(4, 1, 5))": "reshape(x, shape=(4, 1, 5)) + 1",
    "reshape(log_softmax(q, axis=2), shape=(6, 4))":
        "reshape(q, shape=(6, 4)) - logsumexp(reshape(q, shape=(6, 4)), axes=(1,), keepdim=True)",
    "reshape(log_softmax(q, axis=1), shape=(6, 4))": "reshape(log_softmax(q, axis=1), shape=(6, 4))",
    "reshape(log_softmax(q, axis=2), shape=(2, 12))": "reshape(log_softmax(q, axis=2), shape=(2, 12))",
    "reshape(log_softmax(q, axis=2), shape=(24,))": "reshape(log_softmax(q, axis=2), shape=(24,))",
    "reshape(max(q, axes=(2,), keepdim=True), shape=(6, 1))": "reshape(max(q, axes=(2,), keepdim=True), shape=(6, 1))",
    "reshape(add(n, 1.0), shape=('m', 5, 1))": "reshape(n, shape=('m', 5, 1)) + 1",
    "reshape(add(n, c), shape=('m', 5, 1))":
        "reshape(unsqueeze(c, axes=(0,)), shape=(1, 5, 1)) + reshape(n, shape=('m', 5, 1))",
    "concat(x, z, axis=0)": "concat(x, z, axis=0)",
    "add(squeeze(O, axes=(0,)), neg(O))": "0",
    "sub(squeeze(O, axes=(0, 1)), O)": "0",
    "sub(squeeze(R, axes=(1,)), squeeze(R, axes=(1,)))": "0",
    "mul(div(x, 3.0), 3.0)": "x",
    "add(add(x, add(z, 1.0)), add(w, add(c, -1.0)))": "x + z + w + c",
    "sub(x, inf)": "x - inf",
    "mul(x, inf)": "mul(x, inf)",
    "mul(inf, x)": "mul(inf, x)",
    "y": "y",
    "add(y, 1)": "add(y, 1)",
    # --- order, formats, the host's own sums ---
    "log(div(mul(exp(x), z), exp(x)))": "log(z)",
    "softplus(add(z, x))": "softplus(add(z, x))",
    "softplus(add(cast(h, dtype='float32'), x))": "softplus(add(x, cast(h, dtype='float32')))",
    "log(add(exp(mul(x, 0.5)), exp(neg(z))))": "-z + softplus(add(mul(x, 0.5), z))",
    "log(add(exp(sub(mul(x, 0.5), z)), 1.0))": "softplus(sub(mul(x, 0.5), z))",
    "logcumsumexp(expand(R, shape=(4, 5)), axis=1)": "R + logcumsumexp(expand(0.0, shape=(4, 5)), axis=1)",
    "logcumsumexp(expand(c, shape=(4, 5)), axis=1)": "logcumsumexp(expand(c, shape=(4, 5)), axis=1)",
    "topk_values(expand(c, shape=(4, 5)), axis=1, k=2, largest=True, sorted=True)":
        "topk_values(expand(c, shape=(4, 5)), axis=1, k=2, largest=True, sorted=True)",
    "reshape(sub(q, max(q, axes=(2,), keepdim=True)), shape=(6, 4))":
        "reshape(q, shape=(6, 4)) - max(reshape(q, shape=(6, 4)), axes=(1,), keepdim=True)",
    "reshape(sub(q, max(q, axes=(1,), keepdim=True)), shape=(6, 4))":
        "reshape(sub(q, max(q, axes=(1,), keepdim=True)), shape=(6, 4))",
    "add(unsqueeze(O, axes=(0,)), neg(O))": "0",
    "sub(squeeze(R, axes=(1,)), R)": "-R + squeeze(R, axes=(1,))",
    "logsumexp(logsumexp(x, axes=(1,), keepdim=True), axes=(1,), keepdim=False)":
        "squeeze(logsumexp(x, axes=(1,), keepdim=True), axes=(1,))",
    "log(add(exp(x), mul(exp(x), 0.0)))": "x",
    "add(mul(x, 0.5), mul(x, -0.5))": "0",
}  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), READINGS.items())
def test_reading(body, expected):
    ctx, value = read(body)
    form = ctx.engine.linear(value)
    assert form_text(form) == expected
    if form.single is not value:
        new = ctx.engine.algebra.materialise(form, "float64", value.shape)
        assert_same_function(value, ctx.builder.cast(new, value.dtype))

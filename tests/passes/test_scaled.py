"""The multiplicative reading of every primitive, v = c·exp(s): the rule of each row, and that it is an identity."""

from __future__ import annotations

import pytest

from stabilize.passes.scaled import Scaled
from tests.passes.graphs import G, M, assert_same_function, form_text, nested, read

#: expression: coefficient | exponent
READINGS = {
    "x": "as it is",
    "exp(x)": "1.0 | x",
    "exp(add(x, 2.0))": "1.0 | x + 2",
    "pow(2.0, x)": "1.0 | 0.69314718056·x",
    "pow(1.0, x)": "as it is",
    "pow(-2.0, x)": "as it is",
    "pow(0.0, x)": "as it is",
    "pow(exp(x), 2.0)": "1.0 | 2·x",
    "pow(exp(x), z)": "as it is",
    "pow(x, 2.0)": "as it is",
    "pow(mul(exp(x), 2.0), 3.0)": "8.0 | 3·x",
    "pow(mul(exp(x), -2.0), 3.0)": "pow(-2.0, 3.0) | 3·x",
    "pow(mul(exp(x), z), 2.0)": "pow(z, 2.0) | 2·x",
    "pow(mul(exp(x), 2.0), 2000.0)": "as it is",
    "sqrt(exp(x))": "1.0 | 1/2·x",
    "sqrt(x)": "as it is",
    "sqrt(mul(exp(x), 4.0))": "2.0 | 1/2·x",
    "mul(exp(x), exp(z))": "1.0 | x + z",
    "mul(x, exp(z))": "x | z",
    "mul(exp(x), 3.0)": "3.0 | x",
    "mul(x, z)": "as it is",
    "mul(exp(x), cast(gt(z, 0.0), dtype='float32'))": "1.0 | where(gt(z, 0.0), x, -inf)",
    "mul(cast(gt(z, 0.0), dtype='float32'), exp(x))": "1.0 | where(gt(z, 0.0), x, -inf)",
    "mul(cast(y, dtype='float32'), U)": "as it is",
    "mul(cast(gt(z, 0.0), dtype='float32'), x)": "as it is",
    "mul(mul(exp(x), w), cast(gt(z, 0.0), dtype='float32'))": "w | where(gt(z, 0.0), x, -inf)",
    "mul(exp(add(x, R)), cast(gt(z, 0.0), dtype='float32'))": "1.0 | R + where(gt(z, 0.0), x, -inf)",
    "mul(exp(R), cast(gt(z, 0.0), dtype='float32'))": "1.0 | where(gt(z, 0.0), R, -inf)",
    "mul(exp(x), mul(exp(neg(x)), cast(gt(z, 0.0), dtype='float32')))": "1.0 | x + where(gt(z, 0.0), neg(x), -inf)",
    "div(exp(x), exp(z))": "1.0 | x - z",
    "div(1.0, exp(x))": "1.0 | -x",
    "div(x, exp(z))": "x | -z",
    "div(exp(x), z)": "div(1.0, z) | x",
    "div(exp(x), 2.0)": "0.5 | x",
    "div(exp(x), 0.0)": "div(1.0, 0.0) | x",
    "div(2.0, mul(exp(x), 4.0))": "0.5 | -x",
    "div(exp(x), exp(x))": "1.0 | 0",
    "neg(exp(x))": "-1.0 | x",
    "neg(x)": "as it is",
    "neg(mul(exp(x), -3.0))": "3.0 | x",
    "abs(exp(x))": "1.0 | x",
    "abs(mul(exp(x), -2.0))": "2.0 | x",
    "abs(mul(exp(x), z))": "as it is",
    "abs(x)": "as it is",
    "add(exp(x), exp(z))": "1.0 | z + softplus(sub(x, z))",
    "add(exp(x), 1.0)": "1.0 | softplus(x)",
    "add(exp(x), 0.0)": "1.0 | x",
    "add(exp(x), 0.001)": "1.0 | softplus(add(x, 6.907755278982137)) - 6.90775527898",
    "add(mul(exp(x), 2.0), mul(exp(z), 3.0))": "1.0 | z + softplus(sub(sub(x, z), 0.4054651081081644)) + 1.09861228867",
    "add(exp(x), exp(x))": "2.0 | x",
    "add(mul(exp(x), z), mul(exp(x), w))": "add(z, w) | x",
    "sub(mul(exp(x), z), mul(exp(x), w))": "sub(z, w) | x",
    "sub(exp(x), exp(x))": "0.0 | x",
    "sub(mul(exp(x), 3.0), exp(x))": "2.0 | x",
    "sub(exp(x), exp(z))": "as it is",
    "sub(exp(x), mul(exp(z), -1.0))": "1.0 | z + softplus(sub(x, z))",
    "sub(exp(x), 0.0)": "1.0 | x",
    "add(x, 0.0)": "as it is",
    "sub(exp(x), -2.0)": "1.0 | softplus(sub(x, 0.6931471805599453)) + 0.69314718056",
    "add(exp(x), mul(exp(z), w))": "as it is",
    "add(neg(exp(x)), exp(z))": "as it is",
    "sub(1.0, sigmoid(x))": "1.0 | -softplus(x)",
    "sub(2.0, mul(sigmoid(x), 2.0))": "2.0 | -softplus(x)",
    "sub(1.0, mul(sigmoid(x), 2.0))": "as it is",
    "add(1.0, neg(sigmoid(x)))": "1.0 | -softplus(x)",
    "add(neg(sigmoid(x)), 1.0)": "1.0 | -softplus(x)",
    "sub(1.0, exp(x))": "as it is",
    "sub(sigmoid(x), 1.0)": "as it is",
    "sub(-1.0, mul(sigmoid(x), -1.0))": "as it is",
    "sub(1.0, mul(sigmoid(x), exp(z)))": "as it is",
    "add(tanh(x), 1.0)": "2.0 | 2·x - softplus(mul(x, 2.0))",
    "add(1.0, tanh(x))": "2.0 | 2·x - softplus(mul(x, 2.0))",
    "sub(1.0, tanh(x))": "2.0 | -softplus(mul(x, 2.0))",
    "sub(tanh(x), 1.0)": "as it is",
    "sub(1.0, mul(tanh(x), tanh(x)))": "4.0 | 2·x - 2·softplus(mul(x, 2.0))",
    "sub(1.0, pow(tanh(x), 2.0))": "4.0 | 2·x - 2·softplus(mul(x, 2.0))",
    "sub(1.0, pow(tanh(x), 3.0))": "as it is",
    "sub(1.0, mul(tanh(x), tanh(z)))": "as it is",
    "sub(2.0, pow(tanh(x), 2.0))": "as it is",
    "add(1.0, pow(tanh(x), 2.0))": "as it is",
    "sub(pow(tanh(x), 2.0), 1.0)": "as it is",
    "sub(1.0, mul(x, x))": "as it is",
    "add(2.0, tanh(x))": "as it is",
    "sigmoid(x)": "1.0 | x - softplus(x)",
    "sigmoid(neg(x))": "1.0 | -softplus(x)",
    "sigmoid(add(mul(x, 2.0), 1.0))": "1.0 | 2·x - softplus(add(mul(x, 2.0), 1.0)) + 1",
    "softmax(x, axis=1)": "1.0 | x - logsumexp(x, axes=(1,), keepdim=True)",
    "softmax(x, axis=0)": "1.0 | x - logsumexp(x, axes=(0,), keepdim=True)",
    "softmax(add(x, R), axis=1)": "1.0 | x - logsumexp(x, axes=(1,), keepdim=True)",
    "softmax(n, axis=0)": "1.0 | n - logsumexp(n, axes=(0,), keepdim=True)",
    "softmax(E, axis=1)": "1.0 | E - logsumexp(E, axes=(1,), keepdim=True)",
    "sub(1.0, sigmoid(neg(x)))": "1.0 | x - softplus(x)",
    "sub(2.0, mul(sigmoid(neg(x)), 2.0))": "2.0 | x - softplus(x)",
    "topk_values(mul(exp(x), z), axis=1, k=2, largest=True, sorted=True)": "as it is",
    "where(gt(z, 0.0), neg(exp(x)), exp(w))": "as it is",
    "where(gt(z, 0.0), exp(w), neg(exp(x)))": "as it is",
    "div(mul(cast(exp(h), dtype='float32'), z), cast(h, dtype='float32'))": "div(z, cast(h, dtype='float32')) | h",
    f"m = {M}\n"
    "sum(mul(z, exp(minimum(sub(x, m), 71.0))), axes=(1,), keepdim=True)":
        "as it is",
    "m = maximum(max(where(ne(z, 0.0), x, -inf), axes=(1,), keepdim=True), 0.0)\n"
    "sum(mul(z, exp(minimum(sub(x, m), 71.0))), axes=(1,), keepdim=True)":
        "as it is",
    "m = maximum(max(x, axes=(1,), keepdim=True), 0.0)\n"
    "sum(mul(z, exp(minimum(sub(x, m), 71.0))), axes=(1,), keepdim=True)":
        "as it is",
    "m = maximum(max(w, axes=(1,), keepdim=True), 0.0)\n"
    "sum(mul(z, exp(minimum(sub(x, m), 71.0))), axes=(1,), keepdim=True)": (
        "sum(mul(z, softmax(minimum(sub(x, maximum(max(w, axes=(1,), keepdim=True), 0.0)), 71.0), axis=1)), "
        "axes=(1,), keepdim=True) | logsumexp(minimum(sub(x, maximum(max(w, axes=(1,), keepdim=True), 0.0)), "
        "71.0), axes=(1,), keepdim=True)"
    ),
    "m = maximum(max(x, axes=(1,), keepdim=True), R)\n"
    "sum(mul(z, exp(minimum(sub(x, m), 71.0))), axes=(1,), keepdim=True)": (
        "sum(mul(z, softmax(minimum(sub(x, maximum(max(x, axes=(1,), keepdim=True), R)), 71.0), axis=1)), "
        "axes=(1,), keepdim=True) | logsumexp(minimum(sub(x, maximum(max(x, axes=(1,), keepdim=True), R)), "
        "71.0), axes=(1,), keepdim=True)"
    ),
    "m = minimum(max(x, axes=(1,), keepdim=True), 0.0)\n"
    "sum(mul(z, exp(minimum(sub(x, m), 71.0))), axes=(1,), keepdim=True)": (
        "sum(mul(z, softmax(minimum(sub(x, minimum(max(x, axes=(1,), keepdim=True), 0.0)), 71.0), axis=1)), "
        "axes=(1,), keepdim=True) | logsumexp(minimum(sub(x, minimum(max(x, axes=(1,), keepdim=True), 0.0)), "
        "71.0), axes=(1,), keepdim=True)"
    ),
    "m = maximum(mean(x, axes=(1,), keepdim=True), 0.0)\n"
    "sum(mul(z, exp(minimum(sub(x, m), 71.0))), axes=(1,), keepdim=True)": (
        "sum(mul(z, softmax(minimum(sub(x, maximum(mean(x, axes=(1,), keepdim=True), 0.0)), 71.0), axis=1)), "
        "axes=(1,), keepdim=True) | logsumexp(minimum(sub(x, maximum(mean(x, axes=(1,), keepdim=True), 0.0)), "
        "71.0), axes=(1,), keepdim=True)"
    ),
    "m = maximum(max(x, axes=(1,), keepdim=True), 0.0)\n"
    "sum(mul(z, exp(minimum(sub(x, m), w))), axes=(1,), keepdim=True)": (
        "sum(mul(z, softmax(minimum(sub(x, maximum(max(x, axes=(1,), keepdim=True), 0.0)), w), axis=1)), "
        "axes=(1,), keepdim=True) | logsumexp(minimum(sub(x, maximum(max(x, axes=(1,), keepdim=True), 0.0)), "
        "w), axes=(1,), keepdim=True)"
    ),
    "m = maximum(max(x, axes=(1,), keepdim=True), 0.0)\n"
    "sum(mul(z, exp(minimum(add(x, m), 71.0))), axes=(1,), keepdim=True)": (
        "sum(mul(z, softmax(minimum(add(x, maximum(max(x, axes=(1,), keepdim=True), 0.0)), 71.0), axis=1)), "
        "axes=(1,), keepdim=True) | logsumexp(minimum(add(x, maximum(max(x, axes=(1,), keepdim=True), 0.0)), "
        "71.0), axes=(1,), keepdim=True)"
    ),
    "m = maximum(max(x, axes=(1,), keepdim=True), 0.0)\n"
    "sum(mul(z, exp(maximum(sub(x, m), 71.0))), axes=(1,), keepdim=True)": (
        "sum(mul(z, softmax(maximum(sub(x, maximum(max(x, axes=(1,), keepdim=True), 0.0)), 71.0), axis=1)), "
        "axes=(1,), keepdim=True) | logsumexp(maximum(sub(x, maximum(max(x, axes=(1,), keepdim=True), 0.0)), "
        "71.0), axes=(1,), keepdim=True)"
    ),
    "m = maximum(max(x, axes=(1,), keepdim=True), 0.0)\n"
    "sum(mul(z, exp(minimum(mul(x, m), 71.0))), axes=(1,), keepdim=True)": (
        "sum(mul(z, softmax(minimum(mul(x, maximum(max(x, axes=(1,), keepdim=True), 0.0)), 71.0), axis=1)), "
        "axes=(1,), keepdim=True) | logsumexp(minimum(mul(x, maximum(max(x, axes=(1,), keepdim=True), 0.0)), "
        "71.0), axes=(1,), keepdim=True)"
    ),
    "sum(exp(x), axes=(1,), keepdim=True)": "1.0 | logsumexp(x, axes=(1,), keepdim=True)",
    "sum(exp(x), axes=(1,), keepdim=False)": "1.0 | squeeze(logsumexp(x, axes=(1,), keepdim=True), axes=(1,))",
    "sum(exp(x), axes=(0, 1), keepdim=False)": "1.0 | squeeze(logsumexp(x, axes=(0, 1), keepdim=True), axes=(0, 1))",
    "sum(mul(exp(x), 3.0), axes=(1,), keepdim=True)": "3.0 | logsumexp(x, axes=(1,), keepdim=True)",
    "sum(exp(add(x, R)), axes=(1,), keepdim=True)": "1.0 | R + logsumexp(x, axes=(1,), keepdim=True)",
    "sum(exp(E), axes=(1,), keepdim=True)": "1.0 | logsumexp(E, axes=(1,), keepdim=True)",
    "sum(exp(n), axes=(0,), keepdim=True)": "1.0 | logsumexp(n, axes=(0,), keepdim=True)",
    "sum(x, axes=(1,), keepdim=True)": "as it is",
    "mean(exp(x), axes=(1,), keepdim=True)": "0.2 | logsumexp(x, axes=(1,), keepdim=True)",
    "mean(mul(exp(x), 2.0), axes=(0,), keepdim=False)":
        "0.5 | squeeze(logsumexp(x, axes=(0,), keepdim=True), axes=(0,))",
    "mean(exp(n), axes=(1,), keepdim=True)": "0.2 | logsumexp(n, axes=(1,), keepdim=True)",
    "mean(exp(n), axes=(0,), keepdim=True)": (
        "mean(exp(sub(n, detach(maximum(max(n, axes=(0,), keepdim=True), -3.4028234663852886e+38)))), "
        "axes=(0,), keepdim=True) | detach(maximum(max(n, axes=(0,), keepdim=True), -3.4028234663852886e+38))"
    ),
    "mean(mul(exp(n), 3.0), axes=(0,), keepdim=False)": (
        "mul(squeeze(mean(exp(sub(n, detach(maximum(max(n, axes=(0,), keepdim=True), "
        "-3.4028234663852886e+38)))), axes=(0,), keepdim=True), axes=(0,)), "
        "3.0) | squeeze(detach(maximum(max(n, axes=(0,), keepdim=True), -3.4028234663852886e+38)), axes=(0,))"
    ),
    "mean(exp(add(n, c)), axes=(0,), keepdim=False)": (
        "squeeze(mean(exp(sub(n, detach(maximum(max(n, axes=(0,), keepdim=True), -3.4028234663852886e+38)))), "
        "axes=(0,), keepdim=True), axes=(0,)) | c + squeeze(detach(maximum(max(n, axes=(0,), keepdim=True), "
        "-3.4028234663852886e+38)), axes=(0,))"
    ),
    "mean(mul(exp(n), c), axes=(0,), keepdim=False)": "as it is",
    "mean(exp(E), axes=(1,), keepdim=True)": "as it is",
    "sum(mul(exp(x), z), axes=(1,), keepdim=True)":
        "sum(mul(z, softmax(x, axis=1)), axes=(1,), keepdim=True) | logsumexp(x, axes=(1,), keepdim=True)",
    "sum(mul(exp(x), z), axes=(1,), keepdim=False)": (
        "sum(mul(z, softmax(x, axis=1)), axes=(1,), keepdim=False) | squeeze(logsumexp(x, axes=(1,), "
        "keepdim=True), axes=(1,))"
    ),
    "sum(mul(exp(x), z), axes=(0,), keepdim=True)":
        "sum(mul(z, softmax(x, axis=0)), axes=(0,), keepdim=True) | logsumexp(x, axes=(0,), keepdim=True)",
    "sum(mul(exp(x), c), axes=(0,), keepdim=True)":
        "sum(mul(c, softmax(x, axis=0)), axes=(0,), keepdim=True) | logsumexp(x, axes=(0,), keepdim=True)",
    "sum(mul(exp(x), c), axes=(1,), keepdim=True)":
        "sum(mul(c, softmax(x, axis=1)), axes=(1,), keepdim=True) | logsumexp(x, axes=(1,), keepdim=True)",
    "mean(mul(exp(x), z), axes=(1,), keepdim=True)": (
        "mul(sum(mul(z, softmax(x, axis=1)), axes=(1,), keepdim=True), 0.2) | logsumexp(x, axes=(1,), "
        "keepdim=True)"
    ),
    "sum(mul(exp(x), z), axes=(0, 1), keepdim=True)": "as it is",
    "sum(mul(exp(R), z), axes=(1,), keepdim=True)": "sum(z, axes=(1,), keepdim=True) | R",
    "sum(mul(exp(add(x, R)), z), axes=(1,), keepdim=True)":
        "sum(mul(z, softmax(x, axis=1)), axes=(1,), keepdim=True) | R + logsumexp(x, axes=(1,), keepdim=True)",
    "sum(mul(exp(cast(h, dtype='float32')), z), axes=(1,), keepdim=True)": (
        "sum(mul(z, cast(softmax(h, axis=1), dtype='float32')), axes=(1,), keepdim=True) | logsumexp(h, "
        "axes=(1,), keepdim=True)"
    ),
    "sum(mul(exp(h), h), axes=(1,), keepdim=True)":
        "sum(mul(h, softmax(h, axis=1)), axes=(1,), keepdim=True) | logsumexp(h, axes=(1,), keepdim=True)",
    "add(sum(mul(exp(x), z), axes=(1,), keepdim=True), 0.5)": (
        f"add(sum(mul(z, exp(minimum(sub(x, {G}), 71.0))), axes=(1,), keepdim=True), "
        f"exp(sub(-0.6931471805599453, {G}))) | {G}"
    ),
    "add(0.5, sum(mul(exp(x), z), axes=(1,), keepdim=True))": (
        f"add(sum(mul(z, exp(minimum(sub(x, {G}), 71.0))), axes=(1,), keepdim=True), "
        f"exp(sub(-0.6931471805599453, {G}))) | {G}"
    ),
    "add(sum(mul(exp(x), z), axes=(1,), keepdim=True), -0.5)": "as it is",
    "sub(sum(mul(exp(x), z), axes=(1,), keepdim=True), 0.5)": "as it is",
    "div(mul(exp(x), z), sum(mul(exp(x), z), axes=(1,), keepdim=True))": (
        f"div(z, sum(mul(z, exp(minimum(sub(x, {M}), 71.0))), axes=(1,), keepdim=True)) | minimum(sub(x, {M}), "
        "71.0)"
    ),
    "div(mul(exp(x), z), add(sum(mul(exp(x), z), axes=(1,), keepdim=True), 0.5))": (
        f"div(z, add(sum(mul(z, exp(minimum(sub(x, {G}), 71.0))), axes=(1,), keepdim=True), "
        f"exp(sub(-0.6931471805599453, {G})))) | minimum(sub(x, {G}), 71.0)"
    ),
    "div(mul(exp(x), z), add(0.5, sum(mul(exp(x), z), axes=(1,), keepdim=True)))": (
        f"div(z, add(sum(mul(z, exp(minimum(sub(x, {G}), 71.0))), axes=(1,), keepdim=True), "
        f"exp(sub(-0.6931471805599453, {G})))) | minimum(sub(x, {G}), 71.0)"
    ),
    "div(mul(exp(x), mul(z, w)), sum(mul(exp(x), z), axes=(1,), keepdim=True))": (
        f"div(mul(z, w), sum(mul(z, exp(minimum(sub(x, {M}), 71.0))), axes=(1,), "
        f"keepdim=True)) | minimum(sub(x, {M}), 71.0)"
    ),
    "div(mul(exp(x), w), sum(mul(exp(x), z), axes=(1,), keepdim=True))":
        f"div(w, sum(mul(z, exp(minimum(sub(x, {M}), 71.0))), axes=(1,), keepdim=True)) | x - {M}",
    "div(w, sum(mul(exp(x), z), axes=(1,), keepdim=True))":
        f"div(w, sum(mul(z, exp(minimum(sub(x, {M}), 71.0))), axes=(1,), keepdim=True)) | -{M}",
    "div(sum(mul(exp(x), w), axes=(1,), keepdim=True), sum(mul(exp(x), z), axes=(1,), keepdim=True))": (
        f"div(sum(mul(w, softmax(x, axis=1)), axes=(1,), keepdim=True), sum(mul(z, exp(minimum(sub(x, {M}), "
        f"71.0))), axes=(1,), keepdim=True)) | logsumexp(x, axes=(1,), keepdim=True) - {M}"
    ),
    "div(sum(mul(exp(x), w), axes=(1,), keepdim=False), sum(exp(x), axes=(1,), keepdim=False))":
        "sum(mul(w, softmax(x, axis=1)), axes=(1,), keepdim=False) | 0",
    "div(mul(exp(x), z), unsqueeze(sum(mul(exp(x), z), axes=(1,), keepdim=False), axes=(1,)))": (
        f"div(z, sum(mul(z, exp(minimum(sub(x, {M}), 71.0))), axes=(1,), keepdim=True)) | minimum(sub(x, {M}), "
        "71.0)"
    ),
    "div(mul(exp(x), z), transpose(unsqueeze(sum(mul(exp(x), z), axes=(1,), keepdim=False), axes=(0,)), "
    "perm=(1, 0)))": (
        "div(z, transpose(unsqueeze(sum(mul(z, softmax(x, axis=1)), axes=(1,), keepdim=False), axes=(0,)), "
        "perm=(1, 0))) | x - transpose(unsqueeze(squeeze(logsumexp(x, axes=(1,), keepdim=True), axes=(1,)), "
        "axes=(0,)), perm=(1, 0))"
    ),
    "prod(exp(x), axes=(1,), keepdim=True)": "1.0 | sum(x, axes=(1,), keepdim=True)",
    "prod(mul(exp(x), 2.0), axes=(1,), keepdim=False)":
        "1.0 | sum(add(x, 0.6931471805599453), axes=(1,), keepdim=False)",
    "prod(x, axes=(1,), keepdim=True)":
        "prod(sign(x), axes=(1,), keepdim=True) | sum(log(abs(x)), axes=(1,), keepdim=True)",
    "prod(h, axes=(1,), keepdim=True)": (
        "prod(sign(h), axes=(1,), keepdim=True) | sum(log(cast(abs(h), dtype='float32')), axes=(1,), "
        "keepdim=True)"
    ),
    "prod(sign(x), axes=(1,), keepdim=True)": "as it is",
    "prod(exp(h), axes=(1,), keepdim=True)": "1.0 | sum(cast(h, dtype='float32'), axes=(1,), keepdim=True)",
    "prod(neg(exp(x)), axes=(1,), keepdim=True)": "as it is",
    "prod(constant(value=2.0, dtype='float32', shape=(3,)), axes=(0,), keepdim=False)": "as it is",
    "cumprod(x, axis=1)": "cumprod(sign(x), axis=1) | cumsum(log(abs(x)), axis=1)",
    "cumprod(softmax(x, axis=1), axis=1)": "1.0 | cumsum(sub(x, logsumexp(x, axes=(1,), keepdim=True)), axis=1)",
    "cumprod(exp(add(x, 1.0)), axis=1)": "1.0 | cumsum(add(x, 1.0), axis=1)",
    "cumsum(exp(x), axis=1)": "1.0 | logcumsumexp(x, axis=1)",
    "cumsum(mul(exp(x), 2.0), axis=0)": "2.0 | logcumsumexp(x, axis=0)",
    "cumsum(mul(exp(x), z), axis=1)": "as it is",
    "cumsum(x, axis=1)": "as it is",
    "max(exp(x), axes=(1,), keepdim=True)": "1.0 | max(x, axes=(1,), keepdim=True)",
    "max(mul(exp(x), 2.0), axes=(1,), keepdim=False)":
        "1.0 | squeeze(max(x, axes=(1,), keepdim=True), axes=(1,)) + 0.69314718056",
    "max(neg(exp(x)), axes=(1,), keepdim=True)": "as it is",
    "max(x, axes=(1,), keepdim=True)": "as it is",
    "min(exp(x), axes=(1,), keepdim=True)": "as it is",
    "maximum(exp(x), exp(z))": "1.0 | maximum(x, z)",
    "minimum(exp(x), exp(z))": "1.0 | minimum(x, z)",
    "maximum(exp(x), 0.5)": "1.0 | maximum(x, -0.6931471805599453)",
    "maximum(0.5, exp(x))": "1.0 | maximum(-0.6931471805599453, x)",
    "maximum(exp(x), 0.0)": "1.0 | x",
    "maximum(exp(x), -1.0)": "1.0 | x",
    "maximum(-1.0, exp(x))": "1.0 | x",
    "minimum(exp(x), -1.0)": "as it is",
    "minimum(exp(x), 0.5)": "1.0 | minimum(x, -0.6931471805599453)",
    "maximum(mul(exp(x), 2.0), exp(z))": "1.0 | maximum(add(x, 0.6931471805599453), z)",
    "maximum(x, 0.5)": "as it is",
    "maximum(exp(x), z)": "as it is",
    "maximum(exp(h), 0.5)": "1.0 | maximum(cast(h, dtype='float32'), -0.6931471805599453)",
    "maximum(neg(exp(x)), 0.0)": "as it is",
    "where(gt(z, 0.0), exp(x), 0.0)": "1.0 | where(gt(z, 0.0), x, -inf)",
    "where(gt(z, 0.0), 0.0, exp(x))": "1.0 | where(not_(gt(z, 0.0)), x, -inf)",
    "where(gt(z, 0.0), exp(x), exp(w))": "1.0 | where(gt(z, 0.0), x, w)",
    "where(gt(z, 0.0), exp(x), 0.5)": "1.0 | where(gt(z, 0.0), x, -0.6931471805599453)",
    "where(gt(z, 0.0), mul(exp(x), 3.0), 0.0)": "3.0 | where(gt(z, 0.0), x, -inf)",
    "where(gt(z, 0.0), mul(exp(x), w), 0.0)": "as it is",
    "where(gt(z, 0.0), exp(x), w)": "as it is",
    "where(gt(z, 0.0), exp(x), neg(exp(w)))": "as it is",
    "where(gt(z, 0.0), x, w)": "as it is",
    "where(gt(z, 0.0), exp(add(x, R)), 0.0)": "1.0 | R + where(gt(z, 0.0), x, -inf)",
    "where(gt(z, 0.0), exp(h), 0.0)": "1.0 | where(gt(z, 0.0), h, -inf)",
    "where(gt(x, z), exp(R), 0.0)": "1.0 | where(gt(x, z), R, -inf)",
    "unsqueeze(exp(x), axes=(0,))": "1.0 | unsqueeze(x, axes=(0,))",
    "unsqueeze(mul(exp(x), z), axes=(0,))": "unsqueeze(z, axes=(0,)) | unsqueeze(x, axes=(0,))",
    "unsqueeze(mul(exp(x), R), axes=(0,))": "unsqueeze(expand(R, shape=(4, 5)), axes=(0,)) | unsqueeze(x, axes=(0,))",
    "reshape(exp(x), shape=(20,))": "1.0 | reshape(x, shape=(20,))",
    "reshape(exp(add(x, R)), shape=(20,))": "as it is",
    "gather(exp(x), I, axis=1)": "1.0 | gather(x, I, axis=1)",
    "gather(softmax(x, axis=1), I, axis=1)": "1.0 | -logsumexp(x, axes=(1,), keepdim=True) + gather(x, I, axis=1)",
    "gather(mul(exp(x), 2.0), I, axis=1)": "2.0 | gather(x, I, axis=1)",
    "expand(exp(R), shape=(4, 5))": "1.0 | R",
    "transpose(mul(exp(x), 2.0), perm=(1, 0))": "2.0 | transpose(x, perm=(1, 0))",
    "cast(exp(h), dtype='float32')": "1.0 | h",
    "cast(exp(x), dtype='float16')": "1.0 | x",
    "cast(mul(exp(x), z), dtype='float16')": "z | x",
    "cast(x, dtype='float16')": "as it is",
    "topk_values(exp(x), axis=1, k=2, largest=True, sorted=True)":
        "1.0 | topk_values(x, axis=1, k=2, largest=True, sorted=True)",
    "topk_values(mul(exp(x), 2.0), axis=1, k=2, largest=True, sorted=True)":
        "2.0 | topk_values(x, axis=1, k=2, largest=True, sorted=True)",
    "topk_values(neg(exp(x)), axis=1, k=2, largest=True, sorted=True)": "as it is",
    "topk_values(exp(R), axis=1, k=1, largest=True, sorted=True)": "as it is",
    "topk_values(x, axis=1, k=2, largest=True, sorted=True)": "as it is",
    "concat(exp(x), exp(z), axis=0)": "1.0 | concat(x, z, axis=0)",
    "concat(exp(x), mul(exp(z), 2.0), axis=1)": "1.0 | concat(x, add(z, 0.6931471805599453), axis=1)",
    "concat(exp(h), exp(h), axis=1)": "1.0 | concat(cast(h, dtype='float32'), cast(h, dtype='float32'), axis=1)",
    "concat(exp(D), exp(D), axis=1)": "1.0 | concat(D, D, axis=1)",
    "concat(exp(x), z, axis=0)": "as it is",
    "concat(exp(x), neg(exp(z)), axis=0)": "as it is",
    "concat(x, z, axis=0)": "as it is",
    "matmul(exp(x), T)": "matmul(softmax(x, axis=1), T) | logsumexp(x, axes=(1,), keepdim=True)",
    "matmul(softmax(x, axis=1), T)": "as it is",
    "matmul(mul(exp(x), 2.0), T)": "mul(matmul(softmax(x, axis=1), T), 2.0) | logsumexp(x, axes=(1,), keepdim=True)",
    "matmul(mul(exp(x), z), T)": f"matmul(mul(z, exp(minimum(sub(x, {M}), 71.0))), T) | {M}",
    "matmul(exp(add(x, R)), T)": "matmul(softmax(x, axis=1), T) | R + logsumexp(x, axes=(1,), keepdim=True)",
    "matmul(exp(R), O)": "sum(expand(squeeze(O, axes=(1,)), shape=(4, 1)), axes=(1,), keepdim=True) | R",
    "matmul(exp(x), c)": (
        "sum(mul(c, softmax(x, axis=1)), axes=(1,), keepdim=False) | squeeze(logsumexp(x, axes=(1,), "
        "keepdim=True), axes=(1,))"
    ),
    "matmul(x, exp(T))": "as it is",
    "matmul(exp(x), exp(T))": (
        "1.0 | squeeze(logsumexp(add(unsqueeze(x, axes=(2,)), unsqueeze(T, axes=(0,))), axes=(1,), "
        "keepdim=True), axes=(1,))"
    ),
    "matmul(a, exp(T))": (
        "sum(mul(unsqueeze(a, axes=(1,)), softmax(T, axis=0)), axes=(0,), "
        "keepdim=False) | squeeze(logsumexp(T, axes=(0,), keepdim=True), axes=(0,))"
    ),
    "matmul(exp(a), T)": (
        "sum(mul(T, softmax(expand(unsqueeze(a, axes=(1,)), shape=(5, 3)), axis=0)), axes=(0,), "
        "keepdim=False) | logsumexp(a, axes=(0,), keepdim=True)"
    ),
    "matmul(exp(x), V)": (
        "sum(mul(squeeze(V, axes=(1,)), softmax(x, axis=1)), axes=(1,), keepdim=True) | logsumexp(x, "
        "axes=(1,), keepdim=True)"
    ),
    "matmul(exp(x), constant(value=1.0, dtype='float32', shape=(5, 3)))": "1.0 | logsumexp(x, axes=(1,), keepdim=True)",
    "matmul(exp(x), constant(value=2.0, dtype='float32', shape=(5, 3)))": "2.0 | logsumexp(x, axes=(1,), keepdim=True)",
    "matmul(exp(h), transpose(h, perm=(1, 0)))":
        "matmul(softmax(h, axis=1), transpose(h, perm=(1, 0))) | logsumexp(h, axes=(1,), keepdim=True)",
    "matmul(x, T)": "as it is",
    "matmul(exp(q), transpose(k, perm=(0, 2, 1)))":
        "matmul(softmax(q, axis=2), transpose(k, perm=(0, 2, 1))) | logsumexp(q, axes=(2,), keepdim=True)",
    "matmul(exp(q), exp(transpose(k, perm=(0, 2, 1))))": "as it is",
    "mul(where(gt(z, 0.0), constant(value=1.0, dtype='float32', shape=()), constant(value=0.0, "
    "dtype='float32', shape=())), exp(x))":
        "1.0 | where(gt(z, 0.0), x, -inf)",
    "mul(where(gt(z, 0.0), constant(value=0.0, dtype='float32', shape=()), constant(value=1.0, "
    "dtype='float32', shape=())), exp(x))":
        "1.0 | where(not_(gt(z, 0.0)), x, -inf)",
    "mul(where(gt(z, 0.0), constant(value=1.0, dtype='float32', shape=()), constant(value=1.0, "
    "dtype='float32', shape=())), exp(x))":
        "where(gt(z, 0.0), 1.0, 1.0) | x",
    "mul(where(gt(z, 0.0), constant(value=2.0, dtype='float32', shape=()), constant(value=0.0, "
    "dtype='float32', shape=())), exp(x))":
        "where(gt(z, 0.0), 2.0, 0.0) | x",
    "mul(where(gt(z, 0.0), constant(value=0.0, dtype='float32', shape=()), constant(value=0.0, "
    "dtype='float32', shape=())), exp(x))":
        "where(gt(z, 0.0), 0.0, 0.0) | x",
}  # fmt: skip


def text(reading: Scaled) -> str:
    return f"{nested(reading.coefficient)} | {form_text(reading.exponent)}"


@pytest.mark.parametrize(("body", "expected"), READINGS.items())
def test_reading(body, expected):
    ctx, value = read(body)
    reading = ctx.engine.scaled(value)
    if expected == "as it is":
        assert reading == ctx.engine.plain(value)
        return
    assert text(reading) == expected
    assert_same_function(value, computed(ctx.engine, reading, value))


def computed(engine, reading, like):
    """c·exp(s) as a value of the type of `like`, with nothing clever done."""
    b, wide = engine.builder, "float64"
    body = b.make("exp", engine.algebra.materialise(reading.exponent, wide))
    product = b.make("mul", b.cast(reading.coefficient, wide), body)
    if product.type.rank > like.type.rank:
        product = b.squeeze(product, range(product.type.rank - like.type.rank))
    return b.cast(b.expand(product, like.shape), like.dtype)

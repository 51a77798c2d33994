"""Whole losses and attention: what is recognised, in which format, and what is one edit away from it."""

from __future__ import annotations

import pytest

from stabilize.passes.rule import Options
from tests.passes.graphs import Outcome, assert_same_function, brief

#: Which values speak, under which code, and what takes their place (the outermost first).
LOSSES = {
    # --- cross-entropy by gather ---
    "l = log(softmax(x, axis=1))\n"
    "g = squeeze(gather(l, unsqueeze(y, axes=(1,)), axis=1), axes=(1,))\n"
    "neg(mean(g, axes=(0,), keepdim=False))": (
        "STB301\n"
        "cross_entropy(x, y, reduction='mean', ignore_index=-100, label_smoothing=0.0)"
    ),
    "l = log(softmax(x, axis=1))\n"
    "g = squeeze(gather(l, unsqueeze(y, axes=(1,)), axis=1), axes=(1,))\n"
    "mean(neg(g), axes=(0,), keepdim=False)": (
        "STB301\n"
        "cross_entropy(x, y, reduction='mean', ignore_index=-100, label_smoothing=0.0)"
    ),
    "l = log(softmax(x, axis=1))\n"
    "g = squeeze(gather(l, unsqueeze(y, axes=(1,)), axis=1), axes=(1,))\n"
    "neg(g)": (
        "STB301\n"
        "cross_entropy(x, y, reduction='none', ignore_index=-100, label_smoothing=0.0)"
    ),
    "l = log(softmax(x, axis=1))\n"
    "g = squeeze(gather(l, unsqueeze(y, axes=(1,)), axis=1), axes=(1,))\n"
    "mul(g, -2.0)": (
        "STB301\n"
        "mul(cross_entropy(x, y, reduction='none', ignore_index=-100, label_smoothing=0.0), 2.0)"
    ),
    "l = log(softmax(x, axis=1))\n"
    "g = squeeze(gather(l, unsqueeze(y, axes=(1,)), axis=1), axes=(1,))\n"
    "mul(-2.0, g)": (
        "STB301\n"
        "mul(cross_entropy(x, y, reduction='none', ignore_index=-100, label_smoothing=0.0), 2.0)"
    ),
    "l = log(softmax(x, axis=1))\n"
    "g = squeeze(gather(l, unsqueeze(y, axes=(1,)), axis=1), axes=(1,))\n"
    "div(sum(g, axes=(0,), keepdim=False), -4.0)": (
        "STB301\n"
        "mul(cross_entropy(x, y, reduction='sum', ignore_index=-100, label_smoothing=0.0), 0.25)"
    ),
    "l = log(softmax(x, axis=1))\n"
    "g = squeeze(gather(l, unsqueeze(y, axes=(1,)), axis=1), axes=(1,))\n"
    "neg(sum(mul(g, 3.0), axes=(0,), keepdim=False))": (
        "STB301\n"
        "mul(cross_entropy(x, y, reduction='sum', ignore_index=-100, label_smoothing=0.0), 3.0)"
    ),
    "l = log(softmax(x, axis=1))\n"
    "g = squeeze(gather(l, unsqueeze(y, axes=(1,)), axis=1), axes=(1,))\n"
    "div(neg(g), 0.0)": (
        "STB301\n"
        "cross_entropy(x, y, reduction='none', ignore_index=-100, label_smoothing=0.0)"
    ),
    "l = log(softmax(x, axis=1))\n"
    "g = gather(l, unsqueeze(y, axes=(1,)), axis=1)\n"
    "neg(mean(g, axes=(0, 1), keepdim=False))": (
        "STB301\n"
        "cross_entropy(x, y, reduction='mean', ignore_index=-100, label_smoothing=0.0)"
    ),
    "l = log(softmax(x, axis=1))\n"
    "g = gather(l, unsqueeze(y, axes=(1,)), axis=1)\n"
    "neg(mean(g, axes=(0,), keepdim=False))": (
        "STB102\n"
        "log_softmax(x, axis=1)"
    ),
    "l = log(softmax(x, axis=1))\n"
    "g = gather(l, I, axis=1)\n"
    "neg(mean(g, axes=(0, 1), keepdim=False))": (
        "STB102\n"
        "log_softmax(x, axis=1)"
    ),
    "l = log(softmax(x, axis=1))\n"
    "g = gather(l, unsqueeze(y, axes=(1,)), axis=1)\n"
    "neg(g)": (
        "STB102\n"
        "log_softmax(x, axis=1)"
    ),
    "l = log(softmax(h, axis=1))\n"
    "g = squeeze(gather(l, unsqueeze(y, axes=(1,)), axis=1), axes=(1,))\n"
    "neg(mean(g, axes=(0,), keepdim=False))": (
        "STB301\n"
        "cross_entropy(h, y, reduction='mean', ignore_index=-100, label_smoothing=0.0)"
    ),
    "l = log(softmax(D, axis=1))\n"
    "g = squeeze(gather(l, unsqueeze(y, axes=(1,)), axis=1), axes=(1,))\n"
    "neg(mean(g, axes=(0,), keepdim=False))": (
        "STB301\n"
        "cross_entropy(D, y, reduction='mean', ignore_index=-100, label_smoothing=0.0)"
    ),
    "l = log(softmax(div(h, 0.1), axis=1))\n"
    "g = squeeze(gather(l, unsqueeze(y, axes=(1,)), axis=1), axes=(1,))\n"
    "neg(mean(g, axes=(0,), keepdim=False))": (
        "STB301\n"
        "cast(cross_entropy(div(cast(h, dtype='float32'), 0.1), y, reduction='mean', ignore_index=-100, "
        "label_smoothing=0.0), dtype='float16')"
    ),
    "l = log(softmax(mul(x, 2.0), axis=1))\n"
    "g = squeeze(gather(l, unsqueeze(y, axes=(1,)), axis=1), axes=(1,))\n"
    "neg(mean(g, axes=(0,), keepdim=False))": (
        "STB301\n"
        "cross_entropy(mul(x, 2.0), y, reduction='mean', ignore_index=-100, label_smoothing=0.0)"
    ),
    "l = log(softmax(x, axis=0))\n"
    "g = squeeze(gather(l, unsqueeze(y, axes=(1,)), axis=1), axes=(1,))\n"
    "neg(mean(g, axes=(0,), keepdim=False))": (
        "STB102\n"
        "log_softmax(x, axis=0)"
    ),
    "l = log(softmax(s, axis=0))\n"
    "g = squeeze(gather(l, unsqueeze(slice(cast(c, dtype='int64'), axis=0, start=0, stop=5, step=1), "
    "axes=(0,)), axis=0), axes=(0,))\n"
    "neg(mean(g, axes=(0,), keepdim=False))": (
        "STB102\n"
        "log_softmax(s, axis=0)"
    ),
    "l = log_softmax(x, axis=1)\n"
    "g = squeeze(gather(l, unsqueeze(y, axes=(1,)), axis=1), axes=(1,))\n"
    "neg(mean(g, axes=(0,), keepdim=False))":
        "untouched",
    "l = log(softmax(x, axis=1))\n"
    "g = slice(l, axis=1, start=0, stop=1, step=1)\n"
    "neg(mean(g, axes=(0, 1), keepdim=False))": (
        "STB102\n"
        "log_softmax(x, axis=1)"
    ),
    "l = log(add(softmax(x, axis=1), 0.001))\n"
    "g = squeeze(gather(l, unsqueeze(y, axes=(1,)), axis=1), axes=(1,))\n"
    "neg(mean(g, axes=(0,), keepdim=False))":
        "untouched",
    "l = add(log(softmax(x, axis=1)), 1.0)\n"
    "g = squeeze(gather(l, unsqueeze(y, axes=(1,)), axis=1), axes=(1,))\n"
    "neg(mean(g, axes=(0,), keepdim=False))": (
        "STB102\n"
        "log_softmax(x, axis=1)"
    ),
    "l = log(softmax(x, axis=1))\n"
    "g = squeeze(gather(l, unsqueeze(y, axes=(1,)), axis=1), axes=(1,))\n"
    "neg(max(g, axes=(0,), keepdim=False))": (
        "STB102\n"
        "log_softmax(x, axis=1)"
    ),
    "l = log(softmax(q, axis=1))\n"
    "g = squeeze(gather(l, unsqueeze(slice(constant(value=1, dtype='int64', shape=(2, 4)), axis=0, start=0, "
    "stop=2, step=1), axes=(1,)), axis=1), axes=(1,))\n"
    "neg(mean(g, axes=(0, 1), keepdim=False))": (
        "STB301\n"
        "cross_entropy(q, slice(constant(value=1, dtype='int64', shape=(2, 4)), axis=0, start=0, stop=2, "
        "step=1), reduction='mean', ignore_index=-100, label_smoothing=0.0)"
    ),
    "l = log(softmax(q, axis=2))\n"
    "g = squeeze(gather(l, unsqueeze(j, axes=(2,)), axis=2), axes=(2,))\n"
    "neg(mean(g, axes=(0, 1), keepdim=False))": (
        "STB102\n"
        "log_softmax(q, axis=2)"
    ),
    # --- by a one-hot ---
    "l = log(softmax(x, axis=1))\n"
    "o = cast(one_hot(y, classes=5), dtype='float32')\n"
    "neg(sum(mul(o, l), axes=(1,), keepdim=False))": (
        "STB301\n"
        "cross_entropy(x, y, reduction='none', ignore_index=-100, label_smoothing=0.0)"
    ),
    "l = log(softmax(x, axis=1))\n"
    "o = cast(one_hot(y, classes=5), dtype='float32')\n"
    "neg(sum(mul(l, o), axes=(1,), keepdim=False))": (
        "STB301\n"
        "cross_entropy(x, y, reduction='none', ignore_index=-100, label_smoothing=0.0)"
    ),
    "l = log(softmax(x, axis=1))\n"
    "o = cast(one_hot(y, classes=5), dtype='float32')\n"
    "mean(neg(sum(mul(o, l), axes=(1,), keepdim=False)), axes=(0,), keepdim=False)": (
        "STB301\n"
        "cross_entropy(x, y, reduction='mean', ignore_index=-100, label_smoothing=0.0)"
    ),
    "l = log(softmax(x, axis=1))\n"
    "o = cast(cast(one_hot(y, classes=5), dtype='int64'), dtype='float32')\n"
    "neg(sum(mul(o, l), axes=(1,), keepdim=False))": (
        "STB301\n"
        "cross_entropy(x, y, reduction='none', ignore_index=-100, label_smoothing=0.0)"
    ),
    "l = log(softmax(x, axis=1))\n"
    "o = cast(one_hot(y, classes=5), dtype='float32')\n"
    "neg(sum(mul(o, l), axes=(1,), keepdim=True))": (
        "STB102\n"
        "log_softmax(x, axis=1)"
    ),
    "l = log(softmax(x, axis=1))\n"
    "o = cast(one_hot(y, classes=5), dtype='float32')\n"
    "neg(sum(mul(o, l), axes=(0, 1), keepdim=False))": (
        "STB102\n"
        "log_softmax(x, axis=1)"
    ),
    "l = log(softmax(x, axis=0))\n"
    "o = cast(one_hot(y, classes=5), dtype='float32')\n"
    "neg(sum(mul(o, l), axes=(1,), keepdim=False))": (
        "STB102\n"
        "log_softmax(x, axis=0)"
    ),
    "l = log(softmax(s, axis=0))\n"
    "o = cast(one_hot(slice(cast(a, dtype='int64'), axis=0, start=0, stop=5, step=1), classes=5), "
    "dtype='float32')\n"
    "neg(sum(mul(o, l), axes=(0,), keepdim=False))": (
        "STB102\n"
        "log_softmax(s, axis=0)"
    ),
    "l = log(softmax(x, axis=1))\n"
    "o = cast(one_hot(slice(y, axis=0, start=0, stop=1, step=1), classes=5), dtype='float32')\n"
    "neg(sum(mul(o, l), axes=(1,), keepdim=False))": (
        "STB102\n"
        "log_softmax(x, axis=1)"
    ),
    "l = add(log(softmax(x, axis=1)), 1.0)\n"
    "o = cast(one_hot(y, classes=5), dtype='float32')\n"
    "neg(sum(mul(o, l), axes=(1,), keepdim=False))": (
        "STB102\n"
        "log_softmax(x, axis=1)"
    ),
    "l = log(softmax(x, axis=1))\n"
    "neg(sum(mul(z, l), axes=(1,), keepdim=False))": (
        "STB102\n"
        "log_softmax(x, axis=1)"
    ),
    "l = log(softmax(x, axis=1))\n"
    "o = cast(B, dtype='float32')\n"
    "neg(sum(mul(o, l), axes=(1,), keepdim=False))": (
        "STB102\n"
        "log_softmax(x, axis=1)"
    ),
    "l = log(add(1.0, exp(x)))\n"
    "o = cast(one_hot(y, classes=5), dtype='float32')\n"
    "neg(sum(mul(o, l), axes=(1,), keepdim=False))": (
        "STB201\n"
        "softplus(x)"
    ),
    "l = mul(log(softmax(x, axis=1)), 3.0)\n"
    "o = cast(one_hot(y, classes=5), dtype='float32')\n"
    "neg(sum(mul(o, l), axes=(1,), keepdim=False))": (
        "STB301\n"
        "mul(cross_entropy(x, y, reduction='none', ignore_index=-100, label_smoothing=0.0), 3.0)"
    ),
    "o = cast(one_hot(y, classes=5), dtype='float32')\n"
    "neg(sum(mul(o, log_softmax(x, axis=1)), axes=(1,), keepdim=False))":
        "untouched",
    "l = log(softmax(x, axis=1))\n"
    "g = squeeze(gather(l, unsqueeze(y, axes=(1,)), axis=1), axes=(1,))\n"
    "mul(-2.0, mean(g, axes=(0,), keepdim=False))": (
        "STB301\n"
        "mul(cross_entropy(x, y, reduction='mean', ignore_index=-100, label_smoothing=0.0), 2.0)"
    ),
    "l = log(softmax(x, axis=1))\n"
    "o = where(one_hot(y, classes=5), constant(value=1.0, dtype='float32', shape=()), constant(value=0.0, "
    "dtype='float32', shape=()))\n"
    "neg(sum(mul(o, l), axes=(1,), keepdim=False))": (
        "STB301\n"
        "cross_entropy(x, y, reduction='none', ignore_index=-100, label_smoothing=0.0)"
    ),
    # --- binary cross-entropy ---
    "p = sigmoid(x)\n"
    "neg(add(mul(z, log(p)), mul(sub(1.0, z), log(sub(1.0, p)))))": (
        "STB302\n"
        "neg(bce_with_logits(x, z, reduction='none'))"
    ),
    "p = sigmoid(x)\n"
    "neg(add(mul(sub(1.0, z), log(sub(1.0, p))), mul(z, log(p))))": (
        "STB302\n"
        "neg(bce_with_logits(x, z, reduction='none'))"
    ),
    "p = sigmoid(x)\n"
    "neg(add(mul(log(p), z), mul(log(sub(1.0, p)), sub(1.0, z))))": (
        "STB302\n"
        "neg(bce_with_logits(x, z, reduction='none'))"
    ),
    "p = sigmoid(x)\n"
    "sub(mul(neg(z), log(p)), mul(sub(1.0, z), log(sub(1.0, p))))": (
        "STB302\n"
        "bce_with_logits(x, z, reduction='none')"
    ),
    "p = sigmoid(x)\n"
    "add(mul(mul(z, 2.0), log(p)), mul(mul(sub(1.0, z), 2.0), log(sub(1.0, p))))": (
        "STB302\n"
        "mul(bce_with_logits(x, z, reduction='none'), -2.0)"
    ),
    "p = sigmoid(x)\n"
    "add(mul(z, mul(log(p), 2.0)), mul(sub(1.0, z), mul(log(sub(1.0, p)), 2.0)))": (
        "STB302\n"
        "mul(bce_with_logits(x, z, reduction='none'), -2.0)"
    ),
    "p = sigmoid(x)\n"
    "add(mul(mul(z, log(p)), 2.0), mul(mul(sub(1.0, z), log(sub(1.0, p))), 2.0))": (
        "STB302\n"
        "mul(bce_with_logits(x, z, reduction='none'), -2.0)"
    ),
    "p = sigmoid(x)\n"
    "sub(mul(z, log(p)), mul(sub(1.0, z), log(sub(1.0, p))))": (
        "STB202 STB202\n"
        "log_sigmoid(neg(x))\n"
        "log_sigmoid(x)"
    ),
    "p = sigmoid(x)\n"
    "add(mul(z, log(p)), mul(mul(sub(1.0, z), 2.0), log(sub(1.0, p))))": (
        "STB202 STB202\n"
        "log_sigmoid(neg(x))\n"
        "log_sigmoid(x)"
    ),
    "p = sigmoid(x)\n"
    "add(mul(z, log(p)), mul(sub(1.0, w), log(sub(1.0, p))))": (
        "STB202 STB202\n"
        "log_sigmoid(neg(x))\n"
        "log_sigmoid(x)"
    ),
    "p = sigmoid(x)\n"
    "add(mul(z, log(p)), mul(sub(2.0, z), log(sub(1.0, p))))": (
        "STB202 STB202\n"
        "log_sigmoid(neg(x))\n"
        "log_sigmoid(x)"
    ),
    "p = sigmoid(x)\n"
    "add(mul(z, log(p)), mul(sub(1.0, z), log(sub(1.0, sigmoid(w)))))": (
        "STB202 STB202\n"
        "log_sigmoid(neg(w))\n"
        "log_sigmoid(x)"
    ),
    "p = sigmoid(x)\n"
    "add(mul(z, log(p)), mul(sub(1.0, z), log(p)))": (
        "STB202\n"
        "log_sigmoid(x)"
    ),
    "p = sigmoid(h)\n"
    "q2 = cast(z, dtype='float16')\n"
    "neg(add(mul(q2, log(p)), mul(sub(1.0, q2), log(sub(1.0, p)))))": (
        "STB302\n"
        "neg(cast(bce_with_logits(cast(h, dtype='float32'), cast(cast(z, dtype='float16'), dtype='float32'), "
        "reduction='none'), dtype='float16'))"
    ),
    "p = sigmoid(D)\n"
    "t = cast(z, dtype='float64')\n"
    "neg(add(mul(t, log(p)), mul(sub(1.0, t), log(sub(1.0, p)))))": (
        "STB302\n"
        "neg(bce_with_logits(D, cast(z, dtype='float64'), reduction='none'))"
    ),
    "p = sigmoid(x)\n"
    "neg(add(mul(R, log(p)), mul(sub(1.0, R), log(sub(1.0, p)))))": (
        "STB302\n"
        "neg(bce_with_logits(x, expand(R, shape=(4, 5)), reduction='none'))"
    ),
    "p = div(1.0, add(1.0, exp(neg(x))))\n"
    "neg(add(mul(z, log(p)), mul(sub(1.0, z), log(sub(1.0, p)))))": (
        "STB302\n"
        "neg(bce_with_logits(x, z, reduction='none'))"
    ),
    "add(mul(z, log_sigmoid(x)), mul(sub(1.0, z), log_sigmoid(neg(x))))": "untouched",
    "p = sigmoid(x)\n"
    "add(mul(z, log(add(p, 1.0))), mul(sub(1.0, z), log(sub(1.0, p))))": (
        "STB202 STB210\n"
        "log_sigmoid(neg(x))\n"
        "log1p(sigmoid(x))"
    ),
    "p = softmax(x, axis=1)\n"
    "add(mul(z, log(p)), mul(sub(1.0, z), log(sub(1.0, p))))": (
        "STB210 STB102\n"
        "log1p(neg(softmax(x, axis=1)))\n"
        "log_softmax(x, axis=1)"
    ),
    "p = sigmoid(x)\n"
    "u = unsqueeze(log(p), axes=(0,))\n"
    "add(mul(z, u), mul(sub(1.0, z), unsqueeze(log(sub(1.0, p)), axes=(0,))))": (
        "STB202 STB202\n"
        "log_sigmoid(neg(x))\n"
        "log_sigmoid(x)"
    ),
    "add(mul(z, log(add(1.0, exp(neg(x))))), mul(sub(1.0, z), log(add(1.0, exp(x)))))": (
        "STB302\n"
        "bce_with_logits(x, z, reduction='none')"
    ),
    "add(mul(z, mul(log(add(1.0, exp(neg(x)))), 2.0)), mul(mul(sub(1.0, z), 2.0), log(add(1.0, exp(x)))))": (
        "STB302\n"
        "mul(bce_with_logits(x, z, reduction='none'), 2.0)"
    ),
    "add(mul(neg(z), log(add(1.0, exp(neg(x))))), neg(mul(sub(1.0, z), log(add(1.0, exp(x))))))": (
        "STB302\n"
        "neg(bce_with_logits(x, z, reduction='none'))"
    ),
    "p = sigmoid(x)\n"
    "add(mul(z, log(pow(p, 2.0))), mul(sub(1.0, z), log(pow(sub(1.0, p), 2.0))))": (
        "STB302\n"
        "mul(bce_with_logits(x, z, reduction='none'), -2.0)"
    ),
    "p = add(1.0, exp(neg(x)))\n"
    "add(mul(z, log(pow(p, 2.0))), mul(sub(1.0, z), log(pow(add(1.0, exp(x)), 2.0))))": (
        "STB302\n"
        "mul(bce_with_logits(x, z, reduction='none'), 2.0)"
    ),
    "p = sigmoid(x)\n"
    "add(mul(z, log(p)), w)": (
        "STB202\n"
        "log_sigmoid(x)"
    ),
    "p = sigmoid(x)\n"
    "add(w, mul(z, log(p)))": (
        "STB202\n"
        "log_sigmoid(x)"
    ),
    # --- attention ---
    "e = exp(matmul(q, transpose(k, perm=(0, 2, 1))))\n"
    "div(matmul(e, v), sum(e, axes=(2,), keepdim=True))": (
        "STB601\n"
        "attention(q, k, v, scale=1.0)"
    ),
    "e = exp(matmul(q, transpose(k, perm=(0, 2, 1))))\n"
    "matmul(div(e, sum(e, axes=(2,), keepdim=True)), v)": (
        "STB601\n"
        "attention(q, k, v, scale=1.0)"
    ),
    "e = exp(mul(matmul(q, transpose(k, perm=(0, 2, 1))), 0.5))\n"
    "matmul(div(e, sum(e, axes=(2,), keepdim=True)), v)": (
        "STB601\n"
        "attention(q, k, v, scale=0.5)"
    ),
    "e = exp(matmul(q, transpose(k, perm=(0, 2, 1))))\n"
    "mul(matmul(e, v), div(1.0, sum(e, axes=(2,), keepdim=True)))": (
        "STB601\n"
        "attention(q, k, v, scale=1.0)"
    ),
    "e = exp(matmul(q, transpose(k, perm=(0, 2, 1))))\n"
    "matmul(div(e, sum(e, axes=(1,), keepdim=True)), v)": (
        "STB101\n"
        "softmax(matmul(q, transpose(k, perm=(0, 2, 1))), axis=1)"
    ),
    "e = exp(add(matmul(q, transpose(k, perm=(0, 2, 1))), 1.0))\n"
    "matmul(div(e, sum(e, axes=(2,), keepdim=True)), v)": (
        "STB601\n"
        "attention(q, k, v, scale=1.0)"
    ),
    "e = exp(matmul(q, transpose(slice(k, axis=1, start=0, stop=4, step=1), perm=(0, 1, 2))))\n"
    "matmul(div(e, sum(e, axes=(2,), keepdim=True)), slice(v, axis=1, start=0, stop=4, step=1))": (
        "STB601\n"
        "attention(q, transpose(transpose(slice(k, axis=1, start=0, stop=4, step=1), perm=(0, 1, 2)), perm=(0, "
        "2, 1)), slice(v, axis=1, start=0, stop=4, step=1), scale=1.0)"
    ),
    "e = exp(q)\n"
    "matmul(div(e, sum(e, axes=(2,), keepdim=True)), slice(v, axis=1, start=0, stop=4, step=1))": (
        "STB101\n"
        "softmax(q, axis=2)"
    ),
    "e = exp(matmul(x, T))\n"
    "matmul(div(e, sum(e, axes=(1,), keepdim=True)), transpose(T, perm=(1, 0)))": (
        "STB101\n"
        "softmax(matmul(x, T), axis=1)"
    ),
    "e = exp(matmul(q, transpose(k, perm=(0, 2, 1))))\n"
    "p = div(e, sum(e, axes=(2,), keepdim=True))\n"
    "matmul(mul(p, 2.0), v)": (
        "STB101\n"
        "softmax(matmul(q, transpose(k, perm=(0, 2, 1))), axis=2)"
    ),
    "e = exp(matmul(q, transpose(k, perm=(0, 2, 1))))\n"
    "p = div(e, add(sum(e, axes=(2,), keepdim=True), 0.001))\n"
    "matmul(p, v)": (
        "STB104\n"
        "t1 = matmul(q, transpose(k, perm=(0, 2, 1)))\n"
        "t2 = detach(minimum(maximum(max(t1, axes=(2,), keepdim=True), -6.907755278982137), "
        "3.4028234663852886e+38))\n"
        "t3 = exp(sub(t1, t2))\n"
        "div(t3, add(exp(sub(-6.907755278982137, t2)), sum(t3, axes=(2,), keepdim=True)))"
    ),
    "e = exp(matmul(q, transpose(k, perm=(0, 2, 1))))\n"
    "p = div(e, sum(e, axes=(2,), keepdim=True))\n"
    "matmul(p, slice(v, axis=0, start=0, stop=1, step=1))": (
        "STB601\n"
        "attention(q, k, slice(v, axis=0, start=0, stop=1, step=1), scale=1.0)"
    ),
    "e = exp(matmul(q, transpose(k, perm=(0, 2, 1))))\n"
    "p = div(e, sum(e, axes=(2,), keepdim=True))\n"
    "matmul(cast(p, dtype='float64'), cast(v, dtype='float64'))": (
        "STB101\n"
        "softmax(matmul(q, transpose(k, perm=(0, 2, 1))), axis=2)"
    ),
    "matmul(softmax(matmul(q, transpose(k, perm=(0, 2, 1))), axis=2), v)": "untouched",
    "e = exp(matmul(matmul(q, transpose(k, perm=(0, 2, 1))), transpose(matmul(q, transpose(k, perm=(0, 2, "
    "1))), perm=(0, 2, 1))))\n"
    "matmul(div(e, sum(e, axes=(2,), keepdim=True)), q)": (
        "STB601\n"
        "t1 = matmul(q, transpose(k, perm=(0, 2, 1)))\n"
        "attention(t1, t1, q, scale=1.0)"
    ),
    # --- hyperbolic tangent ---
    "div(sub(exp(x), exp(neg(x))), add(exp(x), exp(neg(x))))": (
        "STB204\n"
        "tanh(x)"
    ),
    "div(sub(exp(x), exp(z)), add(exp(x), exp(z)))": (
        "STB204\n"
        "tanh(sub(mul(x, 0.5), mul(z, 0.5)))"
    ),
    "div(sub(exp(x), exp(z)), add(exp(z), exp(x)))": (
        "STB204\n"
        "tanh(sub(mul(x, 0.5), mul(z, 0.5)))"
    ),
    "div(sub(mul(exp(x), 2.0), mul(exp(z), 2.0)), add(exp(x), exp(z)))": (
        "STB204\n"
        "mul(tanh(sub(mul(x, 0.5), mul(z, 0.5))), 2.0)"
    ),
    "div(sub(exp(x), exp(z)), add(mul(exp(x), 2.0), mul(exp(z), 2.0)))": (
        "STB204\n"
        "mul(tanh(sub(mul(x, 0.5), mul(z, 0.5))), 0.5)"
    ),
    "div(sub(exp(h), exp(neg(h))), add(exp(h), exp(neg(h))))": (
        "STB204\n"
        "cast(tanh(cast(h, dtype='float32')), dtype='float16')"
    ),
    "div(sub(exp(mul(x, 2.0)), 1.0), add(exp(mul(x, 2.0)), 1.0))": (
        "STB204\n"
        "tanh(x)"
    ),
    "div(sub(mul(exp(x), 2.0), exp(z)), add(exp(x), exp(z)))": "untouched",
    "div(sub(exp(x), exp(z)), add(mul(exp(x), 2.0), exp(z)))": "untouched",
    "div(sub(exp(x), exp(z)), add(exp(x), exp(w)))": "untouched",
    "div(add(exp(x), exp(z)), add(exp(x), exp(z)))": "untouched",
    "div(sub(exp(x), exp(z)), sub(exp(x), exp(z)))": "untouched",
    "div(sub(mul(exp(x), w), exp(z)), add(exp(x), exp(z)))": "untouched",
    "div(sub(exp(x), exp(z)), add(mul(exp(x), w), exp(z)))": "untouched",
    "div(sub(mul(exp(x), 0.0), mul(exp(z), 0.0)), add(exp(x), exp(z)))": "untouched",
    "div(sub(exp(x), exp(z)), add(mul(exp(x), 0.0), mul(exp(z), 0.0)))": "untouched",
    "s2 = sigmoid(x)\n"
    "div(sub(exp(s2), exp(neg(s2))), add(exp(s2), exp(neg(s2))))": (
        "STB227\n"
        "mul(sinh(sigmoid(x)), 2.0)"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), LOSSES.items())
def test_loss(body, expected):
    outcome = Outcome(body, Options())
    spoken = [" ".join(outcome.codes), *(brief(new) for new in outcome.replaced.values())]
    assert ("\n".join(spoken) if outcome.codes else "untouched") == expected
    for old, new in outcome.replaced.items():
        assert_same_function(old, new)


def test_attention_is_proposed_with_its_parts_as_second_choice():
    body = "e = exp(matmul(q, transpose(k, perm=(0, 2, 1))))\ndiv(matmul(e, v), sum(e, axes=(2,), keepdim=True))"
    (proposal,) = Outcome(body, Options()).proposed
    fused, plain = map(brief, proposal.candidates)
    assert fused == "attention(q, k, v, scale=1.0)"
    assert plain == "matmul(softmax(matmul(q, transpose(k, perm=(0, 2, 1))), axis=2), v)"


def test_onnx_has_no_attention():
    body = "e = exp(matmul(q, transpose(k, perm=(0, 2, 1))))\ndiv(matmul(e, v), sum(e, axes=(2,), keepdim=True))"
    assert Outcome(body, Options(host="onnx")).codes == ["STB101"]

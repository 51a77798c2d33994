"""Every cross-entropy in its log1p form, on request: spellings, weights, ignored targets, smoothing, formats."""

from __future__ import annotations

import math

import pytest
import torch

from stabilize.passes.rule import Options
from stabilize.verify.execute import execute
from tests.passes.graphs import Outcome, assert_same_function, brief

REQUESTED = Options(form="collapse-free")

#: Loss → what takes its place; the largest other logit relative to that of the target is shifted by.
LOSSES = {
    "cross_entropy(x, y, reduction='mean', ignore_index=-100, label_smoothing=0.0)": (
        "STB303\n"
        "t1 = ne(y, -100)\n"
        "t2 = where(t1, y, 0)\n"
        "t3 = gather(x, unsqueeze(t2, axes=(1,)), axis=1)\n"
        "t4 = maximum(t3, -3.4028234663852886e+38)\n"
        "t5 = where(one_hot(t2, classes=5), -inf, sub(x, t4))\n"
        "t6 = detach(maximum(max(t5, axes=(1,), keepdim=True), 0.0))\n"
        "div(sum(where(t1, squeeze(add(add(t6, log1p(add(sum(exp(sub(t5, t6)), axes=(1,), keepdim=True), "
        "expm1(neg(t6))))), add(detach(sub(t4, t3)), mul(detach(max(x, axes=(1,), keepdim=True)), 0.0))), "
        "axes=(1,)), 0.0), axes=(0,), keepdim=False), sum(cast(t1, dtype='float32'), axes=(0,), keepdim=False))"
    ),
    "cross_entropy(x, y, reduction='sum', ignore_index=2, label_smoothing=0.0)": (
        "STB303\n"
        "t1 = ne(y, 2)\n"
        "t2 = where(t1, y, 0)\n"
        "t3 = gather(x, unsqueeze(t2, axes=(1,)), axis=1)\n"
        "t4 = maximum(t3, -3.4028234663852886e+38)\n"
        "t5 = where(one_hot(t2, classes=5), -inf, sub(x, t4))\n"
        "t6 = detach(maximum(max(t5, axes=(1,), keepdim=True), 0.0))\n"
        "sum(where(t1, squeeze(add(add(t6, log1p(add(sum(exp(sub(t5, t6)), axes=(1,), keepdim=True), "
        "expm1(neg(t6))))), add(detach(sub(t4, t3)), mul(detach(max(x, axes=(1,), keepdim=True)), 0.0))), "
        "axes=(1,)), 0.0), axes=(0,), keepdim=False)"
    ),
    "cross_entropy(x, y, reduction='none', ignore_index=-100, label_smoothing=0.0)": (
        "STB303\n"
        "t1 = ne(y, -100)\n"
        "t2 = where(t1, y, 0)\n"
        "t3 = gather(x, unsqueeze(t2, axes=(1,)), axis=1)\n"
        "t4 = maximum(t3, -3.4028234663852886e+38)\n"
        "t5 = where(one_hot(t2, classes=5), -inf, sub(x, t4))\n"
        "t6 = detach(maximum(max(t5, axes=(1,), keepdim=True), 0.0))\n"
        "where(t1, squeeze(add(add(t6, log1p(add(sum(exp(sub(t5, t6)), axes=(1,), keepdim=True), "
        "expm1(neg(t6))))), add(detach(sub(t4, t3)), mul(detach(max(x, axes=(1,), keepdim=True)), 0.0))), "
        "axes=(1,)), 0.0)"
    ),
    "cross_entropy(x, y, c, reduction='mean', ignore_index=-100, label_smoothing=0.0)": (
        "STB303\n"
        "t1 = ne(y, -100)\n"
        "t2 = where(t1, y, 0)\n"
        "t3 = unsqueeze(t2, axes=(1,))\n"
        "t4 = gather(x, t3, axis=1)\n"
        "t5 = maximum(t4, -3.4028234663852886e+38)\n"
        "t6 = where(one_hot(t2, classes=5), -inf, sub(x, t5))\n"
        "t7 = detach(maximum(max(t6, axes=(1,), keepdim=True), 0.0))\n"
        "t8 = mul(squeeze(gather(expand(unsqueeze(detach(c), axes=(0,)), shape=(4, 5)), t3, axis=1), "
        "axes=(1,)), cast(t1, dtype='float32'))\n"
        "div(sum(mul(where(t1, squeeze(add(add(t7, log1p(add(sum(exp(sub(t6, t7)), axes=(1,), keepdim=True), "
        "expm1(neg(t7))))), add(detach(sub(t5, t4)), mul(detach(max(x, axes=(1,), keepdim=True)), 0.0))), "
        "axes=(1,)), 0.0), t8), axes=(0,), keepdim=False), sum(t8, axes=(0,), keepdim=False))"
    ),
    "cross_entropy(x, y, c, reduction='none', ignore_index=1, label_smoothing=0.0)": (
        "STB303\n"
        "t1 = ne(y, 1)\n"
        "t2 = where(t1, y, 0)\n"
        "t3 = unsqueeze(t2, axes=(1,))\n"
        "t4 = gather(x, t3, axis=1)\n"
        "t5 = maximum(t4, -3.4028234663852886e+38)\n"
        "t6 = where(one_hot(t2, classes=5), -inf, sub(x, t5))\n"
        "t7 = detach(maximum(max(t6, axes=(1,), keepdim=True), 0.0))\n"
        "mul(where(t1, squeeze(add(add(t7, log1p(add(sum(exp(sub(t6, t7)), axes=(1,), keepdim=True), "
        "expm1(neg(t7))))), add(detach(sub(t5, t4)), mul(detach(max(x, axes=(1,), keepdim=True)), 0.0))), "
        "axes=(1,)), 0.0), mul(squeeze(gather(expand(unsqueeze(detach(c), axes=(0,)), shape=(4, 5)), t3, "
        "axis=1), axes=(1,)), cast(t1, dtype='float32')))"
    ),
    "cross_entropy(x, y, reduction='mean', ignore_index=-100, label_smoothing=0.25)": (
        "STB303\n"
        "t1 = ne(y, -100)\n"
        "t2 = where(t1, y, 0)\n"
        "t3 = gather(x, unsqueeze(t2, axes=(1,)), axis=1)\n"
        "t4 = maximum(t3, -3.4028234663852886e+38)\n"
        "t5 = where(one_hot(t2, classes=5), -inf, sub(x, t4))\n"
        "t6 = detach(maximum(max(t5, axes=(1,), keepdim=True), 0.0))\n"
        "div(sum(add(mul(where(t1, squeeze(add(add(t6, log1p(add(sum(exp(sub(t5, t6)), axes=(1,), "
        "keepdim=True), expm1(neg(t6))))), add(detach(sub(t4, t3)), mul(detach(max(x, axes=(1,), "
        "keepdim=True)), 0.0))), axes=(1,)), 0.0), 0.75), where(t1, mul(sum(log_softmax(x, axis=1), axes=(1,), "
        "keepdim=False), -0.05), 0.0)), axes=(0,), keepdim=False), sum(cast(t1, dtype='float32'), axes=(0,), "
        "keepdim=False))"
    ),
    "cross_entropy(x, y, c, reduction='mean', ignore_index=-100, label_smoothing=0.25)": (
        "STB303\n"
        "t1 = ne(y, -100)\n"
        "t2 = where(t1, y, 0)\n"
        "t3 = unsqueeze(t2, axes=(1,))\n"
        "t4 = gather(x, t3, axis=1)\n"
        "t5 = maximum(t4, -3.4028234663852886e+38)\n"
        "t6 = where(one_hot(t2, classes=5), -inf, sub(x, t5))\n"
        "t7 = detach(maximum(max(t6, axes=(1,), keepdim=True), 0.0))\n"
        "t8 = unsqueeze(detach(c), axes=(0,))\n"
        "t9 = mul(squeeze(gather(expand(t8, shape=(4, 5)), t3, axis=1), axes=(1,)), cast(t1, dtype='float32'))\n"
        "div(sum(add(mul(mul(where(t1, squeeze(add(add(t7, log1p(add(sum(exp(sub(t6, t7)), axes=(1,), "
        "keepdim=True), expm1(neg(t7))))), add(detach(sub(t5, t4)), mul(detach(max(x, axes=(1,), "
        "keepdim=True)), 0.0))), axes=(1,)), 0.0), t9), 0.75), where(t1, mul(sum(mul(log_softmax(x, axis=1), "
        "t8), axes=(1,), keepdim=False), -0.05), 0.0)), axes=(0,), keepdim=False), sum(t9, axes=(0,), "
        "keepdim=False))"
    ),
    "cross_entropy(D, y, reduction='mean', ignore_index=-100, label_smoothing=0.25)": (
        "STB303\n"
        "t1 = ne(y, -100)\n"
        "t2 = where(t1, y, 0)\n"
        "t3 = gather(D, unsqueeze(t2, axes=(1,)), axis=1)\n"
        "t4 = maximum(t3, -1.7976931348623157e+308)\n"
        "t5 = where(one_hot(t2, classes=5), -inf, sub(D, t4))\n"
        "t6 = detach(maximum(max(t5, axes=(1,), keepdim=True), 0.0))\n"
        "div(sum(add(mul(where(t1, squeeze(add(add(t6, log1p(add(sum(exp(sub(t5, t6)), axes=(1,), "
        "keepdim=True), expm1(neg(t6))))), add(detach(sub(t4, t3)), mul(detach(max(D, axes=(1,), "
        "keepdim=True)), 0.0))), axes=(1,)), 0.0), 0.75), where(t1, mul(sum(log_softmax(D, axis=1), axes=(1,), "
        "keepdim=False), -0.05), 0.0)), axes=(0,), keepdim=False), sum(cast(t1, dtype='float64'), axes=(0,), "
        "keepdim=False))"
    ),
    "cross_entropy(h, y, reduction='mean', ignore_index=-100, label_smoothing=0.25)": (
        "STB303\n"
        "t1 = ne(y, -100)\n"
        "t2 = where(t1, y, 0)\n"
        "t3 = cast(h, dtype='float32')\n"
        "t4 = gather(t3, unsqueeze(t2, axes=(1,)), axis=1)\n"
        "t5 = maximum(t4, -3.4028234663852886e+38)\n"
        "t6 = where(one_hot(t2, classes=5), -inf, sub(t3, t5))\n"
        "t7 = detach(maximum(max(t6, axes=(1,), keepdim=True), 0.0))\n"
        "cast(div(sum(add(mul(where(t1, squeeze(add(add(t7, log1p(add(sum(exp(sub(t6, t7)), axes=(1,), "
        "keepdim=True), expm1(neg(t7))))), add(detach(sub(t5, t4)), mul(detach(max(t3, axes=(1,), "
        "keepdim=True)), 0.0))), axes=(1,)), 0.0), 0.75), where(t1, mul(sum(log_softmax(t3, axis=1), "
        "axes=(1,), keepdim=False), -0.05), 0.0)), axes=(0,), keepdim=False), sum(cast(t1, dtype='float32'), "
        "axes=(0,), keepdim=False)), dtype='float16')"
    ),
    "cross_entropy(h, y, reduction='none', ignore_index=-100, label_smoothing=0.0)": (
        "STB303\n"
        "t1 = ne(y, -100)\n"
        "t2 = where(t1, y, 0)\n"
        "t3 = cast(h, dtype='float32')\n"
        "t4 = gather(t3, unsqueeze(t2, axes=(1,)), axis=1)\n"
        "t5 = maximum(t4, -3.4028234663852886e+38)\n"
        "t6 = where(one_hot(t2, classes=5), -inf, sub(t3, t5))\n"
        "t7 = detach(maximum(max(t6, axes=(1,), keepdim=True), 0.0))\n"
        "cast(where(t1, squeeze(add(add(t7, log1p(add(sum(exp(sub(t6, t7)), axes=(1,), keepdim=True), "
        "expm1(neg(t7))))), add(detach(sub(t5, t4)), mul(detach(max(t3, axes=(1,), keepdim=True)), 0.0))), "
        "axes=(1,)), 0.0), dtype='float16')"
    ),
    "cross_entropy(D, y, reduction='sum', ignore_index=-100, label_smoothing=0.0)": (
        "STB303\n"
        "t1 = ne(y, -100)\n"
        "t2 = where(t1, y, 0)\n"
        "t3 = gather(D, unsqueeze(t2, axes=(1,)), axis=1)\n"
        "t4 = maximum(t3, -1.7976931348623157e+308)\n"
        "t5 = where(one_hot(t2, classes=5), -inf, sub(D, t4))\n"
        "t6 = detach(maximum(max(t5, axes=(1,), keepdim=True), 0.0))\n"
        "sum(where(t1, squeeze(add(add(t6, log1p(add(sum(exp(sub(t5, t6)), axes=(1,), keepdim=True), "
        "expm1(neg(t6))))), add(detach(sub(t4, t3)), mul(detach(max(D, axes=(1,), keepdim=True)), 0.0))), "
        "axes=(1,)), 0.0), axes=(0,), keepdim=False)"
    ),
    "cross_entropy(transpose(q, perm=(0, 2, 1)), j, reduction='mean', ignore_index=-100, label_smoothing=0.0)": (
        "STB303\n"
        "t1 = transpose(q, perm=(0, 2, 1))\n"
        "t2 = ne(j, -100)\n"
        "t3 = where(t2, j, 0)\n"
        "t4 = gather(t1, unsqueeze(t3, axes=(1,)), axis=1)\n"
        "t5 = maximum(t4, -3.4028234663852886e+38)\n"
        "t6 = where(transpose(one_hot(t3, classes=4), perm=(0, 2, 1)), -inf, sub(t1, t5))\n"
        "t7 = detach(maximum(max(t6, axes=(1,), keepdim=True), 0.0))\n"
        "div(sum(where(t2, squeeze(add(add(t7, log1p(add(sum(exp(sub(t6, t7)), axes=(1,), keepdim=True), "
        "expm1(neg(t7))))), add(detach(sub(t5, t4)), mul(detach(max(t1, axes=(1,), keepdim=True)), 0.0))), "
        "axes=(1,)), 0.0), axes=(0, 1), keepdim=False), sum(cast(t2, dtype='float32'), axes=(0, 1), "
        "keepdim=False))"
    ),
    "cross_entropy(transpose(q, perm=(0, 2, 1)), j, slice(c, axis=0, start=0, stop=4, step=1), "
    "reduction='mean', ignore_index=-100, label_smoothing=0.25)": (
        "STB303\n"
        "t1 = transpose(q, perm=(0, 2, 1))\n"
        "t2 = ne(j, -100)\n"
        "t3 = where(t2, j, 0)\n"
        "t4 = unsqueeze(t3, axes=(1,))\n"
        "t5 = gather(t1, t4, axis=1)\n"
        "t6 = maximum(t5, -3.4028234663852886e+38)\n"
        "t7 = where(transpose(one_hot(t3, classes=4), perm=(0, 2, 1)), -inf, sub(t1, t6))\n"
        "t8 = detach(maximum(max(t7, axes=(1,), keepdim=True), 0.0))\n"
        "t9 = unsqueeze(detach(slice(c, axis=0, start=0, stop=4, step=1)), axes=(0, 2))\n"
        "t10 = mul(squeeze(gather(expand(t9, shape=(2, 4, 3)), t4, axis=1), axes=(1,)), cast(t2, "
        "dtype='float32'))\n"
        "div(sum(add(mul(mul(where(t2, squeeze(add(add(t8, log1p(add(sum(exp(sub(t7, t8)), axes=(1,), "
        "keepdim=True), expm1(neg(t8))))), add(detach(sub(t6, t5)), mul(detach(max(t1, axes=(1,), "
        "keepdim=True)), 0.0))), axes=(1,)), 0.0), t10), 0.75), where(t2, mul(sum(mul(log_softmax(t1, axis=1), "
        "t9), axes=(1,), keepdim=False), -0.0625), 0.0)), axes=(0, 1), keepdim=False), sum(t10, axes=(0, 1), "
        "keepdim=False))"
    ),
    "cross_entropy(a, constant(value=1, dtype='int64', shape=()), reduction='mean', ignore_index=-100, "
    "label_smoothing=0.0)": (
        "STB303\n"
        "t1 = ne(1, -100)\n"
        "t2 = where(t1, 1, 0)\n"
        "t3 = gather(a, unsqueeze(t2, axes=(0,)), axis=0)\n"
        "t4 = maximum(t3, -3.4028234663852886e+38)\n"
        "t5 = where(one_hot(t2, classes=5), -inf, sub(a, t4))\n"
        "t6 = detach(maximum(max(t5, axes=(0,), keepdim=True), 0.0))\n"
        "div(where(t1, squeeze(add(add(t6, log1p(add(sum(exp(sub(t5, t6)), axes=(0,), keepdim=True), "
        "expm1(neg(t6))))), add(detach(sub(t4, t3)), mul(detach(max(a, axes=(0,), keepdim=True)), 0.0))), "
        "axes=(0,)), 0.0), cast(t1, dtype='float32'))"
    ),
    "cross_entropy(x, z, reduction='mean', ignore_index=-100, label_smoothing=0.0)": "untouched",
    "cross_entropy(transpose(n, perm=(1, 0)), constant(value=1, dtype='int64', shape=(5,)), reduction='mean', "
    "ignore_index=-100, label_smoothing=0.0)":
        "untouched",
    "cross_entropy(n, constant(value=1, dtype='int64', shape=('m',)), reduction='mean', ignore_index=-100, "
    "label_smoothing=0.0)": (
        "STB303\n"
        "t1 = constant(value=1, dtype='int64', shape=('m',))\n"
        "t2 = ne(t1, -100)\n"
        "t3 = where(t2, t1, 0)\n"
        "t4 = gather(n, unsqueeze(t3, axes=(1,)), axis=1)\n"
        "t5 = maximum(t4, -3.4028234663852886e+38)\n"
        "t6 = where(one_hot(t3, classes=5), -inf, sub(n, t5))\n"
        "t7 = detach(maximum(max(t6, axes=(1,), keepdim=True), 0.0))\n"
        "div(sum(where(t2, squeeze(add(add(t7, log1p(add(sum(exp(sub(t6, t7)), axes=(1,), keepdim=True), "
        "expm1(neg(t7))))), add(detach(sub(t5, t4)), mul(detach(max(n, axes=(1,), keepdim=True)), 0.0))), "
        "axes=(1,)), 0.0), axes=(0,), keepdim=False), sum(cast(t2, dtype='float32'), axes=(0,), keepdim=False))"
    ),
    "nll_loss(log_softmax(x, axis=1), y, reduction='mean', ignore_index=-100)": (
        "STB303\n"
        "t1 = ne(y, -100)\n"
        "t2 = where(t1, y, 0)\n"
        "t3 = gather(x, unsqueeze(t2, axes=(1,)), axis=1)\n"
        "t4 = maximum(t3, -3.4028234663852886e+38)\n"
        "t5 = where(one_hot(t2, classes=5), -inf, sub(x, t4))\n"
        "t6 = detach(maximum(max(t5, axes=(1,), keepdim=True), 0.0))\n"
        "div(sum(where(t1, squeeze(add(add(t6, log1p(add(sum(exp(sub(t5, t6)), axes=(1,), keepdim=True), "
        "expm1(neg(t6))))), add(detach(sub(t4, t3)), mul(detach(max(x, axes=(1,), keepdim=True)), 0.0))), "
        "axes=(1,)), 0.0), axes=(0,), keepdim=False), sum(cast(t1, dtype='float32'), axes=(0,), keepdim=False))"
    ),
    "nll_loss(log_softmax(x, axis=1), y, c, reduction='sum', ignore_index=2)": (
        "STB303\n"
        "t1 = ne(y, 2)\n"
        "t2 = where(t1, y, 0)\n"
        "t3 = unsqueeze(t2, axes=(1,))\n"
        "t4 = gather(x, t3, axis=1)\n"
        "t5 = maximum(t4, -3.4028234663852886e+38)\n"
        "t6 = where(one_hot(t2, classes=5), -inf, sub(x, t5))\n"
        "t7 = detach(maximum(max(t6, axes=(1,), keepdim=True), 0.0))\n"
        "sum(mul(where(t1, squeeze(add(add(t7, log1p(add(sum(exp(sub(t6, t7)), axes=(1,), keepdim=True), "
        "expm1(neg(t7))))), add(detach(sub(t5, t4)), mul(detach(max(x, axes=(1,), keepdim=True)), 0.0))), "
        "axes=(1,)), 0.0), mul(squeeze(gather(expand(unsqueeze(detach(c), axes=(0,)), shape=(4, 5)), t3, "
        "axis=1), axes=(1,)), cast(t1, dtype='float32'))), axes=(0,), keepdim=False)"
    ),
    "nll_loss(log_softmax(h, axis=1), y, reduction='mean', ignore_index=-100)": (
        "STB303\n"
        "t1 = ne(y, -100)\n"
        "t2 = where(t1, y, 0)\n"
        "t3 = cast(h, dtype='float32')\n"
        "t4 = gather(t3, unsqueeze(t2, axes=(1,)), axis=1)\n"
        "t5 = maximum(t4, -3.4028234663852886e+38)\n"
        "t6 = where(one_hot(t2, classes=5), -inf, sub(t3, t5))\n"
        "t7 = detach(maximum(max(t6, axes=(1,), keepdim=True), 0.0))\n"
        "cast(div(sum(where(t1, squeeze(add(add(t7, log1p(add(sum(exp(sub(t6, t7)), axes=(1,), keepdim=True), "
        "expm1(neg(t7))))), add(detach(sub(t5, t4)), mul(detach(max(t3, axes=(1,), keepdim=True)), 0.0))), "
        "axes=(1,)), 0.0), axes=(0,), keepdim=False), sum(cast(t1, dtype='float32'), axes=(0,), "
        "keepdim=False)), dtype='float16')"
    ),
    "nll_loss(log_softmax(x, axis=0), y, reduction='mean', ignore_index=-100)": "untouched",
    "nll_loss(mul(log_softmax(x, axis=1), 2.0), y, reduction='mean', ignore_index=-100)": "untouched",
    "nll_loss(add(log_softmax(x, axis=1), 1.0), y, reduction='mean', ignore_index=-100)": "untouched",
    "nll_loss(x, y, reduction='mean', ignore_index=-100)": "untouched",
    "nll_loss(log_sigmoid(x), y, reduction='mean', ignore_index=-100)": "untouched",
    "nll_loss(transpose(log_softmax(transpose(x, perm=(1, 0)), axis=0), perm=(1, 0)), y, reduction='mean', "
    "ignore_index=-100)":
        "untouched",
    "nll_loss(transpose(log_softmax(transpose(n, perm=(1, 0)), axis=1), perm=(1, 0)), constant(value=1, "
    "dtype='int64', shape=('m',)), reduction='mean', ignore_index=-100)":
        "untouched",
    "nll_loss(log_softmax(transpose(n, perm=(1, 0)), axis=1), constant(value=1, dtype='int64', shape=(5,)), "
    "reduction='mean', ignore_index=-100)":
        "untouched",
    "nll_loss(add(log_softmax(x, axis=1), log_softmax(z, axis=1)), y, reduction='mean', ignore_index=-100)":
        "untouched",
    "l = log_softmax(x, axis=1)\n"
    "neg(mean(squeeze(gather(l, unsqueeze(y, axes=(1,)), axis=1), axes=(1,)), axes=(0,), keepdim=False))": (
        "STB303\n"
        "t1 = gather(x, unsqueeze(y, axes=(1,)), axis=1)\n"
        "t2 = maximum(t1, -3.4028234663852886e+38)\n"
        "t3 = where(one_hot(y, classes=5), -inf, sub(x, t2))\n"
        "t4 = detach(maximum(max(t3, axes=(1,), keepdim=True), 0.0))\n"
        "mean(squeeze(add(add(t4, log1p(add(sum(exp(sub(t3, t4)), axes=(1,), keepdim=True), expm1(neg(t4))))), "
        "add(detach(sub(t2, t1)), mul(detach(max(x, axes=(1,), keepdim=True)), 0.0))), axes=(1,)), axes=(0,), "
        "keepdim=False)"
    ),
    "l = log_softmax(x, axis=1)\n"
    "mul(sum(squeeze(gather(l, unsqueeze(y, axes=(1,)), axis=1), axes=(1,)), axes=(0,), keepdim=False), -0.5)": (
        "STB303\n"
        "t1 = gather(x, unsqueeze(y, axes=(1,)), axis=1)\n"
        "t2 = maximum(t1, -3.4028234663852886e+38)\n"
        "t3 = where(one_hot(y, classes=5), -inf, sub(x, t2))\n"
        "t4 = detach(maximum(max(t3, axes=(1,), keepdim=True), 0.0))\n"
        "mul(sum(squeeze(add(add(t4, log1p(add(sum(exp(sub(t3, t4)), axes=(1,), keepdim=True), "
        "expm1(neg(t4))))), add(detach(sub(t2, t1)), mul(detach(max(x, axes=(1,), keepdim=True)), 0.0))), "
        "axes=(1,)), axes=(0,), keepdim=False), 0.5)"
    ),
    "l = log_softmax(x, axis=1)\n"
    "neg(squeeze(gather(l, unsqueeze(y, axes=(1,)), axis=1), axes=(1,)))": (
        "STB303\n"
        "t1 = gather(x, unsqueeze(y, axes=(1,)), axis=1)\n"
        "t2 = maximum(t1, -3.4028234663852886e+38)\n"
        "t3 = where(one_hot(y, classes=5), -inf, sub(x, t2))\n"
        "t4 = detach(maximum(max(t3, axes=(1,), keepdim=True), 0.0))\n"
        "squeeze(add(add(t4, log1p(add(sum(exp(sub(t3, t4)), axes=(1,), keepdim=True), expm1(neg(t4))))), "
        "add(detach(sub(t2, t1)), mul(detach(max(x, axes=(1,), keepdim=True)), 0.0))), axes=(1,))"
    ),
    "l = log_softmax(q, axis=2)\n"
    "neg(mean(squeeze(gather(l, unsqueeze(j, axes=(2,)), axis=2), axes=(2,)), axes=(0, 1), keepdim=False))": (
        "STB303\n"
        "t1 = gather(q, unsqueeze(j, axes=(2,)), axis=2)\n"
        "t2 = maximum(t1, -3.4028234663852886e+38)\n"
        "t3 = where(one_hot(j, classes=4), -inf, sub(q, t2))\n"
        "t4 = detach(maximum(max(t3, axes=(2,), keepdim=True), 0.0))\n"
        "mean(squeeze(add(add(t4, log1p(add(sum(exp(sub(t3, t4)), axes=(2,), keepdim=True), expm1(neg(t4))))), "
        "add(detach(sub(t2, t1)), mul(detach(max(q, axes=(2,), keepdim=True)), 0.0))), axes=(2,)), axes=(0, "
        "1), keepdim=False)"
    ),
    "l = log_softmax(q, axis=1)\n"
    "neg(squeeze(gather(l, unsqueeze(constant(value=1, dtype='int64', shape=(2, 4)), axes=(1,)), axis=1), "
    "axes=(1,)))": (
        "STB303\n"
        "t1 = constant(value=1, dtype='int64', shape=(2, 4))\n"
        "t2 = gather(q, unsqueeze(t1, axes=(1,)), axis=1)\n"
        "t3 = maximum(t2, -3.4028234663852886e+38)\n"
        "t4 = where(transpose(one_hot(t1, classes=3), perm=(0, 2, 1)), -inf, sub(q, t3))\n"
        "t5 = detach(maximum(max(t4, axes=(1,), keepdim=True), 0.0))\n"
        "squeeze(add(add(t5, log1p(add(sum(exp(sub(t4, t5)), axes=(1,), keepdim=True), expm1(neg(t5))))), "
        "add(detach(sub(t3, t2)), mul(detach(max(q, axes=(1,), keepdim=True)), 0.0))), axes=(1,))"
    ),
    "l = log_softmax(transpose(n, perm=(1, 0)), axis=1)\n"
    "neg(squeeze(gather(l, unsqueeze(constant(value=1, dtype='int64', shape=(5,)), axes=(1,)), axis=1), "
    "axes=(1,)))":
        "untouched",
    "l = log_softmax(x, axis=1)\n"
    "log(sum(exp(l), axes=(1,), keepdim=True))":
        "untouched",
    "l = log_softmax(x, axis=1)\n"
    "neg(mean(l, axes=(0, 1), keepdim=False))":
        "untouched",
}  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), LOSSES.items())
def test_log1p_form(body, expected):
    outcome = Outcome(body, REQUESTED)
    spoken = [" ".join(outcome.codes), *(brief(new) for new in outcome.replaced.values())]
    assert ("\n".join(spoken) if outcome.codes else "untouched") == expected
    for old, new in outcome.replaced.items():
        assert_same_function(old, new)


@pytest.mark.parametrize("body", LOSSES)
def test_nothing_happens_unless_asked_for(body):
    assert "STB303" not in Outcome(body, Options()).codes


def rows(logits: list[list[float]], target: list[int]) -> torch.Tensor:
    """The losses of rows of 5 logits (the first 4 rows are used)."""
    outcome = Outcome("cross_entropy(x, y, reduction='none', ignore_index=-100, label_smoothing=0.0)", REQUESTED)
    ((old, new),) = outcome.replaced.items()
    leaves = dict(zip(old.operands, (torch.tensor(logits), torch.tensor(target)), strict=True))
    return execute([new], leaves)[0]


def test_a_leading_class_keeps_a_loss():
    """30 ahead of four others: 4·exp(−30), where the plain form gives exactly 0."""
    losses = rows([[30.0, 0.0, 0.0, 0.0, 0.0]] * 4, [0] * 4)
    torch.testing.assert_close(losses, torch.full((4,), 4 * math.exp(-30.0)), rtol=1e-6, atol=0.0)


def test_special_rows():
    inf, nan = math.inf, math.nan
    losses = rows(
        [[-inf, 0.0, 0.0, 0.0, 0.0], [nan, 0.0, 0.0, 0.0, 0.0], [-inf] * 5, [0.0, inf, 0.0, 0.0, 0.0]], [0, 1, 0, 0]
    )
    assert losses[0] == inf
    assert losses[1:].isnan().all()


def test_masked_classes_contribute_nothing():
    losses = rows([[1.0, -math.inf, 1.0, -math.inf, -math.inf]] * 4, [0] * 4)
    torch.testing.assert_close(losses, torch.full((4,), math.log(2.0)))

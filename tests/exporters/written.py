"""Graphs as tf2onnx, skl2onnx and older exporters write them: each with what is to be found in it, what it should
compute, and a near miss, one edit away, that comes back as it was.

Written from the converters' own spellings: axes as inputs or attributes, constants as initializers or nodes, NHWC
transposes, operators of ai.onnx.ml beside those of the default domain.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.nn import functional as F

Feeds: TypeAlias = "Mapping[str, np.ndarray]"


@final
@dataclass(frozen=True)
class Written:
    """text: the graph; codes: what is rewritten; truth: of float64 tensors by name, what the output should be.

    near: (old, new) text of one edit after which nothing is rewritten; None where every edit is another case.
    feeds: inputs that break it; widened: not in ONNX Runtime on the CPU, which has no kernel for float16 there and
    computes in float32. allow: what has to be asked for. told: what is found and left.
    """

    text: str
    codes: tuple[str, ...]
    feeds: Feeds
    truth: Callable[..., Tensor]
    near: tuple[str, str] | None
    opset: int = 13
    allow: str = "exact"
    told: tuple[str, ...] = ()
    rtol: float = 2e-6
    atol: float = 0.0
    widened: bool = False

    def model(self, *, near: bool = False) -> onnx.ModelProto:
        text = self.text
        if near:
            assert self.near is not None
            assert self.near[0] in text
            text = text.replace(*self.near)
        text = re.sub(r"float16 (\w+) = \{([^}]*)\}", _bits, text)
        imports = f'"" : {self.opset}, "ai.onnx.ml" : 1'
        return onnx.parser.parse_model(f'<ir_version: 8, opset_import: [{imports}], producer_name: "tf2onnx">\n{text}')


def _bits(match: re.Match[str]) -> str:
    """The text format takes float16 as integers."""
    return f"float16 {match[1]} = {{{int(np.float16(float(match[2])).view(np.uint16))}}}"


def _f(values: object, dtype: type = np.float32) -> np.ndarray:
    return np.asarray(values, dtype)


ROWS = _f([[-200, 0, 1, 2], [100, 101, 99, 98], [88.5, 88.5, 88.5, 88.5], [1, 2, 3, 4]])
IMAGE = np.random.default_rng(0).normal(scale=90, size=(2, 4, 3, 3)).astype(np.float32)
LINE = _f([[-200, -90, -20, -17, -1e-9, 0, 1e-9, 17, 90, 200]])
SMALL = _f([[-1e-3, -1e-6, -1e-10, 0, 1e-10, 1e-6, 1e-3, 1.0]])
LABELS = _f([[0, 1, 0, 1, 0.25, 1, 0, 1, 1, 0]])
WEIGHTS = np.arange(1, 13, dtype=np.float32).reshape(4, 3)
SCORES = np.random.default_rng(1).normal(scale=20, size=(1, 2, 4, 8)).astype(np.float32)
CAUSAL = np.tril(np.ones((4, 4), bool), -1)  # the first row sees nothing


def _sdpa(q: Tensor, mask: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, q, q, mask)


WRITTEN: dict[str, Written] = {
    # --- logarithms and exponentials of scalars, as every exporter lowers them ---------------------------------------
    "log of a sigmoid": Written(
        "g (float[n, m] x) => (float[n, m] y) { p = Sigmoid (x) y = Log (p) }",
        ("STB202",), {"x": LINE}, F.logsigmoid, ("p = Sigmoid (x)", "p = HardSigmoid (x)"),
    ),
    "logaddexp": Written(
        "g (float[n, m] a, float[n, m] b) => (float[n, m] y) { ea = Exp (a) eb = Exp (b) s = Add (ea, eb) y = "
        "Log (s) }",
        ("STB105",), {"a": LINE, "b": LINE[:, ::-1].copy()}, torch.logaddexp, ("y = Log (s)", "y = Relu (s)"),
    ),
    "log1p": Written(
        "g (float[n, m] x) => (float[n, m] y) <float one = {1}> { s = Add (x, one) y = Log (s) }",
        ("STB210",), {"x": np.abs(SMALL)}, torch.log1p, ("one = {1}", "one = {1.5}"),
    ),
    "expm1": Written(
        "g (float[n, m] x) => (float[n, m] y) <float one = {1}> { e = Exp (x) y = Sub (e, one) }",
        ("STB211",), {"x": SMALL}, torch.expm1, ("one = {1}", "one = {-1}"),
    ),
    "erfc": Written(
        "g (float[n, m] x) => (float[n, m] y) <float one = {1}> { e = Erf (x) y = Sub (one, e) }",
        ("STB219",), {"x": _f([[-3, 0, 1, 3, 5, 8, 9]])}, torch.erfc, ("one = {1}", "one = {2}"),
    ),
    "sigmoid of a calibrated classifier": Written(
        "g (float[n, m] x) => (float[n, m] p) <float a = {-1.5}, float b = {0.25}, float one = {1}> "
        "{ t = Mul (x, a) u = Add (t, b) e = Exp (u) d = Add (one, e) p = Div (e, d) }",
        ("STB203",), {"x": LINE}, lambda x: torch.sigmoid(-1.5 * x + 0.25), ("p = Div (e, d)", "p = Mul (e, d)"),
    ),
    # --- softmax ------------------------------------------------------------------------------------------------------
    "softmax, tf2onnx": Written(
        "tf (float[n, 4] x) => (float[n, 4] y) <int64[1] axes = {-1}> "
        "{ e = Exp (x) s = ReduceSum <keepdims = 1> (e, axes) y = Div (e, s) }",
        ("STB101",), {"x": ROWS}, lambda x: x.softmax(-1), ("y = Div (e, s)", "y = Mul (e, s)"),
    ),
    "softmax of channels": Written(
        "tf (float[n, 4, h, w] x) => (float[n, 4, h, w] y) { axes = Constant <value = int64[1] {1}> () "
        "e = Exp (x) s = ReduceSum <keepdims = 1> (e, axes) y = Div (e, s) }",
        ("STB101",), {"x": IMAGE}, lambda x: x.softmax(1), ("Div (e, s)", "Mul (e, s)"), rtol=2.5e-5,
         # of entries 200 below the largest
    ),
    "softmax, wrong shift": Written(
        "tf (float[n, 4] x) => (float[n, 4] y) { m = ReduceMean <axes = [-1], keepdims = 1> (x) d = Sub (x, m) "
        "e = Exp (d) axes = Constant <value = int64[1] {1}> () s = ReduceSum <keepdims = 1> (e, axes) y = Div (e, s) }",
        ("STB101",), {"x": ROWS * 3}, lambda x: x.softmax(-1), ("ReduceMean", "ReduceMax"),
    ),
    "softmax of a flattened tensor": Written(
        "tf (float[n, 8, 4] x) => (float[n, 8, 4] y) <int64[2] flat = {-1, 4}, int64[1] axes = {1}> "
        "{ r = Reshape (x, flat) e = Exp (r) s = ReduceSum <keepdims = 1> (e, axes) d = Div (e, s) "
        "shape = Shape (x) y = Reshape (d, shape) }",
        ("STB101",), {"x": np.tile(ROWS, (2, 2, 1))}, lambda x: x.softmax(-1), ("d = Div (e, s)", "d = Mul (e, s)"),
        rtol=2e-5,
    ),
    "log of a softmax between transposes": Written(
        "tf (float[n, 4, h, w] x) => (float[n, 4, h, w] y) { t = Transpose <perm = [0, 2, 3, 1]> (x) "
        "p = Softmax <axis = -1> (t) q = Transpose <perm = [0, 3, 1, 2]> (p) y = Log (q) }",
        ("STB102",), {"x": IMAGE}, lambda x: x.log_softmax(1), ("y = Log (q)", "y = Relu (q)"), atol=1.2e-7,
    ),
    "log of a softmax over several axes, before opset 13": Written(
        "g (float[n, 2, 2] x) => (float[n, 2, 2] y) { p = Softmax <axis = 1> (x) y = Log (p) }",
        ("STB102",), {"x": ROWS.reshape(4, 2, 2)}, lambda x: x.flatten(1).log_softmax(1).reshape(x.shape),
        ("y = Log (p)", "y = Relu (p)"), opset=11,
    ),
    "log of a pooled softmax, before opset 13": Written(
        "g (float[n, 4, 1, 1] x) => (float[n, 4, 1, 1] y) { p = Softmax <axis = 1> (x) y = Log (p) }",
        ("STB102",), {"x": ROWS[:, :, None, None]}, lambda x: x.log_softmax(1), ("y = Log (p)", "y = Relu (p)"),
        opset=12,
    ),
    "logsumexp": Written(
        "tf (float[n, 4] x) => (float[n] y) <int64[1] axes = {-1}> "
        "{ e = Exp (x) s = ReduceSum <keepdims = 0> (e, axes) y = Log (s) }",
        ("STB103",), {"x": ROWS * 3}, lambda x: x.logsumexp(-1),
        ("e = Exp (x) s = ReduceSum <keepdims = 0> (e, axes) y = Log (s)",
         "m = ReduceMax <axes = [-1], keepdims = 1> (x) d = Sub (x, m) e = Exp (d) "
         "s = ReduceSum <keepdims = 0> (e, axes) l = Log (s) f = Reshape (m, axes) y = Add (l, f)"),
    ),
    "classifier with a label, skl2onnx": Written(
        "skl (float[n, 4] x) => (float[n, 3] y, int64[k] label) <float[4, 3] W = {1, 2, 3, 4, 5, 6, 7, 8, 9, "
        "10, 11, 12}, "
        "int64[3] classes = {7, 8, 9}, int64[1] last = {-1}> { h = MatMul (x, W) e = Exp (h) "
        "s = ReduceSum <keepdims = 1> (e, last) y = Div (e, s) i = ArgMax <axis = 1> (y) "
        "f = ai.onnx.ml.ArrayFeatureExtractor (classes, i) l = Cast <to = 7> (f) label = Reshape (l, last) }",
        ("STB101", "STB107"), {"x": ROWS}, lambda x: (x @ torch.tensor(WEIGHTS, dtype=x.dtype)).softmax(-1),
        ("e = Exp (h) s = ReduceSum <keepdims = 1> (e, last) y = Div (e, s)", "y = Softmax <axis = -1> (h)"), rtol=1e-3,
    ),
    # --- losses -------------------------------------------------------------------------------------------------------
    "sigmoid cross-entropy, tf2onnx": Written(
        "tf (float[n, m] x, float[n, m] t) => (float[n, m] y) <float one = {1}> { r = Relu (x) xt = Mul (x, t) "
        "d = Sub (r, xt) a = Abs (x) na = Neg (a) e = Exp (na) e1 = Add (e, one) l = Log (e1) y = Add (d, l) }",
        ("STB210",), {"x": LINE, "t": LABELS},
        lambda x, t: F.binary_cross_entropy_with_logits(x, t, reduction="none"), ("one = {1}", "one = {3}"),
    ),
    "categorical cross-entropy, Keras": Written(
        "tf (float[n, 4] x, float[n, 4] t) => (float[n] y) <float lo = {1e-7}, float hi = {0.9999999}, int64[1] "
        "ax = {-1}> "
        "{ e = Exp (x) s = ReduceSum <keepdims = 1> (e, ax) d = Div (e, s) c = Clip (d, lo, hi) l = Log (c) "
        "m = Mul (t, l) r = ReduceSum <keepdims = 0> (m, ax) y = Neg (r) }",
        ("STB102",), {"x": ROWS, "t": np.eye(4, dtype=np.float32)},
        lambda x, t: -(t * x.softmax(-1).clamp(float(np.float32(1e-7)), float(np.float32(0.9999999))).log()).sum(-1),
        ("e = Exp (x) s = ReduceSum <keepdims = 1> (e, ax) d = Div (e, s)", "d = Softmax <axis = -1> (x)"),
    ),
    # --- norms --------------------------------------------------------------------------------------------------------
    "layer norm by moments, tf2onnx": Written(
        "tf (float[n, 8] x) => (float[n, 8] y) <float eps = {0.001}> { mu = ReduceMean <axes = [-1], keepdims = 1> (x) "
        "q = Mul (x, x) ms = ReduceMean <axes = [-1], keepdims = 1> (q) m2 = Mul (mu, mu) v = Sub (ms, m2) "
        "ve = Add (v, eps) r = Sqrt (ve) i = Reciprocal (r) d = Sub (x, mu) y = Mul (d, i) }",
        ("STB403",), {"x": _f([[1e4 + k / 8 for k in range(8)], list(range(8))])},
        lambda x: F.layer_norm(x, (8,), eps=float(np.float32(0.001))), ("v = Sub (ms, m2)", "v = Add (ms, m2)"),
        rtol=1e-4,
    ),
    "RMS norm by Pow in float16": Written(
        "g (float16[n, 4] x) => (float16[n, 4] y) <float16 two = {2}, float16 eps = {0.00001}> { q = Pow (x, two) "
        "ms = ReduceMean <axes = [-1], keepdims = 1> (q) ve = Add (ms, eps) r = Sqrt (ve) y = Div (x, r) }",
        ("STB403",), {"x": _f([[300, 400, -500, 600], [1, 2, 3, 4]], np.float16)},
        lambda x: x / (x.pow(2).mean(-1, keepdim=True) + float(np.float16(1e-5))).sqrt(), None, rtol=2e-3, widened=True,
    ),
    "layer norm by Pow in float16": Written(
        "g (float16[n, 4] x) => (float16[n, 4] y) <float16 two = {2}, float16 eps = {0.00001}> "
        "{ mu = ReduceMean <axes = [-1], keepdims = 1> (x) d = Sub (x, mu) q = Pow (d, two) "
        "ms = ReduceMean <axes = [-1], keepdims = 1> (q) ve = Add (ms, eps) r = Sqrt (ve) y = Div (d, r) }",
        ("STB403",), {"x": _f([[3000, 4000, -5000, 6000], [1, 2, 3, 4]], np.float16)},
        lambda x: F.layer_norm(x, (4,), eps=float(np.float16(1e-5))), None, rtol=2e-3, widened=True,
    ),
    # --- masks --------------------------------------------------------------------------------------------------------
    "a mask of -1e9 in float16": Written(
        "g (float16[n, 4] x, float16[n, 4] m) => (float16[n, 4] y) <float big = {-1000000000}, float16 one = {1}> "
        "{ b = Cast <to = 10> (big) i = Sub (one, m) q = Mul (i, b) s = Add (x, q) y = Softmax <axis = -1> (s) }",
        ("STB602",), {"x": _f([[1, 2, 3, 4], [4, 3, 2, 1]], np.float16), "m": _f([[1, 1, 0, 0], [1, 1, 1, 1]],
        np.float16)},
        lambda x, m: (x + (1 - m) * -1e9).softmax(-1), ("big = {-1000000000}", "big = {-10000}"), rtol=2e-3, atol=1e-7,
    ),
    "attention, rows masked throughout by infinities": Written(
        "g (float[b, h, 4, 8] q, float[4, 4] m) => (float[b, h, 4, 8] y) <float sc = {0.35355339}> "
        "{ kt = Transpose <perm = [0, 1, 3, 2]> (q) a = MatMul (q, kt) c = Mul (a, sc) d = Add (c, m) "
        "p = Softmax <axis = -1> (d) y = MatMul (p, q) }",
        ("STB604",), {"q": SCORES, "m": np.where(CAUSAL, 0, -np.inf).astype(np.float32)}, _sdpa,
        ("d = Add (c, m)", "n = Tanh (m) d = Add (c, n)"), allow="approximate", rtol=1e-4, atol=1e-5,
    ),
    "attention, rows masked throughout by the lowest number": Written(
        "g (float[b, h, 4, 8] q, bool[4, 4] m) => (float[b, h, 4, 8] y) "
        "<float sc = {0.35355339}, float zero = {0}, float low = {-3.4028234663852886e38}> "
        "{ kt = Transpose <perm = [0, 1, 3, 2]> (q) a = MatMul (q, kt) c = Mul (a, sc) w = Where (m, zero, low) "
        "d = Add (c, w) p = Softmax <axis = -1> (d) i = IsNaN (p) g = Where (i, zero, p) y = MatMul (g, q) }",
        ("STB604",), {"q": SCORES, "m": CAUSAL}, _sdpa,
        ("low = {-3.4028234663852886e38}", "low = {-10000}"), allow="approximate", rtol=1e-4, atol=1e-5,
    ),
}  # fmt: skip

#: Text → what is told of it and left as it is, since no rewrite may decide it.
TOLD: dict[str, tuple[Written, str]] = {
    "an infinite mask that multiplies": (
        Written(
            "g (float16[n, 4] x, float16[n, 4] m) => (float16[n, 4] y) <float16 b = {-inf}, float16 one = {1}> "
            "{ i = Sub (one, m) q = Mul (i, b) s = Add (x, q) y = Softmax <axis = -1> (s) }",
            (), {}, torch.clone, ("b = {-inf}", "b = {-10000}"),
        ),
        "STB602",
    ),
    "a constant beyond float16": (
        Written(
            "g (float16[n, 4] x) => (float16[n, 4] y) <float big = {100000}> "
            "{ b = Cast <to = 10> (big) y = Mul (x, b) }",
            (), {}, torch.clone, ("big = {100000}", "big = {60000}"),
        ),
        "STB502",
    ),
    "a guard that is gone": (
        Written(
            "g (float[n, 4] x) => (float[n, 4] y) { r = ReduceL2 <axes = [-1], keepdims = 1> (x) y = Div (x, r) }",
            (), {}, torch.clone,
            ("y = Div (x, r)", "eps = Constant <value = float {1e-8}> () s = Add (r, eps) y = Div (x, s)"),
        ),
        "STB433",
    ),
}  # fmt: skip

#: Healthy, as converters write them: nothing is found, nothing changes.
HEALTHY: dict[str, str] = {
    "softmax between transposes": "tf (float[n, 4, h, w] x) => (float[n, 4, h, w] y) "
    "{ t = Transpose <perm = [0, 2, 3, 1]> (x) p = Softmax <axis = -1> (t) y = Transpose <perm = [0, 3, 1, 2]> (p) }",
    "stable logsumexp": "tf (float[n, 4] x) => (float[n] y) <int64[1] ax = {-1}> "
    "{ m = ReduceMax <axes = [-1], keepdims = 1> (x) d = Sub (x, m) e = Exp (d) s = ReduceSum <keepdims = 0> (e, ax) "
    "l = Log (s) f = Reshape (m, ax) y = Add (l, f) }",
    "l2_normalize": "tf (float[n, 4] x) => (float[n, 4] y) <float eps = {1e-12}, int64[1] ax = {-1}> "
    "{ q = Mul (x, x) s = ReduceSum <keepdims = 1> (q, ax) m = Max (s, eps) r = Sqrt (m) i = Reciprocal (r) y = "
    "Mul (x, i) }",
    "LogisticRegression": "skl (float[n, 4] x) => (int64[n] label, float[n, 3] y) { label, s = "
    "ai.onnx.ml.LinearClassifier "
    '<classlabels_ints = [0, 1, 2], coefficients = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0], '
    'intercepts = [0.0, 0.0, 0.0], post_transform = "SOFTMAX"> (x) p = ai.onnx.ml.Normalizer <norm = "L1"> (s) '
    "y = Cast <to = 1> (p) }",
    "MLPClassifier": "skl (float[n, 4] x) => (int64[k] label, float[n, 3] y) "
    "<float[4, 3] W = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, int64[3] classes = {0, 1, 2}, int64[1] last = {-1}> "
    "{ c = Cast <to = 1> (x) h = MatMul (c, W) y = Softmax <axis = -1> (h) i = ArgMax <axis = 1> (y) "
    "f = ai.onnx.ml.ArrayFeatureExtractor (classes, i) l = Cast <to = 7> (f) label = Reshape (l, last) }",
    "GaussianNB": "skl (float[n, 3] x) => (float[n, 3] y) "
    "{ l = ReduceLogSumExp <axes = [1], keepdims = 1> (x) d = Sub (x, l) y = Exp (d) }",
    "masked attention": "g (float[b, h, 4, 8] q, float[4, 4] m) => (float[b, h, 4, 8] y) <float sc = {0.35355339}> "
    "{ kt = Transpose <perm = [0, 1, 3, 2]> (q) a = MatMul (q, kt) c = Mul (a, sc) d = Add (c, m) "
    "p = Softmax <axis = -1> (d) y = MatMul (p, q) }",
}  # fmt: skip

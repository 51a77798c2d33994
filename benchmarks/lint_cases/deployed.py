"""ONNX as converters to float16 and quantizers leave it: scores, masks and constants of float16, 8-bit softmax."""

from __future__ import annotations

import numpy as np

from lint_cases.written import Texts, also, filled, normal, times, with_

write = Texts()

_SCORES = "float16 QKᵀ"
_CONSTANTS = "constants beyond float16"
_MASKS = "finfo.min + bias masks"
_BYTES = "softmax in 8 bits"
_NORMS = "norms in float16"
_QK = {"q": (-60.0, 60.0), "k": (-60.0, 60.0)}
_KEPT = np.array([[1.0, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]])


def _scores(width: int = 64):
    return normal(q=(2, 6, width), k=(2, 6, width))


write("scores-by-matmul", _SCORES, "STB5", "STB6", overflows=True, at=("s", "d", "y"), ranges=_QK,
      example=_scores(), breaking=filled(60.0), halves={"root": 8}, text="""
attention (float16[2, 6, 64] q, float16[2, 6, 64] k) => (float16[2, 6, 6] y) {
  t = Transpose<perm=[0, 2, 1]>(k)
  s = MatMul(q, t)
  d = Div(s, root)
  y = Softmax<axis=-1>(d)
}""")  # fmt: skip

write("scores-by-einsum", _SCORES, "STB5", "STB6", overflows=True, at=("s", "d", "y"), ranges=_QK,
      example=_scores(), breaking=filled(60.0), halves={"scale": 0.125}, text="""
attention (float16[2, 6, 64] q, float16[2, 6, 64] k) => (float16[2, 6, 6] y) {
  s = Einsum<equation="bid,bjd->bij">(q, k)
  d = Mul(s, scale)
  y = Softmax<axis=-1>(d)
}""")  # fmt: skip

write("scores-by-gemm", _SCORES, "STB5", "STB6", overflows=True, at=("s", "d", "y"), ranges=_QK,
      example=normal(q=(6, 64), k=(6, 64)), breaking=filled(60.0), halves={"scale": 0.125}, text="""
attention (float16[6, 64] q, float16[6, 64] k) => (float16[6, 6] y) {
  s = Gemm<transB=1>(q, k)
  d = Mul(s, scale)
  y = Softmax<axis=-1>(d)
}""")  # fmt: skip

write("rms-norm", _NORMS, "STB242", "STB4", "STB5", overflows=True, at=("p", "m", "a", "r", "y"),
      ranges={"x": (-2e3, 2e3)},
      example=normal(x=(4, 8)), breaking=times(400.0), halves={"two": 2, "eps": 1e-05}, text="""
norm (float16[4, 8] x) => (float16[4, 8] y) {
  p = Pow(x, two)
  m = ReduceMean<axes=[-1], keepdims=1>(p)
  a = Add(m, eps)
  r = Sqrt(a)
  y = Div(x, r)
}""")  # fmt: skip

write("layer-norm", _NORMS, "STB242", "STB4", "STB5", overflows=True, at=("p", "v", "a", "r", "y"),
      ranges={"x": (-2e3, 2e3)},
      example=normal(x=(4, 8)), breaking=times(600.0), halves={"two": 2, "eps": 1e-05}, text="""
norm (float16[4, 8] x) => (float16[4, 8] y) {
  m = ReduceMean<axes=[-1], keepdims=1>(x)
  c = Sub(x, m)
  p = Pow(c, two)
  v = ReduceMean<axes=[-1], keepdims=1>(p)
  a = Add(v, eps)
  r = Sqrt(a)
  y = Div(c, r)
}""")  # fmt: skip

write("average-by-sum", "sums in float16", "STB242", "STB4", "STB5", overflows=True, at=("s", "y"),
      ranges={"x": (-100.0, 100.0)},
      example=normal(x=(1, 2, 32, 32)), breaking=filled(100.0), halves={"area": 1024}, text="""
pooling (float16[1, 2, 32, 32] x) => (float16[1, 2] y) <int64[2] axes = {2, 3}> {
  r = Relu(x)
  s = ReduceSum<keepdims=0>(r, axes)
  y = Div(s, area)
}""")  # fmt: skip

write("minus-trillion-constant", _CONSTANTS, "STB242", "STB5", "STB6", overflows=True, at=("low", "half",
      "masked", "y"),
      ranges={"x": (-50.0, 50.0)}, example=also(normal(x=(2, 6)), absent=_KEPT == 0),
      breaking=filled(True, "absent"), text="""
mask (float16[2, 6] x, bool[2, 6] absent) => (float16[2, 6] y) {
  low = Constant<value = float {-1e12}>()
  half = Cast<to=10>(low)
  masked = Where(absent, half, x)
  y = Softmax<axis=-1>(masked)
}""")  # fmt: skip

write("largest-float-initializer", _CONSTANTS, "STB242", "STB5", "STB6", overflows=True, at=("half", "masked", "y"),
      ranges={"x": (-50.0, 50.0)}, example=also(normal(x=(2, 6)), kept=_KEPT == 1), breaking=filled(False,
      "kept"), text="""
mask (float16[2, 6] x, bool[2, 6] kept) => (float16[2, 6] y) <float low = {-3.4028234e38}> {
  half = Cast<to=10>(low)
  masked = Where(kept, x, half)
  y = Softmax<axis=-1>(masked)
}""")  # fmt: skip

write("minus-billion-bias", _CONSTANTS, "STB242", "STB5", "STB6", overflows=True, at=("bias", "half", "masked", "y"),
      ranges={"x": (-50.0, 50.0), "mask": (0.0, 1.0)}, example=also(normal(x=(2, 6)), mask=_KEPT),
      breaking=filled(0.0, "mask"), text="""
mask (float16[2, 6] x, float[2, 6] mask) => (float16[2, 6] y) <float low = {-1e9}, float one = {1}> {
  absent = Sub(one, mask)
  bias = Mul(absent, low)
  half = Cast<to=10>(bias)
  masked = Add(x, half)
  y = Softmax<axis=-1>(masked)
}""")  # fmt: skip

write("two-minimum-masks", _MASKS, "STB242", "STB5", "STB6", overflows=True, at=("both", "masked", "y"),
      ranges={"x": (-50.0, 50.0)}, example=also(normal(x=(6, 6)), absent=np.zeros((6, 6)),
      future=np.triu(np.ones((6, 6)), 1)), breaking=filled(True, "absent", "future"), text="""
mask (float[6, 6] x, bool[6, 6] absent, bool[6, 6] future) => (float[6, 6] y)
<float low = {-3.4028234e38}, float zero = {0}> {
  a = Where(absent, low, zero)
  f = Where(future, low, zero)
  both = Add(a, f)
  masked = Add(x, both)
  y = Softmax<axis=-1>(masked)
}""")  # fmt: skip

write("minimum-mask-plus-bias", _MASKS, "STB242", "STB5", "STB6", overflows=True, at=("s", "masked", "y"),
      ranges={"x": (-50.0, 50.0), "bias": (-50.0, 50.0)}, example=also(normal(x=(6, 6), bias=(6, 6)),
      absent=np.triu(np.ones((6, 6)), 1)), breaking=lambda i: {"x": i["x"] * 0 - 40, "bias": i["bias"] * 0 - 40,
      "absent": i["absent"] == i["absent"]}, halves={"low": -65504, "zero": 0}, text="""
mask (float16[6, 6] x, float16[6, 6] bias, bool[6, 6] absent) => (float16[6, 6] y) {
  a = Where(absent, low, zero)
  s = Add(x, bias)
  masked = Add(s, a)
  y = Softmax<axis=-1>(masked)
}""")  # fmt: skip

write("renormalised-mask", "masks after the softmax", "STB242", "STB4", "STB6", "STB1", "STB205", at=("w", "s", "y"),
      ranges={"mask": (0.0, 1.0)}, example=also(normal(x=(2, 6)), mask=_KEPT), breaking=filled(0.0, "mask"), text="""
mask (float[2, 6] x, float[2, 6] mask) => (float[2, 6] y) <int64[1] axis = {1}> {
  p = Softmax<axis=-1>(x)
  w = Mul(p, mask)
  s = ReduceSum<keepdims=1>(w, axis)
  y = Div(w, s)
}""")  # fmt: skip


def _attention_of_bytes(scale: str, zero: str, type_: str, columns: int) -> str:
    return f"""
attention (float[2, {columns}] x, float[{columns}, 4] v) => (float[2, 4] y)
<float scale = {{{scale}}}, {type_} zero = {{{zero}}}> {{
  p = Softmax<axis=-1>(x)
  q = QuantizeLinear(p, scale, zero)
  d = DequantizeLinear(q, scale, zero)
  y = MatMul(d, v)
}}"""


def _in_floats(x: np.ndarray, v: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return (e / e.sum(-1, keepdims=True)) @ v


def _peaked(columns: int):
    x = np.zeros((2, columns))
    x[:, 0] = 20.0
    return lambda: {"x": x, "v": np.ones((columns, 4))}


_FLAT = filled(0.0, "x")

write("softmax-in-int8", _BYTES, "STB7", at=("q", "d", "p", "y"), ranges={"x": (-50.0, 50.0)}, truth=_in_floats,
      example=_peaked(512), breaking=_FLAT, text=_attention_of_bytes("0.007874016", "0", "int8", 512))  # fmt: skip

write("softmax-in-int8-of-128", _BYTES, "STB7", at=("q", "d", "p", "y"), ranges={"x": (-50.0, 50.0)}, truth=_in_floats,
      example=_peaked(512), breaking=_FLAT, text=_attention_of_bytes("0.0078125", "0", "int8", 512))  # fmt: skip

write("softmax-in-short-int8", _BYTES, "STB7", at=("q", "d", "p", "y"), ranges={"x": (-50.0, 50.0)}, truth=_in_floats,
      example=_peaked(96), breaking=with_(x=np.concatenate([np.full((2, 1), 0.5), np.zeros((2, 95))], 1)),
      text=_attention_of_bytes("0.0189", "0", "int8", 96))  # fmt: skip

write("softmax-in-uint8", _BYTES, "STB7", at=("q", "d", "p", "y"), ranges={"x": (-50.0, 50.0)}, truth=_in_floats,
      example=_peaked(1024), breaking=_FLAT, text=_attention_of_bytes("0.003921569", "0", "uint8", 1024))  # fmt: skip

write("softmax-in-uint8-of-256", _BYTES, "STB7", at=("q", "d", "p", "y"), ranges={"x": (-50.0, 50.0)}, truth=_in_floats,
      example=_peaked(1024), breaking=_FLAT, text=_attention_of_bytes("0.00390625", "0", "uint8", 1024))  # fmt: skip

write("softmax-for-integer-product", _BYTES, "STB7", at=("q", "p", "i", "f", "y"), ranges={"x": (-50.0, 50.0)},
      truth=lambda x, v: _in_floats(x, v.astype(np.float64)),
      example=lambda: {"x": _peaked(512)()["x"], "v": np.ones((512, 4))}, breaking=_FLAT, text="""
attention (float[2, 512] x, int8[512, 4] v) => (float[2, 4] y) <float scale = {0.007874016}, int8 zero = {0}> {
  p = Softmax<axis=-1>(x)
  q = QuantizeLinear(p, scale, zero)
  i = MatMulInteger(q, v)
  f = Cast<to=1>(i)
  y = Mul(f, scale)
}""")  # fmt: skip

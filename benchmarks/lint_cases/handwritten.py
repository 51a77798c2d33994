"""ONNX as older exporters left it: elementary operators, old opsets, sums over any axis, bodies, functions."""

from __future__ import annotations

import numpy as np

from lint_cases.written import Texts, also, filled, normal, plus, times, with_

write = Texts()

_SOFTMAX = "exported Exp/ReduceSum/Div"
_LOSS = "log of softmax"
_INSIDE = "graphs inside graphs"

write("softmax-opset-11", _SOFTMAX, "STB1", overflows=True, at=("e", "s", "y"), opset=11,
      example=normal(x=(2, 3, 5)), breaking=times(1e3), text="""
channels (float[n, 3, 5] x) => (float[n, 3, 5] y) {
  e = Exp(x)
  s = ReduceSum<axes=[1], keepdims=1>(e)
  y = Div(e, s)
}""")  # fmt: skip

write("softmax-opset-13", _SOFTMAX, "STB1", overflows=True, at=("e", "s", "y"),
      example=normal(x=(2, 3, 5)), breaking=times(1e3), text="""
channels (float[n, 3, 5] x) => (float[n, 3, 5] y) <int64[1] axis = {1}> {
  e = Exp(x)
  s = ReduceSum<keepdims=1>(e, axis)
  y = Div(e, s)
}""")  # fmt: skip

write("softmax-without-keepdims", _SOFTMAX, "STB1", overflows=True, at=("e", "s", "u", "y"), opset=11,
      example=normal(x=(2, 3, 5)), breaking=times(1e3), text="""
channels (float[n, 3, 5] x) => (float[n, 3, 5] y) {
  e = Exp(x)
  s = ReduceSum<axes=[1], keepdims=0>(e)
  u = Unsqueeze<axes=[1]>(s)
  y = Div(e, u)
}""")  # fmt: skip

write("softmax-of-transposed", _SOFTMAX, "STB1", overflows=True, at=("e", "s", "u", "p", "y"),
      example=normal(x=(2, 3, 5)), breaking=times(1e3), text="""
channels (float[n, 3, 5] x) => (float[n, 3, 5] y) <int64[1] axis = {2}> {
  t = Transpose<perm=[0, 2, 1]>(x)
  e = Exp(t)
  s = ReduceSum<keepdims=0>(e, axis)
  u = Unsqueeze(s, axis)
  p = Div(e, u)
  y = Transpose<perm=[0, 2, 1]>(p)
}""")  # fmt: skip

write("softmax-over-two-axes", _SOFTMAX, "STB1", "STB205", overflows=True, at=("e", "s", "y"),
      example=normal(x=(2, 3, 4, 4)), breaking=times(1e3), text="""
keypoints (float[n, 3, 4, 4] x) => (float[n, 3, 4, 4] y) <int64[2] axes = {2, 3}> {
  e = Exp(x)
  s = ReduceSum<keepdims=1>(e, axes)
  y = Div(e, s)
}""")  # fmt: skip

write("softmax-by-reciprocal", _SOFTMAX, "STB1", overflows=True, at=("e", "s", "r", "y"),
      example=normal(x=(2, 8)), breaking=times(1e3), text="""
head (float[n, 8] x) => (float[n, 4] y)
<float[8, 4] w = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1, 1,1,0,0, 0,1,1,0, 0,0,1,1, 1,0,0,1}, int64[1] axis = {-1}> {
  z = MatMul(x, w)
  e = Exp(z)
  s = ReduceSum<keepdims=1>(e, axis)
  r = Reciprocal(s)
  y = Mul(e, r)
}""")  # fmt: skip

write("softmax-by-product-with-ones", _SOFTMAX, "STB1", "STB2", overflows=True, at=("e", "s", "y"),
      example=normal(x=(2, 3)), breaking=times(1e3), text="""
head (float[n, 3] x) => (float[n, 3] y) <float[3, 1] ones = {1, 1, 1}> {
  e = Exp(x)
  s = MatMul(e, ones)
  y = Div(e, s)
}""")  # fmt: skip

write("softmax-of-wrong-shift", _SOFTMAX, "STB1", at=("m", "d", "e", "s", "y"),
      example=normal(x=(2, 3)), breaking=with_(x=np.array([[500.0, 0, 0], [0, 1, 2]])), text="""
head (float[2, 3] x) => (float[2, 3] y) <int64[1] axis = {1}> {
  m = ReduceMax<keepdims=0>(x)
  d = Sub(x, m)
  e = Exp(d)
  s = ReduceSum<keepdims=1>(e, axis)
  y = Div(e, s)
}""")  # fmt: skip

write("softmax-in-float16", _SOFTMAX, "STB1", overflows=True, at=("e", "s", "y"), ranges={"x": (-30.0, 30.0)},
      example=normal(x=(2, 3, 5)), breaking=filled(20.0), text="""
channels (float16[n, 3, 5] x) => (float16[n, 3, 5] y) <int64[1] axis = {1}> {
  e = Exp(x)
  s = ReduceSum<keepdims=1>(e, axis)
  y = Div(e, s)
}""")  # fmt: skip

write("logsumexp-by-reduce-log-sum", _SOFTMAX, "STB1", overflows=True, at=("e", "y"), opset=11,
      example=normal(x=(2, 5)), breaking=times(1e3), text="""
energy (float[n, 5] x) => (float[n] y) {
  e = Exp(x)
  y = ReduceLogSum<axes=[1], keepdims=0>(e)
}""")  # fmt: skip

write("log-of-softmax", _LOSS, "STB1", "STB3", at=("l", "w", "s", "y"),
      example=also(normal(x=(4, 5)), target=np.eye(4, 5)), breaking=times(1e3, "x"), text="""
loss (float[4, 5] x, float[4, 5] target) => (float[4] y) <int64[1] axis = {1}> {
  p = Softmax<axis=1>(x)
  l = Log(p)
  w = Mul(target, l)
  s = ReduceSum<keepdims=0>(w, axis)
  y = Neg(s)
}""")  # fmt: skip

write("log-of-picked-softmax", _LOSS, "STB1", "STB3", at=("g", "l", "n", "y"),
      example=also(normal(x=(4, 5)), label=np.zeros((4, 1))), breaking=times(1e3, "x"), text="""
loss (float[4, 5] x, int64[4, 1] label) => (float y) {
  p = Softmax<axis=1>(x)
  g = GatherElements<axis=1>(p, label)
  l = Log(g)
  n = Neg(l)
  y = ReduceMean<keepdims=0>(n)
}""")  # fmt: skip

write("cross-entropy-of-exps", _SOFTMAX, "STB1", "STB3", overflows=True, at=("e", "s", "p", "l", "w", "y"),
      example=also(normal(x=(4, 5)), target=np.eye(4, 5)), breaking=times(1e3, "x"), text="""
loss (float[4, 5] x, float[4, 5] target) => (float y) <int64[1] axis = {1}> {
  e = Exp(x)
  s = ReduceSum<keepdims=1>(e, axis)
  p = Div(e, s)
  l = Log(p)
  w = Mul(target, l)
  y = ReduceSum<keepdims=0>(w)
}""")  # fmt: skip

write("sigmoid-cross-entropy", "y·log σ + (1−y)·log(1−σ)", "STB2", "STB302", at=("lp", "q", "lq", "a", "b", "y"),
      example=also(normal(x=(4, 1)), t=np.array([[0.0], [1], [0], [1]])), breaking=times(1e3, "x"), text="""
loss (float[4, 1] x, float[4, 1] t) => (float[4, 1] y) <float one = {1}> {
  p = Sigmoid(x)
  lp = Log(p)
  q = Sub(one, p)
  lq = Log(q)
  u = Sub(one, t)
  a = Mul(t, lp)
  b = Mul(u, lq)
  y = Add(a, b)
}""")  # fmt: skip

write("guard-that-float16-drops", "y·log σ + (1−y)·log(1−σ)", "STB2", "STB3", "STB5", "STB105", at=("g", "l", "y"),
      example=also(normal(x=(4, 1)), t=np.array([[0.0], [1], [0], [1]])), breaking=filled(-60.0, "x"),
      halves={"eps": 1e-08}, text="""
loss (float16[4, 1] x, float16[4, 1] t) => (float16[4, 1] y) {
  p = Sigmoid(x)
  g = Add(p, eps)
  l = Log(g)
  y = Mul(t, l)
}""")  # fmt: skip

write("softplus", "log(1 + exp)", "STB201", overflows=True, at=("e", "a", "y"), opset=11,
      example=normal(x=(4, 5)), breaking=times(1e3), text="""
scale (float[4, 5] x) => (float[4, 5] y) <float one = {1}> {
  e = Exp(x)
  a = Add(e, one)
  y = Log(a)
}""")  # fmt: skip

write("mish", "log(1 + exp)", "STB2", at=("e", "a", "s", "t", "y"), opset=11,
      example=normal(x=(4, 5)), breaking=filled(-20.0), text="""
activation (float[4, 5] x) => (float[4, 5] y) <float one = {1}> {
  e = Exp(x)
  a = Add(e, one)
  s = Log(a)
  t = Tanh(s)
  y = Mul(x, t)
}""")  # fmt: skip

write("sigmoid-of-positives", "exp/(1 + exp)", "STB203", overflows=True, at=("e", "a", "y"), opset=11,
      example=normal(x=(4, 5)), breaking=times(1e3), text="""
gate (float[4, 5] x) => (float[4, 5] y) <float one = {1}> {
  e = Exp(x)
  a = Add(one, e)
  y = Div(e, a)
}""")  # fmt: skip

write("tanh-by-exps", "exp/(1 + exp)", "STB204", overflows=True, at=("e", "f", "d", "s", "y"), opset=11,
      example=normal(x=(4, 5)), breaking=times(1e3), text="""
gate (float[4, 5] x) => (float[4, 5] y) {
  n = Neg(x)
  e = Exp(x)
  f = Exp(n)
  d = Sub(e, f)
  s = Add(e, f)
  y = Div(d, s)
}""")  # fmt: skip

write("vae-sample", "VAE: exp, sqrt(exp), log(1 − σ)", "STB2", overflows=True, at=("e", "d", "y"),
      example=normal(x=(4, 8), noise=(4, 2)), breaking=times(1e3, "x"), text="""
sample (float[4, 8] x, float[4, 2] noise) => (float[4, 2] y)
<float[8, 2] w = {1,0, 0,1, 1,1, 0,1, 1,0, 0,1, 1,1, 1,0}> {
  v = MatMul(x, w)
  e = Exp(v)
  d = Sqrt(e)
  y = Mul(noise, d)
}""")  # fmt: skip

write("running-sum-of-exps", _SOFTMAX, "STB1", overflows=True, at=("e", "c", "y"),
      example=normal(x=(2, 5)), breaking=times(1e3), text="""
scan (float[2, 5] x) => (float[2, 5] y) <int64 axis = {1}> {
  e = Exp(x)
  c = CumSum(e, axis)
  y = Log(c)
}""")  # fmt: skip

write("variance-by-two-moments", "E[x²] − E[x]²", "STB242", "STB4", at=("q", "mq", "mm", "v", "d", "y"), opset=11,
      example=normal(x=(4, 8)), breaking=plus(1e4), text="""
norm (float[4, 8] x) => (float[4, 8] y) {
  m = ReduceMean<axes=[1], keepdims=1>(x)
  q = Mul(x, x)
  mq = ReduceMean<axes=[1], keepdims=1>(q)
  mm = Mul(m, m)
  v = Sub(mq, mm)
  d = Sqrt(v)
  c = Sub(x, m)
  y = Div(c, d)
}""")  # fmt: skip

write("unit-vectors-by-sum-square", "√Σx² overflows", "STB242", "STB4", "STB502", overflows=True,
      at=("q", "r", "y"), opset=11, ranges={"x": (-1e30, 1e30)},
      example=normal(x=(4, 8)), breaking=times(1e25), text="""
norm (float[4, 8] x) => (float[4, 8] y) {
  q = ReduceSumSquare<axes=[1], keepdims=1>(x)
  r = Sqrt(q)
  y = Div(x, r)
}""")  # fmt: skip

write("standardised-features", "division by data", "STB242", "STB4", at=("v", "d", "y"), opset=11,
      example=normal(x=(4, 8)), breaking=filled(1.0), text="""
norm (float[4, 8] x) => (float[4, 8] y) {
  m = ReduceMean<axes=[0], keepdims=1>(x)
  c = Sub(x, m)
  q = Mul(c, c)
  v = ReduceMean<axes=[0], keepdims=1>(q)
  d = Sqrt(v)
  y = Div(c, d)
}""")  # fmt: skip

write("true-positives", "division by data", "STB242", "STB4", at=("r", "y"), ranges={"hit": (0.0, 1.0),
      "miss": (0.0, 1.0)},
      example=lambda: {"hit": np.ones(6), "miss": np.zeros(6)}, breaking=filled(0.0), text="""
precision (float[6] hit, float[6] miss) => (float y) {
  tp = ReduceSum<keepdims=0>(hit)
  fp = ReduceSum<keepdims=0>(miss)
  r = Add(tp, fp)
  y = Div(tp, r)
}""")  # fmt: skip

write("masked-mean", "division by data", "STB242", "STB4", at=("n", "y"), ranges={"mask": (0.0, 1.0)},
      example=also(normal(x=(2, 5, 4)), mask=np.ones((2, 5, 1))), breaking=filled(0.0, "mask"), text="""
pooling (float[2, 5, 4] x, float[2, 5, 1] mask) => (float[2, 4] y) <int64[1] axis = {1}> {
  m = Mul(x, mask)
  s = ReduceSum<keepdims=0>(m, axis)
  n = ReduceSum<keepdims=0>(mask, axis)
  y = Div(s, n)
}""")  # fmt: skip

write("log-of-relu", "log of ReLU", "STB2", "STB4", at=("y",), opset=11,
      example=lambda: {"x": np.ones((4, 3))}, breaking=filled(-1.0), text="""
head (float[4, 3] x) => (float[4, 3] y) {
  r = Relu(x)
  y = Log(r)
}""")  # fmt: skip

write("rounded-cosine", "arccos of a rounded cosine", "STB242", "STB4", at=("c", "y"), opset=13,
      example=normal(a=(64, 8), b=(64, 8)), breaking=lambda i: {"a": i["a"], "b": i["a"]}, text="""
angle (float[64, 8] a, float[64, 8] b) => (float[64] y) <int64[1] axis = {1}, float eps = {1e-6}> {
  na = ReduceL2<axes=[1], keepdims=1>(a)
  nb = ReduceL2<axes=[1], keepdims=1>(b)
  la = Max(na, eps)
  lb = Max(nb, eps)
  ua = Div(a, la)
  ub = Div(b, lb)
  p = Mul(ua, ub)
  c = ReduceSum<keepdims=0>(p, axis)
  y = Acos(c)
}""")  # fmt: skip

write("inverse-root-of-degrees", "roots at 0", "STB242", "STB4", at=("y",), ranges={"edges": (0.0, 1.0)},
      example=lambda: {"edges": np.ones((4, 4))}, breaking=filled(0.0), text="""
degrees (float[4, 4] edges) => (float[4] y) <int64[1] axis = {1}, float half = {-0.5}> {
  d = ReduceSum<keepdims=0>(edges, axis)
  y = Pow(d, half)
}""")  # fmt: skip

write("softmax-in-a-branch", _INSIDE, "STB1", overflows=True, at=("e", "s", "p", "y"),
      example=also(normal(x=(2, 5)), flag=np.array(True)), breaking=times(1e3, "x"), text="""
chosen (float[2, 5] x, bool flag) => (float[2, 5] y) <int64[1] axis = {1}> {
  y = If(flag) <
    then_branch = soft () => (float[2, 5] p) {
      e = Exp(x)
      s = ReduceSum<keepdims=1>(e, axis)
      p = Div(e, s)
    },
    else_branch = plain () => (float[2, 5] q) {
      q = Identity(x)
    }
  >
}""")  # fmt: skip

write("softmax-in-a-loop", _INSIDE, "STB1", overflows=True, at=("e", "s", "next", "y"),
      example=also(normal(x=(2, 5)), count=np.array(1)), breaking=times(1e3, "x"), text="""
repeated (float[2, 5] x, int64 count) => (float[2, 5] y) <int64[1] axis = {1}, bool go = {1}> {
  y = Loop(count, go, x) <
    body = step (int64 i, bool on, float[2, 5] state) => (bool still, float[2, 5] next) {
      still = Identity(on)
      e = Exp(state)
      s = ReduceSum<keepdims=1>(e, axis)
      next = Div(e, s)
    }
  >
}""")  # fmt: skip

write("softmax-in-a-function", _INSIDE, "STB1", overflows=True, at=("e", "s", "p", "y"), opset=18,
      example=normal(x=(2, 5)), breaking=times(1e3), text="""
called (float[2, 5] x) => (float[2, 5] y) {
  y = local.Shares(x)
}""", functions="""
<domain: "local", opset_import: ["" : 18]>
Shares (x) => (p) {
  axis = Constant<value_ints: ints = [-1]>()
  e = Exp(x)
  s = ReduceSum<keepdims: int = 1>(e, axis)
  p = Div(e, s)
}""")  # fmt: skip

"""What stays float32, and the near misses: what is one edit away and need not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import stabilize
from stabilize.errors import UsageError
from tests.conversion.support import HALF, WIDE, converted, formats, kept, rng
from tests.frontends.onnx_support import model, op_types

#: A product before and behind what is tested, so that narrowing pays.
WRAPPED = """g (float[4, 8] x) => (float[4, 8] y) <float[8, 8] w, float[8, 8] v> {{
  a = MatMul (x, w)
  {body}
  y = MatMul (b, v)
}}"""


def wrapped(body: str, opset: int = 18) -> onnx.ModelProto:
    proto = model(WRAPPED.format(body=body), opset)
    for seed, name in enumerate("wv"):
        array = rng(seed).normal(size=(8, 8)).astype(np.float32) / 3
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return proto


@pytest.mark.parametrize(
    ("body", "op_type", "why"),
    [
        ("b = Softmax <axis = 1> (a)", "Softmax", "accumulates"),
        ("b = LogSoftmax <axis = 1> (a)", "LogSoftmax", "accumulates"),
        ("b = Exp (a)", "Exp", "steep"),
        ("b = Mul (a, a)", "Mul", "squares"),
        ("c = ReduceL2 <keepdims = 1> (a) b = Mul (a, c)", "ReduceL2", "accumulates"),
        ("c = Abs (a) d = Pow (c, c) b = Mul (d, a)", "Pow", "steep"),
        ("b = Floor (a)", "Floor", "whole numbers"),
        ("k = Constant <value = float {1e5}> () b = Mul (a, k)", "Mul", "beyond the largest float16"),
        ("k = Constant <value_float = 1e-8> () c = Abs (a) b = Add (c, k)", "Add", "below the normal numbers"),
        ("k = Constant <value = float {3e4}> () b = Mul (a, k)", "Mul", "reaches"),
        ("k = Constant <value = float {1e-2}> () c = Mul (a, k) d = Mul (c, k) b = Div (a, d)", "Div", "as small as"),
        ("c = Cast <to = 7> (a) b = Cast <to = 1> (c)", "Cast", "whole numbers"),
        ("c = Cast <to = 11> (a) d = Exp (c) b = Cast <to = 1> (d)", "Cast", "wider format"),
    ],
)
def test_what_stays(body: str, op_type: str, why: str) -> None:
    proto, report = converted(wrapped(body))
    reasons = [k.reason for k in report.kept if k.op_type == op_type]
    assert any(why in reason for reason in reasons), report
    assert formats(proto)["w"] == HALF
    assert report.certificate.accepted


@pytest.mark.parametrize(
    "body",
    [
        "b = Relu (a)",
        "b = Sigmoid (a)",
        "c = Tanh (a) b = Mul (a, c)",  # near Mul (a, a)
        "k = Constant <value = float {1e3}> () b = Mul (a, k)",  # near 1e5
        "k = Constant <value_float = 1e-3> () c = Abs (a) b = Add (c, k)",  # near 1e-8
        "c = ReduceSum <keepdims = 1> (a) b = Add (a, c)",  # 32 numbers
        "b = Identity (a)",
        "c = Cast <to = 10> (a) d = Relu (c) b = Cast <to = 1> (d)",
    ],
)
def test_what_does_not(body: str) -> None:
    proto, report = converted(wrapped(body))
    assert not report.kept, report
    # one cast at each end, and none of those between half precision and half precision are left
    assert op_types(proto).count("Cast") == 2


def test_a_long_sum_stays_and_a_short_one_does_not() -> None:
    text = "g (float[4, N] x) => (float[4, 1] y) <int64[1] axes = {1}> { a = Relu (x) y = ReduceMean (a, axes) }"
    _, short = converted(text.replace("N", "64"))
    _, long = converted(text.replace("N", "65"))
    assert "it sums 65 numbers" in kept(long)["ReduceMean"]
    assert "ReduceMean" not in {k.op_type for k in short.kept if k.by == "operator"}


def test_a_norm_of_large_rows_is_computed_in_float32() -> None:
    # squares of 300 leave float16, their mean does not
    text = """g (float[4, 256] x) => (float[4, 8] y) <int64[1] axes = {1}, float eps = {1e-5}, float[256, 8] w> {
      s = Mul (x, x)
      m = ReduceMean (s, axes)
      e = Add (m, eps)
      r = Sqrt (e)
      n = Div (x, r)
      y = MatMul (n, w)
    }"""
    proto = model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(rng().normal(size=(256, 8)).astype(np.float32), "w"))
    found, report = converted(proto, input_data={"x": rng(1).normal(size=(4, 256)).astype(np.float32) * 300})
    assert formats(found)["w"] == HALF
    # the norm, whole, is one island: x comes in float32, and is cast once
    assert report.casts == 2
    assert report.narrowed == 1


@pytest.mark.parametrize("fill", [-1e9, float(np.finfo(np.float32).min), -65520.0])
def test_masks_beyond_the_format_stay(fill: float) -> None:
    body = f"""k = Constant <value = float {{{fill!r}}}> ()
      z = Constant <value_float = 0.0> ()
      m = Greater (a, z)
      c = Where (m, a, k)
      b = Softmax <axis = 1> (c)"""
    _, report = converted(wrapped(body))
    assert "beyond the largest float16" in kept(report)["Where"]
    infinite = wrapped(body.replace(repr(fill), "-1e9"))
    next(n for n in infinite.graph.node if n.op_type == "Constant").attribute[0].t.CopyFrom(
        onnx.numpy_helper.from_array(np.asarray(-np.inf, np.float32))
    )
    _, report = converted(infinite)
    assert not [k for k in report.kept if k.op_type == "Where" and k.by != "cost"]


def test_rotary_angles_are_computed_in_float32() -> None:
    text = """g (int64[1, N] p) => (float[N, 8] y) <float[8, 1] f, float[8, 8] w> {
      q = Cast <to = 1> (p)
      a = MatMul (f, q)
      t = Transpose <perm = [1, 0]> (a)
      c = Cos (t)
      y = MatMul (c, w)
    }"""
    proto = model(text.replace("N", "16"))
    frequencies = (10000.0 ** -(np.arange(8) / 8)).reshape(8, 1).astype(np.float32)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(a, n)
        for n, a in (("f", frequencies), ("w", rng().normal(size=(8, 8)).astype(np.float32)))
    )
    near = {"p": np.arange(16, dtype=np.int64).reshape(1, 16)}
    far = {"p": np.arange(16, dtype=np.int64).reshape(1, 16) + 1500}
    _, small = converted(proto, input_data=near)
    found, large = converted(proto, input_data=far)
    assert not [k for k in small.kept if k.op_type == "MatMul"]
    assert "the argument of" in kept(large)["MatMul"]
    assert formats(found)["w"] == HALF
    assert formats(found)["f"] == WIDE


def test_whole_numbers_above_2048_are_not_rounded() -> None:
    text = "g (int64[4] i) => (float[4] y) { a = Cast <to = 1> (i) b = Relu (a) y = Neg (b) }"
    _, small = converted(text, input_data={"i": np.asarray([0, 1, 2, 512])})
    _, large = converted(text, input_data={"i": np.asarray([0, 1, 2, 2049])})
    assert "does not hold" in kept(large)["Cast"]
    assert "Cast" not in {k.op_type for k in small.kept if k.by == "operator"}


def test_ranges_decide_what_data_does_not_show() -> None:
    proto = wrapped("c = Relu (a) k = Constant <value = float {500.0}> () b = Mul (c, k)")
    data = {"x": rng().normal(size=(4, 8)).astype(np.float32) / 8}
    _, narrow = converted(proto, input_data=data)
    _, wide = converted(proto, input_data=data, ranges={"x": (-200.0, 200.0)})
    assert not narrow.kept
    assert "reaches" in kept(wide)["Mul"]


def test_nodes_are_kept_on_request() -> None:
    proto = wrapped("c = Relu (a) d = Neg (c) b = Sigmoid (d)")
    _, report = converted(proto, keep=["Neg", "c"])
    assert {k.op_type for k in report.kept if k.by == "request"} == {"Neg", "Relu"}
    with pytest.raises(UsageError, match="'nothing'"):
        stabilize.convert(proto, "fp16", keep="nothing")


def test_bfloat16_has_the_range_and_not_the_digits() -> None:
    _, report = converted(wrapped("k = Constant <value = float {1e5}> () b = Mul (a, k)"), "bf16")
    assert not report.kept
    text = "g (int64[4] i) => (float[4] y) { a = Cast <to = 1> (i) b = Relu (a) y = Neg (b) }"
    _, report = converted(text, "bf16", input_data={"i": np.asarray([0, 1, 2, 257])})
    assert "above 256" in kept(report)["Cast"]

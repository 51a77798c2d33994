"""What is believed, and what is not: the emulated format, the judge, and models that need more than rules."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import stabilize
from stabilize.conversion.emulate import emulated
from stabilize.conversion.target import target_of
from stabilize.frontends.onnx_types import numpy_dtype
from tests.conversion.support import converted, rng
from tests.frontends.onnx_random import Maker
from tests.frontends.onnx_support import model, run


@pytest.mark.parametrize("to", ["fp16", "bf16"])
def test_every_result_is_rounded(to: str) -> None:
    target = target_of(to)
    text = f"""g (float[n] x) => (float[n] y) {{
      a = Cast <to = {target.data_type}> (x)
      b = Mul (a, a)
      c = Mul (b, b)
      d = Div (c, b)
      y = Cast <to = 1> (d)
    }}"""
    x = np.asarray([1.001, 3.14159, 20.0, 1000.0, 1e-3], np.float32)
    proto = model(text)
    (y,) = emulated(proto, dict.fromkeys("abcd", target.data_type), target, "m").run(["y"], {"x": x})
    with np.errstate(all="ignore"):
        half = numpy_dtype(target.name)
        a = x.astype(half)
        b = (a.astype(np.float32) ** 2).astype(half)
        c = (b.astype(np.float32) ** 2).astype(half)
        wanted = (c.astype(np.float32) / b.astype(np.float32)).astype(half).astype(np.float32)
    np.testing.assert_array_equal(y, wanted)
    if to == "fp16":
        assert np.isnan(y[3])
        # what makes emulation necessary: ONNX Runtime on the CPU does not round in between
        assert run(proto, {"x": x})[0][3] == 1e6


def test_a_sum_that_cancels_is_found_by_the_judge() -> None:
    # (x + 1000) − 1000: no rule sees that every digit of x is lost, the comparison with float64 does
    text = """g (float[4, 8] x) => (float[4, 8] y) <float k = {1000.0}> {
      a = MatMul (x, w)
      b = Add (a, k)
      c = MatMul (b, i)
      d = Sub (c, k)
      y = Relu (d)
    }"""
    proto = model(text)
    proto.graph.initializer.extend(
        [
            numpy_helper.from_array(rng().normal(size=(8, 8)).astype(np.float32) / 3, "w"),
            numpy_helper.from_array(np.eye(8, dtype=np.float32), "i"),
        ]
    )
    _, unjudged = converted(proto, certify=False)
    assert not unjudged.kept
    found, report = converted(proto)
    blamed = {k.node for k in report.kept if k.by == "certificate"}
    assert "c" in blamed
    assert {"b", "c", "d"} <= {k.node for k in report.kept}
    assert report.certificate.accepted
    x = rng(5).normal(size=(4, 8)).astype(np.float32)
    (new,), (old,) = run(found, {"x": x}), run(proto, {"x": x})
    assert np.abs(new - old).max() <= report.certificate.tolerance * np.abs(old).max()
    # near miss: an offset of 1 costs few digits
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.asarray(1.0, np.float32), "k"))
    _, report = converted(proto)
    assert not [k for k in report.kept if k.by == "certificate"]


def test_a_tighter_tolerance_keeps_more() -> None:
    text = "g (float[4, 8] x) => (float[4, 8] y) { a = MatMul (x, w) b = Tanh (a) y = MatMul (b, w) }"
    proto = model(text)
    proto.graph.initializer.append(numpy_helper.from_array(rng().normal(size=(8, 8)).astype(np.float32), "w"))
    _, loose = converted(proto)
    _, tight = converted(proto, tolerance=1e-6)
    assert loose.narrowed == 3
    assert tight.narrowed < loose.narrowed
    assert tight.certificate.accepted


def test_a_naive_softmax_is_repaired_before_it_is_narrowed() -> None:
    text = """g (float[4, 8] x) => (float[4, 8] y) <int64[1] axes = {1}> {
      a = MatMul (x, w)
      e = Exp (a)
      s = ReduceSum (e, axes)
      y = Div (e, s)
    }"""
    proto = model(text)
    proto.graph.initializer.append(numpy_helper.from_array(rng().normal(size=(8, 8)).astype(np.float32), "w"))
    found, report = converted(proto, ranges={"x": (-100.0, 100.0)})
    assert [r.code for r in report.repaired.rewrites] == ["STB101"]
    assert {n.op_type for n in found.graph.node} == {"Cast", "MatMul", "Softmax"}
    assert report.certificate.accepted
    assert "finite" not in str(report.certificate.reason)


@pytest.mark.parametrize("seed", range(12))
def test_random_models(seed: int) -> None:
    """Branches, loops, scans and functions in each other: valid, accurate, converted once."""
    given = Maker(seed).model()
    feeds = {
        "x": rng(seed).normal(size=(3, 4)).astype(np.float32),
        "z": rng(seed + 1).normal(size=(3, 4)).astype(np.float32),
        "c": np.asarray(True),
    }
    found, report = converted(given, input_data=feeds)
    assert report.certificate.accepted, report
    for new, old in zip(run(found, feeds), run(given, feeds), strict=True):
        assert np.abs(new - old).max() <= 2 * report.certificate.tolerance * np.abs(old).max()


def test_the_report_says_everything() -> None:
    proto = model("g (float[4, 8] x) => (float[4, 8] y) { a = MatMul (x, w) b = Exp (a) y = MatMul (b, w) }")
    proto.graph.initializer.append(numpy_helper.from_array(rng().normal(size=(8, 8)).astype(np.float32) / 3, "w"))
    _, report = stabilize.convert(proto, "fp16", return_report=True)
    data = report.to_dict()
    assert data["to"] == "float16"
    assert data["narrowed"] == 2
    assert {"node": "b", "op_type": "Exp", "by": "operator"}.items() <= data["kept"][0].items()
    assert data["certificate"]["accepted"] is True
    assert data["certificate"]["outcomes"][0]["family"] == "given"
    assert "no data was given" in data["inputs"]
    assert "b: Exp stays float32: it is steep" in str(report)
    assert report.to_json().startswith("{")


def test_masks_are_not_scaled() -> None:
    text = """g (float[n, 8] x, float[n, 8] m) => (float[n, 8] y) <float one = {1.0}, float fill = {-1e9}> {
      h = Sub (one, m)
      b = Mul (h, fill)
      s = Add (x, b)
      y = Softmax (s)
    }"""
    mask = np.ones((3, 8), np.float32)
    mask[:, 5:] = 0
    _, report = converted(text, input_data={"x": rng().normal(size=(3, 8)).astype(np.float32), "m": mask})
    assert max(o.before for o in report.certificate.outcomes) < 1e-6


def test_inputs_stay_wide_where_rounding_them_is_too_much() -> None:
    # differences of numbers near 10 000
    text = "g (float[2, 4] x) => (float[2, 4] y) { y = Softmax (x) }"
    data = {"x": np.asarray([[0, 1, 2, 3], [10000, 10001, 10002, 10003]], np.float32)}
    found, report = converted(text, keep_io_types=False, input_data=data)
    assert found.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert report.certificate.accepted
    assert any("they stay float32" in note for note in report.notes)


def test_scatters_that_compute_have_no_kernels() -> None:
    text = """g (float[4] x, int64[2, 1] i, float[2] u) => (float[4] y) {
      a = Relu (x)
      y = ScatterND <reduction = MODE> (a, i, u)
    }"""
    data = {"x": np.ones(4, np.float32), "i": np.asarray([[0], [2]]), "u": np.ones(2, np.float32)}
    _, plain = converted(text.replace("MODE", '"none"'), input_data=data)
    _, adds = converted(text.replace("MODE", '"add"'), input_data=data)
    assert "ScatterND" not in {k.op_type for k in plain.kept if k.by == "operator"}
    assert "ScatterND" in {k.op_type for k in adds.kept if k.by == "operator"}
    assert adds.certificate.accepted


def test_negative_indices_and_sequences() -> None:
    text = "g (float[3, 2] x, int64[1, 2] i) => (float[1, 2] y) { y = GatherElements <axis = 0> (x, i) }"
    data = {"x": rng().normal(size=(3, 2)).astype(np.float32), "i": np.asarray([[-1, -2]])}
    _, report = converted(text, input_data=data)
    assert report.certificate.accepted
    assert report.certificate.obstacle is None
    text = "g (float[4, 2] x) => (seq(float[2, 2]) y) { a = Relu (x) y = SplitToSequence <axis = 0> (a) }"
    assert stabilize.convert(model(text), "fp16") is not None

"""Sparse initializers: read as tensors of known type and unknown content, and kept as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from onnx import TensorProto, helper

import stabilize
from stabilize.errors import ModelError
from stabilize.frontends.onnx import open_onnx

_NAIVE = """
<ir_version: 9, opset_import: ["" : 18]>
g (float[3, 4] x, bool c) => (float[3, 4] z, float[3, 4] w) <int64[1] axes = {1}> {
  y = Add(x, s)
  e = Exp(y)
  t = ReduceSum(e, axes)
  z = Div(e, t)
  w = If(c) <
    then_branch = then () => (float[3, 4] p) { p = Mul(x, s) },
    else_branch = other () => (float[3, 4] q) { q = Neg(s) }
  >
}
"""


def _sparse(name: str, elem: int = TensorProto.FLOAT, dims: tuple[int, ...] = (3, 4)) -> onnx.SparseTensorProto:
    values = helper.make_tensor(name, TensorProto.FLOAT, [2], [0.5, -1.5])
    values.data_type = elem
    indices = helper.make_tensor("", TensorProto.INT64, [2], [1, 7])
    return onnx.SparseTensorProto(values=values, indices=indices, dims=dims)


def _model() -> onnx.ModelProto:
    model = onnx.parser.parse_model(_NAIVE)
    model.graph.sparse_initializer.append(_sparse("s"))
    return model


def _run(model: onnx.ModelProto, x: np.ndarray, c: bool) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x, "c": np.array(c)})


def test_what_reads_one_is_read_and_rewritten() -> None:
    model = _model()
    onnx.checker.check_model(model)
    view = open_onnx(model).view
    assert view.bindings["s"].type == view.bindings["y"].type
    before = model.SerializeToString()
    fixed, report = stabilize.optimize(model, return_report=True)
    assert [r.code for r in report.rewrites] == ["STB101"]
    assert model.SerializeToString() == before
    assert list(fixed.graph.sparse_initializer) == list(model.graph.sparse_initializer)
    onnx.checker.check_model(fixed)
    x = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
    for c in (True, False):
        for got, want in zip(_run(fixed, x, c), _run(model, x, c), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-6)
    assert np.isfinite(_run(fixed, x + 1000, True)[0]).all()
    assert stabilize.certify(model, fixed).accepted


def test_a_model_with_nothing_to_rewrite_is_kept_byte_for_byte() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 18]> g (float[3, 4] x) => (float[3, 4] y) { y = Add(x, s) }'
    )
    model.graph.sparse_initializer.append(_sparse("s"))
    assert stabilize.optimize(model).SerializeToString() == model.SerializeToString()


def test_one_inside_a_body() -> None:
    model = _model()
    (node,) = (n for n in model.graph.node if n.op_type == "If")
    body = node.attribute[0].g
    body.node[0].input[1] = "inner"
    body.sparse_initializer.append(_sparse("inner"))
    fixed = stabilize.optimize(model)
    assert fixed.graph.node[-1].attribute[0].g == body


@pytest.mark.parametrize(
    "bad", [_sparse("s", 0), _sparse("s", 99), _sparse("s", dims=(-3, 4))], ids=["no type", "unknown type", "negative"]
)
def test_one_that_is_not_valid_is_told(bad: onnx.SparseTensorProto, tmp_path: Path) -> None:
    model = _model()
    model.graph.sparse_initializer[0].CopyFrom(bad)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"m\.onnx.*sparse initializer 's'"):
        stabilize.optimize(path)


def test_a_name_cannot_be_two_initializers() -> None:
    model = _model()
    model.graph.initializer.append(helper.make_tensor("s", TensorProto.FLOAT, [3, 4], [0.0] * 12))
    with pytest.raises(ModelError, match="two initializers 's'"):
        stabilize.optimize(model)

"""Patching: only what changed is touched; names, metadata and signatures survive; dead code goes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

import stabilize
from stabilize.errors import ModelError
from stabilize.frontends.onnx import OnnxHost, open_onnx
from stabilize.graph.value import Value
from stabilize.graph.view import Replacement
from tests.frontends.onnx_support import OPSETS, model, op_types, run

NAIVE = """
g (float[n, 5] x) => (float[n, 5] p) {
  scaled = Relu (x)
  e = Exp (scaled)
  axes = Constant <value_ints = [1]> ()
  s = ReduceSum <keepdims = 1> (e, axes)
  p = Div (e, s)
}"""

X = np.asarray([[-1, 2, 300, 4, 1000], [0, 1, 2, 3, 4]], np.float32)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def patch(host: OnnxHost, *pairs: tuple[Value, Value]) -> onnx.ModelProto:
    patched = host.patched([Replacement(old, new) for old, new in pairs]).model()
    assert isinstance(patched, onnx.ModelProto)
    onnx.checker.check_model(patched, full_check=True)
    return patched


def stable(host: OnnxHost, source: str, axis: int = 1) -> Value:
    return host.view.builder.make("softmax", host.view.bindings[source], axis=axis)


@pytest.mark.parametrize("opset", OPSETS)
def test_naive_softmax(opset: int) -> None:
    proto = model(NAIVE, opset)
    before = proto.SerializeToString()
    host = open_onnx(proto)
    fixed = patch(host, (host.view.bindings["p"], stable(host, "scaled")))
    assert op_types(fixed) == ["Relu", "Softmax"]
    assert [o.name for o in fixed.graph.output] == ["p"]
    assert fixed.graph.output == proto.graph.output
    assert proto.SerializeToString() == before
    (y,) = run(fixed, {"x": X})
    np.testing.assert_allclose(y, softmax(np.maximum(X, 0)), rtol=1e-6)


def test_axes_as_attribute() -> None:
    """Opset 11: ReduceSum takes its axes as an attribute, and Softmax of another axis than the last flattens."""
    text = NAIVE.replace("axes = Constant <value_ints = [1]> ()", "").replace(
        "<keepdims = 1> (e, axes)", "<keepdims = 1, axes = [0]> (e)"
    )
    host = open_onnx(model(text, 11))
    assert host.view.bindings["s"].axes == (0,)
    fixed = patch(host, (host.view.bindings["p"], stable(host, "scaled", 0)))
    (y,) = run(fixed, {"x": X})
    np.testing.assert_allclose(y, softmax(np.maximum(X, 0).T).T, rtol=1e-6)


def test_nothing_replaced_is_byte_identical() -> None:
    proto = model(NAIVE)
    assert open_onnx(proto).patched([]).model().SerializeToString() == proto.SerializeToString()


def test_untouched_nodes_keep_their_bytes_and_everything_else_stays() -> None:
    proto = model(NAIVE)
    for i, node in enumerate(proto.graph.node):
        node.name = f"node/{i}"
        node.doc_string = f"documentation {i}"
        entry = node.metadata_props.add()
        entry.key, entry.value = "pkg.torch.onnx.stack_trace", f'File "model.py", line {i}, in forward'
    proto.graph.value_info.append(helper.make_tensor_value_info("e", TensorProto.FLOAT, ["n", 5]))
    proto.graph.value_info.append(helper.make_tensor_value_info("scaled", TensorProto.FLOAT, ["n", 5]))
    proto.producer_name, proto.doc_string = "somebody", "a model"
    host = open_onnx(proto)
    assert host.view.sources["p"].line == 4
    assert host.view.sources["p"].file == "model.py"
    fixed = patch(host, (host.view.bindings["p"], stable(host, "scaled")))
    assert fixed.graph.node[0].SerializeToString() == proto.graph.node[0].SerializeToString()
    new = fixed.graph.node[1]
    assert new.name == "node/4_stabilized_Softmax"
    assert list(new.metadata_props) == list(proto.graph.node[4].metadata_props)
    assert [v.name for v in fixed.graph.value_info] == ["scaled"]
    assert (fixed.producer_name, fixed.doc_string) == ("somebody", "a model")
    assert fixed.graph.input == proto.graph.input
    assert fixed.opset_import == proto.opset_import


def test_shared_values_stay_for_their_other_users() -> None:
    text = NAIVE.replace("=> (float[n, 5] p)", "=> (float[n, 5] p, float[n, 1] t)").replace(
        "p = Div (e, s)", "p = Div (e, s)\n t = Sqrt (s)"
    )
    host = open_onnx(model(text))
    fixed = patch(host, (host.view.bindings["p"], stable(host, "scaled")))
    assert op_types(fixed) == ["Relu", "Exp", "Constant", "ReduceSum", "Softmax", "Sqrt"]


def test_old_value_inside_its_own_replacement() -> None:
    """new = max(old, 0): the old node stays under another name, and only the new one reads it."""
    host = open_onnx(model(NAIVE))
    p = host.view.bindings["p"]
    fixed = patch(host, (p, host.view.builder.make("relu", p)))
    assert op_types(fixed)[-2:] == ["Div", "Relu"]
    assert fixed.graph.node[-2].output == ["p_unstabilized"]
    (y,) = run(fixed, {"x": X[1:]})
    np.testing.assert_allclose(y, softmax(X[1:]), rtol=1e-6)


def test_replacement_that_is_already_computed_redirects_consumers() -> None:
    text = """
    g (float[4] x) => (float[4] y) {
      a = Exp (x)
      b = Log (a)
      y = Neg (b)
    }"""
    host = open_onnx(model(text))
    fixed = patch(host, (host.view.bindings["b"], host.view.bindings["x"]))
    assert [(n.op_type, list(n.input), list(n.output)) for n in fixed.graph.node] == [("Neg", ["x"], ["y"])]


def test_graph_output_replaced_by_an_input_keeps_its_name() -> None:
    host = open_onnx(model("g (float[4] x) => (float[4] y) {\n a = Exp (x)\n y = Log (a)\n}"))
    fixed = patch(host, (host.view.bindings["y"], host.view.bindings["x"]))
    assert [(n.op_type, list(n.input), list(n.output)) for n in fixed.graph.node] == [("Identity", ["x"], ["y"])]


def test_every_node_that_computes_the_value_is_replaced() -> None:
    """The user wrote the softmax twice; both go, and both output names stay."""
    text = """
    g (float[2, 5] x) => (float[2, 5] p, float[2, 5] q, float[2, 5] r) {
      axes = Constant <value_ints = [1]> ()
      e = Exp (x)
      s = ReduceSum (e, axes)
      p = Div (e, s)
      e2 = Exp (x)
      s2 = ReduceSum (e2, axes)
      q = Div (e2, s2)
      q3 = Div (e2, s)
      r = Neg (q3)
    }"""
    host = open_onnx(model(text))
    assert host.view.bindings["p"] is host.view.bindings["q"]
    fixed = patch(host, (host.view.bindings["p"], stable(host, "x")))
    assert op_types(fixed) == ["Softmax", "Identity", "Neg"]
    p, q, r = run(fixed, {"x": X})
    np.testing.assert_allclose(p, softmax(X), rtol=1e-6)
    np.testing.assert_array_equal(p, q)
    np.testing.assert_array_equal(p, -r)


def test_common_parts_of_replacements_are_made_once() -> None:
    text = """
    g (float[2, 5] x) => (float[2, 5] p, float[2, 5] l) {
      axes = Constant <value_ints = [1]> ()
      e = Exp (x)
      s = ReduceSum (e, axes)
      p = Div (e, s)
      p2 = Add (p, p)
      l = Log (p2)
    }"""
    host = open_onnx(model(text))
    b, view = host.view.builder, host.view
    new = stable(host, "x")
    fixed = patch(
        host,
        (view.bindings["p"], new),
        (view.bindings["l"], b.make("sqrt", b.make("mul", b.make("exp", new), b.make("exp", new)))),
    )
    assert op_types(fixed) == ["Softmax", "Exp", "Mul", "Sqrt"]


def test_captured_values_keep_their_names() -> None:
    text = """
    g (float[n, 5] x, bool c) => (float[n, 5] y) {
      e = Exp (x)
      axes = Constant <value_ints = [1]> ()
      s = ReduceSum (e, axes)
      p = Div (e, s)
      y = If (c) <
        then_branch = t () => (float[n, 5] a) { a = Neg (p) },
        else_branch = f () => (float[n, 5] b) { b = Abs (p) }
      >
    }"""
    proto = model(text)
    host = open_onnx(proto)
    (y,) = host.view.outputs
    assert y.op == "opaque"
    assert host.view.bindings["p"] in y.operands
    fixed = patch(host, (host.view.bindings["p"], stable(host, "x")))
    assert op_types(fixed) == ["Softmax", "If"]
    assert fixed.graph.node[1].SerializeToString() == proto.graph.node[-1].SerializeToString()
    (y,) = run(fixed, {"x": X, "c": np.asarray(True)})
    np.testing.assert_allclose(y, -softmax(X), rtol=1e-6)


def test_captured_value_replaced_by_an_existing_one() -> None:
    text = """
    g (float[4] x, bool c) => (float[4] y) {
      e = Exp (x)
      l = Log (e)
      y = If (c) <
        then_branch = t () => (float[4] a) { a = Neg (l) },
        else_branch = f () => (float[4] b) { b = Abs (l) }
      >
    }"""
    host = open_onnx(model(text))
    fixed = patch(host, (host.view.bindings["l"], host.view.bindings["x"]))
    assert op_types(fixed) == ["Identity", "If"]
    (y,) = run(fixed, {"x": np.asarray([1, 200, 3, -4], np.float32), "c": np.asarray(True)})
    np.testing.assert_array_equal(y, [-1, -200, -3, 4])


def test_unnamed_value_inside_an_operator() -> None:
    """Clip is read as min(max(x, lo), hi): replacing the max rewrites the Clip."""
    host = open_onnx(model("g (float[4] x, float lo, float hi) => (float[4] y) {\n y = Clip (x, lo, hi)\n}"))
    (y,) = host.view.outputs
    inner = y.operands[0]
    assert inner.op == "maximum"
    fixed = patch(host, (inner, host.view.builder.make("relu", host.view.bindings["x"])))
    assert op_types(fixed) == ["Relu", "Min"]


def test_one_output_of_several() -> None:
    text = """
    g (float[5] x) => (float[2] v, int64[2] i) {
      k = Constant <value_ints = [2]> ()
      v, i = TopK (x, k)
    }"""
    host = open_onnx(model(text))
    b = host.view.builder
    v = host.view.bindings["v"]
    fixed = patch(host, (v, b.make("neg", b.make("neg", v))))
    assert [o.name for o in fixed.graph.output] == ["v", "i"]
    values, indices = run(fixed, {"x": np.asarray([1, 5, 2, 4, 3], np.float32)})
    np.testing.assert_array_equal(values, [5, 4])
    np.testing.assert_array_equal(indices, [1, 3])


def test_weights_used_only_by_dead_nodes_go() -> None:
    text = """
    g (float[4] x) => (float[4] y) <float[4] w = {1, 2, 3, 4}, float[4] kept = {4, 3, 2, 1}> {
      a = Mul (x, w)
      y = Add (a, kept)
    }"""
    host = open_onnx(model(text))
    fixed = patch(host, (host.view.bindings["a"], host.view.bindings["x"]))
    assert [t.name for t in fixed.graph.initializer] == ["kept"]
    assert list(fixed.graph.node[0].input) == ["x", "kept"]


def test_new_constants_have_new_names() -> None:
    text = """
    g (float[4] x) => (float[4] y) <float[4] stabilized_constant_2 = {1, 2, 3, 4}> {
      a = Mul (x, stabilized_constant_2)
      y = Exp (a)
    }"""
    host = open_onnx(model(text))
    b = host.view.builder
    fixed = patch(host, (host.view.bindings["y"], b.apply("mul", host.view.bindings["a"], 2.0)))
    assert [t.name for t in fixed.graph.initializer] == ["stabilized_constant_2", "stabilized_constant_2_2"]


def test_ir_model_in_ir_model_out() -> None:
    read = ir.serde.deserialize_model(model(NAIVE))
    before = ir.serde.serialize_model(read).SerializeToString()
    host = open_onnx(read)
    p = host.view.bindings["p"]
    fixed = host.patched([Replacement(p, stable(host, "scaled"))]).model()
    assert isinstance(fixed, ir.Model)
    assert [n.op_type for n in fixed.graph] == ["Relu", "Softmax"]
    assert ir.serde.serialize_model(read).SerializeToString() == before
    assert ir.serde.serialize_model(host.patched([]).model()).SerializeToString() == before


def test_refusals_name_the_reason() -> None:
    host = open_onnx(model(NAIVE))
    b, p = host.view.builder, host.view.bindings["p"]
    assert host.refusal(Replacement(p, stable(host, "scaled"))) is None
    assert "cumprod" in str(host.refusal(Replacement(p, b.make("cumprod", p, axis=1)))).lower()
    with pytest.raises(ModelError, match="cannot be replaced by"):
        patch(host, (p, b.cast(p, "float64")))
    with pytest.raises(ModelError, match="is an input"):
        patch(host, (host.view.bindings["x"], p))


def test_a_value_computed_later_is_recomputed() -> None:
    """The replacement of `a` needs exp(−x), which the host computes only after it."""
    text = """
    g (float[4] x) => (float[4] y) {
      a = Sqrt (x)
      n = Neg (x)
      e = Exp (n)
      y = Add (a, e)
    }"""
    host = open_onnx(model(text))
    fixed = patch(host, (host.view.bindings["a"], host.view.bindings["e"]))
    x = np.asarray([1, 2, 3, 4], np.float32)
    (y,) = run(fixed, {"x": x})
    np.testing.assert_allclose(y, 2 * np.exp(-x), rtol=1e-6)


def test_empty_optional_names_stay_empty() -> None:
    text = """
    g (float[2, 5] x, float[5] s, float lo) => (float[2, 5] y, float[2, 1] d) {
      n, , d = LayerNormalization (x, s)
      c = Clip (n, lo)
      y = Exp (c)
    }"""
    proto = model(text)
    proto.graph.node[1].input.append("")
    host = open_onnx(proto)
    fixed = patch(host, (host.view.bindings["y"], host.view.builder.make("sin", host.view.bindings["c"])))
    assert [n.SerializeToString() for n in fixed.graph.node[:2]] == [
        n.SerializeToString() for n in proto.graph.node[:2]
    ]


def test_before_ir_version_4_new_constants_are_nodes() -> None:
    """There an initializer must be an input of the model too."""
    text = """g (float[2, 3] x) => (float[2, 1] y) {
      e = Exp (x)
      t = ReduceSum <keepdims = 1, axes = [-1]> (e)
      y = Log (t)
    }"""
    proto = model(text, 11, 3)
    fixed = stabilize.optimize(proto)
    assert isinstance(fixed, onnx.ModelProto)
    onnx.checker.check_model(fixed, full_check=True)
    assert [i.name for i in fixed.graph.input] == ["x"]
    assert op_types(fixed)[0] == "Constant"
    assert not fixed.graph.initializer
    (y,) = run(fixed, {"x": np.asarray([[0, 0, 0], [200, 200, 200]], np.float32)})
    np.testing.assert_allclose(y.ravel(), np.log(3) + np.asarray([0, 200]), rtol=1e-6)
    assert stabilize.optimize(fixed) == fixed

"""Bodies of control flow: read with what they take from outside, rewritten where they stand, put back into place."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import stabilize
from stabilize.errors import UsageError
from stabilize.frontends.onnx import OnnxHost, open_onnx
from tests.frontends.onnx_support import ROWS, close, model, names_of, op_types, optimized, run, softmax

BRANCHES = """
g (float[n, 4] x, bool c) => (float[n, 4] y) <int64[1] axes = {1}, float eps = {1.0}> {
  r = Identity (x)
  y = If (c) <
    then_branch = yes () => (float[n, 4] a) {
      e = Exp (r)
      s = ReduceSum <keepdims = 1> (e, axes)
      t = Add (s, eps)
      p = Div (e, t)
      a = Log (p)
    },
    else_branch = no () => (float[n, 4] b) {
      e = Exp (r)
      s = ReduceSum <keepdims = 1> (e, axes)
      b = Div (e, s)
    }
  >
}"""

LOOP = """
g (float[4, 4] x, int64 trips) => (float[4, 4] y) <int64[1] axes = {1}, bool go = {1}> {
  y = Loop (trips, go, x) <body = step (int64 i, bool before, float[4, 4] state) => (bool again, float[4, 4] next) {
    again = Identity (before)
    e = Exp (state)
    s = ReduceSum <keepdims = 1> (e, axes)
    next = Div (e, s)
  }>
}"""

SCAN = """
g (float[4, 4] x) => (float last, float[4] y) <float start = {0.0}, int64[1] axes = {0}> {
  last, y = Scan (start, x) <num_scan_inputs = 1, body = step (float total, float[4] row) => (float sum, float lse) {
    e = Exp (row)
    s = ReduceSum <keepdims = 0> (e, axes)
    lse = Log (s)
    sum = Add (total, lse)
  }>
}"""

NESTED = """
g (float[4, 4] x, bool c, int64 trips) => (float[4, 4] y) <int64[1] axes = {1}, bool go = {1}> {
  r = Relu (x)
  y = If (c) <
    then_branch = yes () => (float[4, 4] a) {
      half = Constant <value_float = 0.5> ()
      a = Loop (trips, go, r) <body = step (int64 i, bool b, float[4, 4] state) => (bool again, float[4, 4] next) {
        again = Identity (b)
        next = If (b) <
          then_branch = deep () => (float[4, 4] d) {
            h = Mul (state, half)
            e = Exp (h)
            s = ReduceSum <keepdims = 1> (e, axes)
            p = Div (e, s)
            d = Add (p, r)
          },
          else_branch = shallow () => (float[4, 4] f) { f = Identity (state) }
        >
      }>
    },
    else_branch = no () => (float[4, 4] z) { z = Identity (r) }
  >
}"""


def body(proto: onnx.ModelProto, *path: tuple[int, str]) -> onnx.GraphProto:
    """The graph at `path`: (index of a node, name of an attribute), from the outside inwards."""
    graph = proto.graph
    for index, name in path:
        graph = next(a.g for a in graph.node[index].attribute if a.name == name)
    return graph


def test_both_branches_with_constants_from_outside() -> None:
    fixed = optimized(model(BRANCHES))
    assert [n.op_type for n in body(fixed, (1, "else_branch")).node] == ["Softmax"]
    assert "Div" not in [n.op_type for n in body(fixed, (1, "then_branch")).node]
    e = np.exp(ROWS.astype(np.float64))
    (yes,) = run(fixed, {"x": ROWS, "c": np.asarray(True)})
    close(yes, ROWS - np.log(e.sum(1, keepdims=True) + 1))
    (no,) = run(fixed, {"x": ROWS, "c": np.asarray(False)})
    close(no, softmax(ROWS))


def test_new_constants_are_stored_in_the_body_under_names_of_their_own() -> None:
    fixed = optimized(model(BRANCHES))
    assert body(fixed, (1, "then_branch")).initializer
    outer = {*names_of(onnx.GraphProto(input=fixed.graph.input, initializer=fixed.graph.initializer)), "r", "y"}
    for name in ("then_branch", "else_branch"):
        inner = names_of(body(fixed, (1, name)))
        assert len(inner) == len(set(inner))
        assert not outer & set(inner)


def test_weights_that_only_the_body_used_go_with_their_last_use() -> None:
    fixed = optimized(model(BRANCHES))
    assert "axes" not in [t.name for t in fixed.graph.initializer]
    kept = BRANCHES.replace("r = Identity (x)", "u = Unsqueeze (x, axes)  r = Squeeze (u, axes)")
    assert "axes" in [t.name for t in optimized(model(kept)).graph.initializer]


def test_a_loop() -> None:
    fixed = optimized(model(LOOP))
    assert [n.op_type for n in body(fixed, (0, "body")).node] == ["Identity", "Softmax"]
    (y,) = run(fixed, {"x": ROWS, "trips": np.asarray(2)})
    close(y, softmax(softmax(ROWS)))
    (y,) = run(fixed, {"x": ROWS, "trips": np.asarray(0)})
    np.testing.assert_array_equal(y, ROWS)


def test_a_scan() -> None:
    fixed = optimized(model(SCAN))
    e = np.exp(ROWS.astype(np.float64))
    last, y = run(fixed, {"x": ROWS})
    close(y, np.log(e.sum(1)))
    close(last, np.log(e.sum(1)).sum())


def test_several_levels_deep() -> None:
    """The innermost graph takes values from three scopes: a constant, a loop's state, an operator's output."""
    fixed = optimized(model(NESTED))
    inner = body(fixed, (1, "then_branch"), (1, "body"), (1, "then_branch"))
    assert [n.op_type for n in inner.node] == ["Mul", "Softmax", "Add"]
    names = names_of(fixed.graph)
    assert len(names) == len(set(names))
    (y,) = run(fixed, {"x": ROWS, "c": np.asarray(True), "trips": np.asarray(1)})
    relu = np.maximum(ROWS, 0)
    close(y, softmax(relu / 2) + relu)


def test_what_is_not_touched_keeps_its_bytes() -> None:
    proto = model(NESTED)
    for node in (*proto.graph.node, *body(proto, (1, "else_branch")).node, *body(proto, (1, "then_branch")).node):
        node.doc_string = f"{node.op_type}: as it was"
        node.MergeFromString(b"\xfa\x3f\x03abc")  # a field of a later version of the format
    fixed = optimized(proto)
    for before, after in zip(proto.graph.node, fixed.graph.node, strict=True):
        for old, new in zip(before.attribute, after.attribute, strict=True):
            if old.name == "else_branch":
                assert old.SerializeToString() == new.SerializeToString()
        assert after.doc_string == before.doc_string
        assert b"\xfa\x3f\x03abc" in after.SerializeToString()
    assert fixed.graph.node[0].SerializeToString() == proto.graph.node[0].SerializeToString()


@pytest.mark.parametrize("text", [BRANCHES, LOOP, SCAN, NESTED])
def test_stable_bodies_leave_the_model_byte_for_byte(text: str) -> None:
    fixed = optimized(model(text))
    fixed.graph.value_info.add().name = "said of a value that is not there"
    assert stabilize.optimize(fixed).SerializeToString() == fixed.SerializeToString()


def test_ir_models_keep_their_kind_and_get_the_same_graphs() -> None:
    proto = model(NESTED)
    given = ir.from_proto(proto)
    before = ir.to_proto(given).SerializeToString()
    uses = {v.name: len(v.uses()) for v in given.graph.inputs}
    fixed = stabilize.optimize(given)
    assert isinstance(fixed, ir.Model)
    assert ir.to_proto(given).SerializeToString() == before
    assert {v.name: len(v.uses()) for v in given.graph.inputs} == uses
    text = [onnx.printer.to_text(body(p, (1, "then_branch"))) for p in (ir.to_proto(fixed), optimized(proto))]
    assert text[0] == text[1]


def test_a_body_is_a_host_whose_inputs_are_what_it_takes_from_outside() -> None:
    host = open_onnx(model(BRANCHES))
    bodies = host.bodies()
    assert list(bodies) == ["y/then_branch", "y/else_branch"]
    inner = bodies["y/then_branch"]
    assert isinstance(inner, OnnxHost)
    assert str(inner.view.bindings["r"].type) == "float32[n, 4]"
    assert inner.view.bindings["s"].axes == (1,)
    assert inner.view.bindings["eps"].attr("value") == 1.0
    assert inner.bodies() == {}
    assert host.with_bodies({}).model() == host.model()


def test_findings_name_the_way_to_the_node() -> None:
    _, report = stabilize.optimize(model(NESTED), return_report=True)
    assert [r.node for r in report.rewrites] == ["y/then_branch/a/body/next/then_branch/p"]


def test_a_softmax_split_over_scopes_is_left_as_it_is() -> None:
    """exp outside, the sum inside: the body sees a value of which nothing is known."""
    text = """
    g (float[n, 4] x, bool c) => (float[n, 4] y) <int64[1] axes = {1}> {
      e = Exp (x)
      y = If (c) <
        then_branch = yes () => (float[n, 4] a) { s = ReduceSum <keepdims = 1> (e, axes)  a = Div (e, s) },
        else_branch = no () => (float[n, 4] b) { b = Identity (e) }
      >
    }"""
    proto = model(text)
    assert optimized(proto) == proto


def test_a_replaced_value_is_still_there_for_bodies() -> None:
    text = """
    g (float[n, 4] x, bool c) => (float[n, 4] y) <int64[1] axes = {1}> {
      e = Exp (x)
      s = ReduceSum <keepdims = 1> (e, axes)
      p = Div (e, s)
      y = If (c) <
        then_branch = yes () => (float[n, 4] a) { a = Neg (p) },
        else_branch = no () => (float[n, 4] b) { b = Abs (p) }
      >
    }"""
    fixed = optimized(model(text))
    assert op_types(fixed) == ["Softmax", "If"]
    (y,) = run(fixed, {"x": ROWS, "c": np.asarray(True)})
    close(y, -softmax(ROWS))


def test_sizes_from_outside() -> None:
    """A shape computed outside, with a symbol among its elements, reshapes inside."""
    text = """
    g (float[n, 2, 2] x, bool c) => (float[n, 4] y) <int64[1] axes = {1}, int64[1] four = {4}, int64 zero = {0}> {
      dims = Shape (x)
      n = Gather (dims, axes)
      first = Shape <start = 0, end = 1> (x)
      target = Concat <axis = 0> (first, four)
      y = If (c) <
        then_branch = yes () => (float[n, 4] a) {
          r = Reshape (x, target)
          e = Exp (r)
          s = ReduceSum <keepdims = 1> (e, axes)
          a = Div (e, s)
        },
        else_branch = no () => (float[n, 4] b) { b = Reshape (x, target) }
      >
    }"""
    proto = model(text)
    inner = open_onnx(proto).bodies()["y/then_branch"]
    assert str(inner.view.bindings["r"].type) == "float32[n, 4]"
    fixed = optimized(proto)
    (y,) = run(fixed, {"x": ROWS.reshape(4, 2, 2), "c": np.asarray(True)})
    close(y, softmax(ROWS))


def test_an_initializer_that_callers_may_set_is_no_constant() -> None:
    text = BRANCHES.replace("bool c)", "bool c, float eps)")
    inner = open_onnx(model(text)).bodies()["y/then_branch"]
    assert inner.view.bindings["eps"].op == "input"
    assert "eps" not in inner.view.parameters


def test_graphs_of_other_domains_pass_untouched() -> None:
    proto = model(BRANCHES)
    proto.graph.node[1].domain = "test"
    assert open_onnx(proto).bodies() == {}
    assert stabilize.optimize(proto).SerializeToString() == proto.SerializeToString()


def test_before_ir_version_4_constants_of_bodies_are_nodes() -> None:
    text = BRANCHES.replace("bool c)", "bool c, int64[1] axes, float eps)")
    text = text.replace("(e, axes)", "(e)").replace("keepdims = 1", "keepdims = 1, axes = [1]")
    fixed = optimized(model(text, 11, 3))
    then = body(fixed, (1, "then_branch"))
    assert not then.initializer
    assert then.node[0].op_type == "Constant"
    (y,) = run(fixed, {"x": ROWS, "c": np.asarray(True)})
    close(y, ROWS - np.log(np.exp(ROWS.astype(np.float64)).sum(1, keepdims=True) + 1))


def test_many_bodies_of_one_graph() -> None:
    """Every branch uses the same values from outside."""
    branch = "g{0} () => (float[4] v{0}) {{ v{0} = Mul (x, w) }}"
    nodes = [
        f"y{i} = If (c) <then_branch = {branch.format(2 * i)}, else_branch = {branch.format(2 * i + 1)}>"
        for i in range(40)
    ]
    outputs = ", ".join(f"float[4] y{i}" for i in range(40))
    proto = model(f"g (float[4] x, bool c) => ({outputs}) <float[4] w = {{1, 2, 3, 4}}> {{ {' '.join(nodes)} }}")
    assert len(open_onnx(proto).bodies()) == 80
    assert stabilize.optimize(proto).SerializeToString() == proto.SerializeToString()


def test_inputs_of_a_body_that_have_no_type() -> None:
    """Inside, types may be left out: what a scan hands to its body is known from outside."""
    proto = model(SCAN)
    inner = body(proto, (0, "body"))
    for value in inner.input:
        value.ClearField("type")
    fixed = optimized(proto)
    assert body(fixed, (0, "body")).input == inner.input
    last, y = run(fixed, {"x": ROWS})
    truth = np.log(np.exp(ROWS.astype(np.float64)).sum(1))
    close(y, truth)
    close(last, truth.sum())
    given = ir.from_proto(proto)
    rewritten = ir.to_proto(stabilize.optimize(given))
    assert not any(value.HasField("type") for value in body(rewritten, (0, "body")).input)


@pytest.mark.parametrize("opset", [11, 13, onnx.defs.onnx_opset_version()])
def test_from_the_oldest_opset_to_the_newest(opset: int) -> None:
    text = LOOP
    if opset < 13:
        text = LOOP.replace("(e, axes)", "(e)").replace("keepdims = 1", "keepdims = 1, axes = [1]")
        text = text.replace("int64[1] axes = {1}, ", "")
    fixed = stabilize.optimize(model(text, opset, 10))
    onnx.checker.check_model(fixed, full_check=True)
    assert [n.op_type for n in body(fixed, (0, "body")).node] == ["Identity", "Softmax"]


def test_draws_inside_a_body_are_seen_by_certify() -> None:
    proto = model(BRANCHES.replace("b = Div (e, s)", "d = RandomUniformLike (e)  b = Add (d, s)"))
    with pytest.raises(UsageError, match="draws random numbers"):
        stabilize.certify(proto, proto)

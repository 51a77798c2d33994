"""Model-local functions: rewritten once, with the types of their calls; the calls stay."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import stabilize
from stabilize.frontends.onnx import open_onnx
from stabilize.graph.view import View
from tests.frontends.onnx_support import ROWS, close, optimized, run, softmax

HEADER = '<ir_version: 10, opset_import: ["" : 18, "local" : 1]>'

SOFTMAX = """
<domain: "local", opset_import: ["" : 18]>
naive (v) => (w) {
  axes = Constant <value_ints = [1]> ()
  e = Exp (v)
  s = ReduceSum <keepdims = 1> (e, axes)
  w = Div (e, s)
}"""


def model(graph: str, *functions: str) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(f"{HEADER}\n{graph}\n" + "\n".join(functions))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def view_of(proto: onnx.ModelProto, label: str) -> View:
    return open_onnx(proto).bodies()[label].view


def operators(proto: onnx.ModelProto, name: str) -> list[str]:
    return [n.op_type for f in proto.functions if f.name == name for n in f.node]


def test_a_function_is_rewritten_once_and_its_calls_stay() -> None:
    proto = model("g (float[n, 4] x) => (float[n, 4] y) { h = local.naive (x)  y = local.naive (h) }", SOFTMAX)
    fixed = optimized(proto)
    assert operators(fixed, "naive") == ["Softmax"]
    assert fixed.graph == proto.graph
    (y,) = run(fixed, {"x": ROWS})
    close(y, softmax(softmax(ROWS)))


def test_calls_that_differ_in_a_size_leave_that_size_open() -> None:
    graph = """
    g (float[n, 4] x, float[2, 4] z) => (float[n, 4] y, float[2, 4] u) { y = local.naive (x)  u = local.naive (z) }"""
    proto = model(graph, SOFTMAX)
    assert view_of(proto, "local::naive").bindings["v"].shape == ("?v.0", 4)
    fixed = optimized(proto)
    assert operators(fixed, "naive") == ["Softmax"]
    y, u = run(fixed, {"x": ROWS, "z": ROWS[:2]})
    close(y, softmax(ROWS))
    close(u, softmax(ROWS[:2]))


@pytest.mark.parametrize("other", ["double[n, 4]", "float[n, 4, 2]"])
def test_calls_of_other_types_or_ranks_leave_the_function_as_it_is(other: str) -> None:
    graph = f"g (float[n, 4] x, {other} z) => (float[n, 4] y, {other} u) {{ y = local.naive (x)  u = local.naive (z) }}"
    proto = model(graph, SOFTMAX)
    assert optimized(proto).SerializeToString() == proto.SerializeToString()


def test_new_constants_are_nodes() -> None:
    guarded = SOFTMAX.replace(
        "w = Div (e, s)", "eps = Constant <value_float = 1.0> ()  t = Add (s, eps)  w = Div (e, t)"
    )
    fixed = optimized(model("g (float[n, 4] x) => (float[n, 4] y) { y = local.naive (x) }", guarded))
    assert "ReduceMax" in operators(fixed, "naive")
    assert not fixed.graph.initializer
    (y,) = run(fixed, {"x": ROWS})
    e = np.exp(ROWS.astype(np.float64))
    close(y, e / (e.sum(1, keepdims=True) + 1))


def test_attributes_of_the_call_stay_references() -> None:
    """What they are differs from call to call: an axis by reference is not known, a factor is one opaque value."""
    scaled = """
    <domain: "local", opset_import: ["" : 18]>
    naive <scale> (v) => (w) {
      axes = Constant <value_ints = [1]> ()
      factor = Constant <value_float: float = @scale> ()
      e = Exp (v)
      s = ReduceSum <keepdims = 1> (e, axes)
      p = Div (e, s)
      w = Mul (p, factor)
    }"""
    graph = (
        "g (float[n, 4] x) => (float[n, 4] y) { h = local.naive <scale = 2.0> (x)  y = local.naive <scale = 3.0> (h) }"
    )
    proto = model(graph, scaled)
    fixed = optimized(proto)
    assert operators(fixed, "naive") == ["Constant", "Softmax", "Mul"] or operators(fixed, "naive") == [
        "Softmax", "Constant", "Mul",
    ]  # fmt: skip
    (y,) = run(fixed, {"x": ROWS})
    close(y, softmax(2 * softmax(ROWS)) * 3)
    by_axis = """
    <domain: "local", opset_import: ["" : 18]>
    naive <axis> (v) => (w) {
      axes = Constant <value_ints: ints = @axis> ()
      e = Exp (v)
      s = ReduceSum <keepdims = 1> (e, axes)
      w = Div (e, s)
    }"""
    graph = (
        "g (float[4, 4] x) => (float[4, 4] y) { h = local.naive <axis = [0]> (x)  y = local.naive <axis = [1]> (h) }"
    )
    proto = model(graph, by_axis)
    assert optimized(proto).SerializeToString() == proto.SerializeToString()


def test_functions_that_call_functions() -> None:
    """The inner one is typed by the outer one's body, which is typed by its call."""
    outer = """
    <domain: "local", opset_import: ["" : 18, "local" : 1]>
    twice (v) => (w) {
      r = Relu (v)
      h = local.naive (r)
      w = Log (h)
    }"""
    for functions in ((SOFTMAX, outer), (outer, SOFTMAX)):
        proto = model("g (float[n, 4] x) => (float[n, 4] y) { y = local.twice (x) }", *functions)
        fixed = optimized(proto)
        assert operators(fixed, "naive") == ["Softmax"]
        assert operators(fixed, "twice") == ["Relu", "naive", "Log"]


def test_a_softmax_split_over_a_call_is_left_right() -> None:
    """exp in the function, the sum outside: nothing is inlined, nothing is concluded."""
    exponential = '<domain: "local", opset_import: ["" : 18]> exponential (v) => (w) { w = Exp (v) }'
    graph = """
    g (float[n, 4] x) => (float[n, 4] y) <int64[1] axes = {1}> {
      e = local.exponential (x)
      s = ReduceSum <keepdims = 1> (e, axes)
      y = Div (e, s)
    }"""
    proto = model(graph, exponential)
    assert optimized(proto).SerializeToString() == proto.SerializeToString()


def test_a_function_inside_a_body_and_a_body_inside_a_function() -> None:
    chosen = """
    <domain: "local", opset_import: ["" : 18, "local" : 1]>
    chosen (c, v) => (w) {
      axes = Constant <value_ints = [1]> ()
      w = If (c) <
        then_branch = yes () => (a) { e = Exp (v)  s = ReduceSum <keepdims = 1> (e, axes)  a = Div (e, s) },
        else_branch = no () => (b) { b = local.naive (v) }
      >
    }"""
    graph = """
    g (float[n, 4] x, bool c) => (float[n, 4] y) {
      y = If (c) <
        then_branch = yes () => (float[n, 4] a) { a = local.chosen (c, x) },
        else_branch = no () => (float[n, 4] b) { n = Not (c)  b = local.chosen (c, x) }
      >
    }"""
    proto = model(graph, chosen, SOFTMAX)
    fixed = optimized(proto)
    assert operators(fixed, "naive") == ["Softmax"]
    (function,) = (f for f in fixed.functions if f.name == "chosen")
    branches = {a.name: [n.op_type for n in a.g.node] for n in function.node for a in n.attribute if n.op_type == "If"}
    assert branches == {"then_branch": ["Softmax"], "else_branch": ["naive"]}
    for c in (True, False):
        (y,) = run(fixed, {"x": ROWS, "c": np.asarray(c)})
        close(y, softmax(ROWS))


def test_overloads_are_functions_of_their_own() -> None:
    proto = model("g (float[n, 4] x) => (float[n, 4] y) { h = local.naive (x)  y = local.naive (h) }", SOFTMAX)
    other = proto.functions.add()
    other.CopyFrom(proto.functions[0])
    other.overload = "log"
    other.node[-1].output[0] = "p"
    other.node.append(onnx.helper.make_node("Log", ["p"], ["w"]))
    proto.graph.node[1].overload = "log"
    onnx.checker.check_model(proto)
    assert list(open_onnx(proto).bodies()) == ["local::naive:log", "local::naive"]
    fixed = optimized(proto)
    assert [[n.op_type for n in f.node] for f in fixed.functions] == [["Softmax"], ["LogSoftmax"]]
    assert fixed.graph == proto.graph


def test_a_function_has_operators_of_its_own_opset() -> None:
    """The model is of opset 18, the function of 11: axes are attributes there, and so is what is emitted."""
    old = SOFTMAX.replace('"" : 18', '"" : 11').replace("axes = Constant <value_ints = [1]> ()", "")
    old = old.replace("keepdims = 1> (e, axes)", "keepdims = 1, axes = [1]> (e)")
    proto = onnx.parser.parse_model(f"{HEADER}\ng (float[n, 4] x) => (float[n, 4] y) {{ y = local.naive (x) }}\n{old}")
    fixed = stabilize.optimize(proto)
    assert operators(fixed, "naive") == ["Softmax"]
    assert fixed.functions[0].opset_import == proto.functions[0].opset_import
    assert fixed.functions[0].node[0].attribute[0].i == 1


@pytest.mark.parametrize("opset", ['"" : 9', '"custom" : 1'])
def test_functions_that_cannot_be_read_pass_untouched(opset: str) -> None:
    domain = "" if opset.startswith('""') else "custom."
    function = f'<domain: "local", opset_import: [{opset}]> other (v) => (w) {{ w = {domain}Exp (v) }}'
    graph = "g (float[n, 4] x) => (float[n, 4] y) { y = local.other (x) }"
    proto = onnx.parser.parse_model(f"{HEADER}\n{graph}\n{function}")
    assert stabilize.optimize(proto).SerializeToString() == proto.SerializeToString()


def test_a_function_that_is_never_called_is_left_as_it_is() -> None:
    proto = model("g (float[n, 4] x) => (float[n, 4] y) { y = Relu (x) }", SOFTMAX)
    assert optimized(proto).SerializeToString() == proto.SerializeToString()


def test_an_operator_that_the_model_defines_anew_is_not_emitted() -> None:
    """A function named Softmax in the default domain: it is not what the standard calls so."""
    own = '<domain: "", opset_import: ["" : 18]> Softmax (v) => (w) { w = Neg (v) }'
    graph = """
    g (float[n, 4] x) => (float[n, 4] y) <int64[1] axes = {1}> {
      e = Exp (x)
      s = ReduceSum <keepdims = 1> (e, axes)
      y = Div (e, s)
    }"""
    proto = onnx.parser.parse_model(f"{HEADER}\n{graph}\n{own}")
    fixed, report = stabilize.optimize(proto, return_report=True)
    assert "Softmax" not in [n.op_type for n in fixed.graph.node]
    assert any("a function of its own named Softmax" in d.reason for d in report.declined)


def test_ir_models_get_the_same_functions() -> None:
    proto = model("g (float[n, 4] x) => (float[n, 4] y) { y = local.naive (x) }", SOFTMAX)
    given = ir.from_proto(proto)
    before = ir.to_proto(given).SerializeToString()
    fixed = stabilize.optimize(given)
    assert ir.to_proto(given).SerializeToString() == before
    assert operators(ir.to_proto(fixed), "naive") == ["Softmax"]
    assert all(v.type is None and v.shape is None for f in fixed.functions.values() for v in f.inputs)

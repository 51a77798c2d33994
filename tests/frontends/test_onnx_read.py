"""The reader: spellings that differ by opset, types it cannot know, and everything that must stay opaque."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from stabilize.errors import ModelError
from stabilize.frontends.onnx import open_onnx
from stabilize.frontends.onnx_read import source_of
from stabilize.frontends.onnx_types import to_torch
from stabilize.graph.text import show
from stabilize.graph.value import TensorType, Value, cone
from stabilize.graph.view import Source, View
from stabilize.verify.execute import execute
from tests.frontends.onnx_support import model


def view(text: str, opset: int = 18, ir_version: int = 10) -> View:
    return open_onnx(model(text, opset, ir_version)).view


def output(text: str, opset: int = 18) -> str:
    """The text form of the only output."""
    return show(view(text, opset).outputs).splitlines()[-1].removeprefix("    return ")


def graph(body: str, inputs: str = "float[2, 5] x", out: str = "float[2, 5] y") -> str:
    return f"g ({inputs}) => ({out}) {{\n{body}\n}}"


# --- one function, several spellings ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opset", "body"),
    [
        (11, "y = ReduceSum <axes = [1], keepdims = 0> (x)"),
        (13, "a = Constant <value_ints = [1]> ()\n y = ReduceSum <keepdims = 0> (x, a)"),
        (13, "a = Constant <value = int64[1] {-1}> ()\n y = ReduceSum <keepdims = 0> (x, a)"),
        (18, "a = Constant <value_int = 1> ()\n s = Constant <value_ints = [1]> ()\n"
             " r = Reshape (a, s)\n y = ReduceSum <keepdims = 0> (x, r)"),
    ],
)  # fmt: skip
def test_axes_of_every_opset(opset: int, body: str) -> None:
    assert output(graph(body, out="float[2] y"), opset) == "sum(x, axes=(1,), keepdim=False)"


def test_axes_that_are_computed_are_opaque() -> None:
    (y,) = view(graph("y = ReduceSum <keepdims = 0> (x, a)", "float[2, 5] x, int64[1] a", "float[k] y")).outputs
    assert y.op == "opaque"


def test_no_axes() -> None:
    assert output(graph("y = ReduceMax <keepdims = 0> (x)", out="float y")) == "max(x, axes=(0, 1), keepdim=False)"
    kept = "e = Exp (x)\n y = ReduceSum <noop_with_empty_axes = 1> (e)"
    assert output(graph(kept)) == "exp(x)"


@pytest.mark.parametrize(
    "body",
    [
        "two = Constant <value = float {2}> ()\n y = Mul (x, two)",
        "two = Constant <value_float = 2.0> ()\n t = CastLike (two, x)\n y = Mul (x, t)",
        "two = Constant <value = int64 {2}> ()\n t = Cast <to = 1> (two)\n i = Identity (t)\n y = Mul (x, i)",
        "four = Constant <value = float {4}> ()\n two = Sqrt (four)\n y = Mul (x, two)",
        "y = Mul (x, w)",
    ],
)
def test_scalars_in_every_spelling(body: str) -> None:
    weights = "<float w = {2}>" if "w)" in body else ""
    assert output(f"g (float[2, 5] x) => (float[2, 5] y) {weights} {{\n{body}\n}}") == "mul(x, 2.0)"


def test_uniform_weights_are_constants_and_others_are_parameters() -> None:
    text = """
    g (float[2, 2] x) => (float[2, 2] y) <float[2, 2] ones = {1, 1, 1, 1}, float[2] w = {1, 2}, float[2] w2 = {1, 2}> {
      a = Add (x, ones)
      b = Mul (a, w)
      y = Mul (b, w2)
    }"""
    v = view(text)
    assert v.bindings["ones"].op == "constant"
    assert v.bindings["w"] is v.bindings["w2"]
    assert "w" in v.parameters
    assert "ones" not in v.parameters


def test_negative_zero_and_zero_are_two_numbers() -> None:
    v = view("g (float[2] x) => (float[2] y) <float[2] w = {0, -0.0}> {\n y = Add (x, w)\n}")
    assert v.bindings["w"].op == "input"


def test_an_initializer_that_is_an_input_may_change() -> None:
    """From IR 4 on it is a default value only; before, every initializer had to be an input."""
    proto = model("g (float[2] x) => (float[2] y) <float w = {2}> {\n y = Mul (x, w)\n}")
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, []))
    assert show(open_onnx(proto).view.outputs).splitlines()[-1] == "    return mul(x, w)"
    proto.ir_version = 3
    assert show(open_onnx(proto).view.outputs).splitlines()[-1] == "    return mul(x, 2.0)"


def test_softmax_before_opset_13_flattens() -> None:
    assert output(graph("y = Softmax <axis = 1> (x)"), 11) == "softmax(x, axis=1)"
    flat = output(graph("y = Softmax <axis = 1> (x)", "float[2, 3, 4] x", "float[2, 3, 4] y"), 11)
    assert flat == "reshape(softmax(reshape(x, shape=(2, 12)), axis=1), shape=(2, 3, 4))"
    symbolic = view(graph("y = Softmax <axis = 1> (x)", "float[n, 3, m] x", "float[n, 3, m] y"), 11)
    assert symbolic.outputs[0].op == "opaque"
    batch = output(graph("y = Softmax <axis = 2> (x)", "float[b, s, 3, 4] x", "float[b, s, 3, 4] y"), 12)
    assert batch == "reshape(softmax(reshape(x, shape=('b', 's', 12)), axis=2), shape=('b', 's', 3, 4))"
    pooled = output(graph("y = LogSoftmax <axis = 1> (x)", "float[n, 9, 1, 1] x", "float[n, 9, 1, 1] y"), 11)
    assert pooled == "log_softmax(x, axis=1)"
    lone = output(graph("y = Softmax <axis = 1> (x)", "float[n, 1, 1] x", "float[n, 1, 1] y"), 11)
    assert lone == "softmax(x, axis=1)"
    assert output(graph("y = Softmax <axis = 0> (x)"), 13) == "softmax(x, axis=0)"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("y = Gemm <alpha = 0.5, transA = 1> (w, x, c)",
         "add(mul(matmul(transpose(w, perm=(1, 0)), x), 0.5), c)"),
        ("lo = Constant <value = float {0.125}> ()\n y = Clip (x, lo)", "maximum(x, 0.125)"),
        ("y = Max (x, x, c)", "maximum(maximum(x, x), c)"),
        ("y = Mean (x, c)", "div(add(x, c), 2.0)"),
        ("y = Reciprocal (x)", "div(1.0, x)"),
        ("p = Constant <value = int64 {2}> ()\n y = Pow (x, p)", "pow(x, 2.0)"),
        ("a, b = Split <axis = 1, num_outputs = 2> (x)\n y = Concat <axis = 1> (a, b)",
         "concat(slice(x, axis=1, start=0, stop=3, step=1), slice(x, axis=1, start=3, stop=5, step=1), axis=1)"),
        ("i = Constant <value = int64 {-1}> ()\n g = Gather <axis = 1> (x, i)\n u = Flatten (g)\n y = Add (u, x)",
         "add(reshape(squeeze(slice(x, axis=1, start=4, stop=5, step=1), axes=(1,)), shape=(2, 1)), x)"),
        ("s = Constant <value_ints = [5, -1]> ()\n r = Reshape (x, s)\n y = MatMul (x, r)",
         "matmul(x, reshape(x, shape=(5, 2)))"),
        ("y = Dropout (x)", "x"),
        ("y, m = Dropout (x)", "x"),
    ],
)  # fmt: skip
def test_rows(body: str, text: str) -> None:
    assert output(graph(body, "float[2, 5] x, float[2, 2] w, float[5] c", "float[2, k] y")) == text


@pytest.mark.parametrize(
    "equation", ["bhid,bhjd->bhij", "bij,bjk->bik", "ij,jk->ki", "bi,bij->bj", "bij,bj->bi", "i,i->"]
)
def test_einsum_is_a_matrix_product(equation: str) -> None:
    sizes = {"b": 2, "h": 3, "i": 4, "j": 5, "k": 6, "d": 7}
    (a, b), out = equation.partition("->")[0].split(","), equation.partition("->")[2]
    shapes = [[sizes[i] for i in t] for t in (a, b, out)]
    texts = [f"float[{', '.join(map(str, s))}]" if s else "float" for s in shapes]
    v = view(graph(f'y = Einsum <equation = "{equation}"> (p, q)', f"{texts[0]} p, {texts[1]} q", f"{texts[2]} y"))
    assert not any(value.op == "opaque" for value in cone(v.outputs))
    rng = np.random.default_rng(0)
    data = [rng.normal(size=s).astype(np.float32) for s in shapes[:2]]
    (y,) = execute(v.outputs, {v.bindings[n]: to_torch(d) for n, d in zip("pq", data, strict=True)})
    np.testing.assert_allclose(y.numpy(), np.einsum(equation, *data), rtol=1e-5, atol=1e-6)


def test_not_equal_is_one_primitive() -> None:
    assert output(graph("e = Equal (x, x)\n y = Not (e)", out="bool[2, 5] y")) == "ne(x, x)"


def test_one_hot_of_labels() -> None:
    body = """
      depth = Constant <value_int = 7> ()
      values = Constant <value = float[2] {0, 1}> ()
      y = OneHot (l, depth, values)"""
    assert output(graph(body, "int64[3] l", "float[3, 7] y")) == "cast(one_hot(l, classes=7), dtype='float32')"
    other = body.replace("{0, 1}", "{0.1, 0.9}")
    assert output(graph(other, "int64[3] l", "float[3, 7] y")).startswith("where(one_hot(l, classes=7), ")


def test_losses() -> None:
    body = 'y, p = SoftmaxCrossEntropyLoss <reduction = "sum", ignore_index = 3> (x, l)'
    v = view(graph(body, "float[2, 5] x, int64[2] l", "float y, float[2, 5] p"))
    assert v.outputs[0].op == "cross_entropy"
    assert v.outputs[0].attr("reduction") == "sum"
    assert v.outputs[0].attr("ignore_index") == 3
    assert show(v.outputs[1:]).endswith("return log_softmax(x, axis=1)")


# --- shapes ---------------------------------------------------------------------------------------------------------


def test_shape_arithmetic_of_dynamic_models() -> None:
    """Reshape to (Shape(x)[0], −1), and the scale 1/√size, as exporters write them."""
    body = """
      s = Shape (x)
      zero = Constant <value_ints = [0]> ()
      n = Gather (s, zero)
      rest = Constant <value_ints = [-1]> ()
      target = Concat <axis = 0> (n, rest)
      flat = Reshape (x, target)
      one = Constant <value_int = 2> ()
      width = Gather (s, one)
      f = Cast <to = 1> (width)
      r = Sqrt (f)
      y = Div (flat, r)"""
    text = output(graph(body, "float[n, 3, 16] x", "float[n, 48] y"))
    assert text == "div(reshape(x, shape=('n', 48)), 4.0)"


def test_arange_of_a_symbolic_size() -> None:
    body = """
      s = Shape <end = 1> (x)
      z = Constant <value_int = 0> ()
      o = Constant <value_int = 1> ()
      n = Squeeze (s)
      y = Range (z, n, o)"""
    assert output(graph(body, "float[n, 3] x", "int64[n] y")) == "arange(size='n', dtype='int64')"


def test_unknown_sizes_get_symbols_of_their_own() -> None:
    v = view(graph("y = Add (a, b)", "float[?, 3] a, float[?, 3] b", "float[?, 3] y"))
    a, b = v.bindings["a"], v.bindings["b"]
    assert a.shape[0] != b.shape[0]
    assert v.outputs[0].op == "opaque"  # the sizes may be 1 and n: what the sum's shape is cannot be said


def test_unknown_ranks_are_opaque() -> None:
    proto = model(graph("e = Exp (x)\n y = Neg (e)"))
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    v = open_onnx(proto).view
    assert v.outputs[0].op == "opaque"
    assert v.bindings["x"].dtype == "other"


def test_a_stated_type_that_contradicts_the_rule_makes_it_opaque() -> None:
    proto = model(graph("e = Exp (x)\n y = Neg (e)"))
    proto.graph.value_info.append(helper.make_tensor_value_info("e", TensorProto.FLOAT, [2, 6]))
    v = open_onnx(proto).view
    assert v.bindings["e"].op == "opaque"
    assert v.bindings["e"].shape == (2, 6)


# --- what stays opaque ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "inputs", "out"),
    [
        ("y = test.Exp (x)", "float[2, 5] x", "float[2, 5] y"),
        ('y = Einsum <equation = "ij->i"> (x)', "float[2, 5] x", "float[2] y"),
        ('y = Einsum <equation = "ii,ij->j"> (x, x)', "float[5, 5] x", "float[5] y"),
        ('y = Einsum <equation = "bij,kj->bik"> (x, z)', "float[2, 3, 4] x, float[5, 4] z", "float[2, 3, 5] y"),
        ("y = Hardmax (x)", "float[2, 5] x", "float[2, 5] y"),
        ("a = Constant <value_int = 1> ()\n y = CumSum <reverse = 1> (x, a)", "float[2, 5] x", "float[2, 5] y"),
        ("a = Constant <value_int = 1> ()\n y = CumSum <exclusive = 1> (x, a)", "float[2, 5] x", "float[2, 5] y"),
        ("y = Div (x, x)", "int64[2] x", "int64[2] y"),
        ("y = Pow (x, p)", "float[2] x, int64[2] p", "float[2] y"),
        ("y = ArgMax <select_last_index = 1, keepdims = 0> (x)", "float[2, 5] x", "int64[5] y"),
        ("y = Cast <to = 12> (x)", "float[2] x", "uint32[2] y"),
        ("y = Gather (x, i)", "float[9, 5] x, int64[2, 3] i", "float[2, 3, 5] y"),
    ],
)
def test_opaque(body: str, inputs: str, out: str) -> None:
    (y,) = view(graph(body, inputs, out)).outputs
    assert y.op == "opaque"
    assert y.type.dtype != "other" or "uint32" in out


def test_pure_opaque_calls_merge_and_random_ones_do_not() -> None:
    body = """
      a = Hardmax (x)
      b = Hardmax (x)
      c = Hardmax <axis = 0> (x)
      d = RandomUniformLike (x)
      e = RandomUniformLike (x)
      y = Sum (a, b, c, d, e)"""
    v = view(graph(body))
    assert v.bindings["a"] is v.bindings["b"]
    assert v.bindings["a"] is not v.bindings["c"]
    assert v.bindings["d"] is not v.bindings["e"]


def test_dropout_in_training_is_random() -> None:
    body = "t = Constant <value = bool {1}> ()\n a = Dropout (x, , t)\n b = Dropout (x, , t)\n y = Sub (a, b)"
    v = view(graph(body))
    assert v.bindings["a"].op == "opaque"
    assert v.bindings["a"] is not v.bindings["b"]


def test_optional_inputs_by_position() -> None:
    """Clip(x, lo) and Clip(x, , hi) differ only by where the operand stands."""
    v = view(graph("a = Clip (x, m)\n b = Clip (x, , m)\n y = Sub (a, b)", "float[2, 5] x, float m"))
    assert v.bindings["a"].op == "maximum"
    assert v.bindings["b"].op == "minimum"
    norm = "LayerNormalization <axis = 1>"
    w = view(graph(f"a = {norm} (x, s, s)\n b = {norm} (x, s)\n y = Sub (a, b)", "float[2, 5] x, float[5] s"))
    assert w.bindings["a"] is not w.bindings["b"]
    added = 'ScatterElements <reduction = "add">'
    z = view(
        graph(f"a = {added} (x, i, x)\n b = ScatterElements (x, i, x)\n y = Sub (a, b)", "float[2, 5] x, int64[2, 5] i")
    )
    assert z.bindings["a"] is not z.bindings["b"]


def test_local_functions_are_opaque() -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 18, "local" : 1]>
    g (float[4] x) => (float[4] y) { y = local.Exp (x) }
    <domain: "local", opset_import: ["" : 18]>
    Exp (a) => (b) { b = Neg (a) }"""
    (y,) = open_onnx(onnx.parser.parse_model(text)).view.outputs
    assert y.op == "opaque"


def test_control_flow_operands_include_what_it_captures() -> None:
    text = """
    g (float[4] x, bool c) => (float[4] y) {
      inner = Exp (x)
      outer = Neg (x)
      y = If (c) <
        then_branch = t () => (float[4] a) {
          a = If (c) <
            then_branch = tt () => (float[4] aa) { aa = Abs (inner) },
            else_branch = tf () => (float[4] ab) { ab = Abs (x) }
          >
        },
        else_branch = f () => (float[4] b) { b = Abs (outer) }
      >
    }"""
    v = view(text)
    (y,) = v.outputs
    names: set[Value] = {v.bindings[n] for n in ("c", "inner", "outer", "x")}
    assert set(y.operands) == names


def test_dead_nodes_are_not_bound() -> None:
    v = view(graph("dead = Exp (x)\n y = Neg (x)"))
    assert "dead" not in v.bindings


def test_large_and_text_tensors_are_leaves() -> None:
    proto = model(graph("y = Add (x, w)", "float[200000] x", "float[200000] y"))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(200000, np.float32), "w"))
    v = open_onnx(proto).view
    assert v.bindings["w"].op == "input"
    assert v.bindings["w"].type == TensorType("float32", (200000,))


def test_sources() -> None:
    metadata = {
        "pkg.torch.onnx.stack_trace": 'File "a.py", line 3, in forward\n    x\nFile "b.py", line 7, in f\n    y',
        "pkg.torch.onnx.name_scopes": "['', 'encoder', 'encoder.attention', 'softmax']",
    }
    assert source_of(metadata) == Source("encoder.attention", "b.py", 7)
    assert source_of({"pkg.torch.onnx.name_scopes": "['', 'exp']"}) is None
    assert source_of({"pkg.torch.onnx.name_scopes": "not a list"}) is None
    assert source_of({"pkg.torch.onnx.name_scopes": "5"}) is None
    assert source_of({}) is None


# --- malformed models ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        'y = ReduceSum <keepdims = "a"> (x)',
        'y = Softmax <axis = "a"> (x)',
        'y = Shape <start = "a"> (x)',
        "y = Reshape (x, s)",
        "y = Concat <axis = 0> ()",
        "y = Max ()",
        "y = Identity ()",
        "y = Slice (x, s, e)",
        "y = EyeLike <dtype = 99> (x)",
        "y = Constant <value_int = 1, value_float = 2.0> ()",
        "y = Constant ()",
        "y = Unsqueeze (x, z)",
        "y = Squeeze (x, z)",
        "y = Transpose <perm = [0, 5]> (x)",
        "y = Transpose <perm = [0, 0]> (x)",
        "y = Flatten <axis = 7> (x)",
        "y = Split <axis = 9> (x)",
        "y = Gather <axis = 4> (x, z)",
        "y = Expand (x, s)",
        "y = ConstantOfShape (n)",
        "y = LogSoftmax <axis = -9> (x)",
        "y = ArgMax <axis = 9> (x)",
        "y = ReduceSum (x, s)",
        "y = OneHot (x, z, x)",
    ],
)
def test_a_node_that_its_operator_does_not_allow_is_opaque(body: str) -> None:
    constants = "int64[3] s = {2, 3, 0}, int64[2] z = {0, 0}, int64[1] e = {3}, int64[1] n = {-4}"
    (y,) = view(f"g (float[2, 3] x) => (float[2, 3] y) <{constants}> {{\n{body}\n}}").outputs
    assert y.op == "opaque"


def test_nodes_out_of_order_are_refused() -> None:
    proto = model(graph("a = Exp (x)\n y = Neg (a)"))
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    with pytest.raises(ModelError, match=r"input 'a' of Neg .* later node.*sort"):
        open_onnx(proto)
    with pytest.raises(ModelError, match="sort"):
        open_onnx(ir.serde.deserialize_model(proto))


def test_cycles_are_refused() -> None:
    with pytest.raises(ModelError, match=r"input 'b' of Add .*own output"):
        open_onnx(model(graph("a = Add (x, b)\n b = Neg (a)\n y = Exp (b)")))


def test_outputs_that_nothing_computes_are_refused() -> None:
    proto = model(graph("y = Exp (x)"))
    proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [2]))
    with pytest.raises(ModelError, match=r"output 'z' .* is computed nowhere.*onnx\.checker"):
        open_onnx(proto)


def test_order_counts_inside_control_flow_too() -> None:
    inner = helper.make_graph(
        [helper.make_node("Neg", ["later"], ["t"])], "then", [], [helper.make_tensor_value_info("t", 1, [2, 5])]
    )
    proto = model(graph("c = IsNaN (k)\n y = Identity (x)\n later = Exp (x)", "float[2, 5] x, float k"))
    proto.graph.node[1].CopyFrom(helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner))
    with pytest.raises(ModelError, match="input 'later' of Neg"):
        open_onnx(proto)

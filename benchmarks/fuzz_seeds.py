"""Valid models that `fuzz.py` mutates: small ones, in every corner of both formats."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import TensorProto, helper, numpy_helper


@dataclass
class Model:
    """A model file, the files beside it, and links from a name to a path."""

    kind: str
    data: bytes
    beside: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)


HEAD = """g (float[n, 6] x) => (float[n, 6] y) <int64[1] axes = {1}, float eps = {1e-6}> {
  e = Exp (x)
  s = ReduceSum <keepdims = 1> (e, axes)
  g = Add (s, eps)
  p = Div (e, g)
  y = Log (p)
}"""
HEAD_12 = HEAD.replace("int64[1] axes = {1}, ", "").replace(
    "<keepdims = 1> (e, axes)", "<axes = [1], keepdims = 1> (e)"
)

SIGMOID = """g (float[n, 6] x) => (float[n, 6] y, float loss) <float one = {1}> {
  m = Neg (x)
  e = Exp (m)
  d = Add (one, e)
  p = Div (one, d)
  q = Sub (one, p)
  y = Log (q)
  loss = ReduceMean <keepdims = 0> (y)
}"""

ATTENTION = """g (float[b, 4, 8] x, bool[4, 4] mask) => (float[b, 4, 8] y)
<float low = {-inf}, float scale = {2.8284271}> {
  q = MatMul (x, wq)
  k = MatMul (x, wk)
  v = MatMul (x, wv)
  kt = Transpose <perm = [0, 2, 1]> (k)
  a = MatMul (q, kt)
  s = Div (a, scale)
  w = Where (mask, s, low)
  e = Exp (w)
  t = ReduceSum <keepdims = 1> (e, last)
  p = Div (e, t)
  o = MatMul (p, v)
  r = Add (o, x)
  mu = ReduceMean <keepdims = 1> (r, last)
  c = Sub (r, mu)
  c2 = Mul (c, c)
  var = ReduceMean <keepdims = 1> (c2, last)
  ve = Add (var, eps)
  sd = Sqrt (ve)
  y = Div (c, sd)
}"""

SHAPES = """g (float[n, 3, 4] x) => (float[n, k] y)
<int64[1] zero = {0}, int64[1] one = {1}, int64[1] minus = {-1}, int64[1] two = {2}, int64 i = {2}> {
  s = Shape (x)
  n = Gather (s, zero)
  t = Concat <axis = 0> (n, minus)
  f = Reshape (x, t)
  d = Gather <axis = 0> (s, i)
  df = Cast <to = 1> (d)
  r = Sqrt (df)
  z = Div (f, r)
  c = Slice (z, zero, two, one, one)
  u = Unsqueeze (c, minus)
  q = Squeeze (u, minus)
  w = Expand (q, one)
  tt = Tile (w, two)
  m = ConstantOfShape (two)
  rg = Range (i, i, i)
  e = Exp (tt)
  ss = ReduceSum <keepdims = 1> (e, minus)
  y = Div (e, ss)
}""".replace(
    "  tt = Tile (w, two)\n  m = ConstantOfShape (two)\n  rg = Range (i, i, i)\n  e = Exp (tt)", "  e = Exp (w)"
)

FUNCTIONS = """<ir_version: 9, opset_import: ["" : 18, "local" : 1]>
g (float[n, 6] x) => (float[n, 6] y) {
  p = local.soft (x)
  y = local.logs <base = 2.0> (p)
}
<domain: "local", opset_import: ["" : 18]>
soft (x) => (y) {
  e = Exp (x)
  axes = Constant <value = int64[1] {-1}> ()
  s = ReduceSum <keepdims = 1> (e, axes)
  y = Div (e, s)
}
<domain: "local", opset_import: ["" : 18, "local" : 1]>
logs <base: float = 1.0> (x) => (y) {
  b = Constant <value_float: float = @base> ()
  l = Log (x)
  s = local.soft (x)
  m = Mul (s, l)
  y = Div (m, b)
}"""


def text(source: str, opset: int = 18, ir_version: int = 9, **tensors: np.ndarray) -> onnx.ModelProto:
    """A model from ONNX's text form; `tensors` become initializers."""
    if source.startswith("<ir"):
        return onnx.parser.parse_model(source)
    graph = onnx.parser.parse_graph(source)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in tensors.items())
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def _weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def in_format(name: str) -> onnx.ModelProto:
    return text(HEAD.replace("float", name).replace("1e-6", "1"))


def attention() -> onnx.ModelProto:
    tensors = {name: _weights(8, 8) for name in ("wq", "wk", "wv")}
    return text(ATTENTION, last=np.asarray([-1]), eps=np.asarray(1e-5, np.float32), **tensors)


def _info(name: str, dtype: int, shape: list[Any] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def control_flow() -> onnx.ModelProto:
    """If, Loop and Scan, whose bodies hold the naive forms and capture values from outside."""

    def body(name: str, inputs: list[onnx.ValueInfoProto], source: str, outputs: dict[str, int]) -> onnx.GraphProto:
        nodes = [
            helper.make_node("Exp", [source], [f"{name}_e"], name=f"{name}_exp"),
            helper.make_node("ReduceSum", [f"{name}_e", "axes"], [f"{name}_s"], keepdims=1),
            helper.make_node("Div", [f"{name}_e", f"{name}_s"], [f"{name}_p"]),
        ]
        if name == "loop":
            nodes.append(helper.make_node("Identity", ["loop_in"], ["loop_c"]))
        return helper.make_graph(nodes, name, inputs, [_info(n, d, None) for n, d in outputs.items()])

    f, i, b = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
    then, other = body("then", [], "x", {"then_p": f}), body("else", [], "x", {"else_p": f})
    loop_inputs = [_info("loop_i", i, []), _info("loop_in", b, []), _info("loop_x", f, ["n", 6])]
    loop = body("loop", loop_inputs, "loop_x", {"loop_c": b, "loop_p": f})
    scan = body("scan", [_info("scan_x", f, [1, 6])], "scan_x", {"scan_p": f})
    nodes = [
        helper.make_node("If", ["c"], ["h"], then_branch=then, else_branch=other),
        helper.make_node("Loop", ["trips", "c", "x"], ["l"], body=loop),
        helper.make_node("Unsqueeze", ["l", "axes"], ["u"]),
        helper.make_node("Scan", ["u"], ["z"], body=scan, num_scan_inputs=1),
        helper.make_node("Add", ["h", "l"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(np.asarray([1]), "axes"), numpy_helper.from_array(np.asarray(3), "trips")]
    graph = helper.make_graph(
        nodes, "g", [_info("x", f, ["n", 6]), _info("c", b, [])], [_info("y", f, None), _info("z", f, None)], tensors
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def constants() -> onnx.ModelProto:
    """A constant of each element type, as an initializer and as a node, in raw bytes and in typed fields."""
    proto = text(HEAD)
    graph = proto.graph
    for dtype in ir.DataType:
        if dtype in (ir.DataType.UNDEFINED, ir.DataType.STRING):
            continue
        name = f"c_{dtype.name}".lower()
        tensor = ir.serde.serialize_tensor(ir.tensor(np.ones((2, 3), dtype.numpy()), dtype, name=name))
        graph.initializer.append(tensor)
        graph.node.append(helper.make_node("Constant", [], [f"n_{name}"], value=tensor))
        graph.node.append(helper.make_node("Identity", [name], [f"i_{name}"]))
    for dtype in (1, 6, 7, 9, 10, 11, 12, 13, 14, 15):  # typed fields rather than bytes
        tensor = helper.make_tensor(f"t_{dtype}", dtype, [2], [1, 1])
        graph.initializer.append(tensor)
        graph.node.append(helper.make_node("Identity", [tensor.name], [f"i_{tensor.name}"]))
    graph.initializer.append(helper.make_tensor("words", TensorProto.STRING, [2], [b"a", b"b"]))
    graph.node.append(helper.make_node("Identity", ["words"], ["i_words"]))
    for key, value in (("value_int", 3), ("value_ints", [1, 2]), ("value_float", 0.5), ("value_floats", [0.5, 1.0])):
        graph.node.append(helper.make_node("Constant", [], [f"n_{key}"], **{key: value}))
    graph.node.append(helper.make_node("Constant", [], ["n_string"], value_string="word"))
    graph.node.append(helper.make_node("Constant", [], ["n_strings"], value_strings=["a", "b"]))
    proto.ir_version, proto.opset_import[0].version = 11, 23
    return proto


def containers() -> onnx.ModelProto:
    """Values that are no tensors: sequences, optionals, sparse tensors; and operators nobody knows."""
    proto = text(HEAD)
    graph, f = proto.graph, TensorProto.FLOAT
    tensor = helper.make_tensor_type_proto(f, ["n", 6])
    graph.input.append(helper.make_value_info("seq", helper.make_sequence_type_proto(tensor)))
    graph.input.append(helper.make_value_info("opt", helper.make_optional_type_proto(tensor)))
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("sp", f, [2], [1.0, 2.0]), helper.make_tensor("sp_i", TensorProto.INT64, [2], [1, 4]), [6]
    )
    graph.sparse_initializer.append(sparse)
    at = helper.make_tensor("at", TensorProto.INT64, [], [0])
    graph.initializer.append(at)
    graph.node.extend([
        helper.make_node("SequenceAt", ["seq", "at"], ["first"]),
        helper.make_node("OptionalHasElement", ["opt"], ["has"]),
        helper.make_node("SequenceConstruct", ["x", "y"], ["pair"]),
        helper.make_node("Add", ["y", "sp"], ["dense"]),
        helper.make_node("Fused", ["y", "first"], ["fused"], domain="com.example", alpha=2.0, words=["a", "b"]),
        helper.make_node("Softmax", ["fused"], ["z"], domain="com.example"),
        helper.make_node("Gelu", ["y"], ["gelu"], domain="com.microsoft"),
    ])  # fmt: skip
    graph.output.extend([_info("z", f, None), _info("gelu", f, ["n", 6]), _info("dense", f, ["n", 6])])
    graph.output.append(helper.make_value_info("pair", helper.make_sequence_type_proto(tensor)))
    proto.opset_import.extend([helper.make_opsetid("com.example", 3), helper.make_opsetid("com.microsoft", 1)])
    helper.set_model_props(proto, {"author": "somebody"})
    graph.quantization_annotation.add(tensor_name="y").quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="eps")
    return proto


def external() -> Model:
    proto, data = attention(), b""
    for tensor in proto.graph.initializer:
        if not tensor.name.startswith("w"):
            continue
        raw = tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "weights.bin"), ("offset", len(data)), ("length", len(raw))):
            tensor.external_data.add(key=key, value=str(value))
        data += raw
    return Model("onnx", proto.SerializeToString(), {"weights.bin": data})


class Block(torch.nn.Module):
    """One head of attention, a gate and a norm, written as in a textbook."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(11, 8)
        self.inner = torch.nn.Linear(8, 24)
        self.outer = torch.nn.Linear(8, 11, bias=False)
        self.register_buffer("causal", torch.ones(16, 16).tril().bool())
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        q, k, v = self.inner(x).chunk(3, dim=-1)
        n = tokens.shape[1]
        scores = (q @ k.transpose(1, 2) / 8**0.5).masked_fill(~self.causal[:n, :n], float("-inf"))  # type: ignore[index]
        e = torch.exp(scores)
        x = x + (e / e.sum(dim=-1, keepdim=True)) @ v
        x = x * (1 / (1 + torch.exp(-x)))
        c = x - x.mean(dim=-1, keepdim=True)
        x = c / torch.sqrt((c * c).mean(dim=-1, keepdim=True) + 1e-5)
        logits = self.outer(x)
        p = torch.exp(logits) / torch.exp(logits).sum(dim=-1, keepdim=True)
        return torch.log(p)


class Branches(torch.nn.Module):
    """`torch.cond` over two graphs, mutable buffers, several inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))
        self.scale = torch.nn.Parameter(torch.ones(5))

    def forward(self, x: torch.Tensor, extra: dict[str, list[torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
        self.count.add_(1)  # type: ignore[operator]
        y = torch.cond(x.sum() > 0, lambda a: torch.log(1 + torch.exp(a)), lambda a: torch.exp(a) - 1, (x,))
        return y * self.scale, (extra["more"][0] * 2).sum(dim=-1)


class Scalars(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
        e = torch.exp(x.to(torch.float16))
        p = e / e.sum(dim=-1, keepdim=True)
        picked = -torch.log(p)[torch.arange(x.shape[0]), y]
        return picked.mean() * n + torch.log(1 + x.sum()) - torch.sqrt((x**2).sum())


def _pt2(module: torch.nn.Module, args: tuple[Any, ...], shapes: Any = None, **options: Any) -> Model:
    program = torch.export.export(module, args, dynamic_shapes=shapes, **options)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return Model("pt2", buffer.getvalue())


def pt2_models() -> dict[str, Model]:
    torch.manual_seed(0)
    batch, length = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("length", min=2, max=15)
    tokens = torch.randint(11, (3, 5))
    labels = torch.randint(5, (3,))
    return {
        "block": _pt2(Block().eval(), (tokens,), ({0: batch, 1: length},)),
        "block, static": _pt2(Block(), (tokens,)),
        "branches": _pt2(Branches(), (torch.randn(4, 5), {"more": [torch.randn(3, 2)]})),
        "scalars": _pt2(
            Scalars(),
            (torch.randn(3, 5), labels, 3),
            ({0: torch.export.Dim.DYNAMIC}, {0: torch.export.Dim.DYNAMIC}, None),
        ),
    }


def onnx_models() -> dict[str, Model]:
    protos: dict[str, Callable[[], onnx.ModelProto]] = {
        "attention": attention,
        "sigmoid": lambda: text(SIGMOID),
        "shapes": lambda: text(SHAPES),
        "functions": lambda: text(FUNCTIONS),
        "control flow": control_flow,
        "constants": constants,
        "containers": containers,
        "exported": exported,
        "half": lambda: in_format("float16"),
        "bfloat16": lambda: in_format("bfloat16"),
        "double": lambda: in_format("double"),
    }
    models = {name: Model("onnx", make().SerializeToString()) for name, make in protos.items()}
    for opset in range(7, 27):
        proto = text(HEAD if opset >= 13 else HEAD_12, opset, 8 if opset < 19 else 10)
        models[f"opset {opset}"] = Model("onnx", proto.SerializeToString())
    models["external data"] = external()
    return models


def exported() -> onnx.ModelProto:
    """What torch's exporter makes of a model, with all its metadata."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(Block().eval(), (torch.randint(11, (3, 5)),), dynamo=True, verbose=False)
    assert program is not None
    return program.model_proto


def models(kinds: frozenset[str]) -> dict[str, Model]:
    """Every valid model of these kinds, by name."""
    found: dict[str, Model] = {}
    if "onnx" in kinds:
        found.update(onnx_models())
    if "pt2" in kinds:
        found.update(pt2_models())
    return found

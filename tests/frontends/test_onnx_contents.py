"""Arrays known before a run: whatever the reader claims to know is what the model computes, in its dtype and shape."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import stabilize
from stabilize.frontends.onnx import open_onnx
from stabilize.frontends.onnx_contents import dtype_of
from stabilize.frontends.onnx_read import Reader
from stabilize.frontends.onnx_types import uniform
from tests.frontends.onnx_support import model, run

IR = 10
OPSET = 18

# --- random subgraphs, against the reference implementation -------------------------------------------------------

INTEGERS = ("int64", "int32", "int8", "uint8")
FLOATS = ("float32", "float64", "float16")
SHAPES = ((), (1,), (2,), (3,), (0,), (2, 1), (1, 3), (2, 3))
NUMBERS = (-3, -1, 0, 1, 2, 3, 5, 57, 100, 120)
ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Mod", "Max", "Min")
COMPARISONS = ("Equal", "Less", "Greater")
LAYOUT = ("Identity", "Squeeze", "Unsqueeze", "Reshape", "Gather", "Slice", "Concat", "Where", "ReduceProd")
OPERATORS = (*ARITHMETIC, *COMPARISONS, *LAYOUT, "And", "Or", "Not", "Cast", "CastLike", "Shape", "Size")


class Subgraph:
    """Nodes over constants, each tried in the reference implementation when it is added."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.arrays: dict[str, np.ndarray] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.results: dict[str, np.ndarray] = {}
        self.nodes: list[onnx.NodeProto] = []
        for dtype in (*INTEGERS, *FLOATS, "bool"):
            for shape in self.random.sample(SHAPES, 3):
                self.constant(self.drawn(dtype, shape))

    def drawn(self, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        numbers = [self.random.choice(NUMBERS) for _ in range(int(np.prod(shape)))]
        halves = [n / self.random.choice((1, 1, 2)) for n in numbers]
        array = np.asarray(halves if dtype in FLOATS else numbers, np.float64 if dtype in FLOATS else np.int64)
        return np.abs(array).astype(dtype).reshape(shape) if dtype == "uint8" else array.astype(dtype).reshape(shape)

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.arrays)}"
        self.arrays[name] = self.constants[name] = array
        return name

    def ints(self, *numbers: int) -> str:
        return self.constant(np.asarray(numbers, np.int64))

    def some(self, *dtypes: str) -> str:
        names = [n for n, a in self.arrays.items() if a.dtype.name in dtypes]
        return self.random.choice(names)

    def like(self, name: str) -> str:
        return self.some(self.arrays[name].dtype.name)

    def node(self, op: str) -> tuple[list[str], dict[str, object]]:
        """Inputs and attributes, mostly valid."""
        pick, number = self.random.choice, self.random.randint
        if op in ("And", "Or"):
            return [self.some("bool"), self.some("bool")], {}
        if op == "Not":
            return [self.some("bool")], {}
        numeric = op in ARITHMETIC or op in ("Less", "Greater")
        x = self.some(*INTEGERS, *FLOATS, *(() if numeric else ("bool",)))
        if op in ("Max", "Min"):
            return [x, *(self.like(x) for _ in range(number(0, 2)))], {}
        if op in ARITHMETIC or op in COMPARISONS:
            return [x, self.like(x)], {}
        if op == "Squeeze":
            return [x] if pick((True, False)) else [x, self.ints(number(-2, 1))], {}
        if op == "Unsqueeze":
            return [x, self.ints(*self.random.sample((-2, -1, 0, 1), number(1, 2)))], {}
        if op == "Reshape":
            targets = ((-1,), (0, -1), (1, -1), (2, -1), (-1, 1), (0,), (1,), (3, 2))
            return [x, self.ints(*pick(targets))], {"allowzero": pick((0, 0, 1))}
        if op == "Gather":
            indices = np.asarray(pick((0, -1, [1], [0, -1], [[0], [1]])), np.int64)
            return [x, self.constant(indices)], {"axis": number(-1, 1)}
        if op == "Slice":
            bounds = (-100, -2, -1, 0, 1, 2, 100)
            inputs = [x, self.ints(pick(bounds)), self.ints(pick(bounds))]
            return [*inputs, self.ints(number(-1, 1)), self.ints(pick((1, 2, -1)))], {}
        if op == "Concat":
            return [x, *(self.like(x) for _ in range(number(0, 2)))], {"axis": number(-1, 1)}
        if op == "Where":
            return [self.some("bool"), x, self.like(x)], {}
        if op == "ReduceProd":
            return [self.some("int64", "int32"), *([self.ints(number(-1, 1))] if pick((True, False)) else [])], {
                "keepdims": number(0, 1)
            }
        if op == "Cast":
            target = pick((*INTEGERS, *FLOATS, "bool"))
            return [x], {"to": helper.np_dtype_to_tensor_dtype(np.dtype(target))}
        if op == "CastLike":
            return [x, self.some(*INTEGERS, *FLOATS, "bool")], {}
        return [x], {}

    def add(self, op: str) -> None:
        inputs, attributes = self.node(op)
        name = f"v{len(self.nodes)}"
        node = helper.make_node(op, inputs, [name], **attributes)
        try:
            with np.errstate(all="ignore"):
                (result,) = ReferenceEvaluator(self.model([node])).run(None, {})
        except Exception:  # the operands do not fit: the reference implementation has no error type of its own
            self.nodes.append(node)  # the reader must not know more
            return
        array = self.results[name] = np.asarray(result)
        self.nodes.append(node)
        if array.size <= 32 and array.dtype.name in (*INTEGERS, *FLOATS, "bool"):
            self.arrays[name] = array

    def model(self, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
        output = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.UNDEFINED, None)
        output.ClearField("type")
        used = {name for node in nodes for name in node.input}
        tensors = [numpy_helper.from_array(a, n) for n, a in self.arrays.items() if n in used]
        if nodes is self.nodes:
            tensors = [numpy_helper.from_array(a, n) for n, a in self.constants.items()]
        graph = helper.make_graph(nodes, "g", [], [output], tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)


def known(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    import onnx_ir as ir

    reader = Reader(ir.serde.deserialize_model(proto), proto.opset_import[0].version)
    reader.read()
    return reader.contents


def test_what_is_known_is_what_the_reference_computes() -> None:
    claims: Counter[str] = Counter()
    for seed in range(40):
        subgraph = Subgraph(seed)
        for op in subgraph.random.choices(OPERATORS, k=60):
            subgraph.add(op)
        contents = known(subgraph.model(subgraph.nodes))
        for node in subgraph.nodes:
            name = node.output[0]
            if name not in contents:
                continue
            claims[node.op_type] += 1
            assert name in subgraph.results, node
            wanted = subgraph.results[name]
            assert contents[name].dtype == wanted.dtype, (seed, node)
            assert contents[name].shape == wanted.shape, (seed, node)
            assert contents[name].tobytes() == wanted.tobytes(), (seed, node, contents[name], wanted)
    assert all(claims[op] >= 10 for op in OPERATORS), claims


# --- one by one ---------------------------------------------------------------------------------------------------

CASES = {
    "float division": ("float a = {3}, float b = {2}", "y = Div (a, b)", 1.5),
    "half of an odd size": (
        "int64 i = {1}, float b = {2}",
        "s = Shape (x)\n d = Gather (s, i)\n f = Cast <to = 1> (d)\n y = Div (f, b)", 1.5,
    ),
    "truth of a number": ("int64 a = {5}", "b = Cast <to = 9> (a)\n y = Cast <to = 1> (b)", 1.0),
    "not": ("int64 a = {5}", "b = Cast <to = 9> (a)\n n = Not (b)\n y = Cast <to = 1> (n)", 0.0),
    "cast that wraps": ("int64 a = {258}", "b = Cast <to = 2> (a)\n y = Cast <to = 1> (b)", 2.0),
    "uint8": ("uint8 a = {200}, uint8 b = {57}", "c = Add (a, b)\n y = Cast <to = 1> (c)", 1.0),
    "int8": ("int8 a = {100}", "c = Add (a, a)\n y = Cast <to = 1> (c)", -56.0),
    "max of three": ("int64 a = {1}, int64 b = {2}, int64 c = {3}", "m = Max (a, b, c)\n y = Cast <to = 1> (m)", 3.0),
    "min of three": ("int64 a = {2}, int64 b = {3}, int64 c = {1}", "m = Min (a, b, c)\n y = Cast <to = 1> (m)", 1.0),
    "empty product": (
        "int64[2] a = {2, 3}, int64[1] s = {0}, int64[1] e = {-100}",
        "c = Slice (a, s, e)\n p = ReduceProd <keepdims = 0> (c)\n y = Cast <to = 1> (p)", 1.0,
    ),
    "columns side by side": (
        "int64[2] a = {1, 2}, int64[2] b = {3, 4}, int64[1] one = {1}, int64[1] flat = {-1}, int64 i = {1}",
        "c = Unsqueeze (a, one)\n d = Unsqueeze (b, one)\n e = Concat <axis = 1> (c, d)\n f = Reshape (e, flat)\n"
        " g = Gather (f, i)\n y = Cast <to = 1> (g)", 3.0,
    ),
    "outer sum": (
        "int64[2, 1] a = {1, 2}, int64[2] b = {3, 4}, int64[1] flat = {-1}, int64 i = {1}",
        "c = Add (a, b)\n f = Reshape (c, flat)\n g = Gather (f, i)\n y = Cast <to = 1> (g)", 5.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_known_in_its_own_dtype_and_shape(name: str) -> None:
    constants, body, value = CASES[name]
    proto = model(f"g (float[2, 3] x) => (float y) <{constants}> {{\n{body}\n}}")
    (y,) = run(proto, {"x": np.zeros((2, 3), np.float32)})
    assert float(y) == value
    read = open_onnx(proto).view.outputs[0]
    assert (read.op, read.attr("value")) == ("constant", value)


@pytest.mark.parametrize("dtype", ["float", "float16", "double"])
def test_a_temperature_that_is_computed(dtype: str) -> None:
    """log softmax(1.5·x), not of x: the certificate is based on the same reading, so only a run tells."""
    text = f"""g ({dtype}[2, 3] x) => ({dtype}[2, 3] y) <{dtype} a = {{3}}, {dtype} b = {{2}}, int64[1] ax = {{-1}}> {{
      tau = Div (a, b)
      e = Exp (x)
      p = Pow (e, tau)
      t = ReduceSum <keepdims = 1> (p, ax)
      q = Div (p, t)
      y = Log (q)
    }}"""
    x = np.asarray([[1, 2, 3], [4, 0, 2]], {"float": np.float32, "float16": np.float16, "double": np.float64}[dtype])
    proto = model(text)
    fixed = stabilize.optimize(proto)
    assert isinstance(fixed, onnx.ModelProto)
    wanted, found = run(proto, {"x": x})[0], run(fixed, {"x": x})[0]
    np.testing.assert_allclose(found, wanted, rtol=2e-2 if dtype == "float16" else 1e-5)


def test_symbols_are_moved_and_not_computed_with() -> None:
    body = """
      s = Shape (x)
      i = Cast <to = 6> (s)
      m = Unsqueeze (s, zero)
      d = Add (s, s)
      c = Concat <axis = 0> (s, zero)
      r = Slice (c, two, three)
      y = Identity (x)"""
    constants = "int64[1] zero = {0}, int64[1] two = {2}, int64[1] three = {3}"
    contents = known(model(f"g (float[n, 3] x) => (float[n, 3] y) <{constants}> {{{body}\n}}"))
    assert contents["s"].tolist() == ["n", 3]
    assert contents["c"].tolist() == ["n", 3, 0]
    assert contents["r"].dtype == np.int64
    assert (contents["i"].tolist(), dtype_of(contents["i"])) == (["n", 3], "int32")
    assert not {"m", "d"} & contents.keys()


def test_rounded_floats_are_left_to_the_rules() -> None:
    body = "q = Div (a, b)\n y = Mul (x, q)"
    proto = model(f"g (float[2] x) => (float[2] y) <float a = {{1}}, float b = {{3}}> {{\n{body}\n}}")
    assert "q" not in known(proto)
    factor = open_onnx(proto).view.outputs[0].operands[1]
    assert factor.attr("value") == uniform(np.asarray(np.float32(1) / np.float32(3)))


def test_sizes_through_int32() -> None:
    """What converters from TensorFlow write: the shape as int32, cut and joined there, and back."""
    text = """
    g (float[n, m, 4] x) => (float[n, m, 4] y, int32[3] k)
      <int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int32[1] four = {4}> {
      dims = Shape (x)
      narrow = Cast <to = 6> (dims)
      head = Slice (narrow, zero, two, zero)
      k = Concat <axis = 0> (head, four)
      target = Cast <to = 7> (k)
      y = Reshape (x, target)
    }"""
    view = open_onnx(model(text)).view
    assert view.bindings["y"] is view.bindings["x"]
    assert view.bindings["k"].dtype == "int32"


def test_numbers_among_sizes_keep_int32() -> None:
    """The last size is 4: cut out of an int32 shape it is an int32, and no operand of an int64 operator."""
    text = """
    g (float[n, 4] x) => (int32[1] y) <int64[1] one = {1}, int64[1] two = {2}, int64[1] zero = {0}> {
      dims = Shape (x)
      narrow = Cast <to = 6> (dims)
      y = Slice (narrow, one, two, zero)
    }"""
    y = open_onnx(model(text)).view.bindings["y"]
    assert (y.op, y.dtype, y.attr("value")) == ("constant", "int32", 4)

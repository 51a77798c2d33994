"""Random ONNX models: branches, loops, scans and functions in each other, naive and stable formulas in all of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper

FLOAT = TensorProto.FLOAT
TRUE = helper.make_tensor("true", TensorProto.BOOL, [], [1])

Constant: TypeAlias = Callable[[str], tuple[list[onnx.NodeProto], str]]

#: Formulas of one matrix: operators by name, operands by number (0 is the input), constants in between.
FORMULAS: dict[str, list[tuple[str, list[int | str]]]] = {
    "softmax": [("Exp", [0]), ("ReduceSum", [1, "axes"]), ("Div", [1, 2])],
    "guarded softmax": [("Exp", [0]), ("ReduceSum", [1, "axes"]), ("Add", [2, "one"]), ("Div", [1, 3])],
    "shifted softmax": [
        ("ReduceMax", [0, "axes"]), ("Sub", [0, 1]), ("Exp", [2]), ("ReduceSum", [3, "axes"]), ("Div", [3, 4]),
    ],
    "log softmax": [("Exp", [0]), ("ReduceSum", [1, "axes"]), ("Div", [1, 2]), ("Log", [3])],
    "log-sum-exp": [("Exp", [0]), ("ReduceSum", [1, "axes"]), ("Log", [2]), ("Sub", [0, 3])],
    "softplus": [("Exp", [0]), ("Add", [1, "one"]), ("Log", [2])],
    "root": [("Mul", [0, 0]), ("Add", [1, "one"]), ("Sqrt", [2]), ("Sub", [3, "one"])],
    "sigmoid": [("Neg", [0]), ("Exp", [1]), ("Add", [2, "one"]), ("Div", ["one", 3])],
    "mean": [("ReduceMean", [0, "axes"]), ("Sub", [0, 1])],
    "variance": [("Mul", [0, 0]), ("ReduceMean", [1, "axes"]), ("Sqrt", [2]), ("Add", [0, 3])],
    "tanh": [("Tanh", [0])], "relu": [("Relu", [0])], "negative": [("Neg", [0])], "copy": [("Identity", [0])],
}  # fmt: skip


class Maker:
    """Makes one model. Every value is float32[n, 4] and stays moderate, so that naive formulas are right on it."""

    def __init__(self, seed: int) -> None:
        self.choice = random.Random(seed)
        self.count = 0
        self.functions: list[onnx.FunctionProto] = []

    def model(self) -> onnx.ModelProto:
        for _ in range(self.choice.randrange(3)):
            self.functions.append(self._function())
        nodes, values = self._nodes(["x", "z"], 2, self._outside, self.choice.randrange(3, 8))
        matrix = [helper.make_tensor_value_info(name, FLOAT, ["n", 4]) for name in (*values[-2:], "x", "z")]
        inputs = [*matrix[-2:], helper.make_tensor_value_info("c", TensorProto.BOOL, [])]
        constants = [
            helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
            helper.make_tensor("first", TensorProto.INT64, [1], [0]),
            helper.make_tensor("one", FLOAT, [], [1]),
            helper.make_tensor("two", TensorProto.INT64, [], [2]),
            helper.make_tensor("go", TensorProto.BOOL, [], [1]),
        ]
        outputs = matrix[: len(set(values[-2:]) - {"x", "z"})]
        graph = helper.make_graph(nodes, "random", inputs, outputs, constants)
        imports = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
        return helper.make_model(graph, functions=self.functions, opset_imports=imports, ir_version=10)

    def fresh(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def _outside(self, name: str) -> tuple[list[onnx.NodeProto], str]:
        """A constant of the graph around everything."""
        return [], name

    def _inside(self, name: str) -> tuple[list[onnx.NodeProto], str]:
        """A constant made here, as a function needs it."""
        made = self.fresh(name)
        value: dict[str, Any] = {"axes": {"value_ints": [1]}, "one": {"value_float": 1.0}, "c": {"value": TRUE}}[name]
        return [helper.make_node("Constant", [], [made], **value)], made

    def _nodes(
        self, values: Sequence[str], depth: int, constant: Constant, count: int
    ) -> tuple[list[onnx.NodeProto], list[str]]:
        nodes: list[onnx.NodeProto] = []
        known = list(values)
        in_function = constant == self._inside
        for _ in range(count):
            kinds = ["formula"] * 4 + ["sum"] + (["call"] if self.functions else [])
            kinds += ["if"] if depth else []
            kinds += ["loop", "scan"] if depth and not in_function else []
            kind = self.choice.choice(kinds)
            if kind == "formula":
                nodes += self._formula(known, constant)
            elif kind == "sum":
                half = self.fresh("v")
                nodes.append(helper.make_node("Mean", [self.choice.choice(known) for _ in "ab"], [half]))
                known.append(half)
            elif kind == "call":
                name = self.fresh("v")
                function = self.choice.choice(self.functions).name
                nodes.append(helper.make_node(function, [self.choice.choice(known)], [name], domain="local"))
                known.append(name)
            else:
                nodes += {"if": self._if, "loop": self._loop, "scan": self._scan}[kind](known, depth - 1, constant)
                known.append(nodes[-1].output[0])
        # tanh keeps what loops feed back moderate
        last = self.fresh("v")
        nodes.append(helper.make_node("Tanh", [known[-1]], [last]))
        return nodes, [*known[len(values) :], last]

    def _formula(self, known: list[str], constant: Constant) -> list[onnx.NodeProto]:
        nodes: list[onnx.NodeProto] = []
        names = [self.choice.choice(known)]
        for op_type, operands in FORMULAS[self.choice.choice(list(FORMULAS))]:
            inputs: list[str] = []
            for operand in operands:
                made, name = constant(operand) if isinstance(operand, str) else ([], names[operand])
                nodes += made
                inputs.append(name)
            keep = {"keepdims": 1} if op_type.startswith("Reduce") else {}
            names.append(self.fresh("v"))
            nodes.append(helper.make_node(op_type, inputs, names[-1:], **keep))
        known.append(names[-1])
        return nodes

    def _graph(
        self, known: Sequence[str], depth: int, constant: Constant, state: Sequence[str] = ()
    ) -> tuple[list[onnx.NodeProto], onnx.ValueInfoProto]:
        nodes, values = self._nodes([*known, *state], depth, constant, self.choice.randrange(1, 4))
        return nodes, helper.make_tensor_value_info(values[-1], FLOAT, ["n", 4])

    def _if(self, known: Sequence[str], depth: int, constant: Constant) -> list[onnx.NodeProto]:
        before, condition = constant("c")
        branches = {}
        for name in ("then_branch", "else_branch"):
            nodes, output = self._graph(known, depth, constant)
            if constant == self._inside:  # in a function, sizes are of the call
                output.type.tensor_type.ClearField("shape")
            branches[name] = helper.make_graph(nodes, self.fresh("branch"), [], [output])
        return [*before, helper.make_node("If", [condition], [self.fresh("v")], **branches)]

    def _loop(self, known: Sequence[str], depth: int, constant: Constant) -> list[onnx.NodeProto]:
        """Two steps; what comes out is the mean of the states."""
        state = helper.make_tensor_value_info(self.fresh("state"), FLOAT, ["n", 4])
        step = helper.make_tensor_value_info(self.fresh("step"), TensorProto.INT64, [])
        go = helper.make_tensor_value_info(self.fresh("go"), TensorProto.BOOL, [])
        nodes, output = self._graph(known, depth, constant, [state.name])
        again = helper.make_tensor_value_info(self.fresh("again"), TensorProto.BOOL, [])
        nodes.append(helper.make_node("Identity", [go.name], [again.name]))
        each = helper.make_tensor_value_info(self.fresh("each"), FLOAT, ["n", 4])
        nodes.append(helper.make_node("Neg", [output.name], [each.name]))
        body = helper.make_graph(nodes, self.fresh("body"), [step, go, state], [again, output, each])
        last, all_of_them = self.fresh("v"), self.fresh("v")
        loop = helper.make_node("Loop", ["two", "go", self.choice.choice(known)], [last, all_of_them], body=body)
        mean = helper.make_node("ReduceMean", [all_of_them, "first"], [self.fresh("v")], keepdims=0)
        return [loop, mean]

    def _scan(self, known: Sequence[str], depth: int, constant: Constant) -> list[onnx.NodeProto]:
        """Over the rows: each is a matrix of one row again, beside which the values around are too tall."""
        row = helper.make_tensor_value_info(self.fresh("row"), FLOAT, [4])
        flat, tall = self.fresh("v"), self.fresh("v")
        nodes, values = self._nodes([tall], 0, constant, 2)
        nodes.insert(0, helper.make_node("Reshape", [row.name, flat], [tall]))
        shape = helper.make_tensor(flat, TensorProto.INT64, [2], [1, 4])
        nodes.append(helper.make_node("Squeeze", [values[-1]], [self.fresh("v")]))
        output = helper.make_tensor_value_info(nodes[-1].output[0], FLOAT, [4])
        body = helper.make_graph(nodes, self.fresh("body"), [row], [output], [shape])
        return [helper.make_node("Scan", [self.choice.choice(known)], [self.fresh("v")], body=body, num_scan_inputs=1)]

    def _function(self) -> onnx.FunctionProto:
        name = self.fresh("f")
        nodes, values = self._nodes(["a"], self.choice.randrange(2), self._inside, self.choice.randrange(1, 4))
        imports = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
        return helper.make_function("local", name, ["a"], values[-1:], nodes, imports)


def feeds(seed: int) -> dict[str, np.ndarray]:
    """Inputs on which naive formulas are right."""
    rng = np.random.default_rng(seed)
    x, z = (rng.uniform(-3, 3, (3, 4)).astype(np.float32) for _ in "xz")
    return {"x": x, "z": z, "c": np.asarray(bool(seed % 2))}

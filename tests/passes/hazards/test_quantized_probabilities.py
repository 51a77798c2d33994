"""STB701: softmaxes in 8 bits that lose mass."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import stabilize
from stabilize.passes.hazards.quantized_probabilities import RULE
from tests.frontends.onnx_support import run

_INT8, _UINT8 = np.int8, np.uint8


def quantized(
    step: float, zero: Any, *, op: str = "Softmax", count: int = 5, views: bool = False, naive: bool = False
) -> onnx.ModelProto:
    """`op` over rows of `count`, quantized with this step and zero point."""
    nodes = [helper.make_node(op, ["x"], ["p"], **({"axis": -1} if op == "Softmax" else {}))]
    if naive:
        nodes = [
            helper.make_node("ReduceMax", ["x", "axes"], ["m"], keepdims=1),
            helper.make_node("Sub", ["x", "m"], ["d"]),
            helper.make_node("Exp", ["d"], ["e"]),
            helper.make_node("ReduceSum", ["e", "axes"], ["t"], keepdims=1),
            helper.make_node("Div", ["e", "t"], ["p"]),
        ]
    if views:
        nodes.append(helper.make_node("Transpose", ["p"], ["v"], perm=[1, 0]))
    nodes.append(helper.make_node("QuantizeLinear", ["v" if views else "p", "step", "zero"], ["q"], name="quantize"))
    weights = [numpy_helper.from_array(np.array(step, np.float32), "step"), numpy_helper.from_array(zero, "zero")]
    if naive:
        weights.append(numpy_helper.from_array(np.array([1], np.int64), "axes"))
    kind = TensorProto.INT8 if zero.dtype == np.int8 else TensorProto.UINT8
    shape = [count, 2] if views else [2, count]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, count])],
        [helper.make_tensor_value_info("q", kind, shape)], weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def messages(proto: onnx.ModelProto) -> list[str]:
    found = stabilize.lint(proto, budget=0, select="STB701").findings
    assert all((f.code, f.node, f.fixable) == ("STB701", "q", False) for f in found)
    return [f.message for f in found]


_SYMMETRIC = "probabilities are encoded as [-1.01, 1]"


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (quantized(1 / 127, np.array(0, _INT8)), _SYMMETRIC),
        (quantized(1 / 127, np.array(0, _INT8), views=True), _SYMMETRIC),
        (quantized(1 / 127, np.array(0, _INT8), naive=True), _SYMMETRIC),
        (quantized(2 / 255, np.array(128, _UINT8)), "probabilities are encoded as [-1, 0.996]"),
        (
            quantized(1 / 255, np.array(0, _UINT8), count=1000),
            "a flat row of 1000 probabilities is 0 throughout: each is below half a step of 0.00392",
        ),
    ],
    ids=["int8", "views", "written-out", "uint8", "long"],
)
def test_encodings_that_lose_mass(proto: onnx.ModelProto, message: str) -> None:
    assert [m.partition(" (")[0] for m in messages(proto)] == [message]


@pytest.mark.parametrize(
    "proto",
    [
        quantized(1 / 255, np.array(0, _UINT8)),
        quantized(1 / 255, np.array(-128, _INT8)),
        quantized(1 / 127, np.array(0, _INT8), op="Tanh"),
        quantized(1 / 127, np.array(0, _INT8), op="Sigmoid"),  # a gate is no row of probabilities
        quantized(1 / 255, np.array(0, _UINT8), count=500),  # half a step is below 1/500
    ],
    ids=["uint8", "int8", "tanh", "sigmoid", "short"],
)
def test_near_misses(proto: onnx.ModelProto) -> None:
    assert messages(proto) == []


def test_steps_that_are_computed_are_not_known() -> None:
    proto = quantized(1 / 127, np.array(0, _INT8))
    del proto.graph.initializer[0]
    proto.graph.input.append(helper.make_tensor_value_info("step", TensorProto.FLOAT, []))
    assert messages(proto) == []


def test_the_defect_is_real() -> None:
    """A flat row of 1000 is 0 throughout, and one of 100 has lost a fifth in int8."""
    flat = {n: np.zeros((2, n), np.float32) for n in (1000, 100)}
    assert not run(quantized(1 / 255, np.array(0, _UINT8), count=1000), {"x": flat[1000]})[0].any()
    (codes,) = run(quantized(1 / 127, np.array(0, _INT8), count=100), {"x": flat[100]})
    assert abs(codes.sum(-1) / 127 - 1).max() > 0.2


def test_it_is_a_warning_without_a_witness() -> None:
    assert (RULE.severity, RULE.honest) == ("warning", False)
    (finding,) = stabilize.lint(quantized(1 / 127, np.array(0, _INT8)), select="STB701").findings
    assert (finding.severity, finding.witness) == ("warning", None)

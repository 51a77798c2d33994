"""What runtimes compute: the product's table is the measured one, and decides what is emitted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from stabilize.errors import UsageError
from stabilize.frontends.onnx import open_onnx
from stabilize.frontends.onnx_emit import ROWS, can_emit
from stabilize.frontends.onnx_emitter import Emitter, Names, Place
from stabilize.frontends.onnx_runtimes import PORTABLE, UNSTABLE, Runtime
from stabilize.frontends.onnx_types import DATA_TYPES, host_shape, numpy_dtype
from stabilize.graph.build import Builder
from stabilize.graph.value import TensorType, Value
from tests.frontends.onnx_support import model, run

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import runtime_table

    yield runtime_table
    sys.modules.pop("runtime_table", None)


def test_the_table_is_the_measured_one(table: Any) -> None:
    measured = table.unstable(json.loads((BENCHMARKS / "runtime_accuracy.json").read_text()))
    for runtime, operators in measured.items():
        assert {op: set(formats) for op, formats in UNSTABLE[runtime].items()} == operators, runtime
    assert set(UNSTABLE) - set(measured) == {"tensorrt", "tvm"}
    assert UNSTABLE["tensorrt"] == UNSTABLE["tvm"] == UNSTABLE["portable"]


def test_portable_is_what_every_runtime_computes() -> None:
    for runtime in ("onnxruntime", "openvino"):
        for op, formats in UNSTABLE[runtime].items():
            assert set(formats) <= set(UNSTABLE["portable"][op]), (runtime, op)


def test_unknown_runtimes_are_told() -> None:
    with pytest.raises(UsageError, match="'ort' is not one of portable, onnxruntime"):
        Runtime("ort")


def test_fast_and_avoided_operators() -> None:
    assert not PORTABLE.computes("Sigmoid", "float32")
    assert Runtime(fast=frozenset({"Sigmoid"})).computes("Sigmoid", "float32")
    avoiding = Runtime(avoided=frozenset({("Tanh", "float32")}))
    assert not avoiding.computes("Tanh", "float32")
    assert avoiding.computes("Tanh", "float64")


# --- emission -----------------------------------------------------------------------------------------------------


def emitted(op: str, dtype: str, runtime: Runtime, shape: tuple[int, ...] = (3, 4), **attrs: Any) -> onnx.ModelProto:
    builder = Builder()
    x = builder.input("x", TensorType(dtype, shape))
    host = ir.Value(name="x", type=ir.TensorType(DATA_TYPES[dtype]), shape=host_shape(shape))
    hosts: dict[Value, ir.Value] = {x: host}
    place = Place("p", {}, hosts.get, lambda _: None)
    emitter = Emitter(builder, 18, Names(["x"]), ROWS, place, runtime=runtime)
    y = emitter.value(builder.make(op, x, **attrs)).host
    graph = ir.Graph(
        [host], [y], nodes=emitter.nodes, initializers=emitter.initializers, opset_imports={"": 18}, name="g"
    )
    return ir.serde.serialize_model(ir.Model(graph, ir_version=9))


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize(
    ("op", "dtype", "native"),
    [
        ("softplus", "float32", {"onnxruntime": ["Softplus"]}),
        ("softplus", "float64", {}),
        ("sigmoid", "float32", {"openvino": ["Sigmoid"]}),
        ("tanh", "float32", {"portable": ["Tanh"], "onnxruntime": ["Tanh"], "openvino": ["Tanh"]}),
    ],
)
def test_the_runtime_decides(op: str, dtype: str, native: dict[str, list[str]]) -> None:
    for runtime in ("portable", "onnxruntime", "openvino"):
        written = operators(emitted(op, dtype, Runtime(runtime)))
        assert (written == native[runtime]) if runtime in native else (op.capitalize() not in written), runtime
    assert operators(emitted(op, dtype, Runtime(fast=frozenset({op.capitalize()})))) == [op.capitalize()]


def test_half_precision_is_widened_where_the_kernel_is_coarse() -> None:
    assert operators(emitted("softplus", "float16", Runtime("onnxruntime"))) == ["Cast", "Softplus", "Cast"]
    assert "Sigmoid" not in operators(emitted("sigmoid", "float16", Runtime("onnxruntime")))
    assert operators(emitted("asin", "float16", PORTABLE)) == ["Asin"]


def test_can_emit_asks_for_the_runtime() -> None:
    builder = Builder()
    x = builder.input("x", TensorType("float32", (2,)))
    assert can_emit(builder.make("softplus", x), 18, builder, Runtime("onnxruntime")) is None


# --- the norm, which no runtime computes ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("keepdim", [True, False])
def test_norms_neither_overflow_nor_vanish(dtype: str, keepdim: bool) -> None:
    info = np.finfo(dtype)
    big, small = float(info.max) / 4, float(info.tiny) * 4
    rows = [[big, big, 0, 0], [small, -small, 0, 0], [0, 0, 0, 0], [np.inf, 1, 2, 3], [np.nan, 1, 2, 3], [3, 4, 0, 0]]
    rows.append([-np.inf, np.inf, 0, 0])
    x = np.asarray(rows, numpy_dtype(dtype))
    (y,) = run(emitted("norm", dtype, PORTABLE, x.shape, axes=(1,), keepdim=keepdim), {"x": x})
    root = 2**0.5
    want = np.asarray([big * root, small * root, 0, np.inf, np.nan, 5, np.inf])
    np.testing.assert_allclose(y.reshape(-1).astype(np.float64), want, rtol=4 * float(info.eps))
    assert y.shape == ((len(rows), 1) if keepdim else (len(rows),))


def test_a_norm_of_what_is_scaled_or_widened_is_the_operator() -> None:
    """What cannot overflow is not scaled again."""
    scaled = norm_of("Div(x, m)", "m = ReduceMax(a, axes)", "a = Abs(x)")
    assert open_onnx(scaled, Runtime("onnxruntime")).coarse() == {}
    other = norm_of("Div(x, m)", "m = ReduceMax(x, axes)", "a = Abs(x)")
    assert [c.op_type for c in open_onnx(other, Runtime("onnxruntime")).coarse().values()] == ["ReduceL2"]
    widened = norm_of("Cast<to = 1>(h)", "h = Cast<to = 10>(x)", "a = Abs(x)")
    assert open_onnx(widened, Runtime("onnxruntime")).coarse() == {}
    bfloat16 = norm_of("Cast<to = 1>(h)", "h = Cast<to = 16>(x)", "a = Abs(x)")
    assert [c.op_type for c in open_onnx(bfloat16, Runtime("onnxruntime")).coarse().values()] == ["ReduceL2"]


def norm_of(values: str, second: str, first: str) -> onnx.ModelProto:
    body = f"{first} {second} s = {values} y = ReduceL2(s, axes)"
    return model(f"g (float[2, 4] x) => (float[2, 1] y) <int64[1] axes = {{1}}> {{ {body} }}")


def test_norms_of_nothing_are_0() -> None:
    (y,) = run(emitted("norm", "float32", PORTABLE, (3, 0), axes=(1,), keepdim=False), {"x": np.zeros((3, 0), "f4")})
    np.testing.assert_array_equal(y, [0, 0, 0])

"""Every kind of ONNX model: the same kind comes back, the argument is not modified, large data is not touched."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper

import stabilize
from tests.frontends.onnx_support import ROWS, close, model, run, softmax

TEXT = """
g (float[n, 4] x) => (float[n, 4] y) <int64[1] axes = {1}> {
  e = Exp (x)
  s = ReduceSum <keepdims = 1> (e, axes)
  y = Div (e, s)
}"""


class Head(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        e = torch.exp(self.linear(x))
        return torch.log(e / e.sum(-1, keepdim=True))


@pytest.fixture(scope="module")
def exported() -> tuple[Head, torch.onnx.ONNXProgram]:
    module = Head().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = {"x": {0: torch.export.Dim("batch")}}
        program = torch.onnx.export(module, (torch.randn(3, 4),), dynamo=True, dynamic_shapes=shapes, verbose=False)
    assert program is not None
    return module, program


def test_an_onnx_program_stays_one(exported: tuple[Head, torch.onnx.ONNXProgram], tmp_path: Path) -> None:
    """Callable at every size, savable, optimizable by its own method, with the program it came from."""
    module, program = exported
    before = program.model_proto.SerializeToString()
    fixed = stabilize.optimize(program)
    assert program.model_proto.SerializeToString() == before
    assert isinstance(fixed, torch.onnx.ONNXProgram)
    assert fixed.exported_program is program.exported_program
    assert "LogSoftmax" in [n.op_type for n in fixed.model.graph]
    assert [str(d) for d in fixed.model.graph.inputs[0].shape or ()] == ["batch", "4"]
    x = torch.randn(7, 4) * 1000
    truth = torch.log_softmax(module.linear(x), -1)
    torch.testing.assert_close(fixed(x)[0], truth.detach())
    fixed.save(tmp_path / "fixed.onnx", external_data=True)
    onnx.checker.check_model(str(tmp_path / "fixed.onnx"), full_check=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fixed.optimize()
    fixed.release()
    torch.testing.assert_close(fixed(x)[0], truth.detach())


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_gives_a_proto(tmp_path: Path, kind: type) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model(TEXT).SerializeToString())
    fixed = stabilize.optimize(kind(path))
    assert isinstance(fixed, onnx.ModelProto)
    assert path.read_bytes() == model(TEXT).SerializeToString()
    close(run(fixed, {"x": ROWS})[0], softmax(ROWS))


def shape_of(given: ir.Model) -> list[object]:
    """Everything about a model that a caller can see and its serialization does not say."""
    seen: list[object] = [id(given.graph), dict(given.opset_imports), list(given.functions)]
    for graph in given.graphs():
        for value in (
            *graph.inputs,
            *graph.initializers.values(),
            *graph.outputs,
            *(o for n in graph for o in n.outputs),
        ):
            uses = [(id(node), index) for node, index in value.uses()]
            seen.append(
                (id(value), value.name, value.type, str(value.shape), id(value.const_value), uses, dict(value.meta))
            )
        seen += [(id(n), n.name, list(map(id, n.inputs)), dict(n.meta), list(n.attributes)) for n in graph]
    return seen


def test_an_ir_model_is_not_modified_at_all() -> None:
    given = ir.from_proto(model(TEXT))
    before, seen = ir.to_proto(given).SerializeToString(), shape_of(given)
    fixed = stabilize.optimize(given)
    assert isinstance(fixed, ir.Model)
    assert fixed is not given
    assert shape_of(given) == seen
    assert ir.to_proto(given).SerializeToString() == before
    close(run(ir.to_proto(fixed), {"x": ROWS})[0], softmax(ROWS))
    assert ir.to_proto(stabilize.optimize(fixed)) == ir.to_proto(fixed)


def with_weight(weight: ir.TensorProtocol) -> ir.Model:
    text = """
    g (float[n, 400] x) => (float[n, 400] y) <int64[1] axes = {1}> {
      h = MatMul (x, w)
      e = Exp (h)
      s = ReduceSum <keepdims = 1> (e, axes)
      y = Div (e, s)
    }"""
    proto = onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 18]>' + text)
    proto.graph.initializer.append(TensorProto(name="w", data_type=1, dims=[400, 400], raw_data=bytes(640_000)))
    given = ir.from_proto(proto)
    given.graph.initializers["w"].const_value = weight
    return given


def test_a_lazy_tensor_is_not_evaluated() -> None:
    def evaluate() -> ir.TensorProtocol:
        raise AssertionError("the weight was asked for")

    weight = ir.LazyTensor(evaluate, dtype=ir.DataType.FLOAT, shape=ir.Shape([400, 400]), name="w")
    fixed = stabilize.optimize(with_weight(weight))
    assert [n.op_type for n in fixed.graph] == ["MatMul", "Softmax"]
    assert fixed.graph.initializers["w"].const_value is weight


def test_an_external_tensor_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(640_000))
    shape = ir.Shape([400, 400])
    weight = ir.ExternalTensor("w.bin", 0, 640_000, ir.DataType.FLOAT, shape=shape, name="w", base_dir=tmp_path)
    fixed = stabilize.optimize(with_weight(weight))
    assert [n.op_type for n in fixed.graph] == ["MatMul", "Softmax"]
    assert fixed.graph.initializers["w"].const_value is weight
    assert weight.raw is None


def test_a_proto_that_refers_to_files_keeps_the_references() -> None:
    proto = model(
        TEXT.replace("(float[n, 4] x)", "(float[n, 4] x0)").replace("e = Exp (x)", "x = MatMul (x0, w)  e = Exp (x)")
    )
    weight = TensorProto(name="w", data_type=1, dims=[4, 4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "not_there.bin"), ("offset", "128"), ("length", "64")):
        weight.external_data.add(key=key, value=value)
    proto.graph.initializer.append(weight)
    fixed = stabilize.optimize(proto)
    assert [n.op_type for n in fixed.graph.node] == ["MatMul", "Softmax"]
    assert fixed.graph.initializer[0].SerializeToString() == weight.SerializeToString()


@pytest.mark.parametrize(
    "data_type", ["BFLOAT16", "FLOAT16", "FLOAT8E4M3FN", "FLOAT8E5M2", "INT4", "UINT4", "FLOAT4E2M1"]
)
def test_initializers_of_every_format_pass_through(data_type: str) -> None:
    """Formats outside the vocabulary are opaque, their bytes are not touched."""
    code = TensorProto.DataType.Value(data_type)
    proto = model(TEXT, 25, 13)
    bits = ir.DataType(code).bitwidth
    proto.graph.initializer.append(TensorProto(name="w", data_type=code, dims=[8], raw_data=bytes(range(bits))))
    proto.graph.node.append(helper.make_node("Cast", ["w"], ["z"], to=TensorProto.FLOAT))
    proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [8]))
    onnx.checker.check_model(proto, full_check=True)
    fixed = stabilize.optimize(proto)
    assert [n.op_type for n in fixed.graph.node] == ["Softmax", "Cast"]
    assert fixed.graph.initializer[-1] == proto.graph.initializer[-1]
    onnx.checker.check_model(fixed, full_check=True)


@pytest.mark.parametrize("ir_version", [3, 4, 7, 10, 13])
def test_ir_versions(ir_version: int) -> None:
    text = (
        TEXT.replace("(e, axes)", "(e)")
        .replace("keepdims = 1", "keepdims = 1, axes = [1]")
        .replace("<int64[1] axes = {1}>", "")
    )
    fixed = stabilize.optimize(model(text, 11, ir_version))
    onnx.checker.check_model(fixed, full_check=True)
    assert fixed.ir_version == ir_version
    close(run(fixed, {"x": ROWS})[0], softmax(ROWS))


def test_other_domains_beside_what_is_rewritten() -> None:
    """ai.onnx.ml and ONNX Runtime's own operators are opaque values."""
    scaled = "y = ai.onnx.ml.Scaler <offset = [0.5], scale = [2.0]> (g)"
    proto = model(TEXT.replace("y = Div (e, s)", f"p = Div (e, s)  g = com.microsoft.Gelu (p)  {scaled}"))
    proto.opset_import.extend([helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("ai.onnx.ml", 3)])
    fixed = stabilize.optimize(proto)
    assert [n.op_type for n in fixed.graph.node] == ["Softmax", "Gelu", "Scaler"]
    (y,) = run(fixed, {"x": ROWS})
    assert np.isfinite(y).all()

"""A folder as an exporter leaves it: an encoder, a decoder with external data, configurations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WEIGHT = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)


def encoder(naive: bool = True) -> onnx.ModelProto:
    """x → softmax(x·W), by exponentials or by the operator."""
    nodes = [helper.make_node("MatMul", ["x", "W"], ["h"], name="project")]
    if naive:
        nodes += [
            helper.make_node("Exp", ["h"], ["e"], name="exp"),
            helper.make_node("ReduceSum", ["e", "axes"], ["s"], name="sum", keepdims=1),
            helper.make_node("Div", ["e", "s"], ["y"], name="divide"),
        ]
    else:
        nodes.append(helper.make_node("Softmax", ["h"], ["y"], name="softmax", axis=-1))
    weights = [numpy_helper.from_array(WEIGHT, "W")]
    if naive:
        weights.append(numpy_helper.from_array(np.asarray([1]), "axes"))
    graph = helper.make_graph(
        nodes,
        "main_graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10, producer_name="pytorch")


def write_export(folder: Path) -> None:
    """encoder_model.onnx; decoder/model.onnx with its data in model.onnx_data; right.onnx; two other files."""
    (folder / "decoder").mkdir(parents=True)
    onnx.save(encoder(), folder / "encoder_model.onnx")
    onnx.save(encoder(naive=False), folder / "right.onnx")
    onnx.save(
        encoder(),
        str(folder / "decoder" / "model.onnx"),
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=100,
    )
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "decoder" / "tokenizer.json").write_text("{}")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder and below it, by its path from there."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

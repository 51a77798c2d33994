"""An attention head converted to float16 from the command line, where a plain cast of everything gives NaN:

stabilize convert head.onnx --to fp16 -o half.onnx --input-data inputs.npz
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


def head() -> onnx.ModelProto:
    """softmax(x·W·xᵀ + (1 − mask)·(−1e9))·x, the exponentials as in a textbook."""
    weight = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32) / 4
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["q"], name="project"),
        helper.make_node("Transpose", ["x"], ["k"], name="keys", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "k"], ["scores"], name="scores"),
        helper.make_node("Sub", ["one", "mask"], ["hidden"], name="hidden"),
        helper.make_node("Mul", ["hidden", "fill"], ["bias"], name="bias"),
        helper.make_node("Add", ["scores", "bias"], ["masked"], name="masked"),
        helper.make_node("Exp", ["masked"], ["e"], name="exp"),
        helper.make_node("ReduceSum", ["e", "axes"], ["total"], name="sum", keepdims=1),
        helper.make_node("Div", ["e", "total"], ["p"], name="divide"),
        helper.make_node("MatMul", ["p", "x"], ["y"], name="mix"),
    ]
    graph = helper.make_graph(
        nodes,
        "head",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "n", 64]),
            helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["batch", 1, "n"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "n", 64])],
        [
            numpy_helper.from_array(weight, "W"),
            numpy_helper.from_array(np.float32(1), "one"),
            numpy_helper.from_array(np.float32(-1e9), "fill"),
            numpy_helper.from_array(np.array([2]), "axes"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generator = np.random.default_rng(1)
        x = generator.normal(size=(4, 16, 64)).astype(np.float32)
        mask = np.ones((4, 1, 16), np.float32)
        mask[:, :, 12:] = 0
        onnx.save(head(), folder / "head.onnx")
        np.savez(folder / "inputs.npz", x=x, mask=mask)

        arguments = ["convert", "head.onnx", "--to", "fp16", "-o", "half.onnx", "--input-data", "inputs.npz"]
        print("$ stabilize", *arguments)
        command = [sys.executable, "-m", "stabilize", *arguments]
        print(subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout)

        (y,) = onnxruntime.InferenceSession(folder / "half.onnx").run(None, {"x": x, "mask": mask})
        finite = float(np.isfinite(y).mean())
        before, after = ((folder / f).stat().st_size for f in ("head.onnx", "half.onnx"))
        print(f"finite outputs: {finite:.0%}, {before} bytes before, {after} after")
        assert finite == 1.0
        assert after < 0.75 * before


if __name__ == "__main__":
    main()

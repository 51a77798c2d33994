"""An ONNX file fixed from the command line:

stabilize optimize head.onnx -o fixed.onnx --report report.json
stabilize certify head.onnx fixed.onnx --input-data inputs.npz
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, save


def naive_head() -> object:
    """log(exp(x·W) / Σ exp(x·W)), as an exporter writes it."""
    weight = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["logits"], name="project"),
        helper.make_node("Exp", ["logits"], ["e"], name="exp"),
        helper.make_node("ReduceSum", ["e", "axes"], ["total"], name="sum", keepdims=1),
        helper.make_node("Div", ["e", "total"], ["p"], name="divide"),
        helper.make_node("Log", ["p"], ["log_p"], name="log"),
    ]
    graph = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 16])],
        [helper.make_tensor_value_info("log_p", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(weight, "W"), numpy_helper.from_array(np.array([1]), "axes")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(*arguments: str, folder: Path) -> str:
    command = [sys.executable, "-m", "stabilize", *arguments]
    print("$ stabilize", *arguments)
    output = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout
    print(output)
    return output


def finite(path: Path, x: np.ndarray) -> float:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x})
    return float(np.isfinite(y).mean())


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        x = np.random.default_rng(1).normal(scale=30, size=(64, 16)).astype(np.float32)
        save(naive_head(), folder / "head.onnx")
        np.savez(folder / "inputs.npz", x=x)

        run("optimize", "head.onnx", "-o", "fixed.onnx", "--report", "report.json", folder=folder)
        run("certify", "head.onnx", "fixed.onnx", "--input-data", "inputs.npz", folder=folder)

        report = json.loads((folder / "report.json").read_text())
        before, after = finite(folder / "head.onnx", x), finite(folder / "fixed.onnx", x)
        print(f"{len(report['rewrites'])} rewrite(s); finite outputs before: {before:.0%}  after: {after:.0%}")
        assert before < 0.5
        assert after == 1.0


if __name__ == "__main__":
    main()

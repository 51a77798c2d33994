"""The runtimes that are measured, behind one interface: a model and tensors in, a tensor out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any, TypeAlias

import numpy as np
import onnx
import torch

Runner: TypeAlias = Callable[[onnx.ModelProto, Sequence[torch.Tensor]], torch.Tensor]


class Unsupported(Exception):
    """A runtime cannot run a model; the message is the first line of what it says."""


@dataclass(frozen=True)
class Setting:
    """A runtime with its options. `runtime`: its name in the product's table, "" for one that is only compared;
    `opset`: of the models that it is given."""

    name: str
    package: str
    runtime: str
    run: Runner
    opset: int = 25

    @property
    def version(self) -> str | None:
        """Of the package; None when it is not installed."""
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return None


def _arrays(tensors: Sequence[torch.Tensor]) -> dict[str, Any]:
    """bfloat16 as float32: models take it so, and cast."""
    wide = [t.float() if t.dtype is torch.bfloat16 else t for t in tensors]
    return {f"x{i}": t.contiguous().numpy() for i, t in enumerate(wide)}


def _guarded(run: Callable[[], Any]) -> torch.Tensor:
    try:
        with np.errstate(all="ignore"):
            return torch.from_numpy(np.array(run()))
    except Exception as error:  # runtimes raise types of their own
        raise Unsupported((str(error).strip() or type(error).__name__).splitlines()[-1][:160]) from error


def _onnxruntime(optimised: bool) -> Runner:
    def run(model: onnx.ModelProto, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        ort: Any = import_module("onnxruntime")
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        level = ort.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL

        def outcome() -> Any:
            session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            return session.run(None, _arrays(tensors))[0]

        return _guarded(outcome)

    return run


def _openvino(**config: str) -> Runner:
    def run(model: onnx.ModelProto, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        core: Any = import_module("openvino").Core()

        def outcome() -> Any:
            compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", config)
            return compiled(_arrays(tensors))[0]

        return _guarded(outcome)

    return run


def _reference(model: onnx.ModelProto, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    evaluator: Any = import_module("onnx.reference").ReferenceEvaluator
    return _guarded(lambda: evaluator(model).run(None, _arrays(tensors))[0])


SETTINGS: tuple[Setting, ...] = (
    Setting("ONNX Runtime", "onnxruntime", "onnxruntime", _onnxruntime(optimised=True)),
    Setting("ONNX Runtime, no optimisation", "onnxruntime", "onnxruntime", _onnxruntime(optimised=False)),
    Setting("ONNX Runtime, opset 18", "onnxruntime", "onnxruntime", _onnxruntime(optimised=True), 18),
    Setting("OpenVINO, f32", "openvino", "openvino", _openvino(INFERENCE_PRECISION_HINT="f32")),
    Setting("OpenVINO", "openvino", "", _openvino()),
    Setting("onnx.reference", "onnx", "", _reference),
)

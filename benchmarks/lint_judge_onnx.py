"""The same for ONNX: runs in ONNX Runtime, and in the reference evaluator where that has no kernel of a format."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnxruntime
import torch
from lint_judge import wrong
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor

Arrays = Mapping[str, np.ndarray]

_NARROW = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
onnxruntime.set_default_logger_severity(4)


def runtime_outputs(model: onnx.ModelProto, inputs: Arrays) -> list[np.ndarray]:
    """In ONNX Runtime, every node as it is written.

    On a CPU it computes most of float16 in float32, and drops pairs of casts between two nodes: what overflows in
    between is seen at outputs only.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(y) for y in session.run(None, dict(inputs))]


def reference_outputs(model: onnx.ModelProto, inputs: Arrays) -> list[np.ndarray]:
    """In the reference evaluator: each node rounds to the format that it is written in."""
    with np.errstate(all="ignore"):
        return [np.asarray(y) for y in ReferenceEvaluator(model).run(None, dict(inputs))]


RUNTIMES: dict[str, Callable[[onnx.ModelProto, Arrays], list[np.ndarray]]] = {
    "ONNX Runtime": runtime_outputs,
    "the reference evaluator": reference_outputs,
}


def failure(model: onnx.ModelProto, inputs: Arrays, truth: Callable[..., np.ndarray] | None = None, *,
            scale: str = "tensor") -> str | None:  # fmt: skip
    """How a model fails on finite inputs, and in which runtime."""
    if not all(bool(np.isfinite(np.asarray(x, np.float64)).all()) for x in inputs.values()):
        return None
    exact = [truth(**inputs)] if truth is not None else _exact(model, inputs)
    reasons: list[str] = []
    for name, run in RUNTIMES.items():
        try:
            results = run(model, inputs)
        except Exception as error:  # a runtime without a kernel: the next one is asked; with none left, it is told
            reasons.append(f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:120]}")
            continue
        reason = wrong(_floats(results), _floats(exact), scale=scale)
        if reason is not None:
            return f"{reason} in {name}"
    if len(reasons) == len(RUNTIMES):
        raise RuntimeError("; ".join(reasons))
    return None


def _floats(arrays: list[np.ndarray]) -> list[Tensor]:
    tensors = [torch.from_numpy(np.array(a)) if a.dtype.kind in "fiub" else None for a in arrays]
    return [t for t in tensors if t is not None and t.is_floating_point()]


def _exact(model: onnx.ModelProto, inputs: Arrays) -> list[np.ndarray]:
    """The same graph in float64; nothing where a node has no float64."""
    wide = {n: x.astype(np.float64) if x.dtype.kind == "f" else x for n, x in inputs.items()}
    try:
        return reference_outputs(in_float64(model), wide)
    except Exception:  # an operator that float64 does not suit: NaN and infinities still tell
        return []


def in_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every tensor, type and cast of fewer bits turned into float64."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _widen_graph(result.graph)
    for function in result.functions:
        _widen_nodes(function.node)
    return result


def _widen_graph(graph: onnx.GraphProto) -> None:
    for info in [*graph.input, *graph.output, *graph.value_info]:
        if info.type.tensor_type.elem_type in _NARROW:
            info.type.tensor_type.elem_type = TensorProto.DOUBLE
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    _widen_nodes(graph.node)


def _widen_nodes(nodes: object) -> None:
    for node in nodes:  # type: ignore[attr-defined]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _widen_graph(attribute.g)
            elif attribute.HasField("t"):
                _widen_tensor(attribute.t)
            elif attribute.name in ("to", "dtype") and attribute.i in _NARROW:
                attribute.i = TensorProto.DOUBLE
            elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
                floats = attribute.f if attribute.name == "value_float" else list(attribute.floats)
                tensor = numpy_helper.from_array(np.asarray(floats, np.float64))
                attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))


def _widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type in _NARROW:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))

"""Run a spelling on each host: eager PyTorch, a `stabilize`d module, and the exported ONNX graph in its runtimes."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NotImplemented_
from torch import Tensor, nn

from tests.panel import reference
from tests.panel.entry import Spelling
from tests.panel.inputs import DTYPES, generate

OPSET = 18
logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns, at each export, that torchvision is absent
ONNX_TYPES = {
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
}


class Spelled(nn.Module):
    """A formula as a module."""

    def __init__(self, entry: Spelling) -> None:
        super().__init__()
        self._formula = entry.fn

    def forward(self, *args: Tensor) -> Tensor:
        return self._formula(*args)


def example(entry: Spelling, dtype: str) -> tuple[Tensor, ...]:
    """Benign inputs, for tracing."""
    return generate(entry.inputs, "benign", dtype, entry.name)


def with_gradients(
    entry: Spelling, run: Callable[..., Tensor], inputs: Sequence[Tensor]
) -> tuple[Tensor, dict[int, Tensor]]:
    """The result and the gradient of its sum by every differentiable argument (zeros where it does not depend)."""
    leaves = [
        t.detach().clone().requires_grad_() if spec.differentiable else t
        for spec, t in zip(entry.inputs, inputs, strict=True)
    ]
    result = run(*leaves)
    wanted = {i: t for i, t in enumerate(leaves) if t.requires_grad}
    grads = torch.autograd.grad(result.sum(), list(wanted.values()), allow_unused=True)
    filled = {i: torch.zeros_like(t) if g is None else g for (i, t), g in zip(wanted.items(), grads, strict=True)}
    return result.detach(), filled


# --- ONNX -------------------------------------------------------------------------------------------------


@functools.cache
def exported(entry: Spelling) -> onnx.ModelProto:
    """The naive formula as the exporter writes it, in float32 (once per run)."""
    return export(Spelled(entry).eval(), example(entry, "float32"))


def export(module: nn.Module, inputs: tuple[Tensor, ...]) -> onnx.ModelProto:
    """`module` in ONNX, not optimised by the exporter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(module, inputs, dynamo=True, optimize=False, opset_version=OPSET, verbose=False)
    assert program is not None
    return program.model_proto


def retargeted(model: onnx.ModelProto, dtype: str) -> onnx.ModelProto:
    """`model` with every float32 tensor, type and cast turned into `dtype`: constants are rounded to it."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    if dtype == "float32":
        return result
    graph = result.graph
    for info in [*graph.input, *graph.output, *graph.value_info]:
        if info.type.tensor_type.elem_type == TensorProto.FLOAT:
            info.type.tensor_type.elem_type = ONNX_TYPES[dtype]
    for tensor in graph.initializer:
        _retarget_tensor(tensor, dtype)
    for node in graph.node:
        _retarget_node(node, dtype)
    if dtype != "float64":
        _widen_ranges(graph, dtype)
    return result


def _retarget_node(node: onnx.NodeProto, dtype: str) -> None:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            _retarget_tensor(attribute.t, dtype)
        elif attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT:
            attribute.i = ONNX_TYPES[dtype]
        elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
            floats = attribute.f if attribute.name == "value_float" else list(attribute.floats)
            tensor = numpy_helper.from_array(np.asarray(floats, dtype=np.float32))
            _retarget_tensor(tensor, dtype)
            attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))


def _widen_ranges(graph: onnx.GraphProto, dtype: str) -> None:
    """Range has no 16-bit floats: run it in float32 between casts."""
    halves = {v.name for v in graph.value_info if v.type.tensor_type.elem_type == ONNX_TYPES[dtype]}
    halves |= {o for n in graph.node for o in n.output if n.op_type == "Constant" and _is_half(n.attribute[0], dtype)}
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.op_type == "Range" and halves & {*node.input, *node.output}:
            wide = [f"{name}_wide" for name in node.input]
            for name, cast in zip(list(node.input), wide, strict=True):
                graph.node.append(onnx.helper.make_node("Cast", [name], [cast], to=TensorProto.FLOAT))
            out = node.output[0]
            graph.node.append(onnx.helper.make_node("Range", wide, [f"{out}_wide"], name=node.name))
            graph.node.append(onnx.helper.make_node("Cast", [f"{out}_wide"], [out], to=ONNX_TYPES[dtype]))
        else:
            graph.node.append(node)


def _is_half(attribute: onnx.AttributeProto, dtype: str) -> bool:
    return attribute.HasField("t") and attribute.t.data_type == ONNX_TYPES[dtype]


def _retarget_tensor(tensor: TensorProto, dtype: str) -> None:
    if tensor.data_type != TensorProto.FLOAT:
        return
    exact = numpy_helper.to_array(tensor)
    narrow = exact.astype(onnx.helper.tensor_dtype_to_np_dtype(ONNX_TYPES[dtype]))
    tensor.CopyFrom(numpy_helper.from_array(narrow, tensor.name))


def run_onnx(model: onnx.ModelProto, inputs: Sequence[Tensor], dtype: str) -> Tensor:
    """The first output of one run."""
    return runner(model, dtype)(*inputs)


def run_reference(model: onnx.ModelProto, inputs: Sequence[Tensor], dtype: str) -> Tensor:
    """The first output by the reference evaluator."""
    feeds = {i.name: to_numpy(t) for i, t in zip(model.graph.input, inputs, strict=True)}
    return _tensor(reference.evaluate(model, feeds), dtype)


def runner(model: onnx.ModelProto, dtype: str) -> Callable[..., Tensor]:
    """`model` as a function of tensors: ONNX Runtime, or the reference evaluator where it has no kernel."""
    if dtype == "bfloat16":
        return lambda *inputs: run_reference(model, inputs, dtype)
    try:
        runtime = session(model)
    except NotImplemented_:
        return lambda *inputs: run_reference(model, inputs, dtype)
    return lambda *inputs: run_session(runtime, inputs, dtype)


def run_session(runtime: onnxruntime.InferenceSession, inputs: Sequence[Tensor], dtype: str) -> Tensor:
    """The first output of an ONNX Runtime session."""
    feeds = {i.name: to_numpy(t) for i, t in zip(runtime.get_inputs(), inputs, strict=True)}
    return _tensor(runtime.run(None, feeds)[0], dtype)


def _tensor(result: Any, dtype: str) -> Tensor:
    return torch.from_numpy(np.asarray(result).astype(np.float64)).to(DTYPES[dtype])


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A CPU session with every graph optimisation on."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def to_numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    """A NumPy array of the same dtype (bfloat16 by the type that onnx uses)."""
    if tensor.dtype is torch.bfloat16:
        return tensor.float().numpy().astype(onnx.helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16))
    return tensor.numpy()

"""Run the witness of a finding again, here and not by the tool that found it: does it break the model, and where?"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lint_judge_onnx
import numpy as np
import onnx
import torch
from lint_judge import failure, in_float64, outputs, wrong
from onnx import TensorProto, helper
from torch import Tensor, nn

Ranges = Mapping[str, tuple[float, float]]


def replay(model: Any, witness: Any, node: str, ranges: Ranges) -> str | None:
    """What goes wrong on the witness; None when nothing does. A witness outside `ranges` shows nothing.

    Of the whole model: its outputs are wrong, or its slopes, or the value of `node` in it. Of an expression: the piece
    of the model that was saved beside the witness gives a wrong result.
    """
    tensors: dict[str, Tensor] = {name: t.detach() for name, t in witness.items()}
    if witness.scope == "expression":
        return _of_piece(tensors, witness.file)
    for name, (low, high) in ranges.items():
        if not bool(((tensors[name] >= low) & (tensors[name] <= high)).all()):
            return None
    if isinstance(model, onnx.ModelProto):
        return _of_graph(model, {n: _array(t) for n, t in tensors.items()}, node)
    positional = [tensors[name] for name in inspect.signature(model.forward).parameters]
    return _of_module(model, positional, node)


def _of_module(module: nn.Module, inputs: Sequence[Tensor], node: str) -> str | None:
    reason = failure(module, inputs)
    if reason is not None:
        return f"the output is {reason}"
    inner = _inner(module, inputs, node)
    exact = _inner(_doubled(module), in_float64(tuple(inputs)), node)
    reason = wrong(inner, exact, scale="element")
    if reason is not None:
        return f"{node} is {reason}"
    reason = failure(module, inputs, gradient=True)
    return None if reason is None else f"a slope is {reason}"


def _doubled(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).double()


def _inner(module: nn.Module, inputs: Sequence[Tensor], node: str) -> list[Tensor]:
    """The value of a node of the exported graph; nothing where the module does not run in this format."""
    try:
        program = torch.export.export(module, tuple(inputs))
    except Exception:  # in float64, a module that casts to float16 itself; torch has many kinds of errors for it
        return []
    call = program.module(check_guards=False)
    graph = call.graph
    found = [n for n in graph.nodes if n.name == node]
    if not found:
        return []
    output = next(n for n in graph.nodes if n.op == "output")
    with graph.inserting_before(output):
        graph.output(found[0])
    graph.erase_node(output)
    graph._codegen = torch.fx.graph.CodeGen()
    call.recompile()
    return outputs(call, inputs)


def _of_graph(model: onnx.ModelProto, arrays: dict[str, np.ndarray], node: str) -> str | None:
    reason = lint_judge_onnx.failure(model, arrays)
    if reason is not None:
        return f"the output is {reason}"
    inner = _with_output(model, node)
    reason = None if inner is None else lint_judge_onnx.failure(inner, arrays, scale="element")
    return None if reason is None else f"{node} is {reason}"


def _with_output(model: onnx.ModelProto, name: str) -> onnx.ModelProto | None:
    """The model that gives the value of that name alone; None where it is inside a graph of its own."""
    known = onnx.shape_inference.infer_shapes(model)
    info = next((i for i in (*known.graph.value_info, *known.graph.output) if i.name == name), None)
    if info is None:
        return None
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.output[:]
    element = info.type.tensor_type.elem_type or TensorProto.FLOAT
    result.graph.output.append(helper.make_tensor_value_info(name, element, None))
    return result


def _of_piece(tensors: Mapping[str, Tensor], file: str | None) -> str | None:
    if file is None:
        return None
    archive, program = Path(file).with_suffix(".onnx"), Path(file).with_suffix(".pt2")
    saved = dict(np.load(file))
    if archive.exists():
        piece = onnx.load(archive)
        names = [i.name for i in piece.graph.input]
        reason = lint_judge_onnx.failure(piece, {n: saved.get(n, _array(tensors[n])) for n in names})
        return None if reason is None else f"the expression is {reason}"
    if not program.exists():
        return None
    module = torch.export.load(program).module(check_guards=False)
    call = _Keywords(module, list(tensors))
    inputs = [torch.from_numpy(saved[n]).to(t.dtype) for n, t in tensors.items()]
    reason = failure(call, inputs) or failure(call, inputs, gradient=True)
    return None if reason is None else f"the expression is {reason}"


class _Keywords(nn.Module):
    """A module that takes its inputs by name."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.module, self.names = module, names

    def forward(self, *inputs: Tensor) -> Any:
        return self.module(**dict(zip(self.names, inputs, strict=True)))


def _array(tensor: Tensor) -> np.ndarray:
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()

"""The types of what an exported model returns, as the program says them.

Where PyTorch computes a half precision operator in float32, `torch.onnx.export` of torch 2.13 loses the cast back that
comes last: abs of a float16 tensor returns float32.
"""

from __future__ import annotations

from typing import Any, Final, cast

import onnx_ir as ir
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind

_TYPES: Final = {
    torch.float16: ir.DataType.FLOAT16,
    torch.bfloat16: ir.DataType.BFLOAT16,
    torch.float32: ir.DataType.FLOAT,
    torch.float64: ir.DataType.DOUBLE,
}


def restore_types(model: ir.Model, program: ExportedProgram) -> None:
    """Cast the outputs of `model`, in place, whose float type is not that of the program."""
    fakes = {n.name: cast(Any, n).meta.get("val") for n in program.graph.output_node().all_input_nodes}
    wanted = [fakes.get(s.arg.name) for s in program.graph_signature.output_specs if s.kind is OutputKind.USER_OUTPUT]
    outputs = model.graph.outputs
    for i, (value, fake) in enumerate(zip(list(outputs), wanted, strict=False)):  # buffers that are written follow
        dtype = _TYPES.get(fake.dtype) if isinstance(fake, torch.Tensor) else None
        if dtype is not None and value.dtype in _TYPES.values() and value.dtype != dtype:
            outputs[i] = _cast(model.graph, value, dtype)


def _cast(graph: ir.Graph, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    name, value.name = value.name, f"{value.name}_wide"
    node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(dtype))], num_outputs=1, name=f"node_{name}_cast")
    result = node.outputs[0]
    result.name, result.shape, result.type = name, value.shape, ir.TensorType(dtype)
    producer = value.producer()
    if producer is not None:
        node.metadata_props.update(producer.metadata_props)
    graph.append(node)
    return result

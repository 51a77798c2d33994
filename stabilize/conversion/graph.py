"""The main graph of an ONNX model as a conversion sees it: names, element types, weights, who reads what."""

from __future__ import annotations

from functools import cached_property
from typing import Final, final

import numpy as np
import onnx
import onnx_ir as ir
from onnx import NodeProto, TensorProto

from stabilize.frontends.onnx import opset_of
from stabilize.frontends.onnx_infer import inferred
from stabilize.frontends.onnx_scopes import captured
from stabilize.quiet import unlogged

FLOAT: Final = int(TensorProto.FLOAT)


@final
class Graph:
    """The main graph of `proto`. folder: where its external data is.

    types: name → ONNX element type of what is known to be a tensor. weights: float32 initializers that no caller may
    set, and Constant nodes, by the name of the value. captured: names that graphs inside a node take from outside.
    """

    def __init__(self, proto: onnx.ModelProto, folder: str | None) -> None:
        self.proto: Final = proto
        self.folder: Final = folder
        self.nodes: Final[list[NodeProto]] = list(proto.graph.node)
        with unlogged():
            model = ir.serde.deserialize_model(proto)
        self.opset: Final = opset_of(model.graph)
        self.functions: Final = {(f.domain, f.name) for f in proto.functions}
        self.types: Final = _types(model)
        self.captured: Final = [tuple(captured(node)) for node in self.nodes]
        given = {i.name for i in proto.graph.input}
        self.weights: Final[dict[str, TensorProto]] = {
            t.name: t for t in proto.graph.initializer if t.data_type == FLOAT and t.name not in given
        }
        self.weights.update((n.output[0], t) for n in self.nodes if (t := constant_of(n)) is not None)

    @cached_property
    def producer(self) -> dict[str, int]:
        """Name → the node that computes it. Constants are weights, not nodes."""
        return {o: i for i, n in enumerate(self.nodes) for o in n.output if o and o not in self.weights}

    @cached_property
    def readers(self) -> dict[str, list[int]]:
        """Name → the nodes that read it, those with graphs inside that take it from outside too."""
        found: dict[str, list[int]] = {}
        for i, node in enumerate(self.nodes):
            for name in dict.fromkeys((*node.input, *self.captured[i])):
                if name:
                    found.setdefault(name, []).append(i)
        return found

    @cached_property
    def settable(self) -> list[str]:
        """What a caller may set, float32: inputs, those with a default too."""
        return [i.name for i in self.proto.graph.input if self.is_float(i.name)]

    @cached_property
    def inputs(self) -> list[str]:
        """What a caller must set."""
        stored = {t.name for t in self.proto.graph.initializer}
        return [i.name for i in self.proto.graph.input if i.name not in stored]

    def is_float(self, name: str) -> bool:
        return self.types.get(name) == FLOAT

    def label(self, index: int) -> str:
        """What a node is called: by its own name, or that of what it computes."""
        node = self.nodes[index]
        return node.name or next((o for o in node.output if o), f"node {index}")


def _types(model: ir.Model) -> dict[str, int]:
    types = inferred(model)
    found = {t.name or "": int(t.const_value.dtype) for t in model.graph.initializers.values() if t.const_value}
    for value in (*model.graph.inputs, *(o for node in model.graph for o in node.outputs)):
        stated, _ = types.stated(value)
        if isinstance(stated, ir.TensorType) and value.name:
            found[value.name] = int(stated.dtype)
    return found


def constant_of(node: NodeProto) -> TensorProto | None:
    """The float32 tensor of a Constant node."""
    if node.op_type != "Constant" or node.domain or len(node.attribute) != 1:
        return None
    (attribute,) = node.attribute
    if attribute.ref_attr_name:
        return None
    match attribute.name:
        case "value" if attribute.t.data_type == FLOAT:
            inside: TensorProto = attribute.t
            return inside
        case "value_float":
            array = np.asarray(attribute.f, np.float32)
        case "value_floats":
            array = np.asarray(list(attribute.floats), np.float32)
        case _:
            return None
    tensor: TensorProto = onnx.numpy_helper.from_array(array)
    return tensor

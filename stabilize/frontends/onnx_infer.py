"""Types and shapes by ONNX's shape inference, which sees no weights."""

from __future__ import annotations

from typing import Final, TypeAlias, final

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import Error as ProtobufError  # type: ignore[import-untyped]

from stabilize.frontends.onnx_check import is_too_large
from stabilize.frontends.onnx_outline import SHAPE, outline
from stabilize.frontends.onnx_types import DTYPES, small, tensor_type
from stabilize.graph.value import Dim, TensorType
from stabilize.quiet import unlogged

Stated: TypeAlias = tuple[ir.TypeProtocol | None, ir.Shape | None]


@final
class Types:
    """The types of the values of a model: those that were `found` for them, else those that the model states."""

    def __init__(self, found: dict[ir.Value, onnx.TypeProto]) -> None:
        self._found = found

    def of(self, value: ir.Value) -> TensorType | None:
        """The type in the view; None when the rank or element type is unknown, or the value is no tensor."""
        name = value.name or ""
        found = self._found.get(value)
        if found is None or not (tensor := found.tensor_type).elem_type or not tensor.HasField("shape"):
            return tensor_type(*self.stated(value), name)
        dims = tuple([_dim(dim, name, axis) for axis, dim in enumerate(tensor.shape.dim)])
        return TensorType(_NAMES.get(tensor.elem_type, "other"), dims)

    def stated(self, value: ir.Value) -> Stated:
        """The type and shape in the host."""
        proto = self._found.get(value)
        if proto is None or proto.WhichOneof("value") not in ("tensor_type", "sequence_type", "optional_type"):
            return value.type, value.shape
        shape = ir.serde.deserialize_type_proto_for_shape(proto)
        type = ir.serde.deserialize_type_proto_for_type(proto)
        return value.type if type is None else type, value.shape if shape is None else shape


def _dim(dim: onnx.TensorShapeProto.Dimension, name: str, axis: int) -> Dim:
    """As `dims_of` gives it."""
    size = dim.dim_value
    if size > 0 or (size == 0 and dim.HasField("dim_value")):
        return size
    return dim.dim_param or f"?{name}.{axis}"


_NAMES: Final = {int(data_type): name for data_type, name in DTYPES.items()}


def inferred(model: ir.Model) -> Types:
    """The types that ONNX's shape inference finds; where that fails, those that are stated."""
    found: dict[ir.Value, onnx.TypeProto] = {}
    if is_too_large(model) or _fills_memory(model):
        return Types(found)  # inference writes functions out, call by call
    try:
        with unlogged():
            proto = outline(model)
        proto = onnx.shape_inference.infer_shapes(proto, check_type=False, strict_mode=False, data_prop=True)
    except (onnx.shape_inference.InferenceError, ProtobufError, RuntimeError, ValueError, TypeError):
        return Types(found)
    _match(model.graph, proto.graph, found)
    return Types(found)


def _fills_memory(model: ir.Model) -> bool:
    """Whether a vector is made of more elements than any shape has axes, by millions: taken for a shape, it would be
    written out by inference."""
    for node in model.graph.all_nodes():
        if node.op_type == "ConstantOfShape" and node.inputs and node.inputs[0] is not None:
            tensor = node.inputs[0].const_value
            sizes = small(tensor, SHAPE) if tensor is not None else None
            if sizes is not None and sizes.size == 1 and sizes.dtype == np.int64 and sizes.max() > _LONGEST:
                return True
    return False


_LONGEST: Final = 2**24


def _match(graph: ir.Graph, proto: onnx.GraphProto, found: dict[ir.Value, onnx.TypeProto]) -> None:
    """Note what `proto` says of the values of `graph`, whose outline it was, and of the graphs inside it."""
    types = {info.name: info.type for info in (*proto.value_info, *proto.output, *proto.input)}
    for value in (*graph.inputs, *(o for node in graph for o in node.outputs)):
        if value.name in types:
            found[value] = types[value.name]
    for node, written in zip(graph, proto.node, strict=True):
        for attribute in written.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH and not attribute.ref_attr_name:
                _match(node.attributes[attribute.name].as_graph(), attribute.g, found)

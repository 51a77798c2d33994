"""Types and shapes by ONNX's shape inference, which sees no weights."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import Error as ProtobufError  # type: ignore[import-untyped]

from stabilize.frontends.onnx_check import is_too_large
from stabilize.frontends.onnx_types import silenced

#: A tensor of more elements is no shape, no axes and no bounds: inference needs none of its data.
_SHAPE: Final = 64

#: Data up to this many elements is looked at when a model is read.
LARGE: Final = 100_000


def inferred(model: ir.Model) -> ir.Model:
    """A copy of `model` with the types that ONNX's shape inference finds; where that fails, as it is stated."""
    copy = model.clone()
    if is_too_large(model) or _fills_memory(model):
        return copy  # inference writes functions out, call by call
    try:
        with silenced(ir.serde.__name__), _light(copy):
            proto = ir.serde.serialize_model(copy)
        found = onnx.shape_inference.infer_shapes(proto, check_type=False, strict_mode=False, data_prop=True)
    except (onnx.shape_inference.InferenceError, ProtobufError, RuntimeError, ValueError, TypeError):
        return copy
    _merge(copy.graph, found.graph)
    return copy


def _fills_memory(model: ir.Model) -> bool:
    """Whether a vector is made of more elements than any shape has axes, by millions: taken for a shape, it would be
    written out by inference."""
    for node in model.graph.all_nodes():
        if node.op_type == "ConstantOfShape" and node.inputs and node.inputs[0] is not None:
            tensor = node.inputs[0].const_value
            sizes = small(tensor, _SHAPE) if tensor is not None else None
            if sizes is not None and sizes.size == 1 and sizes.dtype == np.int64 and sizes.max() > _LONGEST:
                return True
    return False


_LONGEST: Final = 2**24


def small(tensor: ir.TensorProtocol, limit: int = LARGE) -> np.ndarray | None:
    """The data of a tensor, unless it is large or its file cannot be read. No file is left open or mapped."""
    if tensor.size > limit:
        return None
    try:
        if isinstance(tensor, ir.ExternalTensor) and tensor.raw is None:
            return np.array(_twin(tensor).numpy())  # the file is mapped as long as the twin lives
        return np.asarray(tensor.numpy())
    except (OSError, ValueError):
        return None  # external data that is missing or cut short: the graph can be read without it


def _twin(tensor: ir.ExternalTensor) -> ir.ExternalTensor:
    named: Any = tensor  # its paths are partly untyped
    shape = ir.Shape([d for d in tensor.shape if isinstance(d, int)])
    place = (named.location, tensor.offset, tensor.length, tensor.dtype)
    return ir.ExternalTensor(*place, shape=shape, name=tensor.name or "", base_dir=named.base_dir)


@contextmanager
def _light(model: ir.Model) -> Generator[None]:
    """`model` meanwhile without large data, which is said to be in other files; small data is at hand.

    Data propagation takes every vector that it can read for a shape and keeps each of its elements as a dimension:
    the biases of a large model would need gigabytes. What is in another file it does not read.
    """
    tensors: list[tuple[ir.Value, ir.TensorProtocol]] = []
    attributes: list[tuple[ir.Node, ir.Attr]] = []
    for graph in (*model.graphs(), *(f.graph for f in model.functions.values())):
        for value in graph.initializers.values():
            if (tensor := value.const_value) is not None and (light := _lighter(tensor)) is not tensor:
                tensors.append((value, tensor))
                value.const_value = light
    for nodes in (model.graph.all_nodes(), *(f.all_nodes() for f in model.functions.values())):
        for node in nodes:
            for name, attribute in tuple(node.attributes.items()):
                if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                    attributes.append((node, attribute))
                    node.attributes[name] = ir.AttrTensor(name, _lighter(attribute.as_tensor()))
    try:
        yield
    finally:
        for value, tensor in tensors:
            value.const_value = tensor
        for node, attribute in attributes:
            node.attributes[attribute.name] = attribute


def _lighter(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    array = None
    if isinstance(tensor, ir.ExternalTensor):
        array = small(tensor, _SHAPE)
    if array is not None:
        return ir.Tensor(array, dtype=tensor.dtype, name=tensor.name)
    if tensor.size <= _SHAPE:
        return tensor
    shape = ir.Shape([int(d) for d in tensor.shape if isinstance(d, int)])
    return ir.ExternalTensor("elsewhere", 0, None, tensor.dtype, shape=shape, name=tensor.name or "")


def _merge(graph: ir.Graph, found: onnx.GraphProto) -> None:
    """Let the values of `graph`, and of the graphs inside it, be of the types that were found for them."""
    types = {info.name: info.type for info in (*found.value_info, *found.output, *found.input)}
    _take(graph.inputs, types)
    for node, proto in zip(graph, found.node, strict=True):
        _take(node.outputs, types)
        for attribute in proto.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH and not attribute.ref_attr_name:
                _merge(node.attributes[attribute.name].as_graph(), attribute.g)


def _take(values: Iterable[ir.Value], types: dict[str, onnx.TypeProto]) -> None:
    for value in values:
        proto = types.get(value.name or "")
        if proto is None or proto.WhichOneof("value") not in ("tensor_type", "sequence_type", "optional_type"):
            continue
        shape = ir.serde.deserialize_type_proto_for_shape(proto)
        type = ir.serde.deserialize_type_proto_for_type(proto)
        value.shape = value.shape if shape is None else shape
        value.type = value.type if type is None else type

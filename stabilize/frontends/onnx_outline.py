"""A model as shape inference needs it: operators, types, and the data of what may be a shape. Nothing is copied twice,
however large the weights are, and the model stays what it is.

Data propagation takes every vector that it can read for a shape and keeps each of its elements as a dimension: the
biases of a large model would need gigabytes. Large data is therefore said to be in another file, which inference does
not read; small data of other files is put at hand.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir

from stabilize.frontends.onnx_proto import trimmed
from stabilize.frontends.onnx_types import sizes_of, small

#: A tensor of more elements is no shape, no axes and no bounds: inference needs none of its data.
SHAPE: Final = 64


def outline(model: ir.Model) -> onnx.ModelProto:
    """`model` without large data, names of nodes and documentation."""
    result = onnx.ModelProto(ir_version=model.ir_version)
    result.opset_import.extend(_imports(model.graph))
    _write(model.graph, result.graph)
    for function in model.functions.values():
        domain, name, overload = function.identifier()
        written = result.functions.add(domain=domain, name=name, overload=overload)
        written.opset_import.extend(_imports(function))
        written.input.extend(v.name or "" for v in function.inputs)
        written.output.extend(v.name or "" for v in function.outputs)
        for attribute in function.attributes.values():
            if attribute.value is None:
                written.attribute.append(attribute.name)
            else:
                _write_attribute(attribute, written.attribute_proto.add())
        _write_nodes(function, written)
    return result


def _imports(graph: ir.Graph | ir.Function) -> Iterable[onnx.OperatorSetIdProto]:
    return (onnx.OperatorSetIdProto(domain=d, version=v) for d, v in graph.opset_imports.items())


def _write(graph: ir.Graph, proto: onnx.GraphProto) -> None:
    for value in graph.inputs:
        ir.serde.serialize_value_into(proto.input.add(), value)
    for name, value in graph.initializers.items():
        if value.const_value is None:  # a sparse one: its type is known
            _state(value, proto)
        else:
            tensor = _light(value.const_value)
            tensor.name = name
            proto.initializer.append(tensor)
    _write_nodes(graph, proto)
    for value in graph.outputs:
        ir.serde.serialize_value_into(proto.output.add(), value)


def _write_nodes(nodes: ir.Graph | ir.Function, proto: onnx.GraphProto | onnx.FunctionProto) -> None:
    for node in nodes:
        domain, op_type, overload = node.op_identifier()
        inputs = ["" if v is None else v.name or "" for v in node.inputs]
        outputs = trimmed(v.name or "" for v in node.outputs)
        written = proto.node.add(domain=domain, op_type=op_type, overload=overload, input=inputs, output=outputs)
        for attribute in node.attributes.values():
            _write_attribute(attribute, written.attribute.add())
        for value in node.outputs:
            _state(value, proto)


def _state(value: ir.Value, proto: onnx.GraphProto | onnx.FunctionProto) -> None:
    """Write down the type that is stated for `value`; that of an output of a graph stands there."""
    if value.type is not None and value.name and not value.is_graph_output():
        ir.serde.serialize_value_into(proto.value_info.add(), value)


def _write_attribute(attribute: ir.Attr, proto: onnx.AttributeProto) -> None:
    if attribute.is_ref():
        ir.serde.serialize_reference_attribute_into(proto, attribute)
    elif attribute.type == ir.AttributeType.TENSOR:
        proto.name, proto.type = attribute.name, onnx.AttributeProto.TENSOR
        proto.t.CopyFrom(_light(attribute.as_tensor()))
    elif attribute.type == ir.AttributeType.GRAPH:
        proto.name, proto.type = attribute.name, onnx.AttributeProto.GRAPH
        _write(attribute.as_graph(), proto.g)
    elif attribute.type == ir.AttributeType.GRAPHS:
        proto.name, proto.type = attribute.name, onnx.AttributeProto.GRAPHS
        for graph in attribute.as_graphs():
            _write(graph, proto.graphs.add())
    else:
        ir.serde.serialize_attribute_into(proto, attribute)


def _light(tensor: ir.TensorProtocol) -> onnx.TensorProto:
    if math.prod(sizes_of(tensor)) > SHAPE:
        return _elsewhere(tensor)
    if not isinstance(tensor, ir.ExternalTensor):
        return ir.serde.serialize_tensor(tensor)
    array = small(tensor, SHAPE)
    return _elsewhere(tensor) if array is None else ir.serde.serialize_tensor(ir.Tensor(np.array(array), tensor.dtype))


def _elsewhere(tensor: ir.TensorProtocol) -> onnx.TensorProto:
    proto = onnx.TensorProto(
        dims=sizes_of(tensor), data_type=int(tensor.dtype), data_location=onnx.TensorProto.EXTERNAL
    )
    proto.external_data.add(key="location", value="elsewhere")
    return proto

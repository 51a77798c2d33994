"""A copy of an ONNX model in which every float is a float64."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

NARROW: Final = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_TYPE_ATTRIBUTES: Final = ("to", "dtype", "stash_type", "output_dtype", "softmax_precision")


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` in float64: weights, constants, inputs and outputs; casts to narrower floats go to float64.

    External data must have been loaded. The copy need not be valid for every operator: some are defined for float32
    only, and a runtime may refuse them.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _graph(copy.graph)
    for function in copy.functions:
        del function.value_info[:]
        _nodes(function.node)
        _attributes(function.attribute_proto)
    return copy


def _graph(graph: onnx.GraphProto) -> None:
    del graph.value_info[:]
    for tensor in (*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)):
        _tensor(tensor)
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in NARROW:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    _nodes(graph.node)


def _nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        if node.op_type == "ConstantOfShape" and not node.attribute:
            node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.zeros(1))))
        if node.op_type == "Constant" and node.attribute[0].name in ("value_float", "value_floats"):
            _constant(node.attribute[0])
        # a LayerNormalization computes in the type of its operand whatever its statistics are given in, and runtimes
        # know no float64 for these
        _attributes(a for a in node.attribute if (node.op_type, a.name) != ("LayerNormalization", "stash_type"))


def _constant(attribute: AttributeProto) -> None:
    numbers = attribute.f if attribute.name == "value_float" else list(attribute.floats)
    tensor = numpy_helper.from_array(np.asarray(numbers, np.float64))
    attribute.CopyFrom(helper.make_attribute("value", tensor))


def _attributes(attributes: Iterable[AttributeProto]) -> None:
    for attribute in attributes:
        if attribute.type == AttributeProto.TENSOR:
            _tensor(attribute.t)
        elif attribute.type == AttributeProto.GRAPH:
            _graph(attribute.g)
        elif attribute.type == AttributeProto.GRAPHS:
            for graph in attribute.graphs:
                _graph(graph)
        elif attribute.name in _TYPE_ATTRIBUTES and attribute.i in NARROW:
            attribute.i = TensorProto.DOUBLE


def _tensor(tensor: TensorProto) -> None:
    if tensor.data_type in NARROW:
        wide = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))

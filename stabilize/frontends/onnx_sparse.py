"""Sparse initializers: to a reading, values whose type and shape are known and whose numbers are not.

`onnx_ir` has no form for them, and takes what reads one for reading a value that nothing computes. In a reading they
are initializers without data; in the model they stay what they are.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from stabilize.errors import ModelError
from stabilize.frontends.onnx_proto import inner_graphs


def declare_sparse(source: onnx.GraphProto, graph: ir.Graph, name: str) -> None:
    """Make the sparse initializers of `source` known to `graph`, its reading, and those of the graphs inside it.

    name: of the model, for errors. ModelError for one that has no valid type.
    """
    declared = {sparse.values.name: _value(sparse, name) for sparse in source.sparse_initializer}
    for key in declared.keys() & graph.initializers.keys():
        raise ModelError(f"{name}: not a valid ONNX model (two initializers {key!r}): export the model again")
    if declared:
        graph.initializers.update(declared)
        for node in (*graph, *(n for inner in graph.subgraphs() for n in inner)):
            for index, value in enumerate(node.inputs):
                if value is not None and value.name in declared and _is_dangling(value):
                    node.replace_input_with(index, declared[value.name])
        for index, value in enumerate(graph.outputs):
            if value.name in declared and _is_dangling(value):
                graph.outputs[index] = declared[value.name]
    for proto, node in zip(source.node, graph, strict=True):
        for inner_source, inner in inner_graphs(proto.attribute, node):
            declare_sparse(inner_source, inner, name)


def _value(sparse: onnx.SparseTensorProto, name: str) -> ir.Value:
    key, stored = sparse.values.name, sparse.values.data_type
    if stored in (0, onnx.TensorProto.STRING) or stored not in set(ir.DataType) or any(d < 0 for d in sparse.dims):
        raise ModelError(
            f"{name}: not a valid ONNX model (sparse initializer {key!r} has no element type, or a negative size): "
            "check it with onnx.checker"
        )
    # operators read the dense tensor that it stands for
    return ir.Value(name=key, type=ir.TensorType(ir.DataType(stored)), shape=ir.Shape(list(sparse.dims)))


def _is_dangling(value: ir.Value) -> bool:
    return value.producer() is None and not value.is_graph_input() and not value.is_initializer()

"""Help for the tests of the ONNX frontend: models from text, runs in ONNX Runtime, programs made of one value."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnx.parser
import onnxruntime
from onnx import helper

import stabilize
from stabilize.frontends.onnx import open_onnx
from stabilize.frontends.onnx_types import DATA_TYPES
from stabilize.graph.build import Builder
from stabilize.graph.value import TensorType, Value
from stabilize.graph.view import Replacement

#: The opsets that matter: axes as attributes, axes as inputs, the exporter's, the newest ONNX Runtime runs.
OPSETS = (13, 18, 21, 25)


def model(text: str, opset: int = 18, ir_version: int = 10) -> onnx.ModelProto:
    """`text` is a graph in ONNX's text syntax."""
    return onnx.parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["" : {opset}, "test" : 1]>\n{text}')


def run(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Run in ONNX Runtime at full optimisation: what a deployment sees."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def op_types(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


def program(
    function: Callable[..., Value], types: Mapping[str, TensorType], opset: int, ir_version: int = 10
) -> onnx.ModelProto:
    """A model that computes `function(builder, *inputs)`: a placeholder of its type, replaced by it."""
    scratch = Builder()
    result = function(scratch, *(scratch.input(n, t) for n, t in types.items())).type
    inputs = [helper.make_tensor_value_info(n, DATA_TYPES[t.dtype], t.shape) for n, t in types.items()]
    output = helper.make_tensor_value_info("y", DATA_TYPES[result.dtype], result.shape)
    node = helper.make_node("Placeholder", list(types), ["y"], name="node", domain="test")
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("test", 1)]
    graph = helper.make_graph([node], "graph", inputs, [output])
    host = open_onnx(helper.make_model(graph, opset_imports=imports, ir_version=ir_version))
    view = host.view
    new = function(view.builder, *(view.bindings[n] for n in types))
    patched = host.patched([Replacement(view.outputs[0], new)]).model()
    assert isinstance(patched, onnx.ModelProto)
    onnx.checker.check_model(patched, full_check=True)
    return patched


#: Rows that a naive softmax gets wrong: an overflow, an underflow, silent zeros.
ROWS = np.asarray([[-200, 0, 1, 2], [100, 101, 99, 98], [88.5, 88.5, 88.5, 88.5], [1, 2, 3, 4]], np.float32)


def softmax(x: np.ndarray) -> np.ndarray:
    """Of the rows, in float64."""
    e = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def close(actual: np.ndarray, truth: np.ndarray) -> None:
    """Within 1e-6 relatively, or half the smallest float32 where the truth lies below that."""
    np.testing.assert_allclose(actual, truth, rtol=1e-6, atol=2.0**-150)


def optimized(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Optimized and checked: the argument untouched, the result valid, nothing left to do."""
    before = proto.SerializeToString()
    fixed = stabilize.optimize(proto)
    assert proto.SerializeToString() == before
    onnx.checker.check_model(fixed, full_check=True)
    onnx.shape_inference.infer_shapes(fixed, strict_mode=True)
    assert stabilize.optimize(fixed).SerializeToString() == fixed.SerializeToString()
    return fixed


def names_of(graph: onnx.GraphProto) -> list[str]:
    """Every name that is given in the graph and inside it."""
    names = [*(i.name for i in graph.input), *(t.name for t in graph.initializer)]
    for node in graph.node:
        names += [o for o in node.output if o]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                names += names_of(attribute.g)
    return names

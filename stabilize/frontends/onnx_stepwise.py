"""Run an ONNX model node by node: each in ONNX Runtime where that has a kernel, else by the reference implementation.

In float64 ONNX Runtime lacks a kernel for some node of most models, and the reference implementation is slow, or wrong,
for some other. Node by node there is nearly always one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, final

import numpy as np
import onnx
from onnx import NodeProto, helper

from stabilize.errors import ModelError
from stabilize.frontends.example import brief
from stabilize.frontends.onnx_scopes import captured


@final
class Stepwise:
    """A model without external data whose nodes are run one after the other."""

    def __init__(self, proto: onnx.ModelProto, name: str) -> None:
        self._proto, self._name = proto, name
        self._steps = [_Step(proto, node) for node in proto.graph.node]
        self._weights: dict[str, Any] = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
        last = {name: i for i, step in enumerate(self._steps) for name in step.inputs}
        self._done: list[list[str]] = [[] for _ in self._steps]
        kept = {output.name for output in proto.graph.output}
        for name, i in last.items():
            if name not in kept:
                self._done[i].append(name)

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Any]) -> list[Any]:
        """The outputs of these names; ModelError naming the node that neither can run."""
        values = self._weights | dict(feeds)
        for step, done in zip(self._steps, self._done, strict=True):
            try:
                values.update(step.run(values))
            except Exception as error:  # both raise types of their own, none of them documented
                node = step.node.name or ", ".join(step.node.output)
                raise ModelError(f"{self._name}: {step.node.op_type} {node!r} cannot be run: {brief(error)}") from error
            for name in done:
                values.pop(name, None)
        return [values[name] for name in outputs]


@final
class _Step:
    """One node as a model of its own, made for the types that it is first given."""

    def __init__(self, proto: onnx.ModelProto, node: NodeProto) -> None:
        self._proto, self.node = proto, node
        self.inputs = list(dict.fromkeys(name for name in (*node.input, *captured(node)) if name))
        self._outputs = [name for name in node.output if name]
        self._types: tuple[object, ...] = ()
        self._run: Any = None

    def run(self, values: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: values[name] for name in self.inputs}
        types = tuple(getattr(value, "dtype", None) for value in given.values())
        if self._run is None or types != self._types:
            self._types, self._run = types, self._loaded(given)
        try:
            found = self._run(self._outputs, given)
        except Exception:  # a kernel may find out only now that it does not take these types
            self._run = self._reference(given)
            found = self._run(self._outputs, given)
        return dict(zip(self._outputs, found, strict=True))

    def _loaded(self, given: Mapping[str, Any]) -> Any:
        if not all(isinstance(value, np.ndarray) for value in given.values()):
            return self._reference(given)
        runtime: Any = import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        try:
            data = self._model(given).SerializeToString()
            return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run
        except Exception:  # no kernel, or not for these types
            return self._reference(given)

    def _reference(self, given: Mapping[str, Any]) -> Any:
        evaluator: Any = import_module("onnx.reference").ReferenceEvaluator
        return evaluator(self._model(given)).run

    def _model(self, given: Mapping[str, Any]) -> onnx.ModelProto:
        inputs = [
            onnx.ValueInfoProto(name=name)
            if (dtype := getattr(value, "dtype", None)) is None  # a sequence
            else helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), None)
            for name, value in given.items()
        ]
        graph = helper.make_graph([self.node], "step", inputs, [onnx.ValueInfoProto(name=n) for n in self._outputs])
        model = helper.make_model(graph, functions=self._proto.functions, opset_imports=self._proto.opset_import)
        model.ir_version = self._proto.ir_version
        return model

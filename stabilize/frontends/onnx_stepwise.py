"""Run an ONNX model node by node: each in ONNX Runtime where that has a kernel, else by the reference implementation.

In float64 ONNX Runtime lacks a kernel for some node of most models, and the reference implementation is slow, or wrong,
for some other. Node by node there is nearly always one of them. Values can be looked at, or rounded, on the way, and
like nodes share a session: those of models with thousands of nodes take ONNX Runtime minutes to load.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, Final, TypeAlias, final

import numpy as np
import onnx
from onnx import NodeProto, helper

from stabilize.errors import MissingExtraError, ModelError
from stabilize.frontends.example import brief
from stabilize.frontends.onnx_scopes import captured

#: Given the name and the contents of a value when it is computed; what it returns goes on.
Settle: TypeAlias = Callable[[str, Any], Any]

#: Version of the format that nodes by themselves need no newer one than, and that every runtime takes.
_NEWEST: Final = 10


def as_it_is(_: str, value: Any) -> Any:
    return value


@final
class Stepwise:
    """A model whose nodes are run one after the other.

    folder: of its external data. nodes: in the place of its own. settle: sees every weight, input and computed value.
    kernels: shared between runs of similar models.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        name: str,
        folder: str | None = None,
        *,
        nodes: Iterable[NodeProto] | None = None,
        settle: Settle = as_it_is,
        kernels: Kernels | None = None,
    ) -> None:
        self._name, self._settle = name, settle
        self._kernels = kernels or Kernels(proto)
        self._nodes = list(proto.graph.node if nodes is None else nodes)
        self._takes = [tuple(dict.fromkeys(captured(node))) for node in self._nodes]
        self._weights = {
            t.name: settle(t.name, onnx.numpy_helper.to_array(t, folder or "")) for t in proto.graph.initializer
        }
        last = {n: i for i, node in enumerate(self._nodes) for n in (*node.input, *self._takes[i])}
        kept = {output.name for output in proto.graph.output}
        self._done: list[list[str]] = [[] for _ in self._nodes]
        for n, i in last.items():
            if n not in kept:
                self._done[i].append(n)

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Any]) -> list[Any]:
        """The outputs of these names; ModelError naming the node that neither can run."""
        values = self._weights | {name: self._settle(name, value) for name, value in feeds.items()}
        for node, takes, done in zip(self._nodes, self._takes, self._done, strict=True):
            try:
                found = self._kernels.run(
                    node, [values[n] if n else None for n in node.input], {n: values[n] for n in takes}
                )
            except Exception as error:  # both raise types of their own, none of them documented
                told = node.name or ", ".join(node.output)
                raise ModelError(f"{self._name}: {node.op_type} {told!r} cannot be run: {brief(error)}") from error
            for name, value in zip((n for n in node.output if n), found, strict=True):
                values[name] = self._settle(name, value)
            for name in done:
                values.pop(name, None)
        return [values[name] for name in outputs]


@final
class Kernels:
    """Nodes as models of their own, made once for each operator, its attributes and the types that it is given.

    proto: the model whose functions, operator sets and version they are of.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        self._imports, self._version = list(proto.opset_import), min(proto.ir_version, _NEWEST)
        self._functions = list(proto.functions)
        self._made: dict[tuple[object, ...], Any] = {}
        try:
            self._runtime: Any = import_module("onnxruntime")
        except ImportError as error:
            raise MissingExtraError("onnxruntime", "onnx", "running an ONNX model") from error

    def run(self, node: NodeProto, operands: Sequence[Any], outer: Mapping[str, Any]) -> list[Any]:
        """The outputs of `node` that have a name. operands: by position, None where there is none; outer: by name."""
        bare = onnx.NodeProto()
        bare.CopyFrom(node)
        bare.input[:] = ["" if value is None else f"i{i}" for i, value in enumerate(operands)]
        bare.output[:] = [f"o{i}" if name else "" for i, name in enumerate(node.output)]
        bare.ClearField("name")
        bare.ClearField("doc_string")
        bare.ClearField("metadata_props")
        given = dict(outer) | {f"i{i}": value for i, value in enumerate(operands) if value is not None}
        key = (bare.SerializeToString(deterministic=True), *(_type(value) for value in given.values()))
        wanted = [name for name in bare.output if name]
        if key not in self._made:
            self._made[key] = self._loaded(bare, given)
        try:
            found: list[Any] = self._made[key](wanted, given)
        except Exception:  # a kernel may find out only now that it does not take these types
            self._made[key] = self._reference(bare, given)
            found = self._made[key](wanted, given)
        return found

    def _loaded(self, node: NodeProto, given: Mapping[str, Any]) -> Any:
        if not all(isinstance(value, np.ndarray) for value in given.values()):
            return self._reference(node, given)
        options = self._runtime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.graph_optimization_level = self._runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            data = self._model(node, given).SerializeToString()
            session = self._runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception:  # no kernel, or not for these types
            return self._reference(node, given)
        return self._reference(node, given) if any("bfloat16" in o.type for o in session.get_outputs()) else session.run

    def _reference(self, node: NodeProto, given: Mapping[str, Any]) -> Any:
        evaluator: Any = import_module("onnx.reference").ReferenceEvaluator
        return evaluator(self._model(node, given)).run

    def _model(self, node: NodeProto, given: Mapping[str, Any]) -> onnx.ModelProto:
        inputs = [
            onnx.ValueInfoProto(name=name)
            if (dtype := getattr(value, "dtype", None)) is None  # a sequence
            else helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), None)
            for name, value in given.items()
        ]
        graph = helper.make_graph([node], "step", inputs, [onnx.ValueInfoProto(name=n) for n in node.output if n])
        model = helper.make_model(graph, functions=self._functions, opset_imports=self._imports)
        model.ir_version = self._version
        return model


def _type(value: Any) -> object:
    return (value.dtype, value.ndim) if hasattr(value, "dtype") else None

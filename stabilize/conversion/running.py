"""Running a model in ONNX Runtime with a look at the values inside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, Final, TypeAlias, final

import numpy.typing as npt
import onnx

from stabilize.errors import MissingExtraError, ModelError, StabilizeError
from stabilize.frontends.example import brief

Array: TypeAlias = "npt.NDArray[Any]"
Arrays: TypeAlias = Mapping[str, Array]

#: Values taken out of a model in one run, at first, and bytes of them from which fewer are taken in the next.
_FIRST_TAKEN: Final = 64
_MANY_BYTES: Final = 1 << 27

#: ONNX Runtime's name of a float type → NumPy's.
_FLOATS: Final = {"tensor(float16)": "float16", "tensor(float)": "float32", "tensor(double)": "float64"}


@final
class NoKernelError(StabilizeError):
    """The runtime has no kernel for an operator in some type."""


@final
class Session:
    """A model in ONNX Runtime on the CPU. exact: without the runtime's own rewriting.

    ModelError when the runtime cannot load it; NoKernelError when it has no kernel for a type.
    """

    def __init__(self, proto: onnx.ModelProto, name: str, folder: str | None, *, exact: bool = False) -> None:
        self.name: Final = name
        self.outputs: Final = [o.name for o in proto.graph.output]
        try:
            runtime: Any = import_module("onnxruntime")
            state: Any = import_module("onnxruntime.capi.onnxruntime_pybind11_state")
        except ImportError as error:
            raise MissingExtraError("onnxruntime", "onnx", "converting an ONNX model") from error
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # what matters is in the error it raises
        if exact:
            options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if folder is not None:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
        try:
            data = proto.SerializeToString()
        except Exception as error:  # protobuf's implementations disagree on the type
            raise ModelError(f"{name} exceeds 2 GB: save it with external data and pass its path") from error
        try:
            self._session: Any = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except state.NotImplemented as error:
            raise NoKernelError(f"{name}: ONNX Runtime on the CPU has no kernel for it: {brief(error)}") from error
        except Exception as error:  # runtimes raise types of their own, none of them documented
            raise ModelError(f"{name}: ONNX Runtime cannot load it: {brief(error)}") from error
        ends = (*self._session.get_inputs(), *self._session.get_outputs())
        if any("bfloat16" in each.type for each in ends):
            raise NoKernelError(f"{name}: ONNX Runtime takes and gives no bfloat16 through NumPy")
        self._floats: Final = {i.name: _FLOATS[i.type] for i in self._session.get_inputs() if i.type in _FLOATS}

    def run(self, feeds: Arrays, wanted: Sequence[str] | None = None) -> list[Array]:
        """Outputs of these names, all by default; floats are rounded to what inputs take. ModelError if it fails."""
        given = {n: a.astype(self._floats.get(n, a.dtype), copy=False) for n, a in feeds.items()}
        try:
            found: list[Array] = self._session.run(list(self.outputs if wanted is None else wanted), given)
        except Exception as error:
            raise ModelError(f"{self.name} fails on these inputs: {brief(error)}") from error
        return found

    def values(self, feeds: Arrays, names: Sequence[str]) -> Iterator[tuple[str, Array]]:
        """The values of `names`, which must be outputs, a few in each run: memory is bounded, not the model's size."""
        at, count = 0, _FIRST_TAKEN
        while at < len(names):
            taken = names[at : at + count]
            arrays = self.run(feeds, taken)
            yield from zip(taken, arrays, strict=True)
            at += count
            size = sum(a.nbytes for a in arrays)
            count = max(1, count // 2) if size > _MANY_BYTES else count * 2 if 4 * size < _MANY_BYTES else count


def opened(proto: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """A copy of `proto` with the float32 values `names` as outputs too."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    present = {o.name for o in copy.graph.output}
    for name in dict.fromkeys(names):
        if name not in present:
            copy.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return copy

"""Running a model in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final, TypeAlias, final

import numpy.typing as npt
import onnx

from stabilize.errors import MissingExtraError, ModelError, StabilizeError
from stabilize.frontends.example import brief

Array: TypeAlias = "npt.NDArray[Any]"
Arrays: TypeAlias = Mapping[str, Array]

#: ONNX Runtime's name of a float type → NumPy's.
_FLOATS: Final = {"tensor(float16)": "float16", "tensor(float)": "float32", "tensor(double)": "float64"}


@final
class NoKernelError(StabilizeError):
    """The runtime has no kernel for an operator in some type."""


@final
class Session:
    """A model in ONNX Runtime on the CPU.

    ModelError when the runtime cannot load it; NoKernelError when it has no kernel for a type.
    """

    def __init__(self, proto: onnx.ModelProto, name: str, folder: str | None) -> None:
        self.name: Final = name
        self.outputs: Final = [o.name for o in proto.graph.output]
        try:
            runtime: Any = import_module("onnxruntime")
            state: Any = import_module("onnxruntime.capi.onnxruntime_pybind11_state")
        except ImportError as error:
            raise MissingExtraError("onnxruntime", "onnx", "converting an ONNX model") from error
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # what matters is in the error it raises
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

    def run(self, feeds: Arrays) -> list[Array]:
        """The outputs; floats are rounded to what inputs take. ModelError if it fails."""
        given = {n: a.astype(self._floats.get(n, a.dtype), copy=False) for n, a in feeds.items()}
        try:
            found: list[Array] = self._session.run(self.outputs, given)
        except Exception as error:
            raise ModelError(f"{self.name} fails on these inputs: {brief(error)}") from error
        return found

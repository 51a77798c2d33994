"""Run ONNX models: in ONNX Runtime, or in ONNX's reference implementation where that has no kernel."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, final

import torch

from stabilize.errors import MissingExtraError, ModelError, UsageError
from stabilize.frontends.example import Example, brief, output_tensors
from stabilize.frontends.onnx import OnnxHost, open_onnx
from stabilize.frontends.random_inputs import check_size, draw

if TYPE_CHECKING:
    import onnx

    from stabilize.frontends.onnx import OnnxModel

#: Sizes tried for symbolic dimensions, in turn, and ranges tried for integers.
_SIZES: Final = ((2, 3), (2,), (3,), (1,))
_RANGES: Final = ((0, 8), (0, 2), (1, 2), (0, 1))

_RANDOM: Final = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")


@final
class OnnxRunner:
    """An ONNX model that can be run, read, and run in float64."""

    def __init__(self, model: OnnxModel, name: str, folder: str | None = None, *, rounding: bool = False) -> None:
        """`folder`: of its external data, for a model that is not a file. `rounding`: run it where every result is
        rounded to its type; ONNX Runtime's kernels for CPUs compute float16 in float32."""
        self._rounding = rounding
        self.host: OnnxHost = open_onnx(model)
        self.name = name
        self.folder: str | None = folder
        self.proto = _proto(model)
        if isinstance(model, (str, os.PathLike)):
            self.folder = os.path.dirname(os.path.abspath(model))
        elif folder is not None:
            from stabilize.frontends.onnx_files import check_locations

            check_locations(self.proto, name, folder)
        _check_not_random(self.proto, name)
        if self.host.is_too_large:
            raise ModelError(f"{name}: its functions call each other too often to be run: inline or export it again")
        defaults = {tensor.name for tensor in self.proto.graph.initializer}
        self._inputs = {i.name: i for i in self.proto.graph.input if i.name not in defaults}

    @property
    def inputs(self) -> list[str]:
        return list(self._inputs)

    @cached_property
    def _session(self) -> _Session:
        return _Session(self.proto, self.name, self.folder, rounding=self._rounding)

    @cached_property
    def _wide(self) -> _Session:
        import onnx

        from stabilize.frontends.onnx_widen import widened

        proto = self.proto
        if _is_external(proto):
            proto = onnx.ModelProto()
            proto.CopyFrom(self.proto)
            onnx.load_external_data_for_model(proto, self.folder or "")
        return _Session(widened(proto), f"{self.name} in float64", None, wide=True)

    def sizes(self, name: str) -> list[int | str]:
        """The dimensions of an input: a size, a symbol, or "" for neither."""
        return self._type(name)[1]

    @property
    def in_runtime(self) -> bool:
        """Whether ONNX Runtime runs the model, rather than the reference implementation."""
        return self._session.in_runtime

    def check(self, arrays: Mapping[str, torch.Tensor]) -> None:
        """UsageError when a tensor has not the type or rank of its input."""
        for name, tensor in arrays.items():
            dtype, shape = self._type(name)
            fixed = [(d, n) for d, n in zip(shape, tensor.shape, strict=False) if isinstance(d, int)]
            if tensor.dtype != dtype:
                raise UsageError(f"input {name!r} of {self.name} is {dtype}, not {tensor.dtype}")
            if tensor.layout is not torch.strided:
                raise UsageError(f"input {name!r} of {self.name} is dense, not {tensor.layout}: pass .to_dense()")
            if shape and (len(shape) != tensor.dim() or any(d != n for d, n in fixed)):
                wanted = [d or "?" for d in shape]
                raise UsageError(f"input {name!r} of {self.name} has shape {wanted}, not {list(tensor.shape)}")

    def run(self, arrays: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """Its outputs as tensors."""
        return self._session.run(arrays)

    def run_wide(self, arrays: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """The outputs of a copy in float64; ModelError when nothing can run that."""
        return self._wide.run({n: t.double() if t.is_floating_point() else t for n, t in arrays.items()})

    def recorded(self) -> Example:
        """Random inputs that the model runs on; UsageError when none of those tried are."""
        error: ModelError | None = None
        _ = self._session  # a model that cannot be loaded is told as that
        for sizes, (low, high) in itertools.product(_SIZES, _RANGES):
            arrays = self._drawn(sizes, low, high)
            try:
                self.run(arrays)
            except ModelError as failure:
                error = error or failure
            else:
                return Example((), dict(arrays))
        raise UsageError(f"no random inputs were found that suit, pass example inputs: {error}") from error

    def _drawn(self, sizes: Sequence[int], low: int, high: int) -> dict[str, torch.Tensor]:
        known: dict[str, int] = {}
        result: dict[str, torch.Tensor] = {}
        for position, name in enumerate(self.inputs):
            dtype, dims = self._type(name)
            shape = [
                d if isinstance(d, int) else known.setdefault(d or f"{name}.{axis}", sizes[len(known) % len(sizes)])
                for axis, d in enumerate(dims)
            ]
            check_size(shape, name, self.name)
            result[name] = draw(torch.empty(shape, dtype=dtype, device="meta"), position, low, high)
        return result

    def _type(self, name: str) -> tuple[torch.dtype, list[int | str]]:
        """Dtype of an input, and its dimensions: a size, a symbol, or "" for neither."""
        type = self._inputs[name].type
        dtype = _torch_dtype(type.tensor_type.elem_type) if type.HasField("tensor_type") else None
        if dtype is None:
            kind = type.WhichOneof("value") or "untyped value"
            raise UsageError(f"input {name!r} of {self.name} is a {kind.replace('_type', '')}, which cannot be drawn")
        dims = type.tensor_type.shape.dim
        return dtype, [d.dim_value if d.HasField("dim_value") else d.dim_param for d in dims]


def silence_runtime() -> None:
    """Keep ONNX Runtime from writing to stderr, in this process: for the command line."""
    try:
        import_module("onnxruntime").set_default_logger_severity(4)
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx", "running an ONNX model") from error


@final
class _Session:
    """One model in the runtime that can run it."""

    def __init__(
        self, proto: onnx.ModelProto, name: str, folder: str | None, *, wide: bool = False, rounding: bool = False
    ) -> None:
        """`wide`: a model in float64, which is run node by node where ONNX Runtime does not take it as a whole.
        `rounding`: the reference implementation runs it in any case."""
        self.name = name
        self._outputs = [o.name for o in proto.graph.output]
        runtime = None if rounding else _onnxruntime(proto, name, folder, strict=not wide)
        self.in_runtime = runtime is not None
        self._stepwise = partial(_stepwise, proto, name) if wide else None
        self._run = runtime or (_reference(proto, name, folder) if self._stepwise is None else self._stepwise())

    def run(self, arrays: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        feeds = {name: _numpy(tensor) for name, tensor in arrays.items()}
        try:
            results = self._attempt(feeds)
        except Exception as error:  # runtimes raise types of their own, none of them documented
            raise ModelError(f"{self.name} fails on these inputs: {brief(error)}") from error
        return output_tensors(results, self.name)

    def _attempt(self, feeds: Mapping[str, Any]) -> Any:
        try:
            return self._run(self._outputs, feeds)
        except Exception:  # some kernels find out only now that they take no float64
            if self._stepwise is None:
                raise
            self._run, self._stepwise = self._stepwise(), None
            return self._run(self._outputs, feeds)


def _stepwise(proto: onnx.ModelProto, name: str) -> Any:
    from stabilize.frontends.onnx_stepwise import Stepwise

    return Stepwise(proto, name).run


def _onnxruntime(proto: onnx.ModelProto, name: str, folder: str | None, *, strict: bool) -> Any:
    """The run method of a session; None when ONNX Runtime has no kernel for the model's operators and types."""
    try:
        ort: Any = import_module("onnxruntime")
        state: Any = import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx", "running an ONNX model") from error
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what matters is in the error it raises
    if folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    try:
        data = proto.SerializeToString()
    except Exception as error:  # protobuf's implementations disagree on the type
        if not strict:
            return None
        raise ModelError(f"{name} exceeds 2 GB: save it with external data and pass its path") from error
    try:
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except state.NotImplemented:
        return None
    except Exception as error:
        if not strict or "bfloat16" in str(error):
            return None
        raise ModelError(f"{name}: ONNX Runtime cannot load it: {brief(error)}") from error
    if any(
        "bfloat16" in each.type or "float8" in each.type for each in (*session.get_inputs(), *session.get_outputs())
    ):
        return None  # NumPy arrays of these types are not taken
    return session.run


def _reference(proto: onnx.ModelProto, name: str, folder: str | None) -> Any:
    import onnx

    evaluator: Any = import_module("onnx.reference").ReferenceEvaluator

    if _is_external(proto):
        whole = onnx.ModelProto()
        whole.CopyFrom(proto)
        onnx.load_external_data_for_model(whole, folder or "")
        proto = whole
    try:
        return evaluator(proto).run
    except Exception as error:
        raise ModelError(f"{name}: neither ONNX Runtime nor onnx.reference can run it: {brief(error)}") from error


def _proto(model: OnnxModel) -> onnx.ModelProto:
    import onnx
    import onnx_ir as ir

    from stabilize.frontends import onnx_files

    if isinstance(model, onnx.ModelProto):
        return model
    if isinstance(model, (str, os.PathLike)):
        return onnx_files.load(model)
    graph = model if isinstance(model, ir.Model) else model.model
    return ir.serde.serialize_model(ir.external_data.load_to_model(graph.clone()))


def _check_not_random(proto: onnx.ModelProto, name: str) -> None:
    """UsageError for draws without a seed: two runs of the same model would differ."""
    for nodes in (proto.graph.node, *(function.node for function in proto.functions)):
        for node in _with_inner(nodes):
            if node.op_type in _RANDOM and not any(a.name == "seed" for a in node.attribute):
                raise UsageError(
                    f"{name} draws random numbers ({node.op_type} {node.name!r}): give it a seed attribute"
                )


def _with_inner(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """`nodes`, and those of the graphs inside them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _with_inner(attribute.g.node)


def _is_external(proto: onnx.ModelProto) -> bool:
    from stabilize.frontends.onnx_files import locations

    return bool(locations(proto))


def _torch_dtype(elem_type: int) -> torch.dtype | None:
    import onnx

    name = onnx.TensorProto.DataType.Name(elem_type).lower()
    name = {"float": "float32", "double": "float64"}.get(name, name)
    dtype = getattr(torch, name, None)
    return dtype if isinstance(dtype, torch.dtype) else None


def _numpy(tensor: torch.Tensor) -> Any:
    if tensor.dtype is torch.bfloat16:
        from stabilize.frontends.onnx_types import numpy_dtype

        return tensor.detach().cpu().contiguous().view(torch.int16).numpy().view(numpy_dtype("bfloat16"))
    return tensor.detach().cpu().contiguous().numpy()

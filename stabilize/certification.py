"""`certify`: two whole models run on the same inputs and compared with the first one in float64."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from typing import Any, Final, TypeAlias, cast, final

import torch
from torch import nn
from torch.export import ExportedProgram

from stabilize.errors import ModelError, StabilizeError, UsageError
from stabilize.frontends.example import Example, brief
from stabilize.frontends.fx_run import TorchRunner
from stabilize.frontends.onnx_run import OnnxRunner
from stabilize.graph.value import Value, cone
from stabilize.verify.certificate import Certificate
from stabilize.verify.models import Tensors, certify_models, model_families, module_shadow, view_shadow

Runner: TypeAlias = Callable[[Tensors], list[torch.Tensor]]

_READABLE: Final = (
    "an nn.Module, GraphModule, ExportedProgram, onnx.ModelProto, onnx_ir.Model, ONNXProgram or the path of a .onnx "
    "or .pt2 file"
)


def certify(before: object, after: object, example_inputs: object = None) -> Certificate:
    """Compare `after` with `before`; see `stabilize.certify`."""
    first, second = _open(before, "the first model"), _open(after, "the second model")
    _share_data_folder(first, second)
    example = _example(first, second, example_inputs)
    runners = [_Subject(model, example) for model in (first, second)]
    run_before, run_after = _Remembered(runners[0].run), _Remembered(runners[1].run)
    shadow = _Remembered(runners[0].shadow)
    failures: list[str] = []

    def trials() -> Generator[tuple[str, Tensors]]:
        for family, tensors in _families(example.tensors):
            if not _runs(run_before, tensors, required=family == "given"):
                continue
            try:
                run_after(tensors)
            except ModelError as error:
                failures.append(f"on {family} inputs {error}")
                continue
            yield family, tensors

    def truth(tensors: Tensors) -> Tensors:
        return _aligned(shadow(tensors), run_before(tensors))

    def stand_in(tensors: Tensors) -> Tensors:
        exact = truth(tensors)
        if all(bool(torch.isfinite(t).all()) for t in exact if t.is_floating_point()):
            return exact
        try:
            return _aligned(runners[1].shadow(tensors), run_before(tensors))
        except StabilizeError:
            return exact

    certificate = certify_models(run_before, run_after, truth, trials(), shadow_after=stand_in)
    if certificate.accepted and failures:
        return Certificate(False, failures[0], certificate.oracle, certificate.families, certificate.gradients)
    return certificate


def _families(inputs: Tensors) -> list[tuple[str, Tensors]]:
    """Those of `model_families`, and small inputs: there a naive original is sound and a wrong replacement shows."""
    if not any(t.is_floating_point() for t in inputs):
        return model_families(inputs)
    return [*model_families(inputs), ("1/64-fold", [t / 64 if t.is_floating_point() else t for t in inputs])]


def _runs(run: Runner, tensors: Tensors, *, required: bool) -> bool:
    """Whether the original takes these inputs. It must take those that were given."""
    try:
        run(tensors)
    except ModelError:
        if required:
            raise
        return False
    return True


def _aligned(exact: Tensors, like: Tensors) -> list[torch.Tensor]:
    """`exact`, with NaN ("not known") for outputs whose shape depends on data and came out otherwise in float64."""
    if len(exact) != len(like):
        return list(exact)
    return [
        e if e.shape == c.shape else torch.full(c.shape, torch.nan, dtype=torch.float64)
        for e, c in zip(exact, like, strict=True)
    ]


@final
class _Remembered:
    """A runner that does not run twice in a row on the same tensors."""

    def __init__(self, run: Runner) -> None:
        self._run = run
        self._last: tuple[Tensors, list[torch.Tensor]] | None = None

    def __call__(self, tensors: Tensors) -> list[torch.Tensor]:
        if self._last is None or self._last[0] is not tensors:
            self._last = None
            self._last = (tensors, self._run(tensors))
        return self._last[1]


# --- opening -----------------------------------------------------------------------------------------------


def _open(model: object, name: str) -> TorchRunner | OnnxRunner:
    if isinstance(model, (str, os.PathLike)):
        path = os.fspath(cast("str | os.PathLike[str]", model))
        if path.lower().endswith(".pt2"):
            from pathlib import Path

            from stabilize.frontends.pt2 import read

            return TorchRunner(read(Path(path)), path)
        return OnnxRunner(path, path)
    if isinstance(model, (nn.Module, ExportedProgram)):
        return TorchRunner(model, f"{name} ({type(model).__name__})")
    kinds = {(t.__module__.partition(".")[0], t.__name__) for t in type(model).__mro__}
    if kinds & {("onnx", "ModelProto"), ("onnx_ir", "Model"), ("torch", "ONNXProgram")}:
        return OnnxRunner(cast(Any, model), f"{name} ({type(model).__name__})")
    raise UsageError(f"cannot read {name}, a {type(model).__module__}.{type(model).__qualname__}: pass {_READABLE}")


def _share_data_folder(first: TorchRunner | OnnxRunner, second: TorchRunner | OnnxRunner) -> None:
    """What was optimised from a file refers to the external data beside that file."""
    if isinstance(first, OnnxRunner) and isinstance(second, OnnxRunner):
        first.folder = first.folder or second.folder
        second.folder = second.folder or first.folder


def _example(first: TorchRunner | OnnxRunner, second: TorchRunner | OnnxRunner, given: object) -> Example:
    """The inputs to compare on; without any, those that a model records or that suit it."""
    if given is not None:
        example = Example.of(given)
        if isinstance(first, OnnxRunner):
            example.check_names(first.inputs, first.name)
        else:
            first.accepted(example, by_position=False)
        return example
    for model in (first, second):
        recorded = model.recorded()
        if recorded is not None:
            return recorded
    raise UsageError("example_inputs are needed: a module does not say what inputs it takes")


# --- running -----------------------------------------------------------------------------------------------


@final
class _Subject:
    """One of the two models, as functions of the tensors of the example."""

    def __init__(self, model: TorchRunner | OnnxRunner, example: Example) -> None:
        self._model = model
        self._example = example
        self._reading: _Reading | None = None
        if isinstance(model, OnnxRunner):
            model.check(example.by_name(model.inputs, model.name))
        else:
            model.accepted(example)

    def run(self, tensors: Tensors) -> list[torch.Tensor]:
        filled = self._example.filled(tensors)
        if isinstance(self._model, OnnxRunner):
            return self._model.run(filled.by_name(self._model.inputs, self._model.name))
        return self._model.run(self._model.accepted(filled))

    def shadow(self, tensors: Tensors) -> list[torch.Tensor]:
        """The model in float64; ModelError when it cannot be computed there."""
        filled = self._example.filled(tensors)
        if isinstance(self._model, OnnxRunner):
            return self._onnx_shadow(self._model, filled.by_name(self._model.inputs, self._model.name))
        try:
            wide = module_shadow(self._model.module)
        except Exception as error:  # copying runs the module's own code
            raise ModelError(f"{self._model.name} cannot be copied for a float64 run: {brief(error)}") from error
        try:
            return self._model.run(self._model.accepted(filled), wide)
        except ModelError as error:
            raise ModelError(f"{error} (in float64, which the comparison needs)") from error

    def _onnx_shadow(self, model: OnnxRunner, arrays: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        if self._reading is None:
            self._reading = _Reading(model)
        if self._reading.obstacle is None:
            return self._reading.outputs(arrays)
        try:
            return model.run_wide(arrays)
        except ModelError as error:
            raise ModelError(
                f"{model.name} cannot be computed in float64: {self._reading.obstacle} is read as a whole, and {error}"
            ) from error


@final
class _Reading:
    """An ONNX model through its semantic view. `obstacle` names what the view does not see into."""

    def __init__(self, model: OnnxRunner) -> None:
        view = model.host.view
        self._outputs = view.outputs
        self._inputs = {name: view.bindings[name] for name in model.inputs}
        self._data: dict[Value, torch.Tensor] = {}
        self.obstacle: str | None = None
        leaves = set(self._inputs.values())
        for value in cone(view.outputs, leaves):
            if value in leaves or self.obstacle is not None:
                continue
            if value.op == "opaque":
                self.obstacle = str(value.attr("target")).partition("(")[0].partition("@")[0]
            elif value.op == "input":
                tensor = model.host.tensor(value)
                if tensor is None:
                    self.obstacle = f"the data of {value.attr('name')}"
                else:
                    self._data[value] = tensor
        if len(view.outputs) != len(model.proto.graph.output):
            self.obstacle = "an output"

    def outputs(self, arrays: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        leaves = {self._inputs[name]: tensor for name, tensor in arrays.items()}
        return view_shadow(self._outputs, {**leaves, **self._data})

"""`certify`: two whole models run on the same inputs and compared with the first one in float64."""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Final, TypeAlias, cast, final

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from stabilize.errors import ModelError, StabilizeError, UsageError
from stabilize.formats import FORMATS
from stabilize.frontends.example import Example, brief
from stabilize.frontends.fx_run import TorchRunner
from stabilize.frontends.onnx import is_onnx
from stabilize.frontends.onnx_run import OnnxRunner
from stabilize.graph.value import Value, cone
from stabilize.verify.certificate import Certificate
from stabilize.verify.models import (
    Slope,
    Slopes,
    Tensors,
    certify_models,
    model_families,
    module_shadow,
    scaled,
    view_shadow,
    widened,
)

_random: Any = torch.random

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

    return certify_models(
        run_before,
        run_after,
        truth,
        trials(),
        shadow_after=stand_in,
        slopes=_slopes(*runners),
        failures=failures,
    )


def _families(inputs: Tensors) -> list[tuple[str, Tensors]]:
    """Those of `model_families`, and small inputs: there a naive original is sound and a wrong replacement shows."""
    if not any(t.is_floating_point() for t in inputs):
        return model_families(inputs)
    return [*model_families(inputs), ("1/64-fold", _small(inputs))]


def _small(inputs: Tensors) -> list[torch.Tensor]:
    return [scaled(t, 1 / 64) for t in inputs]


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
    if is_onnx(model):
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
        example.check_numbers()
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


# --- gradients ---------------------------------------------------------------------------------------------

_Slopes: TypeAlias = tuple[list[torch.Size], list[torch.Tensor]]
"""Shapes of the outputs that were differentiated, and the gradients."""


def _slopes(before: _Subject, after: _Subject) -> Slopes | None:
    """The gradients of both, when both are of PyTorch."""
    if before.module is None or after.module is None:
        return None
    shared = _shared_parameters(before.module, after.module)
    sizes: list[float] = []

    def slopes(tensors: Tensors) -> list[Slope] | str:
        names = [f"input {i}" for i, t in enumerate(tensors) if t.is_floating_point()] + shared
        if not names:
            return "there is no float input and no parameter that both models have"
        try:
            old, exact = before.slopes(tensors, shared), before.slopes(tensors, shared, wide=True)
        except ModelError as error:
            return str(error)
        if old is None or exact is None:
            return "no output of the first model has a gradient"
        if old[0] != exact[0]:
            return "the shapes of the outputs depend on rounding"
        new = after.slopes(tensors, shared)
        found = [torch.zeros_like(t) for t in old[1]] if new is None else new[1]
        if not sizes:
            sizes.extend(_sizes(before, _small(tensors), shared) or [0.0 for _ in names])
        sizes[:] = [max(size, _size(t)) for size, t in zip(sizes, exact[1], strict=True)]
        return [
            slope
            for slope in zip(names, old[1], found, exact[1], sizes, strict=True)
            if str(slope[1].dtype).removeprefix("torch.") in FORMATS
        ]

    return slopes


def _sizes(model: _Subject, tensors: Tensors, parameters: Sequence[str]) -> list[float] | None:
    try:
        found = model.slopes(tensors, parameters, wide=True)
    except ModelError:
        return None
    return None if found is None else [_size(t) for t in found[1]]


def _size(tensor: torch.Tensor) -> float:
    """The largest finite magnitude; 0 when there is none."""
    finite = tensor[torch.isfinite(tensor)]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _shared_parameters(before: nn.Module, after: nn.Module) -> list[str]:
    """Float parameters that train in the first model and that both have, each under one name only."""
    first, second = (_own_names(module) for module in (before, after))
    return [
        name
        for name, parameter in first.items()
        if parameter.requires_grad
        and parameter.is_floating_point()
        and name in second
        and (second[name].shape, second[name].dtype) == (parameter.shape, parameter.dtype)
    ]


def _own_names(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters by name, without those that have several: another model may have made them two."""
    named = list(module.named_parameters(remove_duplicate=False))
    times = Counter(id(parameter) for _, parameter in named)
    return {name: parameter for name, parameter in named if times[id(parameter)] == 1}


def _differentiated(result: object, wanted: Sequence[torch.Tensor]) -> _Slopes | None:
    """Gradients of a projection whose coefficients are exact in every format."""
    outputs: list[torch.Tensor] = []
    seeds: list[torch.Tensor] = []
    for i, leaf in enumerate(pytree.tree_leaves(result)):
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() and leaf.requires_grad:
            odd = 2 * torch.randint(-4, 4, leaf.shape, generator=torch.Generator().manual_seed(i)) + 1
            outputs.append(leaf)
            seeds.append((odd / 8).to(leaf))
    if not outputs:
        return None
    with torch.autograd.set_detect_anomaly(False):  # NaN are what is compared
        found = torch.autograd.grad(outputs, wanted, seeds, allow_unused=True, materialize_grads=True)
    dense = [t.to_dense() if t.layout != torch.strided else t for t in found]
    return [t.shape for t in outputs], [t.detach().cpu() for t in dense]


# --- running -----------------------------------------------------------------------------------------------


@final
class _Subject:
    """One of the two models, as functions of the tensors of the example."""

    def __init__(self, model: TorchRunner | OnnxRunner, example: Example) -> None:
        self._model = model
        self._example = example
        self._shadow: OnnxShadow | None = None
        if isinstance(model, OnnxRunner):
            model.check(example.by_name(model.inputs, model.name))
        else:
            model.accepted(example)

    def run(self, tensors: Tensors) -> list[torch.Tensor]:
        filled = self._example.filled(tensors)
        if isinstance(self._model, OnnxRunner):
            return self._model.run(filled.by_name(self._model.inputs, self._model.name))
        return self._model.run(self._model.accepted(filled))

    @property
    def module(self) -> nn.Module | None:
        """What can have gradients."""
        return None if isinstance(self._model, OnnxRunner) else self._model.module

    def slopes(self, tensors: Tensors, parameters: Sequence[str], *, wide: bool = False) -> _Slopes | None:
        """Gradients of a fixed projection of the outputs, with respect to float inputs and to some parameters.

        None when no output has any; ModelError when they cannot be computed. wide: in float64.
        """
        assert isinstance(self._model, TorchRunner)
        try:
            with torch.inference_mode(False), torch.enable_grad(), _random.fork_rng():
                _random.manual_seed(0)
                module = copy.deepcopy(self._model.module)
                inputs = [t.detach().clone() for t in tensors]
                if wide:
                    module = module.double()
                    inputs = [t.double() if t.is_floating_point() else t for t in inputs]
                wanted = [t.requires_grad_() for t in inputs if t.is_floating_point()]
                given = dict(module.named_parameters(remove_duplicate=False))
                wanted += [given[name].requires_grad_() for name in parameters]
                filled = self._model.accepted(self._example.filled(inputs))
                with widened() if wide else nullcontext():
                    return _differentiated(module(*filled.args, **filled.kwargs), wanted)
        except Exception as error:  # the user's code may raise anything
            raise ModelError(f"{self._model.name} cannot be differentiated on these inputs: {brief(error)}") from error

    def shadow(self, tensors: Tensors) -> list[torch.Tensor]:
        """The model in float64; ModelError when it cannot be computed there."""
        filled = self._example.filled(tensors)
        if isinstance(self._model, OnnxRunner):
            self._shadow = self._shadow or OnnxShadow(self._model)
            return self._shadow.run(filled.by_name(self._model.inputs, self._model.name))
        try:
            wide = module_shadow(self._model.module)
        except Exception as error:  # copying runs the module's own code
            raise ModelError(f"{self._model.name} cannot be copied for a float64 run: {brief(error)}") from error
        try:
            return self._model.run(self._model.accepted(filled), wide)
        except ModelError as error:
            raise ModelError(f"{error} (in float64, which the comparison needs)") from error


@final
class OnnxShadow:
    """An ONNX model in float64: through its semantic view, or as a copy of the model where that does not see into."""

    def __init__(self, model: OnnxRunner) -> None:
        self._model = model
        self._reading = _Reading(model)

    def run(self, arrays: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """The outputs; ModelError when they cannot be computed in float64."""
        obstacle = f"{self._reading.obstacle} is read as a whole"
        if self._reading.obstacle is None:
            try:
                return self._reading.outputs(arrays)
            except (RuntimeError, IndexError, ValueError) as error:  # torch refuses what ONNX allows: negative indices
                obstacle = brief(error)
        try:
            return self._model.run_wide(arrays)
        except ModelError as error:
            raise ModelError(f"{self._model.name} cannot be computed in float64: {obstacle}, and {error}") from error


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

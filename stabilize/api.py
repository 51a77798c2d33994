"""The public functions: `optimize`, `lint`, `certify`, `convert`, `load`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, TypeVar, cast, final, overload

from stabilize.collector import only_new_objects
from stabilize.errors import ModelError, UsageError
from stabilize.formats import is_float
from stabilize.frontends.onnx_runtimes import PORTABLE, Runtime
from stabilize.graph.host import Host, input_values
from stabilize.pipeline import Progress, Request, run
from stabilize.report import Report
from stabilize.request import checked, checked_runtime, checked_search

if TYPE_CHECKING:
    import torch

    from stabilize.frontends.fx_hosts import ExportedHost
    from stabilize.graph.value import Value
    from stabilize.verify.certificate import Certificate

_M = TypeVar("_M")

#: torch.export and the number of threads that torch uses belong to the whole process: one run at a time.
alone = RLock()


@overload
def optimize(
    model: _M,
    example_inputs: object = None,
    *,
    form: str = ...,
    allow: str = ...,
    ranges: Mapping[str, tuple[float, float]] | None = ...,
    dynamic_shapes: object = ...,
    select: str | Collection[str] | None = ...,
    ignore: str | Collection[str] | None = ...,
    runtime: str = ...,
    allow_fast: str | Collection[str] = ...,
    certify: bool = ...,
    return_report: Literal[False] = False,
    progress: Progress | None = ...,
) -> _M: ...
@overload
def optimize(
    model: _M,
    example_inputs: object = None,
    *,
    form: str = ...,
    allow: str = ...,
    ranges: Mapping[str, tuple[float, float]] | None = ...,
    dynamic_shapes: object = ...,
    select: str | Collection[str] | None = ...,
    ignore: str | Collection[str] | None = ...,
    runtime: str = ...,
    allow_fast: str | Collection[str] = ...,
    certify: bool = ...,
    return_report: Literal[True],
    progress: Progress | None = ...,
) -> tuple[_M, Report]: ...
def optimize(
    model: Any,
    example_inputs: object = None,
    *,
    form: str = "softmax",
    allow: str = "exact",
    ranges: Mapping[str, tuple[float, float]] | None = None,
    dynamic_shapes: object = None,
    select: str | Collection[str] | None = None,
    ignore: str | Collection[str] | None = None,
    runtime: str = "portable",
    allow_fast: str | Collection[str] = (),
    certify: bool = True,
    return_report: bool = False,
    progress: Progress | None = None,
) -> Any:
    """The same function without overflow, cancellation, collapse or lost mass; every change certified.

    model: `torch.nn.Module`, `torch.fx.GraphModule`, `torch.export.ExportedProgram`, `onnx.ModelProto`,
        `onnx_ir.Model`, `torch.onnx.ONNXProgram`, or the path of a `.onnx` file. It is not modified.
    example_inputs: for modules: a tensor or array, a tuple of positional arguments, a dict of keyword arguments, or a
        pair (args, kwargs). Without them a module is captured at its first call. Programs and ONNX models need none.
    form: "softmax" (max-shifted forms), or "collapse-free": besides, every cross-entropy in its log1p form, whose loss
        and gradient do not round to zero when one class leads (the same function over the reals).
    allow: "exact" (equal over the reals) or "approximate" (may drop an epsilon or fill a limit; every use is listed).
    ranges: input name → (lowest, highest) value it takes.
    dynamic_shapes: as for `torch.export.export`, when a module is exported here.
    select, ignore: a rule code or the beginning of one ("STB1"), or several of them, to apply, or not to.
    runtime: what will run an ONNX model: "portable" (new nodes are of operators that every measured runtime computes
        well), "onnxruntime" or "openvino" (of those that this one does, and the model's own operators that it computes
        badly are written in others, STB810), "tensorrt" or "tvm" (not measured: as "portable").
    allow_fast: operators, like "Sigmoid", that are taken as they are, however the runtime computes them.
    certify: judge each rewrite against arbitrary precision and decline those that are worse anywhere.
    return_report: return `(model, Report)`.
    progress: called with (rewrites so far, rule name) as the run goes on.

    Returns a model of the same kind (`onnx.ModelProto` for a path); the very same object when there was nothing to do
    and the argument is a module or a program.

    Raises UsageError for wrong arguments, ModelError for a model that cannot be read or captured, MissingExtraError
    for an ONNX model without the `onnx` extra.
    """
    request = checked(form, allow, ranges, select, ignore, certify)
    target, name = checked_runtime(runtime, allow_fast), _name(model)
    _check_runtime(model, target)
    if example_inputs is None and _is_plain_module(model):
        return _optimize_lazily(model, request, name, dynamic_shapes, return_report)
    with alone, only_new_objects():
        host = open_host(model, example_inputs, dynamic_shapes, _Later(request, name), target)
        _check_names(request, host)
        rewritten, report = run(host, request, name, progress)
        fixed = rewritten.model()
        if _is_program(model):
            _tell_lost_guards(model, request, report, cast("torch.onnx.ONNXProgram", fixed))
    return (fixed, report) if return_report else fixed


def lint(
    model: object,
    example_inputs: object = None,
    *,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    input_data: object = None,
    dynamic_shapes: object = None,
    select: str | Collection[str] | None = None,
    ignore: str | Collection[str] | None = None,
    runtime: str = "portable",
    allow_fast: str | Collection[str] = (),
    budget: float = 60.0,
    witness_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Callable[[float, str], None] | None = None,
) -> Report:
    """What in a model floating point breaks, where, and what to write instead. The model is not changed.

    model: as for `optimize`, or the path of a `.pt2` file. A plain `torch.nn.Module` needs example inputs.
    example_inputs, dynamic_shapes, select, ignore: as for `optimize`.
    ranges: input name → (lowest, highest) value it takes.
    input_data: data that the model will be run on, in any form of example inputs: inputs of which no range is given
        take the values that it spans. Without ranges and data, inputs are taken to be any numbers for a warning and
        between ±1e4 for a witness.
    runtime, allow_fast: as for `optimize`: operators that the runtime, where it was measured, computes badly are told.
    budget: seconds to look for witnesses, inputs that break what was found; 0 for none. A finding is an error only
        when the model's own runtime was seen to break on such an input.
    witness_dir: a folder to which witnesses are written as `.npz` files, and what computes an expression from its
        witness as a model beside it: `stabilize certify` replays them.
    seed: of the inputs that are tried.
    progress: called with (share of the work that is done, what is looked at) as the search goes on.

    Raises UsageError for wrong arguments, ModelError for a model that cannot be read or captured, MissingExtraError
    for an ONNX model without the `onnx` extra.
    """
    from stabilize.frontends.onnx import OnnxHost
    from stabilize.linter.examples import examples_of
    from stabilize.linter.known import ranges_of
    from stabilize.linter.run import Search, lint_host
    from stabilize.linter.saved import make, save
    from stabilize.respell import coarse_findings

    request = checked("softmax", "exact", ranges, select, ignore, certify=False)
    seconds, start, folder = checked_search(budget, seed, witness_dir)
    target = checked_runtime(runtime, allow_fast)
    _check_runtime(model, target)
    if folder is not None:
        make(folder)
    name = _name(model)
    if _is_path(model) and name.lower().endswith(".pt2"):
        model = load(cast("str | os.PathLike[str]", model))
    if example_inputs is None and _is_plain_module(model):
        raise UsageError("example_inputs are needed: a module does not say what inputs it takes")
    with alone, only_new_objects():
        host = open_host(model, example_inputs, dynamic_shapes, runtime=target)
        if isinstance(host, OnnxHost):
            host.check_whole()
        _check_names(request, host)
        data = _data(host, input_data)
        request = replace(request, ranges={**ranges_of(data), **request.ranges})
        search = Search(seconds, start, lambda: examples_of(host, model, data)) if seconds > 0 else None
        report = lint_host(host, request, name, search, progress)
        if _is_program(model):
            _tell_lost_guards(model, request, report)
        report.findings.extend(f for f in coarse_findings(host, name) if request.wants(f.code))
    return report if folder is None else replace(report, findings=save(report.findings, folder))


def _data(host: Host, input_data: object) -> dict[str, torch.Tensor]:
    """Input data by the name of the input."""
    from stabilize.frontends.example import Example

    if input_data is None:
        return {}
    inputs, example = input_values(host), Example.of(input_data)
    example.check_names(list(inputs), "the model")
    data = example.by_name(list(inputs), "the model")
    for name, tensor in data.items():
        _check_data(name, tensor, inputs[name])
    return data


def _check_data(name: str, tensor: torch.Tensor, value: Value) -> None:
    """UsageError for data that an input cannot take: it may have another number of rows, or another width of floats."""
    told = f"input data {name!r}"
    dtype = str(tensor.dtype).removeprefix("torch.")
    if value.dtype not in ("other", dtype) and not (is_float(value.dtype) and tensor.is_floating_point()):
        raise UsageError(f"{told} is {dtype}, the model takes {value.dtype}")
    sizes = list(zip(value.shape, tensor.shape, strict=False))[1:]
    if value.type.rank != tensor.dim() or any(isinstance(d, int) and d != n for d, n in sizes):
        wanted = "×".join(map(str, value.shape)) or "no axes"
        raise UsageError(f"{told} has the shape {list(tensor.shape)}, the model takes {wanted}, of any number of rows")


def certify(before: object, after: object, example_inputs: object = None) -> Certificate:
    """Whether `after` is at least as accurate as `before`: both run on the same inputs, against `before` in float64.

    before, after: `torch.nn.Module`, `torch.fx.GraphModule`, `torch.export.ExportedProgram`, `onnx.ModelProto`,
        `onnx_ir.Model`, `torch.onnx.ONNXProgram`, or the path of a `.onnx` or `.pt2` file. One may be of PyTorch and
        the other of ONNX, which runs in ONNX Runtime. Neither is modified; buffers are put back after each run.
    example_inputs: for PyTorch: a tensor, a tuple of positional arguments, a dict of keyword arguments, or a pair
        (args, kwargs); for ONNX: a mapping from input names to arrays or tensors. Between kinds, inputs correspond by
        name, or else by position. Without them an exported program's own are taken, and for ONNX random ones.

    The models are compared on the given inputs and on these with their floats 1/64, 8 and 64 times as large. The
    verdict is `.accepted`, and `.reason` when that is false: finite elements that are no longer finite, errors more
    than twice as large as they were (beyond rounding), other integers, shapes, types or numbers of outputs, or nothing
    that could be compared. Of two PyTorch models the gradients are judged likewise, those of a fixed projection of the
    outputs, with respect to float inputs and to the parameters that both have; `.gradients` is "compared" or says why
    they were not.

    Integer inputs are taken as they are: what only large activations break shows when the inputs lead there. Where
    `before` leaves the range even of float64, nothing is known to compare with.

    Raises UsageError when the inputs do not suit the models, ModelError when a model cannot be read or run, or not in
    float64, MissingExtraError for an ONNX model without the `onnx` extra.
    """
    from stabilize.certification import certify as certify_models

    return certify_models(before, after, example_inputs)


def _name(model: object) -> str:
    return os.fspath(cast("str | os.PathLike[str]", model)) if _is_path(model) else type(model).__name__


def _is_path(model: object) -> bool:
    return isinstance(model, (str, os.PathLike))


def _check_runtime(model: object, runtime: Runtime) -> None:
    """UsageError for a runtime of ONNX models that is to run a model of PyTorch."""
    from stabilize.frontends.onnx import is_onnx

    if runtime != PORTABLE and not (_is_path(model) or is_onnx(model)):
        raise UsageError(
            f"runtime and allow_fast are of ONNX models, and PyTorch runs a {type(model).__name__}: export it, then "
            "optimize what was exported for the runtime"
        )


def _optimize_lazily(
    model: Any, request: Request, name: str, dynamic_shapes: object, return_report: bool
) -> torch.nn.Module:
    """A module that is captured at its first call, like torch.compile."""
    from stabilize.frontends.fx import open_lazily

    if return_report:
        raise UsageError("return_report needs example_inputs: without them the module is captured at its first call")
    later = _Later(request, name, check_names=True)
    return open_lazily(model, later.rewrite, dynamic_shapes, later.compile)


@final
@dataclass(frozen=True)
class _Later:
    """What a rewritten module does to calls of another kind than the one that was captured. It can be pickled."""

    request: Request
    name: str
    check_names: bool = False

    def rewrite(self, host: ExportedHost) -> ExportedHost:
        """For a call that torch.export captured."""
        from stabilize.dynamo import tell

        if self.check_names:
            _check_names(self.request, host)
        rewritten, report = run(host, self.request, self.name)
        tell(report)
        return rewritten

    def compile(self, forward: Callable[..., object]) -> Callable[..., object]:
        """For a forward that it cannot capture: as torch.compile takes it apart. The graphs of torch.compile name their
        inputs themselves: ranges are not known there."""
        from stabilize.dynamo import compiled

        return compiled(forward, replace(self.request, ranges={}))


def _is_plain_module(model: object) -> bool:
    """An nn.Module that is not a graph already."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module) and not isinstance(model, torch.fx.GraphModule)


def _is_program(model: object) -> TypeGuard[torch.onnx.ONNXProgram]:
    """Whether it holds what an ONNX model was exported from, told without importing the exporter."""
    return any(
        (kind.__module__.partition(".")[0], kind.__name__) == ("torch", "ONNXProgram") for kind in type(model).__mro__
    )


def _tell_lost_guards(
    program: torch.onnx.ONNXProgram, request: Request, report: Report, fixed: torch.onnx.ONNXProgram | None = None
) -> None:
    """Add what the exporter deleted to the report. fixed: what the program was rewritten to."""
    from stabilize.linter.lost_guards import lost_guards, remember

    found = lost_guards(program)
    report.findings.extend(finding for finding in found if request.wants(finding.code))
    if fixed is not None:
        remember(fixed, found)


def _check_names(request: Request, host: Host) -> None:
    """UsageError for a range of something that is no input of the model."""
    inputs = input_values(host)
    unknown = [name for name in request.ranges if name not in inputs]
    if unknown:
        raise UsageError(f"ranges[{unknown[0]!r}]: no such input; the inputs are {', '.join(inputs) or 'none'}")


def _check_example(host: Host, example_inputs: object) -> None:
    """UsageError for example inputs that are not what an ONNX model takes (which needs none)."""
    from stabilize.frontends.example import Example

    inputs = input_values(host)
    example = Example.of(example_inputs)
    example.check_names(list(inputs), "the model")
    for name, tensor in example.by_name(list(inputs), "the model").items():
        value, dtype = inputs[name], str(tensor.dtype).removeprefix("torch.")
        wrong = [d for d, size in zip(value.shape, tensor.shape, strict=False) if isinstance(d, int) and d != size]
        if value.dtype not in ("other", dtype):
            raise UsageError(f"example input {name!r} is {dtype}, the model takes {value.dtype}")
        if wrong or len(value.shape) != tensor.dim():
            wanted = "×".join(map(str, value.shape)) or "no axes"
            raise UsageError(f"example input {name!r} has the shape {list(tensor.shape)}, the model takes {wanted}")


def open_host(
    model: object,
    example_inputs: object = None,
    dynamic_shapes: object = None,
    later: _Later | None = None,
    runtime: Runtime = PORTABLE,
) -> Host:
    """Read `model` with the frontend of its kind. `later`: for what a module captures later; `runtime`: what will run
    an ONNX model."""
    from stabilize.frontends.onnx import is_onnx, open_onnx

    if _is_path(model) or is_onnx(model):
        host = open_onnx(cast(Any, model), runtime)
        if example_inputs is not None:
            _check_example(host, example_inputs)
        return host
    import torch
    from torch.export import ExportedProgram

    from stabilize.frontends.fx import open_exported, open_graph_module, open_module

    if isinstance(model, ExportedProgram):
        return open_exported(model, example_inputs)
    if isinstance(model, torch.fx.GraphModule):
        return open_graph_module(model, example_inputs)
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError("a TorchScript module has no Python to capture: pass the nn.Module that it was made from")
    if isinstance(model, torch.nn.Module):
        if later is None:
            return open_module(model, example_inputs, dynamic_shapes)
        return open_module(model, example_inputs, dynamic_shapes, later.rewrite, later.compile)
    raise ModelError(
        f"cannot read a {type(model).__module__}.{type(model).__qualname__}: pass an nn.Module, GraphModule, "
        "ExportedProgram, onnx.ModelProto, onnx_ir.Model or the path of a .onnx file"
    )


def load(path: str | os.PathLike[str]) -> object:
    """Read a model file: `onnx.ModelProto` from `.onnx`, `ExportedProgram` from `.pt2`.

    Raises ModelError naming the file when it is neither, missing or damaged, UsageError when `path` is no path.
    """
    if not _is_path(path):
        raise UsageError(f"cannot load {path!r}: give the path of a .onnx or .pt2 file")
    suffix = os.path.splitext(str(os.fspath(path)))[1].lower()
    if suffix == ".onnx":
        from stabilize.frontends.onnx_files import load as load_onnx

        return load_onnx(path)
    if suffix == ".pt2":
        from stabilize.frontends.pt2 import read

        return read(Path(path))
    raise ModelError(f"{os.fspath(path)}: not a model file: expected .onnx or .pt2")

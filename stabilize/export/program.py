"""`export_onnx`: the steps of an export, in order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, cast

import onnx_ir as ir
import torch
from torch import fx, nn
from torch.export import ExportedProgram

from stabilize.certification import certify
from stabilize.errors import MissingExtraError, ModelError, UsageError
from stabilize.export.capture import captured, shapes_of_axes
from stabilize.export.outputs import restore_types
from stabilize.export.spell import inner_names, written_out
from stabilize.export.tidy import tidied
from stabilize.export.translations import TRANSLATIONS
from stabilize.frontends.example import brief
from stabilize.frontends.fx import open_exported
from stabilize.frontends.onnx import open_onnx
from stabilize.frontends.onnx_runtimes import PORTABLE, Runtime
from stabilize.pipeline import Request, run
from stabilize.quiet import unlogged
from stabilize.report import Report
from stabilize.verify.certificate import Certificate

_log: Final = logging.getLogger("stabilize")

#: What `torch.onnx.export` is given as it comes.
_PASSED: Final = frozenset(
    {"input_names", "output_names", "opset_version", "report", "profile", "dump_exported_program", "artifacts_dir"}
)
#: What is done here.
_OWN: Final = frozenset(
    {
        "kwargs", "dynamic_shapes", "dynamic_axes", "custom_translation_table", "optimize", "verbose", "dynamo",
        "fallback", "verify", "export_params", "keep_initializers_as_inputs", "external_data",
    }
)  # fmt: skip


def export(
    model: nn.Module | ExportedProgram,
    args: object,
    options: Mapping[str, Any],
    request: Request,
    runtime: Runtime = PORTABLE,
) -> tuple[torch.onnx.ONNXProgram, Report]:
    """The ONNX program of a model, and what was found, rewritten and certified on the way.

    options: of `torch.onnx.export`. A whole program that is certified and declined is a warning in the log of
    `stabilize`, and `report.certificate`.
    """
    given = cast("tuple[object, ...]", args if isinstance(args, tuple) else (args,))
    check_options(options)
    kwargs = cast("dict[str, object]", options.get("kwargs") or {})
    shapes = _shapes(model, given, options)
    program = model if isinstance(model, ExportedProgram) else captured(model, given, kwargs, shapes)
    name = type(model).__name__
    host, report = run(open_exported(program), request, name)
    plain = host.model()
    spelled = written_out(plain, runtime)
    written = _translated(spelled, shapes, options)
    _unburden(written.model, inner_names(plain, spelled))
    restore_types(written.model, program)
    if options.get("optimize", True):
        tidied(written.model)
    again, late = run(open_onnx(written, runtime), request, name)
    report.extend(late)
    result = cast(torch.onnx.ONNXProgram, again.model())
    if request.certify:
        example = None if isinstance(model, ExportedProgram) else (given, kwargs)
        report = replace(report, certificate=_certified(program, result, example))
    return result, report


def _unburden(model: ir.Model, inner: Collection[str]) -> None:
    """Notes of the exporter, a kilobyte a node, only at the last node of each written operator."""
    for node in model.graph.all_nodes():
        origin = cast(Any, node.meta).get("node")
        if isinstance(origin, fx.Node) and origin.name in inner:
            node.metadata_props.clear()


def _certified(program: ExportedProgram, result: torch.onnx.ONNXProgram, example: object) -> Certificate:
    """The file in ONNX Runtime beside the program, both against float64."""
    try:
        certificate = certify(program, result, example)
    except (ModelError, UsageError, MissingExtraError) as error:
        certificate = Certificate(False, f"it could not be run: {error}", "float64", ())
    if not certificate.accepted:
        _log.warning("the exported model is not certified: %s", certificate.reason)
    return certificate


def check_options(options: Mapping[str, object]) -> None:
    """UsageError for keywords that `torch.onnx.export` has not, or whose value leads elsewhere."""
    unknown = [name for name in options if name not in _PASSED | _OWN]
    if unknown:
        raise UsageError(f"export_onnx has no keyword {unknown[0]!r}: it takes those of torch.onnx.export")
    if options.get("dynamo") is False:
        raise UsageError(
            "export_onnx with dynamo=False: the TorchScript exporter is not supported here. Call torch.onnx.export "
            "yourself, then stabilize.optimize on the file"
        )
    opset = options.get("opset_version")
    if opset is not None and (not isinstance(opset, int) or isinstance(opset, bool) or not 18 <= opset <= _newest()):
        raise UsageError(f"opset_version {opset!r}: give one from 18 to {_newest()}")


def _newest() -> int:
    import onnx

    return onnx.defs.onnx_opset_version()


def _shapes(model: object, args: Sequence[object], options: Mapping[str, Any]) -> object:
    if options.get("dynamic_shapes") is not None:
        return options["dynamic_shapes"]
    if not options.get("dynamic_axes"):
        return None
    kwargs, names = cast("dict[str, object]", options.get("kwargs") or {}), options.get("input_names")
    return shapes_of_axes(model, args, kwargs, options["dynamic_axes"], names)


def _translated(program: ExportedProgram, shapes: object, options: Mapping[str, Any]) -> torch.onnx.ONNXProgram:
    """What `torch.onnx.export` makes of a program, without its optimizer."""
    own = cast("dict[Any, Callable[..., Any]]", options.get("custom_translation_table") or {})
    table = {**TRANSLATIONS, **own}
    passed = {k: v for k, v in options.items() if k in _PASSED}
    try:
        with unlogged():
            written = cast(Any, torch.onnx).export(
                program, dynamo=True, optimize=False, verbose=False, dynamic_shapes=shapes,
                custom_translation_table=table, **passed,
            )  # fmt: skip
    except Exception as error:  # of any kind: translation functions are code of several packages
        cause = _cause(error)
        raise ModelError(f"torch.onnx.export cannot translate the program: {brief(cause)}") from error
    return cast(torch.onnx.ONNXProgram, written)


def _cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error

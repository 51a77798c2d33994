"""`stabilize.export_onnx`."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import IO, Any, Literal, overload

import torch
from torch.export import ExportedProgram

from stabilize.api import alone
from stabilize.collector import only_new_objects
from stabilize.errors import UsageError
from stabilize.export.program import export
from stabilize.export.save import check_target, save
from stabilize.report import Report
from stabilize.request import checked, checked_runtime


@overload
def export_onnx(
    model: torch.nn.Module | ExportedProgram,
    args: object = ...,
    f: str | os.PathLike[str] | IO[bytes] | None = ...,
    *,
    form: str = ...,
    allow: str = ...,
    select: str | Collection[str] | None = ...,
    ignore: str | Collection[str] | None = ...,
    certify: bool = ...,
    runtime: str = ...,
    allow_fast: str | Collection[str] = ...,
    return_report: Literal[False] = False,
    **options: Any,
) -> torch.onnx.ONNXProgram: ...
@overload
def export_onnx(
    model: torch.nn.Module | ExportedProgram,
    args: object = ...,
    f: str | os.PathLike[str] | IO[bytes] | None = ...,
    *,
    form: str = ...,
    allow: str = ...,
    select: str | Collection[str] | None = ...,
    ignore: str | Collection[str] | None = ...,
    certify: bool = ...,
    runtime: str = ...,
    allow_fast: str | Collection[str] = ...,
    return_report: Literal[True],
    **options: Any,
) -> tuple[torch.onnx.ONNXProgram, Report]: ...
def export_onnx(
    model: torch.nn.Module | ExportedProgram,
    args: object = (),
    f: str | os.PathLike[str] | IO[bytes] | None = None,
    *,
    form: str = "softmax",
    allow: str = "exact",
    select: str | Collection[str] | None = None,
    ignore: str | Collection[str] | None = None,
    certify: bool = True,
    runtime: str = "onnxruntime",
    allow_fast: str | Collection[str] = (),
    return_report: bool = False,
    **options: Any,
) -> Any:
    """`torch.onnx.export`, with what is stable in PyTorch stable in the file.

    The model is optimized before the exporter decomposes it; operators that the exporter lowers naively are written in
    others; the exporter's clean-up runs with constants compared exactly, so that guards like `+ 1e-9` stay; the result
    is optimized, run in ONNX Runtime beside the model, and written whole or not at all.

    model: `torch.nn.Module` or `torch.export.ExportedProgram`. It is not changed.
    args: positional arguments of `forward`: a tuple, or one tensor.
    f: a path, or a binary file; None writes nothing.
    form, allow, select, ignore: as for `optimize`.
    certify: judge every rewrite, and the whole file in ONNX Runtime against the model in float64. A file that is
        declined is returned and written all the same; the log of `stabilize` warns of it, and the report says why.
    runtime, allow_fast: as for `optimize`; the file is certified in ONNX Runtime whatever will run it.
    return_report: return `(program, Report)`.
    options: further keywords of `torch.onnx.export`: `kwargs`, `input_names`, `output_names`, `opset_version` (18 to
        the newest), `dynamic_shapes`, `dynamic_axes`, `custom_translation_table`, `optimize` (clean up?), …

    Raises UsageError for wrong arguments, ModelError when the model cannot be captured or translated, or the file not
    be written, MissingExtraError without the `onnx` extra.
    """
    request = checked(form, allow, None, select, ignore, certify)
    if not _is_model(model):
        raise UsageError(f"export_onnx takes an nn.Module or an ExportedProgram, not a {type(model).__name__}")
    target = checked_runtime(runtime, allow_fast)
    check_target(f)
    with alone, only_new_objects():
        program, report = export(model, args, options, request, target)
    if f is not None:
        save(program, f, options)
    return (program, report) if return_report else program


def _is_model(given: object) -> bool:
    return isinstance(given, (torch.nn.Module, ExportedProgram)) and not isinstance(given, torch.jit.ScriptModule)

"""`stabilize.convert`."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, TypeVar, overload

from stabilize.api import alone
from stabilize.collector import only_new_objects
from stabilize.conversion.entry import convert as converted_model
from stabilize.conversion.report import ConversionReport

_M = TypeVar("_M")


@overload
def convert(
    model: _M,
    to: str,
    *,
    ranges: Mapping[str, tuple[float, float]] | None = ...,
    input_data: object = ...,
    keep_io_types: bool | Collection[str] = ...,
    keep: str | Collection[str] = ...,
    tolerance: float | None = ...,
    certify: bool = ...,
    f: str | os.PathLike[str] | None = ...,
    return_report: Literal[False] = False,
    progress: Callable[[str], None] | None = ...,
) -> _M: ...
@overload
def convert(
    model: _M,
    to: str,
    *,
    ranges: Mapping[str, tuple[float, float]] | None = ...,
    input_data: object = ...,
    keep_io_types: bool | Collection[str] = ...,
    keep: str | Collection[str] = ...,
    tolerance: float | None = ...,
    certify: bool = ...,
    f: str | os.PathLike[str] | None = ...,
    return_report: Literal[True],
    progress: Callable[[str], None] | None = ...,
) -> tuple[_M, ConversionReport]: ...
def convert(
    model: Any,
    to: str,
    *,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    input_data: object = None,
    keep_io_types: bool | Collection[str] = True,
    keep: str | Collection[str] = (),
    tolerance: float | None = None,
    certify: bool = True,
    f: str | os.PathLike[str] | None = None,
    return_report: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Any:
    """An ONNX model that computes in half precision where that is safe, and in float32 elsewhere.

    The model is repaired as by `optimize` first. It is then run in ONNX Runtime on inputs, and analysed within the
    ranges, to see what its values become: nodes stay float32 that accumulate exponentials or squares, are steep, sum
    many numbers, divide by tiny ones, hold constants or reach values that the format does not, or have no operator in
    it; and those between them where the casts would cost more than they save (a minimum cut). Values of the result are
    rounded to the format in a run that judges it against the original in float64; where that is not accurate enough,
    more nodes stay float32.

    model: `onnx.ModelProto`, `onnx_ir.Model`, `torch.onnx.ONNXProgram`, or the path of a `.onnx` file. Not modified.
    to: "fp16" (float16) or "bf16" (bfloat16).
    ranges: input name → (lowest, highest) value it takes.
    input_data: inputs as they occur, in any form of example inputs; more rows than the model takes at a time are fed in
        batches. Without them seeded random ones are drawn, and the report says so.
    keep_io_types: True: inputs and outputs stay float32; False: they become narrower, if their values allow it; or the
        names of those that stay.
    keep: nodes that stay float32 besides, by name, operator or a value that they compute.
    tolerance: how far off an output may be, relative to its largest entry; 32 unit roundoffs by default (0.016 of
        float16, 0.12 of bfloat16). Errors that the float32 model has itself are allowed twice over.
    certify: judge the result, and each rewrite of the repair.
    f: a path to write the model to; external data goes to a file beside it, tensor by tensor.
    return_report: return `(model, ConversionReport)`.
    progress: called with what is being done.

    Returns a model of the same kind (`onnx.ModelProto` for a path). One that was converted before comes back as it is.

    Raises UsageError for wrong arguments, ModelError for a model that cannot be read or run, or holds no float32,
    MissingExtraError without the `onnx` extra.
    """
    with alone, only_new_objects():
        converted, report = converted_model(
            model,
            to,
            ranges=ranges,
            input_data=input_data,
            keep_io_types=keep_io_types,
            keep=keep,
            tolerance=tolerance,
            certify=certify,
            f=f,
            tell=progress,
        )
    return (converted, report) if return_report else converted

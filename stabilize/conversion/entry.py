"""`stabilize.convert`: its keywords checked, the model opened, repaired, converted and given back in its kind."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from stabilize.conversion.report import ConversionReport
from stabilize.errors import ModelError, UsageError
from stabilize.frontends.onnx import is_onnx
from stabilize.graph.host import input_values
from stabilize.pipeline import Request, run
from stabilize.report import Report
from stabilize.request import as_float, checked

if TYPE_CHECKING:
    import onnx

    from stabilize.conversion.run import Wishes

#: Where the data of a converted model is, in its folder.
_SUFFIX: Final = ".data"


def convert(
    model: object,
    to: object,
    *,
    ranges: object,
    input_data: object,
    keep_io_types: object,
    keep: object,
    tolerance: object,
    certify: object,
    f: object,
    tell: Callable[[str], None] | None,
) -> tuple[object, ConversionReport]:
    """See `stabilize.convert`."""
    path = _path_of(model)
    if path is None and not is_onnx(model):
        raise ModelError(
            f"cannot convert a {type(model).__module__}.{type(model).__qualname__}: pass an onnx.ModelProto, "
            "onnx_ir.Model, ONNXProgram or the path of a .onnx file (stabilize.export_onnx makes one of a module)"
        )
    target = None if f is None else Path(_path(f))
    wishes = _wishes(to, ranges, input_data, keep_io_types, keep, tolerance, certify)
    with ExitStack() as stack:
        beside = None if target is None else target.resolve().parent
        folder = stack.enter_context(_scratch(beside))
        stem = "model.onnx" if target is None else target.name
        data = Path(folder, stem + _SUFFIX)
        given = cast(Any, model) if path is None else path
        proto, report = _converted(given, path or type(model).__name__, wishes, data, tell or (lambda _: None))
        if target is not None:
            from stabilize.frontends.onnx import save

            save(proto, target, str(data.parent) if data.exists() else _folder(path))
        return _given_back(given, proto, data, report.model, written=target is not None), report


def _path_of(model: object) -> str | None:
    is_path = isinstance(model, (str, os.PathLike))
    return os.fspath(cast("str | os.PathLike[str]", model)) if is_path else None


def _scratch(beside: Path | None) -> tempfile.TemporaryDirectory[str]:
    """A folder for data, on the file system that it is meant for."""
    try:
        return tempfile.TemporaryDirectory(prefix=".stabilize.", dir=beside)
    except OSError as error:
        raise ModelError(f"{beside}: {error.strerror or error}: write to a folder that can be written") from error


def _converted(
    model: Any, name: str, wishes: Wishes, data: Path, tell: Callable[[str], None]
) -> tuple[onnx.ModelProto, ConversionReport]:
    from stabilize.conversion.narrow import marked
    from stabilize.conversion.run import Conversion
    from stabilize.frontends.onnx_run import OnnxRunner

    tell("repairing")
    original = OnnxRunner(model, name)
    host = original.host
    host.check_whole()
    _check_names(wishes.ranges, list(input_values(host)))
    if marked(original.proto) is not None:
        return Conversion(original, original, Report(name), wishes, data, tell).run()
    rewritten, repaired = run(host, Request(ranges=wishes.ranges, certify=wishes.certify), name)
    fixed = original if rewritten is host else OnnxRunner(rewritten.model(), name, original.folder)
    return Conversion(original, fixed, repaired, wishes, data, tell).run()


def _check_names(ranges: Mapping[str, object], inputs: list[str]) -> None:
    unknown = [name for name in ranges if name not in inputs]
    if unknown:
        raise UsageError(f"ranges[{unknown[0]!r}]: no such input; the inputs are {', '.join(inputs) or 'none'}")


def _given_back(model: object, proto: onnx.ModelProto, data: Path, name: str, written: bool) -> object:
    """`proto` in the kind of `model`; the data that it refers to inside it, unless it was written where it stays."""
    import onnx
    import onnx_ir as ir

    from stabilize.conversion.store import taken_in

    if data.exists() and not written:
        proto = taken_in(proto, str(data.parent), name)
    if isinstance(model, (str, onnx.ModelProto)):
        return proto
    result = ir.serde.deserialize_model(proto)
    if isinstance(model, ir.Model):
        return result
    import torch

    return torch.onnx.ONNXProgram(result, cast("torch.onnx.ONNXProgram", model).exported_program)


def _folder(path: str | None) -> str | None:
    """Where the external data of a file is."""
    return None if path is None else str(Path(path).resolve().parent)


# --- keywords ------------------------------------------------------------------------------------------------------


def _wishes(
    to: object,
    ranges: object,
    input_data: object,
    keep_io_types: object,
    keep: object,
    tolerance: object,
    certify: object,
) -> Wishes:
    from stabilize.conversion.run import Wishes
    from stabilize.conversion.target import target_of

    target = target_of(to)
    bounds = checked("softmax", "exact", ranges, None, None, certify=False).ranges
    io = keep_io_types if isinstance(keep_io_types, bool) else _names(keep_io_types, "keep_io_types", "True, False")
    bound = target.tolerance if tolerance is None else _positive(tolerance)
    return Wishes(target, bounds, input_data, io, _names(keep, "keep", "names of nodes"), bound, bool(certify))


def _names(given: object, argument: str, instead: str) -> tuple[str, ...]:
    several = (given,) if isinstance(given, str) else given
    names = tuple(cast("Iterable[object]", several)) if isinstance(several, Iterable) else (several,)
    if not all(isinstance(name, str) for name in names):
        raise UsageError(f"{argument} is {given!r}: give {instead} or a list of names")
    return cast("tuple[str, ...]", names)


def _positive(tolerance: object) -> float:
    number = 0.0 if isinstance(tolerance, bool) or not isinstance(tolerance, Real) else as_float(tolerance)
    if not number > 0:  # nor NaN
        raise UsageError(f"tolerance is {tolerance!r}: give a relative error above 0, like 0.01")
    return number


def _path(f: object) -> str:
    name = os.fspath(cast("os.PathLike[str]", f)) if isinstance(f, (str, os.PathLike)) else f
    if not isinstance(name, str) or not name or "\0" in name:
        raise UsageError(f"f is {f!r}: give the path of a file")
    return name

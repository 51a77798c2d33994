"""What MODEL, OUT and FILE mean on the command line: how they are read, checked and written."""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar, cast, final

from stabilize.errors import ModelError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch.export import ExportedProgram

Arrays: TypeAlias = "Mapping[str, npt.NDArray[np.generic]]"
_T = TypeVar("_T")

_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@final
@dataclass(frozen=True, slots=True)
class Subject:
    """A model named on the command line.

    name: as the user wrote it.
    kind: `"onnx"` or `"torch"`.
    model: the path of a `.onnx` file, or an `ExportedProgram`.
    """

    name: str
    kind: Literal["onnx", "torch"]
    model: Path | ExportedProgram


def suffix_of(text: str) -> Literal[".onnx", ".pt2"] | None:
    """The ending of MODEL: that of a file, or None for `package.module:factory`; UsageError when it is neither."""
    match Path(text).suffix.lower():
        case ".onnx" | ".pt2" as suffix:
            return suffix
        case _:
            if _FACTORY.fullmatch(text):
                return None
            raise UsageError(f"{text or repr(text)}: not a model file: expected .onnx, .pt2 or package.module:factory")


def read_model(text: str) -> Subject:
    """Resolve MODEL: a `.onnx` file, a `.pt2` file, or `package.module:factory`.

    Raises UsageError when `text` is none of these, ModelError or OSError when it cannot be read.
    """
    match suffix_of(text):
        case ".onnx":
            return Subject(text, "onnx", _existing(text))
        case ".pt2":
            from stabilize.frontends.pt2 import read

            return Subject(text, "torch", read(_existing(text)))
        case None:
            return _from_factory(text)


def _existing(text: str) -> Path:
    path = Path(text)
    if path.is_dir():
        raise ModelError(f"{text}: is a directory")
    if not path.exists():
        raise ModelError(f"{text}: no such file")
    return path


def _from_factory(text: str) -> Subject:
    """Call `package.module:factory` and export what it returns, in the mode (train or eval) that it is in."""
    import torch

    from stabilize.frontends.fx_capture import silence
    from stabilize.frontends.fx_frames import helpers_traced
    from stabilize.frontends.fx_inputs import split_inputs

    result = _users_code(f"{text} failed", lambda: _factory(text)())
    module, example_inputs = cast("tuple[object, object]", result) if _is_pair(result) else (None, None)
    if not isinstance(module, torch.nn.Module):
        raise ModelError(f"{text}: must return (torch.nn.Module, example_inputs), not {_kind(result)}")
    args, kwargs = split_inputs(example_inputs)
    with silence(), helpers_traced():
        program = _users_code(
            f"{text}: torch.export cannot capture the module", lambda: torch.export.export(module, args, kwargs)
        )
    return Subject(text, "torch", program)


def _factory(text: str) -> Callable[[], object]:
    module_name, _, path = text.partition(":")
    folder = os.getcwd()
    if folder not in sys.path:  # like `python -m`: a module beside the user is found
        sys.path.insert(0, folder)
    target: object = importlib.import_module(module_name)
    for name in path.split("."):
        target = getattr(target, name)
    if not callable(target):
        raise ModelError(f"{text}: {path} is {_kind(target)}, not a callable that returns (module, example_inputs)")
    return cast("Callable[[], object]", target)


def _users_code(what: str, run: Callable[[], _T]) -> _T:
    """`run()`, with whatever the user's code raises told in one line that ends in the place that raised it."""
    try:
        return run()
    except ModelError:
        raise
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(os.getcwd())]
        place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
        message = next(iter(str(error).strip().splitlines()), "")
        raise ModelError(f"{what}: {type(error).__name__}: {message}{place}") from error


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple) and len(cast("tuple[object, ...]", value)) == 2


def _kind(value: object) -> str:
    return f"an object of type {type(value).__name__}"


def silence_runtimes(*subjects: Subject) -> None:
    """Keep the runtimes that will run these models from writing to stderr."""
    if any(subject.kind == "onnx" for subject in subjects):
        from stabilize.frontends.onnx_run import silence_runtime

        silence_runtime()


# -- input data ------------------------------------------------------------------------------------------------------


def read_arrays(path: str) -> Arrays:
    """The arrays of a `.npz` file; pickled objects are refused."""
    import numpy as np

    try:
        data = cast(object, np.load(_existing(path), allow_pickle=False))
        if not isinstance(data, np.lib.npyio.NpzFile):
            raise ModelError(f"{path}: one array, not a .npz file of named arrays: write it with numpy.savez")
        with data:
            return cast("Arrays", {name: data[name] for name in data.files})
    except (ValueError, EOFError, RuntimeError, MemoryError, zlib.error, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: not a readable .npz file: {error}") from error


def bind_names(subject: Subject, arrays: Arrays, file: str) -> dict[str, torch.Tensor]:
    """Arrays as tensors by input name; by position when they are `arr_0`, `arr_1`, …"""
    import torch

    try:
        tensors = {name: torch.as_tensor(array) for name, array in arrays.items()}
    except TypeError as error:
        raise ModelError(f"{file}: an array that is no tensor: {error}") from error
    names = _input_names(subject)
    if set(tensors) == {f"arr_{i}" for i in range(len(names))}:
        return {name: tensors[f"arr_{i}"] for i, name in enumerate(names)}
    missing = [name for name in names if name not in tensors]
    unknown = [name for name in tensors if name not in names]
    if missing or unknown:
        what = f"no array {missing[0]!r}" if missing else f"an array {unknown[0]!r}"
        raise ModelError(f"{file}: {what}; the inputs of {subject.name} are {', '.join(names)}")
    return {name: tensors[name] for name in names}


def _input_names(subject: Subject) -> list[str]:
    if isinstance(subject.model, Path):
        from stabilize.frontends.onnx_files import load

        graph = load(subject.model).graph
        stored = {tensor.name for tensor in graph.initializer}
        return [value.name for value in graph.input if value.name not in stored]
    return [str(name) for name in subject.model.graph_signature.user_inputs]


def bind_inputs(subject: Subject, arrays: Arrays, file: str) -> object:
    """Example inputs for `subject` from `arrays`: by input name, or by position when they are `arr_0`, `arr_1`, …"""
    if isinstance(subject.model, Path):
        return dict(arrays)
    return _nested(subject.model, list(bind_names(subject, arrays, file).values()))


def _nested(program: ExportedProgram, flat: list[torch.Tensor]) -> object:
    """Flat inputs in the structure the program was exported with."""
    from torch.utils import _pytree as pytree

    spec = cast("pytree.TreeSpec", program.call_spec.in_spec)
    args, kwargs = cast("tuple[tuple[object, ...], dict[str, object]]", pytree.tree_unflatten(flat, spec))
    if args and kwargs:
        raise ModelError("a model with both positional and keyword inputs takes no --input-data")
    return kwargs or args


# -- output ----------------------------------------------------------------------------------------------------------


def check_output(path: str, suffix: str | None = None) -> Path:
    """Refuse, before any work is done, a path that cannot be written or that says another format than `suffix`."""
    target = Path(path)
    if suffix is not None and target.suffix.lower() != suffix:
        raise UsageError(f"{path}: must end in {suffix}")
    if target.is_dir():
        raise UsageError(f"{path}: is a directory")
    target = target.resolve()
    if target.exists() and not target.is_file():
        raise UsageError(f"{path}: is not a regular file")
    if target.exists() and not os.access(target, os.W_OK):
        raise UsageError(f"{path}: is read-only")
    if not target.parent.is_dir():
        raise UsageError(f"{path}: no such directory: {target.parent}")
    if not os.access(target.parent, os.W_OK):
        raise UsageError(f"{path}: cannot write in {target.parent}")
    return target

"""An exported program on disk: its file and the data beside it appear together, or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, cast

import onnx

from stabilize.errors import ModelError, UsageError
from stabilize.files import Staged

if TYPE_CHECKING:
    import torch


Target: TypeAlias = "str | os.PathLike[str] | IO[bytes]"


def check_target(target: object) -> None:
    """UsageError for what cannot be written to, ModelError for a folder that does not exist: before the work."""
    if target is None or hasattr(target, "write"):
        return
    if not isinstance(target, (str, os.PathLike)):
        raise UsageError(f"f is {target!r}: give a path, or a binary file that is open for writing")
    path = Path(cast("str | os.PathLike[str]", target))
    if path.is_dir() or not path.parent.is_dir():
        raise ModelError(f"{path}: {'it is a folder' if path.is_dir() else 'its folder does not exist'}: give another")


def save(program: torch.onnx.ONNXProgram, target: Target, options: Mapping[str, Any]) -> None:
    """Write a program to a path, or into an open binary file. options: of `torch.onnx.export`.

    ModelError when the file cannot be written; what was there before is there still.
    """
    if not isinstance(target, (str, os.PathLike)):
        cast(Any, onnx).save(program.model_proto, target)
        return
    path = Path(target)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder, Staged() as staged:
            cast(Any, program).save(
                Path(folder) / path.name,
                include_initializers=options.get("export_params", True),
                keep_initializers_as_inputs=options.get("keep_initializers_as_inputs", False),
                external_data=options.get("external_data", True),
            )
            written = sorted(Path(folder).iterdir(), key=lambda file: file.name == path.name)  # data before the model
            for file in written:
                staged.add(path.parent / file.name, partial(os.replace, file))
            staged.commit()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error

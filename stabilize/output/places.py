"""Where a finding points: a file and a line, as seen from here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

from stabilize.records import Declined, Finding, Rewrite

Record: TypeAlias = Finding | Rewrite | Declined

_MODEL_FILES = (".onnx", ".pt2")


def model_file(model: str) -> str | None:
    """The file that a model was read from, by its name; None for a class or a factory."""
    return model if Path(model).suffix.lower() in _MODEL_FILES else None


def seen_from(folder: Path, file: str) -> str:
    """A path inside `folder` relative to it, any other as it is."""
    path = Path(os.path.abspath(file))
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else file


def place(record: Record, model: str | None = None) -> str:
    """`file:line` as far as it is known, else the file of the model, else the host node."""
    if record.file is None:
        return (model_file(model) if model else None) or record.node
    file = seen_from(Path.cwd(), record.file)
    return file if record.line is None else f"{file}:{record.line}"


def origin(record: Record, named: str) -> str:
    """The host node and the module it came from, as far as `named` does not say it already."""
    node = f"node {record.node}" if record.node != named else ""
    module = f"in {record.module}" if record.module else ""
    return ", ".join(part for part in (node, module) if part)

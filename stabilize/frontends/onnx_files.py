"""ONNX files: reading without loading weights, and writing in one step."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from stabilize.errors import ModelError


def load(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """The model in a file; its external data stays where it is. ModelError names the file and the cure."""
    file = Path(path)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file}: {error.strerror or error}: check the path") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(f"{file}: not an ONNX file, or a damaged one: export the model again") from error
    if not model.HasField("graph") or not model.opset_import:
        raise ModelError(f"{file}: not an ONNX model (no graph or no opset): export the model again")
    check_locations(model, str(file))
    return model


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a graph: initializers, attributes, nested graphs."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                yield from tensors(inner)


def locations(model: onnx.ModelProto) -> list[str]:
    """The external data files that a model refers to, once each."""
    found: dict[str, None] = {}
    for tensor in tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            for entry in tensor.external_data:
                if entry.key == "location":
                    found[entry.value] = None
    return list(found)


def check_locations(model: onnx.ModelProto, name: str) -> None:
    """Refuse external data outside the model's folder: a model file must not read other files of the machine."""
    for location in locations(model):
        check_location(location, name)


def check_location(location: str, name: str) -> None:
    parts = Path(os.path.normpath(location)).parts
    if not location or os.path.isabs(location) or "\\" in location or parts[0] == "..":
        raise ModelError(
            f"{name}: external data {location!r} is not inside the model's folder: save the model with relative data"
        )


def write(model: onnx.ModelProto, path: str | os.PathLike[str], data_folder: str | os.PathLike[str] | None) -> None:
    """Write a model under a temporary name, then rename: a reader never sees half a file.

    data_folder: where the external data that the model refers to is now; it is copied beside `path` when that is
    another folder.
    """
    target = Path(path)
    check_locations(model, str(target))
    _bring_data(locations(model), target, None if data_folder is None else Path(data_folder))
    try:
        data = model.SerializeToString()
    except ValueError as error:
        raise ModelError(f"{target}: more than 2 GB in one file: save the model with external data first") from error
    _replace_file(target, lambda temporary: temporary.write_bytes(data))


def _bring_data(names: list[str], target: Path, folder: Path | None) -> None:
    for name in names:
        wanted = target.parent / name
        source = wanted if folder is None else folder / name
        if not source.is_file():
            raise ModelError(f"{target}: its external data {source} is missing: put it there, or name its folder")
        if not (wanted.exists() and wanted.samefile(source)):
            wanted.parent.mkdir(parents=True, exist_ok=True)
            _replace_file(wanted, partial(shutil.copyfile, source))


def _replace_file(target: Path, fill: Callable[[Path], object]) -> None:
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise ModelError(f"{target}: {error.strerror or error}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        fill(temporary)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, target)
    except OSError as error:
        raise ModelError(f"{target}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)

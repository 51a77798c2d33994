"""ONNX files: written together with their external data, all of it or nothing."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import onnx

from stabilize.errors import ModelError
from stabilize.files import Staged
from stabilize.frontends.file_copy import copy_data
from stabilize.frontends.onnx_files import Folder, check_locations, external_tensors, load, locations


def write(model: onnx.ModelProto, path: Folder, data_folder: Folder | None) -> None:
    """Write a model under a temporary name, then rename: a reader never sees half a file.

    data_folder: where the external data that the model refers to is now; it is copied beside `path` when that is
    another folder. ModelError, and nothing written, when that would overwrite a file with other contents.
    """
    target = Path(path)
    folder = target.parent if data_folder is None else Path(data_folder)
    with Staged() as staged:
        _stage_model(model, target, folder, (folder,), staged)
        commit(staged, target)


def stage(model: onnx.ModelProto, target: Path, source: Path, staged: Staged) -> None:
    """Write `model`, and the data of the file `source` that it was read from, up to the renaming: see `commit`."""
    if target.is_symlink():  # as in the cache of a model hub: neither what others link to may change, nor the link
        raise ModelError(f"{target}: is a link to {target.resolve()}: write to another folder")
    _stage_model(model, target, _data_folder(model, source), _folders(source), staged)


def stage_file(source: Path, target: Path, staged: Staged) -> None:
    """The same for the file `source` itself, byte for byte."""
    model = load(source)
    _stage_data(model, target, _data_folder(model, source), _folders(source), staged)
    if not _same(source, target):
        _add(staged, target, partial(copy_data, source))


def stage_copies(names: Iterable[str], folder: Path, output: Path, staged: Staged) -> None:
    """Copy the files `names` of `folder` to `output`. ModelError for one that is there with other contents."""
    for name in names:
        _add_copy(staged, folder / name, output / name, output)


def commit(staged: Staged, name: Folder) -> None:
    """Put what is staged into its places; ModelError that begins with `name` when that fails."""
    try:
        staged.commit()
    except OSError as error:
        raise ModelError(f"{os.fspath(name)}: {error.strerror or error}") from error


def _folders(source: Path) -> tuple[Path, Path]:
    """Where the data of a file may lie: beside it, or, when it is a link, beside what it links to."""
    return source.parent, source.resolve().parent


def _data_folder(model: onnx.ModelProto, source: Path) -> Path:
    """That of `_folders` which has the data."""
    names = locations(model)
    beside, linked = _folders(source)
    return linked if names and not (beside / names[0]).is_file() and (linked / names[0]).is_file() else beside


def _stage_model(model: onnx.ModelProto, target: Path, folder: Path, folders: tuple[Path, ...], staged: Staged) -> None:
    _stage_data(model, target, folder, folders, staged)
    try:
        data = model.SerializeToString()
    except ValueError as error:
        raise ModelError(f"{target}: more than 2 GB in one file: save the model with external data first") from error
    _add(staged, target, lambda temporary: temporary.write_bytes(data))


def _stage_data(model: onnx.ModelProto, target: Path, folder: Path, folders: tuple[Path, ...], staged: Staged) -> None:
    """Let the data files of `model`, which are in `folder`, lie beside `target`."""
    check_locations(model, str(target), folder, *folders)
    names = locations(model)
    for name in names:
        source, wanted = folder / name, target.parent / name
        if not source.is_file():
            raise ModelError(
                f"external data {source} is missing, {target} is not written: put it there, or name its folder"
            )
        for file in (source, wanted):
            if _same(file, target):
                raise ModelError(f"{target}: the model's own data is in {file}: write the model to another file")
    _check_extents(model, str(target), folder)
    for name in names:
        _add_copy(staged, folder / name, target.parent / name, target)


def _check_extents(model: onnx.ModelProto, name: str, folder: Path) -> None:
    """ModelError for a tensor that ends after its file does."""
    sizes = {location: (folder / location).stat().st_size for location in locations(model)}
    for tensor, keys in external_tensors(model):
        location, offset = keys.get("location", ""), int(keys.get("offset", "0"))
        if offset + int(keys.get("length", "0")) > sizes[location]:
            raise ModelError(
                f"{name}: its data {folder / location} is cut short, tensor {tensor!r} ends after it: "
                "copy the data again, or export the model again"
            )


def _add_copy(staged: Staged, source: Path, wanted: Path, target: Path) -> None:
    """Let `wanted`, which belongs to `target`, be what `source` is."""
    if wanted in staged:
        return
    if not os.path.lexists(wanted):
        _add(staged, wanted, partial(copy_data, source), make=True)
    elif not _same(source, wanted) and not _equal(source, wanted):
        raise ModelError(
            f"{target}: its data {source} would replace {wanted}, which holds something else: "
            "write the model to another folder"
        )


def _add(staged: Staged, target: Path, fill: Callable[[Path], object], make: bool = False) -> None:
    try:
        if make:
            staged.folder(target.parent)
        staged.add(target, fill)
    except OSError as error:
        raise ModelError(f"{target}: {error.strerror or error}") from error


def _same(a: Path, b: Path) -> bool:
    """Whether two paths are one file, which need not exist."""
    try:
        return a.samefile(b)
    except OSError:
        return os.path.realpath(a) == os.path.realpath(b)


def _equal(a: Path, b: Path) -> bool:
    try:
        return b.is_file() and filecmp.cmp(a, b, shallow=False)
    except OSError as error:
        raise ModelError(f"{error.filename}: {error.strerror or error}") from error

"""ONNX files: reading without loading weights, and writing in one step."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, cast

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

from stabilize.errors import ModelError
from stabilize.files import Staged
from stabilize.frontends.file_copy import copy_data

Folder: TypeAlias = "str | os.PathLike[str]"


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
    check_locations(model, str(file), file.parent, Path(os.path.realpath(file)).parent)
    return model


def tensors(message: Message) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model, wherever the format lets one stand: initializers (sparse ones too), attributes, nested
    graphs, functions, training."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if isinstance(value, Message) else value:
                if isinstance(inner, onnx.TensorProto):
                    yield inner
                else:
                    yield from tensors(inner)


def _external(model: onnx.ModelProto) -> Iterator[tuple[str, dict[str, str]]]:
    """Name of each tensor whose data is in another file, and what says where."""
    for tensor in tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield tensor.name, {entry.key: entry.value for entry in tensor.external_data}


def locations(model: onnx.ModelProto) -> list[str]:
    """The external data files that a model refers to, once each."""
    return list(dict.fromkeys(keys.get("location", "") for _, keys in _external(model)))


def check_locations(model: onnx.ModelProto, name: str, *folders: Folder) -> None:
    """Refuse external data outside the model's folder: a model file must not read other files of the machine."""
    for tensor, keys in _external(model):
        check_location(keys.get("location", ""), name, *folders)
        for key in ("offset", "length"):
            if key in keys:
                _check_number(keys[key], f"{name}: the {key} of tensor {tensor!r}")


def check_ir_locations(model: ir.Model, name: str) -> None:
    """The same for a model of onnx_ir, whose tensors know their folders."""
    for tensor in ir_tensors(model):
        if isinstance(tensor, ir.ExternalTensor):
            external = cast(Any, tensor)  # its paths are partly untyped
            check_location(str(external.location), name, str(external.base_dir))
            for key, number in (("offset", tensor.offset), ("length", tensor.length)):
                if number is not None:
                    _check_number(str(number), f"{name}: the {key} of tensor {tensor.name!r}")


def check_present(model: ir.Model, name: str) -> None:
    """ModelError for external data that is not there."""
    for tensor in ir_tensors(model):
        if isinstance(tensor, ir.ExternalTensor) and not os.path.exists(tensor.path):
            raise ModelError(f"{name}: external data {tensor.path} is missing: put it there, or pass the model's path")


def ir_tensors(model: ir.Model) -> Iterator[ir.TensorProtocol | None]:
    """Every tensor of a model: initializers and attributes, in nested graphs and functions too."""
    functions = model.functions.values()
    for attribute in (a for f in functions for a in f.attributes.values()):
        yield from _attribute_tensors(attribute)
    graphs = [*model.graphs(), *(f.graph for f in functions), *(g for f in functions for g in f.graph.subgraphs())]
    for graph in graphs:
        yield from (value.const_value for value in graph.initializers.values())
        for attribute in (a for node in graph for a in node.attributes.values()):
            yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: ir.Attr) -> Iterator[ir.TensorProtocol]:
    if attribute.is_ref():
        return
    if attribute.type == ir.AttributeType.TENSOR:
        yield attribute.value  # as_tensor() asks the tensor for its size, which it may not have
    elif attribute.type == ir.AttributeType.TENSORS:
        yield from attribute.value


def check_location(location: str, name: str, *folders: Folder) -> None:
    """`folders`: where the model stands (the working directory by default), and where its file is linked from; a link
    must not lead out of them."""
    path = os.path.normpath(location)
    outside = not location or os.path.isabs(location) or "\\" in location or "\0" in location
    if outside or path == os.curdir or Path(path).parts[0] == os.pardir:
        raise ModelError(
            f"{name}: external data {location!r} is not inside the model's folder: save the model with relative data"
        )
    real = os.path.realpath(os.path.join(folders[0] if folders else "", path))
    if not any(Path(real).is_relative_to(os.path.realpath(folder)) for folder in folders or ("",)):
        raise ModelError(
            f"{name}: external data {location!r} is a link to {real}, which is not inside the model's folder: "
            "copy the file into the folder"
        )


def _check_number(text: str, what: str) -> None:
    """Sizes and positions in a file."""
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise ModelError(f"{what} in its external data is {text!r}, which is no position in a file: save it again")


def write(model: onnx.ModelProto, path: Folder, data_folder: Folder | None) -> None:
    """Write a model under a temporary name, then rename: a reader never sees half a file.

    data_folder: where the external data that the model refers to is now; it is copied beside `path` when that is
    another folder. ModelError, and nothing written, when that would overwrite a file with other contents.
    """
    with Staged() as staged:
        stage(model, path, data_folder, staged)
        commit(staged, path)


def stage(
    model: onnx.ModelProto | Path, path: Folder, data_folder: Folder | None, staged: Staged, *linked: Folder
) -> None:
    """The same, up to the renaming, which `commit` does for all that is staged.

    model: or the path of a file, which is copied byte for byte. linked: folders that data may be linked from.
    """
    target = Path(path)
    folder = target.parent if data_folder is None else Path(data_folder)
    proto = load(model) if isinstance(model, Path) else model
    check_locations(proto, str(target), folder, *linked)
    copies = _copies(locations(proto), target, folder)
    _check_extents(proto, str(target), folder)
    try:
        data = proto.SerializeToString() if isinstance(model, onnx.ModelProto) else None
    except ValueError as error:
        raise ModelError(f"{target}: more than 2 GB in one file: save the model with external data first") from error
    for source, wanted in copies:
        if wanted not in staged:
            _stage(staged, wanted, partial(copy_data, source), make=True)
    if isinstance(model, Path):
        _stage(staged, target, partial(copy_data, model))
    elif data is not None:
        _stage(staged, target, lambda temporary: temporary.write_bytes(data))


def commit(staged: Staged, name: Folder) -> None:
    """Put what is staged into its places; ModelError that begins with `name` when that fails."""
    try:
        staged.commit()
    except OSError as error:
        raise ModelError(f"{os.fspath(name)}: {error.strerror or error}") from error


def _stage(staged: Staged, target: Path, fill: Callable[[Path], object], make: bool = False) -> None:
    try:
        if make:
            staged.folder(target.parent)
        staged.add(target, fill)
    except OSError as error:
        raise ModelError(f"{target}: {error.strerror or error}") from error


def _check_extents(model: onnx.ModelProto, name: str, folder: Path) -> None:
    """ModelError for a tensor that ends after its file does."""
    sizes = {location: (folder / location).stat().st_size for location in locations(model)}
    for tensor, keys in _external(model):
        location, offset = keys.get("location", ""), int(keys.get("offset", "0"))
        if offset + int(keys.get("length", "0")) > sizes[location]:
            raise ModelError(
                f"{name}: its data {folder / location} is cut short, tensor {tensor!r} ends after it: "
                "copy the data again, or export the model again"
            )


def _copies(names: list[str], target: Path, folder: Path) -> list[tuple[Path, Path]]:
    """What must be copied where, for the data files `names` of `folder` to lie beside `target`."""
    copies: list[tuple[Path, Path]] = []
    for name in names:
        source, wanted = folder / name, target.parent / name
        if not source.is_file():
            raise ModelError(
                f"external data {source} is missing, {target} is not written: put it there, or name its folder"
            )
        for file in (source, wanted):
            if _same(file, target):
                raise ModelError(f"{target}: the model's own data is in {file}: write the model to another file")
        if not os.path.lexists(wanted):
            copies.append((source, wanted))
        elif not _same(source, wanted) and not _equal(source, wanted):
            raise ModelError(
                f"{target}: its data {source} would replace {wanted}, which holds something else: "
                "write the model to another folder"
            )
    return copies


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

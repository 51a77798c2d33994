"""ONNX files: read without loading weights, and without letting them point outside their folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias, cast

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

from stabilize.errors import ModelError

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


def external_tensors(model: onnx.ModelProto) -> Iterator[tuple[str, dict[str, str]]]:
    """Name of each tensor whose data is in another file, and what says where."""
    for tensor in tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield tensor.name, {entry.key: entry.value for entry in tensor.external_data}


def locations(model: onnx.ModelProto) -> list[str]:
    """The external data files that a model refers to, once each."""
    return list(dict.fromkeys(keys.get("location", "") for _, keys in external_tensors(model)))


def check_locations(model: onnx.ModelProto, name: str, *folders: Folder) -> None:
    """Refuse external data outside the model's folder: a model file must not read other files of the machine."""
    for tensor, keys in external_tensors(model):
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

"""The weights of a converted model: inside it, or, where the original keeps data in other files, in one file again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import onnx
from onnx import TensorProto

from stabilize.conversion.graph import Graph
from stabilize.conversion.narrow import Narrowed
from stabilize.conversion.target import Target
from stabilize.conversion.weights import converted, narrowed, numbers
from stabilize.errors import ModelError
from stabilize.frontends.onnx_files import locations, tensors

#: Of the positions of tensors in a data file, so that runtimes can map them.
_ALIGNED: Final = 4096
#: Bytes copied at a time.
_CHUNK: Final = 1 << 22
#: What one protobuf message holds.
_MOST_BYTES: Final = 2**31 - 1


def is_external(graph: Graph) -> bool:
    """Whether a model keeps data in other files."""
    return bool(locations(graph.proto))


def filled(narrow: Narrowed, graph: Graph, target: Target) -> onnx.ModelProto:
    """The model with its narrower weights inside."""
    for tensor in narrow.proto.graph.initializer:
        if tensor.name in narrow.pending and tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(narrowed(tensor, numbers(tensor, graph.folder), target))
    return narrow.proto


def stored(narrow: Narrowed, graph: Graph, target: Target, file: Path) -> onnx.ModelProto:
    """The model with everything that was in other files in `file`, narrowed where that is planned; one tensor after the
    other, never all of them in memory."""
    with file.open("wb") as data:
        for tensor in tensors(narrow.proto):
            pending = tensor.name in narrow.pending and tensor.data_type == TensorProto.FLOAT
            outside = tensor.data_location == TensorProto.EXTERNAL
            if pending and not outside:
                tensor.CopyFrom(narrowed(tensor, numbers(tensor, graph.folder), target))
            elif outside:
                _append(data, tensor, graph, target if pending else None)
                _refer(tensor, file.name, data)
    return narrow.proto


def _append(data: BinaryIO, tensor: TensorProto, graph: Graph, target: Target | None) -> None:
    """Write the data of an external tensor at an aligned position; its new position and length are noted in it."""
    data.write(b"\0" * (-data.tell() % _ALIGNED))
    start = data.tell()
    if target is None:
        for chunk in _chunks(tensor, graph):
            data.write(chunk)
    else:
        data.write(converted(numbers(tensor, graph.folder), target))
        tensor.data_type = target.data_type
    del tensor.external_data[:]
    tensor.external_data.add(key="offset", value=str(start))


def _refer(tensor: TensorProto, location: str, data: BinaryIO) -> None:
    start = int(tensor.external_data[0].value)
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="length", value=str(data.tell() - start))


def _chunks(tensor: TensorProto, graph: Graph) -> Iterator[bytes]:
    keys = {entry.key: entry.value for entry in tensor.external_data}
    path = os.path.join(graph.folder or "", keys.get("location", ""))
    try:
        with open(path, "rb") as source:
            source.seek(int(keys.get("offset", "0")))
            left = int(keys["length"]) if "length" in keys else os.path.getsize(path) - source.tell()
            while left > 0 and (chunk := source.read(min(left, _CHUNK))):
                left -= len(chunk)
                yield chunk
    except OSError as error:
        raise ModelError(
            f"the data of {tensor.name} in {path} cannot be read ({error}): copy the data again"
        ) from error


def taken_in(proto: onnx.ModelProto, folder: str, name: str) -> onnx.ModelProto:
    """The same model with its data inside; ModelError when it does not fit."""
    size = sum(int(e.value) for t in tensors(proto) for e in t.external_data if e.key == "length")
    if size + proto.ByteSize() > _MOST_BYTES:
        raise ModelError(f"{name}: more than 2 GB when converted: have it written, with f=..., or by stabilize convert")
    onnx.load_external_data_for_model(proto, folder)
    for tensor in tensors(proto):
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]
    return proto

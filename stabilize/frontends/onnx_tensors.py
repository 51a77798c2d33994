"""What a tensor of an ONNX file must be to be read: sizes, and exactly the data that they call for."""

from __future__ import annotations

import math

import onnx
import onnx_ir as ir

from stabilize.errors import ModelError
from stabilize.frontends.onnx_files import ir_tensors
from stabilize.frontends.onnx_types import sizes_of

#: ONNX tensors with more axes than this are held by no runtime.
_MOST_AXES = 64

#: Field of a TensorProto → the element types that are kept in it, one element an entry unless they are packed.
_FIELDS: dict[str, frozenset[str]] = {
    "float_data": frozenset(("FLOAT", "COMPLEX64")),
    "double_data": frozenset(("DOUBLE", "COMPLEX128")),
    "int64_data": frozenset(("INT64",)),
    "uint64_data": frozenset(("UINT32", "UINT64")),
    "string_data": frozenset(("STRING",)),
}
_ELSEWHERE = frozenset[str]().union(*_FIELDS.values())


def check_tensors(model: ir.Model, name: str) -> None:
    """ModelError when the data of a tensor does not fit its sizes and element type.

    Data in other files is looked at when it is read or written.
    """
    for tensor in ir_tensors(model):
        if tensor is None:
            continue
        fault = _sizes_fault(sizes_of(tensor))
        if fault is None and isinstance(tensor, ir.serde.TensorProtoTensor):
            fault = _data_fault(tensor.raw)
        if fault is not None:
            raise ModelError(
                f"{name}: not a valid ONNX model (tensor {tensor.name!r} {fault}): check it with onnx.checker"
            )


def _sizes_fault(sizes: tuple[int, ...]) -> str | None:
    if any(size < 0 for size in sizes):
        return f"has the size {min(sizes)}"
    if len(sizes) > _MOST_AXES:
        return f"has {len(sizes)} axes"
    return None


def _data_fault(tensor: onnx.TensorProto) -> str | None:
    dtype = ir.DataType(tensor.data_type)
    if dtype is ir.DataType.UNDEFINED:
        return "has no element type"
    fields = [name for name in (*_FIELDS, "int32_data") if len(getattr(tensor, name))]
    if len(fields) + tensor.HasField("raw_data") > 1:
        return f"has its data in two places, {' and '.join([*fields, 'raw_data'][:2])}"
    count = math.prod(tensor.dims)
    if not fields:
        wanted, found = (count * dtype.bitwidth + 7) // 8, len(tensor.raw_data)
        return None if wanted == found else f"holds {found} bytes instead of {wanted}"
    (field,) = fields
    if dtype.name not in _FIELDS.get(field, frozenset()) and (field != "int32_data" or dtype.name in _ELSEWHERE):
        return f"of {dtype.name} has its data in {field}"
    found = len(getattr(tensor, field))
    wanted = count * 2 if dtype.name.startswith("COMPLEX") else count
    if dtype.bitwidth < 8 and not dtype.name.startswith("FLOAT6"):  # several to an entry
        wanted = (count * dtype.bitwidth + 7) // 8
    return None if wanted == found else f"holds {found} numbers instead of {wanted}"

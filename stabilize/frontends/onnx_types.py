"""Types and tensors: between ONNX's and the semantic view's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx_ir as ir
import torch

from stabilize.formats import FORMATS, is_float
from stabilize.graph.value import Dim, TensorType

#: ONNX element type → dtype name of the view; every other element type is "other".
DTYPES: dict[ir.DataType, str] = {
    ir.DataType.FLOAT16: "float16",
    ir.DataType.BFLOAT16: "bfloat16",
    ir.DataType.FLOAT: "float32",
    ir.DataType.DOUBLE: "float64",
    ir.DataType.BOOL: "bool",
    ir.DataType.INT8: "int8",
    ir.DataType.INT16: "int16",
    ir.DataType.INT32: "int32",
    ir.DataType.INT64: "int64",
    ir.DataType.UINT8: "uint8",
}

DATA_TYPES: dict[str, ir.DataType] = {name: data_type for data_type, name in DTYPES.items()}

#: The type of a value that ONNX leaves untyped: nothing in the vocabulary is applied to it.
UNTYPED = TensorType("other", ())


def numpy_dtype(name: str) -> np.dtype:
    """The NumPy dtype of a dtype name of the view (bfloat16 through ml_dtypes)."""
    return DATA_TYPES[name].numpy()


def dims_of(shape: ir.Shape | None, name: str) -> tuple[Dim, ...] | None:
    """The dimensions of a host value; an unnamed unknown gets a symbol of its own, None when the rank is unknown."""
    if shape is None:
        return None
    dims: list[Dim] = []
    for axis, dim in enumerate(shape):
        if isinstance(dim, int):
            dims.append(dim if dim >= 0 else f"?{name}.{axis}")
        else:
            dims.append(dim.value or f"?{name}.{axis}")
    return tuple(dims)


def tensor_type(type: ir.TypeProtocol | None, shape: ir.Shape | None, name: str) -> TensorType | None:
    """The type in the view of a host value; None when its rank or element type is unknown, or it is no tensor."""
    dims = dims_of(shape, name)
    if dims is None or not isinstance(type, ir.TensorType):
        return None
    return TensorType(DTYPES.get(type.dtype, "other"), dims)


def host_shape(dims: Sequence[Dim]) -> ir.Shape:
    """The ONNX shape of a value of the view; symbols made by `dims_of` are unknown again."""
    return ir.Shape([d if isinstance(d, int) or not d.startswith("?") else None for d in dims])


def conflict(computed: TensorType, stated: TensorType) -> bool:
    """Whether two types cannot be of one value. Symbols may stand for any size."""
    if computed == stated:
        return False
    if computed.dtype != stated.dtype or computed.rank != stated.rank:
        return True
    pairs = zip(computed.shape, stated.shape, strict=True)
    return any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs)


def uniform(array: np.ndarray) -> bool | int | float | None:
    """The number that every element of `array` is, bit for bit; None when there are several or none."""
    if array.size == 0:
        return None
    flat = array.reshape(-1)
    first = flat[0]
    if flat[:2].tobytes() != first.tobytes() * flat[:2].size or flat.tobytes() != first.tobytes() * flat.size:
        return None
    if array.dtype == np.bool_:
        return bool(first)
    return int(first) if array.dtype.kind in "iu" else float(first)


def rounded(number: bool | int | float, dtype: str) -> bool | int | float | None:
    """`number` after a Cast to `dtype`; None when ONNX leaves the result open (NaN or an overflow to integer).

    A number beyond a float format stays what it was: the view tells numbers from infinities.
    """
    if dtype == "bool":
        return bool(number)
    if is_float(dtype):
        if FORMATS[dtype].max < abs(number) < math.inf:
            return float(number)
        with np.errstate(over="ignore"):
            return float(np.asarray(number).astype(numpy_dtype(dtype)))
    if not math.isfinite(number):
        return None
    bounds = np.iinfo(numpy_dtype(dtype))
    whole = int(number)
    return whole if int(bounds.min) <= whole <= int(bounds.max) else None


_FOLDED: dict[str, np.ufunc] = {
    "neg": np.negative,
    "abs": np.absolute,
    "sqrt": np.sqrt,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
}


def arithmetic(op: str, numbers: Sequence[float], dtype: str) -> float | None:
    """One correctly rounded operation of `dtype`: every runtime computes the same; None for other operations."""
    if op not in _FOLDED or not is_float(dtype):
        return None
    with np.errstate(all="ignore"):
        return float(_FOLDED[op](*(np.asarray(n).astype(numpy_dtype(dtype)) for n in numbers)))


def sizes_of(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    """The sizes of a tensor. One of a proto makes a shape anew at each look, which a large model has no time for."""
    dims = tensor.raw.dims if isinstance(tensor, ir.serde.TensorProtoTensor) else tensor.shape
    return tuple([int(d) if isinstance(d, int) else -1 for d in dims])


#: Data up to this many elements is looked at when a model is read.
LARGE: Final = 100_000


def small(tensor: ir.TensorProtocol, limit: int = LARGE) -> np.ndarray | None:
    """The data of a tensor, unless it is large or its file cannot be read. No file is left open or mapped."""
    if math.prod(sizes_of(tensor)) > limit:
        return None
    try:
        if isinstance(tensor, ir.ExternalTensor) and tensor.raw is None:
            return np.array(_twin(tensor).numpy())  # the file is mapped as long as the twin lives
        return np.asarray(tensor.numpy())
    except (OSError, ValueError):
        return None  # external data that is missing or cut short: the graph can be read without it


def _twin(tensor: ir.ExternalTensor) -> ir.ExternalTensor:
    named: Any = tensor  # its paths are partly untyped
    shape = ir.Shape(sizes_of(tensor))
    place = (named.location, tensor.offset, tensor.length, tensor.dtype)
    return ir.ExternalTensor(*place, shape=shape, name=tensor.name or "", base_dir=named.base_dir)


def to_torch(array: np.ndarray) -> torch.Tensor:
    """A tensor that owns a copy of `array`."""
    copy: Any = np.array(array, order="C")
    if array.dtype == numpy_dtype("bfloat16"):
        return torch.as_tensor(copy.view(np.int16)).view(torch.bfloat16)
    return torch.as_tensor(copy)

"""Whether the numbers of a weight survive in the narrower format, and the same weight in it."""

from __future__ import annotations

import os
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from stabilize.conversion.running import Array
from stabilize.conversion.target import Target
from stabilize.errors import ModelError

#: Relative error that a number of a weight may have beyond rounding: what lies among subnormal numbers is coarse.
_COARSE: Final = 2.0


def numbers(tensor: TensorProto, folder: str | None) -> Array:
    """The data of a tensor, wherever it is; that of another file is mapped, not read."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return numpy_helper.to_array(tensor)
    keys = {entry.key: entry.value for entry in tensor.external_data}
    path = os.path.join(folder or "", keys.get("location", ""))
    try:
        flat: Array = np.memmap(path, "<f4", "r", int(keys.get("offset", "0")), tuple(tensor.dims) or (1,))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the data of {tensor.name} in {path} cannot be read ({error}): copy the data again"
        ) from error
    return flat.reshape(tuple(tensor.dims))


def misfit(array: Array, target: Target, *, each: bool) -> str | None:
    """Why a weight must stay float32; None when it need not.

    each: every number counts by itself, as those of a divisor do. Elsewhere an error counts beside the largest number
    of the weight, and a guard such as 1e-8 is the largest of its own.
    """
    sizes = np.abs(array[np.isfinite(array)])
    if not sizes.size:
        return None
    largest = float(sizes.max())
    if largest >= target.format.overflow:
        return f"holds {largest:.6g}, beyond the largest {target.name}, {target.format.max:.6g}"
    low = _lost(array, target) if each or largest < target.format.min_normal else None
    if low is None:
        return None
    return f"holds {low:.3g}, below the normal numbers of {target.name}, which begin at {target.format.min_normal:.3g}"


def _lost(array: Array, target: Target) -> float | None:
    """A number that the format holds with more than twice the error of rounding, if there is one."""
    small = array[(np.abs(array) < target.format.min_normal) & (array != 0)]
    kept = small.astype(target.numpy).astype(np.float64)
    off = np.abs(kept - small.astype(np.float64)) > _COARSE * target.format.u * np.abs(small.astype(np.float64))
    return float(np.abs(small[off]).min()) if off.any() else None


def narrowed(tensor: TensorProto, array: Array, target: Target) -> TensorProto:
    """The same weight in the narrower format, with its data inside; name and documentation stay."""
    result = onnx.TensorProto(dims=tensor.dims, data_type=target.data_type, name=tensor.name)
    if tensor.doc_string:
        result.doc_string = tensor.doc_string
    result.metadata_props.extend(tensor.metadata_props)
    result.raw_data = converted(array, target)
    return result


def converted(array: Array, target: Target) -> bytes:
    """The numbers in the narrower format, little-endian."""
    with np.errstate(over="ignore"):  # infinities stay what they are
        half: Any = np.ascontiguousarray(array).astype(target.numpy)
    return bytes(half.view(np.uint16).astype("<u2").tobytes())

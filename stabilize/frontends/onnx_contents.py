"""Small arrays known before a run: what exporters compute with Shape, Gather and Concat to build shapes and scales.

A node is folded in the dtype of its operands, with their shapes and all of them, or not at all: whatever is known here
is what every runtime computes. Sizes may be symbols, in an int64 or int32 array of rank 0 or 1 only; symbols are moved
around and never computed with. Floats are folded only where the result is exact.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from fractions import Fraction
from functools import partial, reduce

import numpy as np
import onnx_ir as ir

from stabilize.formats import is_float
from stabilize.frontends.onnx_call import Call, Refused, normal
from stabilize.frontends.onnx_types import DTYPES, numpy_dtype
from stabilize.graph.value import Dim

#: More elements than a shape has: not worth following.
LIMIT = 64

#: The dtype of an array that holds symbols; its metadata says which integers they are.
SYMBOLIC = np.dtype(object)

_TAGGED = {name: np.dtype(object, metadata={"dtype": name}) for name in ("int32", "int64")}


def contents_of(call: Call) -> np.ndarray | None:
    """The node's first output; None when it is not known. May raise what NumPy raises for operands that do not fit."""
    rule = (_RULES if call.content(0) is not None else _OF_TYPES).get(call.node.op_type)
    if rule is None:
        return None
    array = rule(call)
    if array.size > LIMIT:
        return None
    if array.dtype != SYMBOLIC:
        return array
    operands = (call.content(i) for i in range(len(call.args)))
    untagged = array.dtype.metadata is None
    moved = next((dtype_of(o) for o in operands if o is not None and o.dtype == SYMBOLIC), "int64")
    return _settled(array, moved if untagged else dtype_of(array))


def dtype_of(array: np.ndarray) -> str:
    """The dtype name of the view for an array of known contents."""
    if array.dtype == SYMBOLIC:
        return dict[str, str](array.dtype.metadata or {}).get("dtype", "int64")
    return DTYPES.get(ir.DataType.from_numpy(array.dtype), "other")


def _symbolic(array: np.ndarray, dtype: str) -> np.ndarray:
    """A copy of `array` whose symbols are of `dtype`."""
    result = np.empty(array.shape, _TAGGED[dtype])
    result[...] = array
    return result


def _settled(array: np.ndarray, dtype: str) -> np.ndarray | None:
    """An array without symbols in `dtype`; None for symbols in a matrix."""
    if all(isinstance(e, int) for e in array.reshape(-1).tolist()):
        return array.astype(numpy_dtype(dtype))
    return _symbolic(array, dtype) if array.ndim <= 1 else None


def _operand(call: Call, index: int) -> np.ndarray:
    """Operand `index`, which may hold symbols."""
    array = call.content(index)
    if array is None:
        raise Refused(f"input {index} is not known")
    return array


def _numbers(call: Call, index: int) -> np.ndarray:
    array = _operand(call, index)
    if array.dtype == SYMBOLIC:
        raise Refused(f"input {index} is symbolic")
    return array


def _integers(call: Call, index: int) -> np.ndarray:
    """Operand `index`, which picks or counts."""
    array = _numbers(call, index)
    if array.dtype.kind not in "iu":
        raise Refused(f"input {index} is not of integers")
    return array


def _alike(call: Call) -> list[np.ndarray]:
    """All operands, numbers of one dtype."""
    arrays = [_numbers(call, i) for i in range(len(call.args))]
    if len({a.dtype for a in arrays}) != 1:
        raise Refused("operands of several dtypes")
    return arrays


def _unified(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Arrays of one dtype, where int64 may come with symbols."""
    if len({dtype_of(a) for a in arrays}) != 1:
        raise Refused("operands of several dtypes")
    symbolic = any(a.dtype == SYMBOLIC for a in arrays)
    return [a.astype(object) for a in arrays] if symbolic else arrays


# --- sizes --------------------------------------------------------------------------------------------------------


def _dims(dims: tuple[Dim, ...]) -> np.ndarray:
    array = np.empty(len(dims), object)
    array[:] = dims
    return array


def _shape(call: Call) -> np.ndarray:
    return _dims(call.x().shape[slice(call.int_attr("start", 0), call.node.attributes.get_int("end", None))])


def _size(call: Call) -> np.ndarray:
    dims = [d for d in call.x().shape if isinstance(d, int)]
    if len(dims) < call.x().type.rank:
        raise Refused("a symbolic size")
    return np.asarray(math.prod(dims), np.int64)


# --- moving elements ----------------------------------------------------------------------------------------------


def _identity(call: Call) -> np.ndarray:
    return _operand(call, 0)


def _squeeze(call: Call) -> np.ndarray:
    return np.squeeze(_operand(call, 0), call.ints("axes", 1))


def _unsqueeze(call: Call) -> np.ndarray:
    return np.expand_dims(_operand(call, 0), call.ints("axes", 1) or ())


def _reshape(call: Call) -> np.ndarray:
    array, target = _operand(call, 0), _integers(call, 1).reshape(-1).tolist()
    keep = not call.int_attr("allowzero", 0)
    return array.reshape([array.shape[i] if d == 0 and keep else d for i, d in enumerate(target)])


def _gather(call: Call) -> np.ndarray:
    array = _operand(call, 0)
    axis = call.axis(0, array.ndim)
    return np.asarray(np.take(array, _integers(call, 1), axis), array.dtype)


def _slice(call: Call) -> np.ndarray:
    array = _operand(call, 0)
    for axis, start, end, step in call.bounds(array.ndim):
        if step < 0 and start < -array.shape[axis]:
            raise Refused("a start before the first element, backwards: runtimes differ")
        array = array[(slice(None),) * axis + (slice(start, end, step),)]
    return array


def _concat(call: Call) -> np.ndarray:
    parts = _unified([_operand(call, i) for i in range(len(call.args))])
    return np.concatenate(parts, call.axis(0, parts[0].ndim))


def _where(call: Call) -> np.ndarray:
    condition = _numbers(call, 0)
    yes, no = _unified([_operand(call, 1), _operand(call, 2)])
    if condition.dtype != np.bool_:
        raise Refused("a condition that is not boolean")
    return np.where(condition, yes, no)


# --- computing ----------------------------------------------------------------------------------------------------


def _cast(call: Call) -> np.ndarray:
    if call.node.op_type == "CastLike":
        dtype = call.x(1).dtype
    else:
        dtype = next((n for t, n in DTYPES.items() if int(t) == call.int_attr("to", 0)), "other")
    array = _operand(call, 0)
    if dtype == dtype_of(array):
        return array
    if array.dtype == SYMBOLIC and dtype in _TAGGED:
        return _symbolic(array, dtype)  # a size that int32 does not hold is no size of a model that computes in it
    if dtype == "other" or array.dtype == SYMBOLIC:
        raise Refused("symbols, or a dtype outside the vocabulary")
    if dtype == "bool":
        return array.astype(np.bool_)
    if not is_float(dtype_of(array)) and not is_float(dtype):
        return array.astype(numpy_dtype(dtype))  # what does not fit loses its high bits
    whole = array if is_float(dtype) else np.trunc(array)
    if not is_float(dtype):
        bounds = np.iinfo(numpy_dtype(dtype))
        if not all(math.isfinite(e) and bounds.min <= e <= bounds.max for e in whole.reshape(-1).tolist()):
            raise Refused("numbers that an integer does not hold")
    return _exact(whole.astype(numpy_dtype(dtype)), [Fraction(e) for e in _finite(whole)])


def _finite(array: np.ndarray) -> list[int | float]:
    """The elements as Python numbers; none may be infinite, NaN or the negative zero."""
    numbers: list[int | float] = [float(e) if is_float(dtype_of(array)) else int(e) for e in array.reshape(-1)]
    if any(not math.isfinite(n) or (n == 0 and math.copysign(1, n) < 0) for n in numbers):
        raise Refused("numbers whose arithmetic is left to runtimes")
    return numbers


def _exact(result: np.ndarray, wanted: list[Fraction]) -> np.ndarray:
    if [Fraction(n) for n in _finite(result)] != wanted:
        raise Refused("a rounded result")
    return result


def _arithmetic(
    compute: Callable[[np.ndarray, np.ndarray], np.ndarray], exact: Callable[[Fraction, Fraction], Fraction], call: Call
) -> np.ndarray:
    """Integers wrap around."""
    a, b = _alike(call)
    if a.dtype == np.bool_:
        raise Refused("arithmetic of booleans")
    result = np.asarray(compute(a, b), a.dtype)
    if not is_float(dtype_of(a)):
        return result
    pairs = zip(*(_finite(np.broadcast_to(e, result.shape)) for e in (a, b)), strict=True)
    return _exact(result, [exact(Fraction(x), Fraction(y)) for x, y in pairs])


def _div(call: Call) -> np.ndarray:
    a, b = _alike(call)
    if is_float(dtype_of(a)):
        if not b.all():
            raise Refused("a division by zero")
        return _arithmetic(np.divide, lambda x, y: x / y, call)
    if (a < 0).any() or (b <= 0).any():
        raise Refused("a division by zero, or one whose rounding depends on the runtime")
    return _arithmetic(np.floor_divide, lambda x, y: Fraction(x // y), call)


def _mod(call: Call) -> np.ndarray:
    a, b = _alike(call)
    if is_float(dtype_of(a)) or call.int_attr("fmod", 0) or (b <= 0).any():
        raise Refused("a remainder whose sign is another convention")
    return _arithmetic(np.mod, lambda x, y: x % y, call)


def _extremum(compute: np.ufunc, call: Call) -> np.ndarray:
    arrays = _alike(call)
    if arrays[0].dtype == np.bool_:
        raise Refused("an order of booleans")
    for array in arrays:
        _finite(array)
    return np.asarray(reduce(compute, arrays), arrays[0].dtype)


def _compare(compute: np.ufunc, call: Call) -> np.ndarray:
    a, b = _alike(call)
    if a.dtype == np.bool_ and compute is not np.equal:
        raise Refused("an order of booleans")
    return np.asarray(compute(a, b), np.bool_)


def _logical(compute: np.ufunc, call: Call) -> np.ndarray:
    arrays = _alike(call)
    if arrays[0].dtype != np.bool_:
        raise Refused("logic of numbers")
    return np.asarray(compute(*arrays), np.bool_)


def _product(call: Call) -> np.ndarray:
    array, axes = _numbers(call, 0), call.ints("axes", 1)
    if array.dtype.kind not in "iu":
        raise Refused("a product of floats")
    if not axes and call.int_attr("noop_with_empty_axes", 0):
        return array
    chosen = tuple(normal(a, array.ndim) for a in axes) if axes else tuple(range(array.ndim))
    return np.asarray(np.prod(array, chosen, array.dtype, keepdims=bool(call.int_attr("keepdims", 1))), array.dtype)


#: Of operators whose operands need not be known.
_OF_TYPES: dict[str, Callable[[Call], np.ndarray]] = {"Shape": _shape, "Size": _size}

#: Of operators whose first operand is known.
_RULES: dict[str, Callable[[Call], np.ndarray]] = {
    **_OF_TYPES,
    "Identity": _identity,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Where": _where,
    "Cast": _cast,
    "CastLike": _cast,
    "Add": partial(_arithmetic, np.add, operator.add),
    "Sub": partial(_arithmetic, np.subtract, operator.sub),
    "Mul": partial(_arithmetic, np.multiply, operator.mul),
    "Div": _div,
    "Mod": _mod,
    "Max": partial(_extremum, np.maximum),
    "Min": partial(_extremum, np.minimum),
    "Equal": partial(_compare, np.equal),
    "Less": partial(_compare, np.less),
    "Greater": partial(_compare, np.greater),
    "And": partial(_logical, np.logical_and),
    "Or": partial(_logical, np.logical_or),
    "Not": partial(_logical, np.logical_not),
    "ReduceProd": _product,
}

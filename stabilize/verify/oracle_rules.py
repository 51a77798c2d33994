"""Rules of the oracle: how each kind of primitive acts on arrays of exact scalars."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt
from flint import arb

from stabilize.errors import UsageError
from stabilize.formats import is_float
from stabilize.graph.value import Value
from stabilize.verify import reals
from stabilize.verify.execute import concrete
from stabilize.verify.reals import Reals, Scalar

OracleArray: TypeAlias = npt.NDArray[np.object_]
"""An array of scalars: `Scalar` where the dtype is a float, else Python ints or bools."""


class Context:
    """What a rule needs besides its operands: the arithmetic in use and the sizes of symbolic dimensions."""

    def __init__(self, arithmetic: Reals, sizes: Mapping[str, int]) -> None:
        self.reals = arithmetic
        self.sizes = sizes


Rule: TypeAlias = Callable[[Context, Value, Sequence[OracleArray]], OracleArray]


# --- adapters ----------------------------------------------------------------------------------------------


def elementwise_map(function: Callable[..., object], *arrays: OracleArray) -> OracleArray:
    """`function` of every element, with broadcasting."""
    result: object = np.frompyfunc(function, len(arrays), 1)(*arrays)
    if isinstance(result, np.ndarray):
        return cast(OracleArray, result)
    boxed: OracleArray = np.empty((), dtype=object)
    boxed[()] = result
    return boxed


def lifted(array: OracleArray) -> OracleArray:
    """Bools and ints as balls."""

    def lift(x: int) -> arb:
        return arb(int(x))

    first: object = array.item(0) if array.size else None
    return elementwise_map(lift, array) if isinstance(first, int) else array  # all are, or none


def restored(value: Value, array: OracleArray, context: Context) -> OracleArray:
    """Scalars back to ints where the value is an integer (so that an integer quotient is truncated)."""

    def restore(x: Scalar | int) -> int:
        return x if isinstance(x, int) else context.reals.truncate(x)

    if is_float(value.dtype) or value.dtype == "bool":
        return array
    return elementwise_map(restore, array)


def elementwise(function: Callable[..., object]) -> Rule:
    return lambda context, value, operands: restored(value, elementwise_map(function, *map(lifted, operands)), context)


def method(name: str) -> Rule:
    """A method of `Reals`, element by element."""

    def rule(context: Context, value: Value, operands: Sequence[OracleArray]) -> OracleArray:
        return restored(value, elementwise_map(getattr(context.reals, name), *map(lifted, operands)), context)

    return rule


def comparison(holds: Callable[[int], bool], for_nan: bool = False) -> Rule:
    def rule(context: Context, value: Value, operands: Sequence[OracleArray]) -> OracleArray:
        def compare(a: Scalar, b: Scalar) -> bool:
            if reals.isnan(a) or reals.isnan(b):
                return for_nan
            return holds(context.reals.compare(a, b))

        return elementwise_map(compare, *map(lifted, operands))

    return rule


def logical(function: Callable[..., bool]) -> Rule:
    def rule(context: Context, value: Value, operands: Sequence[OracleArray]) -> OracleArray:
        return elementwise_map(function, *(truth(context, a) for a in operands))

    return rule


def truth(context: Context, array: OracleArray) -> OracleArray:
    """Numbers as bools: everything but zero is true."""

    def holds(x: Scalar | bool) -> bool:
        return x if isinstance(x, bool) else reals.isnan(x) or context.reals.sign(x) != 0

    return elementwise_map(holds, array)


def rows_of(array: OracleArray, axes: Sequence[int]) -> tuple[list[list[Scalar]], tuple[int, ...]]:
    """The elements along `axes`, one list for every position of the other axes, and the shape of those."""
    kept = [i for i in range(array.ndim) if i not in axes]
    count = int(np.prod([array.shape[a] for a in axes], dtype=np.int64))
    shape = tuple(array.shape[i] for i in kept)
    moved = array.transpose([*kept, *axes]).reshape((int(np.prod(shape, dtype=np.int64)), count))
    return cast("list[list[Scalar]]", moved.tolist()), shape


def fold(function: Callable[[list[Scalar]], object], array: OracleArray, value: Value) -> OracleArray:
    """A reduction: `function` of the elements along the axes of `value`."""
    rows, shape = rows_of(array, value.axes)
    result = np.empty(len(rows), dtype=object)
    result[:] = [function(row) for row in rows]
    result = result.reshape(shape)
    if bool(value.attr("keepdim")):
        result = np.expand_dims(result, value.axes)
    return result


def reduction(name: str) -> Rule:
    def rule(context: Context, value: Value, operands: Sequence[OracleArray]) -> OracleArray:
        return restored(value, fold(getattr(context.reals, name), lifted(operands[0]), value), context)

    return rule


def negated(rule: Rule) -> Rule:
    """min x = −max(−x)."""

    def negated(context: Context, value: Value, operands: Sequence[OracleArray]) -> OracleArray:
        return restored(
            value,
            elementwise_map(reals.neg, rule(context, value, [elementwise_map(reals.neg, lifted(operands[0]))])),
            context,
        )

    return negated


def mean(context: Context, value: Value, operands: Sequence[OracleArray]) -> OracleArray:
    def mean(row: list[Scalar]) -> Scalar:
        return context.reals.div(context.reals.sum(row), arb(len(row)))

    return fold(mean, operands[0], value)


def norm(context: Context, value: Value, operands: Sequence[OracleArray]) -> OracleArray:
    arithmetic = context.reals

    def norm(row: list[Scalar]) -> Scalar:
        return arithmetic.sqrt(arithmetic.sum([arithmetic.mul(x, x) for x in row]))

    return fold(norm, operands[0], value)


def quantifier(function: Callable[[Sequence[bool]], bool]) -> Rule:
    def rule(context: Context, value: Value, operands: Sequence[OracleArray]) -> OracleArray:
        return fold(lambda row: function(cast("list[bool]", row)), truth(context, operands[0]), value)

    return rule


def argmax(context: Context, value: Value, operands: Sequence[OracleArray]) -> OracleArray:
    return fold(lambda row: context.reals.order(row)[0], lifted(operands[0]), value)


def rowwise(function: Callable[[Reals, list[Scalar], Value], Sequence[object]]) -> Rule:
    """A map from the elements along one axis to elements along that axis."""

    def rule(context: Context, value: Value, operands: Sequence[OracleArray]) -> OracleArray:
        axis = value.axes[0]
        rows, shape = rows_of(lifted(operands[0]), (axis,))
        mapped = [function(context.reals, row, value) for row in rows]
        length = concrete(value.shape, context.sizes)[axis]
        result = np.empty((len(rows), length), dtype=object)
        for i, row in enumerate(mapped):
            result[i, :] = row
        return restored(value, np.moveaxis(result.reshape((*shape, length)), -1, axis), context)

    return rule


def scan(function: Callable[[Reals, Scalar, Scalar], Scalar], start: Scalar) -> Rule:
    def scan(arithmetic: Reals, row: list[Scalar], value: Value) -> list[Scalar]:
        total, out = start, list[Scalar]()
        for x in row:
            total = function(arithmetic, total, x)
            out.append(total)
        return out

    return rowwise(scan)


def logcumsumexp(arithmetic: Reals, row: list[Scalar], value: Value) -> list[Scalar]:
    return [arithmetic.logsumexp(row[: i + 1]) for i in range(len(row))]


def topk_positions(arithmetic: Reals, row: list[Scalar], value: Value) -> list[int]:
    return arithmetic.order(row, bool(value.attr("largest")))[: cast(int, value.attr("k"))]


def topk_values(arithmetic: Reals, row: list[Scalar], value: Value) -> list[Scalar]:
    return [row[i] for i in topk_positions(arithmetic, row, value)]


# --- leaves, casts, layout ---------------------------------------------------------------------------------


def leaf(context: Context, value: Value, operands: Sequence[OracleArray]) -> OracleArray:
    raise UsageError(f"no tensor was given for the leaf {value!r}")


def constant(context: Context, value: Value, operands: Sequence[OracleArray]) -> OracleArray:
    number = cast("bool | int | float", value.attr("value"))
    result = np.empty(concrete(value.shape, context.sizes), dtype=object)
    result.fill(reals.lift(number) if is_float(value.dtype) else number)
    return result


def arange(context: Context, value: Value, operands: Sequence[OracleArray]) -> OracleArray:
    numbers = range(concrete(value.shape, context.sizes)[0])
    result = np.empty(len(numbers), dtype=object)
    result[:] = [arb(i) for i in numbers] if is_float(value.dtype) else list(numbers)
    return result


def to_dtype(context: Context, value: Value, operands: Sequence[OracleArray]) -> OracleArray:
    if value.dtype == "bool":
        return truth(context, operands[0])
    numbers = lifted(operands[0])
    return numbers if is_float(value.dtype) else elementwise_map(context.reals.truncate, numbers)


def window(context: Context, value: Value, operands: Sequence[OracleArray]) -> OracleArray:
    start, stop, step = (cast(int, value.attr(k)) for k in ("start", "stop", "step"))
    return operands[0][(slice(None),) * value.axes[0] + (slice(start, stop, step),)]


def gather(context: Context, value: Value, operands: Sequence[OracleArray]) -> OracleArray:
    axis, (source, index) = value.axes[0], operands
    window = tuple(slice(None) if i == axis else slice(n) for i, n in enumerate(index.shape))
    return np.take_along_axis(source[window], index.astype(np.int64), axis)


def select(context: Context, value: Value, operands: Sequence[OracleArray]) -> OracleArray:
    """`where`: the branch that is not taken has no say."""

    def pick(condition: bool, a: Scalar, b: Scalar) -> Scalar:
        return a if condition else b

    return elementwise_map(pick, *operands)


def transpose(context: Context, value: Value, operands: Sequence[OracleArray]) -> OracleArray:
    return operands[0].transpose(cast("tuple[int, ...]", value.attr("perm")))


def one_hot(context: Context, value: Value, operands: Sequence[OracleArray]) -> OracleArray:
    classes = np.arange(cast(int, value.attr("classes")), dtype=object)
    return elementwise_map(operator.eq, operands[0][..., None], classes)


def matmul(context: Context, a: OracleArray, b: OracleArray) -> OracleArray:
    """The matrix product as NumPy defines it, with extended-real sums of products."""
    left = a[None, :] if a.ndim == 1 else a
    right = b[:, None] if b.ndim == 1 else b
    products = elementwise_map(context.reals.mul, left[..., :, :, None], right[..., None, :, :])
    rows, shape = rows_of(products, (products.ndim - 2,))
    result = np.empty(len(rows), dtype=object)
    result[:] = [context.reals.sum(row) for row in rows]
    result = result.reshape(shape)
    if b.ndim == 1:
        result = result[..., 0]
    return result[..., 0] if a.ndim == 1 and b.ndim == 1 else result[..., 0, :] if a.ndim == 1 else result

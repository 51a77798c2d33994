"""Reader rows of operators that move elements without computing: views, selections, joins, generated patterns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from stabilize.formats import is_float
from stabilize.frontends.onnx_call import Call, Refused, Row, normal
from stabilize.frontends.onnx_types import DATA_TYPES, DTYPES, uniform
from stabilize.graph.build import constant_of, element_count
from stabilize.graph.value import Dim, Value


def _transpose(call: Call) -> Value:
    x = call.x()
    perm = call.node.attributes.get_ints("perm", tuple(reversed(range(x.type.rank))))
    if tuple(perm) == tuple(range(x.type.rank)):
        return x
    return call.builder.make("transpose", x, perm=tuple(perm))


def _unsqueeze(call: Call) -> Value:
    x, axes = call.x(), call.ints("axes", 1)
    if axes is None:
        raise Refused("no axes")
    rank = x.type.rank + len(axes)
    return call.builder.unsqueeze(x, _distinct(axes, rank))


def _squeeze(call: Call) -> Value:
    x, axes = call.x(), call.ints("axes", 1)
    if axes is None:
        if not all(isinstance(d, int) for d in x.shape):
            raise Refused("which axes are of size 1 is not known")
        axes = tuple(i for i, d in enumerate(x.shape) if d == 1)
    return call.builder.squeeze(x, _distinct(axes, x.type.rank))


def _distinct(axes: Sequence[int], rank: int) -> list[int]:
    found = sorted({normal(a, rank) for a in axes})
    if len(found) < len(axes):
        raise Refused(f"an axis twice in {tuple(axes)}")
    return found


def _reshape(call: Call) -> Value:
    x, target = call.x(), call.dims(1)
    if target is None:
        return _reshaped(call, x, call.out_shape())
    if any(isinstance(d, int) and d < -1 for d in target) or target.count(-1) > 1:
        raise Refused(f"a reshape to {target}")
    keep = not call.int_attr("allowzero", 0)
    if keep and 0 in target[x.type.rank :]:
        raise Refused("an axis kept that is not there")
    shape = tuple(x.shape[i] if d == 0 and keep else d for i, d in enumerate(target))
    if -1 in shape:
        rest = _quotient(x.shape, [d for d in shape if d != -1])
        if rest is None:
            return _reshaped(call, x, call.out_shape())
        shape = tuple(rest if d == -1 else d for d in shape)
    return _reshaped(call, x, shape)


def _quotient(whole: Sequence[Dim], part: Sequence[Dim]) -> Dim | None:
    """∏ whole / ∏ part where symbols cancel and the numbers divide; at most one symbol may be left over."""
    left = [d for d in whole if isinstance(d, str)]
    for dim in part:
        if isinstance(dim, str):
            if dim not in left:
                return None
            left.remove(dim)
    above = math.prod(d for d in whole if isinstance(d, int))
    below = math.prod(d for d in part if isinstance(d, int))
    if below == 0 or above % below or above == 0:
        return None
    if not left:
        return above // below
    return left[0] if len(left) == 1 and above == below else None


def _reshaped(call: Call, x: Value, shape: tuple[Dim, ...]) -> Value:
    """`x` in another shape: an unsqueeze or squeeze where it is no more than that."""
    if shape == x.shape:
        return x
    count, stated = element_count(x.shape, range(x.type.rank)), element_count(shape, range(len(shape)))
    if count is not None and stated is not None and count != stated:
        raise Refused(f"{x.shape} does not reshape to {shape}")
    return call.builder.make("reshape", x, shape=shape)


def _flatten(call: Call) -> Value:
    x = call.x()
    axis = call.int_attr("axis", 1)
    axis = axis if axis == x.type.rank else normal(axis, x.type.rank)
    halves = (x.shape[:axis], x.shape[axis:])
    shape: list[Dim] = []
    for half in halves:
        wide = [d for d in half if d != 1]
        size = element_count(wide, range(len(wide)))
        if size is None and len(wide) > 1:
            raise Refused("a product of symbolic sizes")
        shape.append(wide[0] if size is None else size)
    return _reshaped(call, x, tuple(shape))


def _expand(call: Call) -> Value:
    x, target = call.x(), call.dims(1)
    if target is None:
        return call.builder.expand(x, call.out_shape())
    rank = max(len(target), x.type.rank)
    mine: tuple[Dim, ...] = (1,) * (rank - x.type.rank) + x.shape
    theirs: tuple[Dim, ...] = (1,) * (rank - len(target)) + target
    return call.builder.expand(x, tuple(a if b == 1 else b for a, b in zip(mine, theirs, strict=True)))


def _slice(call: Call) -> Value:
    x = call.x()
    for axis, start, end, step in call.bounds(x.type.rank):
        x = sliced(call, x, axis, start, end, step)
    return x


def sliced(call: Call, x: Value, axis: int, start: int, end: int, step: int) -> Value:
    """x[start:end:step] along `axis`, with ONNX's clamping of the bounds."""
    size = x.shape[axis]
    if start == 0 and end >= 2**31 - 1 and step == 1:
        return x
    if not isinstance(size, int) or step < 1:
        raise Refused("a slice of a symbolic axis, or backwards")
    first, last = (min(max(b + size if b < 0 else b, 0), size) for b in (start, end))
    if (first, step) == (0, 1) and last == size:
        return x
    return call.builder.make("slice", x, axis=axis, start=first, stop=max(first, last), step=step)


def _split(call: Call) -> tuple[Value, ...]:
    x = call.x()
    axis = call.axis(0, x.type.rank)
    size, parts, pieces = x.shape[axis], len(call.node.outputs), call.ints("split", 1)
    if not isinstance(size, int):
        raise Refused("a split of a symbolic axis")
    if pieces is None:
        each = -(-size // parts)
        pieces = tuple(min(each, size - i * each) for i in range(parts))
    if len(pieces) != parts or sum(pieces) != size or min(pieces) < 0:
        raise Refused(f"an axis of {size} in {parts} parts of {pieces}")
    bounds = [sum(pieces[:i]) for i in range(parts + 1)]
    return tuple(sliced(call, x, axis, a, b, 1) for a, b in pairwise(bounds))


def _concat(call: Call) -> Value:
    operands = [call.x(i) for i in range(len(call.args))]
    if len(operands) == 1:
        return operands[0]
    return call.builder.make("concat", *operands, axis=call.axis(0, operands[0].type.rank))


def _gather(call: Call) -> Value:
    """Indices known: a slice. One row of indices or one index: torch.gather of an expanded index."""
    builder, x, index = call.builder, call.x(), call.x(1)
    axis, known = call.axis(0, x.type.rank), call.dims(1)
    numbers = [d for d in known or () if isinstance(d, int)]
    size = x.shape[axis]
    if known and len(numbers) == len(known) and isinstance(size, int):
        numbers = [n + size if n < 0 else n for n in numbers]
        if numbers == list(range(numbers[0], numbers[0] + len(numbers))) and 0 <= numbers[0] <= size - len(numbers):
            part = sliced(call, x, axis, numbers[0], numbers[-1] + 1, 1)
            return builder.squeeze(part, [axis]) if index.type.rank == 0 else part
    if index.type.rank > 1:
        raise Refused("indices of rank 2 or more")
    return _picked(call, x, index, axis)


def _picked(call: Call, x: Value, index: Value, axis: int) -> Value:
    """`x` at a row of indices, or at one index, along `axis`."""
    builder = call.builder
    lone = index.type.rank == 0
    count: Dim = 1 if lone else index.shape[0]
    others = [i for i in range(x.type.rank) if i != axis]
    spread = builder.unsqueeze(builder.unsqueeze(index, [0]) if lone else index, others)
    spread = builder.expand(spread, (*x.shape[:axis], count, *x.shape[axis + 1 :]))
    picked = builder.make("gather", x, spread, axis=axis)
    return builder.squeeze(picked, [axis]) if lone else picked


def _gather_elements(call: Call) -> Value:
    return call.builder.make("gather", call.x(), call.x(1), axis=call.axis(0, call.x().type.rank))


def _gather_nd(call: Call) -> Value:
    """x[y] and x[arange(n), y], as exporters spell them: indices are a column, or the pairs (i, y[i])."""
    x, pairs = call.x(), call.x(1)
    single = _column(pairs)
    if single is not None and not call.int_attr("batch_dims", 0):
        return _picked(call, x, single, 0)
    if call.int_attr("batch_dims", 0) or pairs.op != "concat" or len(pairs.operands) != 2 or x.type.rank != 2:
        raise Refused("a general GatherND")
    first, second = (_column(v) for v in pairs.operands)
    if pairs.axes != (1,) or first is None or second is None or first.op != "arange" or first.shape != x.shape[:1]:
        raise Refused("a general GatherND")
    picked = call.builder.make("gather", x, call.builder.unsqueeze(second, [1]), axis=1)
    return call.builder.squeeze(picked, [1])


def _column(value: Value) -> Value | None:
    """The row that `value` is as a column, if it is one."""
    return value.operands[0] if value.op == "unsqueeze" and value.axes == (1,) and value.type.rank == 2 else None


def _one_hot(call: Call) -> Value:
    builder, index, depth, values = call.builder, call.x(), call.dims(1), call.x(2)
    if is_float(index.dtype) or depth is None or len(depth) != 1 or not isinstance(depth[0], int):
        raise Refused("float labels or a computed depth")
    rank = index.type.rank + 1
    hot = builder.make("one_hot", index, classes=depth[0])
    axis = call.axis(-1, rank)
    if axis != rank - 1:
        perm = list(range(rank - 1))
        perm.insert(axis, rank - 1)
        hot = builder.make("transpose", hot, perm=tuple(perm))
    known = call.content(2)
    if known is not None and known.shape == (2,) and known.tobytes() == np.arange(2).astype(known.dtype).tobytes():
        return builder.cast(hot, values.dtype)
    off = builder.squeeze(builder.make("slice", values, axis=0, start=0, stop=1, step=1), [0])
    on = builder.squeeze(builder.make("slice", values, axis=0, start=1, stop=2, step=1), [0])
    return builder.make("where", hot, on, off)


def _range(call: Call) -> Value:
    start, limit, step = (None if a is None or a.size != 1 else a.item() for a in map(call.content, range(3)))
    if start != 0 or step != 1 or not isinstance(limit, (int, float, str)):
        raise Refused("not 0, 1, …, n−1")
    if not isinstance(limit, str):
        if limit < 0 or limit != math.floor(limit):
            raise Refused("a limit that is no size")
        limit = int(limit)
    return call.builder.make("arange", size=limit, dtype=call.x().dtype)


def _constant_of_shape(call: Call) -> Value:
    tensor = call.node.attributes.get_tensor("value", None)
    number = 0.0 if tensor is None else uniform(tensor.numpy())
    dtype = "float32" if tensor is None else DTYPES.get(tensor.dtype, "other")
    if number is None or dtype == "other":
        raise Refused("a fill value outside the vocabulary")
    shape = call.dims(0)
    if any(isinstance(d, int) and d < 0 for d in shape or ()):
        raise Refused(f"the shape {shape}")
    return call.builder.constant(number, dtype, call.out_shape() if shape is None else shape)


def _eye_like(call: Call) -> Value:
    """1 where column − row = k, else 0."""
    builder, x = call.builder, call.x()
    wanted = call.int_attr("dtype", int(DATA_TYPES.get(x.dtype, 0)))
    dtype = next((n for t, n in DTYPES.items() if int(t) == wanted), "other")
    if x.type.rank != 2 or dtype == "other":
        raise Refused("not a matrix of a dtype of the vocabulary")
    rows = builder.unsqueeze(builder.make("arange", size=x.shape[0], dtype="int64"), [1])
    columns = builder.unsqueeze(builder.make("arange", size=x.shape[1], dtype="int64"), [0])
    shift = call.int_attr("k", 0)
    return builder.cast(builder.make("eq", columns, builder.apply("add", rows, shift) if shift else rows), dtype)


def _trilu(call: Call) -> Value:
    """One triangle kept: where(column − row ≥ k, x, 0), or ≤ for the lower one."""
    builder, x = call.builder, call.x()
    shift = constant_of(call.x(1)) if call.given(1) else 0
    sizes: Sequence[Dim] = x.shape[-2:]
    if not isinstance(shift, int) or len(sizes) < 2:
        raise Refused("a computed diagonal")
    rows = builder.unsqueeze(builder.make("arange", size=sizes[0], dtype="int64"), [1])
    columns = builder.unsqueeze(builder.make("arange", size=sizes[1], dtype="int64"), [0])
    edge = builder.apply("add", rows, int(shift)) if shift else rows
    kept = builder.make("ge" if call.int_attr("upper", 1) else "le", columns, edge)
    zero = builder.constant(rounded_zero(x.dtype), x.dtype)
    return builder.make("where", kept, x, zero)


def rounded_zero(dtype: str) -> bool | int | float:
    """Zero of a dtype, as a Python number of the right kind."""
    return False if dtype == "bool" else 0.0 if is_float(dtype) else 0


ROWS: dict[str, Row] = {
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Expand": _expand,
    "Slice": _slice,
    "Split": _split,
    "Concat": _concat,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "OneHot": _one_hot,
    "Range": _range,
    "ConstantOfShape": _constant_of_shape,
    "EyeLike": _eye_like,
    "Trilu": _trilu,
}

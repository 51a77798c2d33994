"""Rows of the reading table: picking by index, scattering, triangles and diagonals."""

from __future__ import annotations

from typing import cast

from stabilize.formats import is_float
from stabilize.frontends.fx_call import Call, Row, Unreadable
from stabilize.graph.value import Dim, Value

# --- indexing -----------------------------------------------------------------------------------------------


def nonnegative(value: Value) -> bool:
    """Whether an integer value is provably never below zero."""
    while value.op in ("unsqueeze", "squeeze", "reshape", "expand", "transpose", "slice", "cast", "detach"):
        value = value.operands[0]
    match value.op:
        case "arange" | "argmax" | "topk_indices":
            return True
        case "constant":
            return cast(float, value.attr("value")) >= 0
        case "maximum":
            return any(nonnegative(o) for o in value.operands)
        case "where" | "minimum" | "add" | "mul":
            return all(nonnegative(o) for o in value.operands[-2:])
        case _:
            return False


def wrapped(c: Call, index: Value, size: Dim) -> Value:
    """An index as `x[index]` means it: counted from the end where it is negative."""
    if nonnegative(index):
        return index
    if not isinstance(size, int):
        raise Unreadable("an index that may be negative, into a symbolic axis")
    return c.b.make("where", c.b.apply("lt", index, 0), c.b.apply("add", index, size), index)


def index_tensor(c: Call) -> Value:
    """`x[arange(N), y]` and `x[:, y]`, the two forms of advanced indexing that are a gather."""
    x = c.tensor("self")
    raw = c.items("indices")
    given = [c.read(item) if item is not None else None for item in raw]
    if any(i is not None and i.dtype not in ("int64", "int32") for i in given):
        raise Unreadable("indexing by a mask")
    chosen = [i for i in given if i is not None]
    if len(chosen) == 1:
        return _picked(c, x, given.index(chosen[0]), chosen[0])
    if len(chosen) != len(given):
        raise Unreadable("advanced indexing with gaps")
    return _along_ranges(c, x, chosen)


def _picked(c: Call, x: Value, axis: int, index: Value) -> Value:
    """`x` with `axis` reordered by a vector of indices."""
    if index.type.rank != 1:
        raise Unreadable("an index of rank other than 1")
    index = c.b.cast(wrapped(c, index, x.shape[axis]), "int64")
    shape = (*x.shape[:axis], index.shape[0], *x.shape[axis + 1 :])
    lifted = c.b.unsqueeze(index, [i for i in range(x.type.rank) if i != axis])
    return c.b.make("gather", x, c.b.expand(lifted, shape), axis=axis)


def _along_ranges(c: Call, x: Value, indices: list[Value]) -> Value:
    """`x[i₀, …, i_{k−1}, y]` where i_a counts along axis a of the result and y picks from axis k."""
    *ranges, y = indices
    depth = len(ranges)
    if y.type.rank != depth or tuple(y.shape) != x.shape[:depth] or depth == 0:
        raise Unreadable("indices that do not pick one element per row")
    if not all(_counts(value, axis, depth, x.shape[axis]) for axis, value in enumerate(ranges)):
        raise Unreadable("leading indices that are not ranges")
    y = c.b.cast(wrapped(c, y, x.shape[depth]), "int64")
    lifted = c.b.unsqueeze(y, range(depth, x.type.rank))
    index = c.b.expand(lifted, (*x.shape[:depth], 1, *x.shape[depth + 1 :]))
    return c.b.squeeze(c.b.make("gather", x, index, axis=depth), (depth,))


def _counts(value: Value, axis: int, depth: int, size: Dim) -> bool:
    """Whether `value`, broadcast to `depth` axes, is 0 … size−1 along `axis` and constant along the others."""
    if value.type.rank > depth or value.shape == ():
        return False
    shape = (1,) * (depth - value.type.rank) + value.shape
    if shape != tuple(size if i == axis else 1 for i in range(depth)):
        return False
    while value.op in ("unsqueeze", "squeeze", "reshape", "cast"):
        value = value.operands[0]
    return value.op == "arange" and value.shape == (size,)


def gather(c: Call) -> Value:
    x, index = c.tensor("self"), c.tensor("index")
    if x.type.rank == 0:
        raise Unreadable("gather from a scalar")
    return c.b.make("gather", x, index, axis=c.axis("dim", x.type.rank))


def index_select(c: Call) -> Value:
    """index_select raises on negative indices, so the index needs no wrapping."""
    x, index = c.tensor("self"), c.tensor("index")
    axis = c.axis("dim", x.type.rank)
    if index.type.rank != 1:
        raise Unreadable("an index of rank other than 1")
    lifted = c.b.unsqueeze(index, [i for i in range(x.type.rank) if i != axis])
    return c.b.make("gather", x, c.b.expand(lifted, c.out.shape), axis=axis)


def one_hot(c: Call) -> Value:
    classes = c.out.shape[-1]
    if not isinstance(classes, int) or c.raw("num_classes") == -1:
        raise Unreadable("a number of classes that depends on the data")
    return c.b.cast(c.b.make("one_hot", c.tensor("self"), classes=classes), "int64")


def take_along_dim(c: Call) -> Value:
    """gather with broadcasting; its indices count from the end where they are negative."""
    x, index = c.tensor("self"), c.tensor("indices")
    if not c.given("dim") or x.type.rank != index.type.rank:
        raise Unreadable("take_along_dim of a flattened tensor")
    axis = c.axis("dim", x.type.rank)
    index = wrapped(c, index, x.shape[axis])
    around = [c.out.shape[i] if i != axis else x.shape[axis] for i in range(x.type.rank)]
    return c.b.make("gather", c.b.expand(x, tuple(around)), c.b.expand(index, c.out.shape), axis=axis)


def scatter(c: Call) -> Value:
    """One element per row written along the last axis: the hand-made one-hot encoding."""
    x, index = c.tensor("self"), c.tensor("index")
    rank = x.type.rank
    classes = x.shape[-1] if rank else 1
    if rank == 0 or c.axis("dim", rank) != rank - 1 or not isinstance(classes, int):
        raise Unreadable("a scatter along another axis than the last")
    if index.shape != (*x.shape[:-1], 1):
        raise Unreadable("a scatter of more or less than one element per row")
    source = c.operand("value" if "value" in c.names else "src")
    if source.shape not in ((), index.shape):
        raise Unreadable("a scatter from a larger source")
    hit = c.b.make("one_hot", c.b.squeeze(index, (rank - 1,)), classes=classes)
    return c.b.make("where", hit, source, x)


# --- triangles and diagonals --------------------------------------------------------------------------------


def _zero(dtype: str) -> bool | int | float:
    return False if dtype == "bool" else 0.0 if is_float(dtype) else 0


def _counters(c: Call, rows: Dim, columns: Dim) -> tuple[Value, Value]:
    """Row numbers as a column, column numbers as a row."""
    row, column = (c.b.make("arange", size=size, dtype="int64") for size in (rows, columns))
    return c.b.unsqueeze(row, (1,)), column


def triangle(op: str) -> Row:
    """tril ("le") and triu ("ge"): entries on the other side of a diagonal become 0."""

    def row(c: Call) -> Value:
        x = c.tensor("self")
        r, column = _counters(c, x.shape[-2], x.shape[-1])
        offset = c.integer("diagonal")
        kept = c.b.make(op, column, r if offset == 0 else c.b.apply("add", r, offset))
        return c.b.make("where", kept, x, c.b.constant(_zero(x.dtype), x.dtype))

    return row


def eye(c: Call) -> Value:
    r, column = _counters(c, *c.out.shape)
    return c.b.cast(c.b.make("eq", column, r), c.out.dtype)


def diagonal(c: Call) -> Value:
    """A diagonal of a matrix."""
    x = c.tensor("self")
    if x.type.rank != 2 or c.integer("dim1") % 2 or c.integer("dim2") % 2 != 1:
        raise Unreadable("a diagonal of other axes")
    return _entries(c, x, c.integer("offset"))


def diag(c: Call) -> Value:
    """A diagonal of a matrix; of a vector it would be the matrix."""
    x = c.tensor("self")
    if x.type.rank != 2:
        raise Unreadable("a matrix with a given diagonal")
    return _entries(c, x, c.integer("diagonal"))


def _entries(c: Call, x: Value, offset: int) -> Value:
    """In row i, column i + offset."""
    rows, columns = x.shape
    if rows != columns or offset:
        if not isinstance(rows, int) or not isinstance(columns, int):
            raise Unreadable("a diagonal of a matrix of unknown size")
        first = max(-offset, 0)
        last = min(rows, columns - offset)
        if first >= last:
            raise Unreadable("an empty diagonal")
        if (first, last) != (0, rows):
            x = c.b.make("slice", x, axis=0, start=first, stop=last, step=1)
        rows = last - first
    index = c.b.make("arange", size=rows, dtype="int64")
    if offset > 0:
        index = c.b.apply("add", index, offset)
    return c.b.squeeze(c.b.make("gather", x, c.b.unsqueeze(index, (1,)), axis=1), (1,))


INDEX_ROWS: dict[str, Row] = {
    "index.Tensor": index_tensor,
    "gather.default": gather,
    "index_select.default": index_select,
    "take_along_dim.default": take_along_dim,
    "one_hot.default": one_hot,
    "scatter.value": scatter,
    "scatter.src": scatter,
    "tril.default": triangle("le"),
    "triu.default": triangle("ge"),
    "eye.default": eye,
    "eye.m": eye,
    "diagonal.default": diagonal,
    "diag.default": diag,
}

"""Rows of the reading table: layout, indexing, casts, and the operators that are the identity on values."""

from __future__ import annotations

from typing import cast

import torch
from torch import fx

from stabilize.frontends.fx_call import Call, Row, Unreadable
from stabilize.frontends.fx_types import fake_of
from stabilize.graph.value import Dim, Value

_END = 2**62
"""An `end` at or above this means "to the end": exported slices spell it 2⁶³ − 1."""


def identity(c: Call) -> Value:
    return c.tensor(0)


def convert(c: Call) -> Value:
    """A change of dtype. Device and memory layout are not part of a value; a change of device is left alone."""
    argument = c.raw(0)
    source = fake_of(argument) if isinstance(argument, fx.Node) else None
    target = fake_of(c.node)
    if not isinstance(source, torch.Tensor) or not isinstance(target, torch.Tensor) or source.device != target.device:
        raise Unreadable("a move between devices")
    return c.b.cast(c.tensor(0), c.out.dtype)


def eval_dropout(c: Call) -> Value:
    """Dropout that is switched off."""
    if c.flag("train") and c.number("p") != 0:
        raise Unreadable("active dropout")
    return c.tensor("input")


# --- shapes -------------------------------------------------------------------------------------------------


def reshape(c: Call) -> Value:
    return reshaped(c, c.tensor(0), c.out.shape)


def reshaped(c: Call, x: Value, shape: tuple[Dim, ...]) -> Value:
    """`x` in another shape, as squeeze and unsqueeze where only axes of size 1 come or go."""
    if x.shape == shape:
        return x
    kept = [d for d in x.shape if d != 1]
    if kept == [d for d in shape if d != 1]:
        bare = c.b.squeeze(x, [i for i, d in enumerate(x.shape) if d == 1])
        return c.b.unsqueeze(bare, [i for i, d in enumerate(shape) if d == 1])
    return c.b.make("reshape", x, shape=shape)


def expand(c: Call) -> Value:
    return c.b.expand(c.tensor(0), c.out.shape)


def broadcast_tensors(c: Call) -> tuple[Value | None, ...]:
    return tuple(c.b.expand(c.read(item), out.shape) for item, out in zip(c.items(0), c.outs, strict=True))


def unsqueeze(c: Call) -> Value:
    x = c.tensor("self")
    return c.b.unsqueeze(x, (c.axis("dim", x.type.rank + 1),))


def squeeze(c: Call) -> Value:
    """Only axes of size 1 go, whichever were asked for."""
    x = c.tensor("self")
    asked = c.axes("dim", x.type.rank) if "dim" in c.names else tuple(range(x.type.rank))
    return c.b.squeeze(x, [a for a in asked if x.shape[a] == 1])


def transposed(c: Call, x: Value, perm: tuple[int, ...]) -> Value:
    return x if perm == tuple(range(len(perm))) else c.b.make("transpose", x, perm=perm)


def permute(c: Call) -> Value:
    x = c.tensor("self")
    perm = tuple(cast(int, i) % x.type.rank for i in c.items("dims"))
    return transposed(c, x, perm)


def swap(c: Call) -> Value:
    """Exchange two axes."""
    x = c.tensor("self")
    if x.type.rank == 0:
        return x
    first, second = c.axis(1, x.type.rank), c.axis(2, x.type.rank)
    perm = list(range(x.type.rank))
    perm[first], perm[second] = second, first
    return transposed(c, x, tuple(perm))


def swap_last(c: Call) -> Value:
    """`.t()`, `.mT`: exchange the last two axes (a matrix) or do nothing (a vector)."""
    x = c.tensor("self")
    rank = x.type.rank
    return x if rank < 2 else transposed(c, x, (*range(rank - 2), rank - 1, rank - 2))


def reverse_axes(c: Call) -> Value:
    x = c.tensor("self")
    return transposed(c, x, tuple(reversed(range(x.type.rank))))


def movedim(c: Call) -> Value:
    x = c.tensor("self")
    rank = x.type.rank
    pairs = [
        ([c.axis(k, rank)] if isinstance(c.raw(k), int) else [cast(int, i) % rank for i in c.items(k)]) for k in (1, 2)
    ]
    source, target = pairs
    rest = iter(a for a in range(rank) if a not in source)
    perm = tuple(source[target.index(i)] if i in target else next(rest) for i in range(rank))
    return transposed(c, x, perm)


# --- ranges of an axis --------------------------------------------------------------------------------------


def sliced(c: Call, x: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
    if (start, step) == (0, 1) and stop == x.shape[axis]:
        return x
    return c.b.make("slice", x, axis=axis, start=start, stop=stop, step=step)


def _bound(position: object, size: Dim, default: Dim) -> Dim:
    """A slice bound in normal form: 0 … size."""
    if position is None or (isinstance(position, int) and position >= _END):
        return default
    if not isinstance(position, int) or not isinstance(size, int):
        raise Unreadable("a slice of a symbolic axis")
    return max(0, min(size, position + size if position < 0 else position))


def slice_range(c: Call) -> Value:
    x = c.tensor("self")
    axis, step = c.axis("dim", x.type.rank), c.integer("step")
    size = x.shape[axis]
    start, stop = c.raw("start"), c.raw("end")
    if start in (None, 0) and step == 1 and (stop is None or (isinstance(stop, int) and stop >= _END)):
        return x
    first, last = _bound(start, size, 0), _bound(stop, size, size)
    if not isinstance(first, int) or not isinstance(last, int):
        raise Unreadable("a slice of a symbolic axis")
    return sliced(c, x, axis, first, max(first, last), step)


def select(c: Call) -> Value:
    x = c.tensor("self")
    axis = c.axis("dim", x.type.rank)
    size, index = c.static("self", axis), c.integer("index")
    index = index + size if index < 0 else index
    return c.b.squeeze(sliced(c, x, axis, index, index + 1), (axis,))


def narrow(c: Call) -> Value:
    x = c.tensor("self")
    axis, start, length = c.axis("dim", x.type.rank), c.integer("start"), c.integer("length")
    start = start + c.static("self", axis) if start < 0 else start
    return sliced(c, x, axis, start, start + length)


def pieces(c: Call) -> tuple[Value | None, ...]:
    """split, chunk and their relatives: consecutive ranges whose sizes PyTorch has already worked out."""
    x = c.tensor("self")
    axis = c.axis("dim", x.type.rank)
    result: list[Value | None] = []
    start = 0
    for out in c.outs:
        size = out.shape[axis]
        if not isinstance(size, int):
            raise Unreadable("a split of a symbolic axis")
        result.append(sliced(c, x, axis, start, start + size))
        start += size
    return tuple(result)


def unbind(c: Call) -> tuple[Value | None, ...]:
    x = c.tensor("self")
    axis = c.axis("dim", x.type.rank)
    size = c.static("self", axis)
    return tuple(c.b.squeeze(sliced(c, x, axis, i, i + 1), (axis,)) for i in range(size))


def glu(c: Call) -> Value:
    x = c.tensor("self")
    axis = c.axis("dim", x.type.rank)
    size = c.static("self", axis)
    left, right = sliced(c, x, axis, 0, size // 2), sliced(c, x, axis, size // 2, size)
    return c.b.make("mul", left, c.b.make("sigmoid", right))


def cat(c: Call) -> Value:
    values = [c.promoted(item, c.out.dtype) for item in c.items(0)]
    return values[0] if len(values) == 1 else c.b.make("concat", *values, axis=c.axis("dim", c.out.rank))


def stack(c: Call) -> Value:
    axis = c.axis("dim", c.out.rank)
    values = [c.b.unsqueeze(c.promoted(item, c.out.dtype), (axis,)) for item in c.items(0)]
    return values[0] if len(values) == 1 else c.b.make("concat", *values, axis=axis)


# --- repetition ----------------------------------------------------------------------------------------------


def repeat(c: Call) -> Value:
    """Repetition of axes of size 1 is an expansion; any other is left alone."""
    x = c.tensor("self")
    lifted = c.b.unsqueeze(x, range(c.out.rank - x.type.rank))
    if any(a != b and a != 1 for a, b in zip(lifted.shape, c.out.shape, strict=True)):
        raise Unreadable("a repetition of more than single entries")
    return c.b.expand(lifted, c.out.shape)


def _rows(row: Row, *keys: str) -> dict[str, Row]:
    return dict.fromkeys(keys, row)


LAYOUT_ROWS: dict[str, Row] = {
    **_rows(
        identity, "alias.default", "contiguous.default", "clone.default", "lift_fresh_copy.default",
        "lift_fresh.default",
        "positive.default", "resolve_conj.default", "resolve_neg.default",
    ),
    **_rows(
        convert, "to.dtype", "to.device", "to.dtype_layout", "to.other", "_to_copy.default", "type_as.default",
    ),
    **_rows(eval_dropout, "dropout.default", "feature_dropout.default", "alpha_dropout.default"),
    **_rows(
        reshape, "view.default", "reshape.default", "_unsafe_view.default", "flatten.using_ints", "unflatten.int",
        "view_as.default", "reshape_as.default", "ravel.default",
    ),
    **_rows(expand, "expand.default", "expand_as.default", "broadcast_to.default"),
    "broadcast_tensors.default": broadcast_tensors,
    "unsqueeze.default": unsqueeze,
    **_rows(squeeze, "squeeze.default", "squeeze.dim", "squeeze.dims"),
    **_rows(permute, "permute.default"),
    **_rows(swap, "transpose.int", "swapaxes.default", "swapdims.default"),
    **_rows(swap_last, "t.default", "mT.default", "adjoint.default", "matrix_H.default"),
    **_rows(reverse_axes, "numpy_T.default"),
    **_rows(movedim, "movedim.int", "movedim.intlist", "moveaxis.int", "moveaxis.intlist"),
    "slice.Tensor": slice_range,
    "select.int": select,
    "narrow.default": narrow,
    **_rows(
        pieces, "split.Tensor", "split.sizes", "split_with_sizes.default", "chunk.default", "tensor_split.sections",
        "tensor_split.indices",
    ),
    "unbind.int": unbind,
    "glu.default": glu,
    **_rows(cat, "cat.default", "concat.default", "concatenate.default"),
    "stack.default": stack,
    **_rows(repeat, "repeat.default", "tile.default"),
}  # fmt: skip

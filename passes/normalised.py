"""Dot products of normalised vectors, which are in [−1, 1] by the inequality of Cauchy and Schwarz.

A length may lie along other axes than it was taken over: the lengths of the rows of a square matrix, not kept, divide
its columns. So a divisor is followed down to the length with a name for each of its axes: that of the vector it meets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias, final

from stabilize.graph.value import Value
from stabilize.passes.scaled import number_of

_SAME = frozenset({"cast", "detach"})
_VIEWS = _SAME | {"unsqueeze", "squeeze", "expand"}

#: The axis of a vector that each axis of what divides it lies along; None for one of size 1.
Names: TypeAlias = tuple[int | None, ...]


@final
@dataclass(frozen=True, slots=True)
class Unit:
    """A vector over its length, or over a number not smaller than that (`guarded`): `value` = vector/`divisor`."""

    value: Value
    divisor: Value
    length: Value
    guarded: bool


def is_cosine(value: Value) -> bool:
    """Whether `value` is Σ a·b of vectors no longer than 1, or Σ a·b over the product of their guarded lengths."""
    match value.op:
        case "sum":
            return units_of(value) is not None
        case "matmul":
            a, b = value.operands
            first, second = unit(a, (a.type.rank - 1,)), unit(b, (max(b.type.rank - 2, 0),))
            return first is not None and second is not None
        case "div":
            return _is_quotient(value)
        case _:
            return False


def averaged_by(value: Value) -> Value | None:
    """a in Σ a·p, where p is a softmax over the axis that is summed: the result is an average of numbers of a."""
    match value.op:
        case "sum" if value.operands[0].op == "mul":
            product = value.operands[0]
            for a, p in (product.operands, product.operands[::-1]):
                if p.shape == product.shape and value.axes == _softmax_axes(p):
                    return a
        case "matmul":
            a, b = value.operands
            if _softmax_axes(a) == (a.type.rank - 1,):
                return b
            if b.type.rank > 1 and _softmax_axes(b) == (b.type.rank - 2,):
                return a
        case _:
            return None
    return None


def _softmax_axes(value: Value) -> tuple[int, ...]:
    return value.axes if value.op == "softmax" else ()


def units_of(total: Value) -> tuple[Unit, Unit] | None:
    """The vectors, no longer than 1, of which `total` is the sum of products."""
    product = total.operands[0]
    if total.op != "sum" or product.op != "mul":
        return None
    a, b = (unit(o, total.axes) if _spans(o, product, total.axes) else None for o in product.operands)
    return None if a is None or b is None else (a, b)


def _spans(part: Value, whole: Value, axes: tuple[int, ...]) -> bool:
    """Whether `part`, broadcast to `whole`, is not repeated along `axes`."""
    return part.type.rank == whole.type.rank and all(part.shape[a] == whole.shape[a] for a in axes)


def unit(value: Value, axes: tuple[int, ...]) -> Unit | None:
    """`value` as a vector along `axes` over a number not smaller than its Euclidean length."""
    source = value
    while source.op in _SAME or (source.op in ("transpose", "unsqueeze") and len(axes) == 1):
        if source.op == "transpose":
            perm = source.attr("perm")
            assert isinstance(perm, tuple)
            axes = (int(str(perm[axes[0]])),)
        if source.op == "unsqueeze":
            axes = (axes[0] - sum(new < axes[0] for new in source.axes),) if axes[0] not in source.axes else ()
        source = source.operands[0]
    for vector, divisor, names in _quotients(source):
        if not _spans(vector, source, axes):
            continue
        parts = _at_least(divisor, names)
        for part, along in parts:
            if _is_length(part, along, vector, axes):
                return Unit(value, divisor, part, guarded=part is not parts[0][0])
    return None


def _quotients(value: Value) -> Iterator[tuple[Value, Value, Names]]:
    """(a, b, names of the axes of b) when value = a/b, or a·(1/b) either way round."""
    names = tuple(range(value.type.rank))
    if value.op == "div":
        a, b = value.operands
        yield a, b, _last(names, b)
    if value.op == "mul":
        for a, inverse in (value.operands, value.operands[::-1]):
            inverse, along = _plain(inverse, _last(names, inverse))
            if inverse.op == "div" and number_of(inverse.operands[0]) == 1:
                yield a, inverse.operands[1], _last(along, inverse.operands[1])


def _is_quotient(value: Value) -> bool:
    """Σ a·b / (‖a‖·‖b‖)."""
    total = _same(value.operands[0])
    if total.op != "sum" or total.operands[0].op != "mul" or total.shape != value.shape:
        return False
    product, axes = total.operands[0], total.axes
    a, b = product.operands
    if not (_spans(a, product, axes) and _spans(b, product, axes)):
        return False
    names = tuple(i for i in range(product.type.rank) if total.attr("keepdim") or i not in axes)
    for lengths, along in _at_least(value.operands[1], _last(names, value.operands[1])):
        if lengths.op == "mul":
            x, y = (_at_least(o, _last(along, o)) for o in lengths.operands)
            for first, second in ((x, y), (y, x)):
                if any(_is_length(*p, a, axes) for p in first) and any(_is_length(*p, b, axes) for p in second):
                    return True
    return False


def _at_least(value: Value, names: Names) -> list[tuple[Value, Names]]:
    """Values that `value` is no smaller than: what a maximum or a positive guard was put on."""
    found, stack = dict[tuple[Value, Names], None](), [(value, names)]
    while stack:
        each, along = _plain(*stack.pop())
        if (each, along) in found:
            continue
        found[each, along] = None
        if each.op == "maximum":
            stack.extend((o, _last(along, o)) for o in each.operands)
        if each.op == "add":
            for a, b in (each.operands, each.operands[::-1]):
                k = number_of(b)
                if k is not None and k >= 0:
                    stack.append((a, _last(along, a)))
    return list(found)


def _is_length(value: Value, names: Names, vector: Value, axes: tuple[int, ...]) -> bool:
    """Whether `value` is √Σ vector² over `axes`, lying along the others; guards may stand under the root."""
    if value.op == "norm":
        return _lies_along(value, names, axes) and _same(value.operands[0]) is _same(vector)
    if value.op != "sqrt":
        return False
    for total, along in _at_least(value.operands[0], names):
        if total.op == "sum" and _lies_along(total, along, axes):
            square = total.operands[0]
            squared = square.op == "mul" and square.operands[0] is square.operands[1]
            squared |= square.op == "pow" and number_of(square.operands[1]) == 2
            if squared and _same(square.operands[0]) is _same(vector):
                return True
    return False


def _lies_along(reduced: Value, names: Names, axes: tuple[int, ...]) -> bool:
    """Whether a reduction over `axes` has its other axes where the vector that it divides has them."""
    others = range(reduced.operands[0].type.rank)
    kept = [i for i in others if reduced.attr("keepdim") or i not in axes]
    met = zip(kept, names, reduced.shape, strict=True)
    return reduced.axes == axes and all(name == i or size == 1 for i, name, size in met)


def _plain(value: Value, names: Names) -> tuple[Value, Names]:
    """`value` without what changes its shape by axes of size 1, or its format; and the names of the axes left."""
    while value.op in _VIEWS:
        source = value.operands[0]
        if value.op == "unsqueeze":
            names = tuple(name for i, name in enumerate(names) if i not in value.axes)
        elif value.op == "squeeze":
            left = iter(names)
            names = tuple(None if i in value.axes else next(left) for i in range(source.type.rank))
        value, names = source, _last(names, source)
    return value, names


def _same(value: Value) -> Value:
    """`value` before changes of its format."""
    while value.op in _SAME:
        value = value.operands[0]
    return value


def _last(names: Names, operand: Value) -> Names:
    """The names of the axes of an operand, which broadcasting lines up from the last."""
    return names[len(names) - operand.type.rank :]

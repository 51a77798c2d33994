"""Dot products of normalised vectors, which are in [−1, 1] by the inequality of Cauchy and Schwarz."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from stabilize.graph.value import Value
from stabilize.passes.scaled import number_of

_VIEWS = frozenset({"unsqueeze", "squeeze", "expand", "cast", "detach"})


@final
@dataclass(frozen=True, slots=True)
class Unit:
    """A vector over (a number not smaller than) its length: `value` = `vector`/`divisor`, `length` = ‖`vector`‖."""

    value: Value
    divisor: Value
    length: Value


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


def units_of(total: Value) -> tuple[Unit, Unit] | None:
    """The vectors, no longer than 1, of which `total` is the sum of products."""
    product = total.operands[0]
    if total.op != "sum" or product.op != "mul":
        return None
    a, b = (unit(o, total.axes) if o.type.rank == product.type.rank else None for o in product.operands)
    return None if a is None or b is None else (a, b)


def unit(value: Value, axes: tuple[int, ...]) -> Unit | None:
    """`value` as a vector along `axes` over a number not smaller than its Euclidean length."""
    source = value
    while source.op in ("cast", "detach") or (source.op in ("transpose", "unsqueeze") and len(axes) == 1):
        if source.op == "transpose":
            perm = source.attr("perm")
            assert isinstance(perm, tuple)
            axes = (int(str(perm[axes[0]])),)
        if source.op == "unsqueeze":
            axes = (axes[0] - sum(new < axes[0] for new in source.axes),) if axes[0] not in source.axes else ()
        source = source.operands[0]
    for vector, divisor in _quotients(source):
        for part in _at_least(divisor):
            if _is_length(part, vector, axes):
                return Unit(value, divisor, part)
    return None


def _quotients(value: Value) -> list[tuple[Value, Value]]:
    """(a, b) when value = a/b, or a·(1/b) either way round."""
    if value.op == "div":
        return [(value.operands[0], value.operands[1])]
    inverses = [(a, _plain(b)) for a, b in (value.operands, value.operands[::-1])] if value.op == "mul" else []
    return [(a, b.operands[1]) for a, b in inverses if b.op == "div" and number_of(b.operands[0]) == 1]


def _is_quotient(value: Value) -> bool:
    """Σ a·b / (‖a‖·‖b‖)."""
    top = _plain(value.operands[0])
    if top.op != "sum" or top.operands[0].op != "mul":
        return False
    a, b = top.operands[0].operands
    for product in _at_least(value.operands[1]):
        if product.op == "mul":
            x, y = (_at_least(o) for o in product.operands)
            for first, second in ((x, y), (y, x)):
                if any(_is_length(p, a, top.axes) for p in first) and any(_is_length(p, b, top.axes) for p in second):
                    return True
    return False


def _at_least(value: Value) -> list[Value]:
    """Values that `value` is no smaller than: what a maximum or a positive guard was put on."""
    found, stack = list[Value](), [value]
    while stack:
        each = _plain(stack.pop())
        found.append(each)
        if each.op == "maximum":
            stack.extend(each.operands)
        if each.op == "add":
            for a, b in (each.operands, each.operands[::-1]):
                k = number_of(b)
                if k is not None and k >= 0:
                    stack.append(a)
    return found


def _is_length(value: Value, vector: Value, axes: tuple[int, ...]) -> bool:
    """Whether `value` is √Σ vector² along `axes` (with or without a guard under the root)."""
    if value.op == "norm":
        return value.axes == axes and _plain(value.operands[0]) is _plain(vector)
    if value.op != "sqrt":
        return False
    for total in _at_least(value.operands[0]):
        if total.op != "sum" or total.axes != axes:
            continue
        square = total.operands[0]
        source = _plain(square.operands[0]) if square.operands else square
        squared = square.op == "mul" and square.operands[0] is square.operands[1]
        if square.op == "pow" and number_of(square.operands[1]) == 2:
            squared = True
        if squared and source is _plain(vector):
            return True
    return False


def _plain(value: Value) -> Value:
    """`value` without what changes its shape by axes of size 1, or its format."""
    while value.op in _VIEWS:
        value = value.operands[0]
    return value

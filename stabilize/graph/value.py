"""Values of the semantic view: immutable, typed, hash-consed.

A `Graph` holds each distinct expression once, so common sub-expressions are merged by construction and
two expressions are equal exactly when they are the same object.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import NamedTuple, TypeAlias, final

from stabilize.formats import is_float

Dim: TypeAlias = int | str
"""A dimension: a size, or the name of a symbolic size."""

Attr: TypeAlias = "bool | int | float | str | tuple[Attr, ...] | None"
"""A parameter of a primitive that is not a value: axes, a target dtype, a constant."""


@final
class TensorType(NamedTuple):
    """dtype (a name from `stabilize.formats`) and shape of a value."""

    dtype: str
    shape: tuple[Dim, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@final
@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """One expression: a primitive, its operands, its attributes. Compared by identity.

    `index` grows with creation inside one graph, so sorting by it is a topological order.
    """

    op: str
    operands: tuple[Value, ...]
    attrs: tuple[tuple[str, Attr], ...]
    type: TensorType
    index: int

    @property
    def dtype(self) -> str:
        return self.type.dtype

    @property
    def shape(self) -> tuple[Dim, ...]:
        return self.type.shape

    def attr(self, name: str) -> Attr:
        """The attribute `name`; KeyError when this primitive has none of that name."""
        for key, value in self.attrs:
            if key == name:
                return value
        raise KeyError(f"{self.op} has no attribute {name!r}")

    @property
    def axes(self) -> tuple[int, ...]:
        """`axes` of a reduction, or the single `axis` as a tuple."""
        for key, value in self.attrs:
            if key == "axes" and isinstance(value, tuple):
                return tuple(a for a in value if isinstance(a, int))
            if key == "axis" and isinstance(value, int):
                return (value,)
        raise KeyError(f"{self.op} has no axes")

    def __repr__(self) -> str:
        attrs = "".join(f", {k}={v}" for k, v in self.attrs)
        return f"%{self.index}={self.op}({', '.join(f'%{o.index}' for o in self.operands)}{attrs}):{self.type}"


_Key: TypeAlias = "tuple[str, tuple[Value, ...], str, TensorType]"


@final
class Graph:
    """A hash-consing store of values. Building is done by `stabilize.graph.build`, which knows the types."""

    def __init__(self) -> None:
        self._values: list[Value] = []
        self._table: dict[_Key, Value] = {}

    def intern(
        self, op: str, operands: tuple[Value, ...], attrs: tuple[tuple[str, Attr], ...], type: TensorType
    ) -> Value:
        """The value of this expression, made if it is new."""
        # repr separates 0.0 from -0.0 and 1 from True, which compare equal as dict keys
        key = (op, operands, repr(attrs), type)
        found = self._table.get(key)
        if found is None:
            found = Value(op, operands, attrs, type, len(self._values))
            self._values.append(found)
            self._table[key] = found
        return found

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Value]:
        return iter(self._values)


def cone(roots: Iterable[Value], leaves: Iterable[Value] = (), above: int = 0) -> list[Value]:
    """Every value that `roots` depend on, themselves included, not going below `leaves` nor to values that are older
    than the one of index `above`; topological order."""
    stop = {leaf.index for leaf in leaves}
    seen: dict[int, Value] = {}
    stack = list(roots)
    while stack:
        value = stack.pop()
        if value.index in seen or value.index < above:
            continue
        seen[value.index] = value
        if value.index not in stop:
            stack.extend(value.operands)
    return [seen[i] for i in sorted(seen)]


def gradient_free(value: Value, known: dict[int, bool] | None = None) -> bool:
    """Whether no gradient can flow through `value`: every path down to an input passes a detach or something discrete.

    Values of a dtype that the view does not know ("other") are taken to carry gradients.
    known: index of a value → the answer, kept between calls on one graph.
    """
    known = {} if known is None else known
    stack = [value]
    while stack:
        each = stack[-1]
        if each.op == "detach" or not (is_float(each.dtype) or each.dtype == "other"):
            known[each.index] = True
        elif each.op == "input":
            known[each.index] = False
        if each.index not in known:
            below = next((o for o in each.operands if known.get(o.index) is not True), None)
            if below is not None and below.index not in known:
                stack.append(below)
                continue
            known[each.index] = below is None
        stack.pop()
    return known[value.index]


def shared_frontier(new: Value, old: Value) -> list[Value]:
    """The values that `old` depends on (itself included) which are met first on the way down from `new`.

    Both ways are walked at once, from the latest value back, and no further than `new` needs: in a large graph the
    cost is that of what lies between them, not of all that is below.
    """
    below_new, below_old = {new.index}, {old.index}
    heap = [(-v.index, v) for v in dict.fromkeys((new, old))]
    heapify(heap)
    found: list[Value] = []
    pending = 1  # values in the heap that `new` depends on
    while pending:
        _, value = heappop(heap)
        wanted, reached = value.index in below_new, value.index in below_old
        pending -= wanted
        if wanted and reached:
            found.append(value)
        for operand in value.operands:
            fresh = operand.index not in below_new and operand.index not in below_old
            if wanted and not reached and operand.index not in below_new:
                below_new.add(operand.index)
                pending += 1
            if reached:
                below_old.add(operand.index)
            if fresh:
                heappush(heap, (-operand.index, operand))
    return found


def latest_first(root: Value, leaves: Container[Value] = ()) -> Iterator[Value]:
    """`root` and what it depends on, lazily, every value before those that it is computed from; not below `leaves`,
    of which `root` is none."""
    heap, seen = [(-root.index, root)], {root.index}
    while heap:
        _, value = heappop(heap)
        yield value
        for operand in value.operands if value is root or value not in leaves else ():
            if operand.index not in seen:
                seen.add(operand.index)
                heappush(heap, (-operand.index, operand))

"""Rebuild a rewrite on small shapes, so that arbitrary precision can judge it.

Every dimension gets a small size, the same for equal dimensions and different for different ones where that is
possible (so that a mix-up of axes cannot hide). Sizes follow through the primitives that relate dimensions:
reshape (products), slice (differences), concat (sums). Dimensions that cannot be followed are a refusal, and the
caller judges at full size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, cast, final

import torch

from stabilize.errors import ShapeError
from stabilize.formats import is_float
from stabilize.graph.build import Builder
from stabilize.graph.value import Attr, Dim, TensorType, Value, cone, gradient_free
from stabilize.verify.execute import torch_dtype

_SMALL: Final = 64
"""Values of at most so many elements are left as they are."""

_PALETTES: Final = {1: (7, 5), 2: (5, 3, 4, 6), 3: (4, 3, 2, 5), 4: (3, 4, 2)}
_SYMBOL_SIZES: Final = (5, 3, 4, 2, 6, 7)
_ENDS: Final = 2


@final
@dataclass(frozen=True, slots=True)
class Problem:
    """Two expressions to compare, closed over leaves of known shape.

    made: index of a value in the graph this was rebuilt from → the value here.
    frozen: the leaves that no gradient is taken by: what they stand for carries none.
    """

    old: Value
    new: Value
    leaves: tuple[Value, ...]
    data: Mapping[Value, torch.Tensor]
    shrunk: bool
    made: Mapping[int, Value]
    frozen: frozenset[Value] = frozenset()


@final
class _RefusedError(Exception):
    """The dimensions of the expressions cannot be made small consistently."""


def shrink(old: Value, new: Value, leaves: Sequence[Value], data: Mapping[Value, torch.Tensor]) -> Problem | None:
    """The same rewrite on small shapes; None when its dimensions cannot be followed."""
    values = cone([old, new], leaves)
    try:
        sizes = _small_sizes(values, old, new, leaves)
        return _rebuild(old, new, leaves, data, sizes)
    except (_RefusedError, ShapeError):
        return None


def full_size(old: Value, new: Value, leaves: Sequence[Value], data: Mapping[Value, torch.Tensor]) -> Problem | None:
    """The same rewrite with its own sizes, small ones for symbols; None when that cannot be built."""
    symbols = sorted({d for v in cone([old, new], leaves) for d in v.shape if isinstance(d, str)})
    sizes: dict[Dim, int] = {s: _SYMBOL_SIZES[i % len(_SYMBOL_SIZES)] for i, s in enumerate(symbols)}
    try:
        return _rebuild(old, new, leaves, data, sizes)
    except (_RefusedError, ShapeError):
        return None


def widen(problem: Problem) -> Problem:
    """The same expressions with every float in float64; `cast` between floats does nothing."""
    wide = _rebuild(problem.old, problem.new, problem.leaves, problem.data, {}, widened=True)
    return replace(wide, frozen=frozenset(wide.made[leaf.index] for leaf in problem.frozen))


# --- choosing sizes ----------------------------------------------------------------------------------------


def _small_sizes(values: Sequence[Value], old: Value, new: Value, leaves: Sequence[Value]) -> dict[Dim, int]:
    dims = list(dict.fromkeys(d for v in values for d in v.shape))
    counts = [_elements(v.shape) for v in values]
    if all(c is not None and c <= _SMALL for c in counts):
        return {}
    sizes: dict[Dim, int] = {d: d for d in _kept(values, old, new, leaves) if isinstance(d, int)}
    relations = [r for v in values for r in _relations(v)]
    derived = {whole for whole, _ in relations}
    rank = max(1, min(4, max(v.type.rank for v in values)))
    # innermost dimensions first: they are the ones that reductions usually run over
    order = sorted((d for d in dims if d not in derived), key=lambda d: -_depth(d, values))
    _assign(order, sizes, _PALETTES[rank])
    for _ in relations:
        for whole, parts in relations:
            if all(_known(p, sizes) for p in parts.dims):
                _settle(whole, parts.value(sizes), sizes)
    _assign([d for d in dims if d in derived], sizes, _PALETTES[rank])
    return sizes


def _elements(shape: Sequence[Dim]) -> int | None:
    count = 1
    for dim in shape:
        if isinstance(dim, str):
            return None
        count *= dim
    return count


def _depth(dim: Dim, values: Sequence[Value]) -> int:
    """How often `dim` is an innermost dimension."""
    return sum(1 for v in values if v.shape and v.shape[-1] == dim)


def _known(dim: Dim, sizes: Mapping[Dim, int]) -> bool:
    return dim in sizes or dim in (0, 1)


def _assign(order: Iterable[Dim], sizes: dict[Dim, int], palette: Sequence[int]) -> None:
    """Give every dimension of `order` a size that no other has, as far as the palette reaches."""
    for dim in order:
        if _known(dim, sizes):
            continue
        taken = set(sizes.values())
        free = [p for p in palette if p not in taken] or [min(palette)]
        own = isinstance(dim, int) and dim <= max(palette) and dim not in taken
        sizes[dim] = cast(int, dim) if own else free[0]


def _settle(dim: Dim, size: int, sizes: dict[Dim, int]) -> None:
    if dim in (0, 1) and size != dim:
        raise _RefusedError
    if size < 1 or sizes.setdefault(dim, size) != size:
        raise _RefusedError


def _kept(values: Sequence[Value], old: Value, new: Value, leaves: Sequence[Value]) -> set[Dim]:
    """Dimensions that must stay: k of a top-k, and sizes that only one of the two expressions divides by."""
    picked: set[Dim] = {cast(int, v.attr("k")) for v in values if v.op in ("topk_values", "topk_indices")}
    before, after = _counted(cone([old], leaves)), _counted(cone([new], leaves))
    first, second = (_elements([d for dims in found for d in dims]) for found in (before, after))
    if before != after and first != second:
        picked |= {d for dims in before ^ after for d in dims}
    return picked


def _counted(values: Sequence[Value]) -> set[tuple[Dim, ...]]:
    """Dimensions whose size enters the numbers, value by value (the n of a mean, the d of 1/√d)."""
    found: set[tuple[Dim, ...]] = set()
    for value in values:
        shape = value.operands[0].shape if value.operands else ()
        dims: list[Dim] = []
        if value.op == "mean":
            dims += [shape[a] for a in value.axes]
        elif value.op in ("layer_norm", "rms_norm"):
            dims += shape[value.axes[0] :]
        elif value.op == "attention" and value.attr("scale") is None:
            dims += shape[-1:]
        elif value.op in ("cross_entropy", "nll_loss", "bce_with_logits"):
            class_axis = min(1, len(shape) - 1) if value.op != "bce_with_logits" else None
            if value.attr("reduction") == "mean":
                dims += [d for axis, d in enumerate(shape) if axis != class_axis]
            if value.op == "cross_entropy" and value.attr("label_smoothing"):
                dims += [d for axis, d in enumerate(shape) if axis == class_axis]
        found.add(tuple(d for d in dims if d != 1))
    return found - {()}


@final
@dataclass(frozen=True, slots=True)
class _Expression:
    """How the size of one dimension follows from others: Π dims + offset, or Σ dims + offset."""

    dims: tuple[Dim, ...]
    offset: int = 0
    is_sum: bool = False

    def value(self, sizes: Mapping[Dim, int]) -> int:
        known = [sizes[d] if d in sizes else cast(int, d) for d in self.dims]
        if self.is_sum:
            return sum(known) + self.offset
        result = 1
        for size in known:
            result *= size
        return result + self.offset


def _relations(value: Value) -> list[tuple[Dim, _Expression]]:
    """Dimensions of `value` (or of its operand) that are determined by others."""
    if value.op == "reshape":
        return _reshape_relations(value.operands[0].shape, value.shape)
    if value.op == "concat":
        axis = value.axes[0]
        return [(value.shape[axis], _Expression(tuple(o.shape[axis] for o in value.operands), is_sum=True))]
    if value.op == "slice":
        axis = value.axes[0]
        before, after = value.operands[0].shape[axis], value.shape[axis]
        if isinstance(before, int) and isinstance(after, int) and before != after and before - after <= 2 * _ENDS:
            return [(after, _Expression((before,), after - before))]
    return []


def _reshape_relations(before: Sequence[Dim], after: Sequence[Dim]) -> list[tuple[Dim, _Expression]]:
    """Match runs of dimensions with equal products; a run against one dimension determines that dimension."""
    found: list[tuple[Dim, _Expression]] = []
    i = j = 0
    left, right = [d for d in before if d != 1], [d for d in after if d != 1]
    while i < len(left) and j < len(right):
        if left[i] == right[j]:
            i, j = i + 1, j + 1
            continue
        run, other = [left[i]], [right[j]]
        i, j = i + 1, j + 1
        while (a := _elements(run)) != (b := _elements(other)):
            if a is None or b is None or (a < b and i == len(left)) or (b < a and j == len(right)):
                raise _RefusedError
            if a < b:
                run.append(left[i])
                i += 1
            else:
                other.append(right[j])
                j += 1
        if len(run) == 1:
            found.append((run[0], _Expression(tuple(other))))
        elif len(other) == 1:
            found.append((other[0], _Expression(tuple(run))))
        else:
            raise _RefusedError
    return found


# --- rebuilding --------------------------------------------------------------------------------------------


def _rebuild(
    old: Value,
    new: Value,
    leaves: Sequence[Value],
    data: Mapping[Value, torch.Tensor],
    sizes: Mapping[Dim, int],
    *,
    widened: bool = False,
) -> Problem:
    made = rebuild([old, new], leaves, sizes, widened=widened)
    small_data: dict[Value, torch.Tensor] = {}
    for leaf, tensor in data.items():
        twin = made[leaf.index]
        part = tensor[tuple(slice(n) for n in cast("tuple[int, ...]", twin.shape))].to(torch_dtype(twin.dtype))
        if tuple(part.shape) != twin.shape:
            raise _RefusedError
        small_data[twin] = part
    ends = tuple(made[leaf.index] for leaf in leaves)
    frozen = frozenset(made[leaf.index] for leaf in leaves if gradient_free(leaf))
    return Problem(made[old.index], made[new.index], ends, small_data, bool(sizes), made, frozen)


def rebuild(
    roots: Sequence[Value], leaves: Sequence[Value], sizes: Mapping[Dim, int], *, widened: bool = False
) -> dict[int, Value]:
    """The cone of `roots` in a graph of its own: index of each value → its twin, with leaves as inputs.

    sizes: what becomes of dimensions; others stay. widened: floats become float64.
    """

    def dtype(name: str) -> str:
        return "float64" if widened and is_float(name) else name

    builder = Builder()
    built: dict[int, Value] = {}
    for position, leaf in enumerate(leaves):
        type = TensorType(dtype(leaf.dtype), _mapped(leaf.shape, sizes))
        # named by position: equal problems from different places have equal texts
        built[leaf.index] = builder.input(f"leaf{position}", type)
    for value in cone(roots, leaves):
        if value.index in built:
            continue
        attrs = {name: _mapped_attr(value, name, attr, sizes) for name, attr in value.attrs}
        if "dtype" in attrs:
            attrs["dtype"] = dtype(cast(str, attrs["dtype"]))
        twin = builder.make(value.op, *(built[o.index] for o in value.operands), **attrs)
        if twin.shape != _mapped(value.shape, sizes):
            raise _RefusedError
        built[value.index] = twin
    return built


def _mapped(shape: Sequence[Dim], sizes: Mapping[Dim, int]) -> tuple[Dim, ...]:
    return tuple(sizes.get(d, d) for d in shape)


def _mapped_attr(value: Value, name: str, attr: Attr, sizes: Mapping[Dim, int]) -> Attr:
    """An attribute that names sizes, in small sizes."""
    if name == "shape":
        return _mapped(cast("tuple[Dim, ...]", attr), sizes)
    if name in ("size", "classes"):
        return sizes.get(cast(Dim, attr), cast(Dim, attr))
    if value.op == "slice" and name in ("start", "stop"):
        return _mapped_bound(value, cast(int, attr), sizes)
    return attr


def _mapped_bound(value: Value, bound: int, sizes: Mapping[Dim, int]) -> int:
    """A slice bound counted from the nearer end of the axis."""
    size = value.operands[0].shape[value.axes[0]]
    small = sizes.get(size, size)
    if not isinstance(size, int) or not isinstance(small, int):
        raise _RefusedError
    if size == small or bound <= _ENDS:
        return bound
    if size - bound <= _ENDS:
        return small - (size - bound)
    raise _RefusedError

"""The log-domain algebra of linear forms: lse, logaddexp, max, views; and forms turned back into values.

Canonical choices that make equal functions equal objects:
- what is constant along the axes of a log-sum-exp or a maximum leaves it (this cancels every max-shift);
- `logsumexp` and `max` atoms keep their axes as size 1;
- logaddexp(a, b) = b + softplus(a − b), with the softplus oriented so that its first coefficient is positive;
- a widening cast is the identity on reals and is not seen; views distribute over the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import final

from stabilize.errors import ShapeError
from stabilize.formats import FORMATS
from stabilize.graph.build import Builder, constant_along, element_count
from stabilize.graph.value import Dim, Value
from stabilize.passes.linear import Linear, ln, softplus

_VIEWS = frozenset({"unsqueeze", "squeeze", "transpose", "slice", "gather", "reshape"})


def wider(dtypes: Sequence[str]) -> str:
    """The format that holds every one of `dtypes`."""
    names = set(dtypes)
    if names == {"float16", "bfloat16"}:
        return "float32"
    return max(names, key=lambda n: FORMATS[n].precision)


@final
class Algebra:
    """Operations on linear forms over one graph. Forms carry no shape: callers pass the shape they stand for."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        # direct additive expressions the host already computes, so that their rounding is kept
        self._known: dict[Linear, Value] = {}

        self._known_up_to_a_number: dict[tuple[tuple[Value, Fraction], ...], Value] = {}

    def remember(self, form: Linear, value: Value) -> None:
        self._known.setdefault(form, value)
        self._known_up_to_a_number.setdefault(form.terms, value)

    def known_up_to_a_number(self, form: Linear) -> Value | None:
        """The host's own direct expression of `form` plus some number: as good where a shift does not matter."""
        return self._known.get(form) or self._known_up_to_a_number.get(form.terms)

    def known(self, form: Linear) -> Value | None:
        """The host's own direct expression of `form`, if it has one."""
        return self._known.get(form)

    # --- from forms to values -------------------------------------------------------------------------------

    def materialise(self, form: Linear, dtype: str, shape: Sequence[Dim] | None = None) -> Value:
        """A value of `dtype` that computes `form`; of at least `shape` when that is given."""
        value = self._sum(form, dtype)
        if shape is not None and value.shape != tuple(shape):
            value = self.builder.expand(value, tuple(shape))
        return value

    def _sum(self, form: Linear, dtype: str) -> Value:
        b = self.builder
        known = self._known.get(form)
        if known is not None and known.dtype == dtype:
            return known
        if not form.terms:
            return b.constant(float(form.constant), dtype)
        ordered = sorted(form.terms, key=lambda t: (t[1] < 0, t[0].index))
        total: Value | None = None
        for atom, k in ordered:
            total = self._accumulate(total, b.cast(atom, dtype), k)
        assert total is not None
        if form.constant:
            op = "add" if form.constant > 0 else "sub"
            total = b.apply(op, total, abs(form.constant))
        return total

    def _accumulate(self, total: Value | None, atom: Value, k: Fraction) -> Value:
        b = self.builder
        if total is None:
            return self.times(atom, k)
        return b.apply("add" if k > 0 else "sub", total, self.times(atom, abs(k)))

    def times(self, atom: Value, k: Fraction) -> Value:
        """k·atom, dividing when only 1/k is a floating-point number (so that x/3 stays x/3)."""
        if k == 1:
            return atom
        if k == -1:
            return self.builder.neg(atom)
        if Fraction(float(k)) != k and Fraction(float(1 / k)) == 1 / k:
            return self.builder.apply("div", atom, 1 / k)
        return self.builder.apply("mul", atom, k)

    # --- axes -------------------------------------------------------------------------------------------------

    def pull(self, form: Linear, axes: Sequence[int], rank: int) -> tuple[Linear, Linear]:
        """(terms that vary along `axes`, terms that do not, with the constant)."""
        return form.split([a for a in form.atoms if not constant_along(a, axes, rank)])

    def lse(self, form: Linear, axes: Sequence[int], shape: Sequence[Dim]) -> Linear | None:
        """ln Σ exp(form) over `axes` of a value of `shape`, axes kept. None when a size is not known."""
        axes = tuple(sorted(axes))
        if not axes:
            return form
        varying, fixed = self.pull(form, axes, len(shape))
        count = element_count(shape, [a for a in axes if self._flat(varying, a, shape)])
        if count is None or count == 0:
            return None
        fixed = fixed + Linear.number(ln(Fraction(count)))
        axes = tuple(a for a in axes if not self._flat(varying, a, shape))
        if not varying.terms:
            return fixed
        inner = varying.single
        if inner is not None and inner.type.rank == len(shape):
            nested = self._nested(inner, axes)
            if nested is not None:
                return fixed + Linear.of(nested)
        operand = self._aligned(self.materialise(varying, self.dtype_of(varying)), len(shape))
        return fixed + Linear.of(self._reduced("logsumexp", operand, axes))

    def _reduced(self, op: str, operand: Value, axes: tuple[int, ...]) -> Value:
        """A reduction that keeps its axes, with inserted size-1 axes taken outside."""
        inserted = operand.axes if operand.op == "unsqueeze" else ()
        if not inserted or set(inserted) & set(axes):
            return self.builder.reduce(op, operand, axes)
        kept = [i for i in range(operand.type.rank) if i not in inserted]
        inner = self.builder.reduce(op, operand.operands[0], [kept.index(a) for a in axes])
        return self.builder.unsqueeze(inner, inserted)

    def _nested(self, inner: Value, axes: tuple[int, ...]) -> Value | None:
        """lse over `axes` of an lse (squeezed or not) as one lse over all of them."""
        if inner.op == "logsumexp":
            return self.builder.reduce("logsumexp", inner.operands[0], {*axes, *inner.axes})
        if inner.op == "squeeze" and inner.operands[0].op == "logsumexp":
            kept = [i for i in range(inner.operands[0].type.rank) if i not in inner.axes]
            whole = self._nested(inner.operands[0], tuple(kept[a] for a in axes))
            return None if whole is None else self.builder.squeeze(whole, inner.axes)
        return None

    def _flat(self, form: Linear, axis: int, shape: Sequence[Dim]) -> bool:
        """Whether `form` is constant along one axis that has more than one element."""
        return all(constant_along(a, (axis,), len(shape)) for a in form.atoms)

    def max(self, form: Linear, axes: Sequence[int], shape: Sequence[Dim]) -> Linear:
        """max over `axes`, kept; a positive scale and what is constant along the axes leave it."""
        varying, fixed = self.pull(form, axes, len(shape))
        if not varying.terms:
            return fixed
        scale = abs(varying.terms[0][1])
        operand = self._aligned(self.materialise(varying.scale(1 / scale), self.dtype_of(varying)), len(shape))
        return fixed + Linear.of(self._reduced("max", operand, tuple(sorted(axes)))).scale(scale)

    def topk(self, form: Linear, value: Value) -> Linear | None:
        """The values chosen by the top-k `value`, applied to a form of its operand's shape."""
        (axis,) = value.axes
        varying, fixed = self.pull(form, (axis,), value.type.rank)
        if not varying.terms:
            return None
        operand = self.materialise(varying, self.dtype_of(varying), value.operands[0].shape)
        return fixed + Linear.of(self.builder.make("topk_values", operand, **dict(value.attrs)))

    def scan(self, op: str, form: Linear, axis: int, shape: Sequence[Dim]) -> Linear:
        """logcumsumexp, with what is constant along the axis pulled out."""
        varying, fixed = self.pull(form, (axis,), len(shape))
        operand = self.materialise(varying, self.dtype_of(varying), shape)
        return fixed + Linear.of(self.builder.make(op, operand, axis=axis))

    def dtype_of(self, form: Linear) -> str:
        return wider([a.dtype for a in form.atoms]) if form.terms else "float32"

    def _aligned(self, value: Value, rank: int) -> Value:
        return self.builder.unsqueeze(value, range(rank - value.type.rank))

    # --- two terms ----------------------------------------------------------------------------------------------

    def softplus(self, form: Linear) -> Linear:
        """ln(1 + e^form), oriented: softplus(−d) = softplus(d) − d."""
        if not form.terms:
            return Linear.number(softplus(form.constant))
        if form.terms[0][1] < 0:
            return form + self.softplus(form.scale(Fraction(-1)))
        return Linear.of(self.builder.make("softplus", self.materialise(form, self.dtype_of(form))))

    def logaddexp(self, a: Linear, b: Linear) -> Linear:
        return b + self.softplus(a - b)

    # --- views ----------------------------------------------------------------------------------------------------

    def view(self, form: Linear, value: Value) -> Linear | None:
        """The form of `value`, a view whose operand has `form`; None when the view does not distribute."""
        source = value.operands[0]
        terms: list[tuple[Value, Fraction]] = []
        for atom, k in form.terms:
            moved = self._view_atom(atom, source.shape, value)
            if moved is None:
                return None
            terms.append((moved, k))
        return Linear.collect(terms, form.constant)

    def _view_atom(self, atom: Value, shape: Sequence[Dim], view: Value) -> Value | None:
        b, rank = self.builder, len(shape)
        if view.op == "expand":
            return atom
        atom = self._aligned(atom, rank)
        try:
            match view.op:
                case "unsqueeze":
                    return b.unsqueeze(atom, view.axes)
                case "squeeze":
                    return b.squeeze(atom, view.axes)
                case "transpose":
                    return b.make("transpose", atom, **dict(view.attrs))
                case "slice":
                    flat = constant_along(atom, view.axes, rank)
                    return atom if flat else b.make("slice", atom, **dict(view.attrs))
                case "gather":
                    return self._gather_atom(atom, shape, view)
                case "reshape" if self._reduces_last(atom, shape, view):
                    moved = b.make("reshape", atom.operands[0], shape=view.shape)
                    return b.reduce(atom.op, moved, (view.type.rank - 1,))
                case "reshape":
                    target = reshaped(atom.shape, tuple(shape), view.shape)
                    return None if target is None else b.make("reshape", atom, shape=target)
                case _:
                    return None
        except ShapeError:
            return None

    def _reduces_last(self, atom: Value, shape: Sequence[Dim], view: Value) -> bool:
        """A reduction of the last axis, which the reshape keeps: it then reduces the reshaped operand."""
        return (
            atom.op in ("logsumexp", "max")
            and atom.axes == (len(shape) - 1,)
            and atom.operands[0].shape == tuple(shape)
            and view.type.rank > 0
            and view.shape[-1] == shape[-1]
        )

    def _gather_atom(self, atom: Value, shape: Sequence[Dim], view: Value) -> Value | None:
        (axis,) = view.axes
        index = view.operands[1]
        others = [i for i in range(len(shape)) if i != axis]
        if any(index.shape[i] != shape[i] for i in others):
            return None
        if constant_along(atom, (axis,), len(shape)):
            return atom
        return self.builder.make("gather", self.builder.expand(atom, tuple(shape)), index, axis=axis)


def reshaped(atom: tuple[Dim, ...], source: tuple[Dim, ...], target: tuple[Dim, ...]) -> tuple[Dim, ...] | None:
    """The shape of an atom that broadcasts to `source` when `source` is reshaped to `target`.

    Axes are matched in groups of equal element count; within a group the atom must be whole or constant.
    """
    if atom == source:
        return target
    result: list[Dim] = []
    i = j = 0
    while i < len(source) or j < len(target):
        a, b = i + 1, j + 1
        while source[i:a] != target[j:b]:
            left, right = (element_count(x, range(len(x))) for x in (source[i:a], target[j:b]))
            if left is None or right is None or left == right or (a >= len(source) and b >= len(target)):
                break
            a, b = (a + 1, b) if left < right and a < len(source) else (a, b + 1)
        group, wanted = source[i:a], target[j:b]
        counts = element_count(group, range(len(group))), element_count(wanted, range(len(wanted)))
        if group != wanted and (None in counts or counts[0] != counts[1]):
            return None
        if atom[i:a] == group:
            result += wanted
        elif all(d == 1 for d in atom[i:a]):
            result += [1] * len(wanted)
        else:
            return None
        i, j = a, b
    return tuple(result)


def is_view(value: Value) -> bool:
    return value.op in _VIEWS

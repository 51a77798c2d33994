"""Sums of exponentials of different kinds: Σ_k exp(x_k) + eᴷ, eᵃ + eᵇ + eᶜ, or the larger of such parts.

A guard ε is a part with the exponent ln ε; a softmax with such a guard is a ratio over a mixture. All parts are shifted
by one common maximum M, finite as soon as one part is a number, so that fully masked rows stay what they were and
no gradient is inf − inf. A part that is a single exponent enters log1p through expm1, so that log(1 + Σeˣ) keeps
its small values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias, final

from stabilize.formats import FORMATS
from stabilize.graph.build import constant_along
from stabilize.graph.value import Value
from stabilize.passes.linear import Linear
from stabilize.passes.scaled import Engine

#: (form, dtype) → value
Build: TypeAlias = Callable[[Linear, str], Value]


@final
@dataclass(frozen=True, slots=True)
class Total:
    """Σ exp(inner) over kept `axes`, `squeezed` afterwards."""

    inner: Linear
    axes: tuple[int, ...]
    squeezed: tuple[int, ...]


@final
@dataclass(frozen=True, slots=True)
class Part:
    """exp(offset) times a product of totals (of none: a single exponent)."""

    offset: Linear
    totals: tuple[Total, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class Mixture:
    """The parts, and how they are put together: "add" or "maximum"."""

    parts: tuple[Part, ...]
    combine: str = "add"

    @property
    def worthwhile(self) -> bool:
        """Whether no plainer operator (logaddexp, sigmoid) does as well."""
        reduced = any(p.totals for p in self.parts)
        return reduced or (self.combine == "add" and len(self.parts) > 2)


#: More summands than this are not taken apart: sums of sums of … grow without end, and no operator is found for them.
_MOST_SUMMANDS = 16


def summands(engine: Engine, form: Linear) -> list[Linear]:
    """`form` = ln Σ exp(sᵢ): the sᵢ, found by undoing logaddexp(a, b) = a + softplus(b − a)."""
    pending, found = [form], list[Linear]()
    while pending:
        if len(pending) + len(found) > _MOST_SUMMANDS:
            return [form]
        each = pending.pop()
        atom = next((a for a, k in reversed(each.terms) if a.op == "softplus" and k == 1), None)
        if atom is None:
            found.append(each)
            continue
        first = each - Linear.of(atom)
        pending += [first + engine.linear(atom.operands[0]), first]
    return found


def common_shift(numerator: Linear, forms: Sequence[Linear]) -> Linear:
    """What to add to all, so that no atom stands with a negative coefficient and the numerator has no constant."""
    least: dict[Value, Fraction] = {}
    for form in (numerator, *forms):
        for atom, k in form.terms:
            if k < 0:
                least[atom] = min(least.get(atom, Fraction(0)), k)
    return Linear.collect([(a, -k) for a, k in least.items()], -numerator.constant)


def part_of(engine: Engine, form: Linear) -> Part:
    """`form` as an exponent and the log-sum-exps beside it; a factor that varies along a sum stays inside it."""
    totals: list[Total] = []
    offset = form
    for atom, k in form.terms:
        lse, squeezed = _base(atom)
        rest = [a for a in form.atoms if a is not atom]
        if lse is None or k != 1:
            continue
        if squeezed or all(constant_along(a, lse.axes, atom.type.rank) for a in rest):
            totals.append(Total(engine.linear(lse.operands[0]), lse.axes, squeezed))
            offset = offset - Linear.of(atom)
    return Part(offset, tuple(totals))


def _base(atom: Value) -> tuple[Value | None, tuple[int, ...]]:
    """The log-sum-exp behind an atom, and the axes squeezed from it."""
    if atom.op == "logsumexp":
        return atom, ()
    if atom.op == "squeeze" and atom.operands[0].op == "logsumexp":
        return atom.operands[0], atom.axes
    return None, ()


@final
class MixtureEmitter:
    """Emits mixtures in one format. `build` makes an exponent, `operand` the argument of a reduction."""

    def __init__(self, engine: Engine, build: Build, operand: Build, dtype: str) -> None:
        self.engine, self.builder = engine, engine.builder
        self.build, self.operand, self.dtype = build, operand, dtype

    def log(self, mixture: Mixture) -> Value:
        """ln of the mixture: M + log1p(rest + expm1(s − M)) with a single exponent s, else M + log(total)."""
        b = self.builder
        top = self.top(mixture)
        single = next((p for p in mixture.parts if not p.totals), None)
        if single is None or mixture.combine != "add":
            return b.make("add", top, b.make("log", self.total(mixture, top)))
        excess = b.make("expm1", b.make("sub", self.build(single.offset, self.dtype), top))
        for part in mixture.parts:
            if part is not single:
                excess = b.make("add", self._exponential(part, top), excess)
        return b.make("add", top, b.make("log1p", excess))

    def ratio(self, numerator: Linear, mixture: Mixture) -> Value:
        """exp(numerator) / mixture."""
        b = self.builder
        top = self.top(mixture)
        shifted = b.make("sub", self.operand(numerator, self.dtype), top)
        return b.make("div", b.make("exp", shifted), self.total(mixture, top))

    def log_ratio(self, numerator: Linear, mixture: Mixture) -> Value:
        """numerator − ln mixture."""
        b = self.builder
        top = self.top(mixture)
        shifted = b.make("sub", self.operand(numerator, self.dtype), top)
        return b.make("sub", shifted, b.make("log", self.total(mixture, top)))

    def top(self, mixture: Mixture) -> Value:
        """The largest exponent of all, kept finite."""
        b, limit = self.builder, FORMATS[self.dtype].max
        tops = [self._largest(p) for p in mixture.parts if not _is_number(p)]
        top = tops[0]
        for other in tops[1:]:
            top = b.make("maximum", top, other)
        numbers = [float(p.offset.constant) for p in mixture.parts if _is_number(p)]
        top = b.apply("maximum", top, max(numbers, default=-limit))
        return b.make("detach", b.apply("minimum", top, limit))

    def total(self, mixture: Mixture, top: Value) -> Value:
        values = [self._exponential(p, top) for p in mixture.parts]
        total = values[0]
        for value in values[1:]:
            total = self.builder.make(mixture.combine, total, value)
        self.engine.normalised.add(total)
        return total

    def _largest(self, part: Part) -> Value:
        value: Value | None = None
        for total in part.totals:
            largest = self.builder.reduce("max", self.operand(total.inner, self.dtype), total.axes)
            largest = self.builder.squeeze(largest, total.squeezed)
            value = largest if value is None else self.builder.make("add", value, largest)
        return self.build(part.offset, self.dtype) if value is None else self._plus(value, part.offset)

    def _exponential(self, part: Part, top: Value) -> Value:
        """The part divided by exp(top)."""
        b = self.builder
        if len(part.totals) == 1:
            (only,) = part.totals
            shift = self._plus(top, part.offset.scale(Fraction(-1)))
            if only.squeezed or constant_along(shift, only.axes, shift.type.rank):
                return self._sum(only, shift)
        exponent = b.neg(top) if part.offset.is_zero else b.make("sub", self.build(part.offset, self.dtype), top)
        value: Value | None = None
        for total in part.totals:
            shift = b.squeeze(b.reduce("max", self.operand(total.inner, self.dtype), total.axes), total.squeezed)
            shift = b.make("detach", b.apply("maximum", shift, -FORMATS[self.dtype].max))
            exponent = b.make("add", exponent, shift)
            summed = self._sum(total, shift)
            value = summed if value is None else b.make("mul", value, summed)
        scale = b.make("exp", exponent)
        return scale if value is None else b.make("mul", value, scale)

    def _sum(self, total: Total, shift: Value) -> Value:
        """Σ exp(inner − shift), where `shift` has the shape of the result."""
        b = self.builder
        inner = self.operand(total.inner, self.dtype)
        if total.squeezed:
            shift = b.unsqueeze(shift, total.squeezed)
        summed = b.reduce("sum", b.make("exp", b.make("sub", inner, shift)), total.axes)
        return b.squeeze(summed, total.squeezed)

    def _plus(self, value: Value, offset: Linear) -> Value:
        if offset.is_zero:
            return value
        if not offset.terms:
            return self.builder.apply("add", value, offset.constant)
        return self.builder.make("add", value, self.build(offset, self.dtype))


def _is_number(part: Part) -> bool:
    return not part.totals and not part.offset.terms

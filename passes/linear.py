"""Linear forms: Σ kᵢ·atomᵢ + k₀ with exact coefficients. The exponent of a scaled value is one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import final

from stabilize.graph.value import Value

ZERO = Fraction(0)
ONE = Fraction(1)


@final
@dataclass(frozen=True, slots=True)
class Linear:
    """Σ coefficient·atom + constant. Atoms are values of one graph, kept in order of their index."""

    terms: tuple[tuple[Value, Fraction], ...] = ()
    constant: Fraction = ZERO

    @staticmethod
    def of(atom: Value) -> Linear:
        return Linear(((atom, ONE),))

    @staticmethod
    def number(k: Fraction) -> Linear:
        return Linear((), k)

    @staticmethod
    def collect(terms: Iterable[tuple[Value, Fraction]], constant: Fraction = ZERO) -> Linear:
        """Merge equal atoms and drop those that cancel."""
        total: dict[Value, tuple[Value, Fraction]] = {}
        for atom, k in terms:
            key = _element(atom)
            known = total.get(key)
            total[key] = (atom, k) if known is None else (known[0], known[1] + k)
        kept = sorted(((a, k) for a, k in total.values() if k), key=lambda term: term[0].index)
        return Linear(tuple(kept), constant)

    def __add__(self, other: Linear) -> Linear:
        constant = (
            self.constant + other.constant if self.constant and other.constant else self.constant or other.constant
        )
        if not other.terms:
            return Linear(self.terms, constant)
        if not self.terms:
            return Linear(other.terms, constant)
        return Linear.collect(self.terms + other.terms, constant)

    def __sub__(self, other: Linear) -> Linear:
        return self + -other

    def __neg__(self) -> Linear:
        return Linear(tuple((a, -c) for a, c in self.terms), -self.constant)

    def without(self, atom: Value) -> Linear:
        """The form less its term over `atom`."""
        return Linear(tuple(t for t in self.terms if t[0] is not atom), self.constant)

    def scale(self, k: Fraction) -> Linear:
        if k == 1:
            return self
        if k == -1:
            return -self
        if not k:
            return Linear()
        return Linear(tuple((a, c * k) for a, c in self.terms), self.constant * k)

    def coefficient(self, atom: Value) -> Fraction:
        for a, k in self.terms:
            if a is atom:
                return k
        return ZERO

    @property
    def is_zero(self) -> bool:
        return not self.terms and not self.constant

    @property
    def atoms(self) -> tuple[Value, ...]:
        return tuple(a for a, _ in self.terms)

    @property
    def single(self) -> Value | None:
        """The atom, when the form is one atom with coefficient 1."""
        if len(self.terms) == 1 and not self.constant and self.terms[0][1] == 1:
            return self.terms[0][0]
        return None

    def lifted(self) -> Linear:
        """The same form with numbers (e.sum(), of all axes) in the rank they were computed in, if some atom has it."""
        rank = max((a.type.rank for a in self.atoms), default=0)
        lifted = [(e if (e := _element(a)).type.rank <= rank else a, k) for a, k in self.terms]
        return self if tuple(a for a, _ in lifted) == self.atoms else Linear.collect(lifted, self.constant)

    def split(self, keep: Iterable[Value]) -> tuple[Linear, Linear]:
        """(the terms over `keep`, everything else with the constant)."""
        chosen = set(keep)
        inside = tuple(t for t in self.terms if t[0] in chosen)
        outside = tuple(t for t in self.terms if t[0] not in chosen)
        return Linear(inside), Linear(outside, self.constant)


def _element(atom: Value) -> Value:
    """What an atom of one element is a view of: m and squeeze(m) are the same number to every form."""
    if atom.op in ("squeeze", "unsqueeze") and all(d == 1 for d in atom.shape):
        return _element(atom.operands[0])
    return atom


NOTHING = Linear()

"""Linear forms: Σ kᵢ·atomᵢ + k₀ with exact coefficients. The exponent of a scaled value is one."""

from __future__ import annotations

import decimal
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
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

    def __hash__(self) -> int:
        """Of numerators and denominators: a Fraction hashes as an equal float does, and takes several times as long."""
        return hash((tuple([(a, k.as_integer_ratio()) for a, k in self.terms]), self.constant.as_integer_ratio()))

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
            total[key] = (atom, k) if known is None else (known[0], _sum(known[1], k))
        kept = sorted(((a, k) for a, k in total.values() if k), key=lambda term: term[0].index)
        return Linear(tuple(kept), constant)

    def __add__(self, other: Linear) -> Linear:
        constant = _sum(self.constant, other.constant)
        if not other.terms:
            return Linear(self.terms, constant)
        if not self.terms:
            return Linear(other.terms, constant)
        return Linear.collect(self.terms + other.terms, constant)

    def __sub__(self, other: Linear) -> Linear:
        return self + -other

    def __neg__(self) -> Linear:
        return Linear(tuple([(a, -c) for a, c in self.terms]), -self.constant)

    def without(self, atom: Value) -> Linear:
        """The form less its term over `atom`."""
        return Linear(tuple([t for t in self.terms if t[0] is not atom]), self.constant)

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
        return tuple([a for a, _ in self.terms])

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


@functools.lru_cache(maxsize=1024)
def ln(k: Fraction) -> Fraction:
    """The logarithm of a positive number, to more digits than any sum of a few loses."""
    with decimal.localcontext(prec=_DIGITS):
        return Fraction((Decimal(k.numerator) / k.denominator).ln())


@functools.lru_cache(maxsize=1024)
def softplus(k: Fraction) -> Fraction:
    """ln(1 + eᵏ), as close."""
    if abs(k) > 1000:
        return max(k, ZERO)
    with decimal.localcontext(prec=_DIGITS):
        return Fraction((1 + (Decimal(k.numerator) / k.denominator).exp()).ln())


_DIGITS = 60
#: Divides the denominators of what was made above, and of no number of a model.
_MARK = 5**25


def _sum(a: Fraction, b: Fraction) -> Fraction:
    """a + b, and 0 where all that is left is how a logarithm was rounded, here or as a number of the graph.

    Else ln ε − ln 2 would differ from ln(ε/2), and a constant that was written to the graph from itself.
    """
    if not (a and b):
        return a or b
    total = a + b
    if not total.denominator % _MARK and abs(total) <= abs(a) * _ROUNDING:
        return ZERO
    return total


_ROUNDING = Fraction(1, 2**52)


def _element(atom: Value) -> Value:
    """What an atom of one element is a view of: m and squeeze(m) are the same number to every form."""
    if atom.op in ("squeeze", "unsqueeze") and all(d == 1 for d in atom.shape):
        return _element(atom.operands[0])
    return atom


NOTHING = Linear()

"""Small polynomials in values of a graph: what sums of products mean, however they are spelled.

(x + 1)·(x + 1) − x·x, x² + 2x + 1 − x², 1 + 2·x are one polynomial. A monomial is a sorted tuple of values;
coefficients are exact. Reading is bounded: what would have too many terms, or lies too deep, is a value like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias, final

from stabilize.formats import is_float
from stabilize.graph.build import Builder
from stabilize.graph.value import Value
from stabilize.passes.linear import ONE
from stabilize.passes.scaled import number_of

_MOST_TERMS = 8
_MOST_FACTORS = 4
_DEPTH = 6

Monomial: TypeAlias = tuple[Value, ...]


@final
@dataclass(frozen=True)
class Polynomial:
    """Σ coefficient·Π values, no coefficient 0."""

    terms: Mapping[Monomial, Fraction]

    @staticmethod
    def collect(terms: Iterable[tuple[Monomial, Fraction]]) -> Polynomial:
        total: dict[Monomial, Fraction] = {}
        for monomial, k in terms:
            key = tuple(sorted(monomial, key=lambda v: v.index)) if len(monomial) > 1 else monomial
            total[key] = total[key] + k if key in total else k
        return Polynomial({m: k for m, k in total.items() if k})

    @staticmethod
    def of(value: Value) -> Polynomial:
        return Polynomial({(value,): ONE})

    def __add__(self, other: Polynomial) -> Polynomial:
        return Polynomial.collect([*self.terms.items(), *other.terms.items()])

    def __sub__(self, other: Polynomial) -> Polynomial:
        return self + other.scale(Fraction(-1))

    def __mul__(self, other: Polynomial) -> Polynomial:
        return Polynomial.collect((a + b, k * m) for a, k in self.terms.items() for b, m in other.terms.items())

    def scale(self, k: Fraction) -> Polynomial:
        """k times the polynomial, k not 0."""
        return Polynomial({m: c * k for m, c in self.terms.items()})

    @property
    def number(self) -> Fraction | None:
        """The number that the polynomial is, if it is one."""
        if not self.terms:
            return Fraction(0)
        return self.terms.get(()) if len(self.terms) == 1 else None

    @property
    def small(self) -> bool:
        return len(self.terms) <= _MOST_TERMS and all(len(m) <= _MOST_FACTORS for m in self.terms)


def polynomial(value: Value, depth: int = _DEPTH) -> Polynomial:
    """`value` as a polynomial."""
    k = number_of(value)
    if k is not None:
        return Polynomial({(): k} if k else {})
    found = _expanded(value, depth) if depth and is_float(value.dtype) else None
    return found if found is not None and found.small else Polynomial.of(value)


def _expanded(value: Value, depth: int) -> Polynomial | None:
    parts = [polynomial(o, depth - 1) for o in value.operands] if value.op in _ARITHMETIC else []
    match value.op:
        case "add":
            return parts[0] + parts[1]
        case "sub":
            return parts[0] - parts[1]
        case "neg":
            return parts[0].scale(Fraction(-1))
        case "mul":
            return parts[0] * parts[1]
        case "div":
            divisor = parts[1].number
            return parts[0].scale(1 / divisor) if divisor else None
        case "pow":
            power = parts[1].number
            return parts[0] * parts[0] if power == 2 else None
        case _:
            return None


_ARITHMETIC = frozenset({"add", "sub", "neg", "mul", "div", "pow"})


def materialise(builder: Builder, form: Polynomial, dtype: str) -> Value:
    """A value of `dtype` that computes the polynomial, which is not 0: what is added before what is taken off."""
    first, *others = sorted(form.terms.items(), key=lambda t: (t[1] < 0, [v.index for v in t[0]]))
    total = _term(builder, *first, dtype)
    for monomial, k in others:
        total = builder.make("add" if k > 0 else "sub", total, _term(builder, monomial, abs(k), dtype))
    return total


def _term(builder: Builder, monomial: Monomial, k: Fraction, dtype: str) -> Value:
    if not monomial:
        return builder.constant(float(k), dtype)
    product = builder.cast(monomial[0], dtype)
    for factor in monomial[1:]:
        product = builder.make("mul", product, builder.cast(factor, dtype))
    if k == -1:
        return builder.neg(product)
    return product if k == 1 else builder.apply("mul", product, k)

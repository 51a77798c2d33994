"""Linear forms: exact coefficients, equal atoms merged, what cancels gone."""

from __future__ import annotations

from fractions import Fraction

import pytest

from stabilize.passes.linear import NOTHING, Linear, ln, softplus
from tests.passes.graphs import graph

VALUES = graph("return x, z, w, O, squeeze(O, axes=(0, 1)), unsqueeze(O, axes=(0,))").outputs
X, Z, W, ONE, SQUEEZED, UNSQUEEZED = VALUES
HALF = Fraction(1, 2)


def form(*terms, constant=0):
    return Linear(tuple((v, Fraction(k)) for v, k in terms), Fraction(constant))


def test_atoms_stand_in_the_order_of_the_graph():
    assert Linear.collect([(Z, Fraction(1)), (X, Fraction(2))]) == form((X, 2), (Z, 1))


def test_equal_atoms_are_merged_and_what_cancels_is_dropped():
    assert Linear.collect([(X, Fraction(1)), (Z, Fraction(1)), (X, HALF)]) == form((X, Fraction(3, 2)), (Z, 1))
    assert Linear.collect([(X, Fraction(1)), (Z, Fraction(1)), (X, Fraction(-1))]) == form((Z, 1))


def test_views_of_one_element_are_one_atom():
    """The first to be met is kept."""
    assert (Linear.of(ONE) - Linear.of(SQUEEZED)).is_zero
    assert (Linear.of(ONE) - Linear.of(UNSQUEEZED)).is_zero
    assert Linear.of(UNSQUEEZED) + Linear.of(ONE) == form((UNSQUEEZED, 2))


@pytest.mark.parametrize(
    ("a", "b", "total"),
    [
        (form((X, 1), constant=2), form((Z, 1), constant=3), form((X, 1), (Z, 1), constant=5)),
        (form((X, 1), constant=2), form(constant=3), form((X, 1), constant=5)),
        (form(constant=2), form((X, 1), constant=3), form((X, 1), constant=5)),
        (form(constant=2), form(constant=3), form(constant=5)),
        (form((X, 2)), form((X, -2)), NOTHING),
    ],
)
def test_sums(a, b, total):
    assert a + b == total
    assert total - b == a


def test_scaling():
    two = form((X, 2), (Z, -1), constant=3)
    assert two.scale(Fraction(1)) is two
    assert two.scale(HALF) == form((X, 1), (Z, -HALF), constant=Fraction(3, 2))
    assert two.scale(Fraction(0)) == NOTHING


def test_parts():
    both = form((X, 2), (Z, -1), constant=3)
    assert both.coefficient(Z) == -1
    assert both.coefficient(X) == 2
    assert both.coefficient(W) == 0
    assert both.atoms == (X, Z)
    assert both.split([X, W]) == (form((X, 2)), form((Z, -1), constant=3))
    assert Linear.number(HALF) == form(constant=HALF)


def test_what_is_one_atom():
    assert Linear.of(X).single is X
    assert form((X, 2)).single is None
    assert form((X, 1), constant=1).single is None
    assert form((X, 1), (Z, 1)).single is None
    assert NOTHING.single is None


def test_what_is_zero():
    assert NOTHING.is_zero
    assert not form(constant=1).is_zero
    assert not Linear.of(X).is_zero


def test_without_an_atom():
    assert form((X, 2), (Z, -1), constant=3).without(X) == form((Z, -1), constant=3)
    assert form((X, 2), constant=3).without(Z) == form((X, 2), constant=3)


def test_one_number_is_lifted_to_the_rank_it_was_computed_in():
    beside = form((X, 2), (SQUEEZED, -1), constant=3)
    assert beside.lifted() == form((X, 2), (ONE, -1), constant=3)
    alone = form((SQUEEZED, 2), constant=3)
    assert alone.lifted() is alone  # no atom has that rank
    assert form((X, 1), (Z, 1)).lifted() == form((X, 1), (Z, 1))
    assert Linear().lifted() == Linear()


def test_logarithms_cancel_as_far_as_they_are_rounded() -> None:
    def number(k: Fraction) -> Linear:
        return Linear.number(k)

    small = ln(Fraction(1, 3**13))
    assert (number(ln(Fraction(6))) - number(ln(Fraction(2))) - number(ln(Fraction(3)))).is_zero
    assert (number(small) - number(Fraction(float(small)))).is_zero  # a constant of the graph
    assert (number(Fraction(float(small))) - number(small)).is_zero
    assert not (number(small) - number(ln(Fraction(1, 3**13) * (1 + Fraction(1, 2**40))))).is_zero
    assert number(softplus(Fraction(0))) == number(ln(Fraction(2)))


def test_numbers_of_the_model_are_exact() -> None:
    big = Fraction(2) ** 80
    assert (Linear.number(big + 1) - Linear.number(big)).constant == 1
    assert (Linear.number(Fraction(0.1)) - Linear.number(Fraction(1, 10))).constant != 0

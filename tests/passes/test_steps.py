"""Searches end, and all of them together cost no more than their number allows."""

from __future__ import annotations

import pytest

from stabilize.passes.steps import Steps
from tests.passes.graphs import Options, Outcome


def _taken(steps: Steps, wish: int) -> int:
    """Steps that a search for `wish` of them gets."""
    with steps:
        for done in range(wish):
            if steps.spent:
                return done
            steps.take()
    return wish


def test_a_search_may_take_its_own_steps_and_some_spare_ones() -> None:
    steps = Steps(own=2, spare=100, most=10)
    assert _taken(steps, 1000) == 12
    assert _taken(steps, 5) == 5


def test_together_searches_take_what_there_is() -> None:
    steps = Steps(own=2, spare=20, most=10)
    assert [_taken(steps, 1000) for _ in range(4)] == [12, 12, 2, 2]


def test_what_a_search_leaves_goes_to_later_ones() -> None:
    steps = Steps(own=2, spare=0, most=10)
    assert [_taken(steps, wish) for wish in (1, 0, 1, 1000)] == [1, 0, 1, 6]


def test_a_search_inside_another_has_steps_of_its_own() -> None:
    steps = Steps(own=1, spare=0, most=10)
    with steps:
        steps.take()
        assert steps.spent
        assert _taken(steps, 1000) == 1
        assert steps.spent


def test_a_search_that_fails_gives_back_what_it_has() -> None:
    steps = Steps(own=0, spare=7, most=10)
    with pytest.raises(KeyError), steps:
        raise KeyError
    assert _taken(steps, 1000) == 7


def test_a_search_that_took_more_owes_nothing() -> None:
    """The last steps of a search that is over, on its way out."""
    steps = Steps(own=1, spare=3, most=10)
    with steps:
        for _ in range(9):
            steps.take()
    assert _taken(steps, 1000) == 1


def _looked_at(monkeypatch: pytest.MonkeyPatch, height: int) -> int:
    """Forms that ranges and emission look at for fractions inside each other, 1/(1/(… + eᶻ) + eᶻ)."""
    count = 0

    def take(self: Steps) -> None:
        nonlocal count
        count += 1
        plain(self)

    plain = Steps.take
    lines = ["e = exp(z)", "f0 = add(exp(x), e)"]
    lines += [f"f{i + 1} = add(div(1.0, f{i}), e)" for i in range(height)]
    with monkeypatch.context() as patched:
        patched.setattr(Steps, "take", take)
        Outcome("\n".join([*lines, f"return log(f{height})"]), Options())
    return count


@pytest.mark.parametrize("height", [10, 20])
def test_towers_of_fractions_cost_no_more_than_there_is(monkeypatch: pytest.MonkeyPatch, height: int) -> None:
    """Without a common account they take 15 000 and more."""
    assert 1000 < _looked_at(monkeypatch, height) < 4000

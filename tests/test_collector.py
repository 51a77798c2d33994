"""The garbage collector is as it was after a rewrite, and is left alone where somebody else looks after it."""

from __future__ import annotations

import gc
from collections.abc import Generator

import pytest

from stabilize.collector import only_new_objects


@pytest.fixture(autouse=True)
def _as_it_was() -> Generator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def test_collections_are_rare_and_skip_what_was_there() -> None:
    gc.set_threshold(700, 10, 10)
    with only_new_objects():
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold() == (20_000, 10, 10)
    assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == (700, 10, 10)


def test_an_error_changes_nothing_either() -> None:
    gc.set_threshold(700, 10, 10)
    with pytest.raises(KeyError), only_new_objects():
        raise KeyError
    assert (gc.get_freeze_count(), gc.get_threshold()) == (0, (700, 10, 10))


def test_rarer_collections_stay_as_rare() -> None:
    gc.set_threshold(50_000, 20, 5)
    with only_new_objects():
        assert gc.get_threshold() == (50_000, 20, 5)
    assert gc.get_threshold() == (50_000, 20, 5)


def test_objects_that_somebody_froze_stay_frozen() -> None:
    gc.freeze()
    before = gc.get_threshold()
    with only_new_objects():
        assert gc.get_threshold() == before
    assert gc.get_freeze_count() > 0


def test_a_collector_that_was_turned_off_stays_off() -> None:
    gc.set_threshold(0)
    with only_new_objects():
        assert gc.get_threshold()[0] == 0
        assert gc.get_freeze_count() == 0
    assert gc.get_threshold()[0] == 0

"""Nodes are given back as long as the model stays accurate."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from stabilize.conversion.widen import widened


@pytest.mark.parametrize("guilty", [{0}, {7}, {3, 4}, {0, 31}, set(range(32))])
def test_what_is_found_is_enough_and_not_everything(guilty: set[int]) -> None:
    asked: list[Collection[int]] = []

    def accepted(wide: Collection[int]) -> bool:
        asked.append(wide)
        return guilty <= set(wide)

    wide, trials = widened(range(32), accepted)
    assert guilty <= wide
    assert trials == len(asked) <= 40
    if len(guilty) < 3:
        assert len(wide) <= 4


def test_the_work_is_bounded() -> None:
    wide, trials = widened(range(5000), lambda _: False)
    assert wide == set(range(5000))
    assert trials <= 40

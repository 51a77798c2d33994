"""What counts as harm where the original gave no number."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from flint import arb

from stabilize.verify.judge import judge_values


def _harm(before: float, after: float, exact: float, allowed: float) -> str | None:
    truth = np.array([arb(exact)], dtype=object)
    tensors = (torch.tensor([x], dtype=torch.float16) for x in (before, after))
    return judge_values(*tensors, truth, np.array([allowed]), None).harm


@pytest.mark.parametrize("before", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("after", "allowed", "right"),
    [
        (0.51, 0.02, True),  # within the bound
        (0.51, 0.001, True),  # within 64 of it
        (0.6, 0.001, False),
        (0.0, 0.02, False),  # within 64 of a bound that is loose in half precision: no number at all
        (0.54, 0.02, False),
        (0.0, 0.5, True),  # the bound itself says nothing
        (math.nan, 0.02, True),  # as it was
        (math.inf, 0.02, True),
    ],
)
def test_a_number_in_place_of_none_is_right(before: float, after: float, allowed: float, right: bool) -> None:
    assert (_harm(before, after, 0.5, allowed) is None) is right


def test_a_result_beyond_float64_is_known_not_to_be_a_number() -> None:
    truth = np.array([arb(2) ** 5000], dtype=object)
    before, after = (torch.tensor([x], dtype=torch.float16) for x in (math.nan, 1.0))
    assert judge_values(before, after, truth, np.array([1.0]), None).harm is not None

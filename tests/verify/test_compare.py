"""Error measures at the places where they are easy to get wrong: subnormals, overflow, NaN and infinities."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from flint import arb

from stabilize.formats import FORMATS
from stabilize.verify.compare import errors_of
from stabilize.verify.execute import torch_dtype
from stabilize.verify.oracle_rules import OracleArray
from stabilize.verify.reals import UNKNOWN, Scalar


def _exact(*numbers: Scalar) -> OracleArray:
    result: OracleArray = np.empty(len(numbers), dtype=object)
    result[:] = list(numbers)
    return result


@pytest.mark.parametrize("name", FORMATS)
def test_one_ulp_is_the_spacing_at_the_true_value(name: str) -> None:
    fmt = FORMATS[name]
    for true in (1.0, fmt.min_normal, fmt.tiny, 2.0 * (1 - fmt.u)):
        neighbour = true + fmt.spacing(true)
        errors = errors_of(torch.tensor([neighbour], dtype=torch_dtype(name)), _exact(arb(true)))
        assert errors.ulps.tolist() == [1.0]
        assert errors.absolute.tolist() == [fmt.spacing(true)]


@pytest.mark.parametrize("name", FORMATS)
def test_overflow(name: str) -> None:
    fmt = FORMATS[name]
    huge, below = arb(fmt.max) * 4, arb(fmt.max) / 4
    infinity = torch.tensor([math.inf] * 3, dtype=torch_dtype(name))
    errors = errors_of(infinity, _exact(huge, -huge, below))
    assert errors.ulps.tolist() == [0.0, math.inf, math.inf]
    largest = torch.tensor([fmt.max], dtype=torch_dtype(name))
    assert errors_of(largest, _exact(arb(fmt.max))).ulps.tolist() == [0.0]
    # one step before the end of the format, infinity is the next number
    assert errors_of(infinity[:1], _exact(arb(fmt.max))).ulps.tolist() == [1.0]


def test_classes_must_agree() -> None:
    nan, inf = math.nan, math.inf
    computed = torch.tensor([nan, nan, inf, inf, -inf, 1.0, nan])
    errors = errors_of(computed, _exact(nan, arb(1), inf, nan, inf, nan, -inf))
    assert errors.ulps.tolist() == [0.0, inf, 0.0, inf, inf, inf, inf]
    assert errors.confused == 5


def test_what_the_oracle_does_not_know_is_not_judged() -> None:
    errors = errors_of(torch.tensor([1.0, 2.0]), _exact(UNKNOWN, arb(2)))
    assert errors.known.tolist() == [False, True]
    assert math.isnan(errors.ulps[0])
    assert errors.worst_index() == (1,)


def test_a_true_zero_is_measured_in_subnormals() -> None:
    errors = errors_of(torch.tensor([1e-45, 0.0]), _exact(arb(0), arb(0)))
    assert errors.ulps.tolist() == [1.0, 0.0]


def test_integers_are_equal_or_wrong() -> None:
    exact: OracleArray = np.empty(3, dtype=object)
    exact[:] = [1, True, 0]
    assert errors_of(torch.tensor([1, 1, 1]), exact).ulps.tolist() == [0.0, 0.0, math.inf]


def test_against_float64_what_is_not_finite_is_not_known() -> None:
    errors = errors_of(torch.tensor([1.0, 1.0, math.nan, math.inf]), np.array([1.0, math.nan, 2.0, 1e300]))
    assert errors.known.tolist() == [True, False, True, True]
    assert errors.ulps[[0, 2, 3]].tolist() == [0.0, math.inf, 0.0]

"""The experiment of Blanchard, Higham & Higham (IMA J. Numer. Anal. 41(4), 2021, section 6), to the digit.

Their data: the inputs to the softmax layer of a network that classifies 2500 handwritten digits, ten per row
(tests/data, BSD-2-Clause). Their protocol, in float16: every operation is rounded, sums run left to right, and the
shifted algorithms leave the maximum out of the sum s and return m + log1p(s). Errors are taken over the rows in which
the basic log-sum-exp does not overflow: relative for log-sum-exp, in the ∞-norm of a row for softmax.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
import scipy.io
import torch

import stabilize

Half: TypeAlias = npt.NDArray[np.float16]
Double: TypeAlias = npt.NDArray[np.float64]

DATA = Path(__file__).parent / "data" / "bhh_presoftmax.mat"

#: Unit roundoff of float16 with the digits that the paper prints (2⁻¹¹ = 4.8828e-4 gives 2.71 for 2.72 below).
U = 4.88e-4


def _rounded(exact: npt.NDArray[Any]) -> Half:
    with np.errstate(over="ignore"):
        return exact.astype(np.float16)


def _exp(x: Half) -> Half:
    return _rounded(np.exp(x.astype(np.float64)))


def _left_to_right(terms: Half) -> Half:
    total = np.zeros(len(terms), dtype=np.float16)
    for column in terms.T:
        total = _rounded(total.astype(np.float64) + column)
    return total


@dataclass(frozen=True)
class Golden:
    """The data in float16, the exact answers for it, and the four algorithms."""

    x: Half
    lse: Double
    softmax: Double
    basic_lse: Half
    shifted_lse: Half
    softmaxes: dict[str, Half]


@pytest.fixture(scope="module")
def golden() -> Golden:
    x = _rounded(_data())
    exact = x.astype(np.float64)
    peak = exact.max(axis=1)
    lse = peak + np.log(np.exp(exact - peak[:, None]).sum(axis=1))

    e = _exp(x)
    total = _left_to_right(e)
    basic_lse = _rounded(np.log(total.astype(np.float64)))

    w = _exp(_rounded(exact - peak[:, None]))
    rest = w.copy()
    rest[np.arange(len(x)), x.argmax(axis=1)] = 0
    s = _left_to_right(rest).astype(np.float64)
    shifted_lse = _rounded(peak + _rounded(np.log1p(s)))
    with np.errstate(invalid="ignore"):
        softmaxes = {
            "basic": _rounded(e.astype(np.float64) / total[:, None]),
            "shifted": _rounded(w.astype(np.float64) / _rounded(1 + s)[:, None]),
            "exp(x - y), basic": _exp(_rounded(exact - basic_lse[:, None])),
            "exp(x - y), shifted": _exp(_rounded(exact - shifted_lse[:, None])),
        }
    return Golden(x, lse, np.exp(exact - lse[:, None]), basic_lse, shifted_lse, softmaxes)


def _data() -> Double:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the file names one variable twice; it is not the one read here
        logits: Double = scipy.io.loadmat(str(DATA), variable_names=["softmat"])["softmat"].T
    assert logits.shape == (2500, 10)
    return logits


def test_the_basic_log_sum_exp_overflows(golden: Golden) -> None:
    assert int(np.isinf(golden.basic_lse).sum()) == 475


def test_the_log_sum_exps_mostly_agree_and_their_errors_do_not_differ_much(golden: Golden) -> None:
    sound = np.isfinite(golden.basic_lse)
    assert int(sound.sum()) == 2025
    assert int((golden.basic_lse == golden.shifted_lse)[sound].sum()) == 1863
    basic, shifted = (np.abs(y.astype(np.float64) - golden.lse)[sound] for y in (golden.basic_lse, golden.shifted_lse))
    ratio = basic / shifted
    assert f"{ratio.min():.3f} {ratio.max():.2f} {ratio.mean():.3f}" == "0.191 59.03 1.068"


@pytest.mark.parametrize(
    ("algorithm", "median", "worst"),
    [
        ("basic", "0.58", "4.7"),
        ("shifted", "0.49", "2.1"),
        ("exp(x - y), basic", "2.77", "10.3"),
        ("exp(x - y), shifted", "2.72", "8.3"),
    ],
)
def test_errors_of_softmax(golden: Golden, algorithm: str, median: str, worst: str) -> None:
    sound = np.isfinite(golden.basic_lse)
    gaps = np.abs(golden.softmaxes[algorithm].astype(np.float64) - golden.softmax)[sound]
    errors = gaps.max(axis=1) / golden.softmax[sound].max(axis=1) / U
    assert f"{np.median(errors):.2f}" == median
    assert f"{errors.max():.1f}" == worst


class Naive(torch.nn.Module):
    """Log-sum-exp, softmax and log-softmax as they are written by hand."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        e = torch.exp(x)
        total = e.sum(dim=1, keepdim=True)
        return torch.log(total), e / total, torch.log(e / total)


def test_the_optimised_graph_overflows_nowhere(golden: Golden) -> None:
    x = torch.from_numpy(golden.x)
    naive = Naive()
    overflowed = ~torch.isfinite(naive(x)[0]).flatten()
    assert int(overflowed.sum()) > 400
    fixed = stabilize.optimize(naive, (x,))
    lse, softmax, log_softmax = fixed(x)
    for result in (lse, softmax, log_softmax):
        assert result.dtype == torch.float16
        assert int((~torch.isfinite(result)).any(dim=1).sum()) == 0
    errors = np.abs(softmax.double().numpy() - golden.softmax).max(axis=1) / golden.softmax.max(axis=1) / U
    # no worse than the best of the published algorithms
    assert np.median(errors) <= 0.49
    assert errors.max() <= 2.1
    assert float((np.abs(lse.double().numpy()[:, 0] - golden.lse) / np.abs(golden.lse)).max()) <= 1.01 * U

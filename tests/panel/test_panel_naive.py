"""The panel itself: large enough, no entry fake (each naive formula really breaks), and an oracle that is right."""

from __future__ import annotations

from collections import Counter

import mpmath
import numpy as np
import pytest
import torch
from mpmath import mp

from tests.panel import hosts
from tests.panel import oracle as O
from tests.panel.entry import Spelling
from tests.panel.judge import expected, judge
from tests.panel.measure import DTYPES, outcomes, truth
from tests.panel.spellings import BY_NAME, SPELLINGS


def test_size_and_names() -> None:
    assert len(SPELLINGS) >= 250
    assert len(BY_NAME) == len(SPELLINGS)
    assert sum(e.exact for e in SPELLINGS) >= 120
    assert sum(e.loss for e in SPELLINGS) >= 60
    assert len(Counter(e.family for e in SPELLINGS)) >= 15


@pytest.mark.parametrize("entry", SPELLINGS, ids=lambda e: e.name)
def test_naive_breaks(entry: Spelling) -> None:
    """Not finite, zero, or over 1000 ulps off, in at least one format, where the oracle has a representable value."""
    for dtype in DTYPES:
        if any(o.verdict.broken for o in outcomes(entry, dtype, "fx", entry.fn, gradients=True)):
            return
    pytest.fail("the naive formula is right on every input of the panel")


@pytest.mark.parametrize("entry", SPELLINGS, ids=lambda e: e.name)
def test_oracle_agrees_with_the_formula_in_float64(entry: Spelling) -> None:
    """On benign numbers the naive formula in float64 is what the oracle says: they mean the same function."""
    inputs, _ = truth(entry, "benign", "float32", "fx")
    exact = tuple(t.double() if t.is_floating_point() else t for t in inputs)
    with torch.no_grad():
        value = entry.fn(*exact)
    loose = expected(entry, inputs, "float32", "fx")
    wide = judge(value.to(torch.float32), loose)
    assert wide.ok, wide.detail


def _row(*numbers: float) -> O.Array:
    return O.array([mpmath.mpf(n) for n in numbers])


@pytest.mark.parametrize("row", [(0.0, 1.0, -2.0), (1000.0, 999.5, -1000.0), (-800.0, -800.0, -1e4), (3.0,)])
def test_oracle_log_softmax_is_the_definition(row: tuple[float, ...]) -> None:
    with mp.workprec(40_000):
        literal = [mpmath.log(mpmath.exp(v) / sum(mpmath.exp(w) for w in row)) for v in map(mpmath.mpf, row)]
        with O.arithmetic(torch.float64):
            stable = O.log_softmax(_row(*row))
            summed = O.lse(_row(*row))
        for got, want in zip(stable, literal, strict=True):
            assert abs(got - want) <= abs(want) * mpmath.mpf(2) ** -240
        want = mpmath.log(sum(mpmath.exp(v) for v in map(mpmath.mpf, row)))
        assert abs(summed - want) <= mpmath.mpf(2) ** -240 * 1000


def test_oracle_on_the_extended_reals() -> None:
    inf = mpmath.inf
    with O.arithmetic(torch.float64):
        assert list(O.softmax(_row(0, -inf, 0))) == [0.5, 0, 0.5]
        assert all(mpmath.isnan(v) for v in O.softmax(_row(-inf, -inf)))
        assert all(mpmath.isnan(v) for v in O.log_softmax(_row(0.0, mpmath.nan)))
        assert O.lse(_row(-inf, -inf)).item() == -inf
        assert O.lse(_row(0, inf)).item() == inf
        assert O.log(_row(0)).item() == -inf
        assert mpmath.isnan(O.log(_row(-1)).item())
        assert [float(v) for v in O.softplus(_row(-1e4, 1e4, -inf, inf))] == [0.0, 1e4, 0.0, inf]


def test_oracle_gradient_is_p_minus_one_hot() -> None:
    x = np.stack([_row(0, 2, -60), _row(700, -700, 1)])
    y = np.array([2, 0])
    with O.arithmetic(torch.float64, 1800):
        got = O.gradient(lambda a: O.cross_entropy(a, y), [x], 0, 1800)
        p = O.softmax(x)
        p[[0, 1], y] -= 1
        assert all(abs(a - b) < mpmath.mpf(2) ** -1100 for a, b in zip(got.flat, p.flat, strict=True))


def test_literals_follow_their_host() -> None:
    with O.arithmetic(torch.float16):
        assert O.const(1e-9) == 0
        assert O.const(0.1) == mpmath.mpf(torch.tensor(0.1, dtype=torch.float16).item())
    with O.arithmetic(torch.float64):
        assert O.const(1e-9) == mpmath.mpf(1e-9)


def test_retargeting_leaves_no_float32_behind() -> None:
    entry = BY_NAME["expectation/soft_argmax"]
    model = hosts.retargeted(hosts.exported(entry), "float64")
    kinds = {info.type.tensor_type.elem_type for info in [*model.graph.input, *model.graph.output]}
    assert kinds == {hosts.ONNX_TYPES["float64"]}
    inputs, want = truth(entry, "benign", "float64", "onnx")
    assert judge(hosts.run_onnx(model, inputs, "float64"), want).ok

"""Every spelling, optimised, is finite and within the stated bound of the oracle, on PyTorch and on ONNX.

By default each spelling is judged in one format on PyTorch and a third of them in one format on ONNX, chosen by a hash
of the name; the whole cross product is marked slow and is what `benchmarks/spellings.py --full` prints.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import pytest

import stabilize
from tests.panel import hosts
from tests.panel.entry import Spelling
from tests.panel.measure import DTYPES, failures, outcomes, share
from tests.panel.spellings import SPELLINGS


def _allow(entry: Spelling) -> str:
    return "exact" if entry.exact else "approximate"


def _cases(host: str) -> Iterator[object]:
    for entry in SPELLINGS:
        if host == "onnx" and not entry.exportable:
            continue
        for i, dtype in enumerate(DTYPES):
            default = share(entry, 4, host) == i and (host == "fx" or share(entry, 3) == 0)
            marks = () if default else (pytest.mark.slow,)
            yield pytest.param(entry, dtype, id=f"{entry.name}-{dtype}", marks=marks)


@pytest.mark.parametrize(("entry", "dtype"), list(_cases("fx")))
def test_pytorch(entry: Spelling, dtype: str) -> None:
    module = hosts.Spelled(entry).eval()
    fixed, report = stabilize.optimize(module, hosts.example(entry, dtype), allow=_allow(entry), return_report=True)
    bad = failures(outcomes(entry, dtype, "fx", fixed, gradients=True))
    if dtype in entry.unrepaired:
        assert bad
        assert report.declined
        return
    assert not bad, "\n".join([*map(str, bad), str(report)])


@pytest.mark.parametrize(("entry", "dtype"), list(_cases("onnx")))
def test_onnx(entry: Spelling, dtype: str) -> None:
    naive = hosts.retargeted(hosts.exported(entry), dtype)
    fixed, report = stabilize.optimize(naive, allow=_allow(entry), return_report=True)
    onnx.checker.check_model(fixed, full_check=True)
    bad = failures(outcomes(entry, dtype, "onnx", hosts.runner(fixed, dtype)))
    if dtype in entry.unrepaired:
        assert bad
        assert report.declined
        return
    assert not bad, "\n".join([*map(str, bad), str(report)])

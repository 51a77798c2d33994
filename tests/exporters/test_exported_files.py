"""Files that were exported already, by any exporter: what is wrong in them is found, repaired, certified, and right in
ONNX Runtime against float64; what is one edit away comes back as it was."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor
from torch.nn import functional as F

import stabilize
from stabilize.cli.optimize import _without_a_fix
from tests.exporters.written import HEALTHY, TOLD, WRITTEN, Feeds, Written
from tests.frontends.onnx_support import run


def fixed(proto: onnx.ModelProto, codes: tuple[str, ...], allow: str = "exact") -> onnx.ModelProto:
    """Rewritten by these rules, each rewrite certified; valid, and nothing left to do."""
    result, report = stabilize.optimize(proto, allow=allow, return_report=True)
    assert tuple(r.code for r in report.rewrites) == codes, str(report)
    assert report.declined == []
    for rewrite in report.rewrites:
        assert rewrite.certificate is not None
        assert rewrite.certificate.accepted
    onnx.checker.check_model(result, full_check=True)
    assert stabilize.optimize(result, allow=allow).SerializeToString() == result.SerializeToString()
    return result


def plainly(proto: onnx.ModelProto, feeds: Feeds) -> list[np.ndarray]:
    """Every operator in the format that the file says."""
    with np.errstate(all="ignore"):
        return list(ReferenceEvaluator(proto).run(None, dict(feeds)))


def check(written: Written, result: onnx.ModelProto) -> None:
    """In ONNX Runtime: the rewritten model is right where the original is not."""
    exact = {n: torch.tensor(a).double() if a.dtype.kind == "f" else torch.tensor(a) for n, a in written.feeds.items()}
    truth = written.truth(*exact.values()).numpy()
    after = run(result, written.feeds)[0].astype(np.float64)
    np.testing.assert_allclose(after, truth, rtol=written.rtol, atol=max(written.atol, 2.0**-149))
    before = (plainly if written.widened else run)(written.model(), written.feeds)[0].astype(np.float64)
    assert not np.allclose(before, truth, rtol=written.rtol, atol=max(written.atol, 2.0**-149))


@pytest.mark.parametrize("name", WRITTEN)
def test_found_repaired_and_right_in_the_runtime(name: str) -> None:
    written = WRITTEN[name]
    check(written, fixed(written.model(), written.codes, written.allow))


@pytest.mark.parametrize("name", [n for n, w in WRITTEN.items() if w.near])
def test_one_edit_away_it_comes_back_byte_for_byte(name: str) -> None:
    written = WRITTEN[name]
    proto = written.model(near=True)
    onnx.checker.check_model(proto, full_check=True)
    result, report = stabilize.optimize(proto, allow=written.allow, return_report=True)
    assert [r.code for r in report.rewrites] == []
    assert result.SerializeToString() == proto.SerializeToString()


@pytest.mark.parametrize("name", TOLD)
def test_what_no_rewrite_may_decide_is_told_and_left(name: str) -> None:
    written, code = TOLD[name]
    proto = written.model()
    assert stabilize.optimize(proto).SerializeToString() == proto.SerializeToString()
    findings = stabilize.lint(proto, budget=5).findings
    assert code in {f.code for f in findings}
    assert not any(f.fixable for f in findings)
    near = stabilize.lint(written.model(near=True), budget=5).findings
    assert code not in {f.code for f in near}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_files_stay_and_nothing_is_said(name: str) -> None:
    proto = Written(HEALTHY[name], (), {}, torch.clone, None).model()
    onnx.checker.check_model(proto, full_check=True)
    result, report = stabilize.optimize(proto, return_report=True)
    assert (report.rewrites, report.declined, _without_a_fix(report)) == ([], [], [])
    assert result.SerializeToString() == proto.SerializeToString()
    assert [f.code for f in stabilize.lint(proto, budget=2).findings if f.severity != "info"] == []


# --- both exporters of PyTorch ----------------------------------------------------------------------------------------


def legacy(module: torch.nn.Module, x: Tensor) -> onnx.ModelProto:
    """The exporter of TorchScript."""
    file = io.BytesIO()
    torch.onnx.export(module, (x,), file, dynamo=False, opset_version=17)
    return onnx.load_from_string(file.getvalue())


def dynamo(module: torch.nn.Module, x: Tensor) -> onnx.ModelProto:
    program = torch.onnx.export(module, (x,), dynamo=True, verbose=False)
    assert program is not None
    return program.model_proto


LINE = torch.tensor([[-200.0, -90.0, -20.0, -17.0, -1e-9, 0.0, 1e-9, 17.0, 90.0, 200.0]])
SPREAD = torch.tensor([[1e4 + k / 8 for k in range(8)]])
BOTH = (legacy, dynamo)


def by_moments(x: Tensor) -> Tensor:
    """Layer norm with E[x²] − E[x]²."""
    mean, square = x.mean(-1, keepdim=True), (x * x).mean(-1, keepdim=True)
    return (x - mean) / (square - mean * mean + 1e-5).sqrt()


#: name → exporters that have it, function, input that breaks what they write, rules, relative error.
TORCH: dict[str, tuple[tuple[Callable[..., onnx.ModelProto], ...], Callable[[Tensor], Tensor], Tensor, str, float]] = {
    "logsigmoid": (BOTH, F.logsigmoid, LINE, "STB202", 2e-6),
    "logaddexp": ((dynamo,), lambda x: torch.logaddexp(x, -x - 1), LINE, "STB105", 2e-6),
    "log1p": (BOTH, torch.log1p, LINE.abs() / 1e4, "STB210", 2e-6),
    "expm1": ((dynamo,), torch.expm1, LINE / 1e4, "STB211", 2e-6),
    "erfc": ((dynamo,), torch.erfc, torch.tensor([[-1.0, 1.0, 5.0, 9.0]]), "STB219", 2e-6),
    "logcumsumexp": ((dynamo,), lambda x: x.logcumsumexp(-1), -LINE.flip(1) * 3, "STB106", 2e-6),
    "binary cross-entropy": (
        (dynamo,), lambda x: F.binary_cross_entropy_with_logits(x, 0 * x + 1, reduction="none"), LINE, "STB105", 2e-6
    ),
    "exponentials over their sum": (BOTH, lambda x: x.exp() / x.exp().sum(1, keepdim=True), LINE, "STB101", 2e-5),
    "log of a softmax of channels": (BOTH, lambda x: x.softmax(0).log(), LINE.T.contiguous(), "STB102", 2e-6),
    "variance by moments": (
        BOTH, by_moments, SPREAD, "STB403", 1e-4
    ),
    "RMS norm in float16": (
        BOTH, lambda x: x / (x.pow(2).mean(-1, keepdim=True) + 1e-4).sqrt(), LINE.half() * 5, "STB403", 2e-3
    ),
}  # fmt: skip

CASES = [(name, exporter) for name, (exporters, *_) in TORCH.items() for exporter in exporters]


@pytest.mark.parametrize(("name", "exporter"), CASES, ids=lambda case: getattr(case, "__name__", case))
@pytest.mark.filterwarnings("ignore")
def test_what_torch_exports(name: str, exporter: Callable[..., onnx.ModelProto]) -> None:
    _, function, x, code, rtol = TORCH[name]

    class Head(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        proto = exporter(Head().eval(), x)
    result = fixed(proto, (code,))
    (feed,) = (i.name for i in proto.graph.input)
    truth = function(x.double()).numpy()
    (after,) = run(result, {feed: x.numpy()})
    (before,) = (plainly if x.dtype == torch.float16 else run)(proto, {feed: x.numpy()})
    np.testing.assert_allclose(after.astype(np.float64), truth, rtol=rtol, atol=2.0**-149)
    assert not np.allclose(before.astype(np.float64), truth, rtol=rtol, atol=2.0**-149)

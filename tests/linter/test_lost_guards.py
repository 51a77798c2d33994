"""STB801: what the exporter's optimizer deletes is told, where the program is still at hand; what it keeps is not."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import onnx_ir as ir
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import stabilize
from tests.frontends.onnx_support import model

ROWS = torch.randn(3, 5)


def export(function: Callable[[Tensor], Tensor], x: Tensor = ROWS, optimize: bool = True) -> torch.onnx.ONNXProgram:
    class Head(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(Head().eval(), (x,), dynamo=True, verbose=False, optimize=optimize)
    assert program is not None
    return program


def lost(program: torch.onnx.ONNXProgram) -> list[str | None]:
    return [f.naive for f in stabilize.lint(program, budget=0, select="STB8").findings]


LOST: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "divisor": (lambda x: x / (x.norm(dim=-1, keepdim=True) + 1e-8), "linalg_vector_norm + 1e-08"),
    "logarithm": (lambda x: torch.log(x.softmax(-1) + 1e-9), "softmax + 1e-09"),
    "root": (lambda x: torch.rsqrt(x * x + 1e-12), "mul + 1e-12"),
    "subtracted": (lambda x: torch.log(x.exp() - 1e-10), "exp - 1e-10"),
    "from 1": (lambda x: torch.log1p(-x.sigmoid() * (1 - 1e-6)), "neg * 0.999999"),
    "beside an attribute": (lambda x: torch.log(F.layer_norm(x, (5,), eps=1e-9).abs() + 1e-9), "abs_1 + 1e-09"),
    "beside a clamp": (lambda x: x.clamp(min=1e-9) / (x.abs() + 1e-9), "abs_1 + 1e-09"),
}


@pytest.mark.parametrize("name", LOST)
def test_what_is_deleted_is_named(name: str) -> None:
    function, text = LOST[name]
    assert lost(export(function)) == [text]
    assert lost(export(function, optimize=False)) == []


KEPT: dict[str, Callable[[Tensor], Tensor]] = {
    "large enough": lambda x: x / (x.norm(dim=-1, keepdim=True) + 1e-5),
    "no guard": lambda x: torch.log(x.softmax(-1) + 0.5) * 3,
    "of a norm": lambda x: F.layer_norm(x, (5,), eps=1e-12),
    "of a clamp": lambda x: F.normalize(x, eps=1e-12),
    "of nothing": lambda x: x + 0.0,
    "twice the same": lambda x: torch.log(x.exp() + 1e-5) + torch.exp(x.exp() + 1e-5),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_is_not(name: str) -> None:
    assert lost(export(KEPT[name])) == []


def test_a_number_that_is_0_in_the_format_was_never_there() -> None:
    assert lost(export(lambda x: x / (x.abs().sum(-1, keepdim=True) + 1e-9), ROWS.half())) == []


def test_a_finding_says_where_and_what_to_do() -> None:
    program = export(lambda x: x / (x.norm(dim=-1, keepdim=True) + 1e-8))
    (finding,) = stabilize.lint(program, budget=0, select="STB8").findings
    assert (finding.code, finding.name, finding.severity) == ("STB801", "guard-lost-in-export", "warning")
    assert (finding.node, finding.fixable, finding.safety, finding.stable) == ("add", False, None, None)
    assert str(finding.file).endswith("test_lost_guards.py")
    assert finding.line is not None
    assert "takes the number for 0. Export with stabilize.export_onnx" in finding.message
    (nan,) = program(torch.zeros(1, 5).expand(3, 5).contiguous())
    assert nan.isnan().all()  # as the finding says


def test_optimize_tells_it_once_and_again() -> None:
    """The second time the model is another one: the guard that is left stands in it as its logarithm."""
    program = export(
        lambda x: torch.log(x.exp() / x.exp().sum(-1, keepdim=True) + 1e-6) + torch.log(x.sigmoid() + 1e-9)
    )
    fixed, report = stabilize.optimize(program, return_report=True)
    assert [f.naive for f in report.findings if f.code == "STB801"] == ["sigmoid + 1e-09"]
    assert report.rewrites
    again, later = stabilize.optimize(fixed, return_report=True)
    assert [f.naive for f in later.findings if f.code == "STB801"] == ["sigmoid + 1e-09"]
    assert later.rewrites == []
    assert lost(again) == ["sigmoid + 1e-09"]
    _, ignored = stabilize.optimize(program, ignore="STB801", return_report=True)
    assert not [f for f in ignored.findings if f.code == "STB801"]


def test_a_guard_that_became_an_attribute_is_there() -> None:
    """As fusions write it; under another name, and with no Add."""
    program = export(lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))
    text = """g (float[3, 5] x) => (float[3, 5] y) <float[5] w = {1, 1, 1, 1, 1}> {
      y = RMSNormalization <epsilon = EPSILON> (x, w)
    }"""
    for epsilon, told in (("1e-6", []), ("1e-5", ["mean + 1e-06"])):
        proto = model(text.replace("EPSILON", epsilon), opset=23)
        assert lost(torch.onnx.ONNXProgram(ir.from_proto(proto), program.exported_program)) == told


def test_without_a_program_there_is_nothing_to_compare() -> None:
    program = export(lambda x: torch.log(x.softmax(-1) + 1e-9))
    for given in (program.model, program.model_proto, torch.onnx.ONNXProgram(program.model, None)):
        assert stabilize.lint(given, budget=0, select="STB8").findings == []

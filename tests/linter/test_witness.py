"""Witnesses: inputs inside the ranges on which the model's own runtime is wrong, run again here by the test."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor, fx, nn

import stabilize
from stabilize.linter import ascent
from stabilize.linter import run as lint_run
from stabilize.linter.proof import Suspect
from stabilize.linter.witness import Witness
from stabilize.records import Finding
from tests.frontends.onnx_support import model, run

Ranges = Mapping[str, tuple[float, float]]


class Model(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Two(Model):
    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.function(x, z)


def softmax(x: Tensor) -> Tensor:
    e = torch.exp(x)
    return e / e.sum(-1, keepdim=True)


def lint(target: Any, inputs: Any = None, **options: Any) -> list[Finding]:
    return stabilize.lint(target, inputs, **options).findings


def the(findings: list[Finding]) -> tuple[Finding, Witness]:
    (finding,) = findings
    assert isinstance(finding.witness, Witness)
    return finding, finding.witness


# --- errors have a witness that breaks ------------------------------------------------------------------------------

_X = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
DEFECTS: dict[str, tuple[Callable[[Tensor], Tensor], Ranges]] = {
    "softmax": (softmax, {}),
    "softmax in a range": (softmax, {"x": (-100.0, 100.0)}),
    "softmax, positive": (softmax, {"x": (50.0, 120.0)}),
    "entropy": (lambda x: (torch.softmax(x, -1) * torch.log(torch.softmax(x, -1))).sum(-1), {}),
    "log of sum": (lambda x: torch.log(torch.exp(x).sum(-1)), {}),
    "log sigmoid": (lambda x: torch.log(torch.sigmoid(x)), {}),
    "softplus": (lambda x: torch.log(1 + torch.exp(x)), {"x": (0.0, 500.0)}),
    "log of relu": (lambda x: torch.log(torch.relu(x)), {}),
    "variance": (lambda x: (x * x).mean(-1) - x.mean(-1) ** 2, {}),
    "zero over zero": (lambda x: torch.relu(x) / torch.relu(x).sum(-1, keepdim=True), {}),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_errors_in_pytorch(name: str) -> None:
    function, ranges = DEFECTS[name]
    errors = [f for f in lint(Model(function), _X, ranges=dict(ranges)) if f.severity == "error"]
    assert errors
    for finding in errors:
        witness = finding.witness
        assert isinstance(witness, Witness)
        assert witness.scope == "model"
        assert witness.kind == "lost"
        (x,) = witness.values()
        assert list(witness) == ["x"]
        assert len(witness) == 1
        low, high = ranges.get("x", (-1e4, 1e4))
        assert low <= x.min()
        assert x.max() <= high
        result, right = function(x), function(x.double())
        size = right.nan_to_num(0.0, 0.0, 0.0).abs().max()
        assert (~torch.isfinite(result) | ((result - right).abs() > size / 2)).any()
        assert "output" in witness.outcome


@pytest.mark.parametrize("name", DEFECTS)
def test_without_a_budget_there_are_no_errors(name: str) -> None:
    function, ranges = DEFECTS[name]
    findings = lint(Model(function), _X, ranges=dict(ranges), budget=0)
    assert findings
    assert {f.witness for f in findings} == {None}
    assert "error" not in {f.severity for f in findings}


@pytest.mark.parametrize("limit", [10.0, 40.0, 80.0])
def test_silence_inside_safe_ranges(limit: float) -> None:
    assert lint(Model(softmax), _X, ranges={"x": (-limit, limit)}) == []


def test_data_gives_ranges() -> None:
    assert lint(Model(softmax), _X, input_data=_X * 10) == []
    _, witness = the(lint(Model(softmax), _X, input_data=_X * 100))
    assert witness["x"].abs().max() <= (_X * 100).abs().max()
    data = torch.full((3, 5), 100.0)
    _, witness = the(lint(Model(softmax), _X, input_data=data))
    assert (witness["x"] == 100).all()
    # a range that is given goes before what the data spans
    assert lint(Model(softmax), _X, input_data=data, ranges={"x": (-5.0, 5.0)}) == []


# --- onnx -----------------------------------------------------------------------------------------------------------

_SOFTMAX = """g (float[3, 5] x) => (float[3, 5] y) <int64[1] axis = {1}> {
    e = Exp(x)
    s = ReduceSum(e, axis)
    y = Div(e, s)
}"""


@pytest.mark.parametrize("ranges", [{}, {"x": (-100.0, 100.0)}, {"x": (89.0, 95.0)}])
def test_errors_in_onnx(ranges: Ranges) -> None:
    finding, witness = the(lint(model(_SOFTMAX), ranges=dict(ranges)))
    assert (finding.severity, witness.scope, witness.kind) == ("error", "model", "lost")
    x = witness["x"].numpy()
    low, high = ranges.get("x", (-1e4, 1e4))
    assert low <= x.min()
    assert x.max() <= high
    (y,) = run(model(_SOFTMAX), {"x": x})
    assert not np.isclose(y.sum(-1), 1.0).all()


def test_float16_is_replayed_where_it_is_rounded() -> None:
    """ONNX Runtime's kernels for CPUs compute it in float32; ONNX's reference implementation does not."""
    text = """g (float16[2, 64] q, float16[64, 3] k) => (float16[2, 3] y) <float16 d = {18432}> {
        p = MatMul(q, k)
        y = Div(p, d)
    }"""
    finding, witness = the(lint(model(text)))
    assert finding.severity == "error"
    feeds = {n: t.numpy() for n, t in witness.items()}
    if "onnx.reference" in witness.outcome:
        assert "compute float16 in float32" in witness.outcome
        assert isinstance(witness.piece, object)
        (y,) = cast("list[np.ndarray]", ReferenceEvaluator(model(text)).run(None, feeds))
    else:
        (y,) = run(model(text), feeds)
    assert not np.isfinite(y).all()


def test_a_defect_in_a_branch_has_a_witness_of_its_expression() -> None:
    text = """g (float[2, 3] x, bool c) => (float[2, 3] y) {
        y = If (c) <
            then_branch = then () => (float[2, 3] p) { e = Exp(x) t = Neg(e) l = Sub(e, t) p = Log(l) },
            else_branch = other () => (float[2, 3] q) { q = Neg(x) }
        >
    }"""
    finding, witness = the(lint(model(text), select=["STB1", "STB2"]))
    assert "/" in finding.node
    assert witness.scope == "expression"
    assert witness.piece is not None
    part = cast(onnx.ModelProto, witness.piece.model)
    onnx.checker.check_model(part)
    (result,) = run(part, {n: witness[n].numpy() for n in witness.piece.inputs})
    assert not np.isfinite(result).all()


# --- scopes ---------------------------------------------------------------------------------------------------------


class Bounded(nn.Module):
    """The inputs cannot lead the exponent to where it breaks."""

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        return softmax(torch.tanh(x) * step)


def test_what_the_inputs_do_not_lead_to_is_of_the_expression() -> None:
    """A range that the model's other operators keep: the expression breaks on values that never come."""

    class Opaque(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return softmax(torch.linalg.qr(x)[0])  # entries in [−1, 1]: nothing is known of operators not read

    findings = lint(Opaque(), torch.randn(4, 4))
    for finding in findings:
        witness = finding.witness
        assert isinstance(witness, Witness)
        assert witness.scope == "expression"
        assert witness.piece is not None
        part = cast(fx.GraphModule, witness.piece.model)
        (result,) = part(*(witness[n] for n in witness.piece.inputs))
        assert not result.isfinite().all()
    assert findings


def test_a_model_of_two_inputs() -> None:
    x = torch.randn(3, 5)
    ranges = {"x": (-300.0, 300.0), "z": (0.0, 1.0)}
    _, witness = the(lint(Two(lambda x, z: softmax(x + z)), (x, x.abs()), ranges=ranges))
    assert set(witness) == {"x", "z"}
    assert witness["z"].min() >= 0
    assert witness["z"].max() <= 1
    assert not torch.isclose(softmax(witness["x"] + witness["z"]).sum(-1), torch.ones(3)).all()


def test_integer_inputs() -> None:
    def gathered(x: Tensor, z: Tensor) -> Tensor:
        return torch.log(softmax(x)).gather(1, z)

    index = torch.tensor([[0], [4], [2]])
    finding, witness = the(lint(Two(gathered), (_X, index)))
    assert finding.severity == "error"
    if witness.scope == "model":
        assert witness["z"].dtype == torch.int64
        assert not gathered(witness["x"], witness["z"]).isfinite().all()


class Layer(nn.Module):
    def __init__(self, frozen: bool) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.full((5,), 0.01), requires_grad=not frozen)

    def forward(self, x: Tensor) -> Tensor:
        return softmax(x * self.w)


def test_weights_that_train_may_become_anything_frozen_ones_not() -> None:
    assert lint(Layer(frozen=True), _X, ranges={"x": (-1000.0, 1000.0)}) == []
    assert [f.code for f in lint(Layer(frozen=False), _X, ranges={"x": (-1000.0, 1000.0)})] == ["STB101"]
    _, witness = the(lint(Layer(frozen=False), _X, ranges={"x": (-1000.0, 1000.0)}))
    assert witness.scope == "expression"  # of the model as it is there is none
    _, witness = the(lint(Layer(frozen=True), _X, ranges={"x": (-1e5, 1e5)}))
    assert not torch.isclose(Layer(True)(witness["x"]).sum(-1), torch.ones(3)).all()


# --- severity -------------------------------------------------------------------------------------------------------


def test_a_warning_of_a_rule_becomes_an_error_where_a_number_is_lost_and_a_fix_is_known() -> None:
    """STB402, of norms, warns: squares that overflow lose the result."""

    def unit(x: Tensor) -> Tensor:
        return x / (x * x).sum(-1, keepdim=True).sqrt()

    calm = lint(Model(unit), _X, budget=0)
    assert [(f.code, f.severity) for f in calm] == [("STB402", "warning")]
    (finding,) = lint(Model(unit), _X, ranges={"x": (1e18, 1e25)})
    assert (finding.code, finding.severity) == ("STB402", "error")


def test_poles_stay_warnings() -> None:
    finding, witness = the(lint(Two(lambda x, z: x / z), (_X, _X.abs() + 1)))
    assert (finding.code, finding.severity, witness.kind) == ("STB433", "warning", "lost")
    assert not (witness["x"] / witness["z"]).isfinite().all()


def test_gradients_in_pytorch_only() -> None:
    finding, witness = the(lint(Model(lambda x: torch.sqrt(torch.abs(x))), _X))
    assert (finding.code, witness.kind) == ("STB432", "gradient")
    assert "gradient" in witness.outcome
    x = witness["x"].clone().requires_grad_()
    (slope,) = torch.autograd.grad(torch.sqrt(torch.abs(x)).sum(), x)
    assert slope.isnan().any()
    assert lint(model("g (float[2] x) => (float[2] y) { a = Abs(x) y = Sqrt(a) }")) == []


def test_an_infinity_counts_where_it_comes_out() -> None:
    torch.manual_seed(0)

    class Rate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return torch.exp(self.linear(x))

    rate = Rate()
    finding, witness = the(lint(rate, _X))
    assert (finding.code, finding.severity, witness.scope) == ("STB243", "error", "model")
    assert rate(witness["x"]).isinf().any()
    assert "output" in witness.outcome
    (small,) = lint(rate, _X, ranges={"x": (-1.0, 1.0)})
    assert (small.severity, small.witness) == ("info", None)


# --- what is given is repeatable and takes no longer than it may ------------------------------------------------------


def test_seeds() -> None:
    first, second = (the(lint(Model(softmax), _X, seed=7))[1]["x"] for _ in range(2))
    assert torch.equal(first, second)


def test_the_model_is_not_changed() -> None:
    class Counter(nn.Module):
        calls: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))
            self.w = nn.Parameter(torch.ones(5))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return softmax(x * self.w)

    module = Counter()
    lint(module, _X)
    assert module.calls == 0
    assert module.w.grad is None
    assert (module.w == 1).all()


class _Clock:
    """Each look at it takes a while."""

    def __init__(self, step: float) -> None:
        self.now, self.step, self.looks = 0.0, step, 0

    def monotonic(self) -> float:
        self.looks += 1
        self.now += self.step
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], _Clock]:
    def set_to(step: float) -> _Clock:
        clock = _Clock(step)
        for module in (lint_run, ascent):
            monkeypatch.setattr(module, "time", clock)
        return clock

    return set_to


class Many(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        parts = [torch.log(torch.sigmoid(torch.tanh(x * k) * 10.0 + x)) for k in range(1, 13)]
        return torch.stack(parts).sum(0)


def test_the_budget_is_kept(clock: Callable[[float], _Clock]) -> None:
    """With a second between looks at the clock, a search of 8 s looks at most some 8 times, and ends."""
    slow = clock(1.0)
    findings = lint(Many(), _X, budget=8.0)
    assert len(findings) >= 12
    assert slow.now <= 60.0
    assert any(f.witness is not None for f in findings)
    assert any(f.witness is None for f in findings)  # the last ones were not looked for
    fast = clock(0.0)
    assert all(f.witness is not None for f in lint(Many(), _X, budget=20.0))
    assert fast.looks > slow.looks
    over = clock(100.0)
    assert all(f.witness is None for f in lint(Many(), _X, budget=20.0))
    assert over.now <= 100.0 * (len(findings) + 1)


class Turned(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return softmax(torch.linalg.qr(x)[0])  # never beyond ±1: no input leads to where it breaks


@pytest.mark.parametrize(("left", "most"), [(-1.0, 1), (1e9, 1000)])
def test_a_search_ends_when_its_time_is_up(monkeypatch: pytest.MonkeyPatch, left: float, most: int) -> None:
    tried: list[str] = []
    outcome = Suspect.outcome

    def counted(self: Suspect, given: Any) -> Any:
        tried.append(self.target)
        return outcome(self, given)

    def reached(suspect: Suspect, examples: Any, deadline: float, seed: int) -> Any:
        del deadline
        monkeypatch.setattr(Suspect, "outcome", counted)
        try:
            return ascent.reached(suspect, examples, time.monotonic() + left, seed)
        finally:
            monkeypatch.setattr(Suspect, "outcome", outcome)

    monkeypatch.setattr(lint_run, "reached", reached)
    lint(Turned(), torch.randn(4, 4))
    assert len(tried) <= most
    assert (len(tried) > 5) == (left > 0)


def test_a_branch_may_be_taken_where_its_divisor_suits() -> None:
    text = """g (float[2, 3] x, bool c) => (float[2, 3] y) <float k = {1}> {
        y = If (c) <
            then_branch = then () => (float[2, 3] p) { p = Div(k, x) },
            else_branch = other () => (float[2, 3] q) { q = Neg(x) }
        >
    }"""
    assert lint(model(text), budget=0) == []
    (outside,) = lint(model("g (float[2, 3] x) => (float[2, 3] y) <float k = {1}> { y = Div(k, x) }"), budget=0)
    assert outside.code == "STB433"


def test_each_finding_has_a_share_of_what_is_left(clock: Callable[[float], _Clock]) -> None:
    clock(1.0)
    asked: list[float] = []

    def reached(suspect: Any, examples: Any, deadline: float, seed: int) -> None:
        asked.append(deadline)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lint_run, "reached", reached)
        lint(Many(), _X, budget=1000.0)
    assert len(asked) >= 12
    assert asked == sorted(asked)
    assert asked[0] < 200
    assert asked[-1] <= 1000.0 + 3.0  # when it was last looked at
    assert not math.isinf(asked[-1])

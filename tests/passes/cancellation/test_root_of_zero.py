"""Roots of what is 0 for whole ranges of inputs: the gradient is NaN there."""

from __future__ import annotations

import pytest
import torch

from stabilize.passes.cancellation.root_of_zero import RULE
from stabilize.passes.rule import Options
from stabilize.verify.execute import execute
from tests.passes.graphs import Outcome, assert_no_match, brief

MASKED = "t1 = mul(x, cast(gt(z, 0.0), dtype='float32'))\nt2 = eq(t1, 0.0)\nwhere(t2, 0.0, {}(where(t2, 1.0, t1){}))"
AFTER = [
    ("sqrt(mul(x, cast(gt(z, 0.0), dtype='float32')))", MASKED.format("sqrt", "")),
    ("pow(mul(x, cast(gt(z, 0.0), dtype='float32')), 0.5)", MASKED.format("pow", ", 0.5")),
    ("sqrt(mul(relu(x), z))", "t1 = mul(relu(x), z)\nt2 = eq(t1, 0.0)\nwhere(t2, 0.0, sqrt(where(t2, 1.0, t1)))"),
]

NEAR_MISSES = [
    "sqrt(x)",
    "sqrt(abs(x))",
    "sqrt(relu(x))",  # PyTorch's own gradient of relu is 0 there whatever comes back
    "sqrt(mul(x, x))",
    "sqrt(mul(x, z))",
    "sqrt(add(mul(relu(x), z), 0.001))",
    "pow(mul(relu(x), z), 2.0)",
    "pow(mul(relu(x), z), 1.5)",
    "pow(mul(relu(x), z), 1.0)",
    "pow(mul(relu(x), z), 0.0)",
    "pow(mul(relu(x), z), -0.5)",
    "pow(mul(relu(x), z), w)",
]


@pytest.mark.parametrize(("body", "expected"), AFTER)
def test_rewrites_to(body, expected):
    outcome = Outcome(body, Options())
    assert outcome.proposed[0].candidates == ()
    assert outcome.proposed[0].old is outcome.view.outputs[0]
    told = ("approximate", 'the gradient is NaN where the root is 0: taken as 0 with allow="approximate"')
    assert (outcome.proposed[0].safety, outcome.proposed[0].message) == told
    outcome = Outcome(body, Options(allow="approximate"))
    assert (outcome.proposed[0].safety, outcome.proposed[0].message) == told
    assert outcome.codes == ["STB432"]
    ((old, new),) = outcome.replaced.items()
    assert brief(new) == expected
    x, z = (outcome.view.bindings[name] for name in "xz")
    data = {x: torch.tensor([[-1.0, 4.0, 4.0, 9.0, 1.0]] * 4), z: torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0]] * 4)}
    (was, slope_before), (now, slope_after) = (_with_gradient(v, x, data) for v in (old, new))
    torch.testing.assert_close(was, now, rtol=0, atol=0, equal_nan=True)
    assert slope_before[0, 1].isnan() or "relu" in body
    assert slope_after[0].tolist()[1:3] == [0.0, 0.25]


def _with_gradient(value, leaf, data):
    x = data[leaf].clone().requires_grad_()
    (result,) = execute([value], {**data, leaf: x})
    (slope,) = torch.autograd.grad(result.nan_to_num().sum(), x)
    return result.detach(), slope


@pytest.mark.parametrize("body", NEAR_MISSES)
def test_near_misses(body):
    assert_no_match(RULE, body, {})


def test_hosts_without_gradients_have_no_such_defect():
    assert_no_match(RULE, "sqrt(mul(relu(x), z))", {}, host="onnx")


# --- in a lint ------------------------------------------------------------------------------------------------------

_SINGLE_POINTS = [
    "sqrt(abs(x))",
    "pow(abs(x), 0.25)",
    "sqrt(mul(x, x))",
    "sqrt(sum(abs(x), axes=(1,), keepdim=True))",
    "sqrt(mean(abs(x), axes=(1,), keepdim=False))",
    "sqrt(add(abs(x), 0.0))",
]
_LINT_NEAR_MISSES = [
    ("sqrt(x)", {}),
    ("sqrt(x)", {"x": (0.1, 1)}),
    ("sqrt(x)", {"x": (-1, 1)}),
    ("sqrt(add(abs(x), 1e-06))", {}),
    ("sqrt(maximum(abs(x), 1e-06))", {}),
    ("sqrt(abs(add(abs(x), 0.001)))", {}),
    ("sqrt(abs(detach(x)))", {}),  # no gradient
    ("sqrt(sum(mul(x, x), axes=(1,), keepdim=True))", {}),  # STB402
    ("sqrt(relu(x))", {}),  # its own gradient is 0 there, whatever comes back
    ("sqrt(maximum(x, 0.0))", {}),
    ("sqrt(where(gt(x, 0.0), x, 0.0))", {}),
    ("sqrt(mean(relu(x), axes=(1,), keepdim=False))", {}),
    ("sqrt(sigmoid(x))", {}),  # never 0
    ("sqrt(exp(x))", {}),
    ("pow(abs(x), 2.0)", {}),
]


@pytest.mark.parametrize("body", _SINGLE_POINTS)
def test_a_lint_tells_what_reaches_0_at_single_points(body):
    assert Outcome(body, Options()).codes == []
    assert Outcome(body, Options(hazards=True, host="onnx")).codes == []
    (proposal,) = Outcome(body, Options(hazards=True)).proposed
    assert (proposal.rule, proposal.severity, proposal.candidates) == (RULE, "warning", ())
    assert (proposal.safety, "the gradient is NaN" in proposal.message) == ("approximate", True)


def test_a_lint_calls_products_errors():
    for body, _ in AFTER:
        (proposal,) = Outcome(body, Options(hazards=True)).proposed
        assert (proposal.rule, proposal.severity) == (RULE, "error")


def test_a_lint_tells_what_is_given_a_range_from_0():
    assert Outcome("sqrt(x)", Options(hazards=True), {"x": (0.0, 1.0)}).codes == ["STB432"]


@pytest.mark.parametrize(("body", "ranges"), _LINT_NEAR_MISSES)
def test_near_misses_of_a_lint(body, ranges):
    assert "STB432" not in Outcome(body, Options(hazards=True), ranges).codes

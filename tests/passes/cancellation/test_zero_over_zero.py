"""Divisors that are sums of terms which may all be 0."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.zero_over_zero import RULE
from stabilize.passes.rule import Options
from stabilize.verify.certificate import certify_rewrite
from tests.passes.graphs import Outcome, assert_no_match, brief

REPORTED = [
    "r = relu(x)\nreturn div(r, sum(r, axes=(1,), keepdim=True))",
    "m2 = cast(gt(z, 0.0), dtype='float32')\n"
    "return div(sum(mul(x, m2), axes=(1,), keepdim=False), sum(m2, axes=(1,), keepdim=False))",
    "r = relu(h)\nreturn div(r, sum(r, axes=(1,), keepdim=True))",
    "r = where(gt(x, 0.0), x, 0.0)\nreturn div(r, sum(r, axes=(1,), keepdim=True))",
    "div(relu(x), add(relu(x), relu(z)))",
    "div(x, mean(relu(x), axes=(1,), keepdim=True))",
    "div(x, unsqueeze(sum(relu(x), axes=(1,), keepdim=False), axes=(1,)))",
    "div(x, expand(sum(relu(x), axes=(1,), keepdim=True), shape=(4, 5)))",
    "div(sum(x, axes=(1,), keepdim=False), squeeze(sum(relu(x), axes=(1,), keepdim=True), axes=(1,)))",
    "div(x, cast(sum(relu(h), axes=(1,), keepdim=True), dtype='float32'))",
    "div(x, cast(sum(cast(B, dtype='int64'), axes=(1,), keepdim=True), dtype='float32'))",
]

_MESSAGE = 'NaN where every term of the divisor is 0: guarded with allow="approximate"'

NEAR_MISSES = [
    "div(x, z)",
    "div(x, max(relu(x), axes=(1,), keepdim=True))",
    "div(x, sub(relu(x), relu(z)))",
    "div(relu(x), sum(relu(exp(x)), axes=(1,), keepdim=True))",  # left to the rule of the exponentials
    "div(x, relu(z))",
    "div(x, sum(z, axes=(1,), keepdim=True))",
    "div(x, sum(mul(x, x), axes=(1,), keepdim=True))",
    "div(relu(x), add(sum(relu(x), axes=(1,), keepdim=True), 0.001))",
    "div(relu(x), maximum(sum(relu(x), axes=(1,), keepdim=True), 0.001))",
    "div(relu(x), sum(exp(tanh(x)), axes=(1,), keepdim=True))",
]


@pytest.mark.parametrize("body", REPORTED)
def test_reported_and_guarded_when_the_user_allows_it(body):
    outcome = Outcome(body, Options())
    (proposal,) = outcome.proposed
    assert (proposal.rule.code, proposal.candidates, proposal.safety) == ("STB431", (), "approximate")
    assert proposal.old is outcome.view.outputs[0]
    assert proposal.message == _MESSAGE
    outcome = Outcome(body, Options(allow="approximate"))
    ((old, new),) = outcome.replaced.items()
    assert (outcome.proposed[0].safety, outcome.proposed[0].message) == ("approximate", _MESSAGE)
    assert new.op == "div"
    assert new.operands[0] is old.operands[0]
    *_, guard = brief(new.operands[1]).splitlines()
    assert guard.startswith("where(eq(")
    assert ", 0.0), 1.0, " in guard
    certificate = certify_rewrite(old, new, approximate=True)
    assert certificate.accepted, certificate.reason
    assert not certify_rewrite(old, new).accepted  # it is another function at 0/0


@pytest.mark.parametrize("body", NEAR_MISSES)
def test_near_misses(body):
    assert_no_match(RULE, body, {})


def test_what_is_known_to_be_positive_is_no_divisor_of_0():
    body = "div(x, sum(relu(z), axes=(1,), keepdim=True))"
    assert_no_match(RULE, body, {"z": (0.1, 2.0)})
    assert Outcome(body, Options(), {"z": (0.0, 2.0)}).codes == ["STB431"]


# --- in a lint ------------------------------------------------------------------------------------------------------

_M = "m2 = cast(gt(z, 0.0), dtype='float32')\n"


@pytest.mark.parametrize(
    ("body", "severity"),
    [
        (REPORTED[0], "error"),  # rectified terms are all 0 for ordinary inputs
        ("r = maximum(x, 0.0)\nreturn div(r, sum(r, axes=(1,), keepdim=True))", "error"),
        ("div(relu(x), add(relu(x), relu(z)))", "error"),
        (REPORTED[1], "warning"),  # masks for empty ones
        ("r = where(gt(x, 0.0), x, 0.0)\nreturn div(r, sum(r, axes=(1,), keepdim=True))", "warning"),
        # a count of targets that are not to be ignored
        (
            "m2 = cast(ne(y, -100), dtype='float32')\nreturn div(sum(mul(sum(x, axes=(1,), keepdim=False), m2), "
            "axes=(0,), keepdim=False), sum(m2, axes=(0,), keepdim=False))",
            "info",
        ),
    ],
)
def test_severity_in_a_lint(body, severity):
    for host in ("fx", "onnx"):
        (proposal,) = Outcome(body, Options(hazards=True, host=host)).proposed
        assert (proposal.rule, proposal.severity, proposal.candidates) == (RULE, severity, ())
    assert Outcome(body, Options()).proposed[0].severity is None
    assert (RULE.severity, RULE.poles) == ("info", True)


@pytest.mark.parametrize("body", [b for b in NEAR_MISSES if "exp" not in b])
def test_near_misses_of_a_lint(body):
    assert "STB431" not in Outcome(body, Options(hazards=True)).codes

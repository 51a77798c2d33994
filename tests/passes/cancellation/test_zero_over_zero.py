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
]

NEAR_MISSES = [
    "div(x, z)",
    "div(x, relu(z))",
    "div(x, sum(z, axes=(1,), keepdim=True))",
    "div(x, sum(mul(x, x), axes=(1,), keepdim=True))",
    "div(relu(x), add(sum(relu(x), axes=(1,), keepdim=True), 0.001))",
    "div(relu(x), maximum(sum(relu(x), axes=(1,), keepdim=True), 0.001))",
    "div(relu(x), sum(exp(tanh(x)), axes=(1,), keepdim=True))",
]


@pytest.mark.parametrize("body", REPORTED)
def test_reported_and_guarded_when_the_user_allows_it(body):
    (proposal,) = Outcome(body, Options()).proposed
    assert (proposal.rule.code, proposal.candidates, proposal.safety) == ("STB431", (), "approximate")
    outcome = Outcome(body, Options(allow="approximate"))
    ((old, new),) = outcome.replaced.items()
    assert new.op == "div"
    assert brief(new.operands[1]).splitlines()[-1].startswith("where(eq(")
    certificate = certify_rewrite(old, new, approximate=True)
    assert certificate.accepted, certificate.reason
    assert not certify_rewrite(old, new).accepted  # it is another function at 0/0


@pytest.mark.parametrize("body", NEAR_MISSES)
def test_near_misses(body):
    assert_no_match(RULE, body, {})

"""exp(x − m)/(1 + Σexp(x − m)): reported, never rewritten."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.shifted_softmax_one import RULE
from stabilize.passes.rule import Options
from tests.passes.graphs import Outcome, assert_no_match

SHIFTED = "m = max(x, axes=(1,), keepdim=True)\ne = exp(sub(x, m))\n"

REPORTED = [
    SHIFTED + "div(e, add(1.0, sum(e, axes=(1,), keepdim=True)))",
    SHIFTED + "div(e, add(sum(e, axes=(1,), keepdim=True), 1.0))",
    "e = exp(sub(x, detach(max(x, axes=(1,), keepdim=True))))\ndiv(e, add(1.0, sum(e, axes=(1,), keepdim=True)))",
]

NEAR_MISSES = [
    SHIFTED + "div(e, add(2.0, sum(e, axes=(1,), keepdim=True)))",
    SHIFTED + "div(e, add(1.0000001, sum(e, axes=(1,), keepdim=True)))",
    SHIFTED + "div(e, sub(1.0, sum(e, axes=(1,), keepdim=True)))",
    SHIFTED + "div(e, add(exp(neg(m)), sum(e, axes=(1,), keepdim=True)))",
    SHIFTED + "div(e, add(1.0, sum(exp(x), axes=(1,), keepdim=True)))",
    SHIFTED + "div(e, add(1.0, max(e, axes=(1,), keepdim=True)))",
    SHIFTED + "div(z, add(1.0, sum(z, axes=(1,), keepdim=True)))",
    "e = exp(x)\ndiv(e, add(1.0, sum(e, axes=(1,), keepdim=True)))",
    "e = exp(sub(x, mean(x, axes=(1,), keepdim=True)))\ndiv(e, add(1.0, sum(e, axes=(1,), keepdim=True)))",
    "e = exp(sub(x, detach(mean(x, axes=(1,), keepdim=True))))\ndiv(e, add(1.0, sum(e, axes=(1,), keepdim=True)))",
    "e = exp(sub(x, mul(max(x, axes=(1,), keepdim=True), 2.0)))\ndiv(e, add(1.0, sum(e, axes=(1,), keepdim=True)))",
    "e = exp(add(x, max(x, axes=(1,), keepdim=True)))\ndiv(e, add(1.0, sum(e, axes=(1,), keepdim=True)))",
]


@pytest.mark.parametrize("body", REPORTED)
def test_reported(body):
    outcome = Outcome(body, Options())
    assert outcome.codes == [RULE.code]
    assert outcome.replaced == {}
    (proposal,) = outcome.proposed
    assert proposal.candidates == ()
    assert proposal.old is outcome.view.outputs[0]
    assert proposal.safety == "model-changing"
    assert proposal.message == "the 1 is not shifted: the result depends on the shift"


@pytest.mark.parametrize("body", NEAR_MISSES)
def test_near_misses(body):
    assert_no_match(RULE, body, {})

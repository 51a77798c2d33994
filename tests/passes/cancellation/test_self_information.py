"""p·log(p), which is NaN at 0: given its limit when the user allows it."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.self_information import RULE
from stabilize.passes.rule import Options
from tests.passes.graphs import Outcome, assert_no_match, assert_rewrite

#: (expression, bounds of its inputs, what takes its place)
AFTER = [
    ("mul(x, log(x))", {}, "xlogy(x, x)"),
    ("mul(log(x), x)", {}, "xlogy(x, x)"),
    ("mul(x, log(x))", {"x": (0, 1)}, "xlogy(x, x)"),
]  # fmt: skip

NEAR_MISSES = [
    ("mul(x, log(x))", {"x": (0.001, 1)}),
    ("mul(x, log(z))", {}),
    ("mul(x, sin(x))", {}),
    ("mul(softmax(x, axis=1), log(softmax(x, axis=1)))", {}),
    ("mul(log(x), log(x))", {}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "ranges", "expected"), AFTER)
def test_rewrites_to(body, ranges, expected):
    assert_rewrite(RULE, body, ranges, expected, allow="approximate")


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges, allow="approximate")


def test_only_reports_unless_the_user_allows_it():
    outcome = Outcome("mul(x, log(x))", Options())
    assert outcome.replaced == {}
    (proposal,) = outcome.proposed
    assert proposal.candidates == ()
    assert proposal.old is outcome.view.outputs[0]
    assert proposal.safety == "approximate"
    assert proposal.message == 'NaN at p = 0: fixed with allow="approximate"'


def test_what_is_applied_is_called_approximate():
    (proposal,) = Outcome("mul(x, log(x))", Options(allow="approximate")).proposed
    assert (proposal.safety, proposal.message) == ("approximate", "")

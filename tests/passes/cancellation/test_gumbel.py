"""log(−log(u)) of numbers that may be 0 or 1: kept inside when the user allows it."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.gumbel import RULE
from stabilize.passes.rule import Options
from tests.passes.graphs import Outcome, assert_no_match, assert_rewrite

#: (expression, bounds of its inputs, what takes its place)
AFTER = [
    ("log(neg(log(x)))", {}, "log(neg(log(minimum(maximum(x, 1.401298464324817e-45), 0.9999999403953552))))"),
    (
        "log(neg(log(x)))",
        {"x": (0, 1)},
        "log(neg(log(minimum(maximum(x, 1.401298464324817e-45), 0.9999999403953552))))",
    ),
    (
        "log(neg(log(x)))",
        {"x": (0.1, 1)},
        "log(neg(log(minimum(maximum(x, 1.401298464324817e-45), 0.9999999403953552))))",
    ),
    (
        "log(neg(log(x)))",
        {"x": (0, 0.9)},
        "log(neg(log(minimum(maximum(x, 1.401298464324817e-45), 0.9999999403953552))))",
    ),
    ("log(neg(log(h)))", {}, "log(neg(log(minimum(maximum(h, 5.960464477539063e-08), 0.99951171875))))"),
]  # fmt: skip

NEAR_MISSES = [
    ("log(log(x))", {}),
    ("log(neg(x))", {}),
    ("log(neg(sin(x)))", {}),
    ("log(neg(log(x)))", {"x": (0.1, 0.9)}),
    ("log(neg(log(mul(exp(x), 2.0))))", {}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "ranges", "expected"), AFTER)
def test_rewrites_to(body, ranges, expected):
    assert_rewrite(RULE, body, ranges, expected, allow="approximate")


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges, allow="approximate")


@pytest.mark.parametrize("allow", ["exact", "model-changing"])
def test_only_reports_unless_the_user_allows_it(allow):
    outcome = Outcome("log(neg(log(x)))", Options(allow=allow))
    assert outcome.replaced == {}
    (proposal,) = outcome.proposed
    assert proposal.candidates == ()
    assert proposal.old is outcome.view.outputs[0]
    assert proposal.safety == "approximate"
    assert proposal.message == '±inf at u = 0 and 1: fixed with allow="approximate"'


def test_what_is_applied_is_called_approximate():
    (proposal,) = Outcome("log(neg(log(x)))", Options(allow="approximate")).proposed
    assert (proposal.safety, proposal.message) == ("approximate", "")

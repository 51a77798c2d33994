"""STB242: what the formats break and no rule rewrites."""

from __future__ import annotations

import pytest

from stabilize.passes.hazards.indeterminate_form import RULE
from tests.passes.graphs import Options, Outcome, Ranges, assert_not_told, assert_told

#: (expression, what is said first)
FOUND = [
    ("div(exp(x), add(exp(z), w))", "inf/inf or 0/0"),
    ("div(x, softplus(z))", "inf/inf or 0/0"),
    ("log(add(exp(x), z))", "the log of an underflowed number"),
    ("log1p(mul(exp(x), z))", "the log of a number that was rounded to 0"),
    ("sqrt(add(exp(x), w))", "the root of a number that left the format"),
    ("pow(add(exp(x), w), 0.5)", "a power of a number that left the format"),
    ("prod(mul(exp(x), w), axes=(1,), keepdim=True)", "a product that left the format"),
]
NEAR_MISSES: list[tuple[str, Ranges]] = [
    ("div(exp(x), add(exp(z), w))", {"x": (-10, 10), "z": (-10, 10)}),
    ("log(add(exp(x), z))", {"x": (-10, 10)}),
    ("log1p(mul(exp(x), z))", {"x": (-10, 10)}),
    ("sqrt(add(exp(x), w))", {"x": (-10, 10)}),
    ("prod(x, axes=(1,), keepdim=True)", {}),
    ("prod(mul(exp(x), w), axes=(1,), keepdim=True)", {"x": (-1, 1), "w": (-1, 1)}),
    ("log(x)", {}),
    ("sqrt(x)", {}),
    ("div(x, add(z, w))", {}),
    ("log(sum(exp(sub(x, max(x, axes=(1,), keepdim=True))), axes=(1,), keepdim=True))", {}),
    ("sqrt(sub(1.0, cumprod(sigmoid(x), axis=1)))", {}),  # the early steps of a schedule are what is used
    ("div(x, sqrt(cumprod(sigmoid(z), axis=1)))", {}),
]
#: What a rule repairs is told by that rule alone.
REPAIRED = [
    ("div(exp(x), sum(exp(x), axes=(1,), keepdim=True))", "STB101"),
    ("log(exp(x))", "STB205"),
    ("log(prod(sigmoid(x), axes=(1,), keepdim=True))", "STB202"),
]


@pytest.mark.parametrize("host", ["fx", "onnx"])
@pytest.mark.parametrize(("body", "said"), FOUND)
def test_broken_values(body: str, said: str, host: str) -> None:
    proposal = assert_told(RULE, body, host=host)
    assert proposal.message == f"{said}, where an operand has left its format"
    assert (RULE.severity, RULE.poles) == ("error", False)


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body: str, ranges: Ranges) -> None:
    assert_not_told(RULE, body, ranges)


@pytest.mark.parametrize(("body", "code"), REPAIRED)
def test_what_is_repaired_is_told_by_what_repairs_it(body: str, code: str) -> None:
    assert Outcome(body, Options(hazards=True)).codes == [code]


@pytest.mark.parametrize(("limit", "kept"), [(20.0, True), (88.0, True), (100.0, False)])
def test_a_comparison_that_keeps_the_exponent_in_range(limit: float, kept: bool) -> None:
    """log1p(eˣ) that is looked at below a threshold only."""
    body = f"where(gt(x, {limit}), x, log1p(exp(x)))"
    assert (Outcome(body, Options(hazards=True)).codes == []) == kept

"""What a proposal changes in a graph, and how a rule speaks about itself."""

from __future__ import annotations

import pytest

from stabilize.passes.catalogue import SOFTMAX
from stabilize.passes.rule import Rule
from tests.passes.graphs import nested, read


def test_what_goes_and_what_comes():
    """Values that something else of the graph computes are kept, and new ones stand on them."""
    ctx, old = read("u = add(x, z)\nreturn div(exp(u), sum(exp(u), axes=(1,), keepdim=True))")
    e = old.operands[0]
    new = ctx.builder.make("softmax", e.operands[0], axis=1)
    change = ctx.change(old, new)
    assert sorted(map(nested, change.gone)) == sorted(map(nested, (e, old.operands[1], old)))
    assert change.added == (new,)


def test_a_value_of_the_host_that_the_old_one_does_not_need_is_added():
    ctx, old = read("return div(exp(x), exp(z)), tanh(w)")
    other = next(v for v in ctx.builder.graph if v.op == "tanh")
    new = ctx.builder.make("add", old.operands[0], other)
    change = ctx.change(old, new)
    assert set(change.added) == {new, other}
    assert old.operands[0] not in change.gone


def test_a_value_of_the_new_expression_is_followed_once():
    ctx, old = read("div(exp(x), exp(z))")
    half = ctx.builder.apply("mul", old.operands[0], 0.5)
    new = ctx.builder.make("add", half, half)
    added = ctx.change(old, new).added
    assert [nested(v) for v in added if v.op != "constant"] == [nested(new), nested(half)]


BROKEN = "div(exp(x), sum(exp(x), axes=(1,), keepdim=True))"


@pytest.mark.parametrize(
    ("body", "op", "repairs"),
    [(BROKEN, "softmax", True), (BROKEN, "log", False), ("softmax(x, axis=1)", "softmax", False)],
)
def test_repairs(body, op, repairs):
    """A broken value goes, and none comes."""
    ctx, old = read(body)
    new = ctx.builder.make("softmax", ctx.builder.make("neg", old.operands[0]), axis=1)
    if op == "log":
        new = ctx.builder.make("log", new)
    assert ctx.repairs(old, new) is repairs


def test_nothing_is_repaired_by_itself_or_by_another_type():
    ctx, old = read(BROKEN)
    assert not ctx.repairs(old, old)
    assert not ctx.repairs(old, ctx.builder.cast(ctx.builder.make("softmax", old.operands[0], axis=1), "float16"))


def page(section: str) -> Rule:
    return Rule(
        "STB999", "name", frozenset(), SOFTMAX.match, f"# name\n\n## Why it is unstable\n{section}\n\n## Example\n"
    )


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ("It overflows.", "It overflows"),
        ("It overflows. And more.", "It overflows"),
        ("It overflows above 88.72 in\nfloat32: NaN. More.", "It overflows above 88.72 in float32: NaN"),
    ],
)
def test_the_reason_is_the_first_sentence(section, reason):
    assert page(section).reason == reason


def test_no_page_no_reason():
    assert Rule("STB999", "name", frozenset(), SOFTMAX.match, None).reason == ""


def test_a_proposal_of_a_rule():
    ctx, old = read(BROKEN)
    proposal = SOFTMAX.proposal(old, old.operands[0], old.operands[1])
    assert (proposal.rule, proposal.old, proposal.candidates) == (SOFTMAX, old, old.operands)
    assert (proposal.safety, proposal.message) == ("exact", "")
    told = SOFTMAX.proposal(old, safety=None, message="told")
    assert (told.candidates, told.safety, told.message) == ((), None, "told")
    assert ctx.options.form == "softmax"

"""Rules whose match is the engine itself: their pages are made from a table."""

from __future__ import annotations

import pytest

from stabilize.passes import catalogue
from stabilize.passes.rule import Rule
from tests.passes.graphs import read

RULES = [rule for rule in vars(catalogue).values() if isinstance(rule, Rule)]
_PAGE = """# naive-thing (STB199)

## What it does
Finds it.

## Why it is unstable
It overflows. Much.

## Example
    before(x)
→
    after(x)

## Shapes
Any.

## Error
None.

## Safety
exact: equal over the reals, certified on values and gradients.

## Source
A book."""


def test_a_page_has_every_section():
    rule = catalogue._rule(
        "STB199", "naive-thing", does="Finds it.", why="It overflows. Much.", before="before(x)", after="after(x)",
        error="None.", source="A book.", shapes="Any.",
    )  # fmt: skip
    assert rule.documentation == _PAGE
    assert rule.reason == "It overflows"
    assert (rule.code, rule.name, rule.severity, rule.ops) == ("STB199", "naive-thing", "error", frozenset())
    ctx, value = read("log(exp(x))")
    assert rule.match(ctx, value) is None


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_a_rule_is_found_by_the_engine_alone(rule):
    ctx, value = read("log(exp(x))")
    assert rule.match(ctx, value) is None
    assert rule.ops == frozenset()
    assert str(rule.documentation).startswith(f"# {rule.name} ({rule.code})\n")
    assert str(rule.documentation).count("\n## ") == 7

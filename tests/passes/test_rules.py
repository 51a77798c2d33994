"""Every rule in one list, each with a whole page and a code of the scheme."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from stabilize.passes import rules
from stabilize.passes.hazards import HAZARDS
from stabilize.passes.rule import Rule

PASSES = Path(__file__).resolve().parents[2] / "passes"
TITLES = ["What it does", "Why it is unstable", "Example", "Shapes", "Error", "Safety", "Source"]

every_rule = pytest.mark.parametrize("rule", rules.ALL, ids=lambda rule: rule.code)


def rules_with_files() -> set[str]:
    """Codes of the rules that stand in files of their own, by their first lines."""
    titles = (
        (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
        for folder in ("cancellation", "hazards", "forms")
        for path in (PASSES / folder).glob("*.py")
    )
    return {title[-7:-1] for title in titles if title.startswith("# ")}


def test_no_rule_is_missing() -> None:
    assert rules_with_files() <= rules.BY_CODE.keys()
    assert len(rules_with_files()) > 30


def test_codes_and_names_are_unique() -> None:
    assert len({rule.code for rule in rules.ALL}) == len({rule.name for rule in rules.ALL}) == len(rules.ALL)
    assert [rule.code for rule in rules.ALL] == sorted(rules.BY_CODE)


@every_rule
def test_codes_and_names_are_of_the_scheme(rule: Rule) -> None:
    assert re.fullmatch(r"STB[1-8]\d\d", rule.code)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", rule.name)


@every_rule
def test_pages_are_whole(rule: Rule) -> None:
    page = rule.documentation or ""
    assert page.startswith(f"# {rule.name} ({rule.code})\n")
    assert [line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")] == TITLES
    assert all(rule.section(title) for title in TITLES)


@every_rule
def test_what_is_read_off_a_page(rule: Rule) -> None:
    for sentence in (rule.summary, rule.reason):
        assert 10 < len(sentence) < 260
        assert not sentence.endswith(".")
        assert "\n" not in sentence
    assert (rule.safety is None) == (rule in HAZARDS)
    assert rule.fixable == (rule.safety in ("exact", "approximate"))
    assert rule.remedy
    assert "→" not in rule.remedy.splitlines()


def rule_of(page: str) -> Rule:
    return Rule("STB299", "x", frozenset(), lambda ctx, value: None, page)


def test_the_remedy_is_that_of_the_first_example() -> None:
    one = rule_of("## Example\n    a\n→\n    b = 1\n    c(b)\n\nWhere, else.\n\n## Safety\nnone: nothing does.\n")
    two = rule_of("## Example\n    a\n→\n    b\n    c\n→\n    d\n\n## Safety\nexact\n")
    without = rule_of("## Example\n    a\n\n## Safety\nnone: keep it small. Or not.\n")
    assert [rule.remedy for rule in (one, two, without)] == ["b = 1\nc(b)", "b", "none: keep it small"]
    assert (one.safety, one.fixable, two.safety, two.fixable) == (None, False, "exact", True)


def test_a_page_that_is_not_there() -> None:
    rule = rule_of("")
    assert (rule.summary, rule.reason, rule.safety, rule.remedy, rule.section("Error")) == ("", "", None, "", "")


@pytest.mark.parametrize(
    ("code", "expected"), [("STB1", True), ("STB101", True), ("S", True), ("STB9", False), ("", False)]
)
def test_known_codes_and_beginnings(code: str, expected: bool) -> None:
    assert rules.known(code) is expected

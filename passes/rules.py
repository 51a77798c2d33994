"""Every rule there is, in one place: what `select` may name, what `stabilize rules` lists and `explain` shows."""

from __future__ import annotations

from stabilize.passes.cancellation import BEFORE_FAMILY, INTEGER_RULES, RULES
from stabilize.passes.catalogue import CATALOGUE
from stabilize.passes.coarse_operator import RULE as COARSE
from stabilize.passes.hazards import HAZARDS
from stabilize.passes.rule import Rule

#: In the order of their codes.
ALL: tuple[Rule, ...] = tuple(
    sorted(
        (*CATALOGUE, *BEFORE_FAMILY, *RULES, *INTEGER_RULES, *HAZARDS, COARSE), key=lambda rule: (rule.code, rule.name)
    )
)

BY_CODE: dict[str, Rule] = {rule.code: rule for rule in ALL}


def known(code: str) -> bool:
    """Whether a rule has this code, or one that begins with it."""
    return bool(code) and any(rule.code.startswith(code) for rule in ALL)

"""Local rules against cancellation: one rule, one file. The order of `RULES` is the order they are asked in."""

from __future__ import annotations

from stabilize.passes.cancellation import (
    complementary_power,
    exp_minus_one,
    gumbel,
    iterated_exp,
    log_one_minus_exp,
    log_one_minus_tanh_squared,
    log_one_plus,
    log_product,
    self_information,
    shifted_softmax_one,
)
from stabilize.passes.rule import Rule

RULES: tuple[Rule, ...] = (
    log_one_minus_tanh_squared.RULE,
    log_one_minus_exp.RULE,
    log_product.RULE,
    gumbel.RULE,
    log_one_plus.RULE,
    complementary_power.RULE,
    exp_minus_one.RULE,
    iterated_exp.RULE,
    self_information.RULE,
    shifted_softmax_one.RULE,
)

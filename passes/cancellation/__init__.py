"""Local rules against cancellation: one rule, one file. The order of `RULES` is the order they are asked in."""

from __future__ import annotations

from stabilize.passes.cancellation import (
    complement_of_erf,
    complement_of_sigmoid,
    complementary_power,
    exp_minus_one,
    float16_accumulation,
    gumbel,
    iterated_exp,
    log_of_difference,
    log_one_minus_tanh_squared,
    log_one_plus,
    mask_beyond_format,
    naive_norm,
    naive_normalisation,
    naive_variance,
    relative_increment,
    self_information,
    shifted_softmax_one,
)
from stabilize.passes.rule import Rule

#: Asked before the softmax family: sharper than what it would emit.
BEFORE_FAMILY: tuple[Rule, ...] = (log_one_minus_tanh_squared.RULE,)

RULES: tuple[Rule, ...] = (
    naive_normalisation.RULE,
    naive_variance.RULE,
    naive_norm.RULE,
    float16_accumulation.RULE,
    mask_beyond_format.RULE,
    log_of_difference.RULE,
    gumbel.RULE,
    log_one_plus.RULE,
    complementary_power.RULE,
    complement_of_sigmoid.RULE,
    complement_of_erf.RULE,
    relative_increment.RULE,
    exp_minus_one.RULE,
    iterated_exp.RULE,
    self_information.RULE,
    shifted_softmax_one.RULE,
)

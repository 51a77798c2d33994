"""Local rules against cancellation: one rule, one file. The order of `RULES` is the order they are asked in."""

from __future__ import annotations

from stabilize.passes.cancellation import (
    arccos_of_rounded_cosine,
    cancelling_roots,
    cast_out_of_range,
    complement_of_erf,
    complement_of_sigmoid,
    complementary_power,
    difference_of_squares,
    erfc_times_gaussian,
    exp_minus_one,
    float16_accumulation,
    fully_masked_row,
    gumbel,
    inverse_erf_of_rounded,
    inverse_hyperbolic_by_log,
    inverse_near_one,
    iterated_exp,
    law_of_cosines,
    log_of_difference,
    log_of_normal_cdf,
    log_of_sigmoid_difference,
    log_one_minus_tanh_squared,
    log_one_plus,
    mask_beyond_format,
    naive_norm,
    naive_normalisation,
    naive_variance,
    narrow_accumulator,
    one_minus_cosine,
    opposite_exponentials,
    relative_increment,
    root_of_zero,
    scores_before_scaling,
    self_information,
    shifted_softmax_one,
    zero_over_zero,
)
from stabilize.passes.rule import Rule

#: Asked before the softmax family: sharper than what it would emit.
BEFORE_FAMILY: tuple[Rule, ...] = (log_one_minus_tanh_squared.RULE,)

RULES: tuple[Rule, ...] = (
    naive_normalisation.RULE,
    naive_variance.RULE,
    naive_norm.RULE,
    float16_accumulation.RULE,
    scores_before_scaling.RULE,
    mask_beyond_format.RULE,
    fully_masked_row.RULE,
    log_of_sigmoid_difference.RULE,
    log_of_normal_cdf.RULE,
    inverse_hyperbolic_by_log.RULE,
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
    inverse_near_one.RULE,
    arccos_of_rounded_cosine.RULE,
    inverse_erf_of_rounded.RULE,
    erfc_times_gaussian.RULE,
    law_of_cosines.RULE,
    one_minus_cosine.RULE,
    opposite_exponentials.RULE,
    cancelling_roots.RULE,
    difference_of_squares.RULE,
    zero_over_zero.RULE,
    root_of_zero.RULE,
)

#: Asked about integers, which the others are not.
INTEGER_RULES: tuple[Rule, ...] = (cast_out_of_range.RULE, narrow_accumulator.RULE)

"""What breaks and no rewrite repairs: looked for by the lint alone. One rule, one file."""

from __future__ import annotations

from stabilize.passes.hazards import (
    beyond_format,
    division_by_zero,
    expanded_distance,
    guard_lost_in_export,
    indeterminate_form,
    inverse_at_its_end,
    log_of_zero,
    quantized_probabilities,
    unbounded_exponential,
)
from stabilize.passes.rule import Rule

#: Asked in this order, after every rule that repairs.
HAZARDS: tuple[Rule, ...] = (
    log_of_zero.RULE,
    beyond_format.RULE,
    indeterminate_form.RULE,
    division_by_zero.RULE,
    expanded_distance.RULE,
    inverse_at_its_end.RULE,
    unbounded_exponential.RULE,
    quantized_probabilities.RULE,
    guard_lost_in_export.RULE,
)

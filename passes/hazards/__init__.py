"""What breaks and no rewrite repairs: looked for by the lint alone. One rule, one file."""

from __future__ import annotations

from stabilize.passes.rule import Rule

#: Asked in this order, after every rule that repairs.
HAZARDS: tuple[Rule, ...] = ()

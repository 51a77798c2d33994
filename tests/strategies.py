"""Help for property tests: graphs copied from one builder to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stabilize.graph.build import Builder
from stabilize.graph.value import Value, cone


def rebuild(builder: Builder, roots: Sequence[Value], leaves: Mapping[Value, Value]) -> list[Value]:
    """`roots`, made anew by `builder` from other leaves."""
    made: dict[Value, Value] = dict(leaves)
    for value in cone(roots, leaves):
        if value not in made:
            made[value] = builder.make(value.op, *(made[o] for o in value.operands), **dict(value.attrs))
    return [made[root] for root in roots]

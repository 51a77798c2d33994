"""A semantic view: what a frontend read from a host graph, and what a pass wants changed in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import final

from stabilize.graph.build import Builder
from stabilize.graph.value import Value


@final
@dataclass(frozen=True)
class View:
    """The values of a host graph.

    builder: makes new values in the view's graph.
    bindings: host value name → semantic value, in an order in which the host computes them.
    outputs: the semantic values that leave the model (or are needed by it: mutations, nested graphs).
    sources: host value name → (module path, file, line), as far as the host knows them.
    parameters: names of inputs that are weights or buffers of the model rather than data.
    """

    builder: Builder
    bindings: dict[str, Value]
    outputs: tuple[Value, ...]
    sources: dict[str, Source] = field(default_factory=dict["str", "Source"])
    parameters: frozenset[str] = frozenset()

    def names(self) -> Mapping[Value, Sequence[str]]:
        """Semantic value → the host names that compute it, first computed first."""
        return self._names

    @cached_property
    def _names(self) -> dict[Value, list[str]]:
        result: dict[Value, list[str]] = {}
        for name, value in self.bindings.items():
            result.setdefault(value, []).append(name)
        return result


@final
@dataclass(frozen=True, slots=True)
class Source:
    """Where a host node came from in the user's code."""

    module: str | None = None
    file: str | None = None
    line: int | None = None


@final
@dataclass(frozen=True, slots=True)
class Replacement:
    """Compute `new` wherever the host computed `old`. Both belong to the view's graph and have one type."""

    old: Value
    new: Value

"""What the reader reads: one flat graph of pre-dispatch ATen operators, and how it relates to the host graph.

An ATen host graph is its own program. A torch-level graph is traced to one (see `fx_trace`), with a note of
which flat nodes each host node became.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias, final

import torch
from torch import fx

from stabilize.frontends.fx_modes import Modes
from stabilize.graph.value import Value
from stabilize.graph.view import View

Computed: TypeAlias = "fx.Node | tuple[Computed, ...] | None"
"""The flat node(s) that hold the result of a host node."""


@final
@dataclass(frozen=True)
class Leaf:
    """Where a flat placeholder or attribute comes from.

    name: name of the input in the view. data: the tensor behind it, if the host holds it.
    parameter: a weight or buffer of the model. constant: its content is part of the program.
    attribute: the module has it under this name.
    """

    name: str
    data: torch.Tensor | None = None
    parameter: bool = False
    constant: bool = False
    attribute: bool = False


@final
@dataclass(frozen=True)
class Program:
    """flat: the graph that is read; host: the graph that will be patched.

    computed: host node name → the flat nodes that hold its result.
    steps: flat node → position of the host node that ran it (−1: before the first).
    switched: flat nodes whose meaning a switch of a submodule decides (dropout); never read through.
    modes: what is switched on when the program starts.
    """

    flat: fx.Graph
    host: fx.Graph
    computed: Mapping[str, Computed]
    steps: Mapping[fx.Node, int]
    leaves: Mapping[fx.Node, Leaf]
    switched: frozenset[fx.Node] = frozenset()
    modes: Modes = field(default_factory=Modes)


@final
@dataclass(frozen=True, slots=True)
class Holding:
    """`node` holds `value` once host position `start` has run, until position `stop` writes over it (None: never)."""

    node: str
    value: Value
    start: int
    stop: int | None


@final
@dataclass(frozen=True)
class Facts:
    """What a patch of the host graph must respect, by host node name and position.

    groups: the memory groups that the result of a node may lie in.
    writes: the groups that a node writes to.
    external: groups that outlive the call (inputs, parameters, buffers, constants).
    effects: nodes that are never removed (random numbers, nested programs, unknown calls).
    modes: what is switched on before each position, and at the end.
    """

    groups: Mapping[str, frozenset[int]]
    writes: Mapping[str, frozenset[int]]
    external: frozenset[int]
    effects: frozenset[str]
    modes: Sequence[Modes]

    def sharing(self, memory: frozenset[int]) -> list[str]:
        """The nodes whose result may lie in one of these memory groups."""
        return list(dict.fromkeys(name for group in memory for name in self._members.get(group, ())))

    def writers(self, memory: frozenset[int]) -> list[str]:
        """The nodes that write to one of these memory groups."""
        return list(dict.fromkeys(name for group in memory for name in self._writers.get(group, ())))

    @cached_property
    def _members(self) -> dict[int, list[str]]:
        return _by_group(self.groups)

    @cached_property
    def _writers(self) -> dict[int, list[str]]:
        return _by_group(self.writes)


def _by_group(groups: Mapping[str, frozenset[int]]) -> dict[int, list[str]]:
    names: dict[int, list[str]] = {}
    for name, memory in groups.items():
        for group in memory:
            names.setdefault(group, []).append(name)
    return names


@final
@dataclass(frozen=True)
class Reading:
    """A view, and what is needed to patch the host from it.

    holdings: which host nodes hold a value, and when. data: the tensors behind leaves.
    fetchable: attributes of the module that nothing writes (with fakes), which a patch may read anywhere.
    """

    view: View
    holdings: Mapping[Value, list[Holding]]
    facts: Facts
    data: Mapping[Value, torch.Tensor]
    fetchable: Mapping[Value, torch.Tensor]


def own_program(graph: fx.Graph, leaves: Mapping[fx.Node, Leaf], modes: Modes | None = None) -> Program:
    """An ATen graph as its own program."""
    nodes = list(graph.nodes)
    return Program(
        flat=graph,
        host=graph,
        computed={n.name: n for n in nodes},
        steps={n: i for i, n in enumerate(nodes)},
        leaves=leaves,
        modes=modes or Modes(),
    )

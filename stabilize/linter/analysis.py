"""What is found in a host graph and in the graphs inside it, before anything is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import final

from stabilize.graph.host import Host
from stabilize.graph.value import Value
from stabilize.linter.known import Bounds, Weights
from stabilize.passes.hazards import HAZARDS
from stabilize.passes.propose import context, proposals
from stabilize.passes.rule import Context, Options, Proposal
from stabilize.pipeline import Request
from stabilize.records import Finding
from stabilize.scribe import Scribe


@final
@dataclass(frozen=True)
class Graph:
    """A host graph that has been read. path: where it stands in the model, "" for the main graph."""

    host: Host
    ctx: Context
    weights: Weights
    path: str


@final
@dataclass(frozen=True)
class Found:
    """A defect: the proposal that names it, and how it is told."""

    graph: Graph
    proposal: Proposal
    finding: Finding

    @property
    def replacement(self) -> Value | None:
        """What is proposed in the place of what was found, if anything is."""
        return next(iter(self.proposal.candidates), None)


def found_in(host: Host, options: Options, request: Request) -> Iterator[Found]:
    """Every defect in a host graph and the graphs inside it, in the order in which the host computes them."""
    yield from _in_graph(host, options, request, request.ranges, "")


def _in_graph(
    host: Host, options: Options, request: Request, ranges: Mapping[str, Bounds], path: str
) -> Iterator[Found]:
    view, weights = host.view, Weights(host)
    options = replace(options, inside=bool(path))
    graph = Graph(host, context(view, options, ranges, weights.numbers), weights, path)
    scribe = Scribe(view)
    for proposal in _met(graph, request):
        first = next(iter(proposal.candidates), None)
        finding = scribe.finding(proposal, first, fixable=first is not None)
        yield Found(graph, proposal, replace(finding, node=f"{path}/{finding.node}") if path else finding)
    for name, body in host.bodies().items():
        # what a body takes from outside is what it is there; what a loop carries may be anything
        inside = {n: _bounds(graph.ctx, view.bindings[n]) for n in body.outer_names if n in view.bindings}
        yield from _in_graph(body, options, request, inside, f"{path}/{name}" if path else name)


def _met(graph: Graph, request: Request) -> list[Proposal]:
    """What the rules propose, the first computed first, as if each first candidate were taken: what that replaces is
    not looked at."""
    met: list[Proposal] = []
    told: set[Value] = set()

    def take(proposal: Proposal) -> Value | None:
        if proposal.rule in HAZARDS and proposal.old in told:
            return None  # another name for what is told, or is not to be
        if not request.wants(proposal.rule.code):
            told.add(proposal.old)
            return None
        told.add(proposal.old)
        met.append(proposal)
        return proposal.candidates[0] if proposal.candidates else None

    proposals(graph.host.view, graph.ctx, take)
    return met[::-1]


def _bounds(ctx: Context, value: Value) -> Bounds:
    r = ctx.ranges.of(value)
    return r.lo, r.hi

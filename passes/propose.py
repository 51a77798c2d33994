"""Walk a view from its outputs inward and collect proposals: the outermost sink of each defect first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import TypeAlias

from stabilize.formats import is_float
from stabilize.graph.build import Builder
from stabilize.graph.value import Value, cone
from stabilize.graph.view import View
from stabilize.passes import family, fused
from stabilize.passes.cancellation import BEFORE_FAMILY, INTEGER_RULES, RULES
from stabilize.passes.emit import Emitter
from stabilize.passes.forms import collapse_free
from stabilize.passes.hazards import HAZARDS
from stabilize.passes.known import Known, unknown
from stabilize.passes.ranges import Ranges
from stabilize.passes.rule import Context, Options, Proposal, Rule
from stabilize.passes.scaled import Engine

Proposer: TypeAlias = Callable[[Context, Value], Proposal | None]


#: Asked in this order; the first that answers decides. A rule is asked about the primitives that it names.
PROPOSERS: tuple[Proposer | Rule, ...] = (
    collapse_free.propose,
    fused.propose_cross_entropy,
    fused.propose_binary_cross_entropy,
    fused.propose_attention,
    fused.propose_tanh,
    *BEFORE_FAMILY,
    lambda ctx, v: family.propose(ctx, v) if v.op in family.SINKS else None,
    *RULES,
)


def context(
    view: View, options: Options, ranges: Mapping[str, tuple[float, float]] | None = None, known: Known = unknown
) -> Context:
    """Read a view: the engine over every value the model computes."""
    view.builder.detaches = options.host != "onnx"
    engine = Engine(view.builder)
    host_size = len(view.builder.graph)
    given = {v: ranges[n] for n, v in view.bindings.items() if ranges and n in ranges}
    values = cone([*view.outputs, *view.bindings.values()])
    engine.read(values)
    # ONNX Runtime's Sigmoid is exactly 0 from x = −18 down; one that is emitted here is not spelled with it
    coarse = [v for v in values if v.op == "sigmoid"] if options.host == "onnx" else []
    intervals = Ranges(engine, given, coarse, known)
    emitter = Emitter(engine, host_size, intervals.bounds, coarse)
    branches = _branches(values, {*view.outputs})
    return Context(engine, intervals, emitter, options, branches, view.outputs, view.parameters)


def _branches(values: Iterable[Value], outputs: set[Value]) -> dict[Value, tuple[Value, bool]]:
    """What `Context.branches` says."""
    found: dict[Value, tuple[Value, bool]] = {}
    used = set(outputs)
    for value in values:
        for i, operand in enumerate(value.operands):
            if operand in used:
                found.pop(operand, None)
            elif value.op == "where" and i > 0:
                found[operand] = (value.operands[0], i == 1)
            used.add(operand)
    return found


def proposals(view: View, ctx: Context, accept: Callable[[Proposal], Value | None]) -> dict[Value, Value]:
    """Replacements, old → new. `accept` says which candidate of a proposal is taken (None: it is declined).

    Values are visited from the last to the first, so a value is seen after everything that uses it; what only a
    replaced value needed is never visited.
    """
    replaced: dict[Value, Value] = {}
    live = set(view.outputs)
    bound = set(view.bindings.values())
    host = cone(view.outputs)
    varying: set[Value] = set()
    for value in host:
        if value.op in ("input", "opaque") or any(o in varying for o in value.operands):
            varying.add(value)
    for value in reversed(host):
        if value not in live or value not in varying:
            continue
        if value not in bound:
            live.update(value.operands)
            continue
        new = _first(ctx, value, accept) or _inside(ctx, value, bound, accept)
        if new is None:
            live.update(value.operands)
        else:
            replaced[value] = new
            live.update(_needed(new, host_size=ctx.emitter.host_size))
    return replaced


def _asked(ctx: Context, value: Value) -> tuple[Proposer, ...]:
    """The proposers of rules that can end in `value`."""
    return _proposers(value.op, is_float(value.dtype) or value.op in family.INDEX_SINKS, ctx.options.hazards)


@cache
def _proposers(op: str, of_floats: bool, hazards: bool) -> tuple[Proposer, ...]:
    asked = (*(PROPOSERS if of_floats else INTEGER_RULES), *(HAZARDS if hazards else ()))
    return tuple(p.match if isinstance(p, Rule) else p for p in asked if not isinstance(p, Rule) or op in p.ops)


def _first(ctx: Context, value: Value, accept: Callable[[Proposal], Value | None]) -> Value | None:
    with ctx.emitter.sink():
        for proposer in _asked(ctx, value):
            proposal = proposer(ctx, value)
            if proposal is not None:
                taken = accept(proposal)
                if taken is not None:
                    return taken
    return None


def _inside(ctx: Context, value: Value, bound: set[Value], accept: Callable[[Proposal], Value | None]) -> Value | None:
    """A defect in what a host operator is made of (log2 x = log x / ln 2): the whole operator is replaced."""
    current: Value | None = None
    hidden = [v for v in _made_of(value, bound.__contains__) if v is not value]
    for inner in reversed(hidden):

        def taken(proposal: Proposal, inner: Value = inner) -> Value | None:
            whole = tuple(substitute(ctx.builder, value, inner, c) for c in proposal.candidates)
            return accept(replace(proposal, old=value, candidates=whole))

        current = _first(ctx, inner, taken)
        if current is not None:
            return current
    return None


def _made_of(value: Value, computed: Callable[[Value], bool]) -> list[Value]:
    """`value` and what the host has not `computed` by itself below it, in topological order."""
    seen: dict[int, Value] = {value.index: value}
    stack = list(value.operands)
    while stack:
        inner = stack.pop()
        if inner.index not in seen and not computed(inner) and inner.operands:
            seen[inner.index] = inner
            stack.extend(inner.operands)
    return [seen[i] for i in sorted(seen)]


def substitute(builder: Builder, root: Value, old: Value, new: Value) -> Value:
    """`root` with `new` in the place of `old`."""
    made: dict[Value, Value] = {old: new}
    for value in cone([root], [old]):
        if value is not old and any(made.get(o, o) is not o for o in value.operands):
            made[value] = builder.make(value.op, *(made.get(o, o) for o in value.operands), **dict(value.attrs))
    return made.get(root, root)


def uncovered(view: View, ctx: Context, replaced: Mapping[Value, Value]) -> Iterator[Proposal]:
    """What rules say of what `replaced` made: the new values, and what is computed from them.

    A reading ends at opaque values, so what is behind one reads as it did: where nothing is uncovered, the host need
    not be read again.
    """
    around = _remade(view, ctx, replaced)
    ctx.engine.read(around)
    emitter = Emitter(ctx.engine, len(ctx.builder.graph), ctx.ranges.bounds, ctx.emitter.coarse)
    later = replace(ctx, emitter=emitter)
    for value in around:
        with emitter.sink():
            answers = (proposer(later, value) for proposer in _asked(ctx, value))
            yield from (proposal for proposal in answers if proposal is not None)


def _remade(view: View, ctx: Context, replaced: Mapping[Value, Value]) -> list[Value]:
    """The values that are computed once `replaced` is, and were not before, up to opaque ones; topological order."""
    host_size = ctx.emitter.host_size
    made: dict[Value, Value] = {}
    around: dict[Value, None] = {}

    def remake(value: Value) -> Value:
        """`value` over what its operands are now."""
        operands = [made.get(o, o) for o in value.operands]
        if value.op == "opaque" or all(a is b for a, b in zip(operands, value.operands, strict=True)):
            return value
        return ctx.builder.make(value.op, *operands, **dict(value.attrs))

    for value in cone(view.outputs):
        if value in replaced:
            for inner in _made_of(replaced[value], lambda v: v.index < host_size):
                made[inner] = remake(inner)
                around[made[inner]] = None
            made[value] = made.get(replaced[value], replaced[value])
        else:
            new = remake(value)
            if new is not value:
                made[value] = new
                around[new] = None
    live = set(cone(made.get(o, o) for o in view.outputs))
    return [value for value in around if value in live]


def _needed(new: Value, host_size: int) -> Iterable[Value]:
    """The host's own values that a new expression stands on."""
    stack, seen = [new], set[Value]()
    while stack:
        value = stack.pop()
        if value in seen:
            continue
        seen.add(value)
        if value.index < host_size:
            yield value
        else:
            stack.extend(value.operands)

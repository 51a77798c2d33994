"""Apply replacements to a host graph, in place: emit, redirect uses, remove what became dead.

The caller passes a copy of the graph. Memory is respected throughout: a value that lives in memory which the
host writes later is replaced together with that memory, or the replacement is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import final

from torch import fx

from stabilize.errors import ModelError
from stabilize.frontends.fx_emit import EMIT
from stabilize.frontends.fx_program import Holding
from stabilize.frontends.fx_site import HostGraph, Place, symbol_source
from stabilize.frontends.fx_table import ASSERTIONS, VIEWS
from stabilize.frontends.fx_types import aten, operator_key
from stabilize.graph.value import Value
from stabilize.graph.view import Replacement

_SHAPED = ("reshape", "expand", "constant", "arange")


@final
class Refused(Exception):
    """A replacement cannot be made in this graph; the message says why, `missing` which value is not available."""

    def __init__(self, reason: str, missing: Value | None = None) -> None:
        super().__init__(reason)
        self.missing = missing


@final
@dataclass(frozen=True)
class Plan:
    """Where a replacement goes and what to emit there, operands first.

    A step (v, v) emits the primitive of v; a step (v, w) says that v, itself replaced elsewhere, is computed as w.
    """

    replacement: Replacement
    position: int
    steps: tuple[tuple[Value, Value], ...]


def apply(host: HostGraph, replacements: Sequence[Replacement]) -> None:
    """Make every replacement; ModelError when one is refused."""
    new = _well_founded({r.old: r.new for r in replacements})
    live = [r for r in replacements if r.new is not r.old]
    for replacement in sorted(live, key=lambda r: first_position(host, r)):
        try:
            _make(host, plan(host, replacement, new))
        except Refused as reason:
            raise ModelError(f"cannot replace {replacement.old}: {reason}") from reason
    sweep(host, [h.node for r in live for h in host.reading.holdings[r.old]])


def _well_founded(new: Mapping[Value, Value]) -> dict[Value, Value]:
    """The replacements that may also be used inside others: those whose new value does not lead back to the old."""
    usable = dict(new)
    while (culprit := _circular(usable)) is not None:
        usable.pop(culprit)
    return usable


def _circular(new: Mapping[Value, Value]) -> Value | None:
    """A replaced value that its replacement depends on, through operands and other replacements; None if none is."""
    done: set[Value] = set()
    for root in new:
        path: dict[Value, None] = {}
        stack = [root]
        while stack:
            value = stack[-1]
            if value in done or value in path:
                path.pop(stack.pop(), None)
                done.add(value)
                continue
            path[value] = None
            below = (new[value],) if value in new else value.operands
            back = next((b for b in below if b in path), None)
            if back is not None:
                circle = list(path)[list(path).index(back) :]
                return next(v for v in reversed(circle) if v in new)
            stack.extend(below)
    return None


def refusal(host: HostGraph, replacement: Replacement) -> str | None:
    """Why a replacement cannot be made in this graph, or None."""
    if replacement.new is replacement.old:
        return None
    try:
        plan(host, replacement, {replacement.old: replacement.new})
        for holders in by_memory(host, replacement.old):
            strategy(host, replacement.old, holders)
    except (Refused, ModelError) as reason:
        return str(reason)
    return None


def unavailable(host: HostGraph, value: Value) -> str | None:
    """Why `value` could not be computed at the end of the graph, or None."""
    try:
        _steps(host, value, None, len(host.nodes) - 1, {})
    except Refused as reason:
        return str(reason)
    return None


# --- planning -----------------------------------------------------------------------------------------------


def first_position(host: HostGraph, replacement: Replacement) -> int:
    """Position of the first host node that computes `old` (after the inputs, which stay together)."""
    holdings = host.reading.holdings.get(replacement.old)
    if not holdings:
        raise ModelError(f"no node of the graph computes {replacement.old}")
    return max(min(h.start for h in holdings), host.first_call)


def plan(host: HostGraph, replacement: Replacement, new: Mapping[Value, Value]) -> Plan:
    """Before the first node that computes `old`; else before its first use; else before an operand is overwritten."""
    if replacement.old.type != replacement.new.type:
        raise Refused(f"the replacement has type {replacement.new.type}, not {replacement.old.type}")
    first = first_position(host, replacement)
    uses = [host.when(u) for h in host.reading.holdings[replacement.old] for u in host.by_name[h.node].users]
    positions = [first, int(min((u for u in uses if u > first), default=first))]
    refused: Refused | None = None
    while positions:
        position = positions.pop(0)
        try:
            made = Plan(replacement, position, _steps(host, replacement.new, replacement.old, position, new))
            _rehearse(host, made)
            return made
        except Refused as reason:
            refused = refused or reason
            if not positions:
                positions = _before_overwriting(host, reason.missing, position)
    raise refused or Refused("nowhere to put it")


def _rehearse(host: HostGraph, plan: Plan) -> None:
    """Refuse what autocast would not compute as it is written: emit it, and take it out again."""
    if not host.modes(plan.position).autocast:
        return
    with host.undone():
        place = Place(host, plan.position, host.nodes[plan.position])
        try:
            place.emit(plan.steps)
            place.node(plan.replacement.new)
        except ModelError as reason:
            raise Refused(str(reason)) from reason


def _before_overwriting(host: HostGraph, missing: Value | None, position: int) -> list[int]:
    """The last position before `position` at which a value that was overwritten is still there."""
    holdings = host.reading.holdings.get(missing, []) if missing is not None else []
    stops = [h.stop for h in holdings if h.stop is not None and host.first_call <= h.stop < position]
    return [max(stops)] if stops else []


def _steps(
    host: HostGraph, root: Value, old: Value | None, position: int, new: Mapping[Value, Value]
) -> tuple[tuple[Value, Value], ...]:
    """What to emit at `position` for `root`, which replaces `old`: whatever is not known there, operands first."""
    steps: dict[Value, Value] = {}
    opened: set[Value] = set()
    stack = [root]
    while stack:
        value = stack.pop()
        if value in steps or value in host.reading.fetchable or host.known(value, position) is not None:
            continue
        substitute = new.get(value, value) if value is not old else value
        if value in opened:
            steps[value] = substitute
            continue
        opened.add(value)
        if substitute is value and value is not root and host.is_free(value, position):
            stack.extend(value.operands)
            continue
        stack.append(value)
        if substitute is not value and substitute not in opened:
            stack.append(substitute)
            continue
        _check(host, value, position)
        # constants are made on demand: most become Python numbers
        stack.extend(o for o in reversed(value.operands) if o.op != "constant")
    return tuple(steps.items())


def _check(host: HostGraph, value: Value, position: int) -> None:
    """Refuse a value that cannot be computed at `position`."""
    if value.op not in EMIT:
        where = host.nodes[position].name
        raise Refused(f"{value} is not available before '{where}' and cannot be recomputed", value)
    for shape in (v.shape for v in (value, *value.operands) if v.op in _SHAPED):
        missing = [d for d in shape if isinstance(d, str) and symbol_source(host, d, position) is None]
        if missing:
            raise Refused(f"nothing computes the size {', '.join(missing)} before '{host.nodes[position].name}'")


# --- one replacement ------------------------------------------------------------------------------------------


def _make(host: HostGraph, plan: Plan) -> None:
    """Emit the new value and let it take the place of the old one."""
    old, new = plan.replacement.old, plan.replacement.new
    holdings = host.reading.holdings[old]
    template = host.nodes[min(h.start for h in holdings)]
    strategies = [(holders, strategy(host, old, holders)) for holders in by_memory(host, old)]
    place = Place(host, plan.position, template)
    before = len(host.created)
    place.emit(plan.steps)
    result = place.node(new)
    if _needs_own_memory(host, result, [host.by_name[h.node] for h in holdings]):
        result = place.new(aten("clone.default"), (result,), {})
    own = set(islice(host.created, before, None))
    for holders, how in strategies:
        if how == "write back":
            _write_back(host, holders, result)
            continue
        shared = _is_returned(result) and any(_is_returned(host.by_name[h.node]) for h in holders)
        own_result = place.new(aten("clone.default"), (result,), {}) if how == "own memory" or shared else result
        _redirect(host, holders, own_result, own)
    host.replaced[old, host.grad_off(plan.position)] = result


def by_memory(host: HostGraph, value: Value) -> list[list[Holding]]:
    """The holdings of a value, those that may share memory together."""
    groups: dict[frozenset[int], list[Holding]] = {}
    for holding in host.reading.holdings[value]:
        groups.setdefault(host.reading.facts.groups.get(holding.node, frozenset()), []).append(holding)
    return list(groups.values())


def strategy(host: HostGraph, value: Value, holders: list[Holding]) -> str:
    """How to replace a value held in one memory group.

    "redirect": nobody writes that memory any more, so uses can go to the new node.
    "own memory": the host writes it later; all of its life after this point moves to a clone of the new node.
    "write back": others see this memory; the node that wrote the old value copies the new one in instead.
    """
    facts = host.reading.facts
    start = min(h.start for h in holders)
    memory = facts.groups.get(holders[0].node, frozenset[int]())
    writers = [host.by_name[n] for n in facts.writers(memory) if n in host.by_name]
    if all(host.position[w] < start for w in writers):
        return "redirect"
    names = {h.node for h in holders}
    others = [o for o in _older(host, memory, start) if o not in names]
    seen = any(host.users_after(other, start) for other in others)
    if not seen and not memory & facts.external:
        return "own memory" if any(host.position[w] > start for w in writers) else "redirect"
    writer = host.nodes[start]
    if writer in writers and operator_key(writer.target) is not None and writer.name in names:
        return "write back"
    raise Refused(f"'{host.nodes[start].name}' lies in memory that is written later and seen elsewhere")


def _older(host: HostGraph, memory: frozenset[int], start: int) -> list[str]:
    """The nodes that may lie in a memory group and were there by position `start`."""
    names = host.reading.facts.sharing(memory)
    return [n for n in names if n in host.by_name and host.position[host.by_name[n]] <= start]


def _needs_own_memory(host: HostGraph, result: fx.Node, holders: list[fx.Node]) -> bool:
    """Whether handing out `result` itself would let two names share memory that they did not share before."""
    if result not in host.position:
        return False
    returned = any(user.op == "output" for holder in holders for user in holder.users)
    return host.written(result) or (returned and host.external(result))


def _is_returned(node: fx.Node) -> bool:
    """Whether a node, or a view of it, is returned: two results that are one would change together."""
    return any(u.op == "output" or (operator_key(u.target) in VIEWS and _is_returned(u)) for u in node.users)


def _redirect(host: HostGraph, holders: list[Holding], result: fx.Node, own: set[fx.Node]) -> None:
    """Let the users of the old value, from the moment that it is held, use `result`, and `result` live on there."""
    start = min(h.start for h in holders)
    names = {h.node for h in holders}
    for holding in holders:
        node = host.stand_in(holding.node, holding.start)
        for user in host.users_after(holding.node, holding.start):
            if node is not None and user not in own and user is not result:
                user.replace_input_with(node, result)
    memory = host.reading.facts.groups.get(holders[0].node, frozenset[int]())
    for name in _older(host, memory, start):
        host.move(name, start, result if name in names else None)


def _write_back(host: HostGraph, holders: list[Holding], result: fx.Node) -> None:
    """Turn the in-place operator that wrote the old value into a copy of the new one."""
    writer = host.nodes[min(h.start for h in holders)]
    target = writer.args[0]
    writer.target = aten("copy_.default")
    writer.args = (target, result)
    writer.kwargs = {}


# --- what became dead -----------------------------------------------------------------------------------------


def sweep(host: HostGraph, seeds: Iterable[str]) -> None:
    """Remove nodes that only the replaced computation needed: pure, unused, and writing to nothing that is read."""
    queue = [host.by_name[name] for name in seeds]
    erased: set[fx.Node] = set()
    while queue:
        node = queue.pop()
        if node in erased or not _removable(host, node):
            continue
        for user in list(node.users):  # assertions about a value that is gone
            host.graph.erase_node(user)
            erased.add(user)
        inputs = list(node.all_input_nodes)
        host.graph.erase_node(node)
        erased.add(node)
        queue.extend(inputs)
        queue.extend(n for n in _writers_to(host, node) if n not in erased)


def _removable(host: HostGraph, node: fx.Node) -> bool:
    facts = host.reading.facts
    if node.op in ("placeholder", "output") or any(not _is_assertion(user) for user in node.users):
        return False
    if node not in host.position:
        return True
    if node.name in facts.effects:
        return False
    written = facts.writes.get(node.name, frozenset[int]())
    if written & facts.external:
        return False
    position = host.position[node]
    return not any(
        user is not node and not _is_assertion(user)
        for name in facts.sharing(written)
        if name in host.by_name
        for user in host.users_after(name, position)
    )


def _writers_to(host: HostGraph, node: fx.Node) -> list[fx.Node]:
    """The nodes that write to the memory of a node."""
    facts = host.reading.facts
    memory = facts.groups.get(node.name, frozenset[int]())
    return [host.by_name[n] for n in facts.writers(memory) if n in host.by_name]


def _is_assertion(node: fx.Node) -> bool:
    return operator_key(node.target) in ASSERTIONS

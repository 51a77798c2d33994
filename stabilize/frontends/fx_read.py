"""Read a flat ATen graph into a semantic view.

Each node is translated by the row of its operator; what has no row, or whose translation does not have the
type that PyTorch recorded, becomes an opaque value. Writes are followed: after `div_(a, b)` the node `a`
holds the quotient, and every view of `a` is recomputed or, where that is not certain, becomes opaque.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import cast, final

import torch
from torch import fx
from torch.utils import _pytree as pytree

from stabilize.errors import ShapeError
from stabilize.formats import is_float
from stabilize.frontends.fx_alias import Memory
from stabilize.frontends.fx_autocast import concerns, fake_mode_of, run, same_types
from stabilize.frontends.fx_call import Call, Read, Unreadable
from stabilize.frontends.fx_modes import Switches, modes_before
from stabilize.frontends.fx_program import Facts, Holding, Leaf, Program, Reading
from stabilize.frontends.fx_table import ASSERTIONS, READ, VIEWS, functional_key
from stabilize.frontends.fx_types import (
    Fake,
    Operator,
    dim_of,
    dtype_name,
    fake_of,
    input_nodes,
    is_number,
    operator_key,
    operator_of,
    parameters_of,
    parts_of,
    source_of,
    target_of,
    tensor_type,
)
from stabilize.graph.build import Builder
from stabilize.graph.value import TensorType, Value, gradient_free
from stabilize.graph.view import Source, View

_UNIFORM_LIMIT = 100_000
_UNINITIALISED = ("empty", "new_empty", "resize")


def read(program: Program) -> Reading:
    """The semantic view of a program."""
    return _Reader(program).run()


@final
class _Reader:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.b = Builder()
        self.values: dict[fx.Node, Read] = {}
        self.history: dict[fx.Node, list[tuple[int, Value]]] = {}
        self.memory = Memory(program.flat)
        self.effects: dict[fx.Node, tuple[Value, ...]] = {}
        self.results: list[Value] = []
        self.parameters: set[str] = set()
        self.data: dict[Value, torch.Tensor] = {}
        self.fetchable: dict[Value, torch.Tensor] = {}
        self.position = -1
        self.switches = Switches(program.modes)
        self.free: dict[int, bool] = {}

    def run(self) -> Reading:
        for node in self.program.flat.nodes:
            self.position = self.program.steps.get(node, -1)
            self.visit(node)
        return self.reading()

    # --- one node -----------------------------------------------------------------------------------------

    def visit(self, node: fx.Node) -> None:
        match node.op:
            case "placeholder" | "get_attr":
                self.hold(node, self.leaf(node))
            case "output":
                self.results.extend(self.operands(node))
            case _ if self.switches.visit(node):
                self.effects[node] = ()
            case _ if node.target is operator.getitem:
                self.hold(node, self.element(node))
            case _ if operator_key(node.target) in ASSERTIONS:
                self.values[node] = None
            case _ if node in self.memory.writes:
                self.write(node)
            case _:
                self.hold(node, self.translate(node))

    def current(self, node: fx.Node) -> Iterator[Value]:
        """The values that `node` holds now."""
        read = self.values.get(node)
        for value in read if isinstance(read, tuple) else (read,):
            if value is not None:
                yield value

    def operands(self, node: fx.Node) -> tuple[Value, ...]:
        return tuple(self.graded(v) for a in input_nodes((node.args, node.kwargs)) for v in self.current(a))

    def graded(self, value: Value) -> Value:
        """A value as it is read here: what is computed while gradients are off carries none of its operands'."""
        if self.switches.modes.grad or gradient_free(value, self.free):
            return value
        return self.b.make("detach", value)

    def hold(self, node: fx.Node, read: Read) -> None:
        self.values[node] = read
        if isinstance(read, Value):
            self.history.setdefault(node, []).append((self.position, read))

    def element(self, node: fx.Node) -> Read:
        """One result of a multi-output operator."""
        parent, index = node.args
        read = self.values.get(parent) if isinstance(parent, fx.Node) else None
        if isinstance(read, tuple) and isinstance(index, int) and -len(read) <= index < len(read):
            return read[index]
        return self.opaque(node, unique=True)

    # --- leaves -------------------------------------------------------------------------------------------

    def leaf(self, node: fx.Node) -> Read:
        fake = fake_of(node)
        leaf = self.program.leaves.get(node, Leaf(node.name))
        tensor = fake if isinstance(fake, torch.Tensor) else leaf.data
        if not isinstance(tensor, torch.Tensor):
            return None
        type = tensor_type(tensor)
        if leaf.constant and leaf.data is not None and not self.memory.is_written(node):
            known = self.content(leaf.data, type)
            if known is not None:
                return known
        value = self.b.input(leaf.name, type)
        if leaf.parameter:
            self.parameters.add(leaf.name)
        if leaf.data is not None:
            self.data[value] = leaf.data
        if leaf.attribute and not self.memory.is_written(node):
            self.fetchable[value] = tensor
        return value

    def content(self, data: torch.Tensor, type: TensorType) -> Value | None:
        """A constant tensor as `constant` or `arange`, when its elements are equal or count from 0."""
        if not 0 < data.numel() <= _UNIFORM_LIMIT or type.dtype == "other" or data.is_meta:
            return None
        flat = data.detach().reshape(-1)
        first = flat[0].item()
        if bool((flat == flat[0]).all()) or (first != first and bool(flat.isnan().all())):
            return self.b.constant(first, type.dtype, type.shape)
        long = [i for i, d in enumerate(data.shape) if d != 1]
        if len(long) == 1 and not is_float(type.dtype) and type.dtype != "bool":
            counted = torch.arange(len(flat), dtype=data.dtype, device=data.device)
            if bool((flat == counted).all()):
                values = self.b.make("arange", size=len(flat), dtype=type.dtype)
                return self.b.unsqueeze(values, [i for i in range(type.rank) if i not in long])
        return None

    # --- calls --------------------------------------------------------------------------------------------

    def translate(self, node: fx.Node) -> Read:
        """The value(s) of a call by the table, else opaque; None for a call that returns no tensor."""
        fake = fake_of(node)
        if is_number(fake):
            return None
        if fake is None:
            self.effects[node] = self.operands(node)
            return None
        read = self.by_table(node, operator_key(node.target))
        if read is None:
            return self.opaque(node)
        if isinstance(read, tuple):
            parts = parts_of(fake)
            return tuple(
                self.opaque_of(node, part, i) if v is None else v
                for i, (v, part) in enumerate(zip(read, parts, strict=True))
            )
        return read

    def by_table(self, node: fx.Node, key: str | None) -> Value | tuple[Value | None, ...] | None:
        """The translation, if there is a row and the result has the recorded types."""
        row = READ.get(key) if key is not None and node not in self.program.switched else None
        target = operator_of(target_of(node))
        if row is None or target is None:
            return None
        if any(v.dtype == "other" for v in self.operands(node)):
            return None
        casts = self.casts(node, target)
        if casts is None:
            return None

        def argument(given: fx.Node) -> Read:
            value = self.values.get(given)
            if not isinstance(value, Value):
                return value
            dtype = casts.get(given)
            return self.graded(value if dtype is None else self.b.cast(value, dtype))

        call = Call(self.b, node, target, argument)
        try:
            read = row(call)
        except (Unreadable, ShapeError):
            return None
        values = read if isinstance(read, tuple) else (read,)
        if len(values) != len(call.outs):
            return None
        agree = all(v is None or (v.type == t and t.dtype != "other") for v, t in zip(values, call.outs, strict=True))
        return read if agree else None

    def casts(self, node: fx.Node, target: Operator) -> dict[fx.Node, str] | None:
        """What autocast casts of the arguments of a call; None when it does more than that."""
        modes = self.switches.modes
        arguments = list(input_nodes((node.args, node.kwargs)))
        fakes = {a: fake_of(a) for a in arguments}
        if not concerns(list(fakes.values()), {}, modes):
            return {}

        def fake(argument: object) -> object:
            return fakes[argument] if isinstance(argument, fx.Node) else argument

        args, kwargs = pytree.tree_map(fake, node.args), pytree.tree_map(fake, node.kwargs)
        ran = run(target, args, kwargs, modes, fake_mode_of(fakes.values()))
        if ran.casts is None or not same_types(ran.result, fake_of(node)):
            return None
        return {a: dtype_name(d) for t, d in ran.casts for a, f in fakes.items() if f is t}

    # --- opaque values ------------------------------------------------------------------------------------

    def opaque(self, node: fx.Node, unique: bool = False) -> Read:
        """The result of a call that the vocabulary cannot express."""
        fake = fake_of(node)
        if isinstance(fake, (list, tuple)):
            parts = parts_of(fake)
            return tuple(self.opaque_of(node, part, i, unique) for i, part in enumerate(parts))
        return self.opaque_of(node, fake, 0, unique)

    def opaque_of(self, node: fx.Node, fake: Fake, output: int, unique: bool = False) -> Value | None:
        if unique or unrepeatable(node):
            self.effects[node] = self.operands(node)
            return self.unknown(f"{node.target} {self.identity(node)}", self.operands(node), fake, output)
        return self.unknown(spelling(node), self.operands(node), fake, output)

    def unknown(self, name: str, operands: tuple[Value, ...], fake: Fake, output: int = 0) -> Value | None:
        if not isinstance(fake, torch.Tensor):
            return None
        return self.b.opaque(name, operands, tensor_type(fake), output)

    def identity(self, node: fx.Node) -> str:
        """A mark that no other call, and no other moment of this one, has."""
        return f"#{node.name}.{self.position}"

    # --- writes -------------------------------------------------------------------------------------------

    def write(self, node: fx.Node) -> None:
        """A call that writes to its arguments: the written nodes and their views get new values."""
        targets = self.memory.writes[node]
        new = self.in_place(node, targets[0]) if len(targets) == 1 else None
        before = self.operands(node)
        self.effects[node] = before
        self.hold(node, self.opaque(node, unique=True) if new is None else new)
        for target in targets:
            name = f"written by {node.name} {self.identity(target)}"
            written = self.unknown(name, before, fake_of(target)) if new is None else new
            self.refresh(node, target, written)

    def in_place(self, node: fx.Node, target: fx.Node) -> Value | None:
        """The value written by an in-place operator, as its functional counterpart computes it."""
        key = operator_key(node.target)
        others = [a for a in input_nodes((node.args, node.kwargs)) if a is not target]
        if key is None or fake_of(node) is None or node.args[0] is not target:
            return None
        if any(self.memory.together(o, target) for o in others):
            return None
        if not self.switches.modes.grad and not all(gradient_free(v, self.free) for v in self.current(target)):
            return None  # what is written while gradients are off keeps the gradient of what was there
        dtype = tensor_type(fake_of(target)).dtype
        promoted = any(is_float(v.dtype) and v.dtype != dtype for o in others for v in self.current(o))
        if promoted and key != "copy_.default":
            return None  # computed in the wider dtype and rounded once, which no row spells
        read = self.by_table(node, functional_key(key))
        return read if isinstance(read, Value) else None

    def refresh(self, writer: fx.Node, target: fx.Node, new: Value | None) -> None:
        """Give every node that may share memory with `target` its value after the write."""
        certain: set[fx.Node] = set()
        for member in self.memory.members(target):
            if self.values.get(member) is None or member is writer:
                continue
            if self.memory.origin(member) is self.memory.origin(target):
                self.hold(member, new)
                certain.add(member)
            elif is_view_of(member, certain):
                self.hold(member, self.translate(member))
                certain.add(member)
            else:
                self.hold(member, self.stale(member, writer))

    def stale(self, node: fx.Node, writer: fx.Node) -> Read:
        """`node` after a write to memory that it may share: something that depends on both."""
        operands = tuple(self.current(node)) + tuple(self.current(writer))
        name = f"stale after {writer.name} {self.identity(node)}"
        fake = fake_of(node)
        if isinstance(fake, (list, tuple)):
            return tuple(self.unknown(name, operands, part, i) for i, part in enumerate(parts_of(fake)))
        return self.unknown(name, operands, fake)

    # --- the result ---------------------------------------------------------------------------------------

    def reading(self) -> Reading:
        program = self.program
        holdings: dict[Value, list[Holding]] = {}
        bindings: dict[str, Value] = {}
        sources: dict[str, Source] = {}
        for position, node in enumerate(program.host.nodes):
            for holding in self.held(node, position):
                holdings.setdefault(holding.value, []).append(holding)
                bindings.setdefault(node.name, holding.value)
            source = source_of(node)
            if node.name in bindings and source is not None:
                sources[node.name] = source
        view = View(self.b, bindings, self.outputs(), sources, frozenset(self.parameters))
        return Reading(view, holdings, self.facts(), self.data, self.fetchable)

    def held(self, node: fx.Node, position: int) -> Iterator[Holding]:
        """What a host node holds and when, first first; moments inside one host node do not show."""
        flat = self.program.computed.get(node.name)
        moments = self.history.get(flat, []) if isinstance(flat, fx.Node) else []
        shown = [(max(start, position), value) for start, value in moments]
        for i, (start, value) in enumerate(shown):
            stop = shown[i + 1][0] if i + 1 < len(shown) else None
            if stop != start:
                yield Holding(node.name, value, start, stop)

    def outputs(self) -> tuple[Value, ...]:
        """What leaves the program: its results in order; then what it wrote to memory that outlives it, and what
        effects consume."""
        found: list[Value] = []
        for node in self.memory.written_leaves():
            found.extend(self.current(node))
        for node, operands in self.effects.items():
            if node in self.memory.writes or operator_key(node.target) is None:
                found.extend(operands)
        return (*self.results, *(v for v in dict.fromkeys(found) if v not in self.results))

    def facts(self) -> Facts:
        steps, computed = self.program.steps, self.program.computed
        names = {i: n.name for i, n in enumerate(self.program.host.nodes)}
        writes: dict[str, frozenset[int]] = {}
        for node, targets in self.memory.writes.items():
            name = names.get(steps.get(node, -1), "")
            writes[name] = writes.get(name, frozenset()) | {self.memory.group(t) for t in targets}
        effects = {
            names.get(steps.get(n, -1), "")
            for n in self.effects
            if not (n in self.memory.writes and operator_key(n.target) is not None)
        }
        return Facts(
            groups={name: frozenset(map(self.memory.group, input_nodes(flat))) for name, flat in computed.items()},
            writes=writes,
            external=self.memory.external(),
            effects=frozenset(effects),
            modes=tuple(modes_before(self.program.modes, self.program.host)),
        )


def unrepeatable(node: fx.Node) -> bool:
    """Whether two such calls on equal operands may differ, or do more than return a result."""
    target = operator_of(target_of(node))
    if target is None:
        return node.target is not operator.getitem
    if torch.Tag.nondeterministic_seeded in target.tags or any(p.written for p in parameters_of(target)):
        return True
    key = operator_key(target)
    return key is None or key.startswith(_UNINITIALISED)


def is_view_of(node: fx.Node, certain: set[fx.Node]) -> bool:
    """Whether `node` is a view, and nothing else, of one of `certain`."""
    parents = list(input_nodes((node.args, node.kwargs)))
    return operator_key(node.target) in VIEWS and len(parents) == 1 and parents[0] in certain


def spelling(node: fx.Node) -> str:
    """A call without its tensors: equal for calls that compute the same from equal tensors."""

    def text(argument: object) -> str:
        if isinstance(argument, fx.Node):
            fake = fake_of(argument)
            return str(dim_of(fake)) if isinstance(fake, torch.SymInt) else "•"
        if isinstance(argument, (list, tuple)):
            return f"[{', '.join(map(text, cast('list[object]', argument)))}]"
        return repr(argument)

    keywords = [f"{k}={text(v)}" for k, v in sorted(node.kwargs.items())]
    return f"{node.target}({', '.join([*map(text, node.args), *keywords])})"

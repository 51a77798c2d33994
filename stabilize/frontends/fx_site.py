"""Places in a host graph: find what the host already computes there, and add calls."""

from __future__ import annotations

import operator
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import cast, final

import torch
from torch import fx
from torch.fx.node import Argument
from torch.utils import _pytree as pytree

from stabilize.errors import ModelError
from stabilize.formats import is_float
from stabilize.frontends.fx_autocast import run
from stabilize.frontends.fx_emit import ALIASING, EMIT
from stabilize.frontends.fx_modes import Modes
from stabilize.frontends.fx_program import Reading
from stabilize.frontends.fx_types import (
    TORCH_DTYPES,
    Fake,
    aten,
    dim_of,
    fake_of,
    input_nodes,
    operator_of,
    tensor_type,
)
from stabilize.graph.value import Dim, Value

_KEPT_META = ("stack_trace", "nn_module_stack", "custom")


@final
class HostGraph:
    """A host graph that is being patched: nodes by name, original positions, fakes, results of emission.

    fakes: what each host node computes, on fake tensors. mode: runs an operator on them.
    """

    def __init__(
        self,
        graph: fx.Graph,
        reading: Reading,
        fakes: Mapping[str, Fake],
        mode: AbstractContextManager[object],
    ) -> None:
        self.graph = graph
        self.reading = reading
        self.mode = mode
        self.nodes: list[fx.Node] = list(graph.nodes)
        self.by_name = {n.name: n for n in self.nodes}
        self.position = {n: i for i, n in enumerate(self.nodes)}
        inputs = [i for i, n in enumerate(self.nodes) if n.op == "placeholder"]
        self.first_call = inputs[-1] + 1 if inputs else 0
        self.fakes: dict[fx.Node, Fake] = {self.by_name[name]: fake for name, fake in fakes.items()}
        self.created: dict[fx.Node, int] = {}
        self.moves: dict[str, list[tuple[int, fx.Node | None]]] = {}
        self._moved: set[fx.Node | None] = set()
        self.replaced: dict[tuple[Value, bool], fx.Node] = {}
        self.emitted: dict[tuple[Value, bool], fx.Node] = {}
        self.shared: dict[tuple[object, ...], fx.Node] = {}
        self.rehearsing = False

    def modes(self, position: int) -> Modes:
        """What is switched on just before the host node at `position`."""
        return self.reading.facts.modes[position]

    def grad_off(self, position: int) -> bool:
        """Whether gradients are off just before the host node at `position`."""
        return not self.modes(position).grad

    def is_free(self, value: Value, position: int) -> bool:
        """Whether `value` is a detach where gradients are off: as an operand there, what it detaches does as well."""
        return value.op == "detach" and self.grad_off(position)

    def when(self, node: fx.Node) -> float:
        """Where a node runs: its position, or just before the position that it was inserted at."""
        return self.position[node] if node in self.position else self.created[node] - 0.5

    def holder(self, value: Value, position: int) -> fx.Node | None:
        """A host node that holds `value` when the node at `position` is about to run."""
        for holding in self.reading.holdings.get(value, ()):
            if holding.start < position and (holding.stop is None or holding.stop >= position):
                node = self.stand_in(holding.node, holding.start)
                if node is not None:
                    return node
        return None

    def move(self, name: str, start: int, node: fx.Node | None) -> None:
        """From just after position `start`, the memory of the host node `name` is that of `node` (None: of nobody)."""
        self.moves.setdefault(name, []).append((start, node))
        self._moved.add(node)

    def stand_in(self, name: str, start: int) -> fx.Node | None:
        """The node that holds what the host node `name` came to hold at position `start`."""
        node: fx.Node | None = self.by_name[name]
        for moved, other in self.moves.get(name, ()):
            if start > moved:
                node = other
        return node

    def users_after(self, name: str, start: int) -> list[fx.Node]:
        """Who uses, after position `start`, the memory that the host node `name` has there."""
        node = self.stand_in(name, start)
        return [] if node is None else [u for u in node.users if self.when(u) > start]

    def known(self, value: Value, position: int) -> fx.Node | None:
        """A node that has `value` at `position`: a replacement, a host node, or an emitted one."""
        key = (value, self.grad_off(position))
        for table in (self.replaced, self.emitted):
            node: fx.Node | None = table.get(key)
            if node is not None and self.when(node) < position:
                return node
        return self.holder(value, position)

    def written(self, node: fx.Node) -> bool:
        """Whether the memory of a host node is written anywhere in the graph."""
        facts = self.reading.facts
        groups = facts.groups.get(node.name, frozenset[int]()) if node in self.position else frozenset[int]()
        return bool(facts.writers(groups))

    def volatile(self, node: fx.Node) -> bool:
        """Whether a node may hold one thing now and another later."""
        return self.written(node) or node in self._moved

    @contextmanager
    def undone(self) -> Generator[None]:
        """Whatever is added to the graph meanwhile is removed again, and takes no name from what comes later."""
        self.rehearsing = True
        before, emitted, shared = set(self.created), dict(self.emitted), dict(self.shared)
        try:
            yield
        finally:
            for node in [n for n in reversed(self.created) if n not in before]:
                self.graph.erase_node(node)
                del self.created[node], self.fakes[node]
            self.emitted, self.shared = emitted, shared
            self.rehearsing = False

    def external(self, node: fx.Node) -> bool:
        """Whether a host node may be, or be a view of, an input or a parameter."""
        facts = self.reading.facts
        return node in self.position and bool(facts.groups.get(node.name, frozenset[int]()) & facts.external)


@final
class Place:
    """A `Site` just before the host node at `position`; new nodes take their metadata from `template`."""

    def __init__(self, host: HostGraph, position: int, template: fx.Node) -> None:
        self.host = host
        self.position = position
        self.template = template
        self.anchor = host.nodes[position]

    # --- the interface of emission rules ---------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        fake = self.host.fakes.get(self.template)
        return fake.device if isinstance(fake, torch.Tensor) else torch.device("cpu")

    def node(self, value: Value) -> fx.Node:
        node = self.host.known(value, self.position)
        if node is None and value in self.host.reading.fetchable:
            node = self.fetch(value)
        if node is None and value.op == "constant":
            node = EMIT["constant"](self, value)
        if node is None and self.host.is_free(value, self.position):
            node = self.node(value.operands[0])
        if node is None:
            raise ModelError(f"{value} is not computed before '{self.anchor.name}'")
        return node

    def fetch(self, value: Value) -> fx.Node:
        """A parameter, buffer or constant of the module, read from it."""
        host = self.host
        with host.graph.inserting_before(self.anchor):
            node = host.graph.get_attr(cast(str, value.attr("name")))
        node.meta["val"] = host.fakes[node] = host.reading.fetchable[value]
        host.created[node] = self.position
        host.emitted[value, host.grad_off(self.position)] = node
        return node

    def call(self, key: str, *args: object, **kwargs: object) -> fx.Node:
        return self.add(aten(key), args, kwargs)

    def item(self, node: fx.Node, index: int) -> fx.Node:
        return self.add(operator.getitem, (node, index), {})

    def size(self, dim: Dim) -> object:
        if isinstance(dim, int):
            return dim
        found = symbol_source(self.host, dim, self.position)
        if found is None:
            raise ModelError(f"nothing computes the size {dim} before '{self.anchor.name}'")
        node, axis = found
        return node if axis is None else self.call("sym_size.int", node, axis)

    # --- building ---------------------------------------------------------------------------------------------

    def add(self, target: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]) -> fx.Node:
        """Add a call, or find the equal one that was added before."""
        if any(self.host.volatile(node) for node in input_nodes((args, kwargs))):
            return self.new(target, args, kwargs)
        modes = self.host.modes(self.position)
        key = (target, modes.grad, repr(modes.autocast), repr(args), repr(sorted(kwargs.items())))
        found = self.host.shared.get(key)
        if found is None:
            found = self.host.shared[key] = self.new(target, args, kwargs)
        return found

    def new(self, target: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]) -> fx.Node:
        host = self.host

        def fake(argument: object) -> object:
            return host.fakes[argument] if isinstance(argument, fx.Node) else argument

        modes = Modes(grad=False, autocast=host.modes(self.position).autocast)
        try:
            ran = run(target, pytree.tree_map(fake, args), pytree.tree_map(fake, kwargs), modes, host.mode)
        except (RuntimeError, AssertionError, ValueError, TypeError, LookupError) as error:  # whatever torch raises
            first = str(error).partition("\n")[0]
            raise ModelError(
                f"the sizes recorded at '{self.anchor.name}' contradict each other ({first}): export the model again"
            ) from error
        if ran.casts is None or ran.narrows:
            raise ModelError(
                f"autocast, which is on before '{self.anchor.name}', would compute {target} in less precision"
            )
        result = ran.result
        name = str(target).split(".")[1] if operator_of(target) is not None else None
        if host.rehearsing:
            name = "rehearsed"
        with host.graph.inserting_before(self.anchor):
            node = host.graph.create_node(
                "call_function",
                target,
                cast("tuple[Argument, ...]", args),
                cast("dict[str, Argument]", kwargs),
                name,
            )
        for name in _KEPT_META:
            if name in self.template.meta:
                node.meta[name] = self.template.meta[name]
        node.meta["val"] = result
        if "example_value" in self.template.meta:
            node.meta["example_value"] = result
        host.fakes[node] = result
        host.created[node] = self.position
        return node

    def emit(self, steps: Iterable[tuple[Value, Value]]) -> None:
        """Add the calls of values whose operands are known, in order; a step (v, w) takes w for v."""
        host = self.host
        off = host.grad_off(self.position)
        for value, source in steps:
            if source is not value:
                host.emitted[value, off] = self.node(source)
                continue
            node = EMIT[value.op](self, value)
            if value.op in ALIASING and any(host.volatile(n) for n in (node, *node.all_input_nodes)):
                # a view of memory that the host writes later would change under its users
                node = self.new(aten("clone.default"), (node,), {})
            made = host.fakes[node]
            if isinstance(made, torch.Tensor) and tensor_type(made).dtype != value.dtype and is_float(value.dtype):
                # autocast computes this operator in a wider format
                node = self.new(aten("_to_copy.default"), (node,), {"dtype": TORCH_DTYPES[value.dtype]})
                made = host.fakes[node]
            if not isinstance(made, torch.Tensor) or tensor_type(made) != value.type:
                raise ModelError(f"{value.op} was emitted as {made} where {value.type} was expected")
            host.emitted[value, off] = node


def symbol_source(host: HostGraph, dim: str, position: int) -> tuple[fx.Node, int | None] | None:
    """A node that is the symbolic number `dim`, or a tensor and the axis that has this size."""
    tensors: tuple[fx.Node, int] | None = None
    for node in host.nodes[:position]:
        fake = host.fakes.get(node, fake_of(node))
        if isinstance(fake, torch.SymInt) and dim_of(fake) == dim:
            return node, None
        if tensors is None and isinstance(fake, torch.Tensor):
            shape = [dim_of(s) for s in fake.shape]
            if dim in shape:
                tensors = node, shape.index(dim)
    return tensors

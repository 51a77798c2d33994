"""Semantic view → ONNX: put replacements into a graph, keep its names, remove what they made dead.

New nodes stand right behind the first node that computed the replaced value, so whatever that node could use, they
can. The replaced value's name moves to the new node: consumers, captured names and graph outputs stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import final

import onnx_ir as ir

from stabilize.errors import ModelError
from stabilize.frontends.onnx_emit import ROWS
from stabilize.frontends.onnx_emitter import CannotEmit, Emitter, Names, Place
from stabilize.frontends.onnx_runtimes import PORTABLE, Runtime
from stabilize.frontends.onnx_types import conflict
from stabilize.graph.build import Builder
from stabilize.graph.value import Value
from stabilize.graph.view import Replacement, View


@final
class Patcher:
    """Patches one graph in place. `model` must have the names of the model that `view` was read from.

    names: taken where the graph stands, if that is not all there is; initializers: whether it can have some.
    """

    def __init__(
        self,
        model: ir.Model,
        view: View,
        opset: int,
        names: Names | None = None,
        initializers: bool = True,
        runtime: Runtime = PORTABLE,
    ) -> None:
        self._graph = model.graph
        self._initializers = initializers and model.ir_version >= 4
        self._view = view
        self._hosts = view.names()
        self._by_name: dict[str, ir.Value] = {}
        self._position: dict[str, int] = {}
        self._last: dict[int, ir.Node] = {}
        self._names = Names(taken_names(model.graph)) if names is None else names
        self._symbols = _symbols(view)
        place = Place("", {}, lambda _: None, lambda _: None)
        own = frozenset(name for domain, name, _ in model.functions if domain == "")
        self._emitter = Emitter(view.builder, opset, self._names, ROWS, place, own, runtime)
        for value in (*self._graph.inputs, *self._graph.initializers.values()):
            self._record(value, -1)
        for position, node in enumerate(self._graph):
            self._last[position] = node
            for value in node.outputs:
                self._record(value, position)

    def _record(self, value: ir.Value, position: int) -> None:
        if value.name:
            self._by_name[value.name] = value
            self._position[value.name] = position

    def apply(self, replacements: Sequence[Replacement]) -> None:
        """All of them, in the order in which the host computes what they replace."""
        dead: list[ir.Node] = []
        for name, replacement in sorted(self._placed(replacements), key=lambda item: self._position[item[0]]):
            dead += self._replace(name, replacement)
        self._store([value for value in self._emitter.initializers if value.uses()])
        sweep(self._graph, dead)

    def _store(self, constants: list[ir.Value]) -> None:
        """As initializers. Functions have none, and before IR version 4 they are inputs of the model too: there as
        nodes at its beginning."""
        if self._initializers:
            for value in constants:
                self._graph.register_initializer(value)
            return
        nodes = [
            ir.Node("", "Constant", [], [ir.AttrTensor("value", value.const_value)], outputs=[value], name=value.name)
            for value in constants
            if value.const_value is not None
        ]
        if nodes:
            self._graph.insert_before(self._graph[0], nodes)

    def _placed(self, replacements: Sequence[Replacement]) -> list[tuple[str, Replacement]]:
        placed: dict[Value, tuple[str, Replacement]] = {}
        for replacement in named(self._view, self._hosts, replacements):
            if conflict(replacement.old.type, replacement.new.type):
                raise ModelError(f"{replacement.old.type} cannot be replaced by {replacement.new.type}")
            name = next((n for n in self._hosts[replacement.old] if self._position.get(n, -1) >= 0), None)
            if name is None:
                raise ModelError(f"{self._hosts[replacement.old][0]} is an input of the model: it cannot be replaced")
            placed[replacement.old] = (name, replacement)
        return list(placed.values())

    # --- one replacement --------------------------------------------------------------------------------------

    def refusal(self, replacement: Replacement) -> str | None:
        """Why `replacement` cannot be written; None when it can. Makes nodes, but puts none into the graph."""
        try:
            for name, placed in self._placed([replacement]):
                self._emit(name, placed)
        except ModelError as error:
            return str(error)
        return None

    def spelling(self, value: Value) -> list[str]:
        """The operators that `value` would be written in, without writing it; ModelError where it cannot be."""
        (name, placed), *_ = self._placed([Replacement(value, value)])
        self._emitter.forget()
        return [node.op_type for node in self._emit(name, placed)[1]]

    def _emit(self, name: str, replacement: Replacement) -> tuple[ir.Value, list[ir.Node]]:
        """The host value of the new expression, and the nodes made for it. Of a value that is replaced by itself, those
        that the emitter writes now."""
        producer, position = self._by_name[name].producer(), self._position[name]
        anew = replacement.old if replacement.old is replacement.new else None
        assert producer is not None, "placed at a node"
        prefix = producer.name or name
        self._emitter.nodes = []
        self._emitter.place = Place(
            prefix,
            _text(producer.metadata_props),
            lambda value: None if value is anew else self._available(value, position),
            lambda symbol: self._dimension(symbol, position),
        )
        try:
            new = self._emitter.value(replacement.new).host
        except CannotEmit as error:
            raise ModelError(f"{name}: its replacement cannot be written in ONNX: {error}") from error
        return new, list(self._emitter.nodes)

    def _replace(self, name: str, replacement: Replacement) -> list[ir.Node]:
        """Emit the new value, let it take over; returns the nodes that lost an output, and the new ones."""
        old, position = self._by_name[name], self._position[name]
        new, made = self._emit(name, replacement)
        if made:
            self._graph.insert_after(self._last[position], made)
            self._last[position] = made[-1]
        others = [n for n in self._hosts[replacement.old] if n != name and self._position.get(n, -1) >= 0]
        fresh = new.producer() in made and len(made) > 0
        displaced = [self._take_over(old, new, made) if fresh else self._redirect(old, new, made)]
        displaced += [self._redirect(self._by_name[n], new, made) for n in others]
        return displaced + made

    def _available(self, value: Value, position: int) -> ir.Value | None:
        for name in self._hosts.get(value, ()):
            if self._position.get(name, position + 1) <= position:
                return self._by_name[name]
        return None

    def _dimension(self, symbol: str, position: int) -> tuple[ir.Value, int] | None:
        for value, axis in self._symbols.get(symbol, ()):
            host = self._available(value, position)
            if host is not None:
                return host, axis
        return None

    def _take_over(self, old: ir.Value, new: ir.Value, made: list[ir.Node]) -> ir.Node:
        """`new` gets the name, the stated type and every use of `old`, except those that `new` is made from."""
        name = old.name or ""
        old.name = self._names.fresh(f"{name}_unstabilized")
        new.name = name
        new.type, new.shape = old.type, old.shape
        new.metadata_props.update(_text(old.metadata_props))
        self._by_name[name] = new
        return self._move_uses(old, new, made)

    def _redirect(self, old: ir.Value, new: ir.Value, made: list[ir.Node]) -> ir.Node:
        """Consumers of `old` read `new`, which has a name of its own; a name seen from outside is kept by Identity."""
        outside = old.is_graph_output() or any(node.graph is not self._graph for node, _ in old.uses())
        if outside:
            producer = old.producer()
            assert producer is not None, "computed by a node"
            copy = ir.Node("", "Identity", [new], name=self._names.fresh(f"{old.name}_stabilized_Identity"))
            copy.outputs[0].name = f"{old.name}_stabilized"
            position = self._position[old.name or ""]
            self._graph.insert_after(self._last[position], [copy])
            self._last[position] = copy
            return self._take_over(old, copy.outputs[0], [copy])
        self._by_name[old.name or ""] = new
        return self._move_uses(old, new, made)

    def _move_uses(self, old: ir.Value, new: ir.Value, made: list[ir.Node]) -> ir.Node:
        for node, index in tuple(old.uses()):
            if node not in made:
                node.replace_input_with(index, new)
        for index, output in enumerate(self._graph.outputs):
            if output is old:
                self._graph.outputs[index] = new
        producer = old.producer()
        assert producer is not None, "computed by a node"
        return producer


def sweep(graph: ir.Graph, candidates: list[ir.Node]) -> None:
    """Remove nodes of `graph` that lost their uses, and what only those used: other nodes, weights."""
    while candidates:
        node = candidates.pop()
        if node.graph is not graph or any(o.uses() or o.is_graph_output() for o in node.outputs):
            continue
        inputs = [v for v in node.inputs if v is not None]
        graph.remove(node, safe=True)
        for value in inputs:
            producer = value.producer()
            if producer is not None:
                candidates.append(producer)
            else:
                drop_weight(graph, value)


def drop_weight(graph: ir.Graph, value: ir.Value) -> None:
    """Remove an initializer of `graph` that nothing uses and no caller may set."""
    if value.is_initializer() and not (value.uses() or value.is_graph_input() or value.is_graph_output()):
        graph.initializers.pop(value.name or "", None)


def taken_names(graph: ir.Graph) -> Iterator[str]:
    """Names of values and nodes in `graph` and inside it."""
    for each in (graph, *graph.subgraphs()):
        for value in (*each.inputs, *each.initializers.values()):
            yield value.name or ""
        for node in each:
            yield node.name or ""
            yield from (o.name or "" for o in node.outputs)


def _symbols(view: View) -> dict[str, list[tuple[Value, int]]]:
    """Symbolic size → values that have it and where, inputs and early values first."""
    found: dict[str, list[tuple[Value, int]]] = {}
    for value in view.bindings.values():
        for axis, dim in enumerate(value.shape):
            if isinstance(dim, str):
                found.setdefault(dim, []).append((value, axis))
    return found


def named(view: View, bound: Mapping[Value, object], replacements: Sequence[Replacement]) -> list[Replacement]:
    """Replacements of values that the host names, which are those in `bound`.

    A value inside an operator that was read as several primitives has no name: the named values that are computed from
    it directly are replaced instead, with the new value in its place.
    """
    result = [r for r in replacements if r.old in bound]
    inner = {r.old: r.new for r in replacements if r.old not in bound}
    if inner:
        replaced = {r.old for r in result}
        for value in dict.fromkeys(view.bindings.values()):
            rebuilt = _rebuilt(view.builder, value, inner, bound)
            if rebuilt is not value and value not in replaced:
                result.append(Replacement(value, rebuilt))
    return result


def _rebuilt(builder: Builder, value: Value, inner: dict[Value, Value], bound: Mapping[Value, object]) -> Value:
    """`value` with the unnamed values it is made of replaced."""
    operands = [inner.get(o) or (o if o in bound else _rebuilt(builder, o, inner, bound)) for o in value.operands]
    if all(a is b for a, b in zip(operands, value.operands, strict=True)) or value.op == "opaque":
        return value
    return builder.make(value.op, *operands, **dict(value.attrs))


def _text(metadata: Mapping[str, str]) -> dict[str, str]:
    """Without what is no UTF-8, which protobuf gives as bytes and does not take."""
    return {k: v for k, v in metadata.items() if isinstance(k, str) and isinstance(v, str)}  # pyright: ignore[reportUnnecessaryIsInstance]

"""FX hosts: an ExportedProgram or a GraphModule that has been read, and can be given back rewritten."""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast, final

import torch
from torch import fx
from torch._ops import HigherOrderOperator
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.export import ExportedProgram
from torch.export.exported_program import ModuleCallEntry
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    OutputSpec,
    SymBoolArgument,
    SymFloatArgument,
    SymIntArgument,
    TensorArgument,
)
from torch.utils import _pytree as pytree

from stabilize.errors import ModelError
from stabilize.frontends.fx_bodies import Body, bodies_of, exchange
from stabilize.frontends.fx_inputs import is_compiled, placeholder_inputs
from stabilize.frontends.fx_modes import Modes
from stabilize.frontends.fx_patch import apply, refusal, unavailable
from stabilize.frontends.fx_piece import piece
from stabilize.frontends.fx_program import Leaf, Program, Reading, own_program
from stabilize.frontends.fx_read import read
from stabilize.frontends.fx_share import copy_graph, share_graph_module
from stabilize.frontends.fx_site import HostGraph
from stabilize.frontends.fx_trace import CONSTANT, trace
from stabilize.frontends.fx_types import (
    Fake,
    attribute,
    attribute_path,
    dim_of,
    fake_of,
    has_results,
    is_number,
    operator_of,
    parts_of,
    range_constraints_of,
    target_of,
)
from stabilize.graph.host import Host, Piece
from stabilize.graph.value import Value
from stabilize.graph.view import Replacement, View

_NAMED = (TensorArgument, SymIntArgument, SymFloatArgument, SymBoolArgument)


class FxHost:
    """What the PyTorch hosts share: a reading of one graph, and patched copies of that graph."""

    kind = "fx"
    outer_names: Collection[str] = ()  # placeholders have names of their own

    def __init__(self, root: fx.GraphModule, program: Program, fakes: Mapping[str, Fake]) -> None:
        self._root = root
        self._program = program
        self._fakes = fakes
        self._reading: Reading = read(program)
        self._plans: HostGraph | None = None
        # the mode of the fakes themselves: a tracing context around this call has another
        modes = (f.fake_mode for f in pytree.tree_leaves(list(fakes.values())) if isinstance(f, FakeTensor))
        self._mode = next(modes, None) or FakeTensorMode()

    @property
    def view(self) -> View:
        return self._reading.view

    def tensor(self, value: Value) -> torch.Tensor | None:
        """The data of a weight, buffer or constant."""
        return self._reading.data.get(value)

    def refusal(self, replacement: Replacement) -> str | None:
        """Why `patched` could not make this replacement, or None when it can."""
        return refusal(self._planning(), replacement)

    def bodies(self) -> dict[str, Host]:
        """The graphs that higher-order operators run, by path. One that cannot be read by itself is not offered."""
        hosts: dict[str, Host] = {}
        for name, body in self._bodies().items():
            try:
                hosts[name] = GraphModuleHost(body.module, None, body.modes)
            except ModelError:
                continue
        return hosts

    def _bodies(self) -> dict[str, Body]:
        return bodies_of(self._root, self._program.host, self._program.modes)

    def _with_bodies(self, bodies: Mapping[str, Host]) -> fx.GraphModule:
        """A copy of the graph module that runs these graphs in the place of those that it has."""
        root = share_graph_module(self._root, copy_graph(self._program.host))
        changed = {name: host.model() for name, host in bodies.items() if isinstance(host, GraphModuleHost)}
        exchange(root, self._bodies(), changed)
        return root

    def piece(self, names: Sequence[str], targets: Sequence[str]) -> Piece:
        """The nodes that lead from some nodes to others as a graph module, which returns a tuple."""
        reading = self._reading
        weights = {
            name: reading.data[value]
            for name, value in reading.view.bindings.items()
            if value in reading.data and value.op == "input"
        }
        return piece(self._root, self._program.host, names, targets, weights, self._fakes, reading.facts)

    @property
    def sizes(self) -> dict[str, int]:
        """Symbolic size → what it was when the graph was captured."""
        found: dict[str, int] = {}
        for fake in self._fakes.values():
            for part in parts_of(fake):
                for size in part.shape if isinstance(part, torch.Tensor) else ():
                    dim = dim_of(size)
                    if isinstance(dim, str) and dim not in found and (known := cast(Any, size).node.hint) is not None:
                        found[dim] = int(known)
        return found

    def can_emit(self, value: Value) -> str | None:
        """Why `value` could not be computed at the end of this graph, or None when it can."""
        return unavailable(self._planning(), value)

    def patched_graph(self, replacements: Sequence[Replacement]) -> fx.Graph | None:
        """A copy of the host graph with replacements made; None when there is nothing to do."""
        if all(r.new is r.old for r in replacements):
            return None
        graph = copy_graph(self._program.host)
        apply(self._host_graph(graph), replacements)
        graph.lint()
        return graph

    def _host_graph(self, graph: fx.Graph) -> HostGraph:
        return HostGraph(graph, self._reading, self._fakes, self._mode)

    def _planning(self) -> HostGraph:
        """The host graph itself, to plan with and never to change."""
        if self._plans is None:
            # under autocast plans are rehearsed, in a copy
            rehearsed = any(m.autocast for m in self._reading.facts.modes)
            self._plans = self._host_graph(copy_graph(self._program.host) if rehearsed else self._program.host)
        return self._plans


@final
class ExportedHost(FxHost):
    """An ExportedProgram. Its rewritten form keeps signature, state, constants, shape constraints and call graph."""

    def __init__(self, exported: ExportedProgram, modes: Modes | None = None) -> None:
        """modes: what is switched on where the program runs."""
        self.exported = exported
        graph = exported.graph_module.graph
        fakes = {n.name: fake_of(n) for n in graph.nodes}
        super().__init__(exported.graph_module, own_program(graph, _leaves(exported), modes), fakes)

    def model(self) -> ExportedProgram:
        return self.exported

    @property
    def examples(self) -> dict[str, torch.Tensor]:
        return self.named(pytree.tree_leaves(self.exported.example_inputs))

    def named(self, leaves: Sequence[object]) -> dict[str, torch.Tensor]:
        """The tensors among the (flat) arguments of a call, by the names of inputs; none when they are not as many."""
        specs = [s.arg for s in self.exported.graph_signature.input_specs if s.kind is InputKind.USER_INPUT]
        if len(leaves) != len(specs):
            return {}
        pairs = zip(specs, leaves, strict=True)
        return {arg.name: x for arg, x in pairs if isinstance(arg, TensorArgument) and isinstance(x, torch.Tensor)}

    def patched(self, replacements: Sequence[Replacement]) -> ExportedHost:
        graph = self.patched_graph(replacements)
        if graph is None:
            return self
        module = fx.GraphModule(self._root, graph)
        module.meta.update(self._root.meta)
        return ExportedHost(self._with_module(module), self._program.modes)

    def with_bodies(self, bodies: Mapping[str, Host]) -> ExportedHost:
        if not bodies:
            return self
        return ExportedHost(self._with_module(self._with_bodies(bodies)), self._program.modes)

    def _with_module(self, module: fx.GraphModule) -> ExportedProgram:
        exported = self.exported
        renamed = _renamed(exported.graph_module.graph, module.graph)
        return ExportedProgram(
            root=module,
            graph=module.graph,
            graph_signature=_signature(exported.graph_signature, renamed),
            state_dict=exported.state_dict,
            range_constraints=range_constraints_of(exported),
            module_call_graph=_call_graph(exported.module_call_graph, renamed),
            example_inputs=exported.example_inputs,
            constants=exported.constants,
            verifiers=exported.verifiers,
        )


def _leaves(exported: ExportedProgram) -> dict[fx.Node, Leaf]:
    placeholders = {n.name: n for n in exported.graph_module.graph.nodes if n.op == "placeholder"}
    leaves: dict[fx.Node, Leaf] = {}
    for spec in exported.graph_signature.input_specs:
        name = spec.arg.name
        if spec.kind is InputKind.USER_INPUT or spec.target is None:
            leaves[placeholders[name]] = Leaf(name)
            continue
        data = exported.state_dict.get(spec.target, exported.constants.get(spec.target))
        tensor = data if isinstance(data, torch.Tensor) else None
        leaves[placeholders[name]] = Leaf(name, tensor, True, spec.kind is InputKind.CONSTANT_TENSOR)
    return leaves


def _renamed(before: fx.Graph, after: fx.Graph) -> dict[str, str]:
    """Names of outputs that changed: what the output node returned before → what it returns now."""
    names: dict[str, str] = {}
    old, new = (pytree.tree_leaves(g.output_node().args[0]) for g in (before, after))
    for a, b in zip(old, new, strict=True):
        if isinstance(a, fx.Node) and isinstance(b, fx.Node):
            names[a.name] = b.name
    return names


def _signature(signature: ExportGraphSignature, renamed: Mapping[str, str]) -> ExportGraphSignature:
    """The signature with output names as the new graph has them."""

    def spec(old: OutputSpec) -> OutputSpec:
        if isinstance(old.arg, _NAMED) and old.arg.name in renamed:
            return OutputSpec(old.kind, type(old.arg)(name=renamed[old.arg.name]), old.target)
        return old

    return ExportGraphSignature(list(signature.input_specs), [spec(s) for s in signature.output_specs])


def _call_graph(entries: Sequence[ModuleCallEntry], renamed: Mapping[str, str]) -> list[ModuleCallEntry]:
    """Module call entries, whose preserved signatures also name outputs."""
    result: list[ModuleCallEntry] = []
    for entry in entries:
        signature = entry.signature
        if signature is not None:
            outputs = [
                type(a)(name=renamed[a.name]) if isinstance(a, _NAMED) and a.name in renamed else a
                for a in signature.outputs
            ]
            signature = replace(signature, outputs=outputs)
        result.append(ModuleCallEntry(entry.fqn, signature))
    return result


@final
class GraphModuleHost(FxHost):
    """A GraphModule, torch-level or ATen. Its rewritten form shares parameters, buffers and submodules."""

    def __init__(self, module: fx.GraphModule, example_inputs: object, modes: Modes | None = None) -> None:
        self.module = module
        self._example_inputs = example_inputs
        # a graph of torch.compile is for what is switched on while it is compiled
        self._modes = modes or (Modes.ambient() if is_compiled(module) else Modes())
        self._fixed: tuple[tuple[str, int, int], ...] = ()
        if _is_typed_aten(module):
            fakes = {n.name: fake_of(n) for n in module.graph.nodes}
            super().__init__(module, own_program(module.graph, _attribute_leaves(module), self._modes), fakes)
            return
        traced = trace(module, placeholder_inputs(module, example_inputs), self._modes)
        self._fixed = traced.fixed
        super().__init__(module, traced.program, traced.fakes)

    def model(self) -> fx.GraphModule:
        return self.module

    @property
    def examples(self) -> dict[str, torch.Tensor]:
        names = [n.name for n in self.module.graph.nodes if n.op == "placeholder"]
        if self._example_inputs is None:
            return {}
        pairs = zip(names, placeholder_inputs(self.module, self._example_inputs), strict=True)
        return {n: x for n, x in pairs if isinstance(x, torch.Tensor) and not isinstance(x, FakeTensor)}

    def patched(self, replacements: Sequence[Replacement]) -> GraphModuleHost:
        graph = self.patched_graph(replacements)
        if graph is None:
            return self
        _insist_on_sizes(graph, self._fixed)
        return self._reopened(share_graph_module(self.module, graph))

    def with_bodies(self, bodies: Mapping[str, Host]) -> GraphModuleHost:
        return self._reopened(self._with_bodies(bodies)) if bodies else self

    def _reopened(self, module: fx.GraphModule) -> GraphModuleHost:
        return GraphModuleHost(module, self._example_inputs, self._modes)


def _is_typed_aten(module: fx.GraphModule) -> bool:
    """Whether every node is an ATen call (or plumbing) that records its result."""
    for node in module.graph.nodes:
        if node.op in ("call_module", "call_method"):
            return False
        if node.op == "call_function":
            target = target_of(node)
            called = operator_of(target)
            plumbing = is_number(fake_of(node)) or target is operator.getitem or isinstance(target, HigherOrderOperator)
            if called is None and not plumbing:
                return False
            if "val" not in node.meta and called is not None and has_results(called):
                return False
        if node.op == "placeholder" and "val" not in node.meta:
            return False
        if node.op == "get_attr" and "val" not in node.meta and _holds_tensor(module, node):
            return False
    return True


def _holds_tensor(module: fx.GraphModule, node: fx.Node) -> bool:
    return isinstance(attribute(module, attribute_path(node)), torch.Tensor)


def _attribute_leaves(module: fx.GraphModule) -> dict[fx.Node, Leaf]:
    leaves: dict[fx.Node, Leaf] = {}
    for node in module.graph.nodes:
        if node.op == "placeholder":
            leaves[node] = Leaf(node.name)
        elif node.op == "get_attr":
            path = attribute_path(node)
            data = attribute(module, path)
            if isinstance(data, torch.Tensor):
                leaves[node] = Leaf(path, data, True, bool(CONSTANT.search(path)), attribute=True)
    return leaves


def _insist_on_sizes(graph: fx.Graph, fixed: Sequence[tuple[str, int, int]]) -> None:
    """Check, in the rewritten graph, the sizes that it was read for: other sizes must fail, not compute wrongly."""
    if not fixed:
        return
    placeholders = {n.name: n for n in graph.nodes if n.op == "placeholder"}
    last = list(placeholders.values())[-1]
    with graph.inserting_after(last):
        for name, axis, size in reversed(fixed):
            message = f"stabilize read this graph with size {size} in axis {axis} of '{name}': optimize it again"
            actual = graph.call_method("size", (placeholders[name], axis))
            with graph.inserting_after(actual):
                agree = graph.call_function(operator.eq, (actual, size))
            with graph.inserting_after(agree):
                graph.call_function(torch._assert, (agree, message))  # pyright: ignore[reportPrivateUsage, reportUnknownArgumentType, reportUnknownMemberType]

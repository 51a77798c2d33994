"""Which nodes may share memory, and which of them a node writes.

Conservative on purpose: nodes that share memory are always in one group; nodes in one group need not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast, final

import torch
from torch import fx
from torch._C import DispatchKey
from torch._ops import HigherOrderOperator, OpOverload

from stabilize.frontends.fx_table import ASSERTIONS, FRESH, MAYBE_VIEWS, READ
from stabilize.frontends.fx_types import (
    Fake,
    Operator,
    argument_of,
    attribute,
    attribute_path,
    fake_of,
    input_nodes,
    operator_key,
    operator_of,
    parameters_of,
    target_of,
)


def written_arguments(node: fx.Node) -> list[fx.Node]:
    """The tensor arguments that `node` may write to."""
    target = target_of(node)
    if isinstance(target, HigherOrderOperator):
        return [a for a in input_nodes(node.args) if _is_tensor(a)] if _writes_outside(node) else []
    operator = operator_of(target)
    if operator is None:
        return []
    if operator_key(target) in ("batch_norm.default", "instance_norm.default"):
        # the schema does not say that the running statistics are updated
        return [a for a in node.args[3:5] if isinstance(a, fx.Node)] if node.args[5] else []
    written: list[fx.Node] = []
    for position, parameter in enumerate(parameters_of(operator)):
        if parameter.written:
            written.extend(input_nodes(argument_of(node, position, parameter.name)))
    return written


def _writes_outside(node: fx.Node) -> bool:
    """Whether the graphs that a higher-order operator runs may write to what they are given (unknown ones may)."""
    owner = node.graph.owning_module
    if owner is None:
        return True
    bodies = [attribute(owner, attribute_path(a)) for a in input_nodes((node.args, node.kwargs)) if a.op == "get_attr"]
    return any(isinstance(b, fx.GraphModule) and _writes_to_inputs(b.graph) for b in bodies)


def _writes_to_inputs(graph: fx.Graph) -> bool:
    """Whether a graph may write to its inputs; one of torch functions and methods is judged by their names."""
    if any(_sounds_like_writing(n) for n in graph.nodes):
        return True
    memory = Memory(graph)
    return any(True for _ in memory.written_leaves())


def _sounds_like_writing(node: fx.Node) -> bool:
    """`add_`, `+=`, `x[0] = …`, `out=…`, in a graph that does not say it by schemas."""
    target = target_of(node)
    if node.op == "call_module":
        return True
    if node.op not in ("call_function", "call_method") or isinstance(target, HigherOrderOperator | OpOverload):
        return False
    name = target if isinstance(target, str) else str(getattr(target, "__name__", "_"))
    plain = name.rstrip("_") if name.startswith("__") else name
    return plain.endswith("_") or name in _WRITING or "out" in node.kwargs or node.kwargs.get("inplace") is True


_WRITING = frozenset(("setitem", "iadd", "isub", "imul", "itruediv", "ifloordiv", "ipow", "imod", "imatmul", "iand",
                      "ior", "ixor", "ilshift", "irshift"))  # fmt: skip


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(fake_of(node), torch.Tensor)


def _may_share(a: fx.Node, b: fx.Node) -> bool:
    """Whether two results can lie in the same memory: tensors (or lists of them), of one dtype."""
    dtypes = [{t.dtype for t in _tensors(fake_of(n))} for n in (a, b)]
    return bool(dtypes[0] & dtypes[1])


def _tensors(fake: Fake) -> Iterable[torch.Tensor]:
    if isinstance(fake, torch.Tensor):
        yield fake
    elif isinstance(fake, (list, tuple)):
        for part in cast("Iterable[Fake]", fake):
            yield from _tensors(part)


def aliased_arguments(node: fx.Node) -> list[fx.Node]:
    """The tensor arguments whose memory the result of `node` may be, or be a view of."""
    target = target_of(node)
    if node.op != "call_function":
        return []
    operator = operator_of(target)
    if operator is None:
        return list(input_nodes(node.args))
    key = operator_key(target)
    if key in ASSERTIONS:
        return []
    if key is not None and key in READ and key not in MAYBE_VIEWS:
        return _annotated(node, operator)
    if key in MAYBE_VIEWS or _may_hide_a_view(operator):
        return list(input_nodes((node.args, node.kwargs)))
    return _annotated(node, operator)


def _annotated(node: fx.Node, operator: Operator) -> list[fx.Node]:
    """Arguments that the schema marks as aliased by a result."""
    result: list[fx.Node] = []
    for position, parameter in enumerate(parameters_of(operator)):
        if parameter.aliased:
            result.extend(input_nodes(argument_of(node, position, parameter.name)))
    return result


def _may_hide_a_view(operator: Operator) -> bool:
    """Composite operators are Python or C++ programs: what they return can be a view that no schema announces."""
    if str(operator).removeprefix("aten.").startswith(FRESH):
        return False
    return operator.has_kernel_for_dispatch_key(DispatchKey.CompositeImplicitAutograd)


@final
class Memory:
    """The groups of nodes of one graph that may share memory, and the writes to them."""

    def __init__(self, graph: fx.Graph) -> None:
        self._parent: dict[fx.Node, fx.Node] = {}
        self._place = {node: i for i, node in enumerate(graph.nodes)}
        self.writes: dict[fx.Node, list[fx.Node]] = {}
        for node in graph.nodes:
            self._parent[node] = node
            for other in aliased_arguments(node):
                if _may_share(other, node):
                    self._join(other, node)
            written = written_arguments(node)
            if written:
                self.writes[node] = written
        self._members: dict[fx.Node, list[fx.Node]] = {}
        for node in graph.nodes:
            self._members.setdefault(self._root(node), []).append(node)
        self._written = {self._root(t) for targets in self.writes.values() for t in targets}

    def members(self, node: fx.Node) -> list[fx.Node]:
        """Every node that may share memory with `node`, itself included, in graph order."""
        return self._members[self._root(node)]

    def group(self, node: fx.Node) -> int:
        """A number that nodes which may share memory have in common."""
        return self._place[self._root(node)]

    def together(self, a: fx.Node, b: fx.Node) -> bool:
        return self._root(a) is self._root(b)

    def is_written(self, node: fx.Node) -> bool:
        """Whether anything that may share memory with `node` is written anywhere in the graph."""
        return self._root(node) in self._written

    def external(self) -> frozenset[int]:
        """Groups that hold an input or an attribute of the model."""
        leaves = (n for n in self._place if n.op in ("placeholder", "get_attr"))
        return frozenset(self.group(n) for n in leaves if _is_tensor(n))

    def written_leaves(self) -> list[fx.Node]:
        """Inputs and attributes whose memory the graph may write."""
        return [n for n in self._place if n.op in ("placeholder", "get_attr") and self.is_written(n)]

    def origin(self, node: fx.Node) -> fx.Node:
        """The node that an in-place operator was applied to, through chains of them: the same tensor object."""
        while node in self.writes and operator_of(target_of(node)) is not None and node.args:
            first = node.args[0]
            if not isinstance(first, fx.Node) or first not in self.writes[node]:
                break
            node = first
        return node

    def _root(self, node: fx.Node) -> fx.Node:
        while self._parent[node] is not node:
            self._parent[node] = self._parent[self._parent[node]]
            node = self._parent[node]
        return node

    def _join(self, a: fx.Node, b: fx.Node) -> None:
        """One group for both; the earlier root stays the root."""
        first, second = sorted((self._root(a), self._root(b)), key=self._place.__getitem__)
        self._parent[second] = first

"""A piece of a PyTorch graph as a graph module of its own, with the same operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

from stabilize.errors import ModelError
from stabilize.frontends.fx_program import Facts
from stabilize.frontends.fx_types import Fake, attribute, attribute_path, is_number
from stabilize.graph.host import Piece


def piece(
    root: torch.nn.Module,
    graph: fx.Graph,
    names: Sequence[str],
    targets: Sequence[str],
    data: Mapping[str, torch.Tensor],
    fakes: Mapping[str, Fake],
    facts: Facts,
) -> Piece:
    """The nodes of `graph` that lead from the nodes `names` to the nodes `targets`, which it returns as a tuple.

    data: of placeholders that stand for weights. Symbolic sizes are what they were when the graph was captured.
    ModelError when the piece does not stand by itself.
    """
    nodes = {n.name: n for n in graph.nodes}
    needed = _needed(nodes, names, targets, facts)
    new, made = fx.Graph(), dict[fx.Node, Any]()
    inputs, attributes = list(names), dict[str, object]()
    for name in names:
        made[nodes[name]] = new.placeholder(name)
    for node in nodes.values():
        if node in made or node not in needed:
            continue
        if is_number(fakes.get(node.name)):
            made[node] = hint(fakes[node.name])
        elif node.op == "placeholder" and node.name in data:
            attributes[f"_{node.name}"] = data[node.name]
            made[node] = new.get_attr(f"_{node.name}")
        elif node.op == "placeholder":
            inputs.append(node.name)
            made[node] = new.placeholder(node.name)
        else:
            if node.op in ("get_attr", "call_module"):
                path = attribute_path(node)
                attributes[path] = attribute(root, path)
            made[node] = new.node_copy(node, made.__getitem__)
    new.output(tuple(made[nodes[target]] for target in targets))
    # placeholders come first, whatever was needed in between
    for node in [n for n in new.nodes if n.op == "placeholder"][::-1]:
        first = next(iter(new.nodes))
        if node is not first:
            first.prepend(node)
    inputs = [str(n.target) for n in new.nodes if n.op == "placeholder"]
    return Piece(fx.GraphModule(attributes, new), tuple(inputs))


def _needed(nodes: Mapping[str, fx.Node], names: Sequence[str], targets: Sequence[str], facts: Facts) -> set[fx.Node]:
    """What `targets` are computed from, down to `names`; with what has been written into it by then."""
    missing = [name for name in (*names, *targets) if name not in nodes]
    if missing:
        raise ModelError(f"the graph has no node {missing[0]!r} that could be taken out")
    position = {name: i for i, name in enumerate(nodes)}
    stop = {nodes[name] for name in names}
    last = max(position[target] for target in targets)
    needed, stack = set[fx.Node](), [nodes[target] for target in targets]
    while stack:
        node = stack.pop()
        if node in needed or node in stop:
            continue
        needed.add(node)
        stack.extend(node.all_input_nodes)
        writers = facts.writers(facts.groups.get(node.name, frozenset()))
        stack.extend(nodes[w] for w in writers if position.get(w, len(position)) <= last)
    return needed


def hint(number: Any) -> Any:
    """A symbolic number as what it was when the graph was captured; ModelError when nothing is known of that."""
    if isinstance(number, (bool, int, float)):
        return number
    known = number.node.hint
    if known is None:
        raise ModelError(f"the size {number} was not known when the graph was captured")
    return known

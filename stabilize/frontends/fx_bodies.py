"""The graphs inside a PyTorch graph: sub-modules that higher-order operators run (branches, loops, regions).

What an operator does with its graphs is its own affair; those that are listed here run them as functions, so that a
graph may be exchanged for one that computes the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast, final

import torch
from torch import fx
from torch._ops import HigherOrderOperator

from stabilize.frontends.fx_modes import Modes, modes_before
from stabilize.frontends.fx_types import attribute, attribute_path, input_nodes, target_of

#: Higher-order operators that run the graphs they are given, on tensors, once or several times, and nothing else.
RUNNERS = frozenset(
    (
        "cond", "while_loop", "while_loop_stack_output", "scan", "associative_scan", "map_impl", "invoke_subgraph",
        "wrap", "wrap_with_set_grad_enabled", "wrap_with_autocast", "wrap_activation_checkpoint",
        "tag_activation_checkpoint", "hints_wrapper", "strict_mode", "flex_attention", "autograd_function_apply",
    )
)  # fmt: skip


@final
@dataclass(frozen=True)
class Body:
    """A graph inside another. paths: the attributes that hold it. modes: what is switched on where it is run."""

    module: fx.GraphModule
    paths: tuple[str, ...]
    modes: Modes


def bodies_of(root: torch.nn.Module, graph: fx.Graph, modes: Modes) -> dict[str, Body]:
    """The bodies of a graph by their first path. One that is run in several ways that contradict is left out."""
    found: dict[int, Body | None] = {}
    for path, module, inside in _runs(root, graph, modes):
        body = found.get(id(module), Body(module, (path,), inside))
        if body is None or body.modes.autocast != inside.autocast:
            found[id(module)] = None
            continue
        paths = body.paths if path in body.paths else (*body.paths, path)
        grad = body.modes.grad or inside.grad
        found[id(module)] = Body(module, paths, replace(inside, grad=grad))
    return {body.paths[0]: body for body in found.values() if body is not None}


def _runs(root: torch.nn.Module, graph: fx.Graph, modes: Modes) -> Iterator[tuple[str, fx.GraphModule, Modes]]:
    """Every use of a graph by an operator: its path, the graph, what is switched on there."""
    for node, here in zip(graph.nodes, modes_before(modes, graph), strict=False):
        if _runner(node) is None:
            continue
        for position, argument in enumerate(input_nodes((node.args, node.kwargs))):
            if argument.op != "get_attr":
                continue
            path = attribute_path(argument)
            module = attribute(root, path)
            if isinstance(module, fx.GraphModule):
                yield path, module, _inside(node, position, here)


def _runner(node: fx.Node) -> str | None:
    """The name of a higher-order operator that runs graphs; None for any other call."""
    target = target_of(node)
    name = str(cast(Any, target).name()) if isinstance(target, HigherOrderOperator) else ""
    return name if name in RUNNERS else None


def _inside(node: fx.Node, position: int, modes: Modes) -> Modes:
    """What is switched on in the graph at `position` among the arguments of a higher-order operator."""
    name = _runner(node)
    if name == "wrap_with_set_grad_enabled":
        return replace(modes, grad=bool(node.args[0]))
    if name == "wrap_with_autocast":
        device, dtype, enabled = cast("tuple[Any, ...]", node.args)[:3]
        return modes.with_autocast(device, dtype, enabled)
    if name == "autograd_function_apply" and position == 0:
        return replace(modes, grad=False)  # the function brings its own backward
    return modes


def exchange(root: torch.nn.Module, bodies: Mapping[str, Body], changed: Mapping[str, fx.GraphModule]) -> None:
    """Put other graphs in the place of bodies, under every path of each. The tree of modules is `root`'s own."""
    for name, module in changed.items():
        for path in bodies[name].paths:
            parent, _, leaf = path.rpartition(".")
            owner = attribute(root, parent) if parent else root
            setattr(owner, leaf, module)

"""Copies of modules that share every parameter and buffer with the original, and nothing that can be switched."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import TypeVar, cast

from torch import fx, nn

_Module = TypeVar("_Module", bound=nn.Module)
_GRAPH_STATE = ("_graph", "_code", "_lineno_map", "_prologue_start", "_co_fields", "meta", "_modules")


def copy_graph(graph: fx.Graph) -> fx.Graph:
    """A copy with the names of the original, also where they shadow a builtin (`input`), which FX would rename.

    What others noted on nodes is kept: Dynamo writes down where an input comes from (`_dynamo_source`).
    """
    result = copy.deepcopy(graph)
    for node, original in zip(result.nodes, graph.nodes, strict=True):
        if node.name != original.name:
            node.name = original.name
        for key, value in original.__dict__.items():
            node.__dict__.setdefault(key, value)
    return result


def share_module(module: _Module, memo: dict[int, nn.Module] | None = None) -> _Module:
    """A copy of the tree of modules over the same tensors.

    Modes (`training`) and hooks of the copy are its own. The dictionaries of parameters and buffers are the
    original's, so that a move or a conversion of either reaches both and neither is left half-moved.
    """
    memo = {} if memo is None else memo
    if id(module) in memo:
        return cast(_Module, memo[id(module)])
    if isinstance(module, fx.GraphModule):
        shared: nn.Module = share_graph_module(module, copy_graph(module.graph), memo)
    else:
        # not by the class's own __new__: that of a sharded module (FSDP2) makes another kind of object
        shared = cast(nn.Module, object.__new__(module.__class__))
        memo[id(module)] = shared
        shared.__dict__.update(_own_state(module, memo))
    memo[id(module)] = shared
    return cast(_Module, shared)


def _own_state(module: nn.Module, memo: dict[int, nn.Module]) -> dict[str, object]:
    """The attributes of a module, with its own tables of submodules and hooks."""
    state: dict[str, object] = {}
    for name, value in module.__dict__.items():
        if name == "_modules":
            children = cast("dict[str, nn.Module | None]", value)
            state[name] = {k: None if m is None else share_module(m, memo) for k, m in children.items()}
        else:
            # torch's own tables; a user's class may hold more than its items
            state[name] = value.copy() if type(value) is OrderedDict else value
    return state


def share_graph_module(
    module: fx.GraphModule, graph: fx.Graph, memo: dict[int, nn.Module] | None = None
) -> fx.GraphModule:
    """A GraphModule that runs `graph` over the tensors and submodules of `module`."""
    result = fx.GraphModule(nn.Module(), fx.Graph(), class_name=type(module).__name__)
    state = _own_state(module, {} if memo is None else memo)
    for name, value in state.items():
        if name not in _GRAPH_STATE or name == "_modules":
            result.__dict__[name] = value
    result.meta = dict(module.meta)
    result.graph = graph
    return result

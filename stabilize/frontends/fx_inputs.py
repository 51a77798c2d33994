"""Example inputs in the forms that users give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.graph import _PyTreeCodeGen  # pyright: ignore[reportPrivateUsage]
from torch.utils import _pytree as pytree

from stabilize.errors import ModelError
from stabilize.frontends.fx_types import fake_of

NEED_INPUTS = "the graph does not record the shapes of its inputs: pass example_inputs"


def split_inputs(example_inputs: object) -> tuple[tuple[object, ...], dict[str, object]]:
    """(args, kwargs) from a tensor, a tuple or list of arguments, a dict of keywords, or a pair (args, kwargs)."""
    if isinstance(example_inputs, Mapping):
        return (), {str(k): v for k, v in cast("Mapping[object, object]", example_inputs).items()}
    if isinstance(example_inputs, (tuple, list)):
        items = tuple(cast("Sequence[object]", example_inputs))
        if len(items) == 2 and isinstance(items[0], (tuple, list)) and isinstance(items[1], dict):
            return tuple(cast("Sequence[object]", items[0])), cast("dict[str, object]", items[1])
        return items, {}
    return (example_inputs,), {}


def is_compiled(module: fx.GraphModule) -> bool:
    """Whether this is a graph of torch.compile, which records its inputs."""
    placeholders = [n for n in module.graph.nodes if n.op == "placeholder"]
    return bool(placeholders) and all("example_value" in n.meta for n in placeholders)


def placeholder_inputs(module: fx.GraphModule, example_inputs: object) -> list[object]:
    """One input per placeholder, from example inputs or from what the placeholders themselves record."""
    placeholders = [n for n in module.graph.nodes if n.op == "placeholder"]
    if example_inputs is None or is_compiled(module):
        # graphs of torch.compile record their inputs, symbolic sizes included
        return _recorded(placeholders)
    args, kwargs = split_inputs(example_inputs)
    if isinstance(module.graph._codegen, _PyTreeCodeGen):  # pyright: ignore[reportPrivateUsage]
        leaves = pytree.tree_leaves((args, kwargs))
        if len(leaves) != len(placeholders):
            raise ModelError(f"example_inputs hold {len(leaves)} values, the graph takes {len(placeholders)}")
        return leaves
    if len(args) > len(placeholders):
        raise ModelError(f"example_inputs hold {len(args)} values, the graph takes {len(placeholders)}")
    result = list(args)
    for node in placeholders[len(args) :]:
        name = str(node.target)
        if name in kwargs:
            result.append(kwargs[name])
        elif node.args:
            result.append(node.args[0])
        else:
            raise ModelError(f"example_inputs have no value for input '{name}'")
    return result


def _recorded(placeholders: Sequence[fx.Node]) -> list[object]:
    """Inputs made from the metadata of placeholders: fake tensors, or the shapes of an earlier propagation."""
    mode: FakeTensorMode | None = None
    result: list[object] = []
    for node in placeholders:
        fake = fake_of(node)
        meta = node.meta.get("tensor_meta")
        if fake is not None:
            result.append(fake)
        elif meta is not None and hasattr(meta, "shape"):
            mode = mode or FakeTensorMode()
            with mode:
                result.append(torch.empty(tuple(meta.shape), dtype=meta.dtype, requires_grad=meta.requires_grad))
        elif node.args:
            result.append(node.args[0])
        else:
            raise ModelError(f"{NEED_INPUTS} (input '{node.target}')")
    return result

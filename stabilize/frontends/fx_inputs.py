"""Example inputs in the forms that users give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.graph import _PyTreeCodeGen  # pyright: ignore[reportPrivateUsage]
from torch.utils import _pytree as pytree

from stabilize.errors import ModelError, UsageError
from stabilize.frontends.fx_types import fake_of

NEED_INPUTS = "the graph does not record the shapes of its inputs: pass example_inputs"


def split_inputs(example_inputs: object) -> tuple[tuple[object, ...], dict[str, object]]:
    """(args, kwargs) from a tensor, a tuple or list of arguments, a dict of keywords, or a pair (args, kwargs).

    Arrays are made into tensors. UsageError for one that holds no numbers, and for a keyword that is no string.
    """
    args, kwargs = _split(example_inputs)
    unnamed = [key for key in kwargs if not isinstance(key, str)]
    if unnamed:
        raise UsageError(f"example_inputs have the key {unnamed[0]!r}: keys are names of inputs, strings")
    return cast("tuple[tuple[object, ...], dict[str, object]]", pytree.tree_map(tensor_of, (args, kwargs)))


def _split(example_inputs: object) -> tuple[tuple[object, ...], dict[object, object]]:
    if isinstance(example_inputs, Mapping):
        return (), dict(cast("Mapping[object, object]", example_inputs))
    if isinstance(example_inputs, (tuple, list)):
        items = tuple(cast("Sequence[object]", example_inputs))
        if len(items) == 2 and isinstance(items[0], (tuple, list)) and isinstance(items[1], dict):
            return tuple(cast("Sequence[object]", items[0])), cast("dict[object, object]", items[1])
        return items, {}
    return (example_inputs,), {}


def tensor_of(x: object) -> object:
    """Arrays and NumPy numbers as tensors; other things as they are."""
    if isinstance(x, (np.ndarray, np.generic)):
        array = np.array(cast(Any, x))
        if array.dtype.name == "bfloat16":
            return torch.as_tensor(array.view(np.int16)).view(torch.bfloat16)
        try:
            return torch.as_tensor(array)
        except TypeError as error:
            raise UsageError(f"an array of type {array.dtype} is no tensor: pass numbers or bools") from error
    return x


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
            raise UsageError(f"example_inputs hold {len(leaves)} values, {_wanted(placeholders)}")
        return leaves
    if len(args) > len(placeholders):
        raise UsageError(f"example_inputs hold {len(args)} values, {_wanted(placeholders)}")
    result = list(args)
    for node in placeholders[len(args) :]:
        name = str(node.target)
        if name in kwargs:
            result.append(kwargs[name])
        elif node.args:
            result.append(node.args[0])
        else:
            raise UsageError(f"example_inputs have no value for input '{name}': {_wanted(placeholders)}")
    unknown = [name for name in kwargs if name not in {str(node.target) for node in placeholders}]
    if unknown:
        raise UsageError(f"example_inputs have the name {unknown[0]!r}: {_wanted(placeholders)}")
    return result


def _wanted(placeholders: Sequence[fx.Node]) -> str:
    return f"the graph takes {len(placeholders)} ({', '.join(str(node.target) for node in placeholders) or 'none'})"


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

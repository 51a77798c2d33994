"""What torch.export does not see by itself: inputs that are one tensor, and gradients that are not autograd's own."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn
from torch.utils import _pytree as pytree


def distinct(
    module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """The inputs with every tensor once: torch.export takes two uses of one tensor for one input, for good.

    A parameter or buffer of the module that is passed as an input is copied too.
    """
    seen = {id(t) for t in (*module.parameters(), *module.buffers())}

    def once(leaf: object) -> object:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        if id(leaf) in seen:
            return leaf.detach().clone().requires_grad_(leaf.requires_grad)
        seen.add(id(leaf))
        return leaf

    return cast("tuple[tuple[object, ...], dict[str, object]]", pytree.tree_map(once, (args, dict(kwargs))))


@contextmanager
def gradients_watched() -> Generator[list[str]]:
    """While it lasts, names of the custom autograd functions and tensor hooks that run are collected."""
    found: list[str] = []
    function: Any = torch.autograd.Function
    tensor: Any = torch.Tensor
    apply, register = function.__dict__["apply"], tensor.register_hook

    def watched_apply(cls: type[Any], /, *args: object, **kwargs: object) -> Any:
        if not cls.__module__.startswith("torch."):
            found.append(f"the autograd function {cls.__qualname__}")
        return apply.__get__(None, cls)(*args, **kwargs)

    def watched_register(self: torch.Tensor, hook: object) -> object:
        found.append("a hook on a tensor")
        return register(self, hook)

    function.apply, tensor.register_hook = classmethod(watched_apply), watched_register
    try:
        yield found
    finally:
        function.apply, tensor.register_hook = apply, register


def backward_hooks(module: nn.Module) -> list[str]:
    """The submodules with backward hooks."""
    tree: Any = module
    return [
        f"a backward hook on {path or 'itself'}"
        for path, part in tree.named_modules()
        if part._backward_hooks or part._backward_pre_hooks
    ]

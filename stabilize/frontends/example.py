"""Example inputs, taken apart into tensors so that several models can be run on the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast, final

import numpy as np
import torch
from torch.utils import _pytree as pytree

from stabilize.errors import ModelError, UsageError
from stabilize.frontends.fx_inputs import split_inputs, tensor_of


@final
@dataclass(frozen=True, slots=True)
class Example:
    """Arguments of a call. `tensors` are those among their leaves, in order; other leaves stay what they are."""

    args: tuple[object, ...]
    kwargs: dict[str, object]

    @staticmethod
    def of(example_inputs: object) -> Example:
        """From a tensor or array, a tuple of arguments, a dict of keywords, or a pair (args, kwargs)."""
        return Example(*split_inputs(example_inputs))

    def check_numbers(self) -> None:
        """UsageError for tensors that no numbers can be compared with: meta, nested or quantized ones."""
        for i, tensor in enumerate(self.tensors):
            kind = "on the meta device" if tensor.is_meta else "nested" if tensor.is_nested else "quantized"
            if tensor.is_meta or tensor.is_nested or tensor.is_quantized:
                raise UsageError(f"tensor {i} of the example inputs is {kind}: pass a dense one with data")

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [x for x in self.leaves if isinstance(x, torch.Tensor)]

    @property
    def leaves(self) -> list[object]:
        return pytree.tree_leaves((self.args, self.kwargs))

    def filled(self, tensors: Sequence[torch.Tensor]) -> Example:
        """The same arguments with other tensors. They are copied: models may write into what they are given."""
        leaves, spec = pytree.tree_flatten((self.args, self.kwargs))
        rest = iter(tensors)
        return Example(*pytree.tree_unflatten([next(rest).clone() if _is_tensor(x) else x for x in leaves], spec))

    def positional(self) -> Example:
        """Keyword arguments in their order as positional ones."""
        return Example((*self.args, *self.kwargs.values()), {})

    def by_name(self, names: Sequence[str], model: str) -> dict[str, torch.Tensor]:
        """A tensor for each of `names`: by keyword when all are there, else by position."""
        # like numpy.savez names arrays that have no name
        unnamed = set(self.kwargs) == {f"arr_{i}" for i in range(len(names))}
        if self.kwargs and not self.args and set(names) <= set(self.kwargs) and not unnamed:
            return {name: _need_tensor(self.kwargs[name], name, model) for name in names}
        tensors = [cast(torch.Tensor, self.kwargs[f"arr_{i}"]) for i in range(len(names))] if unnamed else self.tensors
        if len(tensors) != len(names):
            wanted = ", ".join(names) or "none"
            raise UsageError(f"{model} has {len(names)} inputs ({wanted}), the example inputs hold {len(tensors)}")
        return dict(zip(names, tensors, strict=True))

    def check_names(self, names: Sequence[str], model: str) -> None:
        """UsageError when keywords are not the names of the inputs of `model`."""
        if not self.kwargs or self.args or set(self.kwargs) == {f"arr_{i}" for i in range(len(names))}:
            return
        wanted = f"the inputs of {model} are {', '.join(names)}" if names else f"{model} has no inputs"
        missing = [n for n in names if n not in self.kwargs]
        unknown = [k for k in self.kwargs if k not in names]
        if missing:
            raise UsageError(f"example inputs have no {missing[0]!r}: {wanted}")
        if unknown:
            raise UsageError(f"{unknown[0]!r} is no input: {wanted}")


def output_tensors(result: object, model: str) -> list[torch.Tensor]:
    """What a model returned as a flat list of tensors on the CPU, in types that can be compared."""
    found: list[torch.Tensor] = []
    for leaf in pytree.tree_leaves(result):
        if isinstance(leaf, (bool, int, float)):
            found.append(torch.tensor(leaf, dtype=torch.float64 if isinstance(leaf, float) else None))
        elif isinstance(leaf, (torch.Tensor, np.ndarray, np.generic)):
            found.append(_comparable(cast(torch.Tensor, tensor_of(cast(object, leaf))), model))
        elif leaf is not None and not isinstance(leaf, str):
            kind = f"{type(leaf).__module__}.{type(leaf).__qualname__}"
            raise ModelError(f"{model} returns a {kind}: make it return tensors, or register it as a pytree node")
    if not found:
        raise ModelError(f"{model} returns no tensors: there is nothing to compare")
    return found


def _comparable(tensor: torch.Tensor, model: str) -> torch.Tensor:
    tensor = tensor.detach()
    if tensor.is_nested or tensor.is_quantized:
        raise ModelError(f"{model} returns a nested or quantized tensor: make it return dense ones")
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if str(tensor.dtype).startswith("torch.float8"):
        tensor = tensor.float()
    elif tensor.itemsize == 1 and tensor.dtype not in (torch.bool, torch.int8):
        tensor = tensor.view(torch.uint8)  # numbers of fewer than 8 bits have no arithmetic
    return tensor.cpu().resolve_neg().clone()


def _is_tensor(x: object) -> bool:
    return isinstance(x, torch.Tensor)


def _need_tensor(x: object, name: str, model: str) -> torch.Tensor:
    if not isinstance(x, torch.Tensor):
        raise UsageError(f"input {name!r} of {model} must be a tensor or an array, not {type(x).__name__}")
    return x


def brief(error: BaseException) -> str:
    """What an exception says, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__

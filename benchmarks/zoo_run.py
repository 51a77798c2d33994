"""Running a model of the zoo: outputs, gradients, and what is wrong with them."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from zoo_models.entry import Inputs

Tensors = list[torch.Tensor]


def run(module: nn.Module, inputs: Inputs) -> Tensors:
    """The outputs on a copy of the inputs, buffers put back afterwards."""
    state = copy.deepcopy(dict(module.named_buffers()))
    try:
        return [t.detach().clone() for t in _called(module, copy.deepcopy(inputs))]
    finally:
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                buffer.copy_(state[name])


def slopes_too(module: nn.Module, inputs: Inputs) -> Tensors:
    """The outputs, and the gradients of their sum by inputs and parameters; an empty tensor where there is none."""
    leaves, spec = pytree.tree_flatten(copy.deepcopy(inputs))
    watched = [t.requires_grad_() for t in leaves if isinstance(t, torch.Tensor) and t.is_floating_point()]
    watched += [p for p in module.parameters() if p.requires_grad]
    outputs = [t for t in _called(module, pytree.tree_unflatten(leaves, spec)) if t.is_floating_point()]
    total = sum((t.sum() for t in outputs if t.requires_grad), torch.zeros(()))
    slopes = torch.autograd.grad(total, watched, allow_unused=True) if watched and total.requires_grad else ()
    return [t.detach() for t in (*outputs, *(torch.empty(0) if s is None else s for s in slopes))]


def _called(module: nn.Module, inputs: Inputs) -> Tensors:
    """The tensors that a call returns, in order; random numbers are the same in every call."""
    torch.manual_seed(1)
    result = module(**inputs) if isinstance(inputs, Mapping) else module(*inputs)
    return [t for t in pytree.tree_leaves(result) if isinstance(t, torch.Tensor)]


def in_float64(module: nn.Module, inputs: Inputs) -> tuple[nn.Module, Inputs]:
    """Copies."""
    return copy.deepcopy(module).double(), pytree.tree_map(_double, inputs)


def _double(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf


# -- judging -----------------------------------------------------------------------------------------------------------


def same(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> bool:
    """Bit for bit, NaN for NaN."""
    return len(first) == len(second) and all(map(_same, first, second))


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and bool(torch.equal(a, b) or ((a == b) | (a.isnan() & b.isnan())).all())
    )


def difference(given: Sequence[torch.Tensor], truth: Sequence[torch.Tensor]) -> float:
    """Largest difference, relative to the largest element of each output."""
    worst = 0.0
    for one, exact in zip(given, truth, strict=True):
        known = exact.isfinite() if exact.is_floating_point() else torch.zeros((), dtype=torch.bool)
        if known.any() and one.shape == exact.shape:
            scale = exact[known].abs().max().clamp_min(torch.finfo(torch.float32).tiny)
            distance = float((one.double() - exact)[known].abs().max() / scale)
            worst = max(worst, math.inf if math.isnan(distance) else distance)
    return worst


def lost(given: Sequence[torch.Tensor], truth: Sequence[torch.Tensor]) -> tuple[int, int]:
    """Elements that are NaN or infinite: where the truth is a number of their type, and where it is not known to be."""
    wrong = unknown = 0
    for one, exact in zip(given, truth, strict=True):
        if one.is_floating_point():
            broken, known = ~one.isfinite(), exact.to(one.dtype).isfinite()
            wrong, unknown = wrong + int((broken & known).sum()), unknown + int((broken & ~known).sum())
    return wrong, unknown

"""Whether a result is wrong: the same model in float64, its inputs the same, is the truth."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

#: A relative error that no rounding of a healthy expression of these sizes reaches, by the format of the result.
WRONG = {torch.float64: 1e-3, torch.float32: 1e-2, torch.bfloat16: 0.5, torch.float16: 0.1}


def tensors(results: Any) -> list[Tensor]:
    """The float tensors among results, in order."""
    return [t for t in pytree.tree_leaves(results) if isinstance(t, Tensor) and t.is_floating_point()]


def in_float64(given: Any) -> Any:
    return pytree.tree_map(lambda t: t.double() if isinstance(t, Tensor) and t.is_floating_point() else t, given)


def outputs(module: Callable[..., Any], inputs: Sequence[Tensor]) -> list[Tensor]:
    """One run, without gradients; random numbers are the same in every run."""
    torch.manual_seed(3)
    with torch.no_grad():
        return tensors(module(*inputs))


def gradients(module: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Of the sum of all outputs, by float inputs and parameters."""
    torch.manual_seed(3)
    leaves = [t.detach().clone().requires_grad_(t.is_floating_point()) for t in inputs]
    watched = [t for t in leaves if t.requires_grad] + [p for p in module.parameters() if p.requires_grad]
    total = torch.stack([t.double().sum() for t in tensors(module(*leaves))]).sum()
    if not (watched and total.requires_grad):
        return []
    return [s for s in torch.autograd.grad(total, watched, allow_unused=True) if s is not None]


def wrong(results: Iterable[Tensor], truth: Iterable[Tensor] = (), *, scale: str = "tensor") -> str | None:
    """What is wrong with results of finite inputs: NaN, infinite, or far from the truth where that is finite.

    scale: what errors are relative to: the largest number of the "tensor"; of "all" results, for slopes, of which one
    that is 0 over the reals is rounded; or each "element" itself, for the result of one operator.
    """
    pairs = list(_paired(results, truth))
    largest = max((_size(exact) for _, exact in pairs if exact is not None and scale == "all"), default=0.0)
    for result, exact in pairs:
        if bool(result.isnan().any()):
            return "NaN"
        if bool(result.isinf().any()):
            return "infinite"
        known = None if exact is None or exact.shape != result.shape else exact.isfinite()
        if exact is not None and known is not None and bool(known.any()):
            least = max(0.0 if scale == "element" else _size(exact), largest, 2 * torch.finfo(result.dtype).tiny)
            error = float(((result.double() - exact)[known].abs() / exact[known].abs().clamp_min(least)).max())
            if error > WRONG[result.dtype]:
                return f"relative error {error:.2g}"
    return None


def _size(exact: Tensor) -> float:
    finite = exact[exact.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _paired(results: Iterable[Tensor], truth: Iterable[Tensor]) -> Iterable[tuple[Tensor, Tensor | None]]:
    first, second = list(results), list(truth)
    return zip(first, second if len(second) == len(first) else [None] * len(first), strict=True)


def failure(module: nn.Module, inputs: Sequence[Tensor], *, gradient: bool = False,
            truth: Callable[..., Tensor] | None = None) -> str | None:  # fmt: skip
    """How a module fails on finite inputs: its outputs, or its gradients."""
    if not all(bool(t.isfinite().all()) for t in inputs):
        return None
    run = gradients if gradient else outputs
    results = run(module, inputs)
    wide = in_float64(tuple(inputs))
    exact = [truth(*wide)] if truth is not None else _exact(run, module, wide)
    return wrong(results, exact, scale="all" if gradient else "tensor")


def _exact(run: Callable[..., list[Tensor]], module: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Of a copy in float64; nothing where that cannot be, because the module itself casts."""
    try:
        return run(copy.deepcopy(module).double(), inputs)
    except RuntimeError:
        return []

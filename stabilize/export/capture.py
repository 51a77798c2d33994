"""From what the user gives `export_onnx` to an exported program."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from stabilize.errors import ModelError, UsageError
from stabilize.frontends.example import brief
from stabilize.frontends.fx_capture import silence
from stabilize.frontends.fx_frames import helpers_traced


def captured(
    model: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object], dynamic_shapes: object
) -> ExportedProgram:
    """The program of one call, for inference: traced as it runs, else by its bytecode.

    dynamic_shapes: as `torch.onnx.export` takes it; axes that are named by a string are left open.
    ModelError with the reason of the first attempt when both fail.
    """
    shapes = _without_names(dynamic_shapes)
    first: Exception | None = None
    for strict in (False, True):
        try:
            with silence(), helpers_traced(), torch.no_grad():
                return torch.export.export(
                    model,
                    args,
                    dict(kwargs),
                    dynamic_shapes=cast(Any, shapes),
                    strict=strict,
                    prefer_deferred_runtime_asserts_over_guards=True,
                )
        except Exception as error:  # torch.export raises whatever the code that it traces raises
            first = first or error
    assert first is not None
    raise ModelError(
        f"torch.export cannot capture {type(model).__name__}: {brief(first)}. Rewrite what it names (branches on data: "
        "torch.where or torch.cond), or pass an ExportedProgram"
    ) from first


def _without_names(shapes: object) -> object:
    """`dynamic_shapes` with open axes where `torch.onnx.export` takes names."""
    if isinstance(shapes, str):
        return Dim.DYNAMIC
    if isinstance(shapes, Mapping):
        return {k: _without_names(v) for k, v in cast("Mapping[object, object]", shapes).items()}
    if isinstance(shapes, (list, tuple)):
        each = [_without_names(s) for s in cast("Sequence[object]", shapes)]
        return tuple(each) if isinstance(shapes, tuple) else each
    return shapes


def shapes_of_axes(
    model: object,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    axes: Mapping[str, object],
    names: Sequence[str] | None,
) -> dict[str, object]:
    """`dynamic_shapes` for the older `dynamic_axes`: input name → axes, or axis → name.

    names: of the inputs, in order (`input_names`); the parameters of `forward` without them. Entries for outputs
    say nothing new. UsageError when an argument is not a tensor by itself.
    """
    if not isinstance(model, nn.Module):
        raise UsageError("dynamic_axes of a program that is exported already: its dynamic shapes are settled")
    bound = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    if not all(isinstance(v, torch.Tensor) for v in bound.values()):
        raise UsageError("dynamic_axes with arguments that are not plain tensors: pass dynamic_shapes")
    given = dict(zip(names or bound, bound, strict=False))
    shapes = cast("dict[str, object]", dict.fromkeys(bound))
    for name, wanted in axes.items():
        if name in given:
            shapes[given[name]] = _open_axes(name, wanted)
    return shapes


def _open_axes(name: str, wanted: object) -> dict[int, object]:
    if isinstance(wanted, Mapping):
        named = cast("Mapping[object, object]", wanted)
        if all(isinstance(a, int) and isinstance(n, str) for a, n in named.items()):
            return {cast(int, a): n for a, n in named.items()}
    elif isinstance(wanted, Iterable) and not isinstance(wanted, str):
        listed = list(cast("Iterable[object]", wanted))
        if all(isinstance(a, int) for a in listed):
            return {cast(int, a): f"{name}_dim_{a}" for a in listed}
    raise UsageError(f"dynamic_axes of {name!r} is {wanted!r}: give a list of axes, or a mapping from axis to name")

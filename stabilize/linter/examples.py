"""Inputs that a model runs on: what searches for witnesses start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch

from stabilize.errors import StabilizeError
from stabilize.frontends.onnx_run import OnnxRunner
from stabilize.graph.host import Host, input_values
from stabilize.graph.value import Value
from stabilize.linter.proof import Named


def examples_of(host: Host, model: object, data: Named) -> list[Named]:
    """Each has all inputs of the model by name: what the user gave, what the host was captured with, else random ones.

    model: what the host was opened from. data: what the user gave, of any number of rows.
    """
    inputs = input_values(host)
    found: list[Named] = []
    if set(data) == set(inputs) and all(_suits(tensor, inputs[name]) for name, tensor in data.items()):
        found.append(data)
    if inputs and set(host.examples) == set(inputs):
        found.append(host.examples)
    if not found and host.kind == "onnx":
        found += _recorded(model)
    return found


def _suits(tensor: torch.Tensor, value: Value) -> bool:
    fixed = [(d, n) for d, n in zip(value.shape, tensor.shape, strict=False) if isinstance(d, int)]
    same = str(tensor.dtype).removeprefix("torch.") == value.dtype
    return same and tensor.dim() == value.type.rank and all(d == n for d, n in fixed)


def _recorded(model: object) -> list[Named]:
    """Random inputs that an ONNX model runs on, if any are found."""
    try:
        example = OnnxRunner(cast(Any, model), "the model").recorded()
    except StabilizeError:
        return []  # witnesses of expressions remain
    return [cast("Mapping[str, torch.Tensor]", example.kwargs)]

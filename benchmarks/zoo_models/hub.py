"""Models of `transformers` from small random configurations. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from zoo_models.entry import Case, Entry, Inputs, load

SMALL = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def hub(
    name: str,
    model: str,
    config: str,
    inputs: Callable[[], Inputs],
    *,
    base: Mapping[str, Any] = SMALL,
    onnx: bool = False,
    defects: tuple[str, ...] = (),
    refused: str | None = None,
    **changes: Any,
) -> Entry:
    """An entry: the class `model` of transformers, with the small configuration and `changes`."""

    def make() -> Case:
        return Case(network(model, config, {**base, **changes}), inputs())

    return Entry(name, "transformers", make, defects, refused, onnx)


def network(model: str, config: str, settings: Mapping[str, Any]) -> nn.Module:
    """A model with random weights, its attention in plain operators where it has a choice."""
    module: nn.Module = load(f"transformers.{model}")(load(f"transformers.{config}")(**settings))
    return module

"""One model of the zoo: how to make it, and what is known to be wrong with it."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn

Inputs: TypeAlias = "tuple[Any, ...] | Mapping[str, Any]"
"""Positional arguments, or keywords."""

DATA_DEPENDENT = "Could not"
"""What torch.export says of shapes and branches that depend on data."""

OWN_GRADIENTS = "the autograd function"
"""What `stabilize` says of gradients that are not autograd's own."""

COUNTING = "changes its attribute"
"""What `stabilize` says of modules that note something in an attribute when they are called."""

CHECKPOINTED = "activation checkpointing"
"""What `stabilize` says of modules that compute again in the backward pass what they did not keep."""


DROPPED = "In ONNX the guard is gone: the optimizer of `torch.onnx` takes + 1e-10 and less for + 0."
"""Why more is found in the ONNX model than in the PyTorch model."""


@dataclass(frozen=True)
class Case:
    """A model and what it is run on.

    inputs: of ordinary size. breaking: others on which the naive code in it fails, None when none are known.
    train: captured in training mode.
    """

    module: nn.Module
    inputs: Inputs
    breaking: Inputs | None = None
    train: bool = False


@dataclass(frozen=True)
class Entry:
    """`make` imports the package, so that the zoo can be listed without any of them.

    package: the distribution on PyPI. defects: the codes of the rules that must find something here; each was
    confirmed by reading the package's source. Any other finding is unexpected, and reported as such.
    refused: part of the message with which torch.export refuses the model; it is captured by torch.compile then.
    onnx: exported and judged in ONNX Runtime as well. onnx_codes: as `defects`, where torch.onnx writes other
    operators than the package's. note: what to know of the result, in Markdown.
    """

    name: str
    package: str
    make: Callable[[], Case]
    defects: tuple[str, ...] = ()
    refused: str | None = None
    onnx: bool = False
    onnx_codes: tuple[str, ...] | None = None
    note: str = ""

    @property
    def onnx_defects(self) -> tuple[str, ...]:
        """The codes that must be found in ONNX."""
        return self.defects if self.onnx_codes is None else self.onnx_codes


class Function(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: torch.Tensor) -> Any:
        return self.function(*tensors)


def load(path: str) -> Any:
    """`package.module.name`, imported."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def without_compiled_torchvision() -> None:
    """Let torchvision from PyPI, which is built for CUDA, be imported beside a CPU build of torch.

    Only its compiled operators (nms and the like) are missing then. No model here uses them.
    """
    if torch.version.cuda is not None:
        return
    name = "torchvision._meta_registrations"
    sys.modules.setdefault(name, types.ModuleType(name))


def tokens(*shape: int, below: int = 96) -> torch.Tensor:
    """Token ids, int64; 0 to 3 are left to padding and the like."""
    return torch.randint(4, below, shape)


class Method(nn.Module):
    """A method of a package's class as a module, with the fields that it reads; the class's own set-up (which may
    want data sets and configuration files) is left out."""

    def __init__(self, method: str, **fields: Any) -> None:
        super().__init__()
        path, _, name = method.rpartition(".")
        self.method = getattr(load(path), name)
        for field, value in fields.items():
            setattr(self, field, value)

    def forward(self, *tensors: torch.Tensor) -> Any:
        return self.method(self, *tensors)

"""The PyTorch frontend: open a model as a host whose graph can be viewed and patched.

host = open_module(model, example_inputs)
host.view                              # the semantic view
host.patched([Replacement(old, new)]).model()  # a rewritten model of the same kind
"""

from __future__ import annotations

import inspect

from torch import fx, nn
from torch.export import ExportedProgram

from stabilize.errors import ModelError, UsageError
from stabilize.frontends.example import Example
from stabilize.frontends.fx_hosts import ExportedHost, GraphModuleHost
from stabilize.frontends.fx_inputs import split_inputs
from stabilize.frontends.fx_module import Compile, Later, ModuleHost, Rewrite, rewritten
from stabilize.frontends.fx_run import as_exported


def open_exported(exported: ExportedProgram, example_inputs: object = None) -> ExportedHost:
    """An exported program; its rewritten form is a valid ExportedProgram.

    example_inputs: not needed; UsageError when they are not what the program takes.
    """
    if example_inputs is not None:
        as_exported(exported, "the program", Example.of(example_inputs))
    return ExportedHost(exported)


def open_graph_module(module: fx.GraphModule, example_inputs: object = None) -> GraphModuleHost:
    """A GraphModule, ATen or torch-level; its rewritten form is a GraphModule.

    example_inputs: a tensor, a tuple of arguments, a dict of keywords or a pair (args, kwargs); not needed when
    the placeholders record their shapes. ModelError says so when they are missing.
    """
    return GraphModuleHost(module, example_inputs)


def open_module(
    module: nn.Module,
    example_inputs: object,
    dynamic_shapes: object = None,
    rewrite: Rewrite | None = None,
    compile: Compile | None = None,
) -> ModuleHost:
    """A module, exported now for `example_inputs`; its rewritten form is an nn.Module over the same parameters.

    dynamic_shapes: as torch.export.export takes it. rewrite: for calls of another kind, which are captured when they
    come. compile: for those of them that torch.export cannot capture. ModelError when the module cannot be exported.
    """
    if example_inputs is None:
        raise ModelError("capturing a module needs example_inputs")
    args, keywords = split_inputs(example_inputs)
    _check_call(module, args, keywords)
    return ModuleHost(module, args, keywords, Later(rewrite, compile, dynamic_shapes))


def _check_call(module: nn.Module, args: tuple[object, ...], keywords: dict[str, object]) -> None:
    """UsageError for arguments that `forward` does not have."""
    try:
        signature = inspect.signature(module.forward)
    except ValueError:  # a forward that is not written in Python
        return
    try:
        signature.bind(*args, **keywords)
    except TypeError as error:
        forward = f"{type(module).__name__}.forward"
        raise UsageError(f"example_inputs are no arguments of {forward}{signature}: {error}") from error


def open_lazily(
    module: nn.Module, rewrite: Rewrite, dynamic_shapes: object = None, compile: Compile | None = None
) -> nn.Module:
    """A module that is captured and rewritten at its first call, like torch.compile."""
    return rewritten(module, [], Later(rewrite, compile, dynamic_shapes))


__all__ = [
    "ExportedHost",
    "GraphModuleHost",
    "ModuleHost",
    "open_exported",
    "open_graph_module",
    "open_lazily",
    "open_module",
]

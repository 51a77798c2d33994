"""Run PyTorch models on example inputs without leaving a trace in them."""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from typing import Any, cast, final

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from stabilize.errors import ModelError, UsageError
from stabilize.frontends.example import Example, brief, output_tensors
from stabilize.frontends.fx_inputs import placeholder_inputs
from stabilize.frontends.random_inputs import draw

_random: Any = torch.random


@final
class TorchRunner:
    """A module, a graph module or an exported program."""

    def __init__(self, model: nn.Module | ExportedProgram, name: str) -> None:
        self.name = name
        self._program = model if isinstance(model, ExportedProgram) else None
        self.module: nn.Module = self._unlifted() if isinstance(model, ExportedProgram) else model
        states = (*self.module.named_parameters(), *self.module.named_buffers())
        empty = next((state for state, tensor in states if tensor.is_meta), None)
        if empty is not None:
            raise ModelError(f"{name} has no numbers in {empty!r}, which is on the meta device: load the weights first")

    def _unlifted(self) -> nn.Module:
        # its own checks of input sizes are kept; guards would also refuse the float64 copy
        try:
            return cast(ExportedProgram, self._program).module(check_guards=False)
        except Exception as error:  # a damaged program fails anywhere in there
            raise ModelError(f"{self.name} is no program that PyTorch can run: {brief(error)}") from error

    def recorded(self) -> Example | None:
        """Inputs that the model itself remembers, if it does."""
        if self._program is not None:
            recorded = self._program.example_inputs
            return None if recorded is None else Example.of(recorded)
        if not isinstance(self.module, fx.GraphModule):
            return None
        try:
            inputs = placeholder_inputs(self.module, None)
        except ModelError:
            return None
        return Example(tuple(draw(x, i) if isinstance(x, torch.Tensor) else x for i, x in enumerate(inputs)), {})

    def accepted(self, example: Example, *, by_position: bool = True) -> Example:
        """`example` as this model takes it; UsageError when it does not.

        by_position: keywords may be those of another model, in the same order.
        """
        if self._program is not None:
            return as_exported(self._program, self.name, example, by_position=by_position)
        first: TypeError | None = None
        for candidate in (example, example.positional()) if by_position else (example,):
            try:
                inspect.signature(self.module.forward).bind(*candidate.args, **candidate.kwargs)
            except TypeError as error:
                first = first or error
            else:
                return candidate
        raise UsageError(f"the example inputs are no arguments of {self.name}: {first}")

    def run(self, example: Example, module: Callable[..., Any] | None = None) -> list[torch.Tensor]:
        """Its outputs as tensors. Random numbers start anew at each run, and buffers are put back afterwards.

        module: what to call in its place, a copy for example.
        """
        with torch.no_grad(), _random.fork_rng(), _buffers_kept(self.module):
            _random.manual_seed(0)
            called = module or self.module
            # a graph module prints where it failed, which the error says too
            quiet = contextlib.redirect_stderr(io.StringIO()) if isinstance(called, fx.GraphModule) else nullcontext()
            try:
                with quiet:
                    result = called(*example.args, **example.kwargs)
            except Exception as error:  # the user's code may raise anything
                raise ModelError(f"{self.name} fails on these inputs: {brief(error)}") from error
            return output_tensors(result, self.name)


def as_exported(program: ExportedProgram, name: str, example: Example, *, by_position: bool = False) -> Example:
    """The values of `example` in the structure that `program` was exported with; UsageError when they do not fit.

    name: of the program, for the error. by_position: as in `TorchRunner.accepted`.
    """
    spec = program.call_spec.in_spec
    leaves, given = pytree.tree_flatten((example.args, example.kwargs))
    names = [str(name) for name in program.graph_signature.user_inputs]
    if spec is None or given == spec:
        return example
    if len(leaves) != len(names):
        wanted = f"{len(names)} inputs ({', '.join(names)})"
        raise UsageError(f"{name} takes {wanted}, the example inputs hold {len(leaves)}")
    if not example.args and set(example.kwargs) == set(names):
        leaves = [example.kwargs[name] for name in names]
    elif not by_position:
        example.check_names(names, name)
    return Example(*pytree.tree_unflatten(leaves, spec))


@contextmanager
def _buffers_kept(module: nn.Module) -> Generator[None]:
    """Put back what a run does to buffers: running statistics, caches."""
    before = [
        (owner, name, buffer, _plain(buffer).clone())
        for owner in module.modules()
        for name, buffer in owner.named_buffers(recurse=False, remove_duplicate=False)
    ]
    try:
        yield
    finally:
        for owner, name, buffer, contents in before:
            if buffer.shape != contents.shape:
                buffer.resize_(contents.shape)
            if not torch.equal(_dense(_plain(buffer)), _dense(contents)):
                _plain(buffer).copy_(contents)
            setattr(owner, name, buffer)


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """A view that can be copied and compared: torch has no kernels for numbers of fewer than 8 bits."""
    one_byte = tensor.itemsize == 1 and tensor.layout is torch.strided and not tensor.is_quantized
    return tensor.view(torch.uint8) if one_byte else tensor


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.layout is torch.strided else tensor.to_dense()

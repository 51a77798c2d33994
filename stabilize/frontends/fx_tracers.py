"""Who traces through the forward of a module, what they leave open, and how to talk to them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias, TypeVar, cast, final

import torch
from torch import nn
from torch.fx.experimental.symbolic_shapes import has_static_value

_TORCH: Final = cast(Any, torch)

_Method = TypeVar("_Method", bound=Callable[..., object])

OpenAxes: TypeAlias = "tuple[tuple[int, ...], ...]"
"""For every input, the axes whose size is not known yet."""


def open_axes(leaf: object) -> tuple[int, ...]:
    """The axes of an input whose size the tracer around the call leaves open."""
    if not isinstance(leaf, torch.Tensor):
        return ()
    return tuple(axis for axis, size in enumerate(leaf.shape) if not has_static_value(size))


def is_traced() -> bool:
    """Whether someone traces through this call, so that torch.compile cannot take it."""
    return bool(
        torch.compiler.is_compiling()
        or _TORCH.jit.is_tracing()
        or _TORCH._C._functorch.peek_interpreter_stack() is not None
        or _TORCH.utils._python_dispatch._get_current_dispatch_mode_stack()
    )


@final
class Untraced:
    """Inside, torch.jit.trace does not see what is done, and sizes are numbers."""

    def __enter__(self) -> None:
        self._state: object = _TORCH._C._get_tracing_state()
        _TORCH._C._set_tracing_state(None)

    def __exit__(self, *_: object) -> None:
        _TORCH._C._set_tracing_state(self._state)


def while_dynamo_compiles(method: _Method) -> _Method:
    """A method that Dynamo does not trace: it calls it while it compiles, and takes the result for a constant."""
    return cast(_Method, _TORCH.compiler.assume_constant_result(method))


# --- arguments --------------------------------------------------------------------------------------------------------


def positional_names(original: type[nn.Module]) -> tuple[str, ...]:
    """The parameters of `forward` that may be given by position and by name."""
    parameters = list(inspect.signature(original.forward).parameters.values())[1:]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return ()
    return tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)


def positional(
    names: tuple[str, ...], args: tuple[object, ...], kwargs: Mapping[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """The same call with keywords that follow the positional arguments as such: one program serves both spellings."""
    rest = dict(kwargs)
    for name in names[len(args) :]:
        if name not in rest:
            break
        args = (*args, rest[name])
        rest = {k: v for k, v in rest.items() if k != name}
    return args, rest


# Dynamo hands tensors and constants to what it calls while it compiles, not containers: these are taken apart, and put
# together again.

Structure: TypeAlias = "tuple[str, tuple[Any, ...]] | None"
"""A container as a constant: its kind and what is in it. None: a leaf."""


def structure(value: Any) -> Structure:
    """How the leaves of `flat` are held together."""
    if isinstance(value, (tuple, list)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return kind, tuple([structure(v) for v in cast("list[Any]", value)])
    if isinstance(value, dict):
        return "dict", tuple([(k, structure(v)) for k, v in cast("dict[str, Any]", value).items()])
    return None


def flat(value: Any) -> list[object]:
    """The leaves of tuples, lists and dicts, in order."""
    if isinstance(value, (tuple, list)):
        return [leaf for v in cast("list[Any]", value) for leaf in flat(v)]
    if isinstance(value, dict):
        return [leaf for v in cast("dict[str, Any]", value).values() for leaf in flat(v)]
    return [value]


def unflat(structure: Structure, leaves: Iterator[object]) -> object:
    """The containers again."""
    if structure is None:
        return next(leaves)
    kind, items = structure
    if kind == "dict":
        return {k: unflat(v, leaves) for k, v in items}
    made = [unflat(v, leaves) for v in items]
    return tuple(made) if kind == "tuple" else made

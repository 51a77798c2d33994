"""What autocast makes of a call. PyTorch has a table of its own for each kind of device; it is asked, not copied.

A call runs twice on fake tensors, with autocast on and off, and what the operators below it see is compared.
Autocast is understood when it casts arguments of the call and does nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias, cast, final

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from stabilize.frontends.fx_modes import Modes
from stabilize.frontends.fx_types import Fake

Casts: TypeAlias = Mapping[int, torch.dtype]
"""`id` of a tensor argument → the dtype that autocast casts it to."""


@final
@dataclass(frozen=True)
class Ran:
    """A call on fake tensors. casts: of its arguments, by autocast; None when autocast reached deeper."""

    result: Fake
    casts: Casts | None


def run(
    target: Callable[..., object],
    args: Sequence[object],
    kwargs: Mapping[str, object],
    modes: Modes,
    fake_mode: AbstractContextManager[object],
) -> Ran:
    """Run a call as it would run where these modes hold."""
    with fake_mode, modes.entered(), _Seen() as on:
        result = target(*args, **kwargs)
    if not concerns(args, kwargs, modes):
        return Ran(result, {})
    given = {id(t): t for t in _floats((args, kwargs))}
    casts: dict[int, torch.dtype] = {}
    rest = list(on.calls)
    for call in on.calls:
        if call.target is torch.ops.aten._to_copy.default and call.first in given and call.only_dtype is not None:
            casts[call.first] = call.only_dtype
            rest.remove(call)

    def converted(leaf: object) -> object:
        return leaf.to(casts[id(leaf)]) if isinstance(leaf, torch.Tensor) and id(leaf) in casts else leaf

    with fake_mode, Modes(modes.grad).entered():
        args, kwargs = pytree.tree_map(converted, (tuple(args), dict(kwargs)))
        with _Seen() as off:
            target(*args, **kwargs)
    same = [c.text for c in off.calls] == [c.text for c in rest]
    return Ran(result, casts if same else None)


def concerns(args: Sequence[object], kwargs: Mapping[str, object], modes: Modes) -> bool:
    """Whether there is anything that autocast might cast."""
    return bool(modes.autocast) and any(t.device.type in modes.autocast for t in _floats((args, kwargs)))


def _floats(arguments: object) -> list[torch.Tensor]:
    return [t for t in _tensors(arguments) if t.is_floating_point()]


@final
@dataclass(frozen=True)
class _Call:
    """One operator call. first: `id` of its first argument. text: the operator and the types it was called with."""

    target: object
    first: int
    only_dtype: torch.dtype | None
    text: str


@final
class _Seen(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operator that is dispatched."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[_Call] = []
        self._kept: list[object] = []  # so that no `id` is given twice

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        keywords = dict(kwargs or {})
        result = func(*args, **keywords)
        if func is not torch.ops.prim.device.default:
            given = keywords.get("dtype")
            only = cast(torch.dtype, given) if set(keywords) == {"dtype"} else None
            text = f"{func} {[_described(a) for a in pytree.tree_leaves((args, keywords))]}"
            self.calls.append(_Call(func, id(args[0]) if args else 0, only, text))
            self._kept.append((args, result))
        return result


def _described(argument: object) -> str:
    if isinstance(argument, torch.Tensor):
        return f"{argument.dtype}{tuple(map(str, argument.shape))}"
    return str(argument)


def fake_mode_of(fakes: Iterable[Fake]) -> AbstractContextManager[object]:
    """The mode of fake tensors that some of these have."""
    modes = (f.fake_mode for f in pytree.tree_leaves(list(fakes)) if isinstance(f, FakeTensor))
    return next(modes, None) or FakeTensorMode(allow_non_fake_inputs=True)


def same_types(a: Fake, b: Fake) -> bool:
    """Whether two results are of the same dtypes."""
    return [t.dtype for t in _tensors(a)] == [t.dtype for t in _tensors(b)]


def _tensors(fake: Fake) -> list[torch.Tensor]:
    return [t for t in pytree.tree_leaves(fake) if isinstance(t, torch.Tensor)]

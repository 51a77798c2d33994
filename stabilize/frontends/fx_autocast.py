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
from stabilize.frontends.fx_types import Fake, operator_of, parameters_of

Casts: TypeAlias = Sequence[tuple[torch.Tensor, torch.dtype]]
"""Tensor arguments, and the dtype that autocast casts each to."""

Mode: TypeAlias = AbstractContextManager[object]


@final
@dataclass(frozen=True)
class Ran:
    """A call on fake tensors.

    casts: of its arguments, by autocast; None when autocast reached deeper. narrows: whether one of them loses digits.
    """

    result: Fake
    casts: Casts | None
    narrows: bool = False


def run(
    target: Callable[..., object],
    args: Sequence[object],
    kwargs: Mapping[str, object],
    modes: Modes,
    mode: Mode,
) -> Ran:
    """Run a call as it would run where these modes hold."""
    if not concerns(args, kwargs, modes):
        with mode, Modes(modes.grad).entered():
            return Ran(target(*args, **kwargs), [])
    with mode, modes.entered(), _Seen() as on:
        result = target(*args, **kwargs)
    if on.texts == _without(target, args, kwargs, modes, mode):
        return Ran(result, [])
    casts = _cast(target, args, kwargs, on, modes, mode) or _chosen(target, args, kwargs, on, modes, mode)
    if casts is None:
        return Ran(result, None)
    return Ran(result, casts, any(torch.promote_types(d, t.dtype) != d for t, d in casts))


def _cast(
    target: Callable[..., object],
    args: Sequence[object],
    kwargs: Mapping[str, object],
    on: _Seen,
    modes: Modes,
    mode: Mode,
) -> Casts | None:
    """The arguments that are cast first, when that explains the rest."""
    given = {id(t): t for t in _floats((args, kwargs))}
    casts: dict[int, torch.dtype] = {}
    rest = list(on.calls)
    for call in on.calls:
        if call.target is torch.ops.aten._to_copy.default and call.first in given and call.only_dtype is not None:
            casts[call.first] = call.only_dtype
            rest.remove(call)

    def converted(leaf: object) -> object:
        return leaf.to(casts[id(leaf)]) if isinstance(leaf, torch.Tensor) and id(leaf) in casts else leaf

    with mode:
        args, kwargs = pytree.tree_map(converted, (tuple(args), dict(kwargs)))
    same = [c.text for c in rest] == _without(target, args, kwargs, modes, mode)
    return [(given[i], dtype) for i, dtype in casts.items()] if same else None


def _chosen(
    target: Callable[..., object],
    args: Sequence[object],
    kwargs: Mapping[str, object],
    on: _Seen,
    modes: Modes,
    mode: Mode,
) -> Casts | None:
    """The argument of an operator that takes a dtype to compute in (`sum`, `softmax`), when autocast chooses that."""
    operator = operator_of(target)
    names = [p.name for p in parameters_of(operator)] if operator is not None else []
    floats = _floats((args, kwargs))
    if "dtype" not in names or len(floats) != 1 or "dtype" in kwargs or len(args) > names.index("dtype"):
        return None
    same = on.texts == _without(target, args, {**kwargs, "dtype": torch.float32}, modes, mode)
    return [(floats[0], torch.float32)] if same else None


def _without(
    target: Callable[..., object],
    args: Sequence[object],
    kwargs: Mapping[str, object],
    modes: Modes,
    mode: Mode,
) -> list[str]:
    """The operators that a call without autocast comes down to."""
    seen = _Seen()
    with mode, Modes(modes.grad).entered(), seen:
        target(*args, **kwargs)
    return seen.texts


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

    @property
    def texts(self) -> list[str]:
        return [c.text for c in self.calls]

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


def fake_mode_of(fakes: Iterable[Fake]) -> Mode:
    """The mode of fake tensors that some of these have."""
    modes = (f.fake_mode for f in pytree.tree_leaves(list(fakes)) if isinstance(f, FakeTensor))
    return next(modes, None) or FakeTensorMode(allow_non_fake_inputs=True)


def same_types(a: Fake, b: Fake) -> bool:
    """Whether two results are of the same dtypes."""
    return [t.dtype for t in _tensors(a)] == [t.dtype for t in _tensors(b)]


def _tensors(fake: Fake) -> list[torch.Tensor]:
    return [t for t in pytree.tree_leaves(fake) if isinstance(t, torch.Tensor)]

"""nn.Module hosts. The rewritten module is an instance of the user's class over the user's tensors.

What is captured is one call: its mode (train/eval of every submodule), dtypes, devices, shapes (symbolic where
`dynamic_shapes` says so, where they changed between captures, or where the tracer around the call asks for it).
`forward` runs the captured program on the current parameters. A call of another kind (after `.eval()`, `.half()`,
`.to(device)`, with another static shape) is captured and rewritten anew, up to a limit. What torch.export cannot
capture (branches on data, custom autograd functions, hooks inside the module, checkpointing) is left to torch.compile,
with graph breaks where it needs them.

torch.compile, torch.export, torch.jit.trace and torch.func see the operators of the rewritten program.
"""

from __future__ import annotations

import copy
import copyreg
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, cast, final

import torch
from torch import nn
from torch.utils import _pytree as pytree

from stabilize.errors import ModelError
from stabilize.frontends.fx_capture import Call, apart, export
from stabilize.frontends.fx_hosts import ExportedHost
from stabilize.frontends.fx_modes import Modes
from stabilize.frontends.fx_share import share_module
from stabilize.frontends.fx_tracers import (
    OpenAxes,
    Structure,
    Untraced,
    flat,
    is_traced,
    open_axes,
    positional,
    positional_names,
    structure,
    unflat,
    while_dynamo_compiles,
)
from stabilize.frontends.fx_variant import Variant, changed_axes
from stabilize.graph.host import Host, Piece
from stabilize.graph.value import Value
from stabilize.graph.view import Replacement, View

VARIANT_LIMIT = 8
"""How many variants of one module are kept (the limit that torch.compile has on recompilations)."""

Rewrite: TypeAlias = "Callable[[ExportedHost], ExportedHost]"
"""What is done to a newly captured variant."""

Forward: TypeAlias = "Callable[..., object]"


class Compile(Protocol):
    """Makes of a forward that torch.export cannot capture one that is captured and rewritten piece by piece."""

    def __call__(self, forward: Forward, /) -> Forward: ...


@final
@dataclass(frozen=True)
class Later:
    """What happens to calls that nothing was captured for: they are exported and rewritten; where that cannot be,
    compiled. dynamic_shapes: as torch.export.export takes it."""

    rewrite: Rewrite | None = None
    compile: Compile | None = None
    dynamic_shapes: object = None


@final
class ModuleHost:
    """A module captured for one call. later: what its rewritten form does to calls of another kind."""

    kind = "fx"
    outer_names = ()  # it stands by itself

    def __init__(
        self,
        module: nn.Module,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        later: Later,
    ) -> None:
        self.module = module
        self.later = later
        args, kwargs = positional(positional_names(type(module)), args, kwargs)
        call = Call(args, kwargs, shapes=later.dynamic_shapes)
        self.modes = _autocast()
        self._leaves: list[object] = pytree.tree_leaves((args, dict(kwargs)))
        self.captured = self.inner = ExportedHost(export(module, call, self.modes), self.modes)

    @property
    def view(self) -> View:
        return self.inner.view

    def tensor(self, value: Value) -> torch.Tensor | None:
        return self.inner.tensor(value)

    def refusal(self, replacement: Replacement) -> str | None:
        return self.inner.refusal(replacement)

    @property
    def examples(self) -> Mapping[str, torch.Tensor]:
        """Those of the call; the program was captured with empty ones."""
        return self.inner.named(self._leaves)

    @property
    def sizes(self) -> Mapping[str, int]:
        return self.inner.sizes

    def piece(self, names: Sequence[str], targets: Sequence[str]) -> Piece:
        return self.inner.piece(names, targets)

    def can_emit(self, value: Value) -> str | None:
        return self.inner.can_emit(value)

    def patched(self, replacements: Sequence[Replacement]) -> ModuleHost:
        return self._with(self.inner.patched(replacements))

    def bodies(self) -> Mapping[str, Host]:
        return self.inner.bodies()

    def with_bodies(self, bodies: Mapping[str, Host]) -> ModuleHost:
        return self._with(self.inner.with_bodies(bodies))

    def _with(self, inner: ExportedHost) -> ModuleHost:
        host = copy.copy(self)
        host.inner = inner
        return host

    def model(self) -> nn.Module:
        """A module that shares every tensor; the very same module when nothing was replaced."""
        if self.inner is self.captured:
            return self.module
        return rewritten(self.module, [Variant(self.inner.exported, self.module, self.modes)], self.later)


# --- the class --------------------------------------------------------------------------------------------------------


class RewrittenModule(nn.Module):
    """Mixed into the user's class, whose `forward` then runs the rewritten program."""

    _rewritten: _Capture

    def __reduce_ex__(self, protocol: Any) -> Any:
        """The class is made at run time: pickles hold the user's."""
        made, arguments, *rest = cast("tuple[Any, ...]", super().__reduce_ex__(protocol))
        if made is cast(Any, copyreg).__newobj__:
            made, arguments = _new, (self._rewritten.original, *arguments[1:])
        return made, arguments, *rest


def _new(original: type[nn.Module], *arguments: Any) -> nn.Module:
    """An empty instance of the rewritten twin of a class, to be filled by pickle or copy."""
    twin = _subclass(original)
    return twin.__new__(twin, *arguments)


def rewritten(module: nn.Module, variants: Sequence[Variant], later: Later) -> nn.Module:
    """An instance of the module's class that runs captured variants, and captures more as `later` says."""
    shared = share_module(module)
    previous = cast("_Capture | None", module.__dict__.get("_rewritten"))
    original = previous.original if previous is not None else type(module)
    shared.__dict__["_rewritten"] = _Capture(original, list(variants), later, previous)
    shared.__class__ = _subclass(original)
    return shared


_SUBCLASSES: dict[type[nn.Module], type[nn.Module]] = {}


def _subclass(original: type[nn.Module]) -> type[nn.Module]:
    """The rewritten twin of a module class (one per class)."""
    if original not in _SUBCLASSES:

        def forward(self: RewrittenModule, /, *args: object, **kwargs: object) -> object:
            return self._rewritten.call(self, args, kwargs)  # pyright: ignore[reportPrivateUsage]

        forward.__doc__ = original.forward.__doc__
        cast(Any, forward).__signature__ = inspect.signature(original.forward)
        members = {"__module__": original.__module__, "__doc__": original.__doc__, "forward": forward}
        _SUBCLASSES[original] = type(f"Stabilized{original.__name__}", (RewrittenModule, original), members)
    return _SUBCLASSES[original]


# --- calls ------------------------------------------------------------------------------------------------------------


@final
class _Capture:
    """The variants of one rewritten module, and how to get more. previous: of the module that was rewritten, if it was
    a rewritten one itself."""

    def __init__(
        self, original: type[nn.Module], variants: list[Variant], later: Later, previous: _Capture | None
    ) -> None:
        self.original, self.variants, self.later, self.previous = original, variants, later, previous
        self.names = positional_names(original)
        self.refused: str | None = None
        self.compiled: Forward | None = None
        self.warned = False

    def __deepcopy__(self, memo: dict[int, object]) -> _Capture:
        return _Capture(self.original, list(self.variants), self.later, copy.deepcopy(self.previous, memo))

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "compiled": None}

    def call(self, module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        args, kwargs = positional(self.names, args, kwargs)
        if torch.compiler.is_dynamo_compiling():
            leaves = (*flat(args), *flat(kwargs))
            symbolic = tuple(open_axes(leaf) for leaf in leaves)
            found = self.choose(module, symbolic, structure(args), structure(kwargs), *leaves)
            if found >= 0 and self.variants[found].accepts(module, args, kwargs):
                return self.variants[found].run(module, args, kwargs)
            return self.as_written(module, args, kwargs)
        with Untraced():
            symbolic = tuple(open_axes(leaf) for leaf in pytree.tree_leaves((args, kwargs)))
            variant = self.find(module, args, kwargs, symbolic)
        if variant is not None:
            return variant.run(module, args, kwargs)
        if self.later.compile is None or is_traced():
            self.warn()
            return self.as_written(module, args, kwargs)
        if self.compiled is None:
            self.compiled = self.later.compile(self.as_written)
        return self.compiled(module, args, kwargs)

    def as_written(self, module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """What the module did before it was rewritten."""
        if self.previous is not None:
            return self.previous.call(module, args, kwargs)
        return self.original.forward(module, *args, **kwargs)

    # --- choosing a variant -----------------------------------------------------------------------------------

    @while_dynamo_compiles
    def choose(self, module: nn.Module, symbolic: OpenAxes, args: Structure, kwargs: Structure, *leaves: object) -> int:
        """Which variant a call that Dynamo traces runs, captured if need be; −1: none. Called while it compiles; what
        the choice depends on is checked again in what it traces, so that its guards watch over it."""
        rest = iter(leaves)
        given, named = cast("tuple[object, ...]", unflat(args, rest)), cast("dict[str, object]", unflat(kwargs, rest))
        variant = self.find(module, given, named, symbolic)
        if variant is None:
            self.warn()
        return -1 if variant is None else self.variants.index(variant)

    def find(
        self, module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], symbolic: OpenAxes
    ) -> Variant | None:
        """A variant for this call, captured now if there is none; None when there cannot be one."""
        wanted = {i: set(axes) for i, axes in enumerate(symbolic) if axes}
        for variant in self.variants:
            if variant.is_symbolic(wanted) and variant.accepts(module, args, kwargs):
                return variant
        return self.capture(module, args, kwargs, wanted)

    def capture(
        self, module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], symbolic: dict[int, set[int]]
    ) -> Variant | None:
        """A new variant for a call that none was made for; `refused` says why there is none."""
        if self.later.rewrite is None:
            self.refused = "it was captured for another mode, dtype, device or shape"
        elif len(self.variants) >= VARIANT_LIMIT:
            self.refused = f"{VARIANT_LIMIT} variants were captured already"
        if self.refused is not None or self.later.rewrite is None:
            return None
        rewrite, plain, calls = self.later.rewrite, self.plain(module), self.calls(args, kwargs, symbolic)
        modes = _autocast()
        try:
            self.variants.append(
                apart(lambda: Variant(rewrite(_first_that_exports(plain, calls, modes)).exported, module, modes))
            )
        except ModelError as error:
            self.refused = str(error)
            return None
        return self.variants[-1]

    def plain(self, module: nn.Module) -> nn.Module:
        """A copy of the module as it was before it was rewritten."""
        plain = share_module(module)
        if self.previous is None:
            plain.__class__ = self.original
            del plain.__dict__["_rewritten"]
        else:
            plain.__dict__["_rewritten"] = self.previous
        return plain

    def calls(self, args: tuple[object, ...], kwargs: dict[str, object], symbolic: dict[int, set[int]]) -> list[Call]:
        """What to capture for a call, the most general first: with sizes that changed since earlier captures as symbols
        where the module allows it."""
        if self.later.dynamic_shapes is not None and not symbolic:
            return [Call(args, kwargs, shapes=self.later.dynamic_shapes)]
        for i, axes in changed_axes(self.variants, pytree.tree_leaves((args, kwargs))).items():
            symbolic.setdefault(i, set()).update(axes)
        return [*([Call(args, kwargs, symbolic)] if symbolic else []), Call(args, kwargs)]

    def warn(self) -> None:
        if not self.warned:
            self.warned = True
            name = self.original.__name__
            warnings.warn(f"{name} runs as written, not as rewritten, for this call: {self.refused}", stacklevel=6)


def _autocast() -> Modes:
    """The autocast around this call. Gradients are captured on: a program without them could not give them later."""
    return Modes(autocast=Modes.ambient().autocast)


def _first_that_exports(module: nn.Module, calls: Sequence[Call], modes: Modes) -> ExportedHost:
    """The first of these captures that can be made; ModelError of the last."""
    for call in calls[:-1]:
        try:
            return ExportedHost(export(module, call, modes), modes)
        except ModelError:
            continue  # the module needs its sizes; the next one has them
    return ExportedHost(export(module, calls[-1], modes), modes)

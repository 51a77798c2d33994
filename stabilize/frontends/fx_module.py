"""nn.Module hosts. The rewritten module is an instance of the user's class over the user's tensors.

What is captured is one call: its mode (train/eval of every submodule), dtypes, devices, shapes (symbolic where
`dynamic_shapes` says so). `forward` runs the captured program on the current parameters. A call of another kind
(after `.eval()`, `.half()`, `.to(device)`, with another static shape) is captured and rewritten anew when a
`rewrite` function was given, up to a limit; sizes that changed between captures become symbolic. Otherwise, or when
that capture fails, the call runs the user's own forward, with a warning: right, but not rewritten.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast, final

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from stabilize.errors import ModelError
from stabilize.frontends.fx_capture import backward_hooks, distinct, gradients_watched
from stabilize.frontends.fx_hosts import ExportedHost
from stabilize.frontends.fx_share import share_module
from stabilize.frontends.fx_variant import Variant, changed_axes
from stabilize.graph.host import Host
from stabilize.graph.value import Value
from stabilize.graph.view import Replacement, View

VARIANT_LIMIT = 8
"""How many variants of one module are kept (the limit that torch.compile has on recompilations)."""

Rewrite: TypeAlias = "Callable[[ExportedHost], ExportedHost]"
"""What is done to a newly captured variant."""


def export(
    module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object], dynamic_shapes: object = None
) -> ExportedProgram:
    """Pre-dispatch ATen of one call; ModelError with PyTorch's reason when the module cannot be exported."""
    name = type(module).__name__
    try:
        with _autocast_off(), gradients_watched() as watched:
            exported = torch.export.export(
                module, cast("tuple[Any, ...]", args), dict(kwargs), dynamic_shapes=cast(Any, dynamic_shapes)
            )
    except Exception as error:
        first = str(error).strip().splitlines()
        reason = first[0] if first else type(error).__name__
        raise ModelError(f"torch.export cannot capture {name}: {reason}") from error
    changed = [*watched, *backward_hooks(module)]
    if changed:
        raise ModelError(
            f"{name} changes its gradients by {changed[0]}, which a captured graph would lose: "
            "write it with differentiable operators, or optimize the modules around it"
        )
    return exported


def _autocast_off() -> torch.autocast:
    """Capture what the module says; autocast, when it is on at the call, acts on the captured operators again."""
    return torch.autocast("cpu", enabled=False)


@final
class ModuleHost:
    """A module captured for one call. `rewrite`: what its rewritten form does to calls of another kind."""

    kind = "fx"

    def __init__(
        self,
        module: nn.Module,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        dynamic_shapes: object = None,
        rewrite: Rewrite | None = None,
    ) -> None:
        self.module = module
        self.dynamic_shapes = dynamic_shapes
        self.rewrite = rewrite
        args, kwargs = distinct(module, args, kwargs)
        self.captured = self.inner = ExportedHost(export(module, args, kwargs, dynamic_shapes))

    @property
    def view(self) -> View:
        return self.inner.view

    def tensor(self, value: Value) -> torch.Tensor | None:
        return self.inner.tensor(value)

    def refusal(self, replacement: Replacement) -> str | None:
        return self.inner.refusal(replacement)

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
        return rewritten(self.module, [Variant(self.inner.exported, self.module)], self.rewrite, self.dynamic_shapes)


def rewritten(
    module: nn.Module, variants: Sequence[Variant], rewrite: Rewrite | None, dynamic_shapes: object = None
) -> nn.Module:
    """An instance of the module's class that runs captured variants, and captures more with `rewrite`."""
    shared = share_module(module)
    original = type(module)
    shared.__dict__["_rewritten"] = _Capture(original, list(variants), rewrite, dynamic_shapes)
    shared.__class__ = _subclass(original)
    return shared


class RewrittenModule(nn.Module):
    """Mixed into the user's class: `forward` runs the rewritten program."""

    _rewritten: _Capture

    def forward(self, *args: object, **kwargs: object) -> object:
        return self._rewritten.call(self, args, kwargs)


_SUBCLASSES: dict[type[nn.Module], type[nn.Module]] = {}


def _subclass(original: type[nn.Module]) -> type[nn.Module]:
    """The rewritten twin of a module class (one per class)."""
    if original not in _SUBCLASSES:
        names = {"__module__": original.__module__, "__doc__": original.__doc__}
        _SUBCLASSES[original] = type(f"Stabilized{original.__name__}", (RewrittenModule, original), names)
    return _SUBCLASSES[original]


@final
class _Capture:
    """The variants of one rewritten module, and how to get more."""

    def __init__(
        self, original: type[nn.Module], variants: list[Variant], rewrite: Rewrite | None, dynamic_shapes: object
    ) -> None:
        self.original = original
        self.variants = variants
        self.rewrite = rewrite
        self.dynamic_shapes = dynamic_shapes
        self.warned = False

    def call(self, module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
        for variant in self.variants:
            if variant.accepts(module, args, kwargs):
                return variant.run(module, args, kwargs)
        made = self.capture(module, args, kwargs)
        if made is not None:
            return made.run(module, args, kwargs)
        return self.original.forward(module, *args, **kwargs)

    def capture(self, module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Variant | None:
        """A new variant for a call that none was made for; None, with one warning, when there cannot be one."""
        if self.rewrite is None:
            self.warn("it was captured for another mode, dtype, device or shape")
            return None
        if len(self.variants) >= VARIANT_LIMIT:
            self.warn(f"{VARIANT_LIMIT} variants were captured already")
            return None
        plain = share_module(module)
        plain.__class__ = self.original
        plain.__dict__.pop("_rewritten")
        try:
            host = self.open(plain, args, kwargs)
            exported = self.rewrite(host.inner).exported
        except ModelError as error:
            self.warn(str(error))
            return None
        self.variants.append(Variant(exported, module))
        return self.variants[-1]

    def open(self, module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> ModuleHost:
        """Capture a call, with sizes that changed since earlier captures as symbols where the module allows it."""
        args, kwargs = distinct(module, args, kwargs)
        leaves = pytree.tree_leaves((args, dict(kwargs)))
        changed = {} if self.dynamic_shapes is not None else changed_axes(self.variants, leaves)
        if changed:
            shapes = cast(Any, torch.export.ShapesCollection)()
            for i, axes in changed.items():
                shapes[leaves[i]] = dict.fromkeys(axes, torch.export.Dim.AUTO)
            try:
                return ModuleHost(module, args, kwargs, shapes)
            except ModelError:
                pass  # the module needs its sizes; the capture below is for this one
        return ModuleHost(module, args, kwargs, self.dynamic_shapes)

    def warn(self, reason: str) -> None:
        if not self.warned:
            self.warned = True
            name = self.original.__name__
            warnings.warn(f"{name} runs as written, not as rewritten, for this call: {reason}", stacklevel=6)

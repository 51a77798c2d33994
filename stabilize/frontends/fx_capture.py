"""Capture of one call of a module, whatever is going on around that call."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, redirect_stderr
from typing import Any, TypeVar, cast, final

import torch
from torch import nn
from torch._dynamo import convert_frame
from torch._guards import tracing
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram, _trace  # pyright: ignore[reportPrivateUsage]
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes  # pyright: ignore[reportPrivateUsage]

from stabilize.errors import ModelError
from stabilize.frontends.fx_frames import helpers_traced
from stabilize.frontends.fx_modes import Modes
from stabilize.frontends.fx_share import share_module
from stabilize.frontends.fx_variant import changed_setting, settings
from stabilize.quiet import unlogged

_T = TypeVar("_T")


def export(module: nn.Module, call: Call, modes: Modes) -> ExportedProgram:
    """Pre-dispatch ATen of one call, made in a copy of the module without its own hooks: those are called around it.
    modes: the autocast that the call runs under. ModelError with PyTorch's reason when that cannot be done."""
    name = type(module).__name__
    tree: Any = module
    wrapped = [(str(path), kind) for path, part in tree.named_modules() if (kind := _distributed(part))]
    if wrapped:
        path, kind = wrapped[0]
        raise ModelError(f"{path or name} is wrapped in {kind}: optimize the module first, then wrap it. {_CURE}")
    copied, foreign = _bare(module)

    def capture() -> tuple[ExportedProgram, list[str], list[str], str | None]:
        for table, key, blank in foreign:
            table[key] = blank.make()
        args, kwargs, shapes = call.make()
        before, held = _tensors(copied), settings(copied)
        changed: list[str | None] = []

        def look(*_: object) -> None:  # torch.export puts attributes back when it is done
            changed.append(changed_setting(copied, held))

        cast(Any, copied).register_forward_hook(look)
        with _watched() as found, _inside_another(), silence(), helpers_traced(), modes.autocasting():
            exported = torch.export.export(copied, args, kwargs, dynamic_shapes=shapes)
        replaced = [path for path, tensor in _tensors(copied).items() if before.get(path) is not tensor]
        return exported, found, replaced, next((path for path in changed if path is not None), None)

    try:
        exported, lost, replaced, changed = apart(capture)
    except Exception as error:
        first = str(error).strip().splitlines()
        reason = (first[0] if first else type(error).__name__).rstrip(".")
        cure = "If it runs on these inputs, optimize it without example_inputs, by torch.compile"
        raise ModelError(f"torch.export cannot capture {name}: {reason}. {cure}") from error
    if replaced:
        raise ModelError(
            f"{name} replaces its buffer {replaced[0]} when it is called: torch.export takes that for an input, which "
            f"its program would overwrite. Call the module once before, if that is when it makes the buffer. {_CURE}"
        )
    if changed is not None:
        raise ModelError(
            f"{name} changes its attribute {changed} when it is called, which a captured graph would not: make it a "
            f"buffer. {_CURE}"
        )
    lost += _hooked(module)
    if lost:
        raise ModelError(
            f"{name} has {lost[0]}, which a captured graph would lose: write it with differentiable operators, or "
            f"optimize the modules around it. {_CURE}"
        )
    return exported


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by path."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


_CURE = "What torch.export cannot capture, torch.compile does: optimize without example_inputs"


@contextmanager
def silence() -> Generator[None]:
    """Without what torch logs and prints while it captures: what matters of it is in the error it raises."""
    with unlogged(), redirect_stderr(io.StringIO()):
        yield


@contextmanager
def _inside_another() -> Generator[None]:
    """torch.export notes in global variables what it is doing; inside another export they are put back."""
    state: Any = _trace
    kept = {name: state.__dict__[name] for name in _NOTES if name in state.__dict__}
    try:
        yield
    finally:
        state.__dict__.update(kept)


_NOTES = ("_EXPORT_FLAGS", "_EXPORT_MODULE_HIERARCHY")


# --- what is captured -------------------------------------------------------------------------------------------------


@final
class Blank:
    """What to know of a tensor to make an empty one of its kind. torch.export takes two uses of one tensor for one
    input, for good, and knows nothing of what other tracers hand to a module: tensors inside `torch.func` transforms,
    fakes, symbols. So it is given tensors of its own."""

    def __init__(self, tensor: torch.Tensor, parameter: bool = False) -> None:
        self.size, self.stride = tuple(map(number, tensor.shape)), tuple(map(number, tensor.stride()))
        self.dtype, self.device = tensor.dtype, tensor.device
        self.requires_grad, self.parameter = tensor.requires_grad, parameter

    def make(self) -> torch.Tensor:
        empty: torch.Tensor = cast(Any, torch).empty_strided(
            self.size, self.stride, dtype=self.dtype, device=self.device
        )
        return nn.Parameter(empty, self.requires_grad) if self.parameter else empty.requires_grad_(self.requires_grad)


def number(value: object) -> object:
    """A symbolic number as the number that it is in the call at hand."""
    return cast(Any, value).node.hint if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)) else value


@final
class Call:
    """The inputs of one call, without content. symbolic: the axes to leave open, by input number, for want of `shapes`
    (as torch.export.export takes `dynamic_shapes`)."""

    def __init__(
        self,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        symbolic: Mapping[int, set[int]] | None = None,
        shapes: object = None,
    ) -> None:
        leaves, self._spec = pytree.tree_flatten((args, dict(kwargs)))
        self._leaves = [Blank(leaf) if _is_plain(leaf) else number(leaf) for leaf in leaves]
        self._symbolic = symbolic or {}
        self._shapes = shapes

    def make(self) -> tuple[tuple[object, ...], dict[str, object], Any]:
        """Positional arguments, keywords, and `dynamic_shapes`."""
        made = [leaf.make() if isinstance(leaf, Blank) else leaf for leaf in self._leaves]
        shapes: Any = self._shapes
        if any(self._symbolic.values()):
            shapes = cast(Any, torch.export.ShapesCollection)()
            for i, axes in self._symbolic.items():
                shapes[made[i]] = dict.fromkeys(axes, torch.export.Dim.AUTO)
        args, kwargs = cast("tuple[tuple[object, ...], dict[str, object]]", pytree.tree_unflatten(made, self._spec))
        return args, kwargs, shapes


def _is_plain(leaf: object) -> bool:
    """A strided tensor of torch's own; of another kind torch.export knows what it is, or says why not."""
    if not isinstance(leaf, torch.Tensor) or leaf.layout is not torch.strided:
        return False
    return _wrapped(leaf) or type(leaf) in (torch.Tensor, nn.Parameter)


def _wrapped(tensor: torch.Tensor) -> bool:
    functorch: Any = cast(Any, torch)._C._functorch
    return isinstance(tensor, FakeTensor) or functorch.is_functorch_wrapped_tensor(tensor)


def _bare(module: nn.Module) -> tuple[nn.Module, list[tuple[dict[str, object], str, Blank]]]:
    """A copy of the tree of modules over the same tensors, without hooks of its own; and which of these tensors another
    tracer put there, for torch.export to be given others."""
    copied: Any = share_module(module)
    for name, hooks in cast("dict[str, Any]", copied.__dict__).items():
        if "hooks" in name and isinstance(hooks, dict):
            cast("dict[object, object]", hooks).clear()
    foreign: list[tuple[dict[str, object], str, Blank]] = []
    for part in copied.modules():
        for table, kind in (("_parameters", nn.Parameter), ("_buffers", torch.Tensor)):
            given = part.__dict__[table]
            blanks = {
                k: Blank(t, table == "_parameters")
                for k, t in given.items()
                if t is not None and (_wrapped(t) or not isinstance(t, kind))
            }
            part.__dict__[table] = own = dict(given)  # a buffer that `forward` registers is the copy's alone
            foreign.extend((own, name, blank) for name, blank in blanks.items())
        for name, value in list(part.__dict__.items()):
            if type(value) in (list, dict) and not name.startswith("_"):
                part.__dict__[name] = copy.copy(value)  # `forward` may append to it
        part.__dict__["_non_persistent_buffers_set"] = set(part._non_persistent_buffers_set)
    return cast(nn.Module, copied), foreign


# --- what a capture would lose ----------------------------------------------------------------------------------------


@contextmanager
def _watched() -> Generator[list[str]]:
    """While it lasts, what is done behind autograd's back is collected: custom functions, hooks on tensors and on what
    is saved for the backward pass (activation checkpointing)."""
    found: list[str] = []
    function, tensor, saved = (cast(Any, c) for c in (torch.autograd.Function, torch.Tensor, _saved_tensors_hooks()))
    apply, register, enter = function.__dict__["apply"], tensor.register_hook, saved.__enter__

    def watched_apply(cls: type[Any], /, *args: object, **kwargs: object) -> Any:
        if cls.__module__ == "torch.utils.checkpoint":
            found.append("activation checkpointing")
        elif not cls.__module__.startswith("torch."):
            found.append(f"the autograd function {cls.__qualname__}")
        return apply.__get__(None, cls)(*args, **kwargs)

    def watched_register(self: torch.Tensor, hook: object) -> object:
        found.append("a hook on a tensor")
        return register(self, hook)

    def watched_enter(self: object) -> object:
        checkpoint = type(self).__module__ == "torch.utils.checkpoint"
        found.append("activation checkpointing" if checkpoint else "hooks on saved tensors")
        return enter(self)

    function.apply, tensor.register_hook, saved.__enter__ = classmethod(watched_apply), watched_register, watched_enter
    try:
        yield found
    finally:
        function.apply, tensor.register_hook, saved.__enter__ = apply, register, enter


def _saved_tensors_hooks() -> type[Any]:
    return torch.autograd.graph.saved_tensors_hooks


def _hooked(module: nn.Module) -> list[str]:
    """The submodules with hooks."""
    tree: Any = module
    return [
        f"a {kind} hook on {path}"
        for path, part in tree.named_modules()
        if path
        for kind, tables in _HOOKS
        if any(part.__dict__.get(table) for table in tables)
    ]


_HOOKS = (
    ("forward", ("_forward_hooks", "_forward_pre_hooks")),
    ("backward", ("_backward_hooks", "_backward_pre_hooks")),
)


def _distributed(module: nn.Module) -> str | None:
    """The wrapper of torch that moves parameters or gradients between processes, if `module` is one."""
    names = [c.__name__ for c in type(module).__mro__ if c.__module__.startswith(("torch.distributed.", "torch.nn."))]
    return next((n for n in names if n in _WRAPPERS), None)


_WRAPPERS = ("DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule", "DataParallel")


# --- where it is captured ---------------------------------------------------------------------------------------------


def apart(work: Callable[[], _T]) -> _T:
    """`work()` where none of the caller's modes is on.

    Autocast, grad mode, inference mode, hooks on saved tensors, function transforms: all are states of a thread, so a
    thread of its own has none of them (but for modes before dispatch, which are global). Inside a compilation of Dynamo
    that would wait for itself, were `work` to compile something too; most modes are off there, and the rest is switched
    off one by one.
    """
    lock: Any = convert_frame.compile_lock
    with ExitStack() as stack:
        stack.enter_context(cast("AbstractContextManager[object]", _disable_current_modes()))
        if not lock._is_owned():
            with ThreadPoolExecutor(1, "stabilize") as pool:
                return pool.submit(work).result()
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(tracing(None))
        for device in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(device, enabled=False))
        return work()

"""One captured variant of a module: an exported program that runs on the module's current tensors.

Everything here runs inside `forward`, so torch.compile, torch.export and torch.jit.trace trace through it: plain loops
over plain data, and no object of the capture but its graph.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self, TypeAlias, cast, final

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.utils import _pytree as pytree

from stabilize.errors import ModelError
from stabilize.frontends.fx_modes import DEVICES, Modes
from stabilize.frontends.fx_sizes import Sizes
from stabilize.frontends.fx_types import fake_of, range_constraints_of

Path: TypeAlias = "tuple[str, ...]"
Kind: TypeAlias = "tuple[torch.dtype, torch.device] | None"
"""What a tensor must be; None for an integer that is a symbol."""

_STATE = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR, InputKind.CUSTOM_OBJ)
_PLAIN = (bool, int, float, str, type(None), torch.Tensor)
_SIMPLE = (bool, int, float, str, type(None))
#: Longer lists and dictionaries are data rather than settings.
_MOST_ITEMS: Final = 64
_MISSING: Final = "<missing>"


def settings(module: nn.Module) -> tuple[tuple[Path, tuple[tuple[str, object], ...]], ...]:
    """What a forward may read besides state, by submodule, of the instance and of its classes: train/eval switches,
    numbers, strings, short lists and dictionaries of them, and tensors that are not registered. Other objects are not
    followed."""
    tree: Any = module
    found: list[tuple[Path, tuple[tuple[str, object], ...]]] = []
    for dotted, part in tree.named_modules():
        attributes = {**_of_classes(cast("type[nn.Module]", type(part))), **cast("dict[str, object]", part.__dict__)}
        plain = ((k, _kept(v)) for k, v in attributes.items() if _is_followed(v) and not k.startswith("_"))
        found.append((_path(dotted), tuple(plain)))
    return tuple(found)


def _of_classes(cls: type[nn.Module]) -> dict[str, object]:
    """Plain attributes of the user's classes, which an instance may be given others for."""
    own = cls.__mro__[: cls.__mro__.index(nn.Module)]
    found = {name: value for each in reversed(own) for name, value in vars(each).items()}
    return {name: value for name, value in found.items() if type(value) in _SIMPLE}


def _is_followed(value: object) -> bool:
    if isinstance(value, dict):
        items = cast("dict[object, object]", value)
        return len(items) <= _MOST_ITEMS and all(type(x) in _SIMPLE for pair in items.items() for x in pair)
    if isinstance(value, (list, tuple)):
        sequence = cast("Sequence[object]", value)
        return len(sequence) <= _MOST_ITEMS and all(type(x) in _SIMPLE for x in sequence)
    return isinstance(value, _PLAIN)


def _kept(value: object) -> object:
    """What a list or dictionary holds now."""
    return copy.copy(cast(Any, value)) if isinstance(value, (list, dict)) else value


def changed_setting(module: nn.Module, before: Sequence[tuple[Path, Sequence[tuple[str, object]]]]) -> str | None:
    """The path of a number, string, list or dictionary that is not what it was in the `settings` taken before."""
    for path, attributes in before:
        part = attribute(module, path)
        for name, value in attributes:
            now = getattr(part, name, _MISSING)
            if not isinstance(value, torch.Tensor) and value is not None and _differs(now, value):
                return ".".join((*path, name))
    return None


def has_settings(module: nn.Module, wanted: Sequence[tuple[Path, Sequence[tuple[str, object]]]]) -> bool:
    """Whether the attributes are what they were, tensors by identity, and no submodule has hooks, which a program
    would not call."""
    for path, attributes in wanted:
        part: Any = attribute(module, path)
        if path and (len(part._forward_hooks) or len(part._forward_pre_hooks)):
            return False
        for name, value in attributes:
            now = getattr(part, name, _MISSING)
            if isinstance(value, torch.Tensor):
                if now is not value:
                    return False
            elif _differs(now, value):
                return False
    return True


def _differs(now: object, before: object) -> bool:
    """NaN is what it was when it is the same object."""
    return now is not before and (type(now) is not type(before) or now != before)


def attribute(module: nn.Module, path: Path) -> object:
    """The attribute that a path of names leads to."""
    value: object = module
    for name in path:
        value = getattr(value, name)
    return value


def _path(dotted: str) -> Path:
    return tuple(dotted.split(".")) if dotted else ()


@final
class Variant:
    """A program for one mode, one autocast, one set of plain attributes, dtypes, devices, and one range of shapes.

    The program is stateless: parameters and buffers are looked up in the module at every call, by name.
    """

    def __init__(self, exported: ExportedProgram, module: nn.Module, modes: Modes) -> None:
        if any(o.kind is not OutputKind.USER_OUTPUT for o in exported.graph_signature.output_specs):
            raise ModelError("the exported program returns mutations; export it without decompositions")
        self._program = _without_state(exported)
        self._settings = settings(module)
        self._autocast = tuple((device, modes.autocast.get(device)) for device in DEVICES)
        self._bind()

    def _bind(self) -> None:
        """What a call needs, from the program."""
        exported = self._program
        self._graph = exported.graph_module
        fakes = {n.name: fake_of(n) for n in self._graph.graph.nodes if n.op == "placeholder"}
        specs = exported.graph_signature.input_specs
        self._in_spec = cast(pytree.TreeSpec, exported.call_spec.in_spec)
        self._out_spec = cast(pytree.TreeSpec, exported.call_spec.out_spec)
        self._keywords = tuple(cast("Sequence[str]", self._in_spec.child(1).context))
        self.inputs: list[object] = [
            s.arg.value if isinstance(s.arg, ConstantArgument) else fakes[s.arg.name]
            for s in specs
            if s.kind is InputKind.USER_INPUT
        ]
        self._kinds = tuple(_kind(fake) for fake in self.inputs)
        checked = [s for s in specs if s.kind in (InputKind.PARAMETER, InputKind.BUFFER)]
        self._state = tuple((_path(str(s.target)), _kind(fakes[s.arg.name])) for s in checked)
        self._constants = [exported.constants[str(s.target)] for s in specs if _is_constant(s.kind)]
        self._order = tuple(_source(s.kind, s.target) for s in specs)
        if "_sizes" not in self.__dict__:
            self._sizes = Sizes([*(fakes[s.arg.name] for s in checked), *self.inputs], range_constraints_of(exported))

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self  # holds no tensors of the module

    def __getstate__(self) -> dict[str, object]:
        file = io.BytesIO()
        torch.export.save(self._program, file)
        kept = {"_settings": self._settings, "_autocast": self._autocast, "_sizes": self._sizes}
        return {"program": file.getvalue(), **kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._program = torch.export.load(io.BytesIO(state["program"]))
        self.__dict__.update((name, value) for name, value in state.items() if name != "program")
        self._bind()

    # --- matching -------------------------------------------------------------------------------------------

    def leaves(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> list[object] | None:
        """The user's inputs in the program's order; None when their structure differs."""
        if len(kwargs) != len(self._keywords):
            return None
        for name in self._keywords:
            if name not in kwargs:
                return None
        leaves, spec = pytree.tree_flatten((args, {name: kwargs[name] for name in self._keywords}))
        return leaves if spec == self._in_spec and len(leaves) == len(self._kinds) else None

    def accepts(self, module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bool:
        """Whether this variant was captured for a call like this one."""
        for device, dtype in self._autocast:
            if torch.is_autocast_enabled(device) != (dtype is not None):
                return False
            if dtype is not None and torch.get_autocast_dtype(device) != dtype:
                return False
        leaves = self.leaves(args, kwargs)
        if leaves is None or not has_settings(module, self._settings):
            return False
        sizes: list[Any] = []
        for path, kind in self._state:
            value = attribute(module, path)
            if not _alike(value, kind):
                return False
            sizes.append(cast(torch.Tensor, value).shape)
        for value, kind, captured in zip(leaves, self._kinds, self.inputs, strict=True):
            if kind is not None:
                if not _alike(value, kind):
                    return False
                sizes.append(cast(torch.Tensor, value).shape)
            elif isinstance(captured, torch.SymInt):
                if type(value) is not int and not isinstance(value, torch.SymInt):
                    return False
                sizes.append(value)
            elif type(value) is not type(captured) or value != captured:
                return False
            else:
                sizes.append(value)
        return self._sizes.fits(sizes)

    def is_symbolic(self, wanted: Mapping[int, set[int]]) -> bool:
        """Whether the sizes of these axes of these inputs (by number) are left open."""
        static = self._sizes.static[len(self._state) :]
        return not any(i < len(static) and static[i][axis] for i, axes in wanted.items() for axis in axes)

    # --- running --------------------------------------------------------------------------------------------

    def run(self, module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
        user, constant, flat = 0, 0, cast("list[object]", [])
        leaves = self.leaves(args, kwargs) or []
        for kind, path in self._order:
            if kind == "state":
                flat.append(attribute(module, path))
            elif kind == "constant":
                flat.append(self._constants[constant])
                constant += 1
            else:
                flat.append(leaves[user] if kind == "user" else None)
                user += kind == "user"
        return pytree.tree_unflatten(list(self._graph(*flat)), self._out_spec)


def _kind(fake: object) -> Kind:
    return (fake.dtype, fake.device) if isinstance(fake, torch.Tensor) else None


def _alike(value: object, kind: Kind) -> bool:
    return isinstance(value, torch.Tensor) and kind is not None and value.dtype == kind[0] and value.device == kind[1]


def _is_constant(kind: InputKind) -> bool:
    return kind in (InputKind.CONSTANT_TENSOR, InputKind.CUSTOM_OBJ)


def _source(kind: InputKind, target: str | None) -> tuple[str, Path]:
    """Where an input of the program comes from: the user, the state of the module, the constants, or nowhere."""
    if kind is InputKind.USER_INPUT:
        return "user", ()
    if kind not in _STATE or target is None:
        return "nothing", ()
    return ("constant", ()) if _is_constant(kind) else ("state", _path(target))


def _without_state(exported: ExportedProgram) -> ExportedProgram:
    """The program with the shapes of its parameters only: a variant must not keep tensors that the module gave up."""

    def shape(tensor: torch.Tensor) -> torch.Tensor:
        empty = torch.empty_like(tensor, device="meta")
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(empty, requires_grad=tensor.requires_grad)
        return empty

    return ExportedProgram(
        root=exported.graph_module,
        graph=exported.graph_module.graph,
        graph_signature=exported.graph_signature,
        state_dict={name: shape(tensor) for name, tensor in exported.state_dict.items()},
        range_constraints=range_constraints_of(exported),
        module_call_graph=exported.module_call_graph,
        constants=exported.constants,
        verifiers=exported.verifiers,
    )


def changed_axes(variants: Sequence[Variant], leaves: Sequence[object]) -> dict[int, set[int]]:
    """Input number → axes whose size is not the same in every variant and in `leaves`, or was symbolic already."""
    changed: dict[int, set[int]] = {}
    for fakes in (v.inputs for v in variants if len(v.inputs) == len(leaves)):
        for i, (value, fake) in enumerate(zip(leaves, fakes, strict=True)):
            if not isinstance(value, torch.Tensor) or not isinstance(fake, torch.Tensor) or value.dim() != fake.dim():
                continue
            for axis, (size, expected) in enumerate(zip(value.shape, fake.shape, strict=True)):
                if isinstance(size, torch.SymInt) or isinstance(expected, torch.SymInt) or size != expected:
                    changed.setdefault(i, set()).add(axis)
    return changed

"""One captured variant of a module: an exported program that runs on the module's current tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, cast, final

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.utils import _pytree as pytree

from stabilize.errors import ModelError
from stabilize.frontends.fx_types import attribute, expression_of, fake_of, range_constraints_of

_STATE = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR, InputKind.CUSTOM_OBJ)


_PLAIN = (bool, int, float, str, type(None), torch.Tensor)


def settings(module: nn.Module) -> list[tuple[int, str, object]]:
    """What a forward may read besides state: (number of the submodule, attribute, value).

    Train/eval switches, numbers, strings, and tensors that are not registered. Other objects are not followed.
    """
    return [
        (i, name, value)
        for i, part in enumerate(module.modules())
        for name, value in part.__dict__.items()
        if isinstance(value, _PLAIN) and not name.startswith("_")
    ]


def has_settings(module: nn.Module, wanted: Sequence[tuple[int, str, object]]) -> bool:
    """Whether the attributes are what they were; tensors are compared by identity."""
    tables = [m.__dict__ for m in module.modules()]
    for i, name, value in wanted:
        now = tables[i].get(name, _MISSING) if i < len(tables) else _MISSING
        if now is not value and (isinstance(value, torch.Tensor) or type(now) is not type(value) or now != value):
            return False
    return True


_MISSING = object()


@final
class Variant:
    """A program for one mode, one set of plain attributes, dtypes and devices, and one range of shapes.

    The program is stateless: parameters and buffers are looked up in the module at every call, by name.
    """

    def __init__(self, exported: ExportedProgram, module: nn.Module) -> None:
        self._exported = exported
        self._graph = exported.graph_module
        self._settings = settings(module)
        self._in_spec = cast(pytree.TreeSpec, exported.call_spec.in_spec)
        self._out_spec = cast(pytree.TreeSpec, exported.call_spec.out_spec)
        placeholders = {n.name: fake_of(n) for n in self._graph.graph.nodes if n.op == "placeholder"}
        specs = exported.graph_signature.input_specs
        if any(o.kind is not OutputKind.USER_OUTPUT for o in exported.graph_signature.output_specs):
            raise ModelError("the exported program returns mutations; export it without decompositions")
        self._lookups = [self._lookup(s.kind, s.target, s.persistent) for s in specs]
        self._state = [
            (s.target, placeholders[s.arg.name]) for s in specs if s.kind in (InputKind.PARAMETER, InputKind.BUFFER)
        ]
        self._user: list[object] = [
            s.arg.value if isinstance(s.arg, ConstantArgument) else placeholders[s.arg.name]
            for s in specs
            if s.kind is InputKind.USER_INPUT
        ]

        self._guards = _guards(self._user)
        self._verdicts: dict[tuple[tuple[str, int], ...], bool] = {}

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self  # holds no tensors of the module

    @property
    def inputs(self) -> list[object]:
        """The user's inputs as captured: fake tensors and constants, flattened."""
        return self._user

    @property
    def exported(self) -> ExportedProgram:
        """The rewritten program itself."""
        return self._exported

    def _lookup(
        self, kind: InputKind, target: str | None, persistent: bool | None
    ) -> Callable[[nn.Module], object] | None:
        """How to find an input that is not the user's: in the module, or among the program's constants."""
        if kind not in _STATE or target is None:
            return None
        if kind in (InputKind.PARAMETER, InputKind.BUFFER):
            return lambda module: attribute(module, target)
        constant = self._exported.constants[target]
        return lambda module: constant

    # --- matching -------------------------------------------------------------------------------------------

    def leaves(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> list[object] | None:
        """The user's inputs in the program's order; None when their structure differs."""
        names = cast("Sequence[str]", self._in_spec.child(1).context)
        if set(kwargs) != set(names):
            return None
        leaves, spec = pytree.tree_flatten((args, {name: kwargs[name] for name in names}))
        return leaves if spec == self._in_spec else None

    def accepts(self, module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bool:
        """Whether this variant was captured for a call like this one."""
        if not has_settings(module, self._settings):
            return False
        leaves = self.leaves(args, kwargs)
        if leaves is None or len(leaves) != len(self._user):
            return False
        symbols: dict[Any, int] = {}
        pairs = [(attribute(module, str(target)), fake) for target, fake in self._state]
        pairs.extend(zip(leaves, self._user, strict=True))
        return all(_alike(value, fake, symbols) for value, fake in pairs) and self._allows(symbols)

    def _allows(self, symbols: Mapping[Any, int]) -> bool:
        """Whether sizes satisfy the ranges and the other conditions under which the program was captured."""
        key = tuple(sorted((str(s), n) for s, n in symbols.items()))
        if key not in self._verdicts:
            held = all(guard.subs(symbols) != False for guard in self._guards)  # noqa: E712 (a symbolic truth value)
            self._verdicts[key] = held and self._in_range(symbols)
        return self._verdicts[key]

    def _in_range(self, symbols: Mapping[Any, int]) -> bool:
        constraints = range_constraints_of(self._exported)
        return all(
            s not in constraints or constraints[s].lower <= n <= constraints[s].upper for s, n in symbols.items()
        )

    # --- running --------------------------------------------------------------------------------------------

    def run(self, module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
        user = iter(self.leaves(args, kwargs) or ())
        flat = [next(user) if lookup is None else lookup(module) for lookup in self._lookups]
        outputs = cast("tuple[object, ...]", self._graph(*flat))
        return pytree.tree_unflatten(list(outputs), self._out_spec)


def _guards(fakes: Sequence[object]) -> list[Any]:
    """Conditions on symbolic sizes (sympy expressions) that the capture relied on."""
    sizes = [s for f in fakes if isinstance(f, torch.Tensor) for s in f.shape if isinstance(s, torch.SymInt)]
    environment: Any = cast(Any, sizes[0]).node.shape_env if sizes else None
    return [guard.expr for guard in environment.guards] if environment is not None else []


def changed_axes(variants: Sequence[Variant], leaves: Sequence[object]) -> dict[int, set[int]]:
    """Input number → axes whose size is not the same in every variant and in `leaves`, or was symbolic already."""
    changed: dict[int, set[int]] = {}
    for fakes in (v.inputs for v in variants if len(v.inputs) == len(leaves)):
        for i, (value, fake) in enumerate(zip(leaves, fakes, strict=True)):
            if not isinstance(value, torch.Tensor) or not isinstance(fake, torch.Tensor) or value.dim() != fake.dim():
                continue
            for axis, (size, expected) in enumerate(zip(value.shape, fake.shape, strict=True)):
                if isinstance(expected, torch.SymInt) or size != expected:
                    changed.setdefault(i, set()).add(axis)
    return changed


def _alike(value: object, fake: object, symbols: dict[Any, int]) -> bool:
    """Whether an actual input is of the type and shape that was captured; binds symbolic sizes."""
    if isinstance(fake, torch.Tensor):
        if not isinstance(value, torch.Tensor) or value.dtype != fake.dtype or value.device != fake.device:
            return False
        return len(value.shape) == len(fake.shape) and all(
            _size_fits(a, b, symbols) for a, b in zip(value.shape, fake.shape, strict=True)
        )
    if isinstance(fake, torch.SymInt):
        return isinstance(value, int) and _size_fits(value, fake, symbols)
    return type(value) is type(fake) and value == fake


def _size_fits(size: int, expected: int | torch.SymInt, symbols: dict[Any, int]) -> bool:
    if not isinstance(expected, torch.SymInt):
        return size == expected
    expression = expression_of(expected)
    if expression.is_Symbol:
        return symbols.setdefault(expression, size) == size
    # a size derived from others: they come first in the signature, or the size decides nothing
    known = expression.subs(symbols)
    return bool(known == size) if known.is_number else True

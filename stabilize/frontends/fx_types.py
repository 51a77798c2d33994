"""Names for what PyTorch and the semantic view call differently: dtypes, dimensions, operators, source lines."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from torch import fx
from torch._ops import OpOverload
from torch.export import ExportedProgram

from stabilize.graph.value import Dim, TensorType
from stabilize.graph.view import Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Operator: TypeAlias = "OpOverload[Any, Any]"

Fake: TypeAlias = Any
"""A fake (shape-only) tensor, symbolic number or container of them, as FX keeps them in `node.meta`."""

DTYPES: dict[torch.dtype, str] = {
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bool: "bool",
    torch.int8: "int8",
    torch.int16: "int16",
    torch.int32: "int32",
    torch.int64: "int64",
    torch.uint8: "uint8",
}
TORCH_DTYPES: dict[str, torch.dtype] = {name: dtype for dtype, name in DTYPES.items()}

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')
_TORCH = str(Path(torch.__file__).parent)


def dtype_name(dtype: torch.dtype) -> str:
    """The view's name of a dtype; "other" for those that the engine does not reason about."""
    return DTYPES.get(dtype, "other")


def dim_of(size: int | torch.SymInt) -> Dim:
    """A size as a dimension of the view: a number, or the text of its symbolic expression."""
    if isinstance(size, torch.SymInt):
        text = str(expression_of(size))
        return int(text) if text.isdigit() else text
    return int(size)


def tensor_type(tensor: torch.Tensor) -> TensorType:
    """The type of a (fake) tensor."""
    return TensorType(dtype_name(tensor.dtype), tuple(dim_of(s) for s in tensor.shape))


def fake_of(node: fx.Node) -> Fake:
    """What the host recorded about the result of `node`: a fake tensor, a number, a container, or None."""
    for key in ("val", "example_value"):
        if key in node.meta:
            return node.meta[key]
    return None


def parts_of(fake: Fake) -> list[Fake]:
    """The items of a container of fakes, or the fake itself as the only one."""
    return list(cast("Sequence[Fake]", fake)) if isinstance(fake, (list, tuple)) else [fake]


def target_of(node: fx.Node) -> object:
    """What a node calls."""
    return cast(object, node.target)


def expression_of(size: torch.SymInt) -> Any:
    """The symbolic (sympy) expression of a size."""
    return cast(Any, size).node.expr


def operator_of(target: object) -> Operator | None:
    """`target` as a PyTorch operator (of any library), or None."""
    return cast(Any, target) if isinstance(target, OpOverload) else None


def attribute_path(node: fx.Node) -> str:
    """The dotted path that a get_attr node reads."""
    return str(target_of(node))


def attribute(module: torch.nn.Module, path: str) -> object:
    """The attribute of a module that a dotted path names."""
    value: object = module
    for part in path.split("."):
        value = getattr(value, part)
    return value


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an operator: is it an alias of a result (`aliased`), does the operator write to it?"""

    name: str
    default: object
    aliased: bool
    written: bool


@cache
def parameters_of(operator: Operator) -> tuple[Parameter, ...]:
    """The parameters of an operator, from its schema."""
    schema: Any = operator._schema  # pyright: ignore[reportPrivateUsage]
    return tuple(
        Parameter(
            a.name,
            a.default_value if a.has_default_value() else None,
            a.alias_info is not None,
            a.alias_info is not None and bool(a.alias_info.is_write),
        )
        for a in schema.arguments
    )


def has_results(operator: Operator) -> bool:
    schema: Any = operator._schema  # pyright: ignore[reportPrivateUsage]
    return bool(schema.returns)


def argument_of(node: fx.Node, position: int, name: str) -> object:
    """An argument of a call, given by position or by keyword; None when it was left to its default."""
    if position < len(node.args):
        return node.args[position]
    return node.kwargs.get(name)


def range_constraints_of(exported: ExportedProgram) -> dict[Any, Any]:
    """Symbol → the range that its size may have."""
    return dict(cast(Any, exported).range_constraints)


def is_number(value: object) -> bool:
    return isinstance(value, (bool, int, float, torch.SymInt, torch.SymFloat, torch.SymBool))


def operator_key(target: object) -> str | None:
    """`"add.Tensor"` for `torch.ops.aten.add.Tensor`; None when `target` is not an ATen operator."""
    operator = operator_of(target)
    return str(operator).removeprefix("aten.") if operator is not None and operator.namespace == "aten" else None


def aten(key: str) -> Operator:
    """The ATen operator that `operator_key` calls `key`."""
    packet, _, overload = key.partition(".")
    return cast(Operator, getattr(getattr(torch.ops.aten, packet), overload))


def is_of_torch(file: str) -> bool:
    """Whether a frame is PyTorch's own, or generated code."""
    return file.startswith((_TORCH, "<"))


def source_of(node: fx.Node) -> Source | None:
    """Where the user wrote `node`: the innermost frame of its stack trace that is neither PyTorch's nor generated code
    (`<eval_with_key>`), and its module path."""
    traced = _FRAME.finditer(str(node.meta.get("stack_trace") or ""))
    frames = [f for f in traced if not is_of_torch(f["file"])]
    module: str | None = None
    stack = node.meta.get("nn_module_stack")
    if isinstance(stack, dict) and stack:
        path = next(reversed(list(cast("dict[str, tuple[str, object]]", stack).values())))[0]
        module = str(path).removeprefix("L['self'].") or None
    if not frames and module is None:
        return None
    if not frames:
        return Source(module)
    return Source(module, frames[-1]["file"], int(frames[-1]["line"]))


def input_nodes(argument: object) -> Iterable[fx.Node]:
    """Every node inside an argument, containers included, in order."""
    if isinstance(argument, fx.Node):
        yield argument
    elif isinstance(argument, (list, tuple)):
        for item in cast("Iterable[object]", argument):
            yield from input_nodes(item)
    elif isinstance(argument, dict):
        for item in cast("dict[object, object]", argument).values():
            yield from input_nodes(item)
    elif isinstance(argument, slice):
        bounds = cast("slice[object, object, object]", argument)
        yield from input_nodes((bounds.start, bounds.stop, bounds.step))

"""The torch interpretation of the vocabulary: run a sub-graph on tensors, in its own dtypes, differentiably.

Constants beside a tensor are handed to torch as Python numbers, so that a float16 or bfloat16 operand meets
them in the arithmetic type of the kernel (float32) and the result is rounded once, as in a user's `x * 0.1`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias, cast

import torch
from torch.nn import functional as F

from stabilize.errors import UsageError
from stabilize.formats import is_float
from stabilize.graph.ops import broadcast
from stabilize.graph.value import Dim, Value, cone

Rule: TypeAlias = Callable[[Value, Sequence[torch.Tensor], Mapping[str, int]], torch.Tensor]

#: PyTorch's name of each dtype of the semantic view.
TORCH_DTYPES: dict[str, torch.dtype] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
    "bool": torch.bool,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint8": torch.uint8,
}


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of a dtype name; UsageError for the dtypes that the semantic view does not compute in."""
    if name not in TORCH_DTYPES:
        raise UsageError(f"values of dtype {name} cannot be executed")
    return TORCH_DTYPES[name]


def execute(roots: Sequence[Value], leaves: Mapping[Value, torch.Tensor]) -> list[torch.Tensor]:
    """The tensors of `roots`, computed from those of `leaves`; nothing below a leaf is looked at."""
    sizes = symbol_sizes({leaf: tuple(tensor.shape) for leaf, tensor in leaves.items()})
    computed: dict[int, torch.Tensor] = {leaf.index: tensor for leaf, tensor in leaves.items()}
    for value in cone(roots, leaves):
        if value.index not in computed:
            operands = [computed[o.index] for o in value.operands]
            computed[value.index] = EXECUTE[value.op](value, operands, sizes)
    return [computed[root.index] for root in roots]


def symbol_sizes(shapes: Mapping[Value, tuple[int, ...]]) -> dict[str, int]:
    """Symbolic dimension → size, read off the shapes of leaves; UsageError when they contradict the types."""
    sizes: dict[str, int] = {}
    for leaf, shape in shapes.items():
        if len(shape) != leaf.type.rank:
            raise UsageError(f"a tensor of shape {shape} was given for {leaf.type}")
        for dim, size in zip(leaf.shape, shape, strict=True):
            known = dim if isinstance(dim, int) else sizes.setdefault(dim, size)
            if known != size:
                raise UsageError(f"a tensor of shape {shape} was given for {leaf.type} where {dim} is {known}")
    return sizes


def concrete(shape: Sequence[Dim], sizes: Mapping[str, int]) -> tuple[int, ...]:
    """`shape` with every symbol replaced by its size."""
    unknown = [d for d in shape if isinstance(d, str) and d not in sizes]
    if unknown:
        raise UsageError(f"no tensor tells the size of {', '.join(map(str, unknown))}")
    return tuple(sizes[d] if isinstance(d, str) else d for d in shape)


# --- adapters: from a torch function to a rule -------------------------------------------------------------


def _plain(function: Callable[..., torch.Tensor]) -> Rule:
    """`function` of the operands alone."""
    return lambda value, operands, sizes: function(*operands)


def _arithmetic(function: Callable[..., torch.Tensor]) -> Rule:
    """A binary operator in which a constant operand is a Python number."""

    def rule(value: Value, operands: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> torch.Tensor:
        a, b = operands
        if _scalar(value, 1, sizes):
            return function(a, value.operands[1].attr("value"))
        if _scalar(value, 0, sizes):
            return function(value.operands[0].attr("value"), b)
        return function(a, b)

    return rule


def _scalar(value: Value, position: int, sizes: Mapping[str, int]) -> bool:
    """Whether operand `position` of a binary operator is a constant that the other operand outgrows."""
    this, other = value.operands[position], value.operands[1 - position]
    if this.op != "constant" or other.op == "constant":
        return False
    return other.shape == value.shape or concrete(other.shape, sizes) == concrete(value.shape, sizes)


def _over_axes(function: Callable[..., torch.Tensor]) -> Rule:
    """A reduction that torch offers over several axes at once."""

    def rule(value: Value, operands: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> torch.Tensor:
        # torch reads an empty list of axes as "all"; here it means none
        return function(operands[0], dim=value.axes, keepdim=bool(value.attr("keepdim"))) if value.axes else operands[0]

    return rule


def _axis_by_axis(function: Callable[..., torch.Tensor]) -> Rule:
    """A reduction that torch offers over one axis at a time."""

    def rule(value: Value, operands: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> torch.Tensor:
        result = operands[0]
        for axis in reversed(value.axes):
            result = function(result, dim=axis, keepdim=bool(value.attr("keepdim")))
        return result

    return rule


def _in_own_dtype(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """`function` that keeps integers in their dtype, where torch would widen them to int64."""

    def kept(x: torch.Tensor, **parameters: object) -> torch.Tensor:
        return function(x, **parameters, dtype=x.dtype)

    return kept


def _along(function: Callable[..., torch.Tensor]) -> Rule:
    """A function of one operand and one axis."""
    return lambda value, operands, sizes: function(operands[0], dim=value.axes[0])


# --- rules that need more than an adapter ------------------------------------------------------------------


def _common_shape(shapes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    return concrete(broadcast([tuple(s) for s in shapes]), {})


def _power(a: torch.Tensor | float, b: torch.Tensor | float) -> torch.Tensor:
    return cast(torch.Tensor, a**b)


def _divide(a: torch.Tensor | float, b: torch.Tensor | float) -> torch.Tensor:
    tensor = a if isinstance(a, torch.Tensor) else cast(torch.Tensor, b)
    if tensor.is_floating_point():
        return cast(torch.Tensor, a / b)
    return torch.div(a, b, rounding_mode="trunc")


def _extremum(
    tensors: Callable[..., torch.Tensor],
    clamp: Callable[..., torch.Tensor],
    a: torch.Tensor | float,
    b: torch.Tensor | float,
) -> torch.Tensor:
    """A clamp where one operand is a number, as it is emitted: at a tie its gradient is whole, not halved."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return tensors(a, b)
    return clamp(b, a) if isinstance(b, torch.Tensor) else clamp(a, b)


def _constant(value: Value, operands: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> torch.Tensor:
    number = cast("bool | int | float", value.attr("value"))
    shape = concrete(value.shape, sizes)
    if is_float(value.dtype):
        # torch.full refuses numbers beyond the format; rounding them to infinity is what arithmetic does
        return torch.full(shape, number, dtype=torch.float64).to(torch_dtype(value.dtype))
    return torch.full(shape, number, dtype=torch_dtype(value.dtype))


def _arange(value: Value, operands: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> torch.Tensor:
    return torch.arange(concrete(value.shape, sizes)[0], dtype=torch_dtype(value.dtype))


def _leaf(value: Value, operands: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> torch.Tensor:
    raise UsageError(f"no tensor was given for the leaf {value!r}")


def _unsqueeze(value: Value, operands: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> torch.Tensor:
    result = operands[0]
    for axis in value.axes:
        result = result.unsqueeze(axis)
    return result


def _squeeze(value: Value, operands: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> torch.Tensor:
    return operands[0].squeeze(value.axes) if value.axes else operands[0]


def _slice(value: Value, operands: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> torch.Tensor:
    start, stop, step = (cast(int, value.attr(k)) for k in ("start", "stop", "step"))
    index: list[slice] = [slice(None)] * value.axes[0] + [slice(start, stop, step)]
    return operands[0][tuple(index)]


def _topk(part: int) -> Rule:
    def rule(value: Value, operands: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> torch.Tensor:
        k, largest, in_order = (cast(int, value.attr(a)) for a in ("k", "largest", "sorted"))
        return torch.topk(operands[0], k, value.axes[0], bool(largest), bool(in_order))[part]

    return rule


def _one_hot(value: Value, operands: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> torch.Tensor:
    # a comparison, so that an index outside the classes (an ignored one) gives a row of False
    return operands[0].unsqueeze(-1) == torch.arange(cast(int, value.attr("classes")))


def _class_loss(function: Callable[..., torch.Tensor]) -> Rule:
    def rule(value: Value, operands: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> torch.Tensor:
        logits, target = operands[:2]
        if not target.is_floating_point():
            target = target.long()
        weight = operands[2].detach() if len(operands) > 2 else None  # the operator has no gradient for it
        return function(logits, target, weight, **dict(value.attrs))

    return rule


def _bce(value: Value, operands: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> torch.Tensor:
    shape = _common_shape([t.shape for t in operands])
    x, y = (t.expand(shape) for t in operands)
    return F.binary_cross_entropy_with_logits(x, y, reduction=cast(str, value.attr("reduction")))


def _attention(value: Value, operands: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> torch.Tensor:
    batch = _common_shape([t.shape[:-2] for t in operands[:3]])
    q, k, v = (t.expand(batch + tuple(t.shape[-2:])) for t in operands[:3])
    mask = operands[3] if len(operands) > 3 else None
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -math.inf)
    scale = cast("float | None", value.attr("scale"))
    # the operator by its definition: which fused kernel a machine would pick (some of them drop NaN) is not its meaning
    result = torch.ops.aten._scaled_dot_product_attention_math(q, k, v, mask, scale=scale)
    return cast("tuple[torch.Tensor, torch.Tensor]", result)[0]


def _normalised(function: Callable[..., torch.Tensor]) -> Rule:
    def rule(value: Value, operands: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> torch.Tensor:
        x = operands[0]
        return function(x, x.shape[value.axes[0] :], *operands[1:], eps=cast(float, value.attr("epsilon")))

    return rule


def _wide(function: Callable[[torch.Tensor], torch.Tensor]) -> Rule:
    """A function whose kernels know no half precision: in float32 there, rounded once."""

    def rule(value: Value, operands: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> torch.Tensor:
        (x,) = operands
        return function(x.float()).to(x.dtype) if x.dtype in (torch.float16, torch.bfloat16) else function(x)

    return rule


def _vector_norm(x: torch.Tensor, value: Value) -> torch.Tensor:
    """Half-precision kernels sum squares in float32; the gradient at 0 is 0."""
    if not value.axes:  # torch would take them all
        return x.abs()
    result = torch.ops.aten.linalg_vector_norm(x, 2, list(value.axes), bool(value.attr("keepdim")))
    return cast(torch.Tensor, result)


def _softplus(x: torch.Tensor) -> torch.Tensor:
    # above 40, ln(1 + eˣ) rounds to x in every format
    return F.softplus(x, 1, 40)


#: Primitive → how torch computes it.
EXECUTE: dict[str, Rule] = {
    "input": _leaf,
    "opaque": _leaf,
    "constant": _constant,
    "arange": _arange,
    "neg": _plain(torch.neg),
    "abs": _plain(torch.abs),
    "exp": _plain(torch.exp),
    "expm1": _plain(torch.expm1),
    "log": _plain(torch.log),
    "log1p": _plain(torch.log1p),
    "sqrt": _plain(torch.sqrt),
    "sigmoid": _plain(torch.sigmoid),
    "log_sigmoid": _plain(F.logsigmoid),
    "softplus": _plain(_softplus),
    "tanh": _plain(torch.tanh),
    "relu": _plain(torch.relu),
    "sign": _plain(torch.sign),
    "erf": _plain(torch.erf),
    "erfc": _plain(torch.erfc),
    "sin": _plain(torch.sin),
    "cos": _plain(torch.cos),
    "floor": _plain(torch.floor),
    "asin": _plain(torch.asin),
    "acos": _plain(torch.acos),
    "atan": _plain(torch.atan),
    "sinh": _plain(torch.sinh),
    "asinh": _plain(torch.asinh),
    "acosh": _plain(torch.acosh),
    "atanh": _plain(torch.atanh),
    "erfcx": _wide(torch.ops.aten.special_erfcx),
    "log_ndtr": _wide(torch.ops.aten.special_log_ndtr),
    "erfinv": _plain(torch.erfinv),
    "ndtri": _wide(torch.ops.aten.special_ndtri),
    "detach": _plain(torch.Tensor.detach),
    "isnan": _plain(torch.isnan),
    "not": _plain(torch.logical_not),
    "cast": lambda value, operands, sizes: operands[0].to(torch_dtype(value.dtype)),
    "add": _arithmetic(operator.add),
    "sub": _arithmetic(operator.sub),
    "mul": _arithmetic(operator.mul),
    "div": _arithmetic(_divide),
    "pow": _arithmetic(_power),
    "maximum": _arithmetic(partial(_extremum, torch.maximum, torch.clamp_min)),
    "minimum": _arithmetic(partial(_extremum, torch.minimum, torch.clamp_max)),
    "logaddexp": _plain(torch.logaddexp),
    "xlogy": _plain(torch.xlogy),
    "eq": _arithmetic(operator.eq),
    "ne": _arithmetic(operator.ne),
    "lt": _arithmetic(operator.lt),
    "le": _arithmetic(operator.le),
    "gt": _arithmetic(operator.gt),
    "ge": _arithmetic(operator.ge),
    "and": _plain(torch.logical_and),
    "or": _plain(torch.logical_or),
    "where": _plain(torch.where),
    "sum": _over_axes(_in_own_dtype(torch.sum)),
    "mean": _over_axes(torch.mean),
    "prod": _axis_by_axis(_in_own_dtype(torch.prod)),
    "max": _over_axes(torch.amax),
    "min": _over_axes(torch.amin),
    "logsumexp": _over_axes(torch.logsumexp),
    "norm": lambda value, operands, sizes: _vector_norm(operands[0], value),
    "any": _axis_by_axis(torch.any),
    "all": _axis_by_axis(torch.all),
    "argmax": lambda value, operands, sizes: torch.argmax(operands[0], value.axes[0], bool(value.attr("keepdim"))),
    "cumsum": _along(_in_own_dtype(torch.cumsum)),
    "cumprod": _along(_in_own_dtype(torch.cumprod)),
    "logcumsumexp": _along(torch.logcumsumexp),
    "softmax": _along(torch.softmax),
    "log_softmax": _along(torch.log_softmax),
    "topk_values": _topk(0),
    "topk_indices": _topk(1),
    "matmul": _plain(torch.matmul),
    "reshape": lambda value, operands, sizes: operands[0].reshape(concrete(value.shape, sizes)),
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "transpose": lambda value, operands, sizes: operands[0].permute(cast("tuple[int, ...]", value.attr("perm"))),
    "expand": lambda value, operands, sizes: operands[0].expand(concrete(value.shape, sizes)),
    "slice": _slice,
    "gather": lambda value, operands, sizes: torch.gather(operands[0], value.axes[0], operands[1].long()),
    "concat": lambda value, operands, sizes: torch.cat(list(operands), value.axes[0]),
    "one_hot": _one_hot,
    "cross_entropy": _class_loss(F.cross_entropy),
    "nll_loss": _class_loss(F.nll_loss),
    "bce_with_logits": _bce,
    "layer_norm": _normalised(F.layer_norm),
    "rms_norm": _normalised(F.rms_norm),
    "attention": _attention,
}

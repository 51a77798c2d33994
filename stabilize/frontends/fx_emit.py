"""The emission table: primitive of the vocabulary → ATen operator call(s).

Each row receives a `Site`, which knows the nodes of the operands, and returns the node of the result. Rows do
not know where in the graph they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, cast

from torch import fx

from stabilize.formats import is_float
from stabilize.frontends.fx_types import TORCH_DTYPES
from stabilize.graph.ops import broadcast
from stabilize.graph.value import Dim, Value


class Site(Protocol):
    """A place in a host graph where calls can be added."""

    def node(self, value: Value) -> fx.Node:
        """The node that holds an operand here."""
        ...

    def call(self, key: str, *args: object, **kwargs: object) -> fx.Node:
        """Add a call of the ATen operator `key`."""
        ...

    def item(self, node: fx.Node, index: int) -> fx.Node:
        """Add the selection of one result of a multi-output operator."""
        ...

    def size(self, dim: Dim) -> object:
        """A dimension as an argument: a number, or a node that computes it."""
        ...

    @property
    def device(self) -> object:
        """The device that new tensors are made on."""
        ...


Rule: TypeAlias = Callable[[Site, Value], fx.Node]


# --- operands -----------------------------------------------------------------------------------------------


def number(value: Value) -> bool | int | float:
    """The number of a constant, in the Python type that its dtype has."""
    held = cast("bool | int | float", value.attr("value"))
    if is_float(value.dtype):
        return float(held)
    return bool(held) if value.dtype == "bool" else int(held)


def scalar_operand(value: Value, position: int) -> bool:
    """Whether operand `position` can be a Python number: a constant that the result's shape does not need."""
    operand = value.operands[position]
    if operand.op != "constant":
        return False
    others = [o.shape for i, o in enumerate(value.operands) if i != position]
    return broadcast(others) == value.shape


def _sizes(site: Site, shape: Sequence[Dim]) -> list[object]:
    return [site.size(d) for d in shape]


# --- elementwise --------------------------------------------------------------------------------------------


def call(key: str, *extra: object) -> Rule:
    """An operator of the operands alone, with fixed further arguments."""
    return lambda site, value: site.call(key, *(site.node(o) for o in value.operands), *extra)


def wide(key: str) -> Rule:
    """An operator of one operand that has no kernel for half precision."""

    def rule(site: Site, value: Value) -> fx.Node:
        x = site.node(value.operands[0])
        if value.dtype not in ("float16", "bfloat16"):
            return site.call(key, x)
        inner = site.call(key, site.call("_to_copy.default", x, dtype=TORCH_DTYPES["float32"]))
        return site.call("_to_copy.default", inner, dtype=TORCH_DTYPES[value.dtype])

    return rule


def binary(tensors: str, scalar: str | None = None, mirrored: str | None = None) -> Rule:
    """An operator of two tensors; `scalar` takes a number on the right, `mirrored` has the tensor first and
    computes with the number on the left."""

    def rule(site: Site, value: Value) -> fx.Node:
        a, b = value.operands
        if scalar is not None and scalar_operand(value, 1):
            return site.call(scalar, site.node(a), number(b))
        if mirrored is not None and scalar_operand(value, 0):
            return site.call(mirrored, site.node(b), number(a))
        return site.call(tensors, site.node(a), site.node(b))

    return rule


def division(site: Site, value: Value) -> fx.Node:
    a, b = value.operands
    if scalar_operand(value, 0) and number(a) == 1:
        return site.call("reciprocal.default", site.node(b))
    return binary("div.Tensor", "div.Tensor")(site, value)


def power(site: Site, value: Value) -> fx.Node:
    a, b = value.operands
    if scalar_operand(value, 1):
        return site.call("pow.Tensor_Scalar", site.node(a), number(b))
    if scalar_operand(value, 0):
        return site.call("pow.Scalar", number(a), site.node(b))
    return site.call("pow.Tensor_Tensor", site.node(a), site.node(b))


def xlogy(site: Site, value: Value) -> fx.Node:
    a, b = value.operands
    if scalar_operand(value, 1):
        return site.call("xlogy.Scalar_Other", site.node(a), number(b))
    if scalar_operand(value, 0):
        return site.call("xlogy.Scalar_Self", number(a), site.node(b))
    return site.call("xlogy.Tensor", site.node(a), site.node(b))


def where(site: Site, value: Value) -> fx.Node:
    condition, a, b = value.operands
    if is_float(value.dtype) and scalar_operand(value, 2) and a.op != "constant":
        return site.call("where.ScalarOther", site.node(condition), site.node(a), number(b))
    if is_float(value.dtype) and scalar_operand(value, 1) and b.op != "constant":
        return site.call("where.ScalarSelf", site.node(condition), number(a), site.node(b))
    return site.call("where.self", site.node(condition), site.node(a), site.node(b))


def cast_to(site: Site, value: Value) -> fx.Node:
    return site.call("_to_copy.default", site.node(value.operands[0]), dtype=TORCH_DTYPES[value.dtype])


# --- reductions and scans -----------------------------------------------------------------------------------


def _widening(value: Value) -> dict[str, object]:
    """Integer sums keep their dtype in the view; PyTorch would widen them."""
    return {} if is_float(value.dtype) else {"dtype": TORCH_DTYPES[value.dtype]}


def over_axes(key: str, widens: bool = False) -> Rule:
    """A reduction over a list of axes. PyTorch reads an empty list as "all", the vocabulary as "none"."""

    def rule(site: Site, value: Value) -> fx.Node:
        x = site.node(value.operands[0])
        if not value.axes:
            return x
        return site.call(key, x, list(value.axes), bool(value.attr("keepdim")), **(_widening(value) if widens else {}))

    return rule


def vector_norm(site: Site, value: Value) -> fx.Node:
    x = site.node(value.operands[0])
    if not value.axes:
        return site.call("abs.default", x)
    return site.call("linalg_vector_norm.default", x, 2, list(value.axes), bool(value.attr("keepdim")))


def product(site: Site, value: Value) -> fx.Node:
    """PyTorch multiplies along one axis at a time."""
    x = site.node(value.operands[0])
    for axis in reversed(value.axes):
        x = site.call("prod.dim_int", x, axis, bool(value.attr("keepdim")), **_widening(value))
    return x


def argmax(site: Site, value: Value) -> fx.Node:
    return site.call("argmax.default", site.node(value.operands[0]), value.axes[0], bool(value.attr("keepdim")))


def along(key: str, widens: bool = False) -> Rule:
    """A function along one axis."""

    def rule(site: Site, value: Value) -> fx.Node:
        return site.call(key, site.node(value.operands[0]), value.axes[0], **(_widening(value) if widens else {}))

    return rule


def topk(output: int) -> Rule:
    def rule(site: Site, value: Value) -> fx.Node:
        axis, k, largest, ordered = (value.attr(name) for name in ("axis", "k", "largest", "sorted"))
        both = site.call("topk.default", site.node(value.operands[0]), k, axis, largest, ordered)
        return site.item(both, output)

    return rule


# --- layout -------------------------------------------------------------------------------------------------


def reshape(site: Site, value: Value) -> fx.Node:
    return site.call("reshape.default", site.node(value.operands[0]), _sizes(site, value.shape))


def expand(site: Site, value: Value) -> fx.Node:
    return site.call("expand.default", site.node(value.operands[0]), _sizes(site, value.shape))


def unsqueeze(site: Site, value: Value) -> fx.Node:
    x = site.node(value.operands[0])
    for axis in value.axes:
        x = site.call("unsqueeze.default", x, axis)
    return x


def squeeze(site: Site, value: Value) -> fx.Node:
    return site.call("squeeze.dims", site.node(value.operands[0]), list(value.axes))


def transpose(site: Site, value: Value) -> fx.Node:
    return site.call("permute.default", site.node(value.operands[0]), list(cast("tuple[int, ...]", value.attr("perm"))))


def slice_range(site: Site, value: Value) -> fx.Node:
    axis, start, stop, step = (value.attr(name) for name in ("axis", "start", "stop", "step"))
    return site.call("slice.Tensor", site.node(value.operands[0]), axis, start, stop, step)


def gather(site: Site, value: Value) -> fx.Node:
    x, index = value.operands
    return site.call("gather.default", site.node(x), value.axes[0], site.node(index))


def concat(site: Site, value: Value) -> fx.Node:
    return site.call("cat.default", [site.node(o) for o in value.operands], value.axes[0])


def one_hot(site: Site, value: Value) -> fx.Node:
    y = value.operands[0]
    classes = site.call("arange.default", value.attr("classes"), dtype=TORCH_DTYPES[y.dtype], device=site.device)
    return site.call("eq.Tensor", site.call("unsqueeze.default", site.node(y), y.type.rank), classes)


# --- leaves and fused operators -----------------------------------------------------------------------------


def constant(site: Site, value: Value) -> fx.Node:
    sizes = _sizes(site, value.shape)
    return site.call("full.default", sizes, number(value), dtype=TORCH_DTYPES[value.dtype], device=site.device)


def arange(site: Site, value: Value) -> fx.Node:
    size = site.size(value.shape[0])
    return site.call("arange.default", size, dtype=TORCH_DTYPES[value.dtype], device=site.device)


_REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}


def _weighted(site: Site, value: Value) -> list[object]:
    """Input, target and the optional weights of a class loss."""
    nodes: list[object] = [site.node(o) for o in value.operands]
    return nodes if len(nodes) == 3 else [*nodes, None]


def _reduction(value: Value) -> int:
    return _REDUCTIONS[cast(str, value.attr("reduction"))]


def cross_entropy(site: Site, value: Value) -> fx.Node:
    ignored, smoothing = value.attr("ignore_index"), value.attr("label_smoothing")
    return site.call("cross_entropy_loss.default", *_weighted(site, value), _reduction(value), ignored, smoothing)


def nll_loss(site: Site, value: Value) -> fx.Node:
    return site.call("nll_loss_nd.default", *_weighted(site, value), _reduction(value), value.attr("ignore_index"))


def bce_with_logits(site: Site, value: Value) -> fx.Node:
    x, y = (site.node(o) for o in value.operands)
    return site.call("binary_cross_entropy_with_logits.default", x, y, None, None, _reduction(value))


def attention(site: Site, value: Value) -> fx.Node:
    nodes: list[object] = [site.node(o) for o in value.operands]
    mask = nodes[3] if len(nodes) == 4 else None
    scale = value.attr("scale")
    result = site.call("scaled_dot_product_attention.default", *nodes[:3], mask, 0.0, False, scale=scale)
    if value.type.rank != 4:
        return result
    # the fused kernel for CPUs, which takes four axes, gives 0 for a query of NaN: 0·q puts the NaN back
    poison = site.call("sum.dim_IntList", site.call("mul.Tensor", nodes[0], 0), [-1], True)
    return site.call("add.Tensor", result, poison)


def normalised(key: str, affine: int) -> Rule:
    """A normalisation over the last axes, with up to `affine` tensors that scale and shift its result."""

    def rule(site: Site, value: Value) -> fx.Node:
        x, *given = (site.node(o) for o in value.operands)
        sizes = _sizes(site, value.shape[value.axes[0] :])
        return site.call(key, x, sizes, *given, *[None] * (affine - len(given)), value.attr("epsilon"))

    return rule


_SAME_NAME = (
    "neg", "abs", "exp", "expm1", "log", "log1p", "sqrt", "sigmoid", "log_sigmoid", "tanh", "relu", "sign", "erf",
    "erfc", "sin", "cos", "floor", "detach", "isnan", "asin", "acos", "atan", "sinh", "asinh", "acosh", "atanh",
    "erfinv",
)  # fmt: skip

EMIT: dict[str, Rule] = {
    "constant": constant,
    "arange": arange,
    **{name: call(f"{name}.default") for name in _SAME_NAME},
    **{name: wide(f"special_{name}.default") for name in ("erfcx", "log_ndtr", "ndtri")},
    # the default threshold of 20 returns x where float64 still sees exp(−x)
    "softplus": call("softplus.default", 1, 40),
    "not": call("logical_not.default"),
    "cast": cast_to,
    "add": binary("add.Tensor", "add.Tensor", "add.Tensor"),
    "sub": binary("sub.Tensor", "sub.Tensor", "rsub.Scalar"),
    "mul": binary("mul.Tensor", "mul.Tensor", "mul.Tensor"),
    "div": division,
    "pow": power,
    "maximum": binary("maximum.default", "clamp_min.default", "clamp_min.default"),
    "minimum": binary("minimum.default", "clamp_max.default", "clamp_max.default"),
    "logaddexp": binary("logaddexp.default"),
    "xlogy": xlogy,
    "eq": binary("eq.Tensor", "eq.Scalar", "eq.Scalar"),
    "ne": binary("ne.Tensor", "ne.Scalar", "ne.Scalar"),
    "lt": binary("lt.Tensor", "lt.Scalar", "gt.Scalar"),
    "le": binary("le.Tensor", "le.Scalar", "ge.Scalar"),
    "gt": binary("gt.Tensor", "gt.Scalar", "lt.Scalar"),
    "ge": binary("ge.Tensor", "ge.Scalar", "le.Scalar"),
    "and": binary("logical_and.default"),
    "or": binary("logical_or.default"),
    "where": where,
    "sum": over_axes("sum.dim_IntList", widens=True),
    "mean": over_axes("mean.dim"),
    "prod": product,
    "max": over_axes("amax.default"),
    "min": over_axes("amin.default"),
    "logsumexp": over_axes("logsumexp.default"),
    "norm": vector_norm,
    "any": over_axes("any.dims"),
    "all": over_axes("all.dims"),
    "argmax": argmax,
    "cumsum": along("cumsum.default", widens=True),
    "cumprod": along("cumprod.default", widens=True),
    "logcumsumexp": along("logcumsumexp.default"),
    "softmax": along("softmax.int"),
    "log_softmax": along("log_softmax.int"),
    "topk_values": topk(0),
    "topk_indices": topk(1),
    "matmul": call("matmul.default"),
    "reshape": reshape,
    "unsqueeze": unsqueeze,
    "squeeze": squeeze,
    "transpose": transpose,
    "expand": expand,
    "slice": slice_range,
    "gather": gather,
    "concat": concat,
    "one_hot": one_hot,
    "cross_entropy": cross_entropy,
    "nll_loss": nll_loss,
    "bce_with_logits": bce_with_logits,
    "attention": attention,
    "layer_norm": normalised("layer_norm.default", 2),
    "rms_norm": normalised("rms_norm.default", 1),
}

#: Primitives whose emission may return memory of their operand rather than new memory.
ALIASING = frozenset(
    ("reshape", "unsqueeze", "squeeze", "transpose", "expand", "slice", "detach", "sum", "mean", "prod", "max",
     "min", "logsumexp", "any", "all")
)  # fmt: skip

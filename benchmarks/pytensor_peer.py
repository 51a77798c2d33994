"""Express a spelling of the panel in PyTensor: its exported ATen graph, operator by operator.

PyTensor is the nearest relative of this project: its graph optimiser has a stabilisation phase. The formulas are the
same as for every other tool; an operator without a PyTensor counterpart below makes the spelling inexpressible.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import pytensor
import pytensor.tensor as pt
import torch
from pytensor.compile.mode import Mode
from torch import Tensor, fx, nn

DTYPES = {torch.float16: "float16", torch.float32: "float32", torch.float64: "float64"}
TYPES = {**DTYPES, torch.int64: "int64", torch.bool: "bool"}


class InexpressibleError(Exception):
    """The spelling uses an operator that has no counterpart here."""


def _axes(dim: Any) -> Any:
    if dim is None or isinstance(dim, int):
        return dim
    return tuple(dim) or None


def _sum(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    return pt.sum(x, axis=_axes(dim), keepdims=keepdim)


def _mean(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    return pt.mean(x, axis=_axes(dim), keepdims=keepdim)


def _max(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    if dim is None:
        return pt.max(x)
    return pt.max(x, axis=dim, keepdims=keepdim), pt.argmax(x, axis=dim, keepdims=keepdim)


def _min(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    if dim is None:
        return pt.min(x)
    if not isinstance(dim, int):
        return pt.minimum(x, dim)
    return pt.min(x, axis=dim, keepdims=keepdim), pt.argmin(x, axis=dim, keepdims=keepdim)


def _unsqueeze(x: Any, dim: int) -> Any:
    return pt.expand_dims(x, dim)


def _select(x: Any, dim: int, index: int) -> Any:
    return x[(slice(None),) * (dim % x.ndim) + (index,)]


def _index(x: Any, indices: Sequence[Any]) -> Any:
    return x[tuple(slice(None) if i is None else i for i in indices)]


def _transpose(x: Any, a: int, b: int) -> Any:
    order = list(range(x.ndim))
    order[a], order[b] = order[b], order[a]
    return x.dimshuffle(order)


def _clamp(x: Any, low: Any = None, high: Any = None) -> Any:
    x = x if low is None else pt.maximum(x, low)
    return x if high is None else pt.minimum(x, high)


def _add(a: Any, b: Any, alpha: float = 1) -> Any:
    return a + b if alpha == 1 else a + alpha * b


def _sub(a: Any, b: Any, alpha: float = 1) -> Any:
    return a - b if alpha == 1 else a - alpha * b


def _nll(logp: Any, y: Any, weight: Any = None, reduction: int = 1, ignore_index: int = -100) -> Any:
    if weight is not None or logp.ndim != 2:
        raise InexpressibleError("nll_loss")
    losses = -logp[pt.arange(logp.shape[0]), y]
    return {0: losses, 1: losses.mean(), 2: losses.sum()}[reduction]


def _not(mask: Any) -> Any:
    return pt.eq(mask, pt.constant(False))


def _tril(x: Any, diagonal: int = 0) -> Any:
    return pt.tril(x, diagonal)


TABLE: dict[str, Callable[..., Any]] = {
    "exp": pt.exp, "exp_": pt.exp, "exp2": lambda x: pt.power(_like(2.0, x), x), "log": pt.log,
    "log2": pt.log2, "log1p": pt.log1p, "expm1": pt.expm1, "sqrt": pt.sqrt, "abs": pt.abs, "neg": pt.neg,
    "tanh": pt.tanh, "sigmoid": pt.sigmoid, "relu": lambda x: pt.maximum(x, 0), "reciprocal": lambda x: 1 / x,
    "erf": pt.erf, "erfc": pt.erfc, "add": _add, "sub": _sub, "rsub": lambda a, b, alpha=1: b - alpha * a,
    "mul": operator.mul, "mul_": operator.mul, "div": operator.truediv, "div_": operator.truediv,
    "pow": pt.power, "sum": _sum, "mean": _mean, "max": _max, "min": _min, "amax": _max,
    "prod": lambda x, dim, keepdim=False: pt.prod(x, axis=dim, keepdims=keepdim),
    "cumsum": lambda x, dim: pt.cumsum(x, axis=dim), "cumprod": lambda x, dim: pt.cumprod(x, axis=dim),
    "softmax": lambda x, dim, dtype=None: pt.special.softmax(x, axis=dim), "matmul": pt.matmul, "bmm": pt.matmul,
    "unsqueeze": _unsqueeze, "squeeze": lambda x, dim: pt.squeeze(x, axis=dim), "select": _select, "index": _index,
    "view": lambda x, shape: x.reshape(shape), "transpose": _transpose, "permute": lambda x, d: x.dimshuffle(d),
    "numpy_T": lambda x: x.T, "expand_as": lambda x, like: pt.broadcast_to(x, like.shape),
    "gather": lambda x, dim, index: pt.take_along_axis(x, index, axis=dim),
    "take_along_dim": lambda x, index, dim: pt.take_along_axis(x, index, axis=dim),
    "clamp": _clamp, "clamp_min": lambda x, low: pt.maximum(x, low), "detach": lambda x: x, "detach_": lambda x: x,
    "where": pt.where, "masked_fill": lambda x, m, v: pt.where(m, _like(v, x), x), "bitwise_not": _not,
    "gt": operator.gt, "stack": lambda xs, dim=0: pt.stack(list(xs), axis=dim),
    "cat": lambda xs, dim=0: pt.concatenate(list(xs), axis=dim), "flatten": lambda x, start: x.flatten(start + 1),
    "diagonal": lambda x: pt.diagonal(x), "tril": _tril, "nll_loss_nd": _nll, "lift_fresh_copy": lambda x: x,
    "linalg_vector_norm": lambda x, p, dim, keepdim: _norm_one(x, p, dim, keepdim),
}  # fmt: skip


def _norm_one(x: Any, p: float, dim: Any, keepdim: bool) -> Any:
    if p != 1:
        raise InexpressibleError("norm")
    return pt.sum(pt.abs(x), axis=_axes(dim), keepdims=keepdim)


def _like(value: float, x: Any) -> Any:
    return pt.constant(value, dtype=x.dtype)


def compiled(module: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[..., Tensor]:
    """`module` as a PyTensor function with every graph rewrite of its default mode (run by NumPy, not by C)."""
    program = torch.export.export(module, inputs)
    symbols = [pt.tensor(f"x{i}", dtype=TYPES[t.dtype], shape=tuple(t.shape)) for i, t in enumerate(inputs)]
    floats = next(DTYPES[t.dtype] for t in inputs if t.dtype in DTYPES)
    graph_module = program.graph_module
    environment: dict[fx.Node, Any] = {}
    remaining = iter(symbols)
    for node in graph_module.graph.nodes:
        if node.op == "placeholder":
            constant = _constant(program, node)
            environment[node] = next(remaining) if constant is None else pt.constant(constant.numpy())
        elif node.op == "call_function":
            environment[node] = _apply(node, environment, floats)
        elif node.op == "output":
            result = environment[node.args[0][0]]
    function = pytensor.function(
        symbols, result, mode=Mode(linker="py", optimizer="fast_run"), on_unused_input="ignore"
    )

    def run(*args: Tensor) -> Tensor:
        return torch.from_numpy(function(*(a.numpy() for a in args))).reshape(result.type.shape)

    return run


def _constant(program: Any, node: fx.Node) -> Tensor | None:
    signature = program.graph_signature
    lifted = signature.inputs_to_lifted_tensor_constants.get(node.name)
    return None if lifted is None else program.constants[lifted]


def _apply(node: fx.Node, environment: dict[fx.Node, Any], floats: str) -> Any:
    target: Any = node.target
    args = fx.node.map_arg(node.args, environment.__getitem__)
    kwargs = fx.node.map_arg(dict(node.kwargs), environment.__getitem__)
    if target is operator.getitem:
        return args[0][args[1]]
    name = target.__name__.split(".")[0]
    if name == "_assert_tensor_metadata":
        return None
    if name in ("to", "arange", "ones", "eye", "one_hot"):
        return _create(name, node, args, floats)
    if name not in TABLE:
        raise InexpressibleError(name)
    if name in ("add", "sub", "rsub", "mul", "div", "pow", "clamp", "clamp_min", "where", "mul_", "div_"):
        args = [pt.constant(a, dtype=floats) if isinstance(a, float) else a for a in args]
    return TABLE[name](*args, **{k: v for k, v in kwargs.items() if k not in ("dtype", "device", "pin_memory")})


def _create(name: str, node: fx.Node, args: Any, floats: str) -> Any:
    value: Tensor = node.meta["val"]
    kind = TYPES[value.dtype]
    if name == "to":
        return args[0].astype(kind)
    if name == "one_hot":
        return pt.eq(args[0][..., None], pt.arange(args[1])).astype("int64")
    if name == "arange":
        return pt.arange(value.shape[0]).astype(kind)
    return pt.eye(args[0], dtype=kind) if name == "eye" else pt.ones(tuple(args[0]), dtype=kind)

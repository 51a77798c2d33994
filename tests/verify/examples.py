"""One small graph for every primitive: x, z floats of shape (3, 4); p in (0, 1); y classes; m a mask."""

from __future__ import annotations

import torch

from stabilize.graph.text import parse
from stabilize.graph.value import Value
from stabilize.graph.view import View

HEADER = (
    "def graph(x: float64[3, 4], z: float64[3, 4], p: float64[3, 4], y: int64[3], m: bool[3, 4], i: int64[3, 4], "
    "q: float64[2, 3, 4], k: float64[2, 5, 4], v: float64[2, 5, 6], w: float64[4], a: float64[3, 5]):\n    return "
)

EXAMPLES = {
    "input": "x",
    "opaque": "x",  # executed as a leaf, like an input
    "constant": "add(x, constant(value=0.1, dtype='float64', shape=(3, 4)))",
    "arange": "add(x, arange(size=4, dtype='float64'))",
    "neg": "neg(x)",
    "abs": "abs(x)",
    "exp": "exp(x)",
    "expm1": "expm1(x)",
    "log": "log(p)",
    "log1p": "log1p(p)",
    "sqrt": "sqrt(p)",
    "sigmoid": "sigmoid(x)",
    "log_sigmoid": "log_sigmoid(x)",
    "softplus": "softplus(x)",
    "tanh": "tanh(x)",
    "relu": "relu(x)",
    "sign": "sign(x)",
    "erf": "erf(x)",
    "erfc": "erfc(x)",
    "sin": "sin(x)",
    "cos": "cos(x)",
    "floor": "floor(mul(x, 3.0))",
    "asin": "asin(p)",
    "acos": "acos(p)",
    "atan": "atan(x)",
    "sinh": "sinh(x)",
    "asinh": "asinh(x)",
    "acosh": "acosh(add(p, 2.0))",
    "atanh": "atanh(p)",
    "erfcx": "erfcx(x)",
    "log_ndtr": "log_ndtr(x)",
    "erfinv": "erfinv(p)",
    "ndtri": "ndtri(p)",
    "detach": "detach(x)",
    "isnan": "isnan(x)",
    "not": "not_(m)",
    "cast": "cast(mul(x, 3.0), dtype='int64')",
    "add": "add(x, z)",
    "sub": "sub(1.0, x)",
    "mul": "mul(x, z)",
    "div": "div(x, z)",
    "pow": "pow(p, z)",
    "maximum": "maximum(x, 0.1)",
    "minimum": "minimum(x, z)",
    "logaddexp": "logaddexp(x, z)",
    "xlogy": "xlogy(x, p)",
    "eq": "eq(i, 1)",
    "ne": "ne(i, 1)",
    "lt": "lt(x, z)",
    "le": "le(x, 0.0)",
    "gt": "gt(x, z)",
    "ge": "ge(x, z)",
    "and": "and_(m, gt(x, 0.0))",
    "or": "or_(m, gt(x, 0.0))",
    "where": "where(m, x, 0.5)",
    "sum": "sum(x, axes=(0, 1), keepdim=True)",
    "mean": "mean(x, axes=(1,), keepdim=False)",
    "prod": "prod(x, axes=(0, 1), keepdim=False)",
    "max": "max(x, axes=(1,), keepdim=True)",
    "min": "min(x, axes=(0, 1), keepdim=False)",
    "logsumexp": "logsumexp(x, axes=(0,), keepdim=True)",
    "norm": "norm(x, axes=(1,), keepdim=True)",
    "any": "any(m, axes=(1,), keepdim=False)",
    "all": "all(m, axes=(0,), keepdim=True)",
    "argmax": "argmax(x, axis=1, keepdim=False)",
    "cumsum": "cumsum(x, axis=0)",
    "cumprod": "cumprod(x, axis=1)",
    "logcumsumexp": "logcumsumexp(x, axis=1)",
    "softmax": "softmax(x, axis=0)",
    "log_softmax": "log_softmax(x, axis=1)",
    "topk_values": "topk_values(x, axis=1, k=2, largest=True, sorted=True)",
    "topk_indices": "topk_indices(x, axis=1, k=2, largest=False, sorted=True)",
    "matmul": "matmul(q, transpose(k, perm=(0, 2, 1)))",
    "reshape": "reshape(x, shape=(2, 6))",
    "unsqueeze": "unsqueeze(x, axes=(0, 2))",
    "squeeze": "squeeze(unsqueeze(x, axes=(1,)), axes=(1,))",
    "transpose": "transpose(q, perm=(2, 0, 1))",
    "expand": "expand(w, shape=(3, 4))",
    "slice": "slice(x, axis=1, start=1, stop=4, step=2)",
    "gather": "gather(x, unsqueeze(y, axes=(1,)), axis=1)",
    "concat": "concat(x, a, axis=1)",
    "one_hot": "one_hot(y, classes=4)",
    "cross_entropy": "cross_entropy(x, y, w, reduction='mean', ignore_index=1, label_smoothing=0.1)",
    "nll_loss": "nll_loss(x, y, w, reduction='mean', ignore_index=-100)",
    "bce_with_logits": "bce_with_logits(x, p, reduction='sum')",
    "layer_norm": "layer_norm(x, w, neg(w), axis=1, epsilon=0.001)",
    "rms_norm": "rms_norm(x, w, axis=1, epsilon=0.001)",
    "attention": "attention(q, k, v, scale=0.5)",
}

EDGES = (0.0, 1.0, -1.0, 1e-8, float("inf"), float("-inf"), float("nan"), 30.0, -40.0, 2.5, -0.3, 700.0)


def example(primitive: str) -> View:
    """The graph that shows `primitive`."""
    return parse(HEADER + EXAMPLES[primitive])


def numbers(view: View, seed: int = 0) -> dict[Value, torch.Tensor]:
    """Ordinary data for the inputs of an example."""
    generator = torch.Generator().manual_seed(seed)
    result: dict[Value, torch.Tensor] = {}
    for name, value in view.bindings.items():
        if value.op != "input":
            continue
        shape = tuple(d for d in value.shape if isinstance(d, int))
        if value.dtype == "bool":
            result[value] = torch.rand(shape, generator=generator) < 0.6
        elif value.dtype == "int64":
            result[value] = torch.randint(0, 4, shape, generator=generator)
        else:
            drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
            result[value] = drawn.abs() / 4 + 0.1 if name in ("p", "w") else drawn
    return result

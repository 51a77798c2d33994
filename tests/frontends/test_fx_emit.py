"""Every emission row: the ATen calls that are added compute what the primitive means."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest
import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from stabilize.frontends.fx import open_graph_module
from stabilize.frontends.fx_emit import EMIT
from stabilize.frontends.fx_types import TORCH_DTYPES
from stabilize.graph.build import Builder
from stabilize.graph.ops import VOCABULARY
from stabilize.graph.value import TensorType, Value
from stabilize.graph.view import Replacement
from stabilize.verify.execute import execute

Make: TypeAlias = Callable[[Builder, dict[str, Value]], Value]

_G = torch.Generator().manual_seed(1)


def _data(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Leaves that the cases may use."""
    x = torch.randn(3, 4, generator=_G).to(dtype)
    return {
        "x": x,
        "y": torch.randn(3, 4, generator=_G).to(dtype),
        "row": torch.randn(4, generator=_G).to(dtype),
        "positive": (x.abs() + 0.1),
        "unit": torch.sigmoid(x),
        "above": x.abs() + 1,
        "cube": torch.randn(2, 3, 4, generator=_G).to(dtype),
        "mask": x > 0,
        "other": x < 0.5,
        "labels": torch.tensor([1, 0, 3]),
        "ints": torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.int32),
    }


def _unary(op: str, leaf: str = "x") -> list[Make]:
    return [lambda b, v: b.make(op, v[leaf])]


def _binary(op: str, left: str = "x", right: str = "y") -> list[Make]:
    """Two tensors, a constant on each side, a constant that the shape needs."""
    return [
        lambda b, v: b.make(op, v[left], v[right]),
        lambda b, v: b.apply(op, v[left], 0.75),
        lambda b, v: b.apply(op, 1.0, v["positive"]),
        lambda b, v: b.apply(op, 0.75, v["positive"]),
        lambda b, v: b.make(op, v["positive"], b.constant(2.0, v["x"].dtype, (2, 3, 4))),
    ]


def _reduce(op: str, leaf: str = "x") -> list[Make]:
    return [
        lambda b, v: b.make(op, v[leaf], axes=(1,), keepdim=False),
        lambda b, v: b.make(op, v[leaf], axes=(0, 1), keepdim=True),
        lambda b, v: b.make(op, v[leaf], axes=(), keepdim=False),
    ]


def _along(op: str) -> list[Make]:
    return [lambda b, v: b.make(op, v["x"], axis=0), lambda b, v: b.make(op, v["cube"], axis=2)]


def _cross_entropy(reduction: str, smoothing: float) -> Make:
    return lambda b, v: b.make(
        "cross_entropy", v["x"], v["labels"], reduction=reduction, ignore_index=-100, label_smoothing=smoothing
    )


def _bce(reduction: str) -> Make:
    return lambda b, v: b.make("bce_with_logits", v["x"], b.make("sigmoid", v["y"]), reduction=reduction)


def _topk(op: str) -> Make:
    return lambda b, v: b.make(op, v["x"], axis=1, k=2, largest=True, sorted=True)


def _masked_attention(b: Builder, v: dict[str, Value]) -> Value:
    mask = b.make("matmul", v["x"], b.make("transpose", v["y"], perm=(1, 0)))
    return b.make("attention", v["x"], v["y"], v["x"], mask, scale=0.5)


_SMOOTH = (
    "neg", "abs", "exp", "expm1", "sigmoid", "log_sigmoid", "softplus", "tanh", "relu", "sign", "erf", "erfc", "sin",
    "cos", "floor", "detach", "isnan", "atan", "sinh", "asinh", "erfcx", "log_ndtr",
)  # fmt: skip

CASES: dict[str, list[Make]] = {
    **{op: _unary(op) for op in _SMOOTH},
    **{op: _unary(op, "positive") for op in ("log", "log1p", "sqrt")},
    **{op: _unary(op, "unit") for op in ("asin", "acos", "atanh", "erfinv", "ndtri")},
    "acosh": _unary("acosh", "above"),
    **{op: _binary(op) for op in ("add", "sub", "mul", "div", "maximum", "minimum", "logaddexp")},
    "pow": _binary("pow", "positive"),
    **{op: _binary(op) for op in ("eq", "ne", "lt", "le", "gt", "ge")},
    "xlogy": _binary("xlogy", "x", "positive"),
    "not": _unary("not", "mask"),
    "and": [lambda b, v: b.make("and", v["mask"], v["other"]), lambda b, v: b.apply("and", v["mask"], True)],
    "or": [lambda b, v: b.make("or", v["mask"], v["other"])],
    "cast": [
        lambda b, v: b.make("cast", v["x"], dtype="float64"),
        lambda b, v: b.make("cast", v["x"], dtype="float16" if v["x"].dtype != "float16" else "float32"),
        lambda b, v: b.make("cast", v["mask"], dtype="float32"),
    ],
    "where": [
        lambda b, v: b.make("where", v["mask"], v["x"], v["y"]),
        lambda b, v: b.make("where", v["mask"], v["x"], b.constant(float("-inf"), v["x"].dtype)),
        lambda b, v: b.make("where", v["mask"], b.constant(0.0, v["x"].dtype), v["x"]),
        lambda b, v: b.make("where", v["mask"], b.constant(0.0, v["x"].dtype), b.constant(1.0, v["x"].dtype)),
        lambda b, v: b.make("where", v["mask"], b.constant(0, "int64"), b.constant(1, "int64")),
    ],
    **{op: _reduce(op) for op in ("norm", "sum", "mean", "prod", "max", "min", "logsumexp")},
    **{op: _reduce(op, "mask") for op in ("any", "all")},
    "argmax": [lambda b, v: b.make("argmax", v["x"], axis=1, keepdim=True)],
    **{op: _along(op) for op in ("cumsum", "cumprod", "logcumsumexp", "softmax", "log_softmax")},
    **{op: [_topk(op)] for op in ("topk_values", "topk_indices")},
    "matmul": [lambda b, v: b.make("matmul", v["x"], v["row"])],
    "reshape": [lambda b, v: b.make("reshape", v["x"], shape=(2, 6))],
    "unsqueeze": [lambda b, v: b.make("unsqueeze", v["x"], axes=(0, 2))],
    "squeeze": [lambda b, v: b.make("squeeze", b.make("unsqueeze", v["x"], axes=(0, 3)), axes=(0,))],
    "transpose": [lambda b, v: b.make("transpose", v["cube"], perm=(2, 0, 1))],
    "expand": [lambda b, v: b.make("expand", v["row"], shape=(3, 4))],
    "slice": [lambda b, v: b.make("slice", v["x"], axis=1, start=0, stop=4, step=2)],
    "gather": [lambda b, v: b.make("gather", v["x"], b.make("unsqueeze", v["labels"], axes=(1,)), axis=1)],
    "concat": [lambda b, v: b.make("concat", v["x"], v["y"], axis=1)],
    "one_hot": [lambda b, v: b.make("one_hot", v["labels"], classes=4)],
    "constant": [
        lambda b, v: b.constant(2.5, v["x"].dtype, (2, 3)), lambda b, v: b.constant(3, "int32"),
        lambda b, v: b.constant(True, "bool", (2,)), lambda b, v: b.constant(float("-inf"), v["x"].dtype),
    ],
    "arange": [
        lambda b, v: b.make("arange", size=5, dtype="int64"),
        lambda b, v: b.make("arange", size=3, dtype="float32"),
    ],
    "cross_entropy": [_cross_entropy("none", 0.0), _cross_entropy("mean", 0.1), _cross_entropy("sum", 0.0)],
    "nll_loss": [
        lambda b, v: b.make("nll_loss", v["x"], v["labels"], v["row"], reduction="mean", ignore_index=-100),
    ],
    "bce_with_logits": [_bce("none"), _bce("mean")],
    "layer_norm": [
        lambda b, v: b.make("layer_norm", v["cube"], axis=1, epsilon=1e-3),
        lambda b, v: b.make("layer_norm", v["x"], v["row"], v["row"], axis=1, epsilon=1e-3),
    ],
    "rms_norm": [
        lambda b, v: b.make("rms_norm", v["cube"], axis=1, epsilon=1e-3),
        lambda b, v: b.make("rms_norm", v["x"], v["row"], axis=1, epsilon=1e-3),
    ],
    "attention": [
        lambda b, v: b.make("attention", v["cube"], v["cube"], v["cube"], scale=0.25),
        _masked_attention,
    ],
}  # fmt: skip


def _emitted(make: Make, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, fx.GraphModule]:
    """(result of the emitted graph, result of the primitive, the graph)."""
    data = _data(dtype)
    builder = Builder()
    types = {n: TensorType(_name(t.dtype), tuple(t.shape)) for n, t in data.items()}
    target = make(builder, {n: builder.input(n, t) for n, t in types.items()}).type
    mode = FakeTensorMode()
    graph = fx.Graph()
    slot = torch.zeros(target.shape, dtype=TORCH_DTYPES[target.dtype])  # type: ignore[arg-type]
    for name, tensor in {**data, "slot": slot}.items():
        graph.placeholder(name).meta["val"] = mode.from_tensor(tensor)
    copied = graph.call_function(torch.ops.aten.clone.default, (list(graph.nodes)[-1],))
    copied.meta["val"] = mode.from_tensor(slot)
    graph.output(copied)
    host = open_graph_module(fx.GraphModule(nn.Module(), graph))
    leaves = {n: host.view.bindings[n] for n in data}
    value = make(host.view.builder, leaves)
    replacement = Replacement(host.view.bindings["slot"], value)
    assert host.refusal(replacement) is None
    assert host.can_emit(value) is None
    patched = host.patched([replacement]).model()
    patched.graph.lint()
    (expected,) = execute([value], {leaves[n]: t for n, t in data.items()})
    return patched(*data.values(), slot), expected, patched


def _name(dtype: torch.dtype) -> str:
    return next(name for name, d in TORCH_DTYPES.items() if d is dtype)


def test_every_primitive_has_a_row_and_a_case() -> None:
    computed = set(VOCABULARY) - {"input", "opaque"}
    assert set(EMIT) == computed
    assert set(CASES) == computed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("op", "number"), [(op, i) for op, cases in CASES.items() for i in range(len(cases))])
def test_emission_computes_the_primitive(op: str, number: int, dtype: torch.dtype) -> None:
    actual, expected, _ = _emitted(CASES[op][number], dtype)
    tolerance = {torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float32: 2e-6, torch.float64: 1e-14}.get(dtype, 0)
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


def test_constants_stay_numbers() -> None:
    """A constant beside a tensor is a Python scalar of the call, not a tensor of its own."""

    def make(b: Builder, v: dict[str, Value]) -> Value:
        scaled = b.apply("mul", v["x"], 0.1)
        return b.apply("sub", 1.0, b.apply("pow", 2.0, b.apply("maximum", scaled, 0.5)))

    _, _, patched = _emitted(make, torch.float16)
    assert torch.ops.aten.full.default not in [n.target for n in patched.graph.nodes]


def test_softplus_keeps_its_tail_in_float64() -> None:
    """At 30, ln(1 + e³⁰) − 30 = 9.4e-14, which float64 holds and a threshold of 20 drops."""

    def make(b: Builder, v: dict[str, Value]) -> Value:
        return b.make("softplus", b.apply("add", b.apply("mul", v["row"], 0.0), 30.0))

    actual, _, _ = _emitted(make, torch.float64)
    assert bool((actual > 30.0).all())


def test_shared_subexpressions_are_emitted_once() -> None:
    def make(b: Builder, v: dict[str, Value]) -> Value:
        e = b.make("exp", v["x"])
        return b.make("add", b.make("mul", e, e), b.make("sin", e))

    _, _, patched = _emitted(make, torch.float32)
    assert [n.target for n in patched.graph.nodes].count(torch.ops.aten.exp.default) == 1

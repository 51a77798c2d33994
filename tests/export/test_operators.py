"""Operators that `torch.onnx.export` lowers naively, exported by `export_onnx` and run in ONNX Runtime: against the
exact results, on inputs where the naive lowering breaks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import stabilize

_DTYPES = (torch.float16, torch.float32, torch.float64)
_WIDE = [
    -300.0,
    -104.0,
    -90.0,
    -60.0,
    -20.0,
    -17.0,
    -9.0,
    -1.5,
    -0.5,
    -1e-3,
    -1e-6,
    0.0,
    1e-6,
    1e-3,
    0.3,
    1.0,
    12.0,
    17.0,
    88.0,
]
_NEAR = [-1e-1, -1e-3, -1e-5, -1e-7, 0.0, 1e-7, 1e-5, 1e-3, 0.1, 0.5, 0.9, 2.0, 11.0]

#: name → (operator, inputs, largest error in ulps of the result)
_UNARY: dict[str, tuple[Callable[[Tensor], Tensor], list[float], float]] = {
    "log_sigmoid": (F.logsigmoid, _WIDE, 4),
    "sigmoid": (torch.sigmoid, _WIDE, 4),
    "silu": (F.silu, _WIDE, 64),  # of −90: 1/(1 + e⁹⁰) is subnormal
    "softplus": (F.softplus, _WIDE, 4),
    "softplus of another scale": (lambda x: F.softplus(x, 3.0, 25.0), _WIDE, 4),
    "log1p": (torch.log1p, _NEAR, 4),
    "expm1": (torch.expm1, _NEAR, 8),
    "elu": (F.elu, [-40.0, -3.0, *_NEAR], 8),
    "celu": (lambda x: F.celu(x, 0.7), [-40.0, -3.0, *_NEAR], 8),
    "selu": (F.selu, [-40.0, -3.0, *_NEAR], 8),
    "mish": (F.mish, [-15.0, -9.0, *_NEAR], 16),
    "erfc": (torch.special.erfc, [-3.0, -0.5, 0.0, 0.5, 2.0, 2.5, 5.0, 9.0], 16),
    "log_ndtr": (torch.special.log_ndtr, [-20.0, -10.0, -3.0, 0.0, 1.0], 16),
    "rounded division": (lambda x: torch.div(x, 0.375, rounding_mode="floor"), [-1.2, -0.75, 0.3, 0.9, 1.5, 7.0], 0.5),
    "remainder": (lambda x: torch.remainder(x, 0.6875), [-1e4, -2.1, -0.7, 0.7, 2.1, 1e4], 0.5),
    "a guard": (lambda x: torch.log(x.abs() + 2.0**-23), [0.0, 1e-3, 1.0, 3.0], 4),
    "a factor near 1": (lambda x: x * (1 + 2.0**-20), [0.1, 1.0, 3.0], 1.5),
}  # fmt: skip


class Called(nn.Module):
    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        self.call = call

    def forward(self, *args: Tensor) -> Any:
        return self.call(*args)


def run(program: torch.onnx.ONNXProgram, *args: Tensor) -> list[Tensor]:
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    feeds = {i.name: a.numpy() for i, a in zip(session.get_inputs(), args, strict=True)}
    return [torch.as_tensor(r) for r in session.run(None, feeds)]


def ulps(result: Tensor, exact: Tensor) -> Tensor:
    """Errors in units of the last place; those of subnormal results are taken from the smallest normal number."""
    info = torch.finfo(result.dtype)
    _, exponent = torch.frexp(exact.abs().clamp_min(info.smallest_normal))
    spacing = torch.ldexp(torch.full(exponent.shape, info.eps, dtype=torch.float64), exponent - 1)
    return (result.double() - exact).abs() / spacing


@pytest.mark.parametrize("dtype", _DTYPES, ids=str)
def test_elementwise_operators_are_exact_to_a_few_ulps(dtype: torch.dtype) -> None:
    inputs = [torch.tensor(numbers, dtype=torch.float64).to(dtype) for _, numbers, _ in _UNARY.values()]

    def every(*args: Tensor) -> tuple[Tensor, ...]:
        return tuple(call(x) for (call, _, _), x in zip(_UNARY.values(), args, strict=True))

    results = run(stabilize.export_onnx(Called(every), tuple(inputs), certify=False), *inputs)
    wrong: list[str] = []
    for (name, (call, _, most)), x, result in zip(_UNARY.items(), inputs, results, strict=True):
        assert result.dtype == dtype, name
        exact = call(x.double())
        known = exact.abs() <= torch.finfo(dtype).max
        if dtype is torch.float64 and name not in _EXACT_IN_FLOAT64:
            most = max(most, 64.0)  # PyTorch's own float64 is the measure
        worst = float(ulps(result, exact)[known].max())
        if not worst <= most or not bool(torch.isfinite(result[known]).all()):
            wrong.append(f"{name}: {worst} ulp, {result.tolist()} for {exact.tolist()}")
    assert not wrong, "\n".join(wrong)


_EXACT_IN_FLOAT64 = {"rounded division", "remainder", "a factor near 1"}


@pytest.mark.parametrize("dtype", _DTYPES, ids=str)
def test_pairs(dtype: torch.dtype) -> None:
    x = torch.tensor([-300.0, -200.0, 0.0, 1.0, 80.0, -math.inf, 1.0], dtype=dtype)
    y = torch.tensor([-299.0, 5.0, 0.0, 0.0, 80.0, -math.inf, -math.inf], dtype=dtype)

    def both(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return (
            torch.logaddexp(x, y),
            torch.logcumsumexp(torch.stack((x, y), -1), -1),
            torch.hypot(x, y),
        )

    results = run(stabilize.export_onnx(Called(both), (x, y), certify=False), x, y)
    for result, exact in zip(results, both(x.double(), y.double()), strict=True):
        finite = torch.isfinite(exact)
        assert torch.equal(torch.isfinite(result), finite)
        assert torch.allclose(result[~finite].double(), exact[~finite], equal_nan=True)
        assert float(ulps(result, exact)[finite].max()) <= 4


@pytest.mark.parametrize("dtype", _DTYPES, ids=str)
def test_binary_cross_entropy_of_logits(dtype: torch.dtype) -> None:
    """log1p(e^−|x|) + max(x, 0) − x·y, which PyTorch itself loses in float64 where it is small."""
    x = torch.tensor([-90.0, -90.0, 0.0, 12.0, 80.0, 300.0], dtype=dtype)
    y = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0], dtype=dtype)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(x, y, reduction="none")

    (result,) = run(stabilize.export_onnx(Called(loss), (x, y), certify=False), x, y)
    exact = torch.log1p(torch.exp(-x.double().abs())) + torch.where(y == (x > 0), 0.0, x.double().abs())
    assert float(ulps(result, exact).max()) <= 4


def test_atan2_in_every_octant_and_on_the_axes() -> None:
    numbers = torch.tensor([-math.inf, -1e30, -2.0, -1.0, -1e-30, -0.0, 0.0, 1e-30, 1.0, 2.0, 1e30, math.inf])
    y, x = (g.flatten() for g in torch.meshgrid(numbers, numbers, indexing="ij"))
    (result,) = run(stabilize.export_onnx(Called(torch.atan2), (y, x), certify=False), y, x)
    exact = torch.atan2(y.double(), x.double())
    assert float(ulps(result, exact).max()) <= 4


def test_division_of_integers_stays_in_integers() -> None:
    a = torch.tensor([2**53 + 1, -(2**53) - 1, 7, -7, 7, -7])
    b = torch.tensor([3, 3, 2, 2, -2, -2])

    def divided(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return a // b, torch.div(a, b, rounding_mode="trunc"), torch.div(a, b, rounding_mode="floor")

    results = run(stabilize.export_onnx(Called(divided), (a, b), certify=False), a, b)
    for result, exact in zip(results, divided(a, b), strict=True):
        assert torch.equal(result, exact)


def test_constants_of_float64_are_float64() -> None:
    x = torch.tensor([1.0, 3.0, 1e200], dtype=torch.float64)

    def formula(x: Tensor) -> tuple[Tensor, ...]:
        return x * 0.1 + 1e-300, torch.full((2,), 0.1, dtype=torch.float64) * x[:2], x.clamp(0.1, 2e300)

    results = run(stabilize.export_onnx(Called(formula), (x,)), x)
    for result, exact in zip(results, formula(x), strict=True):
        assert torch.equal(result, exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_norms_and_deviations_beyond_the_squares(dtype: torch.dtype) -> None:
    big, small, tiny = (1e25, 1e-25, 1e-30) if dtype is torch.float32 else (1e200, 1e-200, 1e-250)
    rows = torch.tensor([[3.0, -4.0, 1.0], [1.0, 2.0, 2.5], [0.1, 0.2, 0.2], [0.0, 0.0, 0.0]], dtype=dtype)
    rows[1] *= big
    rows[2] *= small

    def formula(x: Tensor) -> tuple[Tensor, ...]:
        return x.norm(dim=-1), x.norm(p=3, dim=-1, keepdim=True), F.normalize(x, dim=-1, eps=tiny), x.std(-1)

    results = run(stabilize.export_onnx(Called(formula), (rows,), certify=False), rows)
    wide = rows.double() / torch.tensor([1.0, big, small, 1.0], dtype=torch.float64)[:, None]
    exact = formula(wide)
    for i, (result, truth) in enumerate(zip(results, exact, strict=True)):
        factors = torch.tensor([1.0, big, small, 1.0], dtype=torch.float64).reshape(-1, *[1] * (truth.dim() - 1))
        truth = truth if i == 2 else truth * factors
        assert torch.allclose(result.double(), truth, rtol=16 * torch.finfo(dtype).eps, atol=0.0), i


@pytest.mark.parametrize("correction", [0, 1])
def test_variance_far_from_zero_and_near_the_largest_number(correction: int) -> None:
    x = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    x[1] = x[1] * 0.01 + 100
    x[2] *= 1.2e19
    x[3] = 5.0

    def formula(x: Tensor) -> tuple[Tensor, ...]:
        return (
            x.var(-1, correction=correction),
            x.var(correction=correction),
            x.var((0, 1), correction=correction, keepdim=True),
        )

    results = run(stabilize.export_onnx(Called(formula), (x,), certify=False), x)
    for result, exact in zip(results, formula(x.double()), strict=True):
        assert result.shape == exact.shape
        assert torch.allclose(result.double(), exact, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["smoothed", "probabilities", "smoothed probabilities"])
def test_labels_of_cross_entropy(reduction: str, weighted: bool, kind: str) -> None:
    """The exporter drops label smoothing without a word, and refuses probabilities."""
    x = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(1)) * 20
    labels: Tensor = torch.tensor([[0, 1], [2, -100], [1, 1], [0, 2], [-100, 0]])
    if kind != "smoothed":
        labels = torch.rand(5, 3, 2, generator=torch.Generator().manual_seed(2))
    weight = torch.tensor([0.5, 2.0, 1.0]) if weighted else None
    smoothing = 0.0 if kind == "probabilities" else 0.2

    def loss(x: Tensor, labels: Tensor) -> Tensor:
        given = None if weight is None else weight.to(x.dtype)
        return F.cross_entropy(x, labels, given, reduction=reduction, label_smoothing=smoothing)

    (result,) = run(stabilize.export_onnx(Called(loss), (x, labels), certify=False), x, labels)
    exact = loss(x.double(), labels.double() if labels.is_floating_point() else labels)
    assert torch.allclose(result.double(), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rank", [3, 4, 5])
@pytest.mark.parametrize("mask", [None, "bool", "float"])
def test_attention_of_every_rank(rank: int, mask: str | None) -> None:
    shape = (1, 2, 4, 6, 8)[-rank:]
    q = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    given: Tensor | None = None
    if mask:
        given = torch.ones(6, 6).tril().bool()
        given = given if mask == "bool" else given.float().log()

    def attend(q: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, q, q, attn_mask=given)

    (result,) = run(stabilize.export_onnx(Called(attend), (q,), certify=False), q)
    assert torch.allclose(result, attend(q), atol=1e-6)


@pytest.mark.parametrize("mask", ["bool", "float"])
@pytest.mark.parametrize("rank", [3, 4])
def test_a_row_that_attends_to_nothing_is_zero_as_in_pytorch(mask: str, rank: int) -> None:
    q = torch.randn((1, 2, 4, 8)[-rank:], generator=torch.Generator().manual_seed(4))
    allowed = torch.ones(4, 4).tril(-1).bool()
    given = allowed if mask == "bool" else allowed.float().log()

    def attend(q: Tensor, m: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, q, q, attn_mask=m)

    (result,) = run(stabilize.export_onnx(Called(attend), (q, given), certify=False), q, given)
    exact = attend(q, given)
    assert not exact[..., 0, :].any()
    assert torch.allclose(result, exact, atol=1e-6)


@pytest.mark.parametrize(
    "operator", [torch.abs, lambda x: x.sum(-1), lambda x: F.mse_loss(x, x * 2)], ids=["abs", "sum", "mse_loss"]
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_comes_out_in_half_precision(operator: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    x = torch.randn(3, 4).to(dtype)
    program = stabilize.export_onnx(Called(operator), (x,), certify=False)
    (output,) = program.model.graph.outputs
    assert str(output.dtype) == {torch.float16: "FLOAT16", torch.bfloat16: "BFLOAT16"}[dtype]

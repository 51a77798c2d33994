"""Whole models against a float64 shadow."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from stabilize.errors import ModelError
from stabilize.graph.build import Builder
from stabilize.graph.text import parse
from stabilize.graph.value import TensorType
from stabilize.verify.models import Tensors, certify_models, model_families, module_shadow, view_shadow


class Head(torch.nn.Module):
    """A linear layer and a softmax in one of several spellings."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(8, 6)
        self.linear.weight.data *= 3
        self.spelling = spelling

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.linear(x)
        if self.spelling == "naive":
            e = z.exp()
            return e / e.sum(-1, keepdim=True)
        if self.spelling == "wrong axis":
            return F.softmax(z, 0)
        if self.spelling == "collapsing":
            return F.softmax(z.to(torch.bfloat16), -1).float()
        if self.spelling == "nan":
            return F.softmax(z, -1) / (z > 0)
        return F.softmax(z.to(torch.float32), -1)


def _run(model: torch.nn.Module) -> object:
    def run(tensors: Tensors) -> Tensors:
        with torch.no_grad():
            return [model(*tensors)]

    return run


def _certify(before: str, after: str) -> object:
    inputs = (torch.randn(16, 8, generator=torch.Generator().manual_seed(1)),)
    first, second = Head(before), Head(after)
    shadows = [module_shadow(m) for m in (first, second)]
    return certify_models(
        _run(first),  # type: ignore[arg-type]
        _run(second),  # type: ignore[arg-type]
        lambda t: [shadows[0](*t)],
        model_families(inputs),
        shadow_after=lambda t: [shadows[1](*t)],
    )


def test_a_repaired_model_is_accepted_and_the_repair_is_counted() -> None:
    certificate = _certify("naive", "stable")
    assert certificate.accepted  # type: ignore[attr-defined]
    assert certificate.oracle == "float64"  # type: ignore[attr-defined]
    families = {f.name: f for f in certificate.families}  # type: ignore[attr-defined]
    assert set(families) == {"given", "8-fold", "64-fold"}
    assert families["64-fold"].failed_before > families["64-fold"].failed_after == 0
    assert families["given"].after < 8


@pytest.mark.parametrize("after", ["wrong axis", "collapsing", "nan"])
def test_harm_is_declined(after: str) -> None:
    certificate = _certify("naive", after)
    assert not certificate.accepted  # type: ignore[attr-defined]
    assert certificate.reason.startswith("on given inputs, output 0")  # type: ignore[attr-defined]


def test_different_outputs_are_declined() -> None:
    x = [torch.randn(3)]
    shape = certify_models(lambda t: t, lambda t: [t[0][:2]], lambda t: t, [("given", x)])
    count = certify_models(lambda t: t, lambda t: [*t, *t], lambda t: t, [("given", x)])
    assert "torch.float32[2] instead of torch.float32[3]" in str(shape.reason)
    assert "1 and 2 tensors" in str(count.reason)


def test_integer_outputs_must_be_equal() -> None:
    x = [torch.randn(5)]
    index = lambda t: [t[0].argmax(0, keepdim=True)]  # noqa: E731
    assert certify_models(index, index, index, [("given", x)]).accepted
    assert not certify_models(index, lambda t: [t[0].argmin(0, keepdim=True)], index, [("given", x)]).accepted


class Mixed(torch.nn.Module):
    """Casts, factories without a dtype, buffers that are written."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        scale = torch.tensor(3.0)
        third = torch.ones(4, dtype=torch.float16) / scale
        return (x.half() * third).to(torch.bfloat16) + self.count


def test_shadows_of_modules_do_not_round() -> None:
    model = Mixed()
    x = torch.linspace(0, 1, 4)
    result = module_shadow(model)(x)
    assert result.dtype == torch.float64
    assert torch.allclose(result, x.double() / 3 + 1, rtol=1e-15, atol=0)
    assert model.count.item() == 0
    assert torch.get_default_dtype() == torch.float32


def test_shadows_of_views() -> None:
    view = parse(
        "def graph(x: float16[n, 3], i: int64[n, 1]):\n    return gather(exp(x), i, axis=1), softmax(x, axis=1)"
    )
    x, i = torch.full((2, 3), 30.0).half(), torch.tensor([[0], [2]])
    first, second = view_shadow(view.outputs, {view.bindings["x"]: x, view.bindings["i"]: i})
    assert first.dtype == torch.float64
    assert torch.equal(first, torch.exp(torch.full((2, 1), 30.0, dtype=torch.float64)))
    assert torch.allclose(second, torch.full((2, 3), 1 / 3, dtype=torch.float64))


def test_shadows_of_opaque_views_are_refused() -> None:
    builder = Builder()
    type = TensorType("float32", (3,))
    hidden = builder.opaque("mystery", [builder.input("x", type)], type)
    with pytest.raises(ModelError, match="mystery"):
        view_shadow([builder.make("exp", hidden)], {hidden.operands[0]: torch.zeros(3)})

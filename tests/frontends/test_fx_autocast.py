"""Regions under autocast: read as they run, and rewritten so that what is emitted means what it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import stabilize
from stabilize.frontends.fx import open_exported, open_graph_module
from stabilize.frontends.fx_autocast import run
from stabilize.frontends.fx_modes import Modes
from stabilize.graph.view import Replacement

Tensor = torch.Tensor

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]

ROWS = torch.tensor(
    [[300.0, 100, -100, 0, 1], [-300, 5, 200, 2, 1], [1, 2, 3, 4, 5], [-200, -201, -202, -210, -220]],
)
TARGET = torch.tensor([0, 4, 2, 1])


def softmax(x: Tensor) -> Tensor:
    e = torch.exp(x)
    return e / e.sum(-1, keepdim=True)


def loss(x: Tensor, target: Tensor) -> Tensor:
    return -torch.log(softmax(x)).gather(1, target[:, None]).mean()


#: name → (naive, the same in any format with stable operators)
HEADS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "softmax": (lambda x, t: softmax(x), lambda x, t: torch.softmax(x, -1)),
    "log softmax": (lambda x, t: torch.log(softmax(x)), lambda x, t: torch.log_softmax(x, -1)),
    "logsumexp": (lambda x, t: torch.log(torch.exp(x).sum(-1)), lambda x, t: torch.logsumexp(x, -1)),
    "softplus": (lambda x, t: torch.log(1 + torch.exp(x)), lambda x, t: torch.logaddexp(x, torch.zeros_like(x))),
    "sigmoid": (lambda x, t: torch.exp(x) / (1 + torch.exp(x)), lambda x, t: torch.sigmoid(x)),
    "cross entropy": (loss, nn.functional.cross_entropy),
    "attention": (
        lambda x, t: softmax(x) @ x.mT,
        lambda x, t: torch.softmax(x, -1) @ x.mT,
    ),
}


class Under(nn.Module):
    """A head on a linear layer, which autocast runs in the narrow format; the logits are returned too."""

    def __init__(self, head: str, device: str, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 5, bias=False, device=device)
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(5))
        self.head, self.device, self.dtype = HEADS[head][0], device, dtype

    def forward(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(self.device, dtype=self.dtype):
            y = self.linear(x)
            return self.head(y, target), y + 0


def check(head: str, before: Callable[..., Any], after: Callable[..., Any], inputs: tuple[Tensor, Tensor]) -> None:
    """Right from the logits on, in the dtypes that the original has."""
    (old, _), (new, logits) = before(*inputs), after(*inputs)
    assert new.dtype == old.dtype
    assert not old.isfinite().all(), "the original was meant to fail"
    exact = HEADS[head][1](logits.double(), inputs[1])
    coarse = min(torch.finfo(new.dtype).bits, torch.finfo(logits.dtype).bits if head == "attention" else 64)
    rtol, atol = {16: (2e-2, 1e-5), 32: (2e-5, 1e-30)}[coarse]
    torch.testing.assert_close(new.double(), exact, rtol=rtol, atol=atol)


@pytest.mark.parametrize("head", list(HEADS))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, None], ids=["bfloat16", "float16", "default"])
@pytest.mark.parametrize("device", DEVICES)
def test_exported_region(head: str, dtype: torch.dtype | None, device: str) -> None:
    inputs = (ROWS.to(device), TARGET.to(device))
    exported = torch.export.export(Under(head, device, dtype), inputs)
    fixed, report = stabilize.optimize(exported, return_report=True)
    assert report.rewrites
    assert all("/" in r.node for r in report.rewrites)
    fixed.validate()
    assert stabilize.optimize(fixed) is fixed
    check(head, exported.module(), fixed.module(), inputs)
    check(head, exported.module(), fixed.run_decompositions({}).module(), inputs)


@pytest.mark.parametrize("head", list(HEADS))
@pytest.mark.parametrize("device", DEVICES)
def test_region_captured_by_dynamo(head: str, device: str) -> None:
    reports: list[Any] = []

    def backend(module: fx.GraphModule, inputs: list[Tensor], **kwargs: object) -> Callable[..., Any]:
        fixed, report = stabilize.optimize(module, tuple(inputs), return_report=True)
        reports.append(report)
        return fixed.forward

    torch._dynamo.reset()
    model = Under(head, device, torch.bfloat16)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    check(head, model, compiled, (ROWS.to(device), TARGET.to(device)))
    assert reports[0].rewrites
    torch._dynamo.reset()


@pytest.mark.parametrize("head", ["softmax", "cross entropy", "logsumexp"])
@pytest.mark.parametrize("device", DEVICES)
def test_autocast_around_a_compiled_module(head: str, device: str) -> None:
    """Autocast is on while the graph is compiled, and the graph does not say so."""

    def backend(module: fx.GraphModule, inputs: list[Tensor], **kwargs: object) -> Callable[..., Any]:
        return stabilize.optimize(module, tuple(inputs)).forward

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Under(head, device, None)

        def forward(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
            y = self.inner.linear(x)
            return self.inner.head(y, target), y + 0

    torch._dynamo.reset()
    model = Plain()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    with torch.autocast(device, dtype=torch.bfloat16):
        check(head, model, compiled, (ROWS.to(device), TARGET.to(device)))
    torch._dynamo.reset()


def test_gradients_through_a_region() -> None:
    exported = torch.export.export(Under("log softmax", "cpu", torch.bfloat16), (ROWS / 100, TARGET))
    fixed = stabilize.optimize(exported)
    found: list[Tensor] = []
    for program in (exported, fixed):
        x = (ROWS / 100).requires_grad_()
        result = program.module()(x, TARGET)[0]
        (result.float() * torch.linspace(1, 2, 20).reshape(4, 5)).sum().backward()
        assert x.grad is not None
        found.append(x.grad)
    torch.testing.assert_close(found[1], found[0], rtol=5e-2, atol=5e-2)
    x = ROWS.clone().requires_grad_()
    fixed.module()(x, TARGET)[0].sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_autocast_that_is_switched_off_inside() -> None:
    class Off(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                y = x @ x.mT
                with torch.autocast("cpu", enabled=False):
                    return softmax(y.float() @ x)

    exported = torch.export.export(Off(), (ROWS,))
    fixed, report = stabilize.optimize(exported, return_report=True)
    assert [r.stable.split("(")[0] for r in report.rewrites] == ["softmax"]
    assert fixed.module()(ROWS).isfinite().all()


def test_a_product_that_autocast_would_round_is_refused() -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return torch.exp(x) + x

    body = open_exported(torch.export.export(Sum(), (ROWS[:, :4],))).bodies()["submod_1"]
    builder, old = body.view.builder, body.view.outputs[0]
    x = next(v for v in body.view.bindings.values() if v.op == "input")
    reason = body.refusal(Replacement(old, builder.make("matmul", x, x)))
    assert reason is not None
    assert "autocast" in reason
    assert "aten.matmul.default in less precision" in reason
    assert body.refusal(Replacement(old, builder.make("mul", x, x))) is None


def test_a_product_is_read_as_autocast_computes_it() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    on = graph.call_function(torch.amp.autocast_mode._enter_autocast, ("cpu", torch.bfloat16, True, True))
    inside = graph.call_function(torch.matmul, (x, x))
    graph.call_function(torch.amp.autocast_mode._exit_autocast, (on,))
    outside = graph.call_function(torch.matmul, (x, x))
    graph.output((inside, outside))
    view = open_graph_module(fx.GraphModule(nn.Module(), graph), torch.randn(3, 3)).view
    inner, outer = view.outputs[:2]
    assert [o.op for o in inner.operands] == ["cast", "cast"]
    assert (inner.dtype, outer.dtype) == ("bfloat16", "float32")
    assert [o.op for o in outer.operands] == ["input", "input"]


@pytest.mark.parametrize(
    ("name", "device", "expected"),
    [
        ("exp.default", "cpu", None),
        ("exp.default", "cuda", torch.float32),
        ("softmax.int", "cuda", torch.float32),
        ("sum.dim_IntList", "cuda", torch.float32),
        ("nll_loss_nd.default", "cpu", torch.float32),
        ("add.Tensor", "cuda", None),
    ],
)
def test_what_autocast_casts(name: str, device: str, expected: torch.dtype | None) -> None:
    """PyTorch is asked; no device is needed for that."""
    mode = FakeTensorMode()
    with mode:
        x = torch.empty(4, 5, dtype=torch.bfloat16, device=device)
        target = torch.empty(4, dtype=torch.int64, device=device)
    packet, _, overload = name.partition(".")
    more: dict[str, tuple[Any, ...]] = {"softmax": (1,), "sum": ([1],), "nll_loss_nd": (target,), "add": (x,)}
    target_op = getattr(getattr(torch.ops.aten, packet), overload)
    ran = run(target_op, (x, *more.get(packet, ())), {}, Modes(autocast={device: torch.bfloat16}), mode)
    assert ran.casts is not None
    assert [d for t, d in ran.casts if t is x] == ([] if expected is None else [expected])
    assert ran.result.dtype == (expected or torch.bfloat16)

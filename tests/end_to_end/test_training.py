"""A transformer whose loss is written out trains like one with F.cross_entropy, and where it goes to NaN itself.

Both round: the losses are sums of the same numbers in another order. What is compared is the distance of each from
the curve in float64. That of the reference is one draw of rounding errors, that of the rewritten model another: it may
be twice as large, plus the two roundings (of the log-probabilities and of their mean) of a loss in its own format.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import stabilize
from stabilize import dynamo

VOCABULARY, WIDTH, LENGTH, BATCH, STEPS = 50, 32, 12, 4, 10
NO_COMPILER = pytest.mark.skipif(shutil.which("c++") is None, reason="inductor needs a C++ compiler")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.after = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.feed = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        return x + self.feed(self.after(x))


class Naive(nn.Module):
    """The loss as in a textbook. scale: of the logits."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        return self.loss(self.head(self.blocks(self.embedding(tokens))) * self.scale, targets)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        e = torch.exp(logits)
        p = e / e.sum(-1, keepdim=True)
        return -torch.log(p.gather(-1, targets.unsqueeze(-1))).mean()


class Reference(Naive):
    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


_generator = torch.Generator().manual_seed(5)
DATA = torch.randint(0, VOCABULARY, (BATCH, LENGTH + 1), generator=_generator)
EXAMPLE = (DATA[:, :-1], DATA[:, 1:])

Prepare = Callable[[nn.Module], Any]


def made(kind: type[Naive], scale: float) -> Naive:
    torch.manual_seed(0)
    return kind(scale)


def curve(model: nn.Module, prepare: Prepare, autocast: bool = False) -> Tensor:
    """The loss at each step of training, as float64."""
    torch._dynamo.reset()
    run = prepare(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05 / model.scale, momentum=0.9)
    losses: list[float] = []
    for _ in range(STEPS):
        with torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext():
            loss = run(*EXAMPLE)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses, dtype=torch.float64)


def compiled(backend: str) -> Prepare:
    return lambda model: torch.compile(model, backend=backend, fullgraph=True)


def captured(model: nn.Module) -> nn.Module:
    return stabilize.optimize(model, EXAMPLE)


def of_dynamo(backend: str) -> Prepare:
    return lambda m: torch.compile(m, backend=dynamo.stabilize, fullgraph=True, options={"backend": backend})


EAGER: dict[str, Prepare] = {
    "captured": captured,
    "lazy": stabilize.optimize,
    "backend": of_dynamo("eager"),
}
COMPILED: dict[str, Callable[[str], Prepare]] = {
    "captured, compiled": lambda backend: lambda model: compiled(backend)(captured(model)),
    "backend, chained": of_dynamo,
}


def check(actual: Tensor, reference: Tensor, exact: Tensor, unit: float) -> None:
    """unit: unit roundoff of the format of the loss."""
    own = (reference - exact).abs().max()
    assert own < 64 * unit * exact.abs().max()
    assert ((actual - exact).abs() <= 2 * own + 2 * unit * exact).all(), f"{actual - exact} against {own}"
    assert exact[-1] < 0.6 * exact[0]


def as_it_is(model: nn.Module) -> nn.Module:
    return model


@pytest.mark.parametrize("scale", [1.0, 300.0])
@pytest.mark.parametrize("how", list(EAGER))
def test_the_curve_is_that_of_cross_entropy(how: str, scale: float) -> None:
    exact = curve(made(Reference, scale).double(), as_it_is)
    check(curve(made(Naive, scale), EAGER[how]), curve(made(Reference, scale), as_it_is), exact, 2**-24)
    assert torch.isfinite(curve(made(Naive, scale), as_it_is)).all() == (scale == 1.0)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=NO_COMPILER)])
@pytest.mark.parametrize("how", list(COMPILED))
def test_the_curve_of_a_compiled_model(how: str, backend: str) -> None:
    """Each compiler against itself: the reference is compiled by the same one."""
    exact = curve(made(Reference, 300.0).double(), as_it_is)
    reference = curve(made(Reference, 300.0), compiled(backend))
    check(curve(made(Naive, 300.0), COMPILED[how](backend)), reference, exact, 2**-24)


@pytest.mark.parametrize("how", [*EAGER, *COMPILED])
def test_the_curve_under_autocast(how: str) -> None:
    """In bfloat16, where the loss is written on bfloat16 logits."""
    prepare = EAGER[how] if how in EAGER else COMPILED[how]("aot_eager")
    exact = curve(made(Reference, 300.0).double(), as_it_is)
    reference = curve(made(Reference, 300.0), as_it_is, autocast=True)
    check(curve(made(Naive, 300.0), prepare, autocast=True), reference, exact, 2**-9)
    assert not torch.isfinite(curve(made(Naive, 300.0), as_it_is, autocast=True)).any()

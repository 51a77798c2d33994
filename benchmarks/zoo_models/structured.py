"""Structured prediction, optimal transport, hyperbolic geometry, probability."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from zoo_models.entry import DATA_DEPENDENT, OWN_GRADIENTS, Case, Entry, Function, load


class _Tagged(nn.Module):
    """A conditional random field with the tags of its sentences inside."""

    tags: torch.Tensor

    def __init__(self, field: nn.Module, tags: torch.Tensor, mask: torch.Tensor | None = None) -> None:
        super().__init__()
        self.field = field
        self.register_buffer("tags", tags)
        self.register_buffer("mask", mask)

    def forward(self, emissions: torch.Tensor) -> Any:
        return self.field(emissions, self.tags) if self.mask is None else self.field(emissions, self.tags, self.mask)


def _crf() -> Case:
    tags = torch.randint(4, (6, 3))
    field = _Tagged(load("torchcrf.CRF")(4), tags, torch.ones(6, 3, dtype=torch.bool))
    return Case(field, (torch.randn(6, 3, 4),), (300 * torch.randn(6, 3, 4),))


def _other_crf() -> Case:
    tags = torch.randint(4, (3, 6))
    field = load("TorchCRF.CRF")(4, use_gpu=False)
    return Case(_Tagged(field, tags, torch.ones(3, 6, dtype=torch.bool)), (torch.randn(3, 6, 4),))


def _chain() -> Case:
    distribution = load("torch_struct.LinearChainCRF")
    scores = torch.randn(2, 5, 3, 3)
    return Case(Function(lambda s: distribution(s).partition), (scores,), (200 * scores,))


def _dependencies() -> Case:
    function = load("torch_struct.deptree.deptree_part")
    return Case(Function(lambda s: function(s, True)), (torch.randn(2, 5, 5),))


def _sinkhorn(module: str, **settings: Any) -> Case:
    loss = load("geomloss.SamplesLoss")(module, backend="tensorized", **settings)
    return Case(loss, (torch.rand(10, 2), torch.rand(12, 2)))


def _geometry(method: str, size: float = 0.05, breaking: float | None = None) -> Case:
    ball = load("geoopt.PoincareBall")()
    x, y = size * torch.randn(6, 4), size * torch.randn(6, 4)
    return Case(Function(getattr(ball, method)), (x, y), None if breaking is None else (breaking * x, breaking * y))


def _log_prob(distribution: str, arguments: Callable[[], tuple[torch.Tensor, ...]], value: torch.Tensor,
              breaking: float | None = None) -> Case:  # fmt: skip
    """log p(value) as a function of the parameters too."""
    make = load(distribution)
    given = arguments()
    function = Function(lambda x, *p: make(*p, validate_args=False).log_prob(x))
    return Case(function, (value, *given), None if breaking is None else (breaking * value, *given))


def _zero_inflated() -> Case:
    make = load("pyro.distributions.ZeroInflatedPoisson")
    counts, rate, logits = torch.arange(8.0), _positive(8), torch.randn(8)
    function = Function(lambda x, rate, gate: make(rate, gate_logits=gate, validate_args=False).log_prob(x))
    return Case(function, (counts, rate, logits), (counts, rate, 300 * logits))


def _kernel(name: str) -> Case:
    module = load(f"gpytorch.kernels.{name}")()
    return Case(Function(lambda x: module(x).to_dense()), (torch.randn(6, 3),))


def _transform(name: str, size: float) -> Case:
    function = load(f"gpytorch.utils.transforms.{name}")
    return Case(Function(function), (torch.rand(8) * 0.8 + 0.1,), (size * (torch.rand(8) * 0.8 + 0.1),))


def _improvement() -> Case:
    function = load("botorch.acquisition.analytic._log_ei_helper")
    rows = torch.randn(16)
    function(rows)  # it keeps its constants from the first call on
    return Case(Function(function), (rows,), (60 * rows,))


def _positive(*shape: int) -> torch.Tensor:
    return torch.rand(shape) + 0.5


MODELS = (
    Entry("pytorch-crf", "pytorch-crf", _crf, refused=DATA_DEPENDENT),
    Entry("torchcrf", "TorchCRF", _other_crf),
    Entry("struct-chain", "torch-struct", _chain, refused="a fake tensor"),
    Entry("struct-dependencies", "torch-struct", _dependencies),
    Entry("geomloss-sinkhorn", "geomloss", lambda: _sinkhorn("sinkhorn", blur=0.1, scaling=0.3, diameter=1.5)),
    Entry("geomloss-gaussian", "geomloss", lambda: _sinkhorn("gaussian", blur=0.5), refused=OWN_GRADIENTS),
    Entry("geoopt-distance", "geoopt", lambda: _geometry("dist"), refused=DATA_DEPENDENT),
    Entry("geoopt-logmap", "geoopt", lambda: _geometry("logmap"), refused=DATA_DEPENDENT),
    Entry("geoopt-mobius-add", "geoopt", lambda: _geometry("mobius_add")),
    Entry("pyro-zero-inflated", "pyro-ppl", _zero_inflated),
    Entry("pyro-soft-laplace", "pyro-ppl", lambda: _log_prob("pyro.distributions.SoftLaplace", lambda: (
        torch.randn(8), _positive(8)), torch.randn(8), 300.0)),
    Entry("pyro-von-mises", "pyro-ppl", lambda: _log_prob("torch.distributions.VonMises", lambda: (
        torch.randn(8), _positive(8)), torch.randn(8)), defects=("STB210",)),
    Entry("pyro-overdispersed", "pyro-ppl", lambda: _log_prob(
        "pyro.distributions.LogNormalNegativeBinomial", lambda: (torch.tensor(3.0), torch.randn(8), _positive(8)),
        torch.arange(8.0)), refused=DATA_DEPENDENT),
    Entry("gpytorch-rbf", "gpytorch", lambda: _kernel("RBFKernel"), refused="aten.equal"),
    Entry("gpytorch-matern", "gpytorch", lambda: _kernel("MaternKernel"), refused="aten.equal"),
    Entry("gpytorch-inverse-sigmoid", "gpytorch", lambda: _transform("inv_sigmoid", 1e-9), defects=("STB210",)),
    Entry("gpytorch-inverse-softplus", "gpytorch", lambda: _transform("inv_softplus", 1e-9), defects=("STB212",)),
    Entry("botorch-log-improvement", "botorch", _improvement),
)  # fmt: skip

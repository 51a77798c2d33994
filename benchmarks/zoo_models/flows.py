"""Normalising flows: normflows, nflows, zuko, FrEIA."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from zoo_models.entry import DATA_DEPENDENT, Case, Entry, Function, load


def _flow(path: str, *settings: Any, size: float = 1.0, breaking: float | None = None, **named: Any) -> Case:
    module = load(path)(*settings, **named)
    rows = torch.randn(6, 4)
    return Case(module, (size * rows,), None if breaking is None else (breaking * rows,))


def _saturated_planar() -> Case:
    """A planar flow whose u·w is 192: exp(192) is beyond float32."""
    module = load("normflows.flows.Planar")((4,), u=torch.full((1, 4), 12.0), w=torch.full((1, 4), 4.0))
    rows = torch.randn(6, 4)
    return Case(module, (0.01 * rows,), (0.01 * rows,))


def _log_prob(path: str, breaking: float | None = None) -> Case:
    target = load(path)()
    rows = torch.randn(6, 2)
    return Case(Function(target.log_prob), (rows,), None if breaking is None else (breaking * rows,))


def _real_nvp() -> Case:
    import normflows

    layers: list[nn.Module] = []
    for i in range(4):
        b = torch.tensor([float((i + j) % 2) for j in range(4)])
        nets = [normflows.nets.MLP([4, 16, 4], init_zeros=False) for _ in range(2)]
        layers += [normflows.flows.MaskedAffineFlow(b, *nets), normflows.flows.ActNorm(4)]
    model = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(4), layers)
    return Case(Function(model.log_prob), (torch.randn(6, 4),))


def _neural_spline() -> Case:
    import normflows

    flow = normflows.flows.CoupledRationalQuadraticSpline(4, 1, 16)
    return Case(flow, (torch.randn(6, 4),))


def _autoregressive(path: str, **settings: Any) -> Case:
    module = load(path)(features=4, hidden_features=16, **settings)
    return Case(module, (torch.randn(6, 4),))


def _zuko(name: str) -> Case:
    flow = load(f"zuko.flows.{name}")(4, transforms=2, hidden_features=(16, 16))
    return Case(_LogProb(flow), (torch.randn(6, 4),))


class _LogProb(nn.Module):
    def __init__(self, flow: nn.Module) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: torch.Tensor) -> Any:
        return self.flow().log_prob(x)


class _Freia(nn.Module):
    """An invertible module of FrEIA, which takes and gives lists."""

    def __init__(self, path: str, *settings: Any, **named: Any) -> None:
        super().__init__()
        self.block = load(path)(*settings, **named)

    def forward(self, x: torch.Tensor) -> Any:
        (result,), log_determinant = self.block([x])
        return result, log_determinant


def _freia(path: str, breaking: float | None, *settings: Any, **named: Any) -> Case:
    rows = torch.randn(6, 4)
    return Case(_Freia(path, [(4,)], *settings, **named), (rows,), None if breaking is None else (breaking * rows,))


def _coupling() -> Case:
    return _freia("FrEIA.modules.AllInOneBlock", None, subnet_constructor=lambda a, b: nn.Linear(a, b))


def _mixture_density() -> Case:
    loss = load("FrEIA.modules.GaussianMixtureModel").nll_loss
    weights = torch.rand(6, 3).softmax(-1)
    z = torch.randn(6, 3, 4)
    return Case(Function(loss), (weights, z, torch.randn(6, 3)), (weights, 20 * z, torch.randn(6, 3)))


MODELS = (
    Entry("normflows-planar", "normflows",
          lambda: _flow("normflows.flows.Planar", (4,)), defects=("STB105", "STB203"),
          onnx=True, onnx_codes=("STB203",),  # torch.onnx folds what depends on parameters alone
          ),
    Entry("normflows-planar-saturated", "normflows", _saturated_planar, defects=("STB105", "STB203")),
    Entry("normflows-radial", "normflows", lambda: _flow("normflows.flows.Radial", (4,)), defects=("STB105", "STB210")),
    Entry("normflows-two-moons", "normflows",
          lambda: _log_prob("normflows.distributions.TwoMoons"), defects=("STB210",)),
    Entry("normflows-real-nvp", "normflows", _real_nvp, refused=DATA_DEPENDENT),
    Entry("normflows-spline", "normflows", _neural_spline, refused=DATA_DEPENDENT),
    Entry("nflows-tanh", "nflows", lambda: _flow("nflows.transforms.Tanh", breaking=20.0),
          onnx=True, defects=("STB213",)),
    Entry("nflows-log-tanh", "nflows", lambda: _flow("nflows.transforms.LogTanh"), defects=("STB210",)),
    Entry("nflows-sigmoid", "nflows", lambda: _flow("nflows.transforms.Sigmoid")),
    Entry("nflows-cauchy", "nflows", lambda: _flow("nflows.transforms.nonlinearities.CauchyCDF"), defects=("STB210",)),
    Entry("nflows-maf", "nflows",
          lambda: _autoregressive("nflows.transforms.MaskedAffineAutoregressiveTransform")),
    Entry("nflows-spline", "nflows", lambda: _autoregressive(
        "nflows.transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform", tails="linear", num_bins=4),
        refused=DATA_DEPENDENT),
    Entry("zuko-maf", "zuko", lambda: _zuko("MAF"), onnx=True),
    Entry("zuko-nsf", "zuko", lambda: _zuko("NSF")),
    Entry("freia-sigmoid", "FrEIA",
          lambda: _freia("FrEIA.modules.InvertibleSigmoid", 200.0), onnx=True, defects=("STB202", "STB203")),
    Entry("freia-all-in-one", "FrEIA", _coupling),
    Entry("freia-mixture", "FrEIA", _mixture_density, defects=("STB104",), onnx=True,
          onnx_codes=("STB205",)),
)  # fmt: skip

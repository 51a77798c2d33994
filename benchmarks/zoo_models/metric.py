"""Metric and self-supervised learning: pytorch-metric-learning, lightly; losses of torchmetrics."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from zoo_models.entry import DATA_DEPENDENT, Case, Entry, Function, load


class Labelled(nn.Module):
    """A loss with its labels, which choose what is computed, kept inside: a graph of the embeddings alone."""

    labels: torch.Tensor

    def __init__(self, loss: nn.Module, labels: torch.Tensor) -> None:
        super().__init__()
        self.loss = loss
        self.register_buffer("labels", labels)

    def forward(self, embeddings: torch.Tensor) -> Any:
        return self.loss(embeddings, self.labels)


def _metric(loss: str, **settings: Any) -> Case:
    """Twelve embeddings of four classes, each (16,)."""
    module = load(f"pytorch_metric_learning.losses.{loss}")(**settings)
    return Case(Labelled(module, torch.arange(4).repeat(3)), (torch.randn(12, 16),))


def _classified(loss: str, **settings: Any) -> Case:
    return _metric(loss, num_classes=4, embedding_size=16, **settings)


def _views(loss: str, **settings: Any) -> Case:
    """Two views of eight images, each (8, 16)."""
    return Case(load(f"lightly.loss.{loss}")(**settings), (torch.randn(8, 16), torch.randn(8, 16)))


def _dcl() -> Case:
    """At a temperature where exp(1 / temperature) is beyond float32."""
    return _views("DCLLoss", temperature=0.005)


def _swav() -> Case:
    def assign(out: torch.Tensor) -> Any:
        return load("lightly.loss.swav_loss.sinkhorn")(out, iterations=3, epsilon=0.05)

    return Case(Function(assign), (torch.rand(8, 5),), (9 * torch.rand(8, 5),))


def _msn() -> Case:
    module = load("lightly.loss.MSNLoss")(temperature=0.1, sinkhorn_iterations=0)
    return Case(module, (torch.randn(8, 16), torch.randn(8, 16), torch.randn(6, 16)))


def _torchmetrics(function: str, *inputs: torch.Tensor, breaking: tuple[torch.Tensor, ...] | None = None) -> Case:
    return Case(Function(load(f"torchmetrics.functional.{function}")), inputs, breaking)


def _log_cosh() -> Case:
    inputs = torch.randn(16), torch.randn(16)
    return _torchmetrics("regression.log_cosh_error", *inputs, breaking=(200 * inputs[0], inputs[1]))


def _distributions(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(shape).softmax(-1), torch.rand(shape).softmax(-1)


MODELS = (
    Entry("pml-circle", "pytorch-metric-learning", lambda: _metric("CircleLoss"), refused=DATA_DEPENDENT),
    Entry("pml-multi-similarity", "pytorch-metric-learning",
          lambda: _metric("MultiSimilarityLoss"), refused=DATA_DEPENDENT),
    Entry("pml-nt-xent", "pytorch-metric-learning",
          lambda: _metric("NTXentLoss", temperature=0.07), refused=DATA_DEPENDENT, defects=("STB104", "STB105")),
    Entry("pml-proxy-anchor", "pytorch-metric-learning",
          lambda: _classified("ProxyAnchorLoss"), refused=DATA_DEPENDENT),
    Entry("lightly-barlow-twins", "lightly", lambda: _views("BarlowTwinsLoss")),
    Entry("lightly-dcl", "lightly", _dcl, refused=DATA_DEPENDENT),
    Entry("lightly-hypersphere", "lightly", lambda: _views("hypersphere_loss.HypersphereLoss"), defects=("STB103",)),
    Entry("lightly-msn", "lightly", _msn),
    Entry("lightly-nt-xent", "lightly", lambda: _views("NTXentLoss", temperature=0.1), onnx=True),
    Entry("lightly-swav-sinkhorn", "lightly", _swav, defects=("STB101", "STB102"), onnx=True, onnx_codes=("STB102",)),
    Entry("lightly-vicreg", "lightly", lambda: _views("VICRegLoss"), defects=("STB221",)),
    Entry("torchmetrics-log-cosh", "torchmetrics", _log_cosh, onnx=True, defects=("STB105",)),
    Entry("torchmetrics-kl", "torchmetrics", lambda: _torchmetrics("regression.kl_divergence", *_distributions(6, 5))),
    Entry("torchmetrics-js", "torchmetrics",
          lambda: _torchmetrics("regression.jensen_shannon_divergence", *_distributions(6, 5))),
    Entry("torchmetrics-perplexity", "torchmetrics",
          lambda: _torchmetrics("text.perplexity", torch.randn(2, 8, 5), torch.randint(5, (2, 8))),
          defects=("STB431",)),
    Entry("torchmetrics-ssim", "torchmetrics", lambda: _torchmetrics(
        "image.structural_similarity_index_measure", torch.rand(2, 1, 16, 16), torch.rand(2, 1, 16, 16))),
)  # fmt: skip

"""Graph networks and knowledge graphs: torch_geometric."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from zoo_models.entry import DROPPED, Case, Entry, Function, Method, load

#: Ten nodes, thirty edges.
_NODES, _EDGES = 10, 30


def _edges() -> torch.Tensor:
    """(2, 30), int64."""
    return torch.randint(0, _NODES, (2, _EDGES))


class Stack(nn.Module):
    """Two layers of one kind with a ReLU between them."""

    def __init__(self, layer: str, **settings: Any) -> None:
        super().__init__()
        make = load(f"torch_geometric.nn.{layer}")
        self.first, self.second = make(8, 8, **settings), make(8, 8, **settings)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> Any:
        return self.second(self.first(x, edges).relu(), edges)


def _layers(layer: str, **settings: Any) -> Case:
    return Case(Stack(layer, **settings), (torch.randn(_NODES, 8), _edges()))


def _gae() -> Case:
    coder = load("torch_geometric.nn.GAE")(nn.Identity())
    edges = _edges(), _edges()
    return Case(
        Function(lambda z: coder.recon_loss(z, *edges)), (torch.randn(_NODES, 4),), (20 * torch.randn(_NODES, 4),)
    )


def _vgae() -> Case:
    coder = load("torch_geometric.nn.VGAE")(nn.Identity())
    return Case(Function(coder.kl_loss), (torch.randn(_NODES, 4), torch.randn(_NODES, 4)))


def _arga() -> Case:
    coder = load("torch_geometric.nn.ARGA")(nn.Identity(), nn.Linear(4, 1))
    return Case(Function(coder.discriminator_loss), (torch.randn(_NODES, 4),), (300 * torch.randn(_NODES, 4),))


def _infomax() -> Case:
    module = Method("torch_geometric.nn.DeepGraphInfomax.loss", weight=nn.Parameter(torch.randn(4, 4)))
    discriminate = load("torch_geometric.nn.DeepGraphInfomax").discriminate
    module.discriminate = lambda z, summary, sigmoid=True: discriminate(module, z, summary, sigmoid)
    rows = torch.randn(_NODES, 4), torch.randn(_NODES, 4), torch.randn(4)
    return Case(module, rows, tuple(2 * t for t in rows))


def _node2vec() -> Case:
    module = Method("torch_geometric.nn.Node2Vec.loss", embedding=nn.Embedding(_NODES, 4), embedding_dim=4, EPS=1e-15)
    walks = torch.randint(0, _NODES, (6, 5)), torch.randint(0, _NODES, (6, 5))
    return Case(module, walks)


def _restricted() -> Case:
    function = load("torch_geometric.nn.conv.dna_conv.restricted_softmax")
    return Case(Function(function), (torch.randn(6, 5),), (200 * torch.randn(6, 5),))


def _diff_pool() -> Case:
    adjacency = torch.randint(0, 2, (2, 8, 8)).float()
    function = load("torch_geometric.nn.dense_diff_pool")
    return Case(Function(function), (torch.randn(2, 8, 4), adjacency, torch.randn(2, 8, 3)))


def _aggregation(name: str, **settings: Any) -> Case:
    module = load(f"torch_geometric.nn.aggr.{name}")(**settings)
    index = torch.arange(4).repeat_interleave(3)
    return Case(Function(lambda x: module(x, index, dim_size=4)), (torch.randn(12, 4),), (200 * torch.randn(12, 4),))


def _schnet() -> Case:
    module = load("torch_geometric.nn.SchNet")(hidden_channels=16, num_filters=16, num_interactions=2, num_gaussians=8)
    filters = module.interactions[0], module.distance_expansion
    module = Function(lambda h, edges, d: filters[0](h, edges, d, filters[1](d)))
    return Case(module, (torch.randn(_NODES, 16), _edges(), torch.rand(_EDGES) * 4))


MODELS = (
    Entry("pyg-gcn", "torch_geometric", lambda: _layers("GCNConv", add_self_loops=False), onnx=True),
    Entry("pyg-gat", "torch_geometric", lambda: _layers("GATConv", add_self_loops=False)),
    Entry("pyg-gatv2", "torch_geometric", lambda: _layers("GATv2Conv", add_self_loops=False)),
    Entry("pyg-transformer", "torch_geometric", lambda: _layers("TransformerConv")),
    Entry("pyg-sage", "torch_geometric", lambda: _layers("SAGEConv")),
    Entry("pyg-gen", "torch_geometric", lambda: _layers("GENConv")),
    Entry("pyg-gae", "torch_geometric", _gae, defects=("STB218",), onnx=True, onnx_codes=("STB202",), note=DROPPED),
    Entry("pyg-vgae-kl", "torch_geometric", _vgae),
    Entry("pyg-arga", "torch_geometric", _arga, defects=("STB218",)),
    Entry("pyg-infomax", "torch_geometric", _infomax, defects=("STB218",)),
    Entry("pyg-node2vec", "torch_geometric", _node2vec, defects=("STB218",)),
    Entry("pyg-dna-softmax", "torch_geometric", _restricted),
    Entry("pyg-diff-pool", "torch_geometric", _diff_pool),
    Entry("pyg-softmax-aggregation", "torch_geometric", lambda: _aggregation("SoftmaxAggregation", t=1.0)),
    Entry("pyg-power-mean", "torch_geometric", lambda: _aggregation("PowerMeanAggregation", p=2.0)),
    Entry("pyg-schnet", "torch_geometric", _schnet),
)

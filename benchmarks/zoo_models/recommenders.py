"""Recommenders: losses and attentions of RecBole, click models of DeepCTR."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from zoo_models.entry import DROPPED, Case, Entry, Method, load

_GENERAL = "recbole.model.general_recommender"
_KNOWLEDGE = "recbole.model.knowledge_aware_recommender"


def _pairs(size: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of the positive and of the negative item, each (64,)."""
    return size * torch.randn(64), size * torch.randn(64)


def _loss(path: str) -> Case:
    return Case(load(path)(), _pairs(1.0), _pairs(200.0))


def _line() -> Case:
    sign = torch.tensor([1.0, -1.0]).repeat(32)
    return Case(load(f"{_GENERAL}.line.NegSamplingLoss")(), (sign, torch.randn(64)), (sign, 200 * torch.randn(64)))


def _sgl(temperature: float) -> Case:
    rows = torch.arange(6)
    tables = tuple(torch.randn(12, 8) for _ in range(4))
    module = Method(f"{_GENERAL}.sgl.SGL.calc_ssl_loss", ssl_tau=temperature, ssl_weight=0.1)
    return Case(module, (rows, rows, *tables))


def _ncl() -> Case:
    """At a temperature where exp(1 / temperature) is beyond float32."""
    module = Method(f"{_GENERAL}.ncl.NCL.ssl_layer_loss", n_users=10, n_items=12, ssl_temp=0.005, ssl_reg=1e-2,
                    alpha=1.0)  # fmt: skip
    inputs = (torch.randn(22, 8), torch.randn(22, 8), torch.arange(5), torch.arange(5))
    return Case(module, inputs, inputs)


def _macrid() -> Case:
    module = Method(
        f"{_GENERAL}.macridvae.MacridVAE.forward", drop_out=0.5, nogb=True, kfac=3, tau=0.005, embedding_size=8,
        item_embedding=nn.Embedding(20, 8), k_embedding=nn.Embedding(3, 8), encoder=nn.Linear(20, 16),
        reparameterize=lambda mu, logvar: mu,
    )  # fmt: skip
    inputs = (torch.randint(0, 2, (4, 20)).float(),)
    return Case(module, inputs, inputs)


def _nais() -> Case:
    module = Method(f"{_GENERAL}.nais.NAIS.mask_softmax", beta=0.5, alpha=0.5)
    mask = torch.ones(4, 7)
    mask[:, 5:] = 0
    rest = (torch.randn(4), torch.full((4, 1), 5.0), mask)
    return Case(
        module, (torch.randn(4, 7), torch.randn(4, 7), *rest), (torch.randn(4, 7), 40 * torch.randn(4, 7), *rest)
    )


def _simplex() -> Case:
    module = Method(f"{_GENERAL}.simplex.SimpleX.get_UI_aggregation", aggregator="user_attention", gamma=0.5,
                    W_k=nn.Linear(8, 8), UI_map=nn.Linear(8, 8, bias=False))  # fmt: skip
    length = torch.full((4,), 7.0)
    return Case(
        module,
        (torch.randn(4, 8), torch.randn(4, 7, 8), length),
        (60 * torch.randn(4, 8), 9 * torch.randn(4, 7, 8), length),
    )


def _mcclk() -> Case:
    def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return F.normalize(a) @ F.normalize(b).T

    module = Method(f"{_KNOWLEDGE}.mcclk.MCCLK.local_level_loss", temperature=0.005, sim=cosine, fc1=nn.Linear(8, 8))
    inputs = (torch.randn(6, 8), torch.randn(6, 8))
    return Case(module, inputs, inputs)


def _click(model: str, **settings: Any) -> Case:
    """A DeepCTR model over three categorical fields and two numbers."""
    inputs = load("deepctr_torch.inputs.SparseFeat"), load("deepctr_torch.inputs.DenseFeat")
    columns = [inputs[0](f"c{i}", 10, embedding_dim=4) for i in range(3)] + [inputs[1](f"d{i}", 1) for i in range(2)]
    deep = columns[:3] if model == "AFM" else columns  # which takes no numbers there
    module = load(f"deepctr_torch.models.{model}")(columns, deep, **settings)
    return Case(module, (torch.cat([torch.randint(0, 10, (5, 3)).float(), torch.randn(5, 2)], 1),))


def _din() -> Case:
    """Deep interest network: attention over a history of seven items, the last ones padding."""
    sparse, sequence = load("deepctr_torch.inputs.SparseFeat"), load("deepctr_torch.inputs.VarLenSparseFeat")
    columns = [
        sparse("user", 10, embedding_dim=4),
        sparse("item", 10, embedding_dim=4),
        sequence(sparse("hist_item", 10, embedding_dim=4, embedding_name="item"), 7, length_name="seq_length"),
    ]
    module = load("deepctr_torch.models.DIN")(columns, ["item"], att_weight_normalization=True)
    history = torch.randint(1, 10, (5, 7))
    history[:, 4:] = 0
    return Case(module, (torch.cat([torch.randint(1, 10, (5, 2)), history, torch.full((5, 1), 4)], 1).float(),))


_NAIS = (
    "exp(x)·mask / (Σ exp(x)·mask)^½: finite, but not found. The mask is a float input, which may be 0 wherever x is "
    "large, so that no shift by the maximum of x is safe."
)
_MCCLK = (
    "−log(eᵈ / (Σ eˢ − eᵐ)) where eᵐ is the largest term of the sum: the subtraction cancels, in float64 as well. The "
    "diagonal should be left out of the sum."
)

MODELS = (
    Entry(
        "recbole-bpr",
        "recbole",
        lambda: _loss("recbole.model.loss.BPRLoss"),
        onnx=True,
        onnx_codes=("STB202",),
        note=DROPPED,
    ),
    Entry("recbole-line", "recbole", _line, onnx=True, defects=("STB202",)),
    Entry(
        "recbole-convncf",
        "recbole",
        lambda: _loss(f"{_GENERAL}.convncf.ConvNCFBPRLoss"),
        onnx=True,
        defects=("STB201",),
    ),
    Entry("recbole-sgl", "recbole", lambda: _sgl(0.005), defects=("STB103",)),
    Entry("recbole-ncl", "recbole", _ncl, defects=("STB103",), onnx=True),
    Entry("recbole-macridvae", "recbole", _macrid, defects=("STB102",)),
    Entry("recbole-nais", "recbole", _nais, note=_NAIS),
    Entry("recbole-simplex", "recbole", _simplex, defects=("STB104",)),
    Entry("recbole-mcclk", "recbole", _mcclk, note=_MCCLK),
    Entry("deepctr-deepfm", "deepctr-torch", lambda: _click("DeepFM")),
    Entry("deepctr-autoint", "deepctr-torch", lambda: _click("AutoInt")),
    Entry("deepctr-afm", "deepctr-torch", lambda: _click("AFM")),
    Entry("deepctr-afn", "deepctr-torch", lambda: _click("AFN")),
    Entry("deepctr-xdeepfm", "deepctr-torch", lambda: _click("xDeepFM")),
    Entry("deepctr-din", "deepctr-torch", _din, defects=("STB218",)),
)

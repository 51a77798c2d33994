"""torch.nn's own modules, small networks of them, and their fused operators decomposed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lint_cases.entry import Tensors, bits, classes, normal
from torch import Tensor, nn

from lint_clean.entry import Formula, Healthy, seeded

torch.manual_seed(0)
X, Z, IMAGE, SEQUENCE = normal(4, 8), normal(4, 8), normal(2, 3, 8, 8), normal(2, 6, 16)

_ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Softplus, nn.Softsign, nn.Tanh, nn.Sigmoid, nn.LogSigmoid, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh,
    nn.Tanhshrink, nn.Softshrink, nn.Hardshrink, nn.GLU,
)  # fmt: skip

_NORMS: tuple[tuple[Callable[[], nn.Module], Tensor], ...] = (
    (lambda: nn.LayerNorm(8), X),
    (lambda: nn.RMSNorm(8), X),
    (lambda: nn.BatchNorm1d(8), X),
    (lambda: nn.BatchNorm2d(3), IMAGE),
    (lambda: nn.GroupNorm(3, 3), IMAGE),
    (lambda: nn.InstanceNorm2d(3), IMAGE),
    (lambda: nn.LocalResponseNorm(2), IMAGE),
    (lambda: nn.Softmax(-1), X),
    (lambda: nn.LogSoftmax(-1), X),
    (lambda: nn.Softmin(-1), X),
    (lambda: nn.Softmax2d(), IMAGE),
)

_PAIRS: tuple[tuple[Callable[[], nn.Module], Tensors], ...] = (
    (nn.CrossEntropyLoss, (X, classes(4, below=8))),
    (lambda: nn.CrossEntropyLoss(label_smoothing=0.1), (X, classes(4, below=8))),
    (nn.BCEWithLogitsLoss, (X, bits(4, 8))),
    (nn.MSELoss, (X, Z)),
    (nn.L1Loss, (X, Z)),
    (nn.SmoothL1Loss, (X, Z)),
    (nn.HuberLoss, (X, Z)),
    (nn.MultiLabelSoftMarginLoss, (X, bits(4, 8))),
    (nn.HingeEmbeddingLoss, (X, bits(4, 8) * 2 - 1)),
    (nn.MultiMarginLoss, (X, classes(4, below=8))),
    (nn.CosineSimilarity, (X, Z)),
    (nn.PairwiseDistance, (X, Z)),
    (nn.CosineEmbeddingLoss, (X, Z, bits(4) * 2 - 1)),
    (nn.MarginRankingLoss, (X[0], Z[0], bits(8) * 2 - 1)),
    (nn.TripletMarginLoss, (X, Z, normal(4, 8))),
    (lambda: nn.Bilinear(8, 8, 3), (X, Z)),
)

_NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensors]] = {
    "perceptron": (lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 5)), (X,)),
    "deep perceptron": (
        lambda: nn.Sequential(*(layer for _ in range(6) for layer in (nn.Linear(8, 8), nn.GELU())), nn.Linear(8, 2)),
        (X,),
    ),
    "autoencoder": (
        lambda: nn.Sequential(nn.Linear(8, 3), nn.SiLU(), nn.Linear(3, 8), nn.Sigmoid()),
        (X,),
    ),
    "classifier of images": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5),
            nn.LogSoftmax(-1),
        ),
        (IMAGE,),
    ),
    "depthwise convolutions": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 1), nn.Hardswish(), nn.Conv2d(6, 6, 3, groups=6), nn.GroupNorm(2, 6),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2),
        ),
        (IMAGE,),
    ),
    "decoder of images": (
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 2, 2), nn.InstanceNorm2d(4), nn.Tanh(),
        nn.Upsample(scale_factor=2)),
        (IMAGE,),
    ),
    "convolution of time": (
        lambda: nn.Sequential(nn.Conv1d(6, 4, 3), nn.BatchNorm1d(4), nn.ELU(), nn.AvgPool1d(2)), (SEQUENCE,),
    ),
    "convolution of volumes": (lambda: nn.Sequential(nn.Conv3d(2, 3, 2), nn.ReLU(), nn.AvgPool3d(2)),
                               (normal(1, 2, 5, 5, 5),)),
    "LSTM": (lambda: nn.LSTM(16, 8, batch_first=True), (SEQUENCE,)),
    "two-way LSTM": (lambda: nn.LSTM(16, 8, 2, batch_first=True, bidirectional=True), (SEQUENCE,)),
    "GRU": (lambda: nn.GRU(16, 8, batch_first=True), (SEQUENCE,)),
    "RNN": (lambda: nn.RNN(16, 8, batch_first=True), (SEQUENCE,)),
    "LSTM cell": (lambda: nn.LSTMCell(8, 4), (X,)),
    "GRU cell": (lambda: nn.GRUCell(8, 4), (X,)),
    "self-attention": (lambda: SelfAttention(), (SEQUENCE,)),
    "encoder layer": (lambda: nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), (SEQUENCE,)),
    "encoder layer, norm first": (
        lambda: nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True), (SEQUENCE,),
    ),
    "decoder layer": (lambda: nn.TransformerDecoderLayer(16, 2, 32, batch_first=True), (SEQUENCE, normal(2, 4, 16))),
    "transformer": (
        lambda: nn.Transformer(16, 2, 1, 1, 32, batch_first=True), (SEQUENCE, normal(2, 4, 16)),
    ),
    "language model": (lambda: LanguageModel(), (classes(2, 6, below=20),)),
    "embedding bag": (lambda: nn.EmbeddingBag(20, 4), (classes(2, 6, below=20),)),
    "pixel shuffle": (lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.PixelShuffle(2)), (IMAGE,)),
    "patches": (lambda: nn.Unfold(2), (IMAGE,)),
}  # fmt: skip

_TRAINING = ("perceptron", "classifier of images", "convolution of time", "GRU", "language model")
_HALVES = ("perceptron", "self-attention", "encoder layer", "encoder layer, norm first", "LSTM")
_WIDE = (-8.0, 8.0)


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class LanguageModel(nn.Module):
    """Tokens to logits, with its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(20, 16), nn.Linear(16, 20)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True, norm_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        mask = torch.full((5, 5), -torch.inf).triu(1)
        logits = self.head(self.layer(self.embedding(tokens[:, :-1]), src_mask=mask))
        return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def _named(make: Callable[[], nn.Module]) -> str:
    module = make()
    extra = module.extra_repr()
    return type(module).__name__ + (f"({extra})" if extra else "")


def decomposed(function: Callable[..., Any], *inputs: Tensor) -> Callable[[], tuple[Any, None]]:
    """As `run_decompositions()` of an exported program leaves it: elementary operators, stable
    spellings. (That of mish, x·tanh(log1p(eˣ)), is naive, and left out.)"""

    def made() -> tuple[Any, None]:
        module = function if isinstance(function, nn.Module) else Formula(function)
        program = torch.export.export(module.eval(), inputs)
        return program.run_decompositions(torch.export.default_decompositions()), None

    return made


def _to_decompose() -> list[tuple[str, Callable[..., Any], Tensors]]:
    f = nn.functional
    heads = normal(1, 2, 6, 8)
    labels, ones = classes(4, below=8), bits(4, 8)
    return [
        ("softmax", lambda x: f.softmax(x, -1), (X,)),
        ("log_softmax", lambda x: f.log_softmax(x, -1), (X,)),
        ("logsumexp", lambda x: torch.logsumexp(x, -1), (X,)),
        ("cross_entropy", lambda x: f.cross_entropy(x, labels), (X,)),
        ("binary_cross_entropy_with_logits", lambda x: f.binary_cross_entropy_with_logits(x, ones), (X,)),
        ("softplus", lambda x: f.softplus(x), (X,)),
        ("logsigmoid", lambda x: f.logsigmoid(x), (X,)),
        ("silu", lambda x: f.silu(x), (X,)),
        ("gelu", lambda x: f.gelu(x), (X,)),
        ("elu", lambda x: f.elu(x), (X,)),
        ("selu", lambda x: f.selu(x), (X,)),
        ("layer_norm", lambda x: f.layer_norm(x, (8,)), (X,)),
        ("rms_norm", lambda x: f.rms_norm(x, (8,), eps=1e-6), (X,)),
        ("group_norm", lambda x: f.group_norm(x, 3), (IMAGE,)),
        ("instance_norm", lambda x: f.instance_norm(x), (IMAGE,)),
        ("normalize", lambda x: f.normalize(x, dim=-1), (X,)),
        ("cosine_similarity", lambda x, z: f.cosine_similarity(x, z), (X, Z)),
        ("attention", lambda q: f.scaled_dot_product_attention(q, q, q), (heads,)),
        ("causal attention", lambda q: f.scaled_dot_product_attention(q, q, q, is_causal=True), (heads,)),
        ("variance", lambda x: torch.var(x, -1), (X,)),
        ("huber_loss", lambda x, z: f.huber_loss(x, z), (X, Z)),
        ("encoder layer", nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), (SEQUENCE,)),
    ]


def entries() -> list[Healthy]:
    """All of them."""
    found = [Healthy(k.__name__, "torch.nn: activations", seeded(k, X)) for k in _ACTIVATIONS]
    found += [Healthy(_named(make), "torch.nn: normalisation", seeded(make, x)) for make, x in _NORMS]
    found += [Healthy(_named(make), "torch.nn: losses", seeded(make, *xs)) for make, xs in _PAIRS]
    found += [Healthy(name, "torch.nn: networks", seeded(make, *xs)) for name, (make, xs) in _NETWORKS.items()]
    for name in _TRAINING:
        make, xs = _NETWORKS[name]
        found.append(Healthy(f"{name}, training", "torch.nn: networks", seeded(make, *xs, train=True)))
    for name in _HALVES:
        make, xs = _NETWORKS[name]
        half = seeded(make, *xs, half=True)
        given = {"input": _WIDE} if name in ("perceptron", "LSTM") else {"x" if "self" in name else "src": _WIDE}
        found.append(Healthy(f"{name}, float16", "torch.nn: networks", half, given))
    found += [Healthy(name, "decomposed", decomposed(function, *xs)) for name, function, xs in _to_decompose()]
    return found

"""Models of `half_precision.py`: seeded, exported by torch.onnx, with inputs to calibrate and others to judge on."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn import functional as F

Inputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class Subject:
    """A model in float32, and what makes inputs of it from a seed."""

    name: str
    module: Callable[[], nn.Module]
    inputs: Callable[[np.random.Generator], Inputs]

    def exported(self) -> onnx.ModelProto:
        torch.manual_seed(0)
        module = self.module().eval()
        example = {n: torch.as_tensor(a) for n, a in self.inputs(np.random.default_rng(0)).items()}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.onnx")
            torch.onnx.export(module, kwargs=example, f=path, dynamo=True, verbose=False, external_data=False)
            return onnx.load(path)


def floats(generator: np.random.Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (scale * generator.normal(size=shape)).astype(np.float32)


class Attention(nn.Module):
    """Attention with a mask that a number stands for; `fill` says which."""

    def __init__(self, width: int, fill: float, additive: bool) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fill, self.additive = fill, additive

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
        if self.additive:
            scores = scores + (1.0 - mask[:, None, :]) * self.fill
        else:
            scores = torch.where(mask[:, None, :] > 0, scores, self.fill)
        return self.out(torch.softmax(scores, -1) @ v)


class Transformer(nn.Module):
    def __init__(self, fill: float, additive: bool, width: int = 128, layers: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(500, width)
        self.attention = nn.ModuleList(Attention(width, fill, additive) for _ in range(layers))
        self.feed = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            for _ in range(layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.head = nn.Linear(width, 500)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        for attention, feed, norm in zip(self.attention, self.feed, self.norms, strict=True):
            x = x + attention(norm(x), mask)
            x = x + feed(x)
        return F.log_softmax(self.head(x), -1)


def tokens(generator: np.random.Generator) -> Inputs:
    mask = np.ones((2, 32), np.float32)
    mask[:, int(generator.integers(20, 31)) :] = 0
    return {"ids": generator.integers(0, 500, (2, 32)), "mask": mask}


class NaiveHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
        self.head = nn.Linear(256, 100)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        e = torch.exp(60 * self.head(self.body(x)))
        return e / e.sum(-1, keepdim=True)


class RmsTower(nn.Module):
    """RMS normalisation by hand between layers whose activations reach thousands."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(4))
        self.scales = nn.ParameterList(torch.full((width,), 40.0) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer, scale in zip(self.layers, self.scales, strict=True):
            normal = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * scale
            x = x + 20 * F.silu(layer(normal))
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class NormTower(nn.Module):
    """LayerNorm on activations far from 0, and with a large offset."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width)) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = 500.0 * x + 2000.0
        for layer in self.layers:
            x = x + 100.0 * F.gelu(layer(x))
        return F.layer_norm(x, x.shape[-1:])


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(((3, 16), (16, 32), (32, 32), (32, 64))):
            layers += [nn.Conv2d(a, b, 3, 1 + i % 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(64, 10)
        for each in self.body:
            if isinstance(each, nn.BatchNorm2d):
                each.running_mean.normal_()
                each.running_var.uniform_(1e-4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.head(self.body(x).mean((2, 3))), -1)


class Vae(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(128, 64), nn.Sequential(nn.Linear(32, 128), nn.Sigmoid())

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, spread = (6 * self.encode(x)).chunk(2, -1)
        z = mean + torch.exp(0.5 * spread) * noise
        divergence = 0.5 * (mean.square() + torch.exp(spread) - 1 - spread).sum(-1)
        return self.decode(z / 10), divergence


class CrossEntropyHead(nn.Module):
    """Cross-entropy with a z-loss, a forbidden class at −1e5 and a normaliser of 1e-9."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 1000)
        self.register_buffer("forbidden", torch.where(torch.arange(1000) % 50 == 0, -1e5, 0.0))

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = 8 * self.head(x) + self.forbidden
        lse = torch.logsumexp(z, -1)
        loss = lse - z.gather(-1, target[:, None])[:, 0] + 1e-4 * lse.square()
        weight = (target > 500).float()
        return loss, (loss * weight).sum() / (weight.sum() + 1e-9)


class Rotary(nn.Module):
    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(width, width), nn.Linear(width, width)
        self.register_buffer("frequencies", 10000.0 ** -(torch.arange(0, width, 2) / width))

    def turned(self, x: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
        a, b = x.chunk(2, -1)
        return torch.cat((a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()), -1)

    def forward(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        angle = positions[:, None].float() * self.frequencies
        q, k = self.turned(self.q(x), angle), self.turned(self.k(x), angle)
        return torch.softmax(q @ k.transpose(-1, -2), -1) @ x


class Cosine(nn.Module):
    """Similarities of embeddings, of which some are all but 0, at temperature 0.02."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(64, 64, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.project(x)
        y = y / (y.square().sum(-1, keepdim=True) + 1e-12).sqrt()
        return torch.log_softmax(y @ y.transpose(0, 1) / 0.02, -1)


class LongMean(nn.Module):
    """Statistics of 4096 frames: mean, deviation."""

    def __init__(self) -> None:
        super().__init__()
        self.frame, self.head = nn.Linear(16, 64), nn.Linear(128, 20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.frame(x)) + 10
        mean = y.mean(1)
        deviation = ((y - mean[:, None]).square().sum(1) / 4095).sqrt()
        return self.head(torch.cat((mean, 100 * deviation), -1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.GRU(32, 64, batch_first=True), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x)[0])


_LEAST = float(torch.finfo(torch.float32).min)

SUBJECTS = (
    Subject("transformer, mask −1e9", lambda: Transformer(-1e9, True), tokens),
    Subject("transformer, mask finfo.min", lambda: Transformer(_LEAST, False), tokens),
    Subject("naive softmax head", NaiveHead, lambda g: {"x": floats(g, 16, 64)}),
    Subject("RMSNorm, large activations", RmsTower, lambda g: {"x": floats(g, 16, 256, scale=300)}),
    Subject("LayerNorm, large activations", NormTower, lambda g: {"x": floats(g, 16, 256)}),
    Subject("conv net, BatchNorm", ConvNet, lambda g: {"x": floats(g, 4, 3, 32, 32)}),
    Subject("VAE", Vae, lambda g: {"x": floats(g, 16, 128), "noise": floats(g, 16, 32)}),
    Subject(
        "cross-entropy, constants",
        CrossEntropyHead,
        lambda g: {"x": floats(g, 16, 64), "target": g.integers(1, 1000, 16) | 1},
    ),
    Subject(
        "rotary attention",
        Rotary,
        lambda g: {"x": floats(g, 2, 64, 64), "positions": np.arange(64) + int(g.integers(3000, 4000))},
    ),
    Subject(
        "cosines, small rows",
        Cosine,
        lambda g: {"x": floats(g, 24, 64) * 10.0 ** g.integers(-4, 1, (24, 1)).astype(np.float32)},
    ),
    Subject("long statistics", LongMean, lambda g: {"x": floats(g, 2, 4096, 16)}),
    Subject("GRU", Recurrent, lambda g: {"x": floats(g, 4, 40, 32)}),
)


class Named(nn.Module):
    """The first output of a model of `transformers`, by its keywords."""

    def __init__(self, config: str, model: str, **sizes: int) -> None:
        super().__init__()
        library: Any = import_module("transformers")
        self.model = getattr(library, model)(getattr(library, config)(**sizes))
        if hasattr(self.model.config, "use_cache"):
            self.model.config.use_cache = False

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        return self.model(**inputs)[0]


class Text(Named):
    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return super().forward(input_ids=input_ids, attention_mask=attention_mask)


class Image(Named):
    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return super().forward(pixel_values=pixel_values)


def text(generator: np.random.Generator) -> Inputs:
    mask = np.ones((2, 24), np.int64)
    mask[1, int(generator.integers(12, 22)) :] = 0
    return {"input_ids": generator.integers(3, 500, (2, 24)), "attention_mask": mask}


def image(generator: np.random.Generator) -> Inputs:
    return {"pixel_values": floats(generator, 2, 3, 64, 64)}


_TEXT = {"vocab_size": 500, "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
_WIDE = _TEXT | {"intermediate_size": 256}
_GPT = {"vocab_size": 500, "n_embd": 128, "n_layer": 3, "n_head": 4}
_IMAGE = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 256}

#: Small random models of `transformers`, where that is installed (the environment of benchmarks/zoo.py).
PUBLIC = (
    Subject("BERT", lambda: Text("BertConfig", "BertModel", **_WIDE), text),
    Subject("GPT-2", lambda: Text("GPT2Config", "GPT2LMHeadModel", **_GPT), text),
    Subject("Llama", lambda: Text("LlamaConfig", "LlamaForCausalLM", **_WIDE), text),
    Subject(
        "Gemma", lambda: Text("GemmaConfig", "GemmaForCausalLM", head_dim=32, num_key_value_heads=4, **_WIDE), text
    ),
    Subject(
        "T5 encoder",
        lambda: Text("T5Config", "T5EncoderModel", vocab_size=500, d_model=128, num_layers=3, num_heads=4, d_kv=32),
        text,
    ),
    Subject("ViT", lambda: Image("ViTConfig", "ViTModel", image_size=64, patch_size=16, **_IMAGE), image),
)

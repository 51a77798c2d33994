"""Whole modules of torch.nn: every value that the reader binds is what the node computes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import fx, nn

from stabilize.frontends.fx import open_exported, open_graph_module
from stabilize.graph.value import Value, cone
from stabilize.graph.view import View
from stabilize.verify.execute import execute

_X = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(3))


class _Naive(nn.Module):
    """Hand-written attention, layer norm and loss, with an argument called as a builtin is."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 48)
        self.gain = nn.Parameter(torch.ones(16))

    def forward(self, input: torch.Tensor) -> tuple[torch.Tensor, ...]:
        batch, length, width = input.shape
        mean = input.mean(-1, keepdim=True)
        variance = (input**2).mean(-1, keepdim=True) - mean**2
        x = (input - mean) * torch.rsqrt(variance + 1e-5) * self.gain
        q, k, v = self.qkv(x).view(batch, length, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        scores = torch.einsum("bhid,bhjd->bhij", q, k) / (width // 2) ** 0.5
        scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), float("-inf"))
        weights = torch.exp(scores - scores.max(-1, keepdim=True)[0])
        weights = weights / weights.sum(-1, keepdim=True)
        mixed = (weights @ v).transpose(1, 2).reshape(batch, length, width)
        loss = -torch.log(mixed.sigmoid().clamp(min=1e-6)).mean() + mixed.std() / length
        return mixed.type_as(input), loss, torch.cat([mixed, x], -1)[..., ::2], torch.stack([loss, loss]).cumsum(0)


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[torch.Tensor, ...]]] = {
    "encoder": (lambda: nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), (_X,)),
    "decoder": (lambda: nn.TransformerDecoderLayer(16, 2, 32, batch_first=True), (_X, _X)),
    "attention": (lambda: nn.MultiheadAttention(16, 2, batch_first=True), (_X, _X, _X)),
    "lstm": (lambda: nn.LSTM(16, 8, batch_first=True), (_X,)),
    "gru": (lambda: nn.GRU(16, 8, batch_first=True), (_X,)),
    "convolution": (
        lambda: nn.Sequential(
            nn.Conv1d(6, 4, 3), nn.BatchNorm1d(4), nn.ReLU(inplace=True), nn.MaxPool1d(2), nn.Flatten()
        ),
        (_X,),
    ),
    "embedding": (
        lambda: nn.Sequential(nn.Embedding(9, 4), nn.LayerNorm(4), nn.GLU()),
        (torch.tensor([[1, 8], [0, 3]]),),
    ),
    "activations": (
        lambda: nn.Sequential(
            nn.SiLU(), nn.Mish(), nn.Softplus(2.0), nn.Hardtanh(), nn.GELU(), nn.LogSigmoid(), nn.Softmin(1)
        ),
        (_X,),
    ),
    "naive": (_Naive, (_X,)),
}


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", list(MODELS))
def test_every_binding_of_an_exported_module(name: str, training: bool) -> None:
    make, inputs = MODELS[name]
    torch.manual_seed(0)
    exported = torch.export.export(make().train(training), inputs)
    host = open_exported(exported)
    state = {**exported.state_dict, **exported.constants}
    lifted = [state[s.target] for s in exported.graph_signature.input_specs if s.target is not None]
    assert _check(host.view, exported.graph_module, [t.clone() for t in (*lifted, *inputs)]) > 0


@pytest.mark.parametrize("name", ["naive", "activations", "convolution"])
def test_every_binding_of_a_traced_module(name: str) -> None:
    make, inputs = MODELS[name]
    torch.manual_seed(0)
    model = make().eval()
    module, given = (fx.symbolic_trace(model), inputs) if name != "naive" else _compiled(model, inputs)
    assert _check(open_graph_module(module, given).view, module, [t.detach().clone() for t in given]) > 0


def _compiled(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[fx.GraphModule, tuple[torch.Tensor, ...]]:
    """The torch-level graph that torch.compile makes of a model, and its inputs (parameters among them)."""
    seen: list[tuple[fx.GraphModule, tuple[torch.Tensor, ...]]] = []

    def backend(module: fx.GraphModule, given: list[torch.Tensor], **kwargs: object) -> object:
        seen.append((module, tuple(given)))
        return module.forward

    torch._dynamo.reset()
    with torch.no_grad():
        torch.compile(_Free(model), backend=backend)(*inputs)
    torch._dynamo.reset()
    return seen[0]


class _Free(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> object:
        return self.model(x)


class _Recorder(fx.Interpreter):
    """Keeps what every node computed at the moment that it did."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.results: dict[str, torch.Tensor] = {}

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        if isinstance(result, torch.Tensor):
            self.results[n.name] = result.detach().clone()
        return result


def _check(view: View, module: fx.GraphModule, inputs: list[torch.Tensor]) -> int:
    """Every bound value equals what its node computed, given what opaque nodes computed; how many were compared."""
    recorder = _Recorder(module)
    torch.manual_seed(0)
    with torch.no_grad():
        recorder.run(*inputs, enable_io_processing=False)
    known: dict[Value, torch.Tensor] = {}
    compared = 0
    for name, value in view.bindings.items():
        result = recorder.results[name]
        unknown = [v for v in cone([value], known) if v.op in ("input", "opaque") and v not in known and v is not value]
        if value.op in ("input", "opaque") or unknown:
            known.setdefault(value, result)
            continue
        (computed,) = execute([value], known)
        torch.testing.assert_close(computed, result, rtol=2e-5, atol=2e-5, equal_nan=True)
        compared += 1
    return compared

"""The main job on a real model, twice: as PyTorch, where it trains, and as ONNX, where it is deployed.

The model is a byte-level transformer whose attention, gate, head and loss are written as in a textbook: exponentials
divided by their sum. It learns this project's licence text. `make demo` runs this file; `--markdown` prints the table
that the README quotes.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import stabilize

TEXT = Path(__file__).resolve().parents[1] / "LICENSE"
CONTEXT, BATCH, STEPS = 64, 16, 150


class Attention(nn.Module):
    """Causal self-attention, one head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.register_buffer("causal", torch.ones(CONTEXT, CONTEXT).tril())

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        weights = torch.exp(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])) * self.causal
        return self.out(weights @ v / weights.sum(-1, keepdim=True))


class Block(nn.Module):
    """Attention, then a gated feed-forward layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = Attention(width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.gate = nn.Linear(width, 4 * width), nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        h = self.norm2(x)
        g = self.gate(h)
        return x + self.down(self.up(h) * g * torch.exp(g) / (1 + torch.exp(g)))


class Transformer(nn.Module):
    """Bytes to the probability of each next byte."""

    def __init__(self, width: int = 64, depth: int = 2) -> None:
        super().__init__()
        self.token = nn.Embedding(128, width)
        self.position = nn.Parameter(0.02 * torch.randn(CONTEXT, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 128, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token(tokens) + self.position
        for block in self.blocks:
            x = block(x)
        e = torch.exp(self.head(self.norm(x)))
        return e / e.sum(-1, keepdim=True)


class Training(nn.Module):
    """The model and its loss, −log p of the byte that comes next."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        p = self.model(tokens).flatten(0, 1)
        return -torch.log(p[torch.arange(p.shape[0]), targets.flatten()]).mean()


def batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Random windows of the text and what follows each byte."""
    data = torch.tensor(list(TEXT.read_bytes()))
    generator = torch.Generator().manual_seed(seed)
    while True:
        start = torch.randint(0, len(data) - CONTEXT - 1, (BATCH, 1), generator=generator)
        index = start + torch.arange(CONTEXT)
        yield data[index], data[index + 1]


def fresh() -> Training:
    torch.manual_seed(0)
    return Training(Transformer())


def train(module: nn.Module, rate: float) -> str:
    """Train for `STEPS` steps, or until the loss is not finite."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate)
    loss = math.nan
    for step, (tokens, targets) in zip(range(STEPS), batches(seed=1), strict=False):
        value = module(tokens, targets)
        loss = value.item()
        if not math.isfinite(loss):
            return f"{loss} at step {step}"
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return f"loss {loss:.2f} after {STEPS} steps"


# -- the two hosts --------------------------------------------------------------------------------------------------


def pytorch(console: Console) -> tuple[stabilize.Report, Transformer]:
    """Fix the model with its loss; train both versions; run both in half precision."""
    example = next(batches(seed=0))
    naive, fixable = fresh(), fresh()
    fixed, report = stabilize.optimize(fixable, example, return_report=True)
    show(console, "PyTorch, model and loss", report)

    console.print(f"training at rate 0.03:  as written: {train(naive, 0.03)};  fixed: {train(fixed, 0.03)}")

    trained = fresh()
    train(trained, 0.01)
    full = trained(*example).item()
    trained.half()
    half = stabilize.optimize(trained, example)(*example).item()
    console.print(
        f"trained at rate 0.01, then float16:  as written: loss {trained(*example).item():.2f};  "
        f"fixed: loss {half:.2f}  (float32: {full:.2f})\n"
    )
    return report, trained.model


def onnx(console: Console, model: Transformer) -> stabilize.Report:
    """Export the half-precision model, fix the file, run both files in ONNX Runtime."""
    import onnxruntime

    tokens, _ = next(batches(seed=0))
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "transformer.onnx"), Path(folder, "fixed.onnx")
        torch.onnx.export(model, (tokens,), source, dynamo=True, optimize=False, verbose=False)
        fixed, report = stabilize.optimize(source, return_report=True)
        target.write_bytes(fixed.SerializeToString())
        show(console, "ONNX, model exported in float16", report)
        counts: list[str] = []
        for path in (source, target):
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            (p,) = session.run(None, {session.get_inputs()[0].name: tokens.numpy()})
            rows = torch.tensor(p).float().sum(-1)
            counts.append(f"{(rows.sub(1).abs() < 0.01).float().mean():.0%}")
        console.print(f"rows that are a distribution, in ONNX Runtime:  as written: {counts[0]};  fixed: {counts[1]}\n")
    return report


# -- output ---------------------------------------------------------------------------------------------------------


def rows(report: stabilize.Report) -> Iterator[tuple[str, str, str, str, str]]:
    """One row for each rewrite and each refusal: code, defect, where, what, evidence."""
    for r in report.rewrites:
        where = f"{Path(r.file).name}:{r.line}" if r.file else r.node
        proof = "not certified" if r.certificate is None else r.certificate.text().splitlines()[0]
        yield r.code, r.name, where, f"{r.naive} → {r.stable}", proof
    for d in report.declined:
        yield d.code, d.name, d.node, "left as it is", d.reason


def show(console: Console, title: str, report: stabilize.Report) -> None:
    """The report as a table."""
    table = Table("code", "defect", "where", "rewrite", "certificate", title=title, title_justify="left")
    for row in rows(report):
        table.add_row(*row)
    console.print(table)
    certified = sum(r.certificate is not None and r.certificate.accepted for r in report.rewrites)
    console.print(f"found {len(report.findings)}, fixed {len(report.rewrites)}, certified {certified}")


def main() -> int:
    console = Console(highlight=False)
    torch.set_num_threads(1)
    report, model = pytorch(console)
    other = onnx(console, model)
    complete = all(r.rewrites and not r.declined for r in (report, other))
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())

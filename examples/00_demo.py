"""The main job on a real model, twice: as PyTorch, where it trains, and as ONNX, where it is deployed.

The model is a byte-level transformer whose attention, gate, head and loss are written as in a textbook: exponentials
divided by their sum. It learns this project's licence text. `make demo` runs it; `--markdown` is for the README.
"""

from __future__ import annotations

import logging
import math
import sys
import tempfile
import warnings
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
        self.register_buffer("causal", torch.ones(CONTEXT, CONTEXT).tril().bool())

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


def pytorch(out: Plain | Markdown) -> tuple[stabilize.Report, Transformer]:
    """Fix the model with its loss; train both versions; run both in half precision."""
    example = next(batches(seed=0))
    naive, model = fresh(), fresh()
    fixed, report = stabilize.optimize(model, example, return_report=True)
    out.report("PyTorch: the model and its loss, float32", report)
    out.say(f"Training at rate 0.03. As written: {train(naive, 0.03)}. Fixed: {train(fixed, 0.03)}.")

    gentle = fresh()
    train(gentle, 0.01)
    full = gentle(*example).item()
    gentle.half()
    half = stabilize.optimize(gentle, example)
    out.say(
        f"Trained at rate 0.01 to loss {full:.2f}, then cast to float16. "
        f"As written: loss {gentle(*example).item():.2f}. Fixed: loss {half(*example).item():.2f}."
    )
    return report, model.model  # trained through `fixed`, which shares its parameters


def onnx(out: Plain | Markdown, model: Transformer) -> stabilize.Report:
    """Export the model as it was written, fix the file, run both files in ONNX Runtime."""
    import onnxruntime

    tokens, _ = next(batches(seed=0))
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "transformer.onnx"), Path(folder, "fixed.onnx")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            # torch's exporter copies a class that torch itself deprecates
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            torch.onnx.export(model.eval(), (tokens,), source, dynamo=True, optimize=False, verbose=False)
        fixed, report = stabilize.optimize(source, return_report=True)
        target.write_bytes(fixed.SerializeToString())
        out.report("ONNX: the trained model, as written and exported", report)
        shares: list[str] = []
        for path in (source, target):
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            (p,) = session.run(None, {session.get_inputs()[0].name: tokens.numpy()})
            sums = torch.tensor(p).float().sum(-1)
            shares.append(f"{((sums - 1).abs() < 0.01).float().mean():.0%}")
        out.say(f"Rows that sum to 1 in ONNX Runtime. As written: {shares[0]}. Fixed: {shares[1]}.")
    return report


# -- output ---------------------------------------------------------------------------------------------------------


def place(record: stabilize.Rewrite | stabilize.Declined) -> str:
    """The module and line of this file, as far as the host knows them."""
    parts = [record.module, f"line {record.line}" if record.line else None]
    return ", ".join(filter(None, parts)) or record.node


def measured(rewrite: stabilize.Rewrite) -> str:
    """Errors before and after: the first part of what the certificate says."""
    return "not certified" if rewrite.certificate is None else rewrite.certificate.text().partition(";")[0]


class Plain:
    """Prints for a terminal."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 150)

    def say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)

    def report(self, title: str, report: stabilize.Report) -> None:
        table = Table("defect", "where", "rewrite", "certificate", title=title, title_justify="left", show_lines=True)
        for r in report.rewrites:
            table.add_row(f"{r.code} {r.name}", place(r), f"{r.naive} → {r.stable}", measured(r))
        for d in report.declined:
            table.add_row(f"{d.code} {d.name}", place(d), "left as it is", d.reason)
        self.console.print(table)
        self.say(totals(report))


class Markdown:
    """Prints for the README."""

    def say(self, text: str) -> None:
        print(text, end="\n\n")

    def report(self, title: str, report: stabilize.Report) -> None:
        print(f"**{title}**\n\n| defect | where | now | certificate |\n|---|---|---|---|")
        for r in report.rewrites:
            print(f"| {r.code} {r.name} | {place(r)} | `{r.stable}` | {measured(r)} |")
        for d in report.declined:
            print(f"| {d.code} {d.name} | {place(d)} | left as it is | {d.reason} |")
        print()
        self.say(totals(report))


def totals(report: stabilize.Report) -> str:
    certified = sum(r.certificate is not None and r.certificate.accepted for r in report.rewrites)
    return f"found {len(report.findings)}, fixed {len(report.rewrites)}, certified {certified}"


def main() -> int:
    out = Markdown() if "--markdown" in sys.argv[1:] else Plain()
    torch.set_num_threads(1)
    report, model = pytorch(out)
    other = onnx(out, model)
    complete = all(r.rewrites and not r.declined for r in (report, other))
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())

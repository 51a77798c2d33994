"""The post-processing of an export: every model in a folder, as optimum leaves it, rewritten where it stands.

optimum writes a folder (optimum-cli export onnx --model … folder/): one or more .onnx files, their weights in
.onnx_data files, config.json. This writes such a folder with torch's exporter alone, then

    stabilize optimize folder/ --in-place

or, from Python, `stabilize.onnx.optimize_folder("folder/")` behind `optimum.exporters.onnx.main_export(...)`.

Tried so with optimum 2.1.0, optimum-onnx 0.1.0 and transformers 4.57.6: BERT and T5 (encoder, decoders with and without
past, merged) come back byte for byte, since nothing in them is naive; with a logsigmoid as its head, BERT is repaired.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn

from stabilize.onnx import optimize_folder


class Encoder(nn.Module):
    """Tokens to vectors, pooled by weights that are exponentials over their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.score = nn.Embedding(50, 32), nn.Linear(32, 1)

    def forward(self, input_ids: Tensor) -> Tensor:
        hidden = self.embedding(input_ids)
        e = torch.exp(60 * self.score(hidden))
        return (e * hidden).sum(1) / e.sum(1)


class Decoder(nn.Module):
    """Vectors to log-probabilities of yes and no."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(32, 8)

    def forward(self, pooled: Tensor) -> Tensor:
        return nn.functional.logsigmoid(200 * self.head(pooled))


def export(folder: Path) -> None:
    """What main_export does: each part to a file of its own, its weights beside it."""
    torch.manual_seed(0)
    tokens, pooled = torch.randint(50, (2, 7)), torch.randn(2, 32)
    batch = torch.export.Dim("batch")
    for name, part, example in (("encoder_model", Encoder(), tokens), ("decoder_model", Decoder(), pooled)):
        program = torch.onnx.export(
            part.eval(), (example,), dynamo=True, verbose=False, dynamic_shapes=({0: batch},), optimize=False
        )
        assert program is not None
        program.save(folder / f"{name}.onnx", external_data=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "encoder-decoder"}))


def finite(folder: Path) -> float:
    """Share of log-probabilities that are numbers, encoder and decoder run after each other in ONNX Runtime."""
    feed = torch.randint(50, (16, 7), generator=torch.Generator().manual_seed(1)).numpy()
    for name in ("encoder_model", "decoder_model"):
        session = onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
        (feed,) = session.run(None, {session.get_inputs()[0].name: feed})
    return torch.tensor(feed).isfinite().float().mean().item()


def main() -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        folder, fixed = Path(name, "export"), Path(name, "fixed")
        folder.mkdir()
        with warnings.catch_warnings():
            # torch's exporter copies a class that torch itself deprecates
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            export(folder)
        before = finite(folder)

        reports = optimize_folder(folder, fixed)
        for model, report in reports.items():
            print(f"{model}: {', '.join(f'{r.code} {r.name}' for r in report.rewrites)}")
        print(f"numbers before: {before:.0%}  after: {finite(fixed):.0%}")
        print("written:", *sorted(path.name for path in fixed.iterdir()))

        command = [sys.executable, "-m", "stabilize", "optimize", str(folder), "--in-place"]
        subprocess.run(command, check=True, stdout=subprocess.PIPE)
        assert before < 0.5
        assert finite(fixed) == finite(folder) == 1.0
        assert sorted(p.name for p in fixed.iterdir()) == sorted(p.name for p in folder.iterdir())


if __name__ == "__main__":
    main()

"""A model that is fine in PyTorch, exported: by `torch.onnx.export`, and by `stabilize.export_onnx`."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import stabilize


class Detector(nn.Module):
    """Every line is stable in PyTorch."""

    def forward(self, scores: Tensor, features: Tensor) -> tuple[Tensor, ...]:
        return (
            F.logsigmoid(scores),
            torch.expm1(features * 1e-9),
            torch.logaddexp(scores, scores + 1),
            features / (features.norm(dim=-1, keepdim=True) + 1e-8),
        )


def run(path: Path, *args: Tensor) -> list[Tensor]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = {i.name: a.numpy() for i, a in zip(session.get_inputs(), args, strict=True)}
    return [torch.from_numpy(result) for result in session.run(None, feeds)]


def shown(results: list[Tensor] | tuple[Tensor, ...]) -> str:
    return "  ".join(str([float(f"{x:.3g}") for x in r.flatten()[:3].tolist()]) for r in results)


def main() -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    model = Detector().eval()
    args = (torch.tensor([-20.0, -90.0, -200.0]), torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    with tempfile.TemporaryDirectory() as name:
        plain, stable = Path(name) / "plain.onnx", Path(name) / "stable.onnx"
        torch.onnx.export(model, args, plain, dynamo=True, verbose=False)
        _, report = stabilize.export_onnx(model, args, stable, return_report=True)
        results = {"PyTorch": model(*args), "torch.onnx": run(plain, *args), "export_onnx": run(stable, *args)}
    for title, result in results.items():
        print(f"{title:12}", shown(result))
    print(report)
    finite = sum(bool(torch.isfinite(r).all()) for r in results["export_onnx"])
    print(f"finite outputs: {finite} of 4")
    assert all(
        torch.allclose(a, b, rtol=1e-5, atol=1e-40)
        for a, b in zip(*(results[k] for k in ("PyTorch", "export_onnx")), strict=True)
    )


if __name__ == "__main__":
    main()

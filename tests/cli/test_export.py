"""`stabilize export`: what it writes, says and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.cli.support import Outcome, one_line

SOURCE = """
import torch

class Head(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.logsigmoid(x), torch.log(x.abs() + 1e-9)

def head():
    return Head().eval(), (torch.tensor([-20.0, 0.0, 3.0]),)
"""


@pytest.fixture
def heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "heads_to_export.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    return "heads_to_export:head"


def test_a_factory_is_exported(run: Callable[..., Outcome], heads: str, tmp_path: Path) -> None:
    outcome = run("export", heads, "-o", "head.onnx", "--one-file", "--opset", "20", "--report", "r.json")
    assert (outcome.status, outcome.err) == (0, "")
    assert "the whole model: max error" in outcome.out
    written = onnx.load(tmp_path / "head.onnx")
    assert written.opset_import[0].version == 20
    x = np.array([-20.0, 0.0, 3.0], np.float32)
    first, second = onnxruntime.InferenceSession(tmp_path / "head.onnx").run(None, {"x": x})
    np.testing.assert_allclose(first, np.log(1 / (1 + np.exp(-x.astype(np.float64)))), rtol=1e-6)
    np.testing.assert_allclose(second, np.log(np.abs(x) + 1e-9), rtol=1e-6)
    assert json.loads((tmp_path / "r.json").read_text())["rewrites"] == []


def test_a_pt2_file_is_exported(run: Callable[..., Outcome], tmp_path: Path) -> None:
    program = torch.export.export(torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.SiLU()), (torch.ones(2, 3),))
    torch.export.save(program, tmp_path / "net.pt2")
    outcome = run("export", "net.pt2", "-o", "net.onnx", "--allow-fast", "Sigmoid")
    assert (outcome.status, outcome.err) == (0, "")
    assert "Sigmoid" in [node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node]
    assert (tmp_path / "net.onnx.data").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("model.onnx", "-o", "out.onnx"), "model.onnx is ONNX already: stabilize optimize repairs it"),
        (("none.pt2", "-o", "out.onnx"), "none.pt2: no such file"),
        (("none.pt2", "-o", "out.pt2"), "out.pt2"),
        (("none.pt2",), "Missing option '-o'"),
    ],
)
def test_what_is_refused(run: Callable[..., Outcome], arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    outcome = run("export", *arguments)
    assert message in one_line(outcome)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("option", [("--opset", "3"), ("--runtime", "none"), ("--allow-fast", "Nothing")])
def test_wrong_options_are_told(
    run: Callable[..., Outcome], heads: str, option: tuple[str, str], tmp_path: Path
) -> None:
    outcome = run("export", heads, "-o", "head.onnx", *option)
    assert option[1] in one_line(outcome)
    assert not (tmp_path / "head.onnx").exists()

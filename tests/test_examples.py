"""Every example runs to its end, checks its own claims, and stays silent on stderr."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

#: What an example must print, besides ending well.
EXPECTED = {
    "00_demo": [
        "PyTorch: the model",
        "ONNX: the trained model",
        "Fixed: 100%",
        "Training at rate 0.03. As written: nan at step",
    ],
    "01_fix_a_naive_head": ["STB1", "after: 0"],
    "02_fix_an_onnx_file": ["$ stabilize optimize", "$ stabilize certify", "after: 100%"],
    "03_collapse_free": ["collapse-free    0.0% of rows have loss 0"],
    "05_a_pass_in_a_pipeline": [
        "exported          [-1.3068528175354004, -inf, -inf]",
        "rewrote[STB105] naive-logaddexp",
    ],
    "06_a_folder_that_was_exported": ["decoder_model.onnx: STB202 log-of-sigmoid", "after: 100%"],
    "07_half_precision": ["stays float32", "finite outputs: 100%"],
    "08_export_to_onnx": ["torch.onnx   [-inf, -inf, -inf]", "finite outputs: 4 of 4"],
    "04_torch_compile": ["as written  entropy [nan", "finite gradients 100%", "STB102 log-of-softmax"],
}


def test_examples_are_numbered_and_known() -> None:
    assert [path.stem for path in EXAMPLES] == sorted(EXPECTED)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path: Path, tmp_path: Path) -> None:
    environment = os.environ | {"COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", str(path)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-3000:]
    for text in EXPECTED[path.stem]:
        assert text in run.stdout, run.stdout
    assert "Traceback" not in run.stderr
    assert list(tmp_path.iterdir()) == []

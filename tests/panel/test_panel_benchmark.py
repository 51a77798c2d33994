"""The benchmark runs, counts what it says it counts, and reuses earlier scores."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _run(*arguments: str) -> str:
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "spellings.py"),
        "--full",
        "--only",
        "softmax/methods",
        *arguments,
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_table_and_json(tmp_path: Path) -> None:
    first, second = tmp_path / "eager.json", tmp_path / "both.json"
    _run("--tools", "PyTorch", "--dtypes", "float32", "--json", str(first))
    table = _run("--tools", "stabilize (PyTorch)", "--dtypes", "float32", "--json", str(second), "--reuse", str(first))
    assert "| PyTorch eager (the naive form) | 0/1 |" in table
    assert "| stabilize (PyTorch) | 1/1 |" in table
    scores = json.loads(second.read_text())["scores"]
    eager = scores["PyTorch eager (the naive form)"]["float32"]
    assert list(eager["broken"]) == ["softmax/methods"]
    assert "nan" in eager["broken"]["softmax/methods"]

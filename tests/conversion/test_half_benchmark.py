"""The comparison of converters runs, on a slice of it, and shows what it is for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_slice() -> None:
    command = [
        sys.executable,
        "-W",
        "ignore",
        str(ROOT / "benchmarks" / "half_precision.py"),
        "--models",
        "naive,cosines",
    ]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in run.stdout.splitlines() if line.startswith("|")
    ]
    ours = [row for row in rows if row[1] == "stabilize"]
    runtime = [row for row in rows if row[1] == "onnxruntime.transformers"]
    assert len(ours) == len(runtime) == 2
    for _, _, valid, lost, rounded, error, wide, *_ in ours:
        assert (valid, lost, rounded) == ("yes", "0", "0")
        assert float(error) < 0.01
        assert int(wide) > 0
    # entries that float16 loses, unseen by ONNX Runtime on a CPU
    assert all(int(row[4]) > 100 and row[3] == "0" for row in runtime)

"""A slice of `benchmarks/export_accuracy.py`: operators that the default export loses, and one that it does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_slice_of_the_sweep(tmp_path: Path) -> None:
    kept = tmp_path / "rows.json"
    command = [sys.executable, "benchmarks/export_accuracy.py", "--formats", "float32", "--json", str(kept), "--ops"]
    asked = ["log1p", "log_sigmoid", "abs", "normalize+guard"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run([*command, *asked], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    rows = {row["op"]: row for row in json.loads(kept.read_text())}
    assert sorted(rows) == sorted(asked)
    for name, row in rows.items():
        assert row["ours"]["infinite"] == row["ours"]["vanished"] == 0, name
        assert row["ours"]["worst"] < 4.0, name
        assert (row["default"]["worst"] > 1e6) == (name != "abs"), name
    assert "| normalize+guard | float32 |" in run.stdout

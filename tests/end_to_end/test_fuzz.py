"""A slice of the fuzz test: mutated models through the command line, a process each (see benchmarks/fuzz.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_mutated_models_are_refused_in_one_line_or_read() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "fuzz.py"), "--count", "60"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "60 mutants" in run.stdout
    assert run.stdout.rstrip().endswith(" 0 failures")

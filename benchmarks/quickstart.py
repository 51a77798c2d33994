"""What `stabilize lint` says of the models in examples/lint, as docs/quickstart.md shows it.

python benchmarks/quickstart.py gpt_block:block head.onnx
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import runpy
import shutil
import sys
import tempfile
from pathlib import Path

from stabilize.cli import main

MODELS = Path(__file__).resolve().parents[1] / "examples" / "lint"


def shown(model: str) -> str:
    """The command and its output, run in the folder of the models."""
    if model == "head.onnx":
        logging.disable(logging.CRITICAL)  # the exporter tells of packages that are not there
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            runpy.run_path("export_head.py", run_name="__main__")
        logging.disable(logging.NOTSET)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        status = main(["lint", model, "--no-config"])
    if status not in (0, 1):
        raise SystemExit(status)
    return f"```text\n$ stabilize lint {model}\n{output.getvalue()}```\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(MODELS, folder, dirs_exist_ok=True)
        os.chdir(folder)
        for name in sys.argv[1:]:
            print(shown(name), end="")

"""Time of the lint without witnesses, beside that of ONNX's own checker and shape inference on the same file.

    python benchmarks/lint_speed.py                        10 000 nodes: weights of next to no size, and of 0.6 GB
    python benchmarks/lint_speed.py --nodes 3000 --repeat 5

Three times in the same process, the best of each: `stabilize.lint(path, budget=0)`;
`onnx.checker.check_model(path, full_check=True)`; `onnx.shape_inference.infer_shapes` of the file, loaded. The file is
a tower of transformer blocks whose attention is written by hand (tests/towers.py). The exit status is 1 when the lint
takes longer than the other two together.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import panel_path  # noqa: F401

import stabilize
from tests.towers import WIDTH, onnx_tower


def seconds(call: Callable[[], object], repeat: int) -> float:
    """Processor time, the best of several runs: other work on the machine disturbs it less than it does the clock."""
    best = float("inf")
    for _ in range(repeat):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return best


def row(name: str, path: Path, repeat: int) -> tuple[str, bool]:
    """One file: a row of the table, and whether the lint takes less time."""
    findings = len(stabilize.lint(str(path), budget=0).findings)  # the first call imports
    lint = seconds(lambda: stabilize.lint(str(path), budget=0), repeat)
    check = seconds(lambda: onnx.checker.check_model(str(path), full_check=True), repeat)
    infer = seconds(lambda: onnx.shape_inference.infer_shapes(onnx.load(str(path))), repeat)
    size = path.stat().st_size / 2**20
    cells = (
        name,
        f"{size:.1f}",
        f"{findings}",
        f"{lint:.2f}",
        f"{check:.2f}",
        f"{infer:.2f}",
        f"{lint / (check + infer):.2f}",
    )
    return f"| {' | '.join(cells)} |", lint < check + infer


def saved(folder: Path, nodes: int, width: int) -> Path:
    """A tower as a file."""
    path = folder / f"tower_{width}.onnx"
    onnx.save(onnx_tower(nodes, width), str(path))
    return path


def width_for(nodes: int, gigabytes: float) -> int:
    """Of a tower whose weights take that much: they grow with its square."""
    small = onnx_tower(nodes, WIDTH).ByteSize()
    return max(WIDTH, round(WIDTH * (gigabytes * 2**30 / small) ** 0.5 / 8) * 8)


def main() -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--gigabytes", type=float, default=0.6, help="of the larger file; 0 for none")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    files = [("weights of next to no size", 8)]
    if options.gigabytes:
        files.append((f"weights of {options.gigabytes:g} GB", width_for(options.nodes, options.gigabytes)))
    met: list[bool] = []
    print("| file | MB | findings | lint, s | check_model, s | infer_shapes, s | lint / both |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for name, width in files:
            text, less = row(
                f"{options.nodes} nodes, {name}", saved(Path(folder), options.nodes, width), options.repeat
            )
            print(text, flush=True)
            met.append(less)
    for (name, _), less in zip(files, met, strict=True):
        print(f"With {name} the lint takes {'less' if less else 'MORE'} time than checking and inferring shapes.")
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())

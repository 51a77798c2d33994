"""How time and memory of `optimize(certify=False)` grow with the graph, beside torch.export and onnxsim.

    python benchmarks/scaling.py                      1k, 3k and 10k nodes on both hosts: a few minutes
    python benchmarks/scaling.py --full               30k nodes as well, and a 2 GB external-data file
    python benchmarks/scaling.py --hosts onnx         one host

Each size runs in a process of its own, so that its memory is its own. Time is processor time of that process, which
other work on the machine hardly changes; memory is the growth of the peak over what the process held before. Both are
fitted as c·nodes^k over the sizes: k is the exponent that is printed. The peers run in the same process on the same
model: torch.export.export makes the program that is optimised, onnxsim (pip install -r benchmarks/requirements.txt)
simplifies the same ONNX model. Towers have weights of next to no size, so that what is measured is work on graphs; the
ONNX tower of 10k nodes is measured with 0.6 GB of weights as well, which every tool has to carry.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import panel_path  # noqa: F401

SIZES, FULL = (1_000, 3_000, 10_000), 30_000
#: Width of the layers where weights count: 280 blocks of them hold 0.6 GB.
WIDE = 256


def peak() -> int:
    """Largest resident memory of this process so far, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not say how much memory a process has used")


def resident() -> int:
    """Resident memory of this process now; the peak starts again from there.

    What the allocator keeps for later goes back first: the work would take it without growing.
    """
    gc.collect()
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def measured(work: Callable[[], Any]) -> tuple[Any, float, int]:
    """(result, processor seconds, growth of the peak in bytes)."""
    before, start = resident(), time.process_time()
    result = work()
    return result, time.process_time() - start, peak() - before


def run_fx(nodes: int) -> dict[str, float]:
    import torch

    import stabilize
    from tests.towers import tower

    torch.set_num_threads(1)
    small, x = tower(200)
    stabilize.optimize(torch.export.export(small, (x,)), certify=False)  # what is loaded once is loaded
    model, x = tower(nodes)
    exported, export_seconds, export_bytes = measured(lambda: torch.export.export(model, (x,)))
    count = len(list(exported.graph.nodes))
    (_, report), seconds, grown = measured(lambda: stabilize.optimize(exported, certify=False, return_report=True))
    return {
        "nodes": count, "seconds": seconds, "bytes": grown, "rewrites": len(report.rewrites),
        "peer_seconds": export_seconds, "peer_bytes": export_bytes,
    }  # fmt: skip


def run_wide(nodes: int) -> dict[str, float]:
    """As `run_onnx`, with weights as large as those of a model that is used."""
    return run_onnx(nodes, WIDE)


def run_onnx(nodes: int, width: int | None = None) -> dict[str, float]:
    import stabilize
    from tests.towers import WIDTH, onnx_tower

    stabilize.optimize(onnx_tower(200), certify=False)
    model = onnx_tower(nodes, width or WIDTH)
    (_, report), seconds, grown = measured(lambda: stabilize.optimize(model, certify=False, return_report=True))
    result = {"nodes": len(model.graph.node), "seconds": seconds, "bytes": grown, "rewrites": len(report.rewrites)}
    try:
        import onnxsim
    except ImportError:
        return result
    _, peer_seconds, peer_bytes = measured(lambda: onnxsim.simplify(model))
    return result | {"peer_seconds": peer_seconds, "peer_bytes": peer_bytes}


def run_large(gigabytes: float) -> dict[str, float]:
    """Read, rewrite and write a model whose weights are in an external file."""
    import onnx  # noqa: F401  (part of the memory before)

    from stabilize.cli import main
    from tests.towers import large_onnx

    with tempfile.TemporaryDirectory() as folder:
        path = large_onnx(Path(folder), gigabytes)
        out = Path(folder) / "out"
        out.mkdir()

        def work() -> int:
            try:
                main(["optimize", str(path), "-o", str(out / "large.onnx")])
            except SystemExit as stop:
                return int(stop.code or 0)
            return 0

        status, seconds, grown = measured(work)
        if status not in (0, 1) or not (out / "large.onnx").exists():
            raise SystemExit(f"optimize ended with {status}")
        return {"gigabytes": gigabytes, "seconds": seconds, "bytes": grown}


def child(job: str, size: float) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", __file__, "--child", job, "--size", str(size)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """k of the least-squares fit log value = k·log size + c."""
    x, y = [math.log(s) for s in sizes], [math.log(max(v, 1e-9)) for v in values]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / sum((a - mx) ** 2 for a in x)


def table(host: str, peer: str, rows: Sequence[dict[str, float]]) -> None:
    print(f"\n| {host}: nodes | rewrites | seconds | µs/node | MB | {peer} | time ÷ {peer} | memory ÷ {peer} |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        line = (
            f"| {row['nodes']} | {row['rewrites']} | {row['seconds']:.2f} | {1e6 * row['seconds'] / row['nodes']:.0f}"
        )
        line += f" | {row['bytes'] / 2**20:.0f} |"
        if "peer_seconds" in row:
            line += f" {row['peer_seconds']:.2f} s | {row['seconds'] / row['peer_seconds']:.3f} |"
            line += f" {row['bytes'] / max(row['peer_bytes'], 1):.2f} |"
        else:
            line += " not installed | | |"
        print(line)
    sizes = [row["nodes"] for row in rows]
    if len(sizes) < 2:
        return
    time_exponent = exponent(sizes, [row["seconds"] for row in rows])
    memory_exponent = exponent(sizes, [row["bytes"] for row in rows])
    print(f"\n{host}: time grows as nodes^{time_exponent:.2f}, memory as nodes^{memory_exponent:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="30k nodes, and 2 GB of external data")
    parser.add_argument("--hosts", nargs="+", choices=("fx", "onnx"), default=("fx", "onnx"))
    parser.add_argument("--sizes", nargs="+", type=int)
    parser.add_argument("--child", choices=("fx", "onnx", "wide", "large"), help=argparse.SUPPRESS)
    parser.add_argument("--size", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run: dict[str, Callable[[Any], dict[str, float]]] = {
            "fx": run_fx, "onnx": run_onnx, "wide": run_wide, "large": run_large
        }  # fmt: skip
        size = options.size if options.child == "large" else int(options.size)
        print(json.dumps(run[options.child](size)))
        return
    sizes = options.sizes or (*SIZES, FULL) if options.full or options.sizes else SIZES
    for host in options.hosts:
        rows = [child(host, size) for size in sizes]
        table(host, "torch.export" if host == "fx" else "onnxsim", rows)
    if "onnx" in options.hosts:
        table(f"onnx, layers of width {WIDE}", "onnxsim", [child("wide", SIZES[-1])])
    for gigabytes in (0.25, 2.0) if options.full else (0.25,):
        row = child("large", gigabytes)
        print(f"\n{gigabytes} GB of external data: peak memory {row['bytes'] / 2**20:.0f} MB above the start")


if __name__ == "__main__":
    main()

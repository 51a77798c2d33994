"""What `import stabilize` costs beside `import torch`, in CPU time of fresh interpreters.

    python benchmarks/import_time.py [--repeat 10]

Prints the median of each, less an empty interpreter, and the ratio. The goal is below 0.2 s beyond torch.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

STATEMENTS = {
    "nothing": "pass",
    "torch": "import torch",
    "stabilize": "import stabilize",
    "torch, then stabilize": "import torch, stabilize",
    "torch, then stabilize.optimize": "import torch, stabilize; stabilize.optimize",
}


def cpu_seconds(statement: str) -> float:
    """CPU time, user and system, of a fresh interpreter that runs `statement`."""
    process = subprocess.Popen([sys.executable, "-c", statement])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{statement!r} failed")
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=10)
    repeat: int = parser.parse_args().repeat
    for statement in STATEMENTS.values():
        cpu_seconds(statement)  # compiles and caches
    # Interleaved, so that a busy machine slows all of them alike.
    times: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for _ in range(repeat):
        for name, statement in STATEMENTS.items():
            times[name].append(cpu_seconds(statement))
    median = {name: statistics.median(values) - statistics.median(times["nothing"]) for name, values in times.items()}
    for name, seconds in median.items():
        print(f"{name:<32} {seconds:7.3f} s")
    beyond = median["torch, then stabilize"] - median["torch"]
    print(f"{'beyond torch':<32} {beyond:7.3f} s, {1 + beyond / median['torch']:.3f} times torch")


if __name__ == "__main__":
    main()

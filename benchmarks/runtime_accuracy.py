"""What runtimes compute: the worst error of ONNX operators in ulps, per format, against arbitrary precision.

    pip install openvino                                    # a runtime that is not installed is named, and left out
    python benchmarks/runtime_accuracy.py                   # every operator in every format: some minutes on one core
    python benchmarks/runtime_accuracy.py --operator Sigmoid --dtype float32
    python benchmarks/runtime_accuracy.py --json benchmarks/runtime_accuracy.json
    python benchmarks/runtime_accuracy.py --from benchmarks/runtime_accuracy.json    # docs/runtimes.md; nothing is run

Each operator is a model of one node, run on a whole format (16 bits) or on a dense sweep of it: evenly over the bit
patterns from −inf to +inf, besides around zeros, poles, branch points and saturations; reductions and normalisations on
rows that overflow, cancel, are masked or tiny. The truth is the formula in ball arithmetic. Beside the operator stands
what `stabilize` writes where it may not use it.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import panel_path  # noqa: F401
from runtime_cases import ALL
from runtime_measure import Result, measured
from runtime_runners import SETTINGS, Setting
from runtime_table import LIKE, markdown

DTYPES = ("float32", "float16", "bfloat16", "float64")
POINTS = {"float16": 1 << 16, "bfloat16": 1 << 16, "float32": 1 << 14, "float64": 1 << 14}


def present(settings: Sequence[Setting]) -> list[Setting]:
    """Those whose package is installed; the others are named on stderr."""
    for setting in settings:
        if setting.version is None:
            print(f"{setting.name}: not measured, {setting.package} is not installed", file=sys.stderr)
    return [s for s in settings if s.version is not None]


def document(results: Sequence[Result], settings: Sequence[Setting], points: dict[str, int]) -> dict[str, Any]:
    """Results with what they were made by; a setting that agrees with the one it is a variant of is left out."""
    found = {(r.op, r.dtype, r.composed, r.setting): _rounded(r.to_dict()) for r in results}

    def like(key: tuple[str, str, bool, str]) -> bool:
        other = found.get((*key[:3], LIKE.get(key[3], "")))
        return other is not None and {**other, "setting": key[3]} == found[key]

    return {
        "versions": {s.package: s.version for s in settings},
        "machine": platform.machine(),
        "points": points,
        "results": [d for key, d in found.items() if not like(key)],
    }


def _rounded(record: dict[str, Any]) -> dict[str, Any]:
    return {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in record.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--operator", action="append", help="only these operators or primitives")
    parser.add_argument("--dtype", action="append", choices=DTYPES)
    parser.add_argument("--points", type=int, help="numbers of a sweep; by default 2^16 of 16 bits, 2^14 of others")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="tables of results from there")
    given = parser.parse_args()
    if given.source:
        found = json.loads(given.source.read_text())
    else:
        cases = [c for c in ALL if not given.operator or c.name in given.operator or c.op in given.operator]
        settings = present(SETTINGS)
        points = {d: given.points or POINTS[d] for d in given.dtype or DTYPES}
        results = [r for c in cases for d, n in points.items() for r in measured([c], [d], settings, n)]
        found = document(results, settings, points)
    if given.json:
        lines = ",\n".join(json.dumps(r) for r in found["results"])
        head = json.dumps({k: v for k, v in found.items() if k != "results"})
        given.json.write_text(f'{head[:-1]}, "results": [\n{lines}\n]}}\n')
    print(markdown(found))


if __name__ == "__main__":
    main()

"""Whole models exported by `torch.onnx.export` and by `stabilize.export_onnx`: `python benchmarks/export_models.py`.

Models of transformers, timm and diffusers from small random configurations (`zoo_models/`, packages in
`zoo-requirements.txt`). Both files are checked, sized and run in ONNX Runtime in one process: the runs alternate, the
ratio is that of the medians. Errors are against the model in float64: the largest difference by the largest element.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from torch.utils import _pytree as pytree
from zoo_measure import made
from zoo_models import FAMILY, MODELS
from zoo_models.entry import Case, Entry, without_compiled_torchvision
from zoo_run import difference, in_float64, lost, run

import stabilize

#: Families of models whose exports are compared.
FAMILIES = ("encoders", "decoders", "state spaces and recurrences", "encoder-decoders", "audio", "vision", "diffusion")


def sessions(models: Sequence[onnx.ModelProto]) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return [
        onnxruntime.InferenceSession(m.SerializeToString(), options, providers=["CPUExecutionProvider"]) for m in models
    ]


def ratio(run: Sequence[Any], feeds: Mapping[str, Any], rounds: int) -> float:
    """Median time of the second session by that of the first, runs alternating."""
    times: list[list[float]] = [[], []]
    for i in range(rounds + 3):
        for side in (0, 1) if i % 2 else (1, 0):
            start = time.perf_counter()
            run[side].run(None, feeds)
            times[side].append(time.perf_counter() - start)
    before, after = (statistics.median(t[3:]) for t in times)
    return after / before


def measured(entry: Entry, rounds: int) -> dict[str, Any]:
    case: Case = made(entry)
    case.module.eval()
    args, kwargs = ((), dict(case.inputs)) if isinstance(case.inputs, Mapping) else (tuple(case.inputs), {})
    start = time.perf_counter()
    default = torch.onnx.export(case.module, args, kwargs=kwargs, dynamo=True, verbose=False)
    middle = time.perf_counter()
    assert default is not None
    ours, report = stabilize.export_onnx(case.module, args, kwargs=kwargs, return_report=True)
    end = time.perf_counter()
    models = [default.model_proto, ours.model_proto]
    for model in models:
        onnx.checker.check_model(model, full_check=True)
    both = sessions(models)
    leaves = [t for t in pytree.tree_leaves(case.inputs) if isinstance(t, torch.Tensor)]
    feeds = {i.name: t.detach().numpy() for i, t in zip(both[0].get_inputs(), leaves, strict=True)}
    results = [[torch.from_numpy(a) for a in s.run(None, feeds)] for s in both]
    truth = run(*in_float64(case.module, case.inputs))
    eager = run(case.module, case.inputs)
    return {
        "nodes": [len(m.graph.node) for m in models],
        "bytes": [m.ByteSize() for m in models],
        "latency": ratio(both, feeds, rounds),
        "errors": [difference(r, truth) for r in (eager, *results)],
        "lost": [lost(r, truth)[0] for r in (eager, *results)],
        "seconds": [middle - start, end - middle],
        "codes": [r.code for r in report.rewrites],
        "certificate": "" if report.certificate is None or report.certificate.accepted else report.certificate.reason,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="names of models")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    without_compiled_torchvision()
    rows: dict[str, dict[str, Any]] = {}
    print("| model | size | latency | error: PyTorch | torch.onnx.export | export_onnx | rewritten |")
    print("|---|---:|---:|---:|---:|---:|---|")
    for entry in MODELS:
        if (asked.only and entry.name not in asked.only) or FAMILY[entry.name] not in FAMILIES or entry.refused:
            continue
        try:
            row = rows[entry.name] = measured(entry, asked.rounds)
        except Exception as error:  # a model that neither exports, or that ONNX Runtime does not run, is left out
            rows[entry.name] = {"failed": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"}
            continue
        size, errors = row["bytes"][1] / row["bytes"][0], " | ".join(f"{e:.2g}" for e in row["errors"])
        told = ", ".join(row["codes"]) + (f" ({row['certificate']})" if row["certificate"] else "")
        print(f"| {entry.name} | {size:.3f} | {row['latency']:.2f} | {errors} | {told} |", flush=True)
    good = [r for r in rows.values() if "failed" not in r]
    if good:
        print(
            f"\n{len(good)} models; size ×{statistics.median(r['bytes'][1] / r['bytes'][0] for r in good):.3f}, ",
            end="",
        )
        print(f"latency ×{statistics.median(r['latency'] for r in good):.3f} in the middle, ", end="")
        print(f"×{max(r['latency'] for r in good):.2f} at most.")
        print(
            f"Less accurate than the default export: {sum(r['errors'][2] > 2 * r['errors'][1] + 1e-7 for r in good)}."
        )
    for name, failed in ((n, r["failed"]) for n, r in rows.items() if "failed" in r):
        print(f"- {name}: {failed}")
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""float16 converters for ONNX on the same models, judged by the same rules in one process.

    python benchmarks/half_precision.py                               # every model; peers that are installed
    python benchmarks/half_precision.py --models mask,VAE --verbose
    python -m venv v && v/bin/pip install onnxconverter-common        # a peer of an environment of its own:
    python benchmarks/half_precision.py --peers v/lib/python3.11/site-packages

Converters: `stabilize.convert`; `onnxconverter_common.float16` and its `auto_mixed_precision`;
`onnxruntime.transformers.float16`; all with float32 inputs and outputs, and their own defaults. Those that take data
(ours and auto_mixed_precision) are given one batch; the judging is on three others.

valid: by ONNX's checker with full shape inference. lost: entries that are not finite and should be, in ONNX Runtime
on the CPU, and with every float16 value rounded (it computes most float16 operators in float32, so that what overflows
on other hardware does not there). error: the largest against float64, relative to the largest entry of its output,
rounded. wide: nodes that give float32. casts, KiB: of the file. time: the least of interleaved runs in ONNX Runtime on
this CPU, which has no float16 arithmetic, over that of float32.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnx
import panel_path  # noqa: F401
import torch
from half_models import PUBLIC, SUBJECTS, Inputs, Subject
from zoo_models.entry import without_compiled_torchvision

import stabilize
from stabilize.certification import OnnxShadow
from stabilize.conversion.emulate import emulated
from stabilize.conversion.running import Session
from stabilize.conversion.target import target_of
from stabilize.errors import StabilizeError
from stabilize.frontends.onnx_run import OnnxRunner

Converter = Callable[[onnx.ModelProto, Inputs], onnx.ModelProto]
Case = tuple[Inputs, list[np.ndarray]]

_TARGET = target_of("fp16")


def _ours(model: onnx.ModelProto, data: Inputs) -> onnx.ModelProto:
    return stabilize.convert(model, "fp16", input_data=data)


def _common(model: onnx.ModelProto, data: Inputs) -> onnx.ModelProto:
    converter: Any = import_module("onnxconverter_common.float16")
    found: onnx.ModelProto = converter.convert_float_to_float16(model, keep_io_types=True)
    return found


def _mixed(model: onnx.ModelProto, data: Inputs) -> onnx.ModelProto:
    converter: Any = import_module("onnxconverter_common.auto_mixed_precision")
    found: onnx.ModelProto = converter.auto_convert_mixed_precision(
        model, data, rtol=0.01, atol=0.001, keep_io_types=True
    )
    return found


def _runtime(model: onnx.ModelProto, data: Inputs) -> onnx.ModelProto:
    converter: Any = import_module("onnxruntime.transformers.float16")
    tool: Any = import_module("onnxruntime.transformers.onnx_model")
    found: onnx.ModelProto = converter.convert_float_to_float16(model, keep_io_types=True)
    tool.OnnxModel(found).topological_sort()  # it leaves that to its callers
    return found


CONVERTERS: dict[str, Converter] = {
    "stabilize": _ours,
    "onnxconverter-common": _common,
    "auto_mixed_precision": _mixed,
    "onnxruntime.transformers": _runtime,
}


@dataclass
class Measured:
    """One conversion. error: None where nothing ran; problem: what went wrong first."""

    valid: bool = False
    lost_runtime: int | None = None
    lost_rounded: int | None = None
    error: float | None = None
    compared: int = 0
    wide: int = 0
    casts: int = 0
    size: int = 0
    ratio: float | None = None
    problem: str | None = None
    seconds: float = 0.0
    sessions: list[Session] = field(default_factory=list)


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Converters change what they are given."""
    return onnx.ModelProto.FromString(model.SerializeToString())


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    stated = {i.name: i.type.tensor_type.elem_type for i in (*graph.input, *graph.value_info, *graph.output)}
    return stated | {t.name: t.data_type for t in graph.initializer}


def judged(run: Callable[[Inputs], Sequence[np.ndarray]], cases: Sequence[Case]) -> tuple[int, float]:
    """Entries lost and the largest error, over all cases."""
    lost, worst = 0, 0.0
    for inputs, truth in cases:
        for found, exact in zip(run(inputs), truth, strict=True):
            known = np.isfinite(exact)
            gone = known & ~np.isfinite(found)
            lost += int(gone.sum())
            kept = known & ~gone
            if kept.any():
                off = np.abs(found[kept].astype(np.float64) - exact[kept]).max()
                worst = max(worst, float(off / (np.abs(exact[known]).max() or 1.0)))
    return lost, worst


def measured(convert: Converter, model: onnx.ModelProto, data: Inputs, cases: Sequence[Case]) -> Measured:
    result = Measured()
    start = time.perf_counter()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            found = convert(copied(model), data)
    except ModuleNotFoundError as error:
        result.problem = f"not installed ({error.name})"
        return result
    except Exception as error:  # a peer may raise anything
        result.problem = f"refuses: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        return result
    result.seconds = time.perf_counter() - start
    types = types_of(found)
    result.size = len(found.SerializeToString())
    result.casts = sum(n.op_type == "Cast" for n in found.graph.node)
    result.wide = sum(
        n.op_type not in ("Cast", "Constant") and any(types.get(o) == onnx.TensorProto.FLOAT for o in n.output)
        for n in found.graph.node
    )
    try:
        onnx.checker.check_model(found, full_check=True)
        result.valid = True
    except Exception as error:
        result.problem = f"invalid: {str(error).strip().splitlines()[0]}"
    try:
        session = Session(found, "the model", None)
        result.lost_runtime, _ = judged(session.run, cases)
        result.sessions.append(session)
        rounded = emulated(found, types, _TARGET, "the model")
        result.lost_rounded, result.error = judged(partial(rounded.run, session.outputs), cases)
        result.compared = sum(int(np.isfinite(t).sum()) for _, truth in cases for t in truth) - result.lost_rounded
    except StabilizeError as error:
        result.problem = result.problem or str(error)
    return result


def timed(sessions: Sequence[Session], inputs: Inputs, repeat: int = 60) -> list[float]:
    """The least seconds of each, run in turn: other work on the machine only adds."""
    seconds: list[list[float]] = [[] for _ in sessions]
    for i in range(repeat + 3):
        for session, found in zip(sessions, seconds, strict=True):
            start = time.perf_counter()
            session.run(inputs)
            if i >= 3:
                found.append(time.perf_counter() - start)
    return [min(found) for found in seconds]


def compared(subject: Subject, verbose: bool) -> list[str]:
    """The rows of one model."""
    try:
        model = subject.exported()
    except Exception as error:  # the exporter's, of a model that it does not take
        return [f"| **{subject.name}** | torch.onnx cannot export it: {type(error).__name__} | | | | | | | | |"]
    data, *others = (subject.inputs(np.random.default_rng(seed)) for seed in range(4))
    shadow = OnnxShadow(OnnxRunner(model, subject.name))
    cases = [
        (inputs, [t.double().numpy() for t in shadow.run({n: torch.as_tensor(a) for n, a in inputs.items()})])
        for inputs in others
    ]
    original = Session(model, subject.name, None)
    lost, error = judged(original.run, cases)
    size = len(model.SerializeToString())
    found = {name: measured(convert, model, data, cases) for name, convert in CONVERTERS.items()}
    running = {name: m for name, m in found.items() if m.sessions}
    first, *rest = timed([original, *(m.sessions[0] for m in running.values())], others[0])
    for each, seconds in zip(running.values(), rest, strict=True):
        each.ratio = seconds / first
    rows = [f"| **{subject.name}** | float32 | yes | {lost} | | {error:.1e} | | | {size / 1024:.0f} | 1 |"]
    for name, m in found.items():
        if not m.size:
            rows.append(f"| | {name} | {m.problem} | | | | | | | |")
            continue
        cells = (
            "yes" if m.valid else "no",
            "does not run" if m.lost_runtime is None else str(m.lost_runtime),
            "" if m.lost_rounded is None else str(m.lost_rounded),
            "" if m.error is None else f"{m.error:.1e}" if m.compared else "nothing left",
            str(m.wide),
            str(m.casts),
            f"{m.size / 1024:.0f}",
            "" if m.ratio is None else f"{m.ratio:.2f}",
        )
        rows.append(f"| | {name} | {' | '.join(cells)} |")
        if verbose and (m.problem or m.seconds > 1):
            print(f"{subject.name}: {name}: {m.seconds:.1f} s: {m.problem}", file=sys.stderr)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", default="", help="parts of names, separated by commas")
    parser.add_argument("--peers", help="a site-packages folder that holds onnxconverter-common")
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    if arguments.peers:
        sys.path.append(arguments.peers)  # at the end: what is installed here goes first
    logging.disable(logging.CRITICAL)
    wanted = arguments.models.split(",")
    print("| model | converter | valid | lost, runtime | lost, rounded | error | wide | casts | KiB | time |")
    print("|---|---|---|---:|---:|---:|---:|---:|---:|---:|")
    without_compiled_torchvision()
    public = PUBLIC if find_spec("transformers") else ()
    for subject in (*SUBJECTS, *public):
        if any(part in subject.name for part in wanted):
            print("\n".join(compared(subject, arguments.verbose)), flush=True)
    if not public:
        print("\ntransformers is not installed: its models are left out")


if __name__ == "__main__":
    main()

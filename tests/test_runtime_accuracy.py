"""The measurement of runtimes: a slice of it, on runtimes that are wrong in known ways, and its documents."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
MODULES = ("accuracy", "cases", "measure", "runners", "sweep", "table")


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """The modules of the benchmark by their last names."""
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(str(BENCHMARKS))
    import runtime_accuracy
    import runtime_cases
    import runtime_measure
    import runtime_runners
    import runtime_sweep
    import runtime_table

    found = (runtime_accuracy, runtime_cases, runtime_measure, runtime_runners, runtime_sweep, runtime_table)
    yield type("Bench", (), dict(zip(MODULES, found, strict=True)))
    patch.undo()
    for name in MODULES:
        sys.modules.pop(f"runtime_{name}", None)


def of(bench: Any, name: str) -> Any:
    return next(case for case in bench.cases.ALL if case.name == name)


# --- ONNX Runtime -----------------------------------------------------------------------------------------------------


def test_what_is_known_of_onnx_runtime_is_seen(bench: Any) -> None:
    settings = [s for s in bench.runners.SETTINGS if s.name in ("ONNX Runtime", "onnx.reference")]
    cases = [of(bench, name) for name in ("Exp", "Sigmoid", "ReduceLogSumExp", "ReduceL2", "Softmax", "log1p")]
    results = bench.measure.measured(cases, ["float32"], settings, 1 << 11)
    found = {(r.op, r.setting, r.composed): r for r in results}
    assert not [r for r in results if r.unsupported]
    assert found["Exp", "ONNX Runtime", False].worst < 1
    sigmoid = found["Sigmoid", "ONNX Runtime", False]
    assert (sigmoid.worst > 1e7, sigmoid.lost > 0, sigmoid.falls > 1e6) == (True, True, True)
    composed = found["Sigmoid", "ONNX Runtime", True]
    assert (composed.worst < 4, composed.lost, composed.non_finite, composed.missing) == (True, 0, 0, 0)
    assert composed.subnormal < 1
    assert found["Sigmoid", "onnx.reference", False].worst < 4
    assert found["ReduceLogSumExp", "ONNX Runtime", False].non_finite_at == "special"
    assert found["ReduceLogSumExp", "ONNX Runtime", True].non_finite == 0
    assert found["ReduceL2", "ONNX Runtime", False].non_finite > 0
    assert found["ReduceL2", "ONNX Runtime", True].worst < 4
    assert found["Softmax", "ONNX Runtime", False].worst < 4
    assert found["log1p", "ONNX Runtime", True].worst < 4
    assert ("log1p", "ONNX Runtime", False) not in found


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_formats(bench: Any, dtype: str) -> None:
    (setting,) = (s for s in bench.runners.SETTINGS if s.name == "onnx.reference")
    (result, composed) = bench.measure.measured([of(bench, "Sigmoid")], [dtype], [setting], 1 << 10)
    assert result.points > 1000
    assert max(result.worst, composed.worst) < 3


# --- runtimes that are wrong on purpose ---------------------------------------------------------------------------


def wrong(bench: Any, change: Any) -> Any:
    """The result for tanh of a runtime that computes it in float64 and then spoils it."""

    def run(model: onnx.ModelProto, tensors: list[torch.Tensor]) -> torch.Tensor:
        return change(tensors[0], torch.tanh(tensors[0].double()).float())

    problem = bench.measure.Problem.of(of(bench, "Tanh"), "float32", 1 << 11)
    (result,) = problem.judged(bench.runners.Setting("wrong", "onnx", "", run))
    return result


def test_a_right_runtime_is_right(bench: Any) -> None:
    result = wrong(bench, lambda x, y: y)
    assert result.worst <= 0.5
    assert (result.non_finite, result.missing, result.lost, result.falls) == (0, 0, 0, 0.0)


def test_what_is_lost(bench: Any) -> None:
    result = wrong(bench, lambda x, y: torch.where(x.abs() < 1e-3, torch.zeros_like(y), y))
    assert result.lost > 0
    assert abs(float(result.lost_at)) < 1e-3
    assert result.worst > 1e6


def test_what_is_not_finite(bench: Any) -> None:
    result = wrong(bench, lambda x, y: torch.where(x > 88, torch.full_like(y, torch.nan), y))
    assert result.non_finite > 0
    assert float(result.non_finite_at) > 88
    assert result.missing == 0


def test_what_should_not_be_finite(bench: Any) -> None:
    result = wrong(bench, lambda x, y: torch.nan_to_num(y))
    assert (result.missing, result.missing_at, result.non_finite) == (1, "nan", 0)


def test_what_falls(bench: Any) -> None:
    result = wrong(bench, lambda x, y: torch.where(x > 0.5, y - 1e-3, y))
    assert result.falls > 1000
    assert abs(float(result.falls_at) - 0.5) < 1e-3
    assert 1e3 < result.worst < 1e5


def test_an_error_of_one_ulp_is_measured_as_that(bench: Any) -> None:
    result = wrong(bench, lambda x, y: torch.nextafter(y, torch.full_like(y, 2.0)))
    assert 1 <= result.worst <= 2.5  # above 1 the next number is two of the ulps below it away


def test_what_cannot_be_run_is_said(bench: Any) -> None:
    def refuse(model: onnx.ModelProto, tensors: list[torch.Tensor]) -> torch.Tensor:
        raise bench.runners.Unsupported("no kernel")

    problem = bench.measure.Problem.of(of(bench, "Tanh"), "float32", 64)
    (result,) = problem.judged(bench.runners.Setting("none", "onnx", "", refuse))
    assert result.unsupported == "no kernel"


def test_an_absent_runtime_is_named(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    absent = bench.runners.Setting("Another", "a-package-that-nobody-wrote", "", None)
    assert bench.accuracy.present([absent]) == []
    assert capsys.readouterr().err == "Another: not measured, a-package-that-nobody-wrote is not installed\n"


# --- sweeps -----------------------------------------------------------------------------------------------------------


def test_half_precision_is_swept_whole(bench: Any) -> None:
    for dtype, count in (("float16", 2 * 0x7C00 + 1), ("bfloat16", 2 * 0x7F80 + 1)):
        line = bench.sweep.sweep(dtype, 1 << 16)
        assert len(line) == count + 1  # every number and both infinities, one zero; NaN
        assert bool(line[-1].isnan())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sweeps_reach_everywhere(bench: Any, dtype: str) -> None:
    line = bench.sweep.sweep(dtype, 1 << 12)[:-1].double()
    assert bool((line.diff() > 0).all())
    assert line[0] == -torch.inf
    assert line[-1] == torch.inf
    for low, high in ((1e-45, 1e-38), (1e-38, 1e-30), (-18.1, -17.9), (88.7, 88.8), (1e30, 1e38)):
        assert bool(((line > low) & (line < high)).any()), (low, high)


def test_everything_that_is_emitted_is_measured(bench: Any) -> None:
    """Elementwise, reducing and normalising primitives of the emitter: as an operator, or as what is composed."""
    from stabilize.frontends.onnx_emit import ROWS

    composed = {"bce_with_logits", "logcumsumexp", "nll_loss", "xlogy", "cumprod"}  # of what is measured, or products
    measured = {value.op for c in bench.cases.ALL for value in c.values(c.inputs("float32", 16)[1])[2]}
    exact = {
        "constant", "arange", "isnan", "not", "eq", "lt", "gt", "and", "or", "ne", "le", "ge", "detach", "cast", "any",
        "all", "argmax", "topk_values", "topk_indices", "reshape", "unsqueeze", "squeeze", "transpose", "slice",
        "gather", "concat", "one_hot",
    }  # fmt: skip
    operators = {case.op.lower() for case in bench.cases.ALL} | {"layer_norm", "rms_norm"}
    products = {"matmul", "attention"}
    assert set(ROWS) - measured - operators == composed | exact | products


# --- documents --------------------------------------------------------------------------------------------------------


def test_the_document_shows_the_kept_run() -> None:
    command = [sys.executable, "benchmarks/runtime_accuracy.py", "--from", "benchmarks/runtime_accuracy.json"]
    outcome = subprocess.run(command, capture_output=True, text=True, cwd=BENCHMARKS.parent, check=True)
    assert (BENCHMARKS.parent / "docs" / "runtimes.md").read_text() == outcome.stdout


def test_the_kept_run_is_whole(bench: Any) -> None:
    kept = json.loads((BENCHMARKS / "runtime_accuracy.json").read_text())
    assert {"onnxruntime", "openvino", "onnx"} <= set(kept["versions"])
    found = {(r["op"], r["dtype"], r["setting"]) for r in kept["results"]}
    for case in bench.cases.ALL:
        for dtype in ("float16", "bfloat16", "float32", "float64"):
            for setting in ("ONNX Runtime", "OpenVINO, f32", "onnx.reference"):
                assert (case.name, dtype, setting) in found, (case.name, dtype, setting)

"""Random models of branches, loops, scans and functions: what comes back computes the same, and is valid everywhere."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import onnxscript.optimizer
import pytest
from onnx import inliner, version_converter

import stabilize
from tests.frontends.onnx_random import Maker, feeds
from tests.frontends.onnx_support import names_of, run

Levels = onnxruntime.GraphOptimizationLevel
LEVELS = (Levels.ORT_DISABLE_ALL, Levels.ORT_ENABLE_BASIC, Levels.ORT_ENABLE_EXTENDED, Levels.ORT_ENABLE_ALL)


def at_level(proto: onnx.ModelProto, inputs: dict[str, np.ndarray], level: Levels) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, inputs)]


def agree(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    """Formulas of a few steps, each within a few units in the last place on these inputs, chained some ten times."""
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


#: Of the models made here ONNX Runtime calls one "not acyclic", before anything was changed; ONNX's checker does not.
REFUSED = 187


@pytest.mark.parametrize(
    "seed",
    [*range(16), *(pytest.param(s, marks=pytest.mark.slow) for s in range(16, 400) if s != REFUSED)],
)
def test_the_values_stay(seed: int) -> None:
    proto = Maker(seed).model()
    onnx.checker.check_model(proto, full_check=True)
    fixed, report = stabilize.optimize(proto, certify=False, return_report=True)
    if not report.rewrites:
        assert fixed.SerializeToString() == proto.SerializeToString()
        return
    onnx.checker.check_model(fixed, full_check=True)
    onnx.shape_inference.infer_shapes(fixed, strict_mode=True)
    names = names_of(fixed.graph)
    assert len(names) == len(set(names))
    wanted = run(proto, feeds(seed))
    for level in LEVELS:
        agree(at_level(fixed, feeds(seed), level), wanted)
    assert stabilize.optimize(fixed, certify=False).SerializeToString() == fixed.SerializeToString()


@pytest.mark.parametrize("seed", range(400, 408))
def test_other_tools_afterwards_keep_the_values(seed: int) -> None:
    """onnxscript's optimizer inlines functions and folds branches; the converter goes to a newer opset."""
    proto = Maker(seed).model()
    fixed = stabilize.optimize(proto, certify=False)
    wanted = run(proto, feeds(seed))
    agree(run(onnxscript.optimizer.optimize(fixed), feeds(seed)), wanted)
    agree(run(inliner.inline_local_functions(fixed), feeds(seed)), wanted)
    if not fixed.functions:  # which the converter does not convert
        agree(run(version_converter.convert_version(fixed, 21), feeds(seed)), wanted)

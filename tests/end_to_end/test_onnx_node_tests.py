"""No harm: every decomposition in the ONNX standard's own tests is optimised and still computes its stored outputs.

The `_expanded` node tests are the function bodies of the standard: softmax, losses, attention, normalisation and the
rest spelled in elementary operators, most of them already stable. Some families are not: Softplus as log(exp(x) + 1),
Elu by exp(x) − 1, and layer, group and mean-variance normalisation by E[x²] − E[x]². Those must be repaired; the others
may be fused, and come back byte for byte otherwise.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import onnx

import stabilize
from stabilize.report import Report
from tests.frontends.onnx_support import op_types, run

#: Families whose standard decomposition is naive, and what they become.
NAIVE = {
    "test_softplus": "Div",
    "test_elu": "Tanh",
    "test_layer_normalization": "LayerNormalization",
    "test_group_normalization": "LayerNormalization",
    "test_mvn": "ReduceL2",
}


@cache
def expanded() -> dict[str, Any]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {c.name: c for c in collect_testcases(None) if "_expanded" in c.name}


@cache
def optimised(name: str) -> tuple[onnx.ModelProto, Report]:
    fixed, report = stabilize.optimize(expanded()[name].model, return_report=True)
    assert isinstance(fixed, onnx.ModelProto)
    assert isinstance(report, Report)
    return fixed, report


def arrays(values: list[Any]) -> list[np.ndarray]:
    return [onnx.numpy_helper.to_array(v) if isinstance(v, onnx.TensorProto) else np.asarray(v) for v in values]


def is_naive(name: str) -> bool:
    return any(name.startswith(family) for family in NAIVE)


def test_there_are_hundreds() -> None:
    assert len(expanded()) > 450


def check_outputs(name: str, fixed: onnx.ModelProto) -> None:
    case = expanded()[name]
    inputs, outputs = (arrays(part) for part in case.data_sets[0])
    results = run(fixed, {i.name: x for i, x in zip(case.model.graph.input, inputs, strict=True)})
    for got, want in zip(results, outputs, strict=True):
        np.testing.assert_allclose(got, want, rtol=case.rtol, atol=case.atol, err_msg=name)


def test_stable_decompositions_are_at_most_fused() -> None:
    """Byte for byte the same, or fewer nodes that compute the stored outputs; no error in either case."""
    untouched = 0
    for name, case in expanded().items():
        if is_naive(name):
            continue
        fixed, report = optimised(name)
        assert [f for f in report.findings if f.severity == "error"] == [], name
        if fixed.SerializeToString() == case.model.SerializeToString():
            untouched += 1
        else:
            assert len(fixed.graph.node) < len(case.model.graph.node), name
            check_outputs(name, fixed)
    assert untouched > 400


def test_naive_decompositions_are_repaired_and_match_their_stored_outputs() -> None:
    naive = [name for name in expanded() if is_naive(name)]
    assert len(naive) >= 5
    for name in naive:
        fixed, report = optimised(name)
        assert report.rewrites, name
        if not name.startswith(("test_layer", "test_group", "test_mvn")):  # those have several places each
            assert len(report.rewrites) == 1, name
        assert next(op for family, op in NAIVE.items() if name.startswith(family)) in op_types(fixed)
        check_outputs(name, fixed)


def test_a_repaired_model_is_left_alone() -> None:
    for name in expanded():
        if is_naive(name):
            fixed, _ = optimised(name)
            again, report = stabilize.optimize(fixed, return_report=True)
            assert isinstance(again, onnx.ModelProto)
            assert again.SerializeToString() == fixed.SerializeToString(), name
            assert report.findings == [], name

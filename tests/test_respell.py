"""Operators that the named runtime computes badly: written in others, proved by running both, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented

import stabilize
from stabilize.errors import UsageError
from stabilize.frontends.onnx import open_onnx
from stabilize.frontends.onnx_expand import EXPANSIONS
from stabilize.frontends.onnx_runtimes import Runtime
from stabilize.graph.build import Builder
from stabilize.graph.value import Value
from stabilize.respell import respelled
from tests.frontends.onnx_support import model, op_types, run

GATE = model("g (float[2, 4] x) => (float[2, 4] y) { y = Sigmoid(x) }")
TAIL = np.asarray([[-103.0, -88.0, -40.0, -18.0], [-17.3, 0.0, 17.0, np.inf]], np.float32)


def sigmoid(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x.astype(np.float64)))


def rewritten(proto: onnx.ModelProto, runtime: str = "onnxruntime", fast: Sequence[str] = ()) -> onnx.ModelProto:
    fixed = stabilize.optimize(proto, runtime=runtime, allow_fast=fast)
    onnx.checker.check_model(fixed, full_check=True)
    return fixed


def test_the_tail_is_lost_and_kept() -> None:
    """The defect is real, and gone."""
    truth = sigmoid(TAIL)
    (lost,) = run(GATE, {"x": TAIL})
    assert (lost[0] == 0).all()
    assert (truth[0] > 0).all()
    (kept,) = run(rewritten(GATE), {"x": TAIL})
    np.testing.assert_allclose(kept, truth, rtol=3e-7, atol=1.5e-45)


def test_the_report_tells_and_proves_it() -> None:
    _, report = stabilize.optimize(GATE, runtime="onnxruntime", return_report=True)
    (finding,), (rewrite,) = report.findings, report.rewrites
    assert (finding.code, finding.severity, finding.node, finding.fixable) == ("STB810", "warning", "y", True)
    assert finding.message == "ONNX Runtime has no good kernel for Sigmoid in float32"
    assert (rewrite.naive, rewrite.stable) == ("sigmoid(x) by Sigmoid", "sigmoid(x) by Min, Exp, Add, Div")
    assert rewrite.certificate is not None
    assert rewrite.certificate.accepted
    families = rewrite.certificate.to_dict()["families"]
    assert isinstance(families, list)
    assert max(f["ulps_before"] for f in families) > 1e6
    assert max(f["ulps_after"] for f in families) < 4
    assert not report.declined


def test_nothing_is_touched_unless_a_measured_runtime_is_named() -> None:
    for runtime in ("portable", "tensorrt", "tvm"):
        assert rewritten(GATE, runtime).SerializeToString() == GATE.SerializeToString()
    assert stabilize.optimize(GATE).SerializeToString() == GATE.SerializeToString()


def test_a_good_kernel_is_kept() -> None:
    assert rewritten(GATE, "openvino").SerializeToString() == GATE.SerializeToString()
    healthy = model("g (float[3] x) => (float[3] y) { a = Tanh(x) b = Exp(a) y = Softplus(b) }")
    assert rewritten(healthy).SerializeToString() == healthy.SerializeToString()


def test_allow_fast_keeps_the_runtimes_own() -> None:
    assert rewritten(GATE, fast=["Sigmoid"]).SerializeToString() == GATE.SerializeToString()
    both = model("g (float[2, 4] x) => (float[2, 4] y, float[2, 1] z) "
                 "<int64[1] axes = {1}> { y = Sigmoid(x) z = ReduceL2(x, axes) }")  # fmt: skip
    kept = op_types(rewritten(both, fast=["ReduceL2"]))
    assert "ReduceL2" in kept
    assert "Sigmoid" not in kept


def test_ignored_as_a_rule() -> None:
    assert (
        stabilize.optimize(GATE, runtime="onnxruntime", ignore="STB8").SerializeToString() == GATE.SerializeToString()
    )
    assert op_types(stabilize.optimize(GATE, runtime="onnxruntime", select="STB810")) == ["Min", "Exp", "Add", "Div"]


def test_twice_changes_nothing_more() -> None:
    once = rewritten(GATE)
    assert rewritten(once).SerializeToString() == once.SerializeToString()


def test_names_shapes_and_equal_nodes_are_kept() -> None:
    proto = model("g (float[n, 3] x) => (float[n, 3] y, float[n, 3] z) { y = Sigmoid(x) w = Sigmoid(x) z = Mul(w, x) }")
    fixed = rewritten(proto)
    assert [o.name for o in fixed.graph.output] == ["y", "z"]
    assert op_types(fixed).count("Exp") == 1
    assert "Sigmoid" not in op_types(fixed)
    x = np.asarray([[-60.0, 0.0, 5.0]], np.float32)
    y, z = run(fixed, {"x": x})
    np.testing.assert_allclose(y, sigmoid(x), rtol=3e-7)
    np.testing.assert_allclose(z, x * sigmoid(x), rtol=4e-7)


def test_inside_bodies_and_functions() -> None:
    proto = model("""g (bool c, float[4] x) => (float[4] y) {
        y = If (c) <then_branch = a () => (float[4] t) { t = Sigmoid(x) },
                    else_branch = b () => (float[4] e) { e = Neg(x) }>
    }""")
    fixed, report = stabilize.optimize(proto, runtime="onnxruntime", return_report=True)
    (y,) = run(fixed, {"c": np.asarray(True), "x": TAIL[0]})
    np.testing.assert_allclose(y, sigmoid(TAIL[0]), rtol=3e-7, atol=1.5e-45)
    assert [r.code for r in report.rewrites] == ["STB810"]
    assert report.rewrites[0].node.endswith("/t")


def test_float64() -> None:
    proto = model("g (double[4] x) => (double[4] y) { y = Sigmoid(x) }")
    x = np.asarray([-700.0, -88.03, 0.0, 36.0])
    assert abs(run(proto, {"x": x})[0][0] / sigmoid(x)[0] - 1) > 0.5
    np.testing.assert_allclose(run(rewritten(proto), {"x": x})[0], sigmoid(x), rtol=1e-15)


def test_float16_is_computed_in_float32_and_left_alone() -> None:
    """Within 2 ulp: not worth its time, and silence."""
    proto = model("g (float16[4] x) => (float16[4] y) { y = Sigmoid(x) }")
    fixed, report = stabilize.optimize(proto, runtime="onnxruntime", return_report=True)
    assert fixed.SerializeToString() == proto.SerializeToString()
    assert not report.findings


def test_a_log_sum_exp_of_masked_rows() -> None:
    proto = model(
        "g (float[2, 3] x) => (float[2] y) <int64[1] axes = {1}> { y = ReduceLogSumExp <keepdims = 0> (x, axes) }"
    )
    x = np.asarray([[-np.inf, -144.0, -np.inf], [1.0, 2.0, 3.0]], np.float32)
    assert run(proto, {"x": x})[0][0] == -np.inf
    np.testing.assert_allclose(run(rewritten(proto), {"x": x})[0], [-144.0, 3.407606], rtol=1e-6)


# --- near misses --------------------------------------------------------------------------------------------------


def test_a_name_of_another_domain_is_another_operator() -> None:
    proto = model("g (float[4] x) => (float[4] y) { y = test.Sigmoid(x) }")
    assert rewritten_without_check(proto).SerializeToString() == proto.SerializeToString()


def test_a_function_of_the_model_is_another_operator() -> None:
    proto = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 18, "own" : 1]>
        g (float[4] x) => (float[4] y) { y = own.Sigmoid(x) }
        <domain: "own", opset_import: ["" : 18]> Sigmoid (a) => (b) { b = Relu(a) }""")
    assert rewritten_without_check(proto).SerializeToString() == proto.SerializeToString()


def test_types_that_are_not_known_are_left_alone() -> None:
    proto = model("g (float[4] x) => (float[4] y) { s = test.Other(x) t = Sigmoid(s) y = Relu(t) }")
    assert rewritten_without_check(proto).SerializeToString() == proto.SerializeToString()


def rewritten_without_check(proto: onnx.ModelProto) -> onnx.ModelProto:
    """For models that no runtime could run."""
    return stabilize.optimize(proto, runtime="onnxruntime")


def test_a_version_that_computes_it_well_is_believed() -> None:
    """Were it in the table, ONNX Runtime's Softplus would be found to be as good as what would stand for it."""
    proto = model("g (float[8] x) => (float[8] y) { y = Softplus(x) }")
    host = open_onnx(proto, Runtime("onnxruntime", avoided=frozenset({("Softplus", "float32")})))
    assert host.coarse()
    same, report = respelled(host, "m", certify=True)
    assert same is host
    assert not (report.findings)
    assert not (report.rewrites)
    assert not (report.declined)
    changed, report = respelled(host, "m", certify=False)
    assert changed is not host
    assert report.rewrites[0].certificate is None


def test_what_is_worse_is_declined(monkeypatch: pytest.MonkeyPatch) -> None:
    """eˣ/(1 + eˣ) without its bound is NaN where Sigmoid is 1."""

    def naive(b: Builder, x: Value) -> Value:
        e = b.make("exp", x)
        return b.make("div", e, b.apply("add", e, 1.0))

    monkeypatch.setitem(EXPANSIONS, "sigmoid", replace(EXPANSIONS["sigmoid"], build=naive))
    fixed, report = stabilize.optimize(GATE, runtime="onnxruntime", return_report=True)
    assert fixed.SerializeToString() == GATE.SerializeToString()
    (declined,), (finding,) = report.declined, report.findings
    assert "is nan where the original gave 1" in declined.reason
    assert not finding.fixable


def test_a_kernel_that_is_missing() -> None:
    """ONNX Runtime has none for Cosh in float64: a model that it refuses is one that it runs."""
    proto = model("g (double[4] x) => (double[4] y) { y = Cosh(x) }")
    with pytest.raises(NotImplemented):
        run(proto, {"x": np.ones(4)})
    x = np.asarray([-3.0, 0.0, 1e-3, 700.0])
    np.testing.assert_allclose(run(rewritten(proto), {"x": x})[0], np.cosh(x), rtol=1e-15)


def test_nodes_that_share_what_they_are_made_of() -> None:
    """Swish(x) is made of σ(x), which stands before it or behind."""
    for first, second in (("y = Swish(x)", "z = Sigmoid(x)"), ("z = Sigmoid(x)", "y = Swish(x)")):
        proto = model(f"g (float[2, 4] x) => (float[2, 4] y, float[2, 4] z) {{ {first} {second} }}", opset=24)
        fixed = rewritten(proto)
        assert not {"Swish", "Sigmoid"} & set(op_types(fixed))
        y, z = run(fixed, {"x": TAIL})
        np.testing.assert_allclose(z, sigmoid(TAIL), rtol=3e-7, atol=1.5e-45)
        np.testing.assert_allclose(y[0, 1:], (TAIL * sigmoid(TAIL))[0, 1:], rtol=1e-6, atol=1e-43)


def test_every_kind_of_model(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(GATE, path)
    assert op_types(stabilize.optimize(str(path), runtime="onnxruntime")) == ["Min", "Exp", "Add", "Div"]  # type: ignore[arg-type]
    fixed = stabilize.optimize(ir.serde.deserialize_model(GATE), runtime="onnxruntime")
    assert [node.op_type for node in fixed.graph] == ["Min", "Exp", "Add", "Div"]


# --- lint ---------------------------------------------------------------------------------------------------------


def test_lint_tells_of_a_runtime_that_is_named() -> None:
    assert not stabilize.lint(GATE, budget=0).findings
    (finding,) = stabilize.lint(GATE, budget=0, runtime="onnxruntime").findings
    assert (finding.code, finding.severity, finding.node) == ("STB810", "warning", "y")
    assert not stabilize.lint(GATE, budget=0, runtime="onnxruntime", allow_fast="Sigmoid").findings
    assert not stabilize.lint(GATE, budget=0, runtime="onnxruntime", ignore="STB8").findings
    inside = model("""g (bool c, float[4] x) => (float[4] y) {
        y = If (c) <then_branch = a () => (float[4] t) { t = Sigmoid(x) },
                    else_branch = b () => (float[4] e) { e = Neg(x) }>
    }""")
    (finding,) = stabilize.lint(inside, budget=0, runtime="onnxruntime").findings
    assert finding.node.endswith("/t")


# --- wrong arguments ----------------------------------------------------------------------------------------------


def test_unknown_names_are_told() -> None:
    with pytest.raises(UsageError, match="runtime 'onnx' is not one of portable, onnxruntime, openvino, tensorrt, tvm"):
        stabilize.optimize(GATE, runtime="onnx")
    with pytest.raises(
        UsageError, match="allow_fast 'Sigmoud' is no operator that a runtime computes badly; these are"
    ):
        stabilize.optimize(GATE, allow_fast=["Sigmoud"])
    with pytest.raises(UsageError, match="allow_fast is 3"):
        stabilize.optimize(GATE, allow_fast=3)  # type: ignore[call-overload]


@pytest.mark.parametrize("keywords", [{"runtime": "onnxruntime"}, {"allow_fast": "Sigmoid"}])
@pytest.mark.parametrize("given", [(), (torch.ones(2),)])
def test_pytorch_has_no_runtime_to_name(keywords: dict[str, str], given: tuple[object, ...]) -> None:
    with pytest.raises(UsageError, match="PyTorch runs a Sigmoid: export it"):
        stabilize.optimize(torch.nn.Sigmoid(), *given, **keywords)  # type: ignore[call-overload]

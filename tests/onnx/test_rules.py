"""The engine as a rule set of onnxscript's rewriter, alone and together with onnxscript's own rules."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnxscript.rewriter import MatchingTracer, RewritePass, RewriteRule, RewriteRuleSet, rewrite
from onnxscript.rewriter.rules.common import add_0_rule, cast_cast_rule, div_by_1_rule, mul_by_1_rule

from stabilize.errors import ModelError, UsageError
from stabilize.onnx import rewrite_rules
from tests.frontends.onnx_support import ROWS, close, model, op_types, run, softmax

#: A softmax behind a factor of 1, which a rule of onnxscript removes.
TEXT = """g (float[n, 4] x) => (float[n, 4] y) <int64[1] axes = {1}, float one = {1}> {
  z = Mul (x, one)
  e = Exp (z)
  s = ReduceSum <keepdims = 1> (e, axes)
  p = Div (e, s)
  y = Div (p, one)
}"""
OTHERS = (mul_by_1_rule, div_by_1_rule, cast_cast_rule)


def test_a_proto_in_a_proto_out() -> None:
    given = model(TEXT)
    before = given.SerializeToString()
    fixed = rewrite(given, pattern_rewrite_rules=rewrite_rules())
    assert given.SerializeToString() == before
    assert isinstance(fixed, onnx.ModelProto)
    onnx.checker.check_model(fixed, full_check=True)
    assert "Softmax" in op_types(fixed)
    assert "Exp" not in op_types(fixed)
    close(run(fixed, {"x": ROWS})[0], softmax(ROWS))


def test_it_commutes_with_other_rules() -> None:
    together = rewrite(model(TEXT), pattern_rewrite_rules=rewrite_rules(*OTHERS))
    before = rewrite(rewrite(model(TEXT), pattern_rewrite_rules=OTHERS), pattern_rewrite_rules=rewrite_rules())
    after = rewrite(rewrite(model(TEXT), pattern_rewrite_rules=rewrite_rules()), pattern_rewrite_rules=OTHERS)
    for fixed in (together, before, after):
        assert [op for op in op_types(fixed) if op != "Identity"] == ["Softmax"]
        close(run(fixed, {"x": ROWS})[0], softmax(ROWS))


def test_the_pass_of_onnxscript_says_what_was_modified() -> None:
    rules = rewrite_rules(*OTHERS)
    assert isinstance(rules, RewriteRuleSet)
    step, given = RewritePass(rules), ir.from_proto(model(TEXT))
    assert step(given).modified
    assert rules.report is not None
    assert [r.code for r in rules.report.rewrites] == ["STB101"]
    assert not step(given).modified
    assert rules.report.rewrites == []


def test_the_number_of_rewrites_is_counted() -> None:
    assert rewrite_rules().apply_to_model(ir.from_proto(model(TEXT))) == 1
    assert rewrite_rules(*OTHERS).apply_to_model(ir.from_proto(model(TEXT))) == 2  # x·1 is x to the engine
    assert rewrite_rules(ignore="STB1").apply_to_model(ir.from_proto(model(TEXT))) == 0


def test_the_other_rules_are_those_that_are_iterated_over() -> None:
    rules: list[RewriteRule] = list(rewrite_rules(*OTHERS))
    assert rules == list(OTHERS)
    assert repr(rewrite_rules(cast_cast_rule)) == "rewrite_rules(CastCast)"


def test_a_tracer_changes_nothing() -> None:
    given = ir.from_proto(model(TEXT))
    before = ir.to_proto(given).SerializeToString()
    assert rewrite_rules(*OTHERS).apply_to_model(given, tracer=MatchingTracer()) == 0
    assert ir.to_proto(given).SerializeToString() == before


def test_rewrites_are_printed_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    rewrite_rules().apply_to_model(ir.from_proto(model(TEXT)))
    assert capsys.readouterr().out == ""
    rewrite_rules().apply_to_model(ir.from_proto(model(TEXT)), verbose=1)
    assert "rewrote[STB101] naive-softmax" in capsys.readouterr().out


def test_a_guard_that_another_rule_would_drop_is_seen_first() -> None:
    """add_0_rule of onnxscript takes + 1e-9 for + 0."""
    text = """g (float[n, 4] x) => (float[n, 4] y) <int64[1] axes = {1}, float eps = {1e-9}> {
      e = Exp (x)
      s = ReduceSum <keepdims = 1> (e, axes)
      p = Div (e, s)
      q = Add (p, eps)
      y = Log (q)
    }"""
    x = np.asarray([[-200, 0, 1, 2]], np.float32)
    truth = np.log(softmax(x) + np.float64(np.float32(1e-9)))
    fixed = rewrite(model(text), pattern_rewrite_rules=rewrite_rules(add_0_rule))
    np.testing.assert_allclose(run(fixed, {"x": x})[0], truth, rtol=1e-6)


def test_errors() -> None:
    with pytest.raises(UsageError, match="allow 'all'"):
        rewrite_rules(allow="all")
    old = ir.from_proto(model(TEXT))
    old.graph.opset_imports[""] = 9
    with pytest.raises(ModelError, match="opset 9"):
        rewrite_rules().apply_to_model(old)

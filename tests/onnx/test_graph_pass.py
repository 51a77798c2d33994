"""The engine between other passes of onnx_ir: in place, true in what it says was modified, on unfinished graphs."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnxscript.optimizer
import pytest
import torch
from onnx_ir.passes import common

from stabilize.errors import ModelError, UsageError
from stabilize.onnx import StabilizePass
from tests.frontends.onnx_support import ROWS, close, model, run, softmax

NAIVE = """g (float[n, 4] x) => (float[n, 4] y) <int64[1] axes = {1}> {
  same = Identity (x)
  e = Exp (same)
  s = ReduceSum <keepdims = 1> (e, axes)
  y = Div (e, s)
}"""
GUARDED = """g (float[n, 4] x) => (float[n, 4] y) <int64[1] axes = {1}, float eps = {1e-9}> {
  e = Exp (x)
  s = ReduceSum <keepdims = 1> (e, axes)
  p = Div (e, s)
  q = Add (p, eps)
  y = Log (q)
}"""
STABLE = "g (float[n, 4] x) => (float[n, 4] y) { a = Relu (x) y = Softmax <axis = 1> (a) }"


class OptimizePass(ir.passes.InPlacePass):
    """The optimizer of onnxscript, which torch.onnx.export runs by default."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        onnxscript.optimizer.optimize_ir(model)
        return ir.passes.PassResult(model, True)


def op_types(given: ir.Model) -> list[str]:
    return [node.op_type for node in given.graph]


def result(given: ir.Model) -> np.ndarray:
    (y,) = run(ir.to_proto(given), {"x": ROWS})
    return y


def test_the_model_stays_and_is_given_another_graph() -> None:
    given, step = ir.from_proto(model(NAIVE)), StabilizePass()
    given.meta["mine"], given.metadata_props["kept"], given.doc_string = 1, "yes", "said"
    assert step.report is None
    outcome = step(given)
    assert outcome.model is given
    assert outcome.modified
    assert op_types(given) == ["Softmax"]
    assert (given.meta["mine"], given.metadata_props["kept"], given.doc_string) == (1, "yes", "said")
    assert step.report is not None
    assert [r.code for r in step.report.rewrites] == ["STB101"]
    certificate = step.report.rewrites[0].certificate
    assert certificate is not None
    assert certificate.accepted
    close(result(given), softmax(ROWS))


def test_a_second_run_says_that_it_did_nothing() -> None:
    given, step = ir.from_proto(model(NAIVE)), StabilizePass()
    step(given)
    graph, before = given.graph, ir.to_proto(given).SerializeToString()
    assert not step(given).modified
    assert given.graph is graph
    assert ir.to_proto(given).SerializeToString() == before
    assert step.report is not None
    assert step.report.rewrites == []


def test_a_model_that_needs_nothing_keeps_its_graph() -> None:
    given, step = ir.from_proto(model(STABLE)), StabilizePass()
    graph, nodes = given.graph, list(given.graph)
    assert not step(given).modified
    assert given.graph is graph
    assert all(a is b for a, b in zip(given.graph, nodes, strict=True))


def test_a_functional_one_leaves_its_argument_alone() -> None:
    given = ir.from_proto(model(NAIVE))
    outcome = ir.passes.functionalize(StabilizePass())(given)
    assert outcome.modified
    assert op_types(given)[-1] == "Div"
    assert op_types(outcome.model) == ["Softmax"]


ROUND: dict[str, Callable[[], list[ir.passes.PassBase]]] = {
    "first": lambda: [StabilizePass(), *clean_up()],
    "last": lambda: [*clean_up(), StabilizePass()],
    "between": lambda: [*clean_up(), StabilizePass(), *clean_up()],
}


def clean_up() -> list[ir.passes.PassBase]:
    return [
        common.LiftConstantsToInitializersPass(lift_all_constants=True),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.IdentityEliminationPass(),
        common.ShapeInferencePass(),
        common.NameFixPass(),
        common.RemoveUnusedNodesPass(),
        common.TopologicalSortPass(),
        common.CheckerPass(),
    ]


@pytest.mark.parametrize("place", ROUND)
def test_in_a_sequence_with_the_passes_of_onnx_ir(place: str) -> None:
    given = ir.from_proto(model(NAIVE))
    outcome = ir.passes.Sequential(*ROUND[place]())(given)
    assert outcome.modified
    assert op_types(outcome.model) == ["Softmax"]
    close(result(outcome.model), softmax(ROWS))


def test_a_manager_stops_when_nothing_changes() -> None:
    given, seen = ir.from_proto(model(NAIVE)), list[bool]()

    class Count(ir.passes.InPlacePass):
        def call(self, model: ir.Model) -> ir.passes.PassResult:
            seen.append(True)
            return ir.passes.PassResult(model, False)

    assert ir.passes.PassManager([StabilizePass(), Count()], steps=9, early_stop=True)(given).modified
    assert len(seen) == 2


def test_before_the_optimizer_of_onnxscript_a_guard_is_still_seen() -> None:
    """log(p + 1e-9) is logaddexp(log p, ln 1e-9); the optimizer takes + 1e-9 for + 0."""
    x = np.asarray([[-200, 0, 1, 2]], np.float32)
    truth = np.log(softmax(x) + np.float64(np.float32(1e-9)))
    steps: list[ir.passes.PassBase] = [StabilizePass(), OptimizePass()]
    for sequence, is_kept in ((steps, True), (steps[::-1], False)):
        given = ir.from_proto(model(GUARDED))
        ir.passes.Sequential(*sequence)(given)
        (y,) = run(ir.to_proto(given), {"x": x})
        assert np.allclose(y, truth, rtol=1e-6) == is_kept


def test_a_program_of_the_exporter() -> None:
    class Head(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.logsigmoid(x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(Head(), (torch.randn(3, 4),), dynamo=True, verbose=False)
    assert program is not None
    assert op_types(program.model) == ["Sigmoid", "Log"]
    StabilizePass()(program.model)
    (y,) = program(torch.full((3, 4), -200.0))
    torch.testing.assert_close(y, torch.full((3, 4), -200.0))


# --- unfinished graphs ----------------------------------------------------------------------------------------------


def built(type: ir.TypeProtocol | None, shape: ir.Shape | None, rename: str | None = None) -> ir.Model:
    """e/Σe made by hand: without types, shapes or names inside. rename: one name for everything inside."""
    x, tape = ir.Value(name="x", type=type, shape=shape), ir.tape.Tape()
    axes = tape.initializer(ir.tensor(np.asarray([1]), name="axes"))
    e = tape.op("Exp", [x])
    s = tape.op("ReduceSum", [e, axes], {"keepdims": 1})
    p = tape.op("Div", [e, s])
    y = tape.op("Relu", [p])
    for value in (e, s, p) if rename else ():
        value.name = rename
    y.type, y.shape = type, shape
    graph = ir.Graph([x], [y], nodes=tape.nodes, initializers=tape.initializers, opset_imports={"": 18}, name="g")
    return ir.Model(graph, ir_version=10)


FLOAT = ir.TensorType(ir.DataType.FLOAT)


def test_without_types_and_shapes_inside() -> None:
    given = built(FLOAT, ir.Shape(["n", 4]))
    assert StabilizePass()(given).modified
    assert op_types(given) == ["Softmax", "Relu"]
    close(result(given), softmax(ROWS))


@pytest.mark.parametrize("type", [None, FLOAT])
def test_inputs_of_which_nothing_is_known_are_left_alone(type: ir.TypeProtocol | None) -> None:
    given = built(type, None)
    assert not StabilizePass()(given).modified
    assert op_types(given) == ["Exp", "ReduceSum", "Div", "Relu"]


def test_values_that_share_a_name_are_told_apart() -> None:
    """A pass may leave them so; by name, Div(v, v) would be 1."""
    given = built(FLOAT, ir.Shape(["n", 4]), rename="v")
    assert StabilizePass()(given).modified
    assert op_types(given) == ["Softmax", "Relu"]
    close(result(given), softmax(ROWS))


def test_shared_names_stay_where_nothing_is_rewritten() -> None:
    given = built(FLOAT, ir.Shape(["n", 4]), rename="v")
    graph = given.graph
    assert not StabilizePass(ignore="STB1")(given).modified
    assert given.graph is graph
    assert [o.name for node in graph for o in node.outputs][:3] == ["v", "v", "v"]


FUNCTIONS = """
<ir_version: 10, opset_import: ["" : 18, "local" : 1]>
g (float[n, 4] x) => (float[n, 4] y) {
  z = local.scaled (x)
  y = local.normalised (z)
}
<domain: "local", opset_import: ["" : 18]>
scaled (v) => (w) { two = Constant <value_float = 2.0> () w = Mul (v, two) }
<domain: "local", opset_import: ["" : 18]>
normalised (v) => (w) {
  axes = Constant <value_ints = [1]> ()
  e = Exp (v)
  s = ReduceSum <keepdims = 1> (e, axes)
  w = Div (e, s)
}"""


def test_functions_that_are_not_inlined_yet() -> None:
    given = ir.from_proto(onnx.parser.parse_model(FUNCTIONS))
    untouched = given.functions["local", "scaled", ""]
    outcome = ir.passes.Sequential(StabilizePass(), common.InlinePass(), common.CheckerPass())(given)
    assert outcome.modified
    assert op_types(given) == ["Constant", "Mul", "Softmax"]
    assert [node.op_type for node in untouched] == ["Constant", "Mul"]
    close(result(given), softmax(2 * ROWS))


# --- errors ---------------------------------------------------------------------------------------------------------


def test_wrong_keywords_are_told_where_the_pass_is_made() -> None:
    with pytest.raises(UsageError, match="form 'hardmax'"):
        StabilizePass(form="hardmax")
    with pytest.raises(UsageError, match="is no rule"):
        StabilizePass(select=["STB9"])


def test_a_model_that_cannot_be_read_is_left_as_it_was() -> None:
    given = built(FLOAT, ir.Shape(["n", 4]))
    given.graph.opset_imports[""] = 9
    before = given.graph
    with pytest.raises(ir.passes.PassError) as caught:
        ir.passes.Sequential(common.NameFixPass(), StabilizePass())(given)
    assert isinstance(caught.value.__cause__, ModelError)
    assert "opset 9 is older than 11" in str(caught.value.__cause__)
    assert given.graph is before


def test_without_onnx_the_extra_is_named() -> None:
    code = "import sys; sys.modules['onnx_ir'] = None; import stabilize.onnx; stabilize.onnx.StabilizePass"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "MissingExtraError" in done.stderr
    assert "pip install 'stabilize[onnx]'" in done.stderr

"""`StabilizePass`: the engine as a pass of onnx_ir."""

from __future__ import annotations

from typing import Unpack, final

from stabilize.api import optimize
from stabilize.errors import MissingExtraError
from stabilize.onnx.keywords import Keywords, check
from stabilize.report import Report

try:
    import onnx_ir as ir
except ImportError as error:
    raise MissingExtraError("onnx-ir", "onnx", "a pass of onnx_ir") from error


@final
class StabilizePass(ir.passes.InPlacePass):
    """Rewrites a model for numerical stability, between other passes: exporters', onnxscript's, your own.

        model = ir.load("model.onnx")
        step = StabilizePass()
        ir.passes.Sequential(step, CommonSubexpressionEliminationPass())(model)
        print(step.report)

    In place, as the passes of onnx_ir and onnxscript are: the model object stays, and is given another graph when
    there was something to rewrite; a model that needs nothing keeps its graph, node for node. A run that fails leaves
    the model as it was. `ir.passes.functionalize(StabilizePass())` works on a copy instead.

    Keywords: `form`, `allow`, `ranges`, `select`, `ignore`, `runtime`, `allow_fast`, `certify`, as for
    `stabilize.optimize`. It belongs before passes that may drop an epsilon: the optimizers of onnxscript and of
    torch.onnx take `+ 1e-9` for `+ 0`, and what is gone is not guessed. log(p + 1e-9) as it is written here,
    logaddexp(log p, ln 1e-9), they leave alone.

    report: of the last run, None before the first.

    Raises UsageError for wrong keywords, ModelError for a model that cannot be read; inside `ir.passes.Sequential` the
    latter is the cause of an `ir.passes.PassError`.
    """

    def __init__(self, **keywords: Unpack[Keywords]) -> None:
        check(keywords)
        self._keywords = keywords
        self.report: Report | None = None

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """What `ir.passes` calls; `modified` says whether anything was rewritten."""
        self.report = rewrite_in_place(model, self._keywords)
        return ir.passes.PassResult(model, bool(self.report.rewrites))


def rewrite_in_place(model: ir.Model, keywords: Keywords) -> Report:
    """Give `model` the graph and functions that it becomes, if it becomes others."""
    fixed, report = optimize(model, return_report=True, **keywords)
    if report.rewrites:
        model.graph = fixed.graph
        model.functions.clear()
        model.functions.update(fixed.functions)
    return report

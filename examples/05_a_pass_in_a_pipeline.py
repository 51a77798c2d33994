"""What `torch.onnx.export` returns, repaired: by `stabilize.optimize`, by `StabilizePass` between other passes of
onnx_ir, and by `rewrite_rules` in onnxscript's rewriter.

A detector scores with a mixture of two Gaussians, in the log domain as its author wrote it. The exporter spells
log(eᵃ + eᵇ) out, and the file gives −inf for whatever is far from both.
"""

from __future__ import annotations

import logging
import warnings

import onnx_ir as ir
import onnxscript.rewriter
import torch
from onnx_ir.passes import common
from torch import Tensor

import stabilize
from stabilize.onnx import StabilizePass, rewrite_rules


class Detector(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.logaddexp(-((x - 1) ** 2).sum(-1), -((x + 1) ** 2).sum(-1))


def main() -> None:
    x = torch.tensor([[0.0, 0.0], [9.0, 9.0], [1e3, 1e3]])
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # torch's exporter copies a class that torch itself deprecates
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
        program = torch.onnx.export(Detector().eval(), (x,), dynamo=True, verbose=False)
    assert program is not None
    truth = Detector()(x.double()).float()
    (exported,) = program(x)
    print("PyTorch          ", truth.tolist())
    print("exported         ", exported.tolist())

    fixed = stabilize.optimize(program)
    print("optimized        ", fixed(x)[0].tolist())

    step = StabilizePass()
    pipeline = ir.passes.Sequential(common.CommonSubexpressionEliminationPass(), step, common.CheckerPass())
    piped = torch.onnx.ONNXProgram(pipeline(program.model.clone()).model, program.exported_program)
    print("with the pass    ", piped(x)[0].tolist())
    print(step.report)

    rewritten = onnxscript.rewriter.rewrite(program.model.clone(), pattern_rewrite_rules=rewrite_rules())
    ruled = torch.onnx.ONNXProgram(rewritten, program.exported_program)
    print("with the rule set", ruled(x)[0].tolist())

    assert exported.isinf().any()
    for right in (fixed, piped, ruled):
        torch.testing.assert_close(right(x)[0], truth)


if __name__ == "__main__":
    main()

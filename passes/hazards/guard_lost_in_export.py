"""# guard-lost-in-export (STB801)

## What it does
Finds numbers that a model adds, subtracts, multiplies or divides by to keep clear of a pole, like + 1e-8 or
· (1 − 1e-6), and that are gone from the ONNX model that was exported from it.

## Why it is unstable
The optimizer of `torch.onnx.export` takes what is within 1e-8 of 0 for 0, and what is within 1e-5 of 1 for 1:
x/(‖x‖ + 1e-8) of a row of zeros becomes 0/0 = NaN, log(p + 1e-9) becomes −inf. Runtimes compute what the file says.

## Example
    torch.onnx.export(model, args)
→
    stabilize.export_onnx(model, args)

## Shapes
Any.

## Error
Total where the guard was needed, none where it was not.

## Safety
There is no fix in the file: what was deleted is told, not guessed. It is found where the exported program is still at
hand, in a `torch.onnx.ONNXProgram`.

## Source
onnxscript 0.7.2, `optimizer` and `rewriter`: patterns of 0 and 1 compare with absolute and relative tolerances.
"""

from __future__ import annotations

from stabilize.graph.value import Value
from stabilize.passes.rule import Context, Proposal, Rule


def _elsewhere(ctx: Context, value: Value) -> Proposal | None:
    """Two programs are compared, not an expression looked at: see `stabilize.linter.lost_guards`."""
    return None


RULE = Rule("STB801", "guard-lost-in-export", frozenset(), _elsewhere, __doc__, "warning")

"""# coarse-operator (STB810)

## What it does
Finds operators of an ONNX file that the runtime it is for computes badly, though the file is right: only where
`runtime=` names a runtime that was measured.

## Why it is unstable
A runtime's kernel may trade its tails for speed. Sigmoid of ONNX Runtime is exactly 0 from x = −18 down and not
monotone at −17 in float32; Softplus of OpenVINO is wrong by more than its size below −14. What is computed from them (a
logarithm, a product with a large number) is lost, and no other tool sees it: the graph is the same in every runtime.

## Example
    Sigmoid(x)
→
    e / (1 + e), e = exp(min(x, 60))

## Shapes
Those of the operator.

## Error
Per operator, format and runtime: docs/runtimes.md, measured by benchmarks/runtime_accuracy.py.

## Safety
exact: the same function in other operators of the standard. Certified against arbitrary precision by running both in
ONNX Runtime, for another runtime what takes the operator's place. It costs time: Sigmoid takes 2 to 3 times as long, a
gated layer of width 1024 with its two products a tenth; `allow_fast=("Sigmoid",)` keeps the runtime's own.

## Source
Measured with ONNX Runtime 1.31 and OpenVINO 2026.4 on x86-64; the operators are those of the ONNX standard.
"""

from __future__ import annotations

from stabilize.graph.value import Value
from stabilize.passes.rule import Context, Proposal, Rule


def _elsewhere(ctx: Context, value: Value) -> Proposal | None:
    """A view does not tell one spelling of a function from another: the host does."""
    return None


RULE = Rule("STB810", "coarse-operator", frozenset(), _elsewhere, __doc__, "warning")

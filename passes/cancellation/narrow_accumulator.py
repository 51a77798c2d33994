"""# narrow-integer-accumulator (STB522)

## What it does
Reports matrix products of 8- and 16-bit integers that are summed up in the same type.

## Why it is unstable
The product of two int8 numbers alone leaves int8: the sum wraps around, without a sign that it did.

## Example
    a_int8 @ b_int8
→
    (a_int8.int() @ b_int8.int())

## Shapes
Any matrix product.

## Error
Not a rounding error: multiples of 256 (of 65536) are lost.

## Safety
model-changing: the result has another type. Reported, never rewritten.

## Source
ONNX MatMulInteger (8-bit operands, a 32-bit accumulator).
"""

from __future__ import annotations

from stabilize.graph.value import Value
from stabilize.passes.rule import Context, Proposal, Rule


def match(ctx: Context, value: Value) -> Proposal | None:
    if value.dtype not in ("int8", "uint8", "int16"):
        return None
    return RULE.proposal(value, safety="model-changing", message=f"the sum of products wraps around in {value.dtype}")


RULE = Rule("STB522", "narrow-integer-accumulator", frozenset({"matmul"}), match, __doc__, "warning")

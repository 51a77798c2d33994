"""# complement-of-erf (STB219)

## What it does
Finds 1 − erf(x) and 1 − erfc(x).

## Why it is unstable
erf(x) rounds to 1 above 3.9 in float32: the difference is exactly 0 where erfc(x) is 3e-8 and falling.

## Example
    1 - erf(x)
→
    erfc(x)

## Shapes
Elementwise, any shape.

## Error
Relative 4u after; relative u/erfc(x) before.

## Safety
exact: the definition of erfc. ONNX has no operator for it: it is spelled in exponentials and a polynomial there, to 5u.

## Source
NIST DLMF 7.2.
"""

from __future__ import annotations

from stabilize.graph.value import Value
from stabilize.passes.cancellation.shapes import one_plus
from stabilize.passes.linear import Linear
from stabilize.passes.rule import Context, Proposal, Rule

_OTHER = {"erf": "erfc", "erfc": "erf"}


def match(ctx: Context, value: Value) -> Proposal | None:
    found = one_plus(value)
    if found is None or found[1] > 0 or found[0].op not in _OTHER:
        return None
    inner = found[0]
    # in float32 at least: PyTorch's half-precision erf is 0 below 1e-7
    wide = ctx.builder.cast(inner.operands[0], ctx.emitter.carrier(value, Linear.of(inner.operands[0])))
    return RULE.proposal(value, ctx.emitter.finish(ctx.builder.make(_OTHER[inner.op], wide), value))


RULE = Rule("STB219", "complement-of-erf", frozenset({"sub", "add"}), match, __doc__, "warning")

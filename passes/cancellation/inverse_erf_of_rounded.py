"""# inverse-erf-of-rounded (STB226)

## What it does
Finds erf⁻¹(2p − 1) and erf⁻¹(1 − 2p): quantiles of the normal distribution (inverse transform sampling, truncated
normals).

## Why it is unstable
2p − 1 rounds to −1 for p below 3e-8 in float32: the quantile is −inf where it is −5.4 and less, and only a few thousand
different numbers are left in that tail.

## Example
    sqrt(2) * erfinv(2*p - 1)
→
    sqrt(2) * (ndtri(p) * sqrt(1/2))

## Shapes
Elementwise, any shape.

## Error
Relative 4u after; infinite before.

## Safety
exact: erf⁻¹(2p − 1) = Φ⁻¹(p)/√2. ONNX has no operator for either.

## Source
NIST DLMF 7.17; Wichura, Algorithm AS 241, Appl. Stat. 37 (1988).
"""

from __future__ import annotations

import math

from stabilize.graph.value import Value
from stabilize.passes.cancellation.shapes import widened
from stabilize.passes.polynomial import polynomial
from stabilize.passes.rule import Context, Proposal, Rule


def match(ctx: Context, value: Value) -> Proposal | None:
    form = polynomial(value.operands[0])
    one = form.terms.get(())
    variables = [(m[0], k) for m, k in form.terms.items() if len(m) == 1]
    if one not in (1, -1) or len(form.terms) != 2 or len(variables) != 1 or variables[0][1] * one > 0:
        return None
    p, k = variables[0]
    b = ctx.builder
    half = b.apply("mul", widened(ctx, p), abs(k) / 2) if abs(k) != 2 else widened(ctx, p)
    new = b.apply("mul", b.make("ndtri", half), -float(one) * math.sqrt(0.5))
    return RULE.proposal(value, ctx.emitter.finish(new, value))


RULE = Rule("STB226", "inverse-erf-of-rounded", frozenset({"erfinv"}), match, __doc__, "warning")

"""# log-of-product (STB215)

## What it does
Finds log Π p and log of a running product, for factors known to be non-negative.

## Why it is unstable
A product of probabilities underflows to 0 after a few dozen factors (float32: 1e-45); its log is then −inf.

## Example
    log(prod(sigmoid(x) + 0.1, -1))
→
    sum(log(sigmoid(x) + 0.1), -1)

## Shapes
prod over one axis or all; cumprod along an axis.

## Error
Absolute n·u·max|log p| after; infinite before once the product underflows.

## Safety
exact for non-negative factors. Factors of unknown sign are left alone: two negative ones have a positive product.

## Source
Rabiner, Proc. IEEE 77 (1989), on scaling in hidden Markov models.
"""

from __future__ import annotations

from stabilize.graph.value import Value
from stabilize.passes.rule import Context, Proposal, Rule


def match(ctx: Context, value: Value) -> Proposal | None:
    if value.op != "log" or value.operands[0].op not in ("prod", "cumprod"):
        return None
    product = value.operands[0]
    factors = product.operands[0]
    if ctx.ranges.of(factors).lo < 0:
        return None
    b = ctx.builder
    carrier = "float64" if value.dtype == "float64" else "float32"
    logs = b.make("log", b.cast(factors, carrier))
    op = "sum" if product.op == "prod" else "cumsum"
    return RULE.proposal(value, ctx.emitter.finish(b.make(op, logs, **dict(product.attrs)), value))


RULE = Rule("STB215", "log-of-product", frozenset({"log"}), match, __doc__)

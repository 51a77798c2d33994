"""# unbounded-exponential (STB243)

## What it does
Finds exp, sinh and powers of what a network computes, unbounded, whose infinity comes out of the model: the standard
deviation exp(s) of a variational autoencoder or a policy, a rate exp(η), exp(mean loss).

## Why it is unstable
The exponent is a sum of products and may pass 88.72 (11.09 in float16) for inputs of ordinary size: the result is inf,
and the loss, the sample or the next layer with it.

## Example
    z = mu + eps * torch.exp(0.5 * logvar)
→
    z = mu + eps * torch.exp(0.5 * logvar.clamp(-30, 20))    or    softplus in the place of exp

## Shapes
Elementwise, any shape.

## Error
None: inf is the right rounding of a number beyond the format. It is an error where an input was seen to make the output
of the model infinite or NaN.

## Safety
There is no fix that computes the same function in the same format: a bound is a choice of the model's author. Exponents
that a formula bounds (clamped, shifted by a maximum, a negated sum of squares), and those of the model's inputs as they
are, are left alone.

## Source
Kingma & Welling, Auto-Encoding Variational Bayes, ICLR 2014 (the parametrisation); IEEE 754-2019, §7.4.
"""

from __future__ import annotations

import math
from itertools import islice

from stabilize.graph.value import Value, latest_first
from stabilize.passes.rule import Context, Proposal, Rule, exponents

_NEAR = 48


def match(ctx: Context, value: Value) -> Proposal | None:
    if not ctx.ranges.of(value).big or value not in ctx.escaping or not ctx.of_data(value):
        return None
    exponent = value.operands[-1]
    if any(ctx.ranges.of(o).big for o in value.operands) or not _is_made(ctx, exponent):
        return None
    return RULE.proposal(value, safety=None)


def _is_made(ctx: Context, exponent: Value) -> bool:
    """Whether the model made it of more than one input of a caller who is to know its range, or gave it a range."""
    if math.isfinite(ctx.ranges.of(exponent).hi):
        return True
    near = list(islice(latest_first(exponent), _NEAR))
    given = [v for v in near if v.op == "input"]
    made = any((v.op == "opaque" and ctx.of_data(v)) or ctx.is_parameter(v) for v in near)
    return made or len(given) > 1


_OPS = frozenset({"exp", "expm1", "sinh", "pow"})
RULE = Rule("STB243", "unbounded-exponential", _OPS, match, __doc__, "error", exponents, poles=True,
            honest=True)  # fmt: skip

"""# shifted-softmax-one (STB108)

## What it does
Reports exp(x − m)/(1 + Σexp(x − m)) with m = max x: "softmax-one" whose 1 was not shifted with the rest.

## Why it is unstable
It is stable, and wrong: the result depends on the shift, which a softmax with an extra zero logit does not. The extra
logit is m instead of 0, so that adding a constant to x changes nothing and the row can never attend to nothing.

## Example
    exp(x - m) / (1 + exp(x - m).sum(-1, keepdim=True))
→
    exp(x - m) / (exp(-m) + exp(x - m).sum(-1, keepdim=True)),  m = max(0, max x)

## Shapes
Any axis.

## Error
Not a rounding error: another function.

## Safety
model-changing: reported, never rewritten.

## Source
Miller, Attention is off by one, 2023 (the intended function).
"""

from __future__ import annotations

from stabilize.graph.value import Value
from stabilize.passes.rule import Context, Proposal, Rule
from stabilize.passes.scaled import number_of


def match(ctx: Context, value: Value) -> Proposal | None:
    top, bottom = value.operands
    if bottom.op != "add":
        return None
    for one, total in (bottom.operands, bottom.operands[::-1]):
        if number_of(one) != 1 or total.op != "sum" or total.operands[0] is not top or top.op != "exp":
            continue
        if any(k == -1 and _is_max(a) for a, k in ctx.engine.linear(top.operands[0]).terms):
            message = "the 1 is not shifted: the result depends on the shift"
            return RULE.proposal(value, safety="model-changing", message=message)
    return None


def _is_max(atom: Value) -> bool:
    return atom.op == "max" or (atom.op == "detach" and atom.operands[0].op == "max")


RULE = Rule("STB108", "shifted-softmax-one", frozenset({"div"}), match, __doc__, "warning")

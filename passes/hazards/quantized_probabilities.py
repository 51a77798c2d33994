"""# quantized-probabilities (STB701)

## What it does
Finds a softmax of an ONNX graph that is quantized to 8 bits so that its rows lose mass: encoded as [−1, 1], half of
whose codes are never used, or over so many entries that a flat row rounds to 0.

## Why it is unstable
A probability below half a step is rounded to 0, and the rows of a softmax have many of them: sums of 0.08 to 0.98 in
the place of 1, all in one direction. int8 with scale 1/127 and zero point 0 has half the steps that fit into 8 bits.

## Example
    QuantizeLinear(softmax, scale=1/127, zero_point=int8 0)
→
    QuantizeLinear(softmax, scale=1/255, zero_point=uint8 0)    and a correction of the bias, or softmax left in float

## Shapes
Any.

## Error
Up to half a step for each entry, of one sign where entries are small: n·s/2 in a row of n.

## Safety
Reported only: another encoding or a correction of the bias changes the model that was calibrated.

## Source
Softmax bias correction for quantized generative models, arXiv 2309.01729.
"""

from __future__ import annotations

from fractions import Fraction

from stabilize.graph.build import element_count
from stabilize.graph.ops import LAYOUT
from stabilize.graph.value import Value
from stabilize.passes.rule import Context, Proposal, Rule
from stabilize.passes.scaled import number_of

_CODES = {"int8": (-128, 127), "uint8": (0, 255)}
_QUANTIZERS = ("onnx.QuantizeLinear", "com.microsoft.QuantizeLinear")
#: Share of the codes that may lie below 0: one is the most that an affine encoding of [0, 1] wastes.
_WASTE = 0.25


def match(ctx: Context, value: Value) -> Proposal | None:
    found = _encoding(value) if value.dtype in _CODES and value.operands else None
    if found is None:
        return None
    source, (step, zero) = value.operands[0], found
    while source.op in LAYOUT | {"cast"}:
        source = source.operands[0]
    row = _row(ctx, source)
    if row is None:
        return None
    least, most = (float((code - zero) * step) for code in _CODES[value.dtype])
    if -least > _WASTE * (most - least):
        return RULE.proposal(value, safety=None, message=f"probabilities are encoded as [{least:.3g}, {most:.3g}]")
    count = element_count(row.operands[0].shape, row.axes)
    if count is not None and count * step > 2:
        message = f"a flat row of {count} probabilities is 0 throughout: each is below half a step of {float(step):.3g}"
        return RULE.proposal(value, safety=None, message=message)
    return None


def _encoding(value: Value) -> tuple[Fraction, Fraction] | None:
    """(scale, zero point) of a quantization with one of each."""
    if not str(value.attr("target")).startswith(_QUANTIZERS) or len(value.operands) < 2:
        return None
    step = number_of(value.operands[1])
    zero = number_of(value.operands[2]) if len(value.operands) > 2 else Fraction(0)
    return None if step is None or zero is None else (step, zero)


def _row(ctx: Context, value: Value) -> Value | None:
    """lse x when `value` is eˣ/Σeˣ in any spelling."""
    reading = ctx.engine.scaled(value)
    if reading.number != 1:
        return None
    for atom, k in reading.exponent.terms:
        if k == -1 and atom.op == "logsumexp" and reading.exponent.without(atom) == ctx.engine.linear(atom.operands[0]):
            return atom
    return None


RULE = Rule("STB701", "quantized-probabilities", frozenset({"opaque"}), match, __doc__, "warning",
            lambda fmt: "rows without a leading entry", poles=True)  # fmt: skip

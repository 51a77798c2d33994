"""# naive-norm (STB402)

## What it does
Finds √(Σx²), √(Σx²/n), x/‖x‖ and the cosine Σxy/(‖x‖·‖y‖) written by hand, without a guard inside the root. The
cosine with the norms of the host as well, since Σxy and ‖x‖·‖y‖ leave the format where each norm does not.

## Why it is unstable
The squares leave the format long before the norm does: above 1.8e19 in float32 and 256 in float16 the norm is inf and
x/‖x‖ is 0, below 1e-23 it is 0 and x/‖x‖ is NaN. At x = 0 the gradient of the root is 0/0 = NaN.

## Example
    x.pow(2).sum(-1).sqrt()
→
    s = x.abs().amax(-1, keepdim=True).clamp(smallest normal, largest)
    vector_norm(x / s, dim=-1) * s.squeeze(-1)

## Shapes
Any axes, kept or not. A quotient needs the norm over the same axes, kept or put back.

## Error
Relative (n/2 + 4)·u after, at every magnitude; the same before while the squares are in range, total loss beyond.
float16 is summed in float32 and needs no scale.

## Safety
exact: equal over the reals. A row of zeros keeps its norm 0, with gradient 0, and its x/‖x‖ = NaN. √(Σx² + eps) is left
alone in formats with the range of float32, and so are the hosts' own operators for norms by themselves.

## Source
Blue, ACM TOMS 4 (1978); Higham 2002, §27.8 (LAPACK's scaled norm).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import final

from stabilize.formats import FORMATS, Format
from stabilize.graph.value import Dim, Value
from stabilize.passes.cancellation.moments import Moment, carrier, moment, narrowest, product, unscaled
from stabilize.passes.rule import Context, Proposal, Rule, Severity
from stabilize.passes.scaled import number_of


@final
@dataclass(frozen=True, slots=True)
class Root:
    """√(square·Σx²) over `axes` of x of shape `source`; by_host: one operator of the host, whose gradient at 0 is 0."""

    x: Value
    axes: tuple[int, ...]
    keepdim: bool
    square: Fraction
    source: tuple[Dim, ...]
    by_host: bool = False

    @property
    def over(self) -> tuple[object, ...]:
        return self.axes, self.source


def match(ctx: Context, value: Value) -> Proposal | None:
    if value.op == "div":
        return _quotient(ctx, value) or _cosine(ctx, value)
    root = root_of(value)
    if root is None or _harmless(ctx, [root], value):
        return None
    b, scaled = ctx.builder, _Scaled(ctx, root, value)
    norm = b.reduce("norm", scaled.values, root.axes)
    if scaled.scale is not None:
        norm = b.make("mul", norm, scaled.scale)
    norm = ctx.engine.algebra.times(norm, scaled.factor)
    if not root.keepdim:
        norm = b.squeeze(norm, root.axes)
    return _proposal(ctx, value, norm)


def root_of(value: Value) -> Root | None:
    """`value` as a root of a sum of squares and nothing else."""
    if value.op == "pow" and number_of(value.operands[1]) != Fraction(1, 2):
        return None
    if value.op not in ("sqrt", "pow"):
        return None
    found = moment(value.operands[0])
    if found is None or found.scale <= 0 or len(found.factors) != 2 or found.factors[0] is not found.factors[1]:
        return None
    square = _square(found)
    if square is None or found.factors[0].shape != found.source:
        return None
    return Root(found.factors[0], found.axes, found.keepdim, square, found.source)


def _square(found: Moment) -> Fraction | None:
    if not found.mean:
        return found.scale
    return found.scale / found.count if found.count else None


def _quotient(ctx: Context, value: Value) -> Proposal | None:
    """x/‖x‖."""
    top, k = unscaled(value.operands[0])
    root = _kept(value.operands[1])
    if root is None or narrowest(top) is not root.x or top.shape != root.source or _harmless(ctx, [root], value):
        return None
    b, scaled = ctx.builder, _Scaled(ctx, root, value)
    unit = b.make("div", scaled.values, b.reduce("norm", scaled.values, root.axes))
    return _proposal(ctx, value, ctx.engine.algebra.times(unit, k / scaled.factor))


def _cosine(ctx: Context, value: Value) -> Proposal | None:
    """Σxy/(‖x‖·‖y‖), Σxy/‖x‖/‖y‖."""
    above, below = value, [value.operands[1]]
    if value.operands[0].op == "div":
        above = value.operands[0]
        below.append(above.operands[1])
    top = moment(above.operands[0])
    products = [product(b) for b in below]
    factors, k = [f for found, _ in products for f in found], math.prod((k for _, k in products), start=Fraction(1))
    roots = [root_of(f) or _norm_of(f) for f in factors]
    if top is None or top.mean or not k or len(roots) != 2 or roots[0] is None or roots[1] is None:
        return None
    x, y = roots[0], roots[1]
    same = x.over == y.over == (top.axes, top.source) and x.keepdim == y.keepdim == top.keepdim
    if not same or top.factors != tuple(sorted((x.x, y.x), key=lambda v: v.index)) or _harmless(ctx, [x, y], value):
        return None
    b, sides = ctx.builder, [_Scaled(ctx, r, value) for r in (x, y)]
    dot = b.reduce("sum", b.make("mul", sides[0].values, sides[1].values), top.axes, top.keepdim)
    norms = [b.reduce("norm", s.values, top.axes, top.keepdim) for s in sides]
    cosine = b.make("div", dot, b.make("mul", *norms))
    return _proposal(ctx, value, ctx.engine.algebra.times(cosine, top.scale / k / sides[0].factor / sides[1].factor))


def _norm_of(value: Value) -> Root | None:
    """A norm that the host computes, of anything but what was scaled for it."""
    if value.op != "norm" or _over_its_largest(value.operands[0]):
        return None
    x = narrowest(value.operands[0])
    return Root(x, value.axes, bool(value.attr("keepdim")), Fraction(1), x.shape, by_host=True)


def _over_its_largest(x: Value) -> bool:
    """x/max|x|, the clamps of the maximum aside."""
    if x.op != "div":
        return False
    scale = x.operands[1]
    while scale.op in ("minimum", "maximum", "detach", "expand"):
        scale = next((o for o in scale.operands if o.op != "constant"), scale.operands[0])
    return scale.op == "max" and scale.operands[0].op == "abs" and scale.operands[0].operands[0] is x.operands[0]


def _kept(value: Value) -> Root | None:
    """A root whose axes are kept, or were put back."""
    while value.op == "expand":
        value = value.operands[0]
    root = root_of(value)
    if root is not None:
        return root if root.keepdim else None
    root = root_of(value.operands[0]) if value.op == "unsqueeze" else None
    return root if root is not None and not root.keepdim and root.axes == value.axes else None


class _Scaled:
    """x over its largest magnitude in each row, in at least float32: no square overflows, and not all underflow.

    values: x/scale. scale: None where the format holds the squares of what x was widened from. factor: √square.
    """

    def __init__(self, ctx: Context, root: Root, value: Value) -> None:
        b, dtype = ctx.builder, carrier((root.x.dtype, value.dtype))
        self.values = b.cast(root.x, dtype)
        self.scale: Value | None = None
        self.factor = Fraction(math.sqrt(root.square)) if root.square != 1 else Fraction(1)
        if not _holds(root.x.dtype, dtype):
            fmt = FORMATS[dtype]
            largest = b.make("detach", b.reduce("max", b.make("abs", self.values), root.axes))
            self.scale = b.apply("minimum", b.apply("maximum", largest, fmt.min_normal), fmt.max)
            self.values = b.make("div", self.values, self.scale)


def _holds(narrow: str, wide: str) -> bool:
    """Whether squares of numbers of one format, and sums of them, are ordinary numbers of the other."""
    return 2 * FORMATS[narrow].emax < FORMATS[wide].emax - 32


def _harmless(ctx: Context, roots: Sequence[Root], value: Value) -> bool:
    """Whether squares stay in range, and no gradient is taken."""
    for root in roots:
        bound = ctx.ranges.of(root.x)
        largest = max(abs(bound.lo), abs(bound.hi))
        if _holds(root.x.dtype, value.dtype):
            if ctx.options.host != "onnx" and not root.by_host:
                return False
        elif not largest <= math.sqrt(FORMATS[value.dtype].max) / 2**16:
            return False
    return True


def _proposal(ctx: Context, value: Value, new: Value) -> Proposal:
    severity: Severity = "error" if value.dtype == "float16" else "warning" if ctx.options.host == "fx" else "info"
    return RULE.proposal(value, ctx.emitter.finish(new, value), severity=severity)


def _condition(fmt: Format) -> str:
    return f"entries above {math.sqrt(fmt.max):.3g} or all below {math.sqrt(fmt.tiny):.2g} in {fmt.name}"


RULE = Rule("STB402", "naive-norm", frozenset({"sqrt", "pow", "div"}), match, __doc__, "warning", _condition)

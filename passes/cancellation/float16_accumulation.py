"""# float16-accumulation (STB501)

## What it does
Finds sums and means of squares or products of float16 numbers (RMSNorm, layer norm, mean squared error, dot products by
hand), and sums that are divided by their length.

## Why it is unstable
A square above 65504 is inf, which is reached by entries of 256: the mean is inf, its reciprocal root 0, and the
normalised row is 0 or NaN. Squares of entries below 2e-4 are 0.

## Example
    x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
→
    y = x.float()
    (y * torch.rsqrt((y * y).mean(-1, keepdim=True) + eps)).half()

## Shapes
Any axes.

## Error
Half an ulp and the rounding of the inputs after; total loss beyond 256 before.

## Safety
exact: the same operations in float32, rounded once at the end. bfloat16 has the range of float32 and is left alone.

## Source
Micikevicius et al., Mixed Precision Training, ICLR 2018, §3.3 (accumulation in float32).
"""

from __future__ import annotations

from stabilize.formats import FORMATS, Format, is_float
from stabilize.graph.ops import LAYOUT
from stabilize.graph.value import Value
from stabilize.passes.cancellation.moments import average, moment, product
from stabilize.passes.cancellation.naive_variance import repaired
from stabilize.passes.cancellation.widening import Widening
from stabilize.passes.rule import Context, Proposal, Rule
from stabilize.passes.scaled import number_of

_NARROW, _WIDE = "float16", "float32"
_MOST = 64

#: Numbers up to this have squares that float16 holds.
_ROOT = FORMATS[_NARROW].max ** 0.5

_LOGARITHMS = frozenset({"log", "log_softmax", "log_sigmoid"})

#: What a sum goes through on the way to where it is used.
_ONWARD = (LAYOUT - {"gather", "concat", "slice", "one_hot"}) | {
    "abs", "add", "cast", "div", "log", "maximum", "mean", "minimum", "mul", "neg", "pow", "relu", "sqrt", "sub", "sum",
}  # fmt: skip


def match(ctx: Context, value: Value) -> Proposal | None:
    region = Region.of(ctx, value)
    if region is None:
        return None
    return RULE.proposal(value, ctx.emitter.finish(region.widening.widened(value), value))


class Region:
    """What is computed in float32: everything from the products of a sum to the place where it is used."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.widening = Widening(ctx.builder, _WIDE, lambda v: repaired(ctx, v))
        self.inside = self.widening.inside
        self.outside: set[Value] = set()
        self._asked = 0

    @classmethod
    def of(cls, ctx: Context, value: Value) -> Region | None:
        """The region that ends in `value`; None when there is none, or it goes on."""
        if _NARROW not in (value.dtype, *(o.dtype for o in value.operands)):
            return None
        region = cls(ctx)
        if region._follows(value):
            return region
        if value.op not in ("mul", "div"):
            return None
        found = [region._follows(o) for o in value.operands]
        if not any(found):
            return None
        region.inside.add(value)
        for operand in value.operands:
            region._take_products(operand)
        return region

    def _follows(self, value: Value) -> bool:
        """Whether `value` is made of hazardous sums, other sums and numbers alone."""
        if value in self.inside or value in self.outside:
            return value in self.inside
        found = False
        self._asked += 1
        if is_float(value.dtype) and value.op in _ONWARD and self._asked <= _MOST:
            operands = [o for o in value.operands if number_of(o) is None]
            follows = [self._follows(o) for o in operands] if value.dtype == _NARROW or value.op == "cast" else []
            found = any(follows) and all(f or self._is_sum(o) for f, o in zip(follows, operands, strict=True))
            if not found and self._hazardous(value):
                self._take_products(value.operands[0])
                found = True
        (self.inside if found else self.outside).add(value)
        if found:
            for operand in value.operands:
                self._take_sums(operand)
        return found

    def _is_sum(self, value: Value) -> bool:
        """k·(Σx)ⁿ, as in E[x²] − E[x]²."""
        factors, _ = product(value)
        return value.dtype == _NARROW and bool(factors) and all(f.op in ("sum", "mean") for f in factors)

    def _take_sums(self, value: Value) -> None:
        if self._is_sum(value):
            self._take_products(value)

    def _hazardous(self, value: Value) -> bool:
        """A sum of products, or a sum over n, whose terms float16 may not hold."""
        if value.dtype != _NARROW:
            return False
        if value.op == "div" and number_of(value.operands[1]) and value.operands[0].op == "sum":
            total = value.operands[0]
            return self._exceeds(total.operands[0], _ROOT) or self._exceeds(total, FORMATS[_NARROW].max)
        if value.op not in ("sum", "mean"):
            return False
        found = moment(value)
        if found is None or not self._exceeds(value.operands[0], FORMATS[_NARROW].max):
            return False
        return sum(self._exceeds(f, _ROOT) for f in found.factors) > 1

    def _exceeds(self, value: Value, limit: float) -> bool:
        """Whether `value` may be beyond `limit`; the logarithm of a float16 number is not, or it is infinite."""
        bound = self.ctx.ranges.of(value)
        return value.op not in _LOGARITHMS and not max(abs(bound.lo), abs(bound.hi)) <= limit

    def _take_products(self, value: Value) -> None:
        """The products and powers under a sum, and what centres their factors."""
        stack = [value]
        while stack and len(self.inside) < 2 * _MOST:
            inner = stack.pop()
            product = inner.op in ("mul", "pow", "neg", "abs", "expand", "sum")
            if inner not in self.inside and inner.dtype == _NARROW and (product or _centring(inner)):
                self.outside.discard(inner)
                self.inside.add(inner)
                stack += inner.operands


def _centring(value: Value) -> bool:
    """x − E[x], or E[x]."""
    if value.op == "sub":
        return average(value.operands[1]) is not None and value.operands[1].op in ("mean", "div", "mul")
    return value.op in ("mean", "div") and average(value) is not None


def _condition(fmt: Format) -> str:
    return f"entries above {_ROOT:.4g} in {fmt.name}"


_SINKS = frozenset(
    {"add", "cast", "div", "log", "maximum", "mean", "minimum", "mul", "neg", "pow", "sqrt", "sub", "sum"}
)  # fmt: skip
RULE = Rule("STB501", "float16-accumulation", _SINKS, match, __doc__, "error", _condition)

"""# naive-normalisation (STB403)

## What it does
Finds layer and RMS normalisation by hand, with or without weight and bias, whose variance is E[x²] − E[x]² or whose
squares are float16 numbers.

## Why it is unstable
The naive variance cancels: in float32, at a mean of 1e4 and spread 1, it is 0.0 or negative, and the normalised row is
off by a factor of 300 or NaN. In float16 squares overflow from 256 on, and the normalised row is 0.

## Example
    (x - x.mean(-1, keepdim=True)) * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) - x.mean(-1, keepdim=True)**2 + eps)
→
    layer_norm(x, x.shape[-1:], eps=eps)

## Shapes
The last axes, kept; weight and bias of their shape. Over other axes the variance alone is repaired (STB401).

## Error
Absolute (n + 4)·u·(1 + |μ|/σ) after; (n + 4)·u·(1 + μ²/σ²) before.

## Safety
exact: equal over the reals. Two-pass code in float32 is left as it is.

## Source
Ba, Kiros & Hinton, Layer Normalization, arXiv 1607.06450; Zhang & Sennrich, NeurIPS 2019 (RMSNorm).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import final

from stabilize.formats import Format
from stabilize.graph.value import Dim, Value, cone
from stabilize.passes.cancellation.moments import average, moment, narrowest, terms
from stabilize.passes.cancellation.naive_variance import read as read_variance
from stabilize.passes.rule import Context, Proposal, Rule, Severity
from stabilize.passes.scaled import number_of


@final
@dataclass(frozen=True, slots=True)
class Normalised:
    """(x − E[x])/√(variance + epsilon), or x/√(E[x²] + epsilon), over the axes from `axis` on; ·weight + bias."""

    op: str
    x: Value
    axis: int
    epsilon: float
    hazardous: bool
    weight: Value | None = None
    bias: Value | None = None

    @property
    def inner(self) -> tuple[Dim, ...]:
        return self.x.shape[self.axis :]


def match(ctx: Context, value: Value) -> Proposal | None:
    found = read(value)
    if found is None or not found.hazardous:
        return None
    x = ctx.builder.cast(found.x, value.dtype)  # what was widened is normalised in the wider format
    affine = [t for t in (found.weight, found.bias) if t is not None]
    new = ctx.builder.make(found.op, x, *affine, axis=found.axis, epsilon=found.epsilon)
    severity: Severity = "error" if value.dtype == "float16" else "warning"
    return RULE.proposal(value, ctx.emitter.finish(new, value), severity=severity)


def read(value: Value) -> Normalised | None:
    """`value` as a normalisation."""
    if value.op == "add":
        for body, bias in _either(value):
            found = _weighted(body)
            if found is None or found.weight is None or body.shape != value.shape:
                continue
            if bias.shape == found.inner:
                return replace(found, bias=bias)
    return _weighted(value)


def _weighted(value: Value) -> Normalised | None:
    found = _plain(value)
    if found is None and value.op == "mul":
        for body, weight in _either(value):
            found = _plain(body)
            if found is not None and found.weight is None and weight.shape == found.inner:
                return replace(found, weight=weight)
        return None
    return found


def _either(value: Value) -> Iterator[tuple[Value, Value]]:
    yield value.operands[0], value.operands[1]
    yield value.operands[1], value.operands[0]


def _plain(value: Value) -> Normalised | None:
    """top/√v or top·v^(−1/2)."""
    pairs = [(value.operands[0], _under_root(value.operands[1]))] if value.op == "div" else []
    if value.op == "mul":
        pairs = [(top, _under_inverse_root(root)) for top, root in _either(value)]
    for top, square in pairs:
        if square is None or top.shape != value.shape:
            continue
        found = _over(top, square)
        if found is not None:
            return found
        for body, weight in _either(top) if top.op == "mul" else ():
            found = _over(body, square)
            if found is not None and body.shape == value.shape and weight.shape == found.inner:
                return replace(found, weight=weight)
    return None


def _under_root(value: Value) -> Value | None:
    if value.op == "sqrt":
        return value.operands[0]
    half = value.op == "pow" and number_of(value.operands[1]) == Fraction(1, 2)
    return value.operands[0] if half else None


def _under_inverse_root(value: Value) -> Value | None:
    if value.op == "div" and number_of(value.operands[0]) == 1:
        return _under_root(value.operands[1])
    minus_half = value.op == "pow" and number_of(value.operands[1]) == Fraction(-1, 2)
    return value.operands[0] if minus_half else None


def _over(top: Value, square: Value) -> Normalised | None:
    """The statistics under the root: a variance or a mean of squares, and numbers."""
    parts = terms(square)
    epsilon = sum((k * n for k, part in parts if (n := number_of(part)) is not None), Fraction(0))
    parts = [(k, part) for k, part in parts if number_of(part) is None]
    if epsilon <= 0:
        return None
    if len(parts) == 1 and parts[0][0] == 1:
        return _measured(top, _unclamped(parts[0][1]), float(epsilon))
    return _naive(top, square, float(epsilon))


def _unclamped(value: Value) -> Value:
    """What is clamped at 0: a variance is never below."""
    if value.op == "relu":
        return value.operands[0]
    if value.op == "maximum":
        for body, bound in _either(value):
            if number_of(bound) == 0:
                return body
    return value


def _measured(top: Value, square: Value, epsilon: float) -> Normalised | None:
    """A mean of squares of what is normalised: of x itself, or of x − E[x]. Else a naive variance."""
    found = average(square)
    if found is None or found.weights or found.scale != 1 or found.body != (narrowest(top),) * 2:
        return _naive(top, square, epsilon)
    m = found.moment
    narrow = any(v.dtype == "float16" for v in cone([square], [narrowest(top)]) if v.op in ("mul", "pow", "sum"))
    x = _centred(top, m.axes)
    if not _trailing(m.axes, m.keepdim, top):
        return None
    if x is None:
        return Normalised("rms_norm", narrowest(top), m.axes[0], epsilon, narrow)
    return Normalised("layer_norm", x, m.axes[0], epsilon, narrow)


def _naive(top: Value, square: Value, epsilon: float) -> Normalised | None:
    """E[x²] − E[x]² beside numbers."""
    found = read_variance(square)
    if found is None or found.scale != 1 or found.average.weights or found.x != found.y or len(found.x) != 1:
        return None
    m = found.average.moment
    x = _centred(top, m.axes)
    if x is None or narrowest(x) is not found.x[0] or any(number_of(part) is None for _, part in found.rest):
        return None
    return Normalised("layer_norm", x, m.axes[0], epsilon, True) if _trailing(m.axes, m.keepdim, top) else None


def _centred(value: Value, axes: tuple[int, ...]) -> Value | None:
    """x when value = x − E[x] over `axes`."""
    if value.op != "sub":
        return None
    x, subtracted = value.operands
    mean = average(subtracted)
    if mean is None or mean.weights or mean.scale != 1 or mean.body != (narrowest(x),) or not mean.moment.keepdim:
        return None
    return narrowest(x) if mean.moment.axes == axes and mean.moment.source == x.shape else None


def _trailing(axes: tuple[int, ...], keepdim: bool, of: Value) -> bool:
    return keepdim and axes == tuple(range(axes[0], of.type.rank)) and moment(of) is None


def _condition(fmt: Format) -> str:
    return f"entries above {fmt.max**0.5:.4g}, or a mean above {fmt.u**-0.5:.3g} deviations, in {fmt.name}"


RULE = Rule("STB403", "naive-normalisation", frozenset({"add", "mul", "div"}), match, __doc__, "warning", _condition)

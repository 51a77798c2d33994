"""Accurate expansions of primitives that ONNX has no operator for, or whose operator runtimes compute badly.

Written once, in the vocabulary: the emitter uses them to spell a primitive in standard operators, the reader to
recognise that spelling and read the primitive back, so that patching twice changes nothing.

Each is accurate to a few ulp over the normal range of its format, passes NaN, is exact at ±inf, and has no branch
whose dead side is infinite. Measured with ONNX Runtime 1.31 on CPU (float32; docs/runtimes.md has the others): Sigmoid
is 0 below −18 and wrong by thousands of ulps below −9; ReduceLogSumExp of a row that starts with −inf takes 0 for its
maximum, so that [−inf, −144] gives −inf, and takes 3 to 12 times as long as what stands for it here; ReduceL2 squares
what overflows. Its Tanh is up to 26 ulp off next to the least normal number, and so is expm1 there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from stabilize.errors import ShapeError
from stabilize.formats import FORMATS
from stabilize.frontends import onnx_erfc
from stabilize.graph.build import Builder, constant_of
from stabilize.graph.value import Attr, Value


def log1p(b: Builder, x: Value) -> Value:
    """log(u) + (x − (u − 1))/u with u = 1 + x: the second term restores what rounding 1 + x lost.

    First-order correction of the logarithm's argument (Higham, Accuracy and Stability, 2002, §1.14.1 discusses the
    effect). Outside [−½, 2] the sum is exact or its rounding harmless, so the correction is evaluated on the clipped x
    and vanishes there. Should a compiler reassociate (u − 1) to x, what remains is log(1 + x): no worse than naive.
    """
    near = b.apply("minimum", b.apply("maximum", x, -0.5), 2.0)
    u = b.apply("add", near, 1.0)
    lost = b.make("div", b.make("sub", near, b.apply("sub", u, 1.0)), u)
    return b.make("add", b.make("log", b.apply("add", x, 1.0)), lost)


def expm1(b: Builder, x: Value) -> Value:
    """2t/(1 − t), t = tanh(x/2), where |x| < ½; eˣ − 1 elsewhere. No subtraction of nearby numbers in either."""
    near = b.apply("minimum", b.apply("maximum", x, -1.0), 1.0)
    t = b.make("tanh", b.apply("mul", near, 0.5))
    small = b.make("div", b.make("add", t, t), b.apply("sub", 1.0, t))
    inside = b.apply("lt", b.make("abs", x), 0.5)
    return b.make("where", inside, small, b.apply("sub", b.make("exp", x), 1.0))


#: Beyond it 1 − σ(x) is below the roundoff of every format, and its exponential overflows in none that is used here.
_SATURATED = 60.0


def sigmoid(b: Builder, x: Value) -> Value:
    """e/(1 + e), e = exp(min(x, 60)): relative accuracy in both tails, and four passes over the tensor."""
    e = b.make("exp", b.apply("minimum", x, _SATURATED))
    return b.make("div", e, b.apply("add", e, 1.0))


def softplus(b: Builder, x: Value) -> Value:
    """max(x, 0) + log(1 + exp(−|x|))."""
    return b.make("add", b.apply("maximum", x, 0.0), log1pexp(b, b.make("neg", b.make("abs", x))))


def log1pexp(b: Builder, x: Value) -> Value:
    """log(1 + eˣ) for x ≤ 0, as `log1p` but for its clipping: eˣ is in [0, 1].

    max(u, 1) is u: without it OpenVINO takes the logarithm of 1 + eˣ for its SoftPlus, which is wrong below −14.
    """
    e = b.make("exp", x)
    u = b.apply("add", e, 1.0)
    lost = b.make("div", b.make("sub", e, b.apply("sub", u, 1.0)), u)
    return b.make("add", b.make("log", b.apply("maximum", u, 1.0)), lost)


def logaddexp(b: Builder, x: Value, y: Value) -> Value:
    """max(x, y) + log(1 + exp(−|x − y|))."""
    return b.make("add", b.make("maximum", x, y), log1pexp(b, _gap(b, x, y)))


def _gap(b: Builder, x: Value, y: Value) -> Value:
    """−|x − y|; equal infinities, where there may be some, differ by 0, not by NaN."""
    gap = b.make("sub", x, y)
    bounds = [constant_of(x), constant_of(y)]
    if not any(n is not None and math.isfinite(n) for n in bounds):
        gap = b.apply("where", b.make("eq", x, y), b.constant(0.0, x.dtype), gap)
    return b.make("neg", b.make("abs", gap))


def logsumexp(b: Builder, x: Value, axes: tuple[int, ...], keepdim: bool) -> Value:
    """m + log Σ exp(x − m), m the maximum held inside the finite range: ±inf rows need no difference of infinities."""
    limit = FORMATS[x.dtype].max
    top = b.apply("minimum", b.apply("maximum", b.reduce("max", x, axes), -limit), limit)
    total = b.reduce("sum", b.make("exp", b.make("sub", x, top)), axes)
    value = b.make("add", b.make("log", total), top)
    return value if keepdim else b.squeeze(value, axes)


def xlogy(b: Builder, x: Value, y: Value) -> Value:
    """x·log(y'), y' = 1 where x = 0 and y is a number: 0·log 0 = 0, NaN passes."""
    keep = b.make("or", b.apply("ne", x, 0.0), b.make("isnan", y))
    return b.make("mul", x, b.make("log", b.apply("where", keep, y, b.constant(1.0, x.dtype))))


def logcumsumexp(b: Builder, x: Value, axis: int) -> Value:
    """Prefix log-sum-exp by doubling (Hillis & Steele 1986): after step k each entry covers 2ᵏ⁺¹ predecessors."""
    size = x.shape[axis]
    if not isinstance(size, int):
        raise ValueError("the axis is symbolic")
    value, reach = x, 1
    while reach < size:
        pad = b.constant(-math.inf, x.dtype, (*x.shape[:axis], reach, *x.shape[axis + 1 :]))
        kept = b.make("slice", value, axis=axis, start=0, stop=size - reach, step=1)
        value = b.make("logaddexp", value, b.make("concat", pad, kept, axis=axis))
        reach *= 2
    return value


def log_softmax(b: Builder, x: Value, axis: int) -> Value:
    """(x − m) − log Σ exp(x − m)."""
    shifted = b.make("sub", x, b.reduce("max", x, [axis]))
    return b.make("sub", shifted, b.make("log", b.reduce("sum", b.make("exp", shifted), [axis])))


def norm(b: Builder, x: Value, axes: tuple[int, ...], keepdim: bool) -> Value:
    """m·√Σ(x/m)², m the largest |x|, held inside the normal range: squares neither overflow nor are all lost."""
    fmt = FORMATS[x.dtype]
    top = b.apply("minimum", b.apply("maximum", b.reduce("max", b.make("abs", x), axes), fmt.min_normal), fmt.max)
    scaled = b.make("div", x, top)
    root = b.make("sqrt", b.reduce("sum", b.make("mul", scaled, scaled), axes))
    value = b.make("mul", root, top)
    return value if keepdim else b.squeeze(value, axes)


def squares_hold(x: Value) -> bool:
    """Whether squares of `x` stay in range by themselves: widened from float16, or a quotient by its largest size."""
    if x.op == "cast" and x.operands[0].dtype in FORMATS:
        return 2 * FORMATS[x.operands[0].dtype].emax < FORMATS[x.dtype].emax - 32
    if x.op != "div":
        return False
    scale = x.operands[1]
    while scale.op in ("minimum", "maximum", "expand"):
        scale = next((o for o in scale.operands if o.op != "constant"), scale.operands[0])
    return scale.op == "max" and scale.operands[0].op == "abs" and scale.operands[0].operands[0] is x.operands[0]


def bce_rows(b: Builder, x: Value, y: Value, tail: Value) -> Value:
    """max(x, 0) − x·y + tail, tail = log(1 + exp(−|x|)): the difference is exact where it would cancel (y = 1)."""
    return b.make("add", b.make("sub", b.apply("maximum", x, 0.0), b.make("mul", x, y)), tail)


def _of_log1p(root: Value) -> tuple[Value, ...] | None:
    match root.operands[0]:
        case Value(op="log", operands=(Value(op="add", operands=(x, _)),)):
            return (x,)
        case _:
            return None


def _of_expm1(root: Value) -> tuple[Value, ...] | None:
    match root.operands[2]:
        case Value(op="sub", operands=(Value(op="exp", operands=(x,)), _)):
            return (x,)
        case _:
            return None


def _of_sigmoid(root: Value) -> tuple[Value, ...] | None:
    match root.operands[0]:
        case Value(op="exp", operands=(Value(op="minimum", operands=(x, _)),)):
            return (x,)
        case _:
            return None


def _of_softplus(root: Value) -> tuple[Value, ...] | None:
    return root.operands[0].operands[:1] if root.operands[0].op == "maximum" else None


def _of_logaddexp(root: Value) -> tuple[Value, ...] | None:
    return root.operands[0].operands if root.operands[0].op == "maximum" else None


def _of_logsumexp(root: Value) -> tuple[Value, ...] | None:
    match root.operands[0]:
        case Value(op="log", operands=(Value(op="sum", operands=(Value(op="exp", operands=(shifted,)),)),)):
            return shifted.operands[:1] if shifted.op == "sub" else None
        case _:
            return None


def _of_xlogy(root: Value) -> tuple[Value, ...] | None:
    match root.operands:
        case (x, Value(op="log", operands=(Value(op="where", operands=(_, y, _)),))):
            return (x, y)
        case _:
            return None


def _of_log_softmax(root: Value) -> tuple[Value, ...] | None:
    return root.operands[0].operands[:1] if root.operands[0].op == "sub" and root.operands[1].op == "log" else None


def _of_norm(root: Value) -> tuple[Value, ...] | None:
    match root.operands[0]:
        case Value(op="sqrt", operands=(Value(op="sum", operands=(Value(op="mul", operands=(scaled, _)),)),)):
            return scaled.operands[:1] if scaled.op == "div" else None
        case _:
            return None


def _no_attributes(root: Value) -> dict[str, Attr]:
    return {}


def _summed_axes(root: Value) -> dict[str, Attr]:
    return {"axes": root.operands[0].operands[0].attr("axes"), "keepdim": True}


def _summed_axis(root: Value) -> dict[str, Attr]:
    total = root.operands[1].operands[0]
    return {"axis": total.axes[0] if total.op == "sum" and len(total.axes) == 1 else -1}


@final
@dataclass(frozen=True)
class Expansion:
    """root: the primitive at the top; operands, attributes: what it was expanded from, if it was this expansion."""

    name: str
    root: str
    build: Callable[..., Value]
    operands: Callable[[Value], tuple[Value, ...] | None]
    attributes: Callable[[Value], dict[str, Attr]] = _no_attributes


EXPANSIONS: dict[str, Expansion] = {
    e.name: e
    for e in (
        Expansion("log1p", "add", log1p, _of_log1p),
        Expansion("softplus", "add", softplus, _of_softplus),
        Expansion("logaddexp", "add", logaddexp, _of_logaddexp),
        Expansion("expm1", "where", expm1, _of_expm1),
        Expansion("sigmoid", "div", sigmoid, _of_sigmoid),
        Expansion("logsumexp", "add", logsumexp, _of_logsumexp, _summed_axes),
        Expansion("log_softmax", "sub", log_softmax, _of_log_softmax, _summed_axis),
        Expansion("norm", "mul", norm, _of_norm, _summed_axes),
        Expansion("xlogy", "mul", xlogy, _of_xlogy),
        Expansion("log_ndtr", "where", onnx_erfc.log_ndtr, onnx_erfc.operand),
        Expansion("erfcx", "where", onnx_erfc.erfcx, onnx_erfc.operand),
        Expansion("erfc", "where", onnx_erfc.erfc, onnx_erfc.operand),
    )
}

_BY_ROOT: dict[str, list[Expansion]] = {}
for _each in EXPANSIONS.values():
    _BY_ROOT.setdefault(_each.root, []).append(_each)


def folded(b: Builder, value: Value) -> Value:
    """The primitive that `value` is the expansion of; `value` itself when it is none."""
    for expansion in _BY_ROOT.get(value.op, ()):
        operands = expansion.operands(value)
        if operands is None:
            continue
        attributes = expansion.attributes(value)
        try:
            if expansion.build(b, *operands, **attributes) is value:
                return b.make(expansion.name, *operands, **attributes)
        except ShapeError:
            continue  # operands that look alike and do not fit together
    return value

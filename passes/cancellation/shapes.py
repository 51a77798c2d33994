"""Small shapes that several cancellation rules look for."""

from __future__ import annotations

from fractions import Fraction

from stabilize.graph.ops import LAYOUT
from stabilize.graph.value import Value, latest_first
from stabilize.passes.rule import Context
from stabilize.passes.scaled import number_of


def one_plus(value: Value) -> tuple[Value, Fraction] | None:
    """(x, k) when value = 1 + k·x with k = ±1 and x no constant."""
    if value.op == "add":
        for one, x in (value.operands, value.operands[::-1]):
            if number_of(one) == 1 and number_of(x) is None:
                return _unsigned(x, Fraction(1))
    if value.op == "sub":
        a, b = value.operands
        if number_of(a) == 1 and number_of(b) is None:
            return _unsigned(b, Fraction(-1))
        if number_of(b) == -1 and number_of(a) is None:
            return _unsigned(a, Fraction(1))
    return None


def _unsigned(x: Value, sign: Fraction) -> tuple[Value, Fraction]:
    return (x.operands[0], -sign) if x.op == "neg" else (x, sign)


def square_of(value: Value) -> Value | None:
    """t when value = t²."""
    if value.op == "mul" and value.operands[0] is value.operands[1]:
        return value.operands[0]
    if value.op == "pow" and number_of(value.operands[1]) == 2:
        return value.operands[0]
    return None


def signed_terms(value: Value) -> tuple[tuple[int, Value], tuple[int, Value]] | None:
    """((±1, a), (±1, b)) when value = ±a ± b."""
    if value.op not in ("add", "sub"):
        return None
    a, b = value.operands
    return _turned(1, a), _turned(1 if value.op == "add" else -1, b)


def _turned(sign: int, value: Value) -> tuple[int, Value]:
    return (-sign, value.operands[0]) if value.op == "neg" else (sign, value)


def widened(ctx: Context, value: Value) -> Value:
    """`value` in at least float32: the expressions of several operators that replace one in half precision."""
    if value.dtype in ("float32", "float64"):
        return value
    k = number_of(value)
    if k is not None:
        return ctx.builder.constant(float(k), "float32", value.shape)
    return ctx.builder.cast(value, "float32")


def one_minus(value: Value) -> tuple[Value, int] | None:
    """(x, ±1) when value = ±(1 − x) and x is no constant."""
    terms = signed_terms(value)
    if terms is None:
        return None
    for (s, one), (t, other) in (terms, terms[::-1]):
        k = number_of(one)
        if k in (1, -1) and s * k == -t and number_of(other) is None:
            return other, -t
    return None


#: Primitives whose results are above 0, whatever their operands are.
_POSITIVE = frozenset({"exp", "sigmoid", "softmax", "softplus", "erfc", "erfcx"})
#: Primitives whose results are above 0 where those of all operands are.
_KEEPING = (LAYOUT - {"gather", "one_hot"}) | {
    "add", "cast", "cumprod", "cumsum", "detach", "div", "matmul", "max", "mean", "min", "minimum", "mul", "prod",
    "sqrt", "sum",
}  # fmt: skip


def is_positive(value: Value, depth: int = 8) -> bool:
    """Whether `value` is above 0 over the reals, so that only rounding makes it 0: exponentials, and sums, products and
    quotients of what is."""
    number = number_of(value)
    if number is not None:
        return number > 0
    if value.op in _POSITIVE:
        return True
    if not depth:
        return False
    operands = value.operands
    if value.op in ("pow", "gather"):
        return is_positive(operands[0], depth - 1)
    if value.op == "where":
        return all(is_positive(o, depth - 1) for o in operands[1:])
    if value.op == "maximum":
        return any(is_positive(o, depth - 1) for o in operands)
    return value.op in _KEEPING and all(is_positive(o, depth - 1) for o in operands)


def is_guarded(ctx: Context, value: Value) -> bool:
    """Whether a number, or what does not depend on data, is added on the way to a sum."""
    for i, each in enumerate(latest_first(value)):
        if each.op in ("add", "maximum"):
            return any(not ctx.of_data(o) and number_of(o) != 0 for o in each.operands)
        if each.op in ("where", "exp", "softmax", "sigmoid"):
            return True
        if i >= _NEAR or each.op not in _TO_A_SUM:
            return False
    return False


#: What stands between a sum and what is added to its terms.
_TO_A_SUM = (LAYOUT - {"gather", "concat", "one_hot"}) | {
    "abs", "cast", "detach", "neg", "sqrt", "sum", "mean", "mul", "sub", "pow",
}  # fmt: skip
_NEAR = 64


def may_vanish(value: Value, depth: int = 6) -> bool:
    """Whether `value` is 0, and not at single points only, for some inputs: rectified, masked, or a sum of such."""
    if not depth:
        return False
    operands = value.operands
    match value.op:
        case "relu":
            return True
        case "abs" | "sqrt" | "detach" | "sum" | "mean" | "unsqueeze" | "squeeze" | "expand" | "transpose" | "reshape":
            return may_vanish(operands[0], depth - 1)
        case "cast":
            return operands[0].dtype == "bool" or may_vanish(operands[0], depth - 1)
        case "maximum":
            return any(number_of(o) == 0 for o in operands)
        case "where":
            return any(number_of(o) == 0 for o in operands[1:])
        case "mul":
            return any(may_vanish(o, depth - 1) for o in operands)
        case "add":
            return all(may_vanish(o, depth - 1) for o in operands)
        case _:
            return False

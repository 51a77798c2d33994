"""Rows of the reading table: elementwise arithmetic, comparisons, logic, constants."""

from __future__ import annotations

import math
from typing import cast

from stabilize.formats import is_float
from stabilize.frontends.fx_call import Call, Row, Unreadable
from stabilize.graph.value import TensorType, Value


def unary(op: str) -> Row:
    """An elementwise primitive; integers are promoted as the operator promotes them."""
    return lambda c: c.b.make(op, c.operand(0))


def binary(op: str) -> Row:
    """An elementwise primitive of two operands, each a tensor or a number."""
    return lambda c: c.b.make(op, c.operand(0), c.operand(1))


def compare(op: str) -> Row:
    def row(c: Call) -> Value:
        dtype = c.common_dtype()
        return c.b.make(op, c.operand(0, dtype), c.operand(1, dtype))

    return row


def truth(c: Call, value: Value) -> Value:
    """`value` as a boolean: is it non-zero?"""
    return value if value.dtype == "bool" else c.b.apply("ne", value, _zero(value))


def _zero(value: Value) -> int | float:
    return 0.0 if is_float(value.dtype) else 0


def logical(op: str) -> Row:
    return lambda c: c.b.make(op, *(truth(c, c.tensor(i)) for i in range(1 if op == "not" else 2)))


def bitwise(op: str) -> Row:
    """A bitwise operator, which is a logical one on booleans and outside the vocabulary on integers."""

    def row(c: Call) -> Value:
        if c.out.dtype != "bool":
            raise Unreadable("a bitwise operator on integers")
        return c.b.make(op, *(c.operand(i) for i in range(1 if op == "not" else 2)))

    return row


def _scaled(c: Call, key: str) -> Value:
    """The operand `key`, times `alpha` where that is not 1."""
    value = c.operand(key)
    alpha = c.raw("alpha")
    if alpha == 1:
        return value
    return c.b.make("mul", value, c.promoted(alpha, c.out.dtype))


def add(c: Call) -> Value:
    return c.b.make("add", c.operand("self"), _scaled(c, "other"))


def sub(c: Call) -> Value:
    return c.b.make("sub", c.operand("self"), _scaled(c, "other"))


def rsub(c: Call) -> Value:
    return c.b.make("sub", c.operand("other"), _scaled(c, "self"))


def div_mode(c: Call) -> Value:
    """Division without a rounding mode; floor of a rounded quotient is not PyTorch's floor division."""
    if c.given("rounding_mode"):
        raise Unreadable("division with a rounding mode")
    return c.b.make("div", c.operand(0), c.operand(1))


def _one(c: Call) -> Value:
    return c.b.constant(1.0, c.out.dtype)


def reciprocal(c: Call) -> Value:
    return c.b.make("div", _one(c), c.operand(0))


def rsqrt(c: Call) -> Value:
    return c.b.make("div", _one(c), c.b.make("sqrt", c.operand(0)))


def square(c: Call) -> Value:
    x = c.operand(0)
    return c.b.make("mul", x, x)


def exp2(c: Call) -> Value:
    return c.b.apply("pow", 2.0, c.operand(0))


def log_base(base: float) -> Row:
    return lambda c: c.b.apply("mul", c.b.make("log", c.operand(0)), 1.0 / math.log(base))


def cosh(c: Call) -> Value:
    x = c.operand(0)
    return c.b.apply("mul", c.b.make("add", c.b.make("exp", x), c.b.make("exp", c.b.neg(x))), 0.5)


def silu(c: Call) -> Value:
    x = c.operand(0)
    return c.b.make("mul", x, c.b.make("sigmoid", x))


def mish(c: Call) -> Value:
    x = c.operand(0)
    return c.b.make("mul", x, c.b.make("tanh", c.b.make("softplus", x)))


def elu(c: Call) -> Value:
    """scale·max(x, 0) + scale·alpha·(exp(input_scale·min(x, 0)) − 1)."""
    alpha, scale, inner = (float(c.number(name)) for name in ("alpha", "scale", "input_scale"))
    return _two_sided(c, scale, alpha * scale, inner)


def celu(c: Call) -> Value:
    """max(x, 0) + alpha·(exp(min(x, 0)/alpha) − 1)."""
    alpha = float(c.number("alpha"))
    return _two_sided(c, 1.0, alpha, 1.0 / alpha)


def selu(c: Call) -> Value:
    """The elu of Klambauer et al. 2017, with PyTorch's constants."""
    alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
    return _two_sided(c, scale, alpha * scale, 1.0)


def _two_sided(c: Call, above: float, below: float, inner: float) -> Value:
    """above·max(x, 0) + below·(exp(inner·min(x, 0)) − 1): each side is 0 where the other counts."""
    x = c.operand("self")

    def times(value: Value, factor: float) -> Value:
        return value if factor == 1.0 else c.b.apply("mul", value, factor)

    low = c.b.make("expm1", times(c.b.apply("minimum", x, 0.0), inner))
    return c.b.make("add", times(c.b.apply("maximum", x, 0.0), above), times(low, below))


def logaddexp2(c: Call) -> Value:
    """log₂(2ˣ + 2ʸ)."""
    x, y = (c.b.apply("mul", c.operand(i), math.log(2.0)) for i in (0, 1))
    return c.b.apply("mul", c.b.make("logaddexp", x, y), 1.0 / math.log(2.0))


def xlog1py(c: Call) -> Value:
    """x·log1p(y), 0 where x is 0 and y a number."""
    x, y = c.operand(0), c.operand(1)
    product = c.b.make("mul", x, c.b.make("log1p", y))
    nothing = c.b.make("and", c.b.apply("eq", x, 0.0), c.b.make("not", c.b.make("isnan", y)))
    return c.b.apply("where", nothing, 0.0, product)


def softplus(c: Call) -> Value:
    """softplus(βx)/β. PyTorch's switch to the identity at βx > 20 is within half an ulp of float32."""
    if c.number("threshold") < 20:
        raise Unreadable("a softplus that is linear below 20 is another function")
    beta = float(c.number("beta"))
    x = c.operand("self")
    if beta == 1.0:
        return c.b.make("softplus", x)
    return c.b.apply("div", c.b.make("softplus", c.b.apply("mul", x, beta)), beta)


def logit(c: Call) -> Value:
    if c.given("eps"):
        raise Unreadable("logit with a clamp")
    p = c.operand(0)
    return c.b.make("log", c.b.make("div", p, c.b.make("sub", _one(c), p)))


def add_product(op: str) -> Row:
    """self + value·(a·b), self + value·(a/b)."""

    def row(c: Call) -> Value:
        term = c.b.make(op, c.operand("tensor1"), c.operand("tensor2"))
        if c.raw("value") != 1:
            term = c.b.make("mul", term, c.promoted(c.raw("value"), c.out.dtype))
        return c.b.make("add", c.operand("self"), term)

    return row


def outer(c: Call) -> Value:
    return c.b.make("mul", c.b.unsqueeze(c.operand(0), (1,)), c.operand(1))


def clamp(c: Call) -> Value:
    value = c.operand("self")
    if c.given("min"):
        value = c.b.make("maximum", value, c.operand("min"))
    if c.given("max"):
        value = c.b.make("minimum", value, c.operand("max"))
    return value


def hardtanh(c: Call) -> Value:
    value = c.b.make("maximum", c.operand("self"), c.operand("min_val"))
    return c.b.make("minimum", value, c.operand("max_val"))


def relu6(c: Call) -> Value:
    return c.b.apply("minimum", c.b.apply("maximum", c.operand("self"), 0.0), 6.0)


def where(c: Call) -> Value:
    if c.tensor("condition").dtype != "bool":
        raise Unreadable("a condition that is not boolean")
    return c.b.make("where", c.tensor("condition"), c.operand("self"), c.operand("other"))


def masked_fill(c: Call) -> Value:
    x, value = c.operand("self"), c.operand("value")
    return c.b.make("where", c.tensor("mask"), value, x)


def fill(c: Call) -> Value:
    value = c.operand("value")
    return value_of_shape(c, value, c.out)


def copy(c: Call) -> Value:
    return value_of_shape(c, c.operand("src"), c.out)


def value_of_shape(c: Call, value: Value, out: TensorType) -> Value:
    """`value` broadcast to the shape of `out`; a scalar constant becomes a constant of that shape."""
    if value.op == "constant" and value.shape == ():
        return c.b.constant(cast(float, value.attr("value")), out.dtype, out.shape)
    return c.b.expand(value, out.shape)


def finite(op: str) -> Row:
    """isinf ("eq") and isfinite ("lt"): |x| against infinity, false for NaN."""

    def row(c: Call) -> Value:
        x = c.tensor("self")
        if not is_float(x.dtype):
            raise Unreadable("integers have no infinity")
        return c.b.apply(op, c.b.make("abs", x), math.inf)

    return row


def ndtr(c: Call) -> Value:
    """The normal distribution function Φ(x) = erfc(−x/√2)/2."""
    x = c.operand(0)
    return c.b.apply("mul", c.b.make("erfc", c.b.apply("mul", x, -math.sqrt(0.5))), 0.5)


def constant(key: str | float) -> Row:
    """A tensor full of one number: an argument of the operator, or a fixed number."""

    def row(c: Call) -> Value:
        number = c.raw(key) if isinstance(key, str) else key
        return value_of_shape(c, c.promoted(number, c.out.dtype), c.out)

    return row


def arange(c: Call) -> Value:
    """start + step·(0, 1, …)."""
    start = c.raw("start") if "start" in c.names else 0
    step = c.raw("step") if "step" in c.names else 1
    if not all(isinstance(k, (int, float)) and not isinstance(k, bool) for k in (start, step)):
        raise Unreadable("an arange with a symbolic start or step")
    counted = c.b.make("arange", size=c.out.shape[0], dtype=c.out.dtype)
    if step != 1:
        counted = c.b.make("mul", counted, c.promoted(step, c.out.dtype))
    if start == 0:
        return counted
    return c.b.make("add", counted, c.promoted(start, c.out.dtype))


_UNARY = (
    "exp", "expm1", "log", "log1p", "sqrt", "sigmoid", "log_sigmoid", "tanh", "relu", "erf", "erfc",
    "sin", "cos", "floor", "neg", "abs", "sign", "detach", "asin", "acos", "atan", "sinh", "asinh", "acosh", "atanh",
    "erfinv",
)  # fmt: skip

_UNARY_ALIASES = {
    "special_expit": "sigmoid", "special_expm1": "expm1", "special_log1p": "log1p", "special_erf": "erf",
    "special_erfc": "erfc", "special_erfinv": "erfinv", "special_erfcx": "erfcx", "special_log_ndtr": "log_ndtr",
    "special_ndtri": "ndtri", "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arcsinh": "asinh",
    "arccosh": "acosh", "arctanh": "atanh", "absolute": "abs", "negative": "neg", "sgn": "sign",
}  # fmt: skip

_COMPARE_ALIASES = {
    "greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le", "not_equal": "ne",
}  # fmt: skip

MATH_ROWS: dict[str, Row] = {
    **{f"{name}.default": unary(name) for name in _UNARY},
    **{f"{name}.default": unary(op) for name, op in _UNARY_ALIASES.items()},
    "isinf.default": finite("eq"),
    "isfinite.default": finite("lt"),
    "special_ndtr.default": ndtr,
    "isnan.default": lambda c: c.b.make("isnan", c.tensor(0)),
    "reciprocal.default": reciprocal,
    "rsqrt.default": rsqrt,
    "square.default": square,
    "exp2.default": exp2,
    "special_exp2.default": exp2,
    "log2.default": log_base(2.0),
    "log10.default": log_base(10.0),
    "cosh.default": cosh,
    "silu.default": silu,
    "mish.default": mish,
    "elu.default": elu,
    "celu.default": celu,
    "selu.default": selu,
    "softplus.default": softplus,
    "logit.default": logit,
    "special_logit.default": logit,
    # arithmetic
    "add.Tensor": add,
    "add.Scalar": add,
    "sub.Tensor": sub,
    "sub.Scalar": sub,
    "rsub.Tensor": rsub,
    "rsub.Scalar": rsub,
    "mul.Tensor": binary("mul"),
    "mul.Scalar": binary("mul"),
    "div.Tensor": binary("div"),
    "div.Scalar": binary("div"),
    "div.Tensor_mode": div_mode,
    "div.Scalar_mode": div_mode,
    "true_divide.Tensor": binary("div"),
    "divide.Tensor": binary("div"),
    "divide.Scalar": binary("div"),
    "multiply.Tensor": binary("mul"),
    "multiply.Scalar": binary("mul"),
    "subtract.Tensor": sub,
    "subtract.Scalar": sub,
    "addcmul.default": add_product("mul"),
    "addcdiv.default": add_product("div"),
    "outer.default": outer,
    "pow.Tensor_Tensor": binary("pow"),
    "pow.Tensor_Scalar": binary("pow"),
    "pow.Scalar": binary("pow"),
    "float_power.Tensor_Scalar": binary("pow"),
    "float_power.Tensor_Tensor": binary("pow"),
    "maximum.default": binary("maximum"),
    "minimum.default": binary("minimum"),
    "max.other": binary("maximum"),
    "min.other": binary("minimum"),
    "clamp_min.default": binary("maximum"),
    "clamp_min.Tensor": binary("maximum"),
    "clamp_max.default": binary("minimum"),
    "clamp_max.Tensor": binary("minimum"),
    "clamp.default": clamp,
    "clamp.Tensor": clamp,
    "clip.default": clamp,
    "hardtanh.default": hardtanh,
    "relu6.default": relu6,
    "logaddexp.default": binary("logaddexp"),
    **{f"xlogy.{overload}": binary("xlogy") for overload in ("Tensor", "Scalar_Self", "Scalar_Other")},
    "special_xlogy.default": binary("xlogy"),
    "logaddexp2.default": logaddexp2,
    "special_xlog1py.default": xlog1py,
    # comparisons and logic
    **{f"{name}.{overload}": compare(op) for name, op in _COMPARE_ALIASES.items() for overload in ("Tensor", "Scalar")},
    **{
        f"{op}.{overload}": compare(op)
        for op in ("eq", "ne", "lt", "le", "gt", "ge")
        for overload in ("Tensor", "Scalar")
    },
    "logical_and.default": logical("and"),
    "logical_or.default": logical("or"),
    "logical_not.default": logical("not"),
    "logical_xor.default": lambda c: c.b.make("ne", truth(c, c.tensor(0)), truth(c, c.tensor(1))),
    "bitwise_and.Tensor": bitwise("and"),
    "bitwise_or.Tensor": bitwise("or"),
    "bitwise_xor.Tensor": bitwise("ne"),
    "__xor__.Tensor": bitwise("ne"),
    "bitwise_not.default": bitwise("not"),
    "__and__.Tensor": bitwise("and"),
    "__or__.Tensor": bitwise("or"),
    # selection
    "where.self": where,
    "where.ScalarOther": where,
    "where.ScalarSelf": where,
    "where.Scalar": where,
    "masked_fill.Scalar": masked_fill,
    "masked_fill.Tensor": masked_fill,
    # constants
    "full.default": constant("fill_value"),
    "full_like.default": constant("fill_value"),
    "new_full.default": constant("fill_value"),
    "scalar_tensor.default": constant("s"),
    **{f"{name}.default": constant(0.0) for name in ("zeros", "zeros_like", "new_zeros")},
    **{f"{name}.default": constant(1.0) for name in ("ones", "ones_like", "new_ones")},
    "fill.Scalar": fill,
    "fill.Tensor": fill,
    "zero.default": constant(0.0),
    "copy.default": copy,
    "arange.default": arange,
    "arange.start": arange,
    "arange.start_step": arange,
}

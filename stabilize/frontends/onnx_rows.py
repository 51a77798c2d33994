"""Reader rows of arithmetic, reductions, products and losses: one row per ONNX operator of the default domain."""

from __future__ import annotations

import math
from functools import partial, reduce

from stabilize.formats import is_float
from stabilize.frontends import onnx_norms
from stabilize.frontends.onnx_call import Call, Refused, Row, normal
from stabilize.frontends.onnx_types import DTYPES, rounded
from stabilize.graph.build import constant_of, element_count
from stabilize.graph.value import Attr, Value

# --- elementwise ----------------------------------------------------------------------------------------------


def _unary(primitive: str, call: Call) -> Value:
    return call.builder.make(primitive, call.x())


def _unary_float(primitive: str, call: Call) -> Value:
    return call.builder.make(primitive, call.floating())


def _binary(primitive: str, call: Call) -> Value:
    return call.builder.make(primitive, call.x(0), call.x(1))


def _variadic(primitive: str, call: Call) -> Value:
    operands = [call.x(i) for i in range(len(call.args))]
    return reduce(lambda a, b: call.builder.make(primitive, a, b), operands)


def _mean(call: Call) -> Value:
    call.floating()
    return call.builder.apply("div", _variadic("add", call), float(len(call.args)))


def _div(call: Call) -> Value:
    return call.builder.make("div", call.floating(), call.x(1))


def _reciprocal(call: Call) -> Value:
    return call.builder.apply("div", 1.0, call.floating())


def _pow(call: Call) -> Value:
    base, exponent = call.floating(), call.x(1)
    if exponent.dtype != base.dtype:
        number = constant_of(exponent)
        same = None if number is None else rounded(number, base.dtype)
        if same is None or same != number:
            raise Refused("an exponent of another dtype")
        exponent = call.builder.constant(same, base.dtype, exponent.shape)
    return call.builder.make("pow", base, exponent)


def _cast(call: Call) -> Value:
    if call.node.op_type == "CastLike":
        dtype = call.x(1).dtype
    else:
        dtype = next((n for t, n in DTYPES.items() if int(t) == call.int_attr("to", 0)), "other")
    if dtype == "other":
        raise Refused("a cast to a dtype outside the vocabulary")
    value = call.x()
    if value.op == "constant":
        number = value.attr("value")
        folded = rounded(number, dtype) if isinstance(number, (bool, int, float)) else None
        if folded is not None:
            return call.builder.constant(folded, dtype, value.shape)
    return call.builder.cast(value, dtype)


def _clip(call: Call) -> Value:
    """min(max(x, lo), hi). An absent bound is no bound: ±inf pass, where ONNX's default is the largest number."""
    value = call.x()
    for index, name, primitive in ((1, "min", "maximum"), (2, "max", "minimum")):
        if name in call.node.attributes:
            value = call.builder.apply(primitive, value, call.float_attr(name, 0.0))
        elif call.given(index):
            value = call.builder.make(primitive, value, call.x(index))
    return value


def _isinf(call: Call) -> Value:
    if call.int_attr("detect_negative", 1) != 1 or call.int_attr("detect_positive", 1) != 1:
        raise Refused("one sign only")
    return call.builder.apply("eq", call.builder.make("abs", call.floating()), math.inf)


def _not(call: Call) -> Value:
    """Not(Equal) is how ONNX says ne."""
    x = call.x()
    return call.builder.make("ne", *x.operands) if x.op == "eq" else call.builder.make("not", x)


def _or(call: Call) -> Value:
    """Or(Less, Equal) of the same operands is how ONNX says ≤ before opset 12."""
    for strict, equal in ((call.x(0), call.x(1)), (call.x(1), call.x(0))):
        if (
            strict.op in ("lt", "gt")
            and equal.op == "eq"
            and equal.operands in (strict.operands, strict.operands[::-1])
        ):
            return call.builder.make("le" if strict.op == "lt" else "ge", *strict.operands)
    return call.builder.make("or", call.x(0), call.x(1))


def _xor(call: Call) -> Value:
    return call.builder.make("ne", call.x(0), call.x(1))


def _swish(call: Call) -> Value:
    x, alpha = call.floating(), call.float_attr("alpha", 1.0)
    gate = x if alpha == 1.0 else call.builder.apply("mul", x, _exact(alpha, x.dtype))
    return call.builder.make("mul", x, call.builder.make("sigmoid", gate))


def _cosh(call: Call) -> Value:
    x, b = call.floating(), call.builder
    return b.apply("mul", b.make("add", b.make("exp", x), b.make("exp", b.neg(x))), 0.5)


def _mish(call: Call) -> Value:
    x = call.floating()
    return call.builder.make("mul", x, call.builder.make("tanh", call.builder.make("softplus", x)))


def _leaky_relu(call: Call) -> Value:
    x = call.floating()
    slope = _exact(call.float_attr("alpha", 0.01), x.dtype)
    negative = call.builder.apply("lt", x, 0.0)
    return call.builder.make("where", negative, call.builder.apply("mul", x, slope), x)


def _exact(number: float, dtype: str) -> float:
    """A float attribute (binary32 in the file) as the operator sees it in `dtype`."""
    same = rounded(number, dtype)
    if same is None:
        raise Refused(f"{number} in {dtype}")
    return float(same)


def _identity(call: Call) -> Value:
    return call.x()


def _dropout(call: Call) -> tuple[Value | None, ...]:
    """Inference only; in training mode the output is random."""
    if call.given(2) and constant_of(call.x(2)) is not False:
        raise Refused("dropout in training mode")
    return (call.x(),) + (None,) * (len(call.node.outputs) - 1)


# --- reductions and scans -------------------------------------------------------------------------------------


def _axes(call: Call, rank: int) -> tuple[int, ...] | None:
    """Sorted axes of a reduction; None when it leaves its input as it is."""
    axes = call.ints("axes", 1)
    if not axes:
        return None if call.int_attr("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted({normal(a, rank) for a in axes}))


def _reduce(primitive: str, before: str | None, after: str | None, call: Call) -> Value:
    """`after`(`primitive`(`before`(x))); "square" before is x·x."""
    builder, x = call.builder, call.x()
    if primitive != "max" and primitive != "min" and not (primitive == "sum" and before is None and after is None):
        call.floating()
    if x.dtype == "bool":
        primitive = {"max": "any", "min": "all"}[primitive]
    axes = _axes(call, x.type.rank)
    if axes is None:
        if primitive in ("logsumexp", "norm") or before or after:
            raise Refused("a composite reduction over no axes")
        return x
    if before is not None:
        x = builder.make("mul", x, x) if before == "square" else builder.make(before, x)
    value = builder.reduce(primitive, x, axes, bool(call.int_attr("keepdims", 1)))
    return value if after is None else builder.make(after, value)


def _cumulate(primitive: str, call: Call) -> Value:
    axes = call.ints("axis", 1)
    if axes is None or len(axes) != 1 or call.int_attr("exclusive", 0) or call.int_attr("reverse", 0):
        raise Refused("exclusive, reversed, or along a computed axis")
    return call.builder.make(primitive, call.x(), axis=normal(axes[0], call.x().type.rank))


def _argmax(call: Call) -> Value:
    if call.int_attr("select_last_index", 0):
        raise Refused("the last of equal maxima")
    x = call.x()
    return call.builder.make("argmax", x, axis=call.axis(0, x.type.rank), keepdim=bool(call.int_attr("keepdims", 1)))


def _topk(call: Call) -> tuple[Value, Value]:
    x, count = call.x(), call.ints("k", 1)
    axis = call.axis(-1, x.type.rank)
    size = x.shape[axis]
    if count is None or len(count) != 1 or (isinstance(size, int) and count[0] > size):
        raise Refused("k is computed, or larger than the axis")
    attrs = {
        "axis": axis,
        "k": count[0],
        "largest": bool(call.int_attr("largest", 1)),
        "sorted": bool(call.int_attr("sorted", 1)),
    }
    return call.builder.make("topk_values", x, **attrs), call.builder.make("topk_indices", x, **attrs)


def _softmax(primitive: str, call: Call) -> Value:
    """Along one axis from opset 13; before, over all axes from `axis` on together."""
    builder, x = call.builder, call.floating()
    axis = call.axis(-1 if call.opset >= 13 else 1, x.type.rank)
    over = [i for i in range(axis, x.type.rank) if x.shape[i] != 1] if call.opset < 13 else [axis]
    if len(over) <= 1:
        return builder.make(primitive, x, axis=over[0] if over else axis)
    together = element_count(x.shape, range(axis, x.type.rank))
    if together is None:
        raise Refused("a softmax over several axes of symbolic sizes")
    flat = builder.make("reshape", x, shape=(*x.shape[:axis], together))
    return builder.make("reshape", builder.make(primitive, flat, axis=axis), shape=x.shape)


# --- products and losses --------------------------------------------------------------------------------------


def _gemm(call: Call) -> Value:
    builder, a, b = call.builder, call.floating(0), call.x(1)
    if call.int_attr("transA", 0):
        a = builder.make("transpose", a, perm=(1, 0))
    if call.int_attr("transB", 0):
        b = builder.make("transpose", b, perm=(1, 0))
    value = builder.make("matmul", a, b)
    alpha, beta = call.float_attr("alpha", 1.0), call.float_attr("beta", 1.0)
    if alpha != 1.0:
        value = builder.apply("mul", value, _exact(alpha, value.dtype))
    if call.given(2) and beta != 0.0:
        c = call.x(2) if beta == 1.0 else builder.apply("mul", call.x(2), _exact(beta, value.dtype))
        value = builder.make("add", value, c)
    return value


def _einsum(call: Call) -> Value:
    """Two operands, at most one contracted axis and one free axis each: a matrix product."""
    builder = call.builder
    terms, arrow, out = call.str_attr("equation", "").replace(" ", "").partition("->")
    labels = terms.split(",")
    if not arrow or len(labels) != 2 or any(len(set(t)) != len(t) or "." in t for t in (*labels, out)):
        raise Refused(f"einsum {terms}{arrow}{out}")
    a, b = labels
    batch = [i for i in out if i in a and i in b]
    contracted = [i for i in a if i in b and i not in out]
    rows, columns = ([i for i in out if i in t and i not in batch] for t in (a, b))
    if max(len(contracted), len(rows), len(columns)) > 1 or len(batch + contracted + rows) != len(a):
        raise Refused(f"einsum {terms}{arrow}{out}")
    if len(batch + contracted + columns) != len(b) or not contracted:
        raise Refused(f"einsum {terms}{arrow}{out}")
    left = _arranged(call, call.floating(0), a, batch + rows + contracted)
    right = _arranged(call, call.x(1), b, batch + contracted + columns)
    rank = len(batch)
    left = left if rows else builder.unsqueeze(left, [rank])
    right = right if columns else builder.unsqueeze(right, [rank + 1])
    product = builder.make("matmul", left, right)
    product = builder.squeeze(product, [rank + i for i, kept in enumerate((rows, columns)) if not kept])
    return _arranged(call, product, "".join(batch + rows + columns), list(out))


def _arranged(call: Call, value: Value, labels: str, order: list[str]) -> Value:
    """`value`, whose axes are named by `labels`, with its axes in another order."""
    perm = tuple(labels.index(i) for i in order)
    return value if perm == tuple(range(len(perm))) else call.builder.make("transpose", value, perm=perm)


#: An index that no label has: what "no ignore_index" means.
NOTHING_IGNORED = -(2**31)


def _loss(primitive: str, call: Call) -> tuple[Value | None, ...]:
    x, y, weight = call.floating(), call.x(1), call.optional(2)
    if is_float(y.dtype) or x.type.rank < 2:
        raise Refused("labels must be integers, scores of rank 2 or more")
    attrs: dict[str, Attr] = {
        "reduction": call.str_attr("reduction", "mean"),
        "ignore_index": call.int_attr("ignore_index", NOTHING_IGNORED),
    }
    operands = (x, y) if weight is None else (x, y, weight)
    if primitive == "nll_loss":
        return (call.builder.make(primitive, *operands, **attrs),)
    loss = call.builder.make(primitive, *operands, **attrs, label_smoothing=0.0)
    return loss, call.builder.make("log_softmax", x, axis=1)


ROWS: dict[str, Row] = {
    **{
        op: partial(_unary, primitive)
        for op, primitive in (
            ("Neg", "neg"), ("Abs", "abs"), ("Relu", "relu"), ("Sign", "sign"), ("IsNaN", "isnan"),
        )
    },
    **{
        op: partial(_unary_float, op.lower())
        for op in (
            "Exp", "Log", "Sqrt", "Sigmoid", "Softplus", "Tanh", "Erf", "Sin", "Cos", "Floor", "Asin", "Acos", "Atan",
            "Sinh", "Asinh", "Acosh", "Atanh",
        )
    },
    **{
        op: partial(_binary, primitive)
        for op, primitive in (
            ("Add", "add"), ("Sub", "sub"), ("Mul", "mul"), ("And", "and"), ("Equal", "eq"),
            ("Less", "lt"), ("LessOrEqual", "le"), ("Greater", "gt"), ("GreaterOrEqual", "ge"), ("MatMul", "matmul"),
        )
    },
    **{op: partial(_variadic, name) for op, name in (("Max", "maximum"), ("Min", "minimum"), ("Sum", "add"))},
    "Mean": _mean,
    "Div": _div,
    "Reciprocal": _reciprocal,
    "Pow": _pow,
    "Cast": _cast,
    "CastLike": _cast,
    "Clip": _clip,
    "IsInf": _isinf,
    "Not": _not,
    "Or": _or,
    "Xor": _xor,
    "Where": lambda call: call.builder.make("where", call.x(0), call.x(1), call.x(2)),
    "Swish": _swish,
    "Mish": _mish,
    "Cosh": _cosh,
    "LeakyRelu": _leaky_relu,
    "Identity": _identity,
    "Dropout": _dropout,
    **{
        op: partial(_reduce, primitive, before, after)
        for op, primitive, before, after in (
            ("ReduceSum", "sum", None, None), ("ReduceMean", "mean", None, None), ("ReduceMax", "max", None, None),
            ("ReduceMin", "min", None, None), ("ReduceProd", "prod", None, None),
            ("ReduceLogSumExp", "logsumexp", None, None), ("ReduceLogSum", "sum", None, "log"),
            ("ReduceSumSquare", "sum", "square", None), ("ReduceL1", "sum", "abs", None),
            ("ReduceL2", "norm", None, None),
        )
    },
    "CumSum": partial(_cumulate, "cumsum"),
    "CumProd": partial(_cumulate, "cumprod"),
    "ArgMax": _argmax,
    "TopK": _topk,
    "Softmax": partial(_softmax, "softmax"),
    "LogSoftmax": partial(_softmax, "log_softmax"),
    "Gemm": _gemm,
    "Einsum": _einsum,
    "SoftmaxCrossEntropyLoss": partial(_loss, "cross_entropy"),
    "NegativeLogLikelihoodLoss": partial(_loss, "nll_loss"),
    "LayerNormalization": partial(onnx_norms.read, "layer_norm"),
    "RMSNormalization": partial(onnx_norms.read, "rms_norm"),
}  # fmt: skip

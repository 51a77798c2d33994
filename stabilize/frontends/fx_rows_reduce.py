"""Rows of the reading table: reductions, scans, selections, products, fused losses and attention."""

from __future__ import annotations

import math

from stabilize.frontends.fx_call import Call, Row, Unreadable
from stabilize.frontends.fx_rows_math import truth
from stabilize.graph.value import Value

_REDUCTIONS = ("none", "mean", "sum")


def _typed(c: Call, key: str = "self") -> Value:
    """The operand, cast first to the `dtype` argument or to what the operator promotes it to."""
    return c.b.cast(c.tensor(key), c.dtype("dtype") or c.out.dtype)


def _keepdim(c: Call) -> bool:
    return "keepdim" in c.names and c.flag("keepdim")


def reduction(op: str) -> Row:
    """A reduction over `dim` (one axis, several, or all of them when there is no such argument)."""

    def row(c: Call) -> Value:
        x = _typed(c) if "dtype" in c.names else c.tensor("self")
        axes = c.axes("dim", x.type.rank) if "dim" in c.names else tuple(range(x.type.rank))
        return x if x.type.rank == 0 else c.b.reduce(op, x, axes, _keepdim(c))

    return row


def quantifier(op: str) -> Row:
    def row(c: Call) -> Value:
        x = truth(c, c.tensor("self"))
        axes = c.axes("dim", x.type.rank) if "dim" in c.names else tuple(range(x.type.rank))
        return x if x.type.rank == 0 else c.b.reduce(op, x, axes, _keepdim(c))

    return row


def norm(order: str) -> Row:
    """A vector norm of order 1 (Σ|x|), 2 (√Σx²) or ∞ (max |x|) over `dim`."""

    def row(c: Call) -> Value:
        x = c.tensor("self")
        p = c.number(order) if c.given(order) else 2.0
        axes = c.axes("dim", x.type.rank) if c.given("dim") else tuple(range(x.type.rank))
        keepdim = _keepdim(c)
        if x.type.rank == 0 or x.dtype != c.out.dtype:
            raise Unreadable("a norm of a scalar or of another dtype")
        if p == 1:
            return c.b.reduce("sum", c.b.make("abs", x), axes, keepdim)
        if p == math.inf:
            return c.b.reduce("max", c.b.make("abs", x), axes, keepdim)
        if p == 2:
            return c.b.reduce("norm", x, axes, keepdim)
        raise Unreadable(f"a norm of order {p}")

    return row


def max_dim(c: Call) -> tuple[Value | None, ...]:
    x = c.tensor("self")
    axis = c.axis("dim", x.type.rank)
    keepdim = _keepdim(c)
    return c.b.reduce("max", x, (axis,), keepdim), c.b.make("argmax", x, axis=axis, keepdim=keepdim)


def min_dim(c: Call) -> tuple[Value | None, ...]:
    """The minimum; its index has no primitive and stays opaque (None)."""
    x = c.tensor("self")
    return c.b.reduce("min", x, (c.axis("dim", x.type.rank),), _keepdim(c)), None


def aminmax(c: Call) -> tuple[Value | None, ...]:
    x = c.tensor("self")
    axes = (c.axis("dim", x.type.rank),) if c.given("dim") else tuple(range(x.type.rank))
    return c.b.reduce("min", x, axes, _keepdim(c)), c.b.reduce("max", x, axes, _keepdim(c))


def argmax(c: Call) -> Value:
    x = c.tensor("self")
    if not c.given("dim"):
        if _keepdim(c) or not all(isinstance(d, int) for d in x.shape):
            raise Unreadable("argmax over all axes of a symbolic shape")
        x = c.b.make("reshape", x, shape=(math.prod(d for d in x.shape if isinstance(d, int)),))
        return c.b.make("argmax", x, axis=0, keepdim=False)
    return c.b.make("argmax", x, axis=c.axis("dim", x.type.rank), keepdim=_keepdim(c))


def scan(op: str) -> Row:
    """A function along one axis, with the `dtype` argument as a cast before it."""

    def row(c: Call) -> Value:
        x = _typed(c) if "dtype" in c.names else c.operand("self")
        return c.b.make(op, x, axis=c.axis("dim", x.type.rank))

    return row


def private_softmax(op: str) -> Row:
    """`_softmax` and `_log_softmax`, which decompositions leave behind."""

    def row(c: Call) -> Value:
        x = c.b.cast(c.tensor("self"), c.out.dtype)
        return c.b.make(op, x, axis=c.axis("dim", x.type.rank))

    return row


def topk(c: Call) -> tuple[Value | None, ...]:
    x = c.tensor("self")
    axis = c.axis("dim", x.type.rank)
    k, largest, ordered = c.integer("k"), c.flag("largest"), c.flag("sorted")
    values, indices = (
        c.b.make(op, x, axis=axis, k=k, largest=largest, sorted=ordered) for op in ("topk_values", "topk_indices")
    )
    return values, indices


# --- products -----------------------------------------------------------------------------------------------


def matmul(c: Call) -> Value:
    return c.b.make("matmul", c.tensor(0), c.tensor(1))


def _affine(c: Call, product: Value) -> Value:
    """beta·input + alpha·product, as addmm and its relatives compute."""
    bias = c.tensor("self")
    if c.raw("beta") == 0:
        raise Unreadable("beta = 0 ignores NaN in the input")
    if c.raw("beta") != 1:
        bias = c.b.make("mul", bias, c.promoted(c.raw("beta"), bias.dtype))
    if c.raw("alpha") != 1:
        product = c.b.make("mul", product, c.promoted(c.raw("alpha"), product.dtype))
    return c.b.make("add", bias, product)


def addmm(c: Call) -> Value:
    return _affine(c, c.b.make("matmul", c.tensor(1), c.tensor(2)))


def linear(c: Call) -> Value:
    weight = c.tensor("weight")
    if weight.type.rank != 2:
        raise Unreadable("a weight that is not a matrix")
    product = c.b.make("matmul", c.tensor("input"), c.b.make("transpose", weight, perm=(1, 0)))
    bias = c.maybe("bias")
    return product if bias is None else c.b.make("add", product, bias)


def inner(c: Call) -> Value:
    a, b = c.tensor(0), c.tensor(1)
    if a.type.rank == 0 or b.type.rank not in (1, 2):
        raise Unreadable("an inner product of scalars or of batches")
    return c.b.make("matmul", a, b if b.type.rank == 1 else c.b.make("transpose", b, perm=(1, 0)))


def vecdot(c: Call) -> Value:
    product = c.b.make("mul", c.tensor("x"), c.tensor("y"))
    return c.b.reduce("sum", product, (c.axis("dim", product.type.rank),), keepdim=False)


def einsum(c: Call) -> Value:
    """One operand: a sum. Two: a matrix product when one index is summed, else a product with broadcasting."""
    operands = [c.read(item) for item in c.items("tensors")]
    names, target = _indices(str(c.raw("equation")), operands)
    if any(len(set(n)) != len(n) for n in (*names, target)) or not set(target) <= set("".join(names)):
        raise Unreadable("einsum with a diagonal")
    if len(operands) == 1:
        return _summed(c, operands[0], names[0], target)
    if len(operands) != 2:
        raise Unreadable("einsum of more than two operands")
    # an index that one operand alone has and the result has not is summed there first
    for i in (0, 1):
        lone = [n for n in names[i] if n not in names[1 - i] and n not in target]
        kept = "".join(n for n in names[i] if n not in lone)
        operands[i], names[i] = _summed(c, operands[i], names[i], kept), kept
    shared = [n for n in names[0] if n in names[1]]
    summed = [n for n in shared if n not in target]
    free = [[n for n in side if n not in shared] for side in names]
    if len(summed) == 1 and all(len(f) <= 1 for f in free):
        return _matrix_product(c, operands, names, target)
    every = [*target, *summed]
    sides = [_spread(c, value, side, every) for value, side in zip(operands, names, strict=True)]
    return _summed(c, c.b.make("mul", *sides), "".join(every), target)


def _indices(equation: str, operands: list[Value]) -> tuple[list[str], str]:
    """The letters of each operand's axes and of the result's, an ellipsis spelled out in digits."""
    left, arrow, target = equation.replace(" ", "").partition("->")
    names = left.split(",")
    if not arrow or len(names) != len(operands):
        raise Unreadable("einsum with an implicit result")
    dots = {v.type.rank - len(n) + 3 for n, v in zip(names, operands, strict=True) if "..." in n}
    if len(dots) > 1 or max(dots, default=0) > 9:
        raise Unreadable("einsum that broadcasts its ellipsis")
    digits = "".join(map(str, range(max(dots, default=0))))
    return [n.replace("...", digits) for n in names], target.replace("...", digits)


def _summed(c: Call, value: Value, names: str, target: str) -> Value:
    """`value` summed over the axes that `target` lacks, the others in its order."""
    gone = [i for i, n in enumerate(names) if n not in target]
    kept = "".join(n for n in names if n in target)
    total = c.b.reduce("sum", value, gone, keepdim=False) if gone else value
    return _arranged(c, total, kept, list(target))


def _spread(c: Call, value: Value, names: str, every: list[str]) -> Value:
    """`value` with an axis for every index, of size 1 where it has none."""
    ordered = _arranged(c, value, names, [n for n in every if n in names])
    return c.b.unsqueeze(ordered, [i for i, n in enumerate(every) if n not in names])


def _matrix_product(c: Call, operands: list[Value], names: list[str], target: str) -> Value:
    """A product with one summed index and at most one free index a side; the other shared ones are batches."""
    batch = [n for n in names[0] if n in names[1] and n in target]
    summed = [n for n in names[0] if n in names[1] and n not in target]
    free = [[n for n in side if n not in batch and n not in summed] for side in names]
    sides = [
        _arranged(c, operands[0], names[0], [*batch, *free[0], *summed]),
        _arranged(c, operands[1], names[1], [*batch, *summed, *free[1]]),
    ]
    product = _batched_matmul(c, sides, len(batch), [bool(f) for f in free])
    return _arranged(c, product, "".join([*batch, *free[0], *free[1]]), list(target))


def _arranged(c: Call, value: Value, names: str, order: list[str]) -> Value:
    """`value`, whose axes are called `names`, with its axes in `order`."""
    perm = tuple(names.index(n) for n in order)
    if perm == tuple(range(len(perm))):
        return value
    return c.b.make("transpose", value, perm=perm)


def _batched_matmul(c: Call, sides: list[Value], batch: int, free: list[bool]) -> Value:
    """A matrix product in which a side without a free axis gets one of size 1 for its duration."""
    a, b = sides
    a = a if free[0] else c.b.unsqueeze(a, (batch,))
    b = b if free[1] else c.b.unsqueeze(b, (batch + 1,))
    product = c.b.make("matmul", a, b)
    return c.b.squeeze(product, [batch + i for i in (0, 1) if not free[i]])


# --- fused losses and attention -----------------------------------------------------------------------------


def _reduction(c: Call) -> str:
    return _REDUCTIONS[c.integer("reduction")]


def cross_entropy(c: Call) -> Value:
    x, y, weight = c.tensor("self"), c.tensor("target"), c.maybe("weight")
    operands = (x, y) if weight is None else (x, y, weight)
    return c.b.make(
        "cross_entropy",
        *operands,
        reduction=_reduction(c),
        ignore_index=c.integer("ignore_index"),
        label_smoothing=float(c.number("label_smoothing")),
    )


def nll_loss(c: Call) -> Value:
    x, y, weight = c.tensor("self"), c.tensor("target"), c.maybe("weight")
    operands = (x, y) if weight is None else (x, y, weight)
    return c.b.make("nll_loss", *operands, reduction=_reduction(c), ignore_index=c.integer("ignore_index"))


def bce_with_logits(c: Call) -> Value:
    if c.given("weight") or c.given("pos_weight"):
        raise Unreadable("a weighted binary cross-entropy")
    return c.b.make("bce_with_logits", c.tensor("self"), c.tensor("target"), reduction=_reduction(c))


def attention(c: Call) -> Value:
    q, k, v, mask = c.tensor("query"), c.tensor("key"), c.tensor("value"), c.maybe("attn_mask")
    if c.number("dropout_p") != 0 or c.flag("is_causal") or c.flag("enable_gqa"):
        raise Unreadable("attention with dropout, a causal flag or grouped queries")
    width = q.shape[-1]
    if not c.given("scale") and not isinstance(width, int):
        raise Unreadable("a scale that depends on a symbolic size")
    scale = float(c.number("scale")) if c.given("scale") else 1.0 / math.sqrt(int(width))
    if mask is not None and mask.dtype == "bool":
        # the vocabulary's mask is added to the scores
        mask = c.b.apply("where", mask, 0.0, c.b.constant(-math.inf, q.dtype))
    operands = (q, k, v) if mask is None else (q, k, v, mask)
    return c.b.make("attention", *operands, scale=scale)


def normalised(op: str) -> Row:
    """A normalisation over the last axes."""

    def row(c: Call) -> Value:
        x, weight = c.tensor("input"), c.maybe("weight")
        bias = c.maybe("bias") if op == "layer_norm" else None
        if not c.given("eps") or (bias is not None and weight is None):
            raise Unreadable("a normalisation with a default epsilon, or with a bias and no weight")
        affine = [t for t in (weight, bias) if t is not None]
        axis = x.type.rank - len(c.items("normalized_shape"))
        if any(t.dtype != x.dtype for t in affine):
            raise Unreadable("a normalisation in two formats")
        return c.b.make(op, x, *affine, axis=axis, epsilon=float(c.number("eps")))

    return row


def kl_div(c: Call) -> Value:
    """t·(ln t − x), with 0·ln 0 = 0; e^t·(t − x) when the target is a logarithm."""
    x, t = c.operand("self"), c.operand("target")
    if c.flag("log_target"):
        loss = c.b.make("mul", c.b.make("exp", t), c.b.make("sub", t, x))
    else:
        loss = c.b.make("sub", c.b.make("xlogy", t, t), c.b.make("mul", t, x))
    reduction = _reduction(c)
    return loss if reduction == "none" else c.b.reduce(reduction, loss, range(loss.type.rank), keepdim=False)


REDUCE_ROWS: dict[str, Row] = {
    "sum.default": reduction("sum"),
    "sum.dim_IntList": reduction("sum"),
    "mean.default": reduction("mean"),
    "mean.dim": reduction("mean"),
    "prod.default": reduction("prod"),
    "prod.dim_int": reduction("prod"),
    "amax.default": reduction("max"),
    "amin.default": reduction("min"),
    "max.default": reduction("max"),
    "min.default": reduction("min"),
    "linalg_vector_norm.default": norm("ord"),
    "norm.ScalarOpt_dim": norm("p"),
    "norm.Scalar": norm("p"),
    "max.dim": max_dim,
    "min.dim": min_dim,
    "logsumexp.default": reduction("logsumexp"),
    "special_logsumexp.default": reduction("logsumexp"),
    **{f"{op}.{overload}": quantifier(op) for op in ("any", "all") for overload in ("default", "dim", "dims")},
    "aminmax.default": aminmax,
    "argmax.default": argmax,
    "cumsum.default": scan("cumsum"),
    "cumprod.default": scan("cumprod"),
    "logcumsumexp.default": scan("logcumsumexp"),
    "softmax.int": scan("softmax"),
    "special_softmax.default": scan("softmax"),
    "_softmax.default": private_softmax("softmax"),
    "log_softmax.int": scan("log_softmax"),
    "special_log_softmax.default": scan("log_softmax"),
    "_log_softmax.default": private_softmax("log_softmax"),
    "topk.default": topk,
    "matmul.default": matmul,
    "mm.default": matmul,
    "bmm.default": matmul,
    "mv.default": matmul,
    "dot.default": matmul,
    "linalg_matmul.default": matmul,
    "inner.default": inner,
    "linalg_vecdot.default": vecdot,
    "addmm.default": addmm,
    "addmv.default": addmm,
    "baddbmm.default": addmm,
    "linear.default": linear,
    "einsum.default": einsum,
    "cross_entropy_loss.default": cross_entropy,
    "nll_loss.default": nll_loss,
    "nll_loss_nd.default": nll_loss,
    "nll_loss2d.default": nll_loss,
    "layer_norm.default": normalised("layer_norm"),
    "rms_norm.default": normalised("rms_norm"),
    "kl_div.default": kl_div,
    "binary_cross_entropy_with_logits.default": bce_with_logits,
    "scaled_dot_product_attention.default": attention,
}

"""The vocabulary: one row per primitive, with its type rule.

Everything else that is known about a primitive (its scaled rule, interval rule, oracle, PyTorch and ONNX
spellings) lives in a table keyed by the same name, in the layer that needs it;
`tests/test_vocabulary.py` lists what is missing where.

Conventions: axes are non-negative and sorted; operands of an elementwise primitive share one dtype and
broadcast as in NumPy; reductions take `axes` and `keepdim`; `gather` is torch.gather.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast, final

from stabilize.errors import ShapeError
from stabilize.formats import is_float
from stabilize.graph.value import Attr, Dim, TensorType

Attrs: TypeAlias = Mapping[str, Attr]
TypeRule: TypeAlias = Callable[[Sequence[TensorType], Attrs], TensorType]


@final
@dataclass(frozen=True, slots=True)
class Primitive:
    """A row of the vocabulary. `arity` is (least, most) operands; `attrs` names every attribute, in order."""

    name: str
    kind: str
    arity: tuple[int, int]
    attrs: tuple[str, ...]
    infer: TypeRule
    meaning: str


def broadcast(shapes: Sequence[tuple[Dim, ...]]) -> tuple[Dim, ...]:
    """The NumPy broadcast of shapes; equal symbols match, a symbol beside another symbol does not."""
    if len(set(shapes)) == 1:
        return shapes[0]
    rank = max((len(s) for s in shapes), default=0)
    out: list[Dim] = []
    for i in range(rank):
        dims = {s[i - rank + len(s)] for s in shapes if i - rank + len(s) >= 0}
        wide = dims - {1}
        if len(wide) > 1:
            raise ShapeError(f"shapes {', '.join(map(str, shapes))} do not broadcast")
        out.append(wide.pop() if wide else 1)
    return tuple(out)


def reduced(shape: tuple[Dim, ...], axes: tuple[int, ...], keepdim: bool) -> tuple[Dim, ...]:
    """`shape` after a reduction over `axes`."""
    if any(not 0 <= a < len(shape) for a in axes):
        raise ShapeError(f"axes {axes} are outside a value of shape {shape}")
    if keepdim:
        return tuple(1 if i in axes else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in axes)


def _ints(attrs: Attrs, name: str) -> tuple[int, ...]:
    return cast("tuple[int, ...]", attrs[name])


def _axis(types: Sequence[TensorType], attrs: Attrs) -> int:
    axis = cast(int, attrs["axis"])
    if not 0 <= axis < types[0].rank:
        raise ShapeError(f"axis {axis} is outside a value of shape {types[0].shape}")
    return axis


def _same_dtype(types: Sequence[TensorType]) -> str:
    dtypes = {t.dtype for t in types}
    if len(dtypes) != 1:
        raise ShapeError(f"operands have different dtypes: {', '.join(sorted(dtypes))}")
    return dtypes.pop()


def _elementwise(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    return TensorType(_same_dtype(types), broadcast([t.shape for t in types]))


def _predicate(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    _same_dtype(types)
    return TensorType("bool", broadcast([t.shape for t in types]))


def _where(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    if types[0].dtype != "bool":
        raise ShapeError(f"the condition of where must be bool, not {types[0].dtype}")
    return TensorType(_same_dtype(types[1:]), broadcast([t.shape for t in types]))


def _cast(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    return TensorType(cast(str, attrs["dtype"]), types[0].shape)


def _reduce(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    return TensorType(types[0].dtype, reduced(types[0].shape, _ints(attrs, "axes"), bool(attrs["keepdim"])))


def _argreduce(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    axis = _axis(types, attrs)
    return TensorType("int64", reduced(types[0].shape, (axis,), bool(attrs["keepdim"])))


def _along(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    _axis(types, attrs)
    return types[0]


def _matmul(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    a, b = types[0].shape, types[1].shape
    dtype = _same_dtype(types)
    if not a or not b:
        raise ShapeError("matmul needs operands of rank 1 or more")
    if a[-1] != b[-2:][0]:
        raise ShapeError(f"matmul of {a} by {b}: the inner dimensions differ")
    batch = broadcast([a[:-2], b[:-2]])
    return TensorType(dtype, batch + a[-2:-1] + (b[-1:] if len(b) > 1 else ()))


def _reshape(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    return TensorType(types[0].dtype, cast("tuple[Dim, ...]", attrs["shape"]))


def _expand(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    shape = cast("tuple[Dim, ...]", attrs["shape"])
    if broadcast([types[0].shape, shape]) != shape:
        raise ShapeError(f"{types[0].shape} does not expand to {shape}")
    return TensorType(types[0].dtype, shape)


def _unsqueeze(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    axes = _ints(attrs, "axes")
    rest = iter(types[0].shape)
    rank = types[0].rank + len(axes)
    if any(not 0 <= a < rank for a in axes):
        raise ShapeError(f"axes {axes} are outside rank {rank}")
    return TensorType(types[0].dtype, tuple(1 if i in axes else next(rest) for i in range(rank)))


def _squeeze(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    axes = _ints(attrs, "axes")
    shape = types[0].shape
    if any(not 0 <= a < len(shape) or shape[a] != 1 for a in axes):
        raise ShapeError(f"axes {axes} of {shape} are not all of size 1")
    return TensorType(types[0].dtype, tuple(d for i, d in enumerate(shape) if i not in axes))


def _transpose(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    perm = _ints(attrs, "perm")
    if sorted(perm) != list(range(types[0].rank)):
        raise ShapeError(f"{perm} is not a permutation of the axes of {types[0].shape}")
    return TensorType(types[0].dtype, tuple(types[0].shape[p] for p in perm))


def _slice(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    axis = _axis(types, attrs)
    start, stop, step = (cast(int, attrs[k]) for k in ("start", "stop", "step"))
    size = types[0].shape[axis]
    if not isinstance(size, int) or not 0 <= start <= stop <= size or step < 1:
        raise ShapeError(f"slice {start}:{stop}:{step} of axis {axis} of {types[0].shape} is not in normal form")
    shape = list(types[0].shape)
    shape[axis] = -((start - stop) // step)
    return TensorType(types[0].dtype, tuple(shape))


def _gather(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    _axis(types, attrs)
    if types[0].rank != types[1].rank or is_float(types[1].dtype):
        raise ShapeError(f"gather of {types[0]} by {types[1]}: the index must be integer and of equal rank")
    return TensorType(types[0].dtype, types[1].shape)


def _concat(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    axis = _axis(types, attrs)
    if len({t.rank for t in types}) != 1:
        raise ShapeError(f"concat of values of ranks {', '.join(str(t.rank) for t in types)}")
    sizes = [t.shape[axis] for t in types]
    if not all(isinstance(s, int) for s in sizes):
        raise ShapeError("concat along a symbolic axis")
    rests = {t.shape[:axis] + t.shape[axis + 1 :] for t in types}
    if len(rests) != 1:
        raise ShapeError("concat of values whose other axes differ")
    total = sum(cast("list[int]", sizes))
    return TensorType(_same_dtype(types), (*types[0].shape[:axis], total, *types[0].shape[axis + 1 :]))


def _one_hot(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    return TensorType("bool", (*types[0].shape, cast(int, attrs["classes"])))


def _topk(dtype: str | None) -> TypeRule:
    def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
        axis = _axis(types, attrs)
        shape = (*types[0].shape[:axis], cast(int, attrs["k"]), *types[0].shape[axis + 1 :])
        return TensorType(dtype or types[0].dtype, shape)

    return infer


def _class_loss(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    logits = types[0]
    rows = logits.shape[:1] + logits.shape[2:] if logits.rank > 1 else ()
    return TensorType(logits.dtype, rows if attrs["reduction"] == "none" else ())


def _bce(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    shape = broadcast([t.shape for t in types[:2]])
    return TensorType(types[0].dtype, shape if attrs["reduction"] == "none" else ())


def _attention(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    q, k, v = (t.shape for t in types[:3])
    if min(len(q), len(k), len(v)) < 2 or q[-1] != k[-1] or k[-2] != v[-2]:
        raise ShapeError(f"attention of {q}, {k}, {v}")
    return TensorType(types[0].dtype, (*broadcast([q[:-2], k[:-2], v[:-2]]), q[-2], v[-1]))


def _normalised(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    axis = _axis(types, attrs)
    for affine in types[1:]:
        if affine.shape != types[0].shape[axis:]:
            raise ShapeError(f"normalising {types[0].shape} from axis {axis} with a weight of shape {affine.shape}")
    return TensorType(_same_dtype(types), types[0].shape)


def _constant(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    return TensorType(cast(str, attrs["dtype"]), cast("tuple[Dim, ...]", attrs["shape"]))


def _arange(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    return TensorType(cast(str, attrs["dtype"]), (cast(Dim, attrs["size"]),))


def _given(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    raise ShapeError("inputs and opaque values are given their type by the frontend")


_REDUCE = ("axes", "keepdim")
_TOPK = ("axis", "k", "largest", "sorted")

_ROWS: tuple[Primitive, ...] = (
    # leaves
    Primitive("input", "leaf", (0, 0), ("name",), _given, "an input, parameter or buffer of the model"),
    Primitive("opaque", "leaf", (0, 99), ("target", "output"), _given, "an operation outside the vocabulary"),
    Primitive("constant", "leaf", (0, 0), ("value", "dtype", "shape"), _constant, "every element is one number"),
    Primitive("arange", "leaf", (0, 0), ("size", "dtype"), _arange, "0, 1, …, size−1"),
    # elementwise, one operand
    *(
        Primitive(name, "unary", (1, 1), (), _elementwise, meaning)
        for name, meaning in (
            ("neg", "−x"), ("abs", "|x|"), ("exp", "eˣ"), ("expm1", "eˣ − 1"), ("log", "ln x"),
            ("log1p", "ln(1 + x)"), ("sqrt", "√x"), ("sigmoid", "1/(1 + e⁻ˣ)"),
            ("log_sigmoid", "−ln(1 + e⁻ˣ)"), ("softplus", "ln(1 + eˣ)"), ("tanh", "tanh x"),
            ("relu", "max(x, 0), NaN kept"), ("sign", "sign of x"), ("erf", "erf x"), ("erfc", "1 − erf x"),
            ("sin", "sin x"), ("cos", "cos x"), ("floor", "⌊x⌋"),
            ("asin", "arcsin x"), ("acos", "arccos x"), ("atan", "arctan x"), ("sinh", "sinh x"),
            ("asinh", "arsinh x"), ("acosh", "arcosh x"), ("atanh", "artanh x"), ("erfcx", "eˣ² erfc x"),
            ("log_ndtr", "ln Φ(x), Φ the normal distribution function"), ("erfinv", "erf⁻¹ x"), ("ndtri", "Φ⁻¹(x)"),
            ("detach", "x, with no gradient"),
        )
    ),
    Primitive("isnan", "unary", (1, 1), (), _predicate, "x is NaN"),
    Primitive("not", "unary", (1, 1), (), _predicate, "logical negation"),
    Primitive("cast", "unary", (1, 1), ("dtype",), _cast, "x rounded to another dtype"),
    # elementwise, two operands and three
    *(
        Primitive(name, "binary", (2, 2), (), _elementwise, meaning)
        for name, meaning in (
            ("add", "a + b"), ("sub", "a − b"), ("mul", "a·b"), ("div", "a/b"), ("pow", "aᵇ"),
            ("maximum", "max(a, b), NaN kept"), ("minimum", "min(a, b), NaN kept"),
            ("logaddexp", "ln(eᵃ + eᵇ)"), ("xlogy", "a·ln b, and 0 where a = 0"),
        )
    ),
    *(
        Primitive(name, "binary", (2, 2), (), _predicate, meaning)
        for name, meaning in (
            ("eq", "a = b"), ("ne", "a ≠ b"), ("lt", "a < b"), ("le", "a ≤ b"), ("gt", "a > b"), ("ge", "a ≥ b"),
            ("and", "a and b"), ("or", "a or b"),
        )
    ),
    Primitive("where", "ternary", (3, 3), (), _where, "b where the condition a holds, else c"),
    # reductions and scans
    *(
        Primitive(name, "reduction", (1, 1), _REDUCE, _reduce, meaning)
        for name, meaning in (
            ("sum", "Σ x"), ("mean", "Σ x / n"), ("prod", "Π x"), ("max", "max x"), ("min", "min x"),
            ("logsumexp", "ln Σ eˣ"), ("norm", "√Σx²"), ("any", "some x holds"), ("all", "every x holds"),
        )
    ),
    Primitive("argmax", "reduction", (1, 1), ("axis", "keepdim"), _argreduce, "index of the first maximum"),
    *(
        Primitive(name, "scan", (1, 1), ("axis",), _along, meaning)
        for name, meaning in (
            ("cumsum", "running Σ x"), ("cumprod", "running Π x"), ("logcumsumexp", "running ln Σ eˣ"),
        )
    ),
    Primitive("softmax", "scan", (1, 1), ("axis",), _along, "eˣ / Σ eˣ"),
    Primitive("log_softmax", "scan", (1, 1), ("axis",), _along, "x − ln Σ eˣ"),
    Primitive("topk_values", "selection", (1, 1), _TOPK, _topk(None), "the k largest (or smallest) along an axis"),
    Primitive("topk_indices", "selection", (1, 1), _TOPK, _topk("int64"), "where they stand"),
    Primitive(
        "layer_norm", "fused", (1, 3), ("axis", "epsilon"), _normalised,
        "(x − E[x])/√(E[(x − E[x])²] + ε) over the axes from `axis` on, times a weight, plus a bias",
    ),
    Primitive("rms_norm", "fused", (1, 2), ("axis", "epsilon"), _normalised, "x/√(E[x²] + ε), times a weight"),
    # products
    Primitive("matmul", "product", (2, 2), (), _matmul, "matrix product, batched as in NumPy"),
    # layout
    Primitive("reshape", "layout", (1, 1), ("shape",), _reshape, "the same elements in another shape"),
    Primitive("unsqueeze", "layout", (1, 1), ("axes",), _unsqueeze, "axes of size 1 inserted (result positions)"),
    Primitive("squeeze", "layout", (1, 1), ("axes",), _squeeze, "axes of size 1 removed"),
    Primitive("transpose", "layout", (1, 1), ("perm",), _transpose, "axes permuted"),
    Primitive("expand", "layout", (1, 1), ("shape",), _expand, "broadcast to a shape"),
    Primitive("slice", "layout", (1, 1), ("axis", "start", "stop", "step"), _slice, "a range along an axis"),
    Primitive("gather", "layout", (2, 2), ("axis",), _gather, "x picked by integer indices along an axis"),
    Primitive("concat", "layout", (1, 99), ("axis",), _concat, "values joined along an axis"),
    Primitive("one_hot", "layout", (1, 1), ("classes",), _one_hot, "y = 0 … classes−1 along a new last axis"),
    # fused losses and attention
    Primitive(
        "cross_entropy", "fused", (2, 3), ("reduction", "ignore_index", "label_smoothing"), _class_loss,
        "−log_softmax(x, class axis 1 or 0)[y], weighted by class",
    ),
    Primitive("nll_loss", "fused", (2, 3), ("reduction", "ignore_index"), _class_loss, "−x[y], weighted by class"),
    Primitive("bce_with_logits", "fused", (2, 2), ("reduction",), _bce, "softplus(x) − x·y"),
    Primitive("attention", "fused", (3, 4), ("scale",), _attention, "softmax(q kᵀ·scale + mask) v"),
)  # fmt: skip

VOCABULARY: dict[str, Primitive] = {row.name: row for row in _ROWS}

BROADCASTING = frozenset(row.name for row in _ROWS if row.kind in ("unary", "binary", "ternary"))
LAYOUT = frozenset(row.name for row in _ROWS if row.kind == "layout")

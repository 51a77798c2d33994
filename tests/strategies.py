"""Hypothesis strategies: random graphs over the semantic vocabulary, and their copies in other builders.

Graphs lean towards exp, log, sums, quotients and masks, so that rules fire often; shapes broadcast, and axes of
size 0 and 1 occur. Steps whose shapes do not fit are left out, so every draw gives a graph.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar, final

from hypothesis import strategies as st

from stabilize.errors import ShapeError
from stabilize.graph.build import Builder, Operand
from stabilize.graph.text import parse, show
from stabilize.graph.value import Attr, TensorType, Value, cone

T = TypeVar("T")

DTYPES = ("float32", "float16", "bfloat16", "float64")
SHAPES = ((3, 4), (3, 4), (3, 4), (1, 4), (3, 1), (1, 1), (0, 4), (3, 0))

#: Representable in every format; the smallest is an epsilon that float16 holds as a subnormal number.
NUMBERS = (1.0, 1.0, 0.5, 2.0, 3.0, -1.0, 0.0, 2.0**-20)


def rebuild(builder: Builder, roots: Sequence[Value], leaves: Mapping[Value, Value]) -> list[Value]:
    """`roots`, made anew by `builder` from other leaves."""
    made: dict[Value, Value] = dict(leaves)
    for value in cone(roots, leaves):
        if value not in made:
            made[value] = builder.make(value.op, *(made[o] for o in value.operands), **dict(value.attrs))
    return [made[root] for root in roots]


class Draw(Protocol):
    """What hypothesis hands to a composite strategy."""

    def __call__(self, strategy: st.SearchStrategy[T], /) -> T: ...


@final
@dataclass(frozen=True)
class Growing:
    """A graph being drawn: float values to build on, and integer indices along the last axis."""

    draw: Draw
    builder: Builder
    dtype: str
    pool: list[Value]
    indices: tuple[Value, ...]

    def any(self) -> Value:
        """A value made so far, recent ones more often."""
        recent = self.pool[-3:]
        return self.one_of([*recent, *recent, *self.pool])

    def one_of(self, choices: Sequence[T]) -> T:
        return self.draw(st.sampled_from(choices))

    def op(self, name: str, *operands: Operand, **attrs: Attr) -> Value:
        result = self.builder.apply(name, *operands, **attrs)
        if name in ("max", "min") and any(result.operands[0].shape[a] == 0 for a in result.axes):
            raise ShapeError("no elements have no maximum")
        return result

    def axis(self, value: Value) -> int:
        """An axis; the last one more often. ShapeError for a scalar."""
        if not value.shape:
            raise ShapeError("a scalar has no axis")
        last = value.type.rank - 1
        return int(self.one_of([last, last, *range(last + 1)]))

    def mask(self) -> Value:
        return self.op(self.one_of(["gt", "le", "ne"]), self.any(), self.one_of((0.0, 1.0)))


Step: TypeAlias = Callable[[Growing], Value]

# --- single primitives ----------------------------------------------------------------------------------------

_UNARY = (
    *(["exp"] * 5), *(["log"] * 4), "neg", "neg", "sigmoid", "softplus", "log_sigmoid", "log1p", "log1p", "expm1",
    "abs", "sqrt", "relu", "tanh", "erf", "detach", "sign",
)  # fmt: skip
_BINARY = (*(["div"] * 4), *(["mul"] * 3), "add", "add", "sub", "sub", "logaddexp", "maximum", "minimum", "xlogy")
_REDUCTIONS = (*(["sum"] * 5), "mean", "max", "min", "prod", "logsumexp")
_SCANS = ("softmax", "softmax", "log_softmax", "log_softmax", "cumsum", "cumprod", "logcumsumexp")


def _unary(g: Growing) -> Value:
    return g.op(g.one_of(_UNARY), g.any())


def _binary(g: Growing) -> Value:
    return g.op(g.one_of(_BINARY), g.any(), g.any())


def _number(g: Growing) -> Value:
    name = g.one_of(("add", "add", "sub", "mul", "div", "maximum", "minimum", "pow"))
    operands: list[Operand] = [g.any(), g.one_of(NUMBERS)]
    return g.op(name, *(operands[::-1] if g.one_of((True, False)) and name != "pow" else operands))


def _reduction(g: Growing) -> Value:
    value = g.any()
    return g.op(g.one_of(_REDUCTIONS), value, axes=(g.axis(value),), keepdim=g.one_of((True, True, False)))


def _scan(g: Growing) -> Value:
    value = g.any()
    return g.op(g.one_of(_SCANS), value, axis=g.axis(value))


def _masked(g: Growing) -> Value:
    value, mask = g.any(), g.mask()
    return {
        "weights": lambda: g.op("mul", value, g.builder.cast(mask, g.dtype)),
        "zeros": lambda: g.op("where", mask, value, 0.0),
        "infinities": lambda: g.op("where", mask, value, float("-inf")),
        "choice": lambda: g.op("where", mask, value, g.any()),
    }[g.one_of(("weights", "zeros", "infinities", "choice"))]()


def _layout(g: Growing) -> Value:
    value = g.any()
    axis = g.axis(value)
    rank, size = value.type.rank, value.shape[axis]
    assert isinstance(size, int)
    return {
        "unsqueeze": lambda: g.builder.unsqueeze(value, (axis,)),
        "squeeze": lambda: g.builder.squeeze(value, (axis,)),
        "transpose": lambda: g.op("transpose", value, perm=tuple(reversed(range(rank)))),
        "slice": lambda: g.op("slice", value, axis=axis, start=min(1, size), stop=size, step=1),
        "reshape": lambda: g.op("reshape", value, shape=tuple(reversed(value.shape))),
        "expand": lambda: g.op("expand", value, shape=(2, *value.shape)),
        "concat": lambda: g.op("concat", value, g.one_of([v for v in g.pool if v.type.rank == rank]), axis=axis),
        "gather": lambda: g.op("gather", value, g.one_of(g.indices), axis=rank - 1),
    }[g.one_of(("unsqueeze", "squeeze", "transpose", "slice", "reshape", "expand", "concat", "gather", "gather"))]()


def _wide(g: Growing) -> Value:
    """One operator in a wider format."""
    wide = "float64" if g.dtype in ("float32", "float64") else "float32"
    name = g.one_of(("exp", "log", "sigmoid"))
    return g.builder.cast(g.op(name, g.builder.cast(g.any(), wide)), g.dtype)


def _product(g: Growing) -> Value:
    a, b = g.any(), g.any()
    return g.op("matmul", a, g.op("transpose", b, perm=tuple(reversed(range(b.type.rank)))))


def _weighted(g: Growing) -> Value:
    """A product with one of the graph's inputs, as weights are used: transposed, cast, detached, on either side."""
    value, weight = g.any(), g.one_of(g.pool[:4])
    while weight.type.rank > 1 and g.one_of((True, False)):
        weight = g.op("transpose", weight, perm=tuple(reversed(range(weight.type.rank))))
    if g.one_of((True, False, False, False)):
        # through integers or truth values, which are other numbers
        weight = g.builder.cast(g.builder.cast(weight, g.one_of(("int64", "bool", "float32"))), g.dtype)
    if g.one_of((True, False, False)):
        value = g.op("layer_norm", value, axis=value.type.rank - 1, epsilon=1e-5)
    return g.op("matmul", *((value, weight) if g.one_of((True, True, False)) else (weight, value)))


def _extreme(g: Growing) -> Value:
    value = g.any()
    axis = g.axis(value)
    return {
        "prod": lambda: g.op("prod", value, axes=(axis,), keepdim=True),
        "cumprod": lambda: g.op("cumprod", value, axis=axis),
        "least": lambda: g.op("minimum", value, g.any()),
        "power": lambda: g.op("pow", value, g.one_of((2.0, 3.0, 0.5, -1.0))),
        "rms": lambda: g.op("rms_norm", value, axis=value.type.rank - 1, epsilon=1e-5),
    }[g.one_of(("prod", "cumprod", "least", "power", "rms"))]()


# --- what users write -----------------------------------------------------------------------------------------


def _quotient(g: Growing) -> Value:
    """exp(x) over its sum, shifted or not, guarded or not."""
    value = g.any()
    axis = g.axis(value)
    if g.one_of((True, False, False)):
        value = g.op("sub", value, g.op("max", value, axes=(axis,), keepdim=True))
    e = g.op("exp", value)
    total = g.op("sum", e, axes=(axis,), keepdim=True)
    return g.op("div", e, g.op("add", total, 2.0**-20) if g.one_of((True, False, False)) else total)


def _log_sum(g: Growing) -> Value:
    value = g.any()
    total = g.op("sum", g.op("exp", value), axes=(g.axis(value),), keepdim=g.one_of((True, False)))
    return g.op("log", total)


def _logistic(g: Growing) -> Value:
    value = g.any()
    e = g.op("exp", value)
    return {
        "softplus": lambda: g.op("log", g.op("add", 1.0, e)),
        "sigmoid": lambda: g.op("div", 1.0, g.op("add", 1.0, g.op("exp", g.builder.neg(value)))),
        "quotient": lambda: g.op("div", e, g.op("add", e, 1.0)),
        "complement": lambda: g.op("log", g.op("sub", 1.0, g.op("sigmoid", value))),
        "odds": lambda: g.op("div", g.op("sigmoid", value), g.op("sub", 1.0, g.op("sigmoid", value))),
        "two": lambda: g.op("log", g.op("add", e, g.op("exp", g.any()))),
    }[g.one_of(("softplus", "sigmoid", "quotient", "complement", "odds", "two"))]()


def _entropy(g: Growing) -> Value:
    value = g.any()
    axis = g.axis(value)
    p = g.op("softmax", value, axis=axis)
    return g.op("sum", g.op("mul", p, g.op("log", p)), axes=(axis,), keepdim=False)


def _spread(g: Growing) -> Value:
    """E[x²] − E[x]², and Euclidean norms."""
    value = g.any()
    axes = (g.axis(value),)
    square = g.op("mul", value, value)
    if g.one_of((True, False)):
        return g.op("sqrt", g.op("sum", square, axes=axes, keepdim=True))
    mean = g.op("mean", value, axes=axes, keepdim=True)
    return g.op("sub", g.op("mean", square, axes=axes, keepdim=True), g.op("mul", mean, mean))


STEPS: tuple[Step, ...] = (
    _unary, _unary, _unary, _unary, _binary, _binary, _binary, _number, _number, _reduction, _reduction, _reduction,
    _scan, _masked, _layout, _wide, _product, _quotient, _quotient, _log_sum, _logistic, _logistic, _entropy, _spread,
)  # fmt: skip


#: Products of matrices with weights, and of many numbers.
PRODUCTS: tuple[Step, ...] = (_weighted, _weighted, _weighted, _weighted, _extreme, _extreme)


#: More defects in less graph, for tests that take long.
NAIVE_STEPS: tuple[Step, ...] = (_unary, _binary, _masked, _quotient, _log_sum, _logistic, _entropy)


# --- stable operators only --------------------------------------------------------------------------------------


def _stable_unary(g: Growing) -> Value:
    return g.op(g.one_of(("neg", "sigmoid", "log_sigmoid", "softplus", "relu", "tanh", "abs", "erf")), g.any())


def _stable_binary(g: Growing) -> Value:
    return g.op(g.one_of(("add", "sub", "mul", "maximum", "minimum")), g.any(), g.any())


def _stable_along(g: Growing) -> Value:
    value = g.any()
    axis = g.axis(value)
    if g.one_of((True, False)):
        return g.op(g.one_of(("sum", "mean", "max", "logsumexp")), value, axes=(axis,), keepdim=True)
    return g.op(g.one_of(("softmax", "log_softmax", "cumsum")), value, axis=axis)


STABLE_STEPS: tuple[Step, ...] = (_stable_unary, _stable_binary, _stable_binary, _stable_along, _stable_along, _product)


# --- graphs -----------------------------------------------------------------------------------------------------


@st.composite
def graphs(
    draw: Draw,
    steps: Sequence[Step] = STEPS,
    dtypes: Sequence[str] = DTYPES,
    shapes: Sequence[tuple[int, int]] = SHAPES,
    most: int = 7,
) -> str:
    """The text of a graph with inputs x, z (m, n), row (n,), column (m, 1) and indices; one output or two."""
    builder, dtype, (m, n) = Builder(), draw(st.sampled_from(dtypes)), draw(st.sampled_from(shapes))
    floats = {"x": (m, n), "z": (m, n), "row": (n,), "column": (m, 1)}
    pool = [builder.input(name, TensorType(dtype, shape)) for name, shape in floats.items()]
    pool.insert(0, pool.pop(2))  # recent values are drawn more often: x and z among them
    indices = (builder.input("i", TensorType("int64", (m, 1))), builder.input("j", TensorType("int64", (2,))))
    growing = Growing(draw, builder, dtype, pool, indices)
    for _ in range(draw(st.integers(1, most))):
        with contextlib.suppress(ShapeError):  # shapes that do not fit: another step
            pool.append(draw(st.sampled_from(steps))(growing))
    outputs = {pool[-1], draw(st.sampled_from(pool[len(floats) :] or pool))}
    # read once, so that values are numbered as in the text
    return show(parse(show(sorted(outputs, key=lambda v: v.index))).outputs)

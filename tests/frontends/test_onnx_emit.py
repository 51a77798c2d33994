"""Every primitive as ONNX nodes: right in every opset, accurate to a few ulp, exact at the special rows."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from stabilize.frontends.onnx import open_onnx
from stabilize.frontends.onnx_emit import ROWS, can_emit
from stabilize.frontends.onnx_types import numpy_dtype, to_torch
from stabilize.graph.build import Builder
from stabilize.graph.ops import VOCABULARY
from stabilize.graph.text import show
from stabilize.graph.value import TensorType, Value
from stabilize.verify.execute import execute
from tests.frontends.onnx_support import OPSETS, op_types, program, run

FLOATS = ("float16", "float32", "float64")
MATRIX = (3, 5)


def f(shape: tuple[int | str, ...] = MATRIX, dtype: str = "float32") -> TensorType:
    return TensorType(dtype, shape)


LABELS = TensorType("int64", (3,))
Make = Callable[..., Value]

#: primitive → a program that uses it and the types of its inputs. Integer inputs are labels 0 … 4.
PROGRAMS: dict[str, tuple[Make, tuple[TensorType, ...]]] = {
    **{
        op: (lambda b, x, op=op: b.make(op, x), (f(),))
        for op in VOCABULARY
        if VOCABULARY[op].kind == "unary" and op not in ("not", "cast", "isnan", "acosh", "erfinv", "ndtri")
    },
    "acosh": (lambda b, x: b.make("acosh", b.apply("add", x, 2.0)), (f(),)),
    **{
        op: (lambda b, x, y, op=op: b.make(op, x, y), (f(), f((5,))))
        for op in VOCABULARY
        if VOCABULARY[op].kind == "binary" and op not in ("and", "or")
    },
    **{
        op: (lambda b, x, op=op: b.reduce(op, x, [1], False), (f(),))
        for op in ("sum", "mean", "prod", "max", "min", "logsumexp", "norm")
    },
    "isnan": (lambda b, x: b.make("isnan", b.make("log", x)), (f(),)),
    "not": (lambda b, x: b.make("not", b.apply("gt", x, 0.0)), (f(),)),
    "and": (lambda b, x: b.make("and", b.apply("gt", x, 0.0), b.apply("lt", x, 0.5)), (f(),)),
    "or": (lambda b, x: b.make("or", b.apply("lt", x, 0.0), b.apply("gt", x, 0.5)), (f(),)),
    "any": (lambda b, x: b.reduce("any", b.apply("gt", x, 0.7), [1], False), (f(),)),
    "all": (lambda b, x: b.reduce("all", b.apply("gt", x, -0.7), [0], True), (f(),)),
    "cast": (lambda b, x: b.cast(b.cast(x, "int32"), "float32"), (f(),)),
    "where": (lambda b, x, y: b.make("where", b.apply("gt", x, 0.0), x, y), (f(), f())),
    "argmax": (lambda b, x: b.make("argmax", x, axis=1, keepdim=False), (f(),)),
    "cumsum": (lambda b, x: b.make("cumsum", x, axis=1), (f(),)),
    "logcumsumexp": (lambda b, x: b.make("logcumsumexp", x, axis=1), (f(),)),
    "softmax": (lambda b, x: b.make("softmax", x, axis=0), (f(),)),
    "log_softmax": (lambda b, x: b.make("log_softmax", x, axis=1), (f(),)),
    "topk_values": (lambda b, x: b.make("topk_values", x, axis=1, k=2, largest=True, sorted=True), (f(),)),
    "topk_indices": (lambda b, x: b.make("topk_indices", x, axis=1, k=2, largest=False, sorted=True), (f(),)),
    "matmul": (lambda b, x, y: b.make("matmul", x, y), (f(), f((5, 2)))),
    "reshape": (lambda b, x: b.make("reshape", x, shape=(5, 3)), (f(),)),
    "unsqueeze": (lambda b, x: b.unsqueeze(x, [0, 2]), (f(),)),
    "squeeze": (lambda b, x: b.squeeze(x, [0, 2]), (f((1, 3, 1)),)),
    "transpose": (lambda b, x: b.make("transpose", x, perm=(1, 0)), (f(),)),
    "expand": (lambda b, x: b.expand(x, (4, 3, 5)), (f((3, 1)),)),
    "slice": (lambda b, x: b.make("slice", x, axis=1, start=1, stop=5, step=2), (f(),)),
    "gather": (lambda b, x, y: b.make("gather", x, b.unsqueeze(y, [1]), axis=1), (f(), LABELS)),
    "concat": (lambda b, x, y: b.make("concat", x, y, axis=1), (f(), f((3, 2)))),
    "one_hot": (lambda b, y: b.make("one_hot", y, classes=5), (LABELS,)),
    "constant": (lambda b, x: b.apply("add", b.make("mul", x, b.constant(2.0, "float32", (3, 1))), 0.25), (f(),)),
    "arange": (lambda b, y: b.make("add", y, b.make("arange", size=3, dtype="int64")), (LABELS,)),
    "cross_entropy": (
        lambda b, x, y: b.make(
            "cross_entropy", x, y, reduction="mean", ignore_index=2, label_smoothing=0.1
        ),
        (f(), LABELS),
    ),
    "nll_loss": (
        lambda b, x, y, w: b.make("nll_loss", x, y, w, reduction="mean", ignore_index=-100),
        (f(), LABELS, f((5,))),
    ),
    "bce_with_logits": (lambda b, x, y: b.make("bce_with_logits", x, y, reduction="mean"), (f(), f())),
    "attention": (
        lambda b, q, k, v, m: b.make("attention", q, k, v, m, scale=None),
        (f((2, 3, 4)), f((2, 5, 4)), f((2, 5, 6)), f((3, 5))),
    ),
    "layer_norm": (lambda b, x, w, z: b.make("layer_norm", x, w, z, axis=1, epsilon=2.0**-10), (f(), f((5,)), f((5,)))),
    "rms_norm": (lambda b, x: b.make("rms_norm", x, axis=1, epsilon=2.0**-10), (f(),)),
}  # fmt: skip


def typed(types: tuple[TensorType, ...], dtype: str) -> dict[str, TensorType]:
    """Named input types, floats in `dtype`."""
    retyped = [TensorType(dtype, t.shape) if t.dtype == "float32" else t for t in types]
    return {f"x{i}": t for i, t in enumerate(retyped)}


def feeds(types: dict[str, TensorType], seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    result = {}
    for name, type in types.items():
        size = tuple(4 if isinstance(d, str) else d for d in type.shape)
        result[name] = (
            rng.integers(0, 5, size)
            if type.dtype == "int64"
            else rng.uniform(-0.9, 0.9, size).astype(numpy_dtype(type.dtype))
        )
    return result


def expected(make: Make, types: dict[str, TensorType], data: dict[str, np.ndarray]) -> torch.Tensor:
    builder = Builder()
    inputs = [builder.input(name, type) for name, type in types.items()]
    return execute([make(builder, *inputs)], {v: to_torch(data[n]) for v, n in zip(inputs, types, strict=True)})[0]


def test_every_emitted_primitive_is_tested() -> None:
    assert set(PROGRAMS) | {"cumprod"} == set(ROWS)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("op", sorted(PROGRAMS))
def test_same_values_as_torch(op: str, opset: int) -> None:
    make, spec = PROGRAMS[op]
    types = typed(spec, "float32")
    data = feeds(types)
    (y,) = run(program(make, types, opset), data)
    want = expected(make, types, data).numpy()
    assert y.dtype == want.dtype
    np.testing.assert_allclose(y, want, rtol=2e-6, atol=1e-7)


#: ONNX Runtime has no kernels for them in float64.
SINGLE = {"erf", "asin", "acos", "atan", "sinh", "asinh", "acosh", "atanh"}


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("op", sorted(PROGRAMS))
def test_other_formats(op: str, dtype: str) -> None:
    make, spec = PROGRAMS[op]
    if op in ("cast", "constant"):
        pytest.skip("these programs are of float32")
    if (op, dtype) == ("erf", "float64"):
        pytest.skip("neither ONNX Runtime nor the reference evaluator computes Erf in float64")
    types = typed(spec, dtype)
    data = feeds(types)
    model = program(make, types, 18)
    if dtype == "float64" and op in SINGLE:
        (y,) = ReferenceEvaluator(model).run(None, data)
    else:
        (y,) = run(model, data)
    wide = {n: a.astype(np.float64) if a.dtype == np.float16 else a for n, a in data.items()}
    want = expected(make, typed(spec, "float64"), wide).numpy()
    tolerance = 4e-3 if dtype == "float16" else 1e-14
    np.testing.assert_allclose(y.astype(np.float64), want.astype(np.float64), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("op", sorted(set(PROGRAMS) - {"cast", "constant", "cross_entropy"}))
@pytest.mark.parametrize("opset", OPSETS)
def test_bfloat16_type_checks(op: str, opset: int) -> None:
    """No CPU runtime has bfloat16 kernels: the model must at least be valid, widened where the opset says no."""
    make, spec = PROGRAMS[op]
    program(make, typed(spec, "bfloat16"), opset)


# --- accuracy ---------------------------------------------------------------------------------------------------


def _softplus(t: mpmath.mpf) -> mpmath.mpf:
    return max(t, mpmath.mpf(0)) + mpmath.log1p(mpmath.exp(-abs(t)))


EXACT = {
    "log1p": mpmath.log1p,
    "expm1": mpmath.expm1,
    "sigmoid": lambda t: 1 / (1 + mpmath.exp(-t)),
    "softplus": _softplus,
    "log_sigmoid": lambda t: -_softplus(-t),
}

#: Largest error in ulps; ONNX Runtime's own Log has 2.2 near 1, its Tanh 3.5.
ULPS = {"float16": 0.51, "float32": 6.0, "float64": 3.0}


def samples(op: str, dtype: str) -> np.ndarray:
    """Every binade of the format where the result is a normal number, both signs, and a dense middle."""
    info = np.finfo(numpy_dtype(dtype))
    rng = np.random.default_rng(7)
    edge = math.log(float(info.max)) * 0.99
    low, high = {"log1p": (-1.0, float(info.max) / 2)}.get(op, (-edge, edge))
    small = math.log(float(info.tiny) * 1e3)
    x = np.concatenate(
        [
            np.exp(rng.uniform(small, math.log(high), 300)),
            -np.exp(rng.uniform(small, math.log(-low), 300)),
            rng.uniform(-2, 2, 200),
            rng.uniform(-40, 40, 200),
        ]
    ).astype(numpy_dtype(dtype))
    return x[(x > low) & (x < high)]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", sorted(EXACT))
def test_accurate_over_the_whole_range(op: str, dtype: str) -> None:
    x = samples(op, dtype)
    (y,) = run(program(lambda b, v: b.make(op, v), {"x": f(x.shape, dtype)}, 18), {"x": x})
    with mpmath.workprec(300):
        truth = [EXACT[op](mpmath.mpf(float(t))) for t in x]
        ulp = np.spacing(np.abs(np.asarray([float(t) for t in truth])).astype(x.dtype)).astype(np.float64)
        errors = [abs(float((mpmath.mpf(float(b)) - t) / mpmath.mpf(s))) for b, t, s in zip(y, truth, ulp, strict=True)]
    worst = int(np.argmax(errors))
    assert errors[worst] <= ULPS[dtype], f"{op}({x[worst]}) = {y[worst]}, not {truth[worst]}"


INF, NAN = math.inf, math.nan
SPECIAL = {
    "log1p": {-INF: NAN, INF: INF, NAN: NAN, -1.0: -INF, 0.0: 0.0, -2.0: NAN},
    "expm1": {-INF: -1.0, INF: INF, NAN: NAN, 0.0: 0.0, -1000.0: -1.0, 1000.0: INF},
    "sigmoid": {-INF: 0.0, INF: 1.0, NAN: NAN, 0.0: 0.5, -1000.0: 0.0, 1000.0: 1.0},
    "softplus": {-INF: 0.0, INF: INF, NAN: NAN, 1000.0: 1000.0, -1000.0: 0.0},
    "log_sigmoid": {-INF: -INF, INF: 0.0, NAN: NAN, -1000.0: -1000.0, 1000.0: 0.0},
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", sorted(SPECIAL))
def test_special_values(op: str, dtype: str) -> None:
    x = np.asarray(list(SPECIAL[op])).astype(numpy_dtype(dtype))
    (y,) = run(program(lambda b, v: b.make(op, v), {"x": f(x.shape, dtype)}, 18), {"x": x})
    want = np.asarray(list(SPECIAL[op].values()))
    if (op, dtype) in (("softplus", "float64"), ("sigmoid", "float64"), ("log_sigmoid", "float64")):
        want = np.where(np.abs(np.asarray(list(SPECIAL[op]))) == 1000.0, y, want)  # e⁻¹⁰⁰⁰ is below, not checked here
    np.testing.assert_array_equal(y, want.astype(y.dtype))


@pytest.mark.parametrize("dtype", FLOATS)
def test_logaddexp_of_infinities(dtype: str) -> None:
    a = np.asarray([-INF, -INF, INF, INF, NAN, 10000.0, -10000.0, -INF]).astype(numpy_dtype(dtype))
    b = np.asarray([-INF, 0.0, INF, -INF, 0.0, -10000.0, -10000.0, NAN]).astype(numpy_dtype(dtype))
    types = {"a": f(a.shape, dtype), "b": f(b.shape, dtype)}
    (y,) = run(program(lambda g, u, v: g.make("logaddexp", u, v), types, 18), {"a": a, "b": b})
    want = torch.logaddexp(torch.from_numpy(a.astype(np.float64)), torch.from_numpy(b.astype(np.float64))).numpy()
    np.testing.assert_allclose(y.astype(np.float64), want, rtol=1e-3 if dtype == "float16" else 1e-7)


@pytest.mark.parametrize("dtype", FLOATS)
def test_xlogy_at_zero(dtype: str) -> None:
    a = np.asarray([0.0, 0.0, 0.0, 2.0, 0.0, 3.0]).astype(numpy_dtype(dtype))
    b = np.asarray([0.0, INF, NAN, 0.0, -1.0, 1.0]).astype(numpy_dtype(dtype))
    types = {"a": f(a.shape, dtype), "b": f(b.shape, dtype)}
    (y,) = run(program(lambda g, u, v: g.make("xlogy", u, v), types, 18), {"a": a, "b": b})
    np.testing.assert_array_equal(y, np.asarray([0.0, 0.0, NAN, -INF, 0.0, 0.0], y.dtype))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1), ()])
def test_logsumexp_is_shifted(axes: tuple[int, ...], dtype: str) -> None:
    """Also where ONNX Runtime's ReduceLogSumExp is not: in float16, and in rows that start with −inf."""
    rows = [[800, 801, -3000], [-INF, -INF, -INF], [-900, -901, -902], [5, INF, 0], [-INF, -INF, -800]]
    x = np.asarray(rows).astype(numpy_dtype(dtype))
    make: Make = lambda b, v: b.reduce("logsumexp", v, axes, False)  # noqa: E731
    (y,) = run(program(make, {"x": f(x.shape, dtype)}, 18), {"x": x})
    wide = torch.from_numpy(x.astype(np.float64))
    want = (torch.logsumexp(wide, axes) if axes else wide).numpy()
    np.testing.assert_allclose(y.astype(np.float64), want, rtol=1e-3 if dtype == "float16" else 1e-6)


def test_sigmoid_is_not_the_operator() -> None:
    """The operator of ONNX Runtime is 0 from −18 down in float32: the reason why sigmoid is expanded."""
    x = np.asarray([-20.0, -80.0], np.float32)
    (y,) = run(program(lambda b, v: b.make("sigmoid", v), {"x": f((2,))}, 18), {"x": x})
    np.testing.assert_allclose(y, np.exp(x.astype(np.float64)), rtol=1e-6)


def test_logcumsumexp_keeps_entries_far_below_the_maximum() -> None:
    x = np.asarray([[-500.0, -501.0, 0.0, 300.0, -INF, 299.0]], np.float32)
    make: Make = lambda b, v: b.make("logcumsumexp", v, axis=1)  # noqa: E731
    (y,) = run(program(make, {"x": f(x.shape)}, 18), {"x": x})
    np.testing.assert_allclose(y, torch.logcumsumexp(torch.from_numpy(x), 1).numpy(), rtol=1e-6)


# --- structure ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", ["log1p", "expm1", "sigmoid", "softplus", "logaddexp", "xlogy"])
def test_expansions_read_back_as_the_primitive(op: str, dtype: str) -> None:
    """So that a patched model is found stable: optimising twice changes nothing."""
    count = VOCABULARY[op].arity[0]
    types = {f"x{i}": f(MATRIX, dtype) for i in range(count)}
    patched = program(lambda b, *v: b.make(op, *v), types, 18)
    assert open_onnx(patched).view.outputs[0].op == op


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("keepdim", [True, False])
def test_logsumexp_reads_back(keepdim: bool, dtype: str) -> None:
    patched = program(lambda b, x: b.reduce("logsumexp", x, [1], keepdim), {"x": f(MATRIX, dtype)}, 18)
    found = open_onnx(patched).view.outputs[0]
    assert "logsumexp" in (found.op, found.operands[0].op)


def test_bfloat16_forms_read_back_too() -> None:
    """Between the casts to float32 and back."""
    programs: dict[str, Make] = {
        "logaddexp": lambda b, x: b.make("logaddexp", x, b.make("sin", x)),
        "logsumexp": lambda b, x: b.reduce("logsumexp", x, [1]),
        "log_softmax": lambda b, x: b.make("log_softmax", x, axis=1),
        "softplus": lambda b, x: b.make("softplus", x),
    }
    for op, make in programs.items():
        (cast,) = open_onnx(program(make, {"x": f(MATRIX, "bfloat16")}, 18)).view.outputs
        assert (cast.op, cast.operands[0].op, cast.operands[0].dtype) == ("cast", op, "float32")


@pytest.mark.parametrize("op", ["softplus", "logaddexp", "logsumexp", "log_softmax", "cross_entropy"])
def test_bfloat16_is_right_in_the_reference_implementation(op: str) -> None:
    """Which computes Softplus, LogSoftmax and the losses by their naive definitions."""
    make, spec = PROGRAMS[op]
    types = typed(spec, "bfloat16")
    data = feeds(types)
    rows = [[-INF, 700.0, 0.0, -700.0, 699.0], [-800.0, -801.0, -802.0, -900.0, -INF], [90.0, 1.0, 2.0, 3.0, 80.0]]
    data["x0"] = np.asarray(rows).astype(numpy_dtype("bfloat16"))
    if op == "cross_entropy":
        make = lambda b, x, y: b.make(  # noqa: E731
            op, x, y, reduction="sum", ignore_index=-100, label_smoothing=0.0
        )
        data["x1"] = np.asarray([1, 0, 4])
    with np.errstate(all="ignore"):
        (y,) = ReferenceEvaluator(program(make, types, 18)).run(None, data)
    wide = {n: a.astype(np.float64) if a.dtype == numpy_dtype("bfloat16") else a for n, a in data.items()}
    want = expected(make, typed(spec, "float64"), wide).numpy()
    np.testing.assert_allclose(np.asarray(y).astype(np.float64), want, rtol=2**-8, atol=1e-38)


@pytest.mark.parametrize("op", ["le", "ge"])
def test_comparisons_that_opset_11_has_not(op: str) -> None:
    """False for NaN, as everywhere; and read back as the one primitive."""
    proto = program(lambda b, *v: b.make(op, *v), {"a": f((6,)), "b": f((6,))}, 11)
    assert "Or" in op_types(proto)
    data = (
        np.asarray([NAN, 1, 2, 3, INF, NAN], np.float32),
        np.asarray([NAN, 1, 3, 2, INF, 1], np.float32),
    )
    (found,) = run(proto, {"a": data[0], "b": data[1]})
    np.testing.assert_array_equal(found, data[0] <= data[1] if op == "le" else data[0] >= data[1])
    assert open_onnx(proto).view.outputs[0].op == op


@pytest.mark.parametrize("opset", [11, 18])
def test_a_sigmoid_is_right_for_nan_and_reads_back_in_every_opset(opset: int) -> None:
    proto = program(lambda b, x: b.make("sigmoid", x), {"x": f((5,))}, opset)
    (y,) = run(proto, {"x": np.asarray([NAN, -INF, -50, 0, INF], np.float32)})
    np.testing.assert_allclose(y, [NAN, 0, math.exp(-50), 0.5, 1], rtol=1e-6)
    assert open_onnx(proto).view.outputs[0].op == "sigmoid"


def test_near_miss_of_an_expansion_is_not_folded() -> None:
    """log(1 + x) plus the correction of another variable is not log1p."""

    def wrong(b: Builder, x: Value, y: Value) -> Value:
        right = b.make("log1p", y)
        near = b.apply("minimum", b.apply("maximum", y, -0.5), 2.0)
        u = b.apply("add", near, 1.0)
        lost = b.make("div", b.make("sub", near, b.apply("sub", u, 1.0)), u)
        return b.make("mul", right, b.make("add", b.make("log", b.apply("add", x, 1.0)), lost))

    patched = program(wrong, {"x": f(), "z": f()}, 18)
    text = show(open_onnx(patched).view.outputs)
    assert text.count("log1p") == 1
    assert "log(add(x, 1.0))" in text


def test_axes_follow_the_opset() -> None:
    make: Make = lambda b, x: b.reduce("max", b.reduce("sum", x, [1]), [0])  # noqa: E731
    old, new = (program(make, {"x": f()}, opset) for opset in (13, 18))
    sums = [next(n for n in m.graph.node if n.op_type == "ReduceSum") for m in (old, new)]
    maxima = [next(n for n in m.graph.node if n.op_type == "ReduceMax") for m in (old, new)]
    assert [len(n.input) for n in sums] == [2, 2]
    assert [len(n.input) for n in maxima] == [1, 2]


def test_topk_outputs_share_one_node() -> None:
    def both(b: Builder, x: Value) -> Value:
        attrs = {"axis": 1, "k": 2, "largest": True, "sorted": True}
        return b.make("gather", x, b.make("topk_indices", b.make("neg", x), **attrs), axis=1)

    def use(b: Builder, x: Value) -> Value:
        attrs = {"axis": 1, "k": 2, "largest": True, "sorted": True}
        negated = b.make("neg", x)
        return b.make("add", both(b, x), b.make("topk_values", negated, **attrs))

    assert op_types(program(use, {"x": f()}, 18)).count("TopK") == 1


def test_symbolic_shapes_are_computed() -> None:
    types = {"x": f(("n", 3, "m"))}
    make: Make = lambda b, x: b.make("reshape", b.expand(b.unsqueeze(x, [0]), (2, "n", 3, "m")), shape=(6, "n", "m"))  # noqa: E731
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    for opset in OPSETS:
        (y,) = run(program(make, types, opset), {"x": x})
        np.testing.assert_array_equal(y, np.broadcast_to(x[None], (2, 2, 3, 4)).reshape(6, 2, 4))


def test_symbolic_arange() -> None:
    make: Make = lambda b, x: b.make("add", x, b.cast(b.make("arange", size="n", dtype="int64"), "float32"))  # noqa: E731
    (y,) = run(program(make, {"x": f(("n",))}, 13), {"x": np.ones(4, np.float32)})
    np.testing.assert_array_equal(y, [1, 2, 3, 4])


def test_can_emit_says_why_not() -> None:
    b = Builder()
    x = b.input("x", f())
    assert can_emit(b.make("log1p", x), 13, b) is None
    assert can_emit(b.make("cumprod", x, axis=1), 18, b) == "opset 18 has no operator CumProd"
    assert can_emit(b.make("erfinv", x), 18, b) == "ONNX has no operator for erfinv"
    assert "size" in str(can_emit(b.make("arange", size="q", dtype="int64"), 18, b)) or "dimension q" in str(
        can_emit(b.make("arange", size="q", dtype="int64"), 18, b)
    )

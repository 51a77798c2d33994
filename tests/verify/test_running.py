"""The running error bound: it covers what float32 and float16 do to random formulas, and it is not idle."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stabilize.formats import FORMATS
from stabilize.graph.build import Builder
from stabilize.graph.text import parse, show
from stabilize.graph.value import TensorType, Value, cone
from stabilize.verify.compare import errors_of
from stabilize.verify.execute import execute, torch_dtype
from stabilize.verify.oracle import evaluate_cone
from stabilize.verify.running import Term, analyse
from tests.verify.examples import EXAMPLES, example, numbers

_UNARY = (
    "neg",
    "abs",
    "exp",
    "log1p",
    "sigmoid",
    "log_sigmoid",
    "softplus",
    "tanh",
    "relu",
    "expm1",
    "erf",
    "sin",
    "cos",
    "atan",
    "sinh",
    "asinh",
    "erfcx",
    "log_ndtr",
)
_BINARY = ("add", "sub", "mul", "div", "maximum", "minimum", "logaddexp")
_REDUCTIONS = ("sum", "mean", "max", "logsumexp", "prod")
_ROWWISE = ("softmax", "log_softmax", "cumsum", "logcumsumexp")


@st.composite
def expressions(draw: st.DrawFn, dtype: str) -> tuple[Value, Value]:
    """(input, root): a random DAG over one input of shape (3, 4)."""
    builder = Builder()
    x = builder.input("x", TensorType(dtype, (3, 4)))
    pool = [x]
    for _ in range(draw(st.integers(1, 7))):
        kind = draw(st.sampled_from(("unary", "binary", "constant", "reduction", "rowwise")))
        a = draw(st.sampled_from(pool))
        if kind == "unary":
            new = builder.make(draw(st.sampled_from(_UNARY)), a)
        elif kind == "binary":
            new = builder.make(draw(st.sampled_from(_BINARY)), a, draw(st.sampled_from(pool)))
        elif kind == "constant":
            new = builder.apply(draw(st.sampled_from(_BINARY)), a, draw(st.sampled_from((0.5, 2.0, -1.0, 3.0))))
        elif kind == "reduction":
            new = builder.reduce(draw(st.sampled_from(_REDUCTIONS)), a, draw(st.sampled_from(((0,), (1,), (0, 1)))))
        else:
            new = builder.make(draw(st.sampled_from(_ROWWISE)), a, axis=draw(st.sampled_from((0, 1))))
        pool.append(new)
    return x, pool[-1]


def _analysis(root: Value, leaves: dict[Value, torch.Tensor], dtype: str) -> tuple[Term, np.ndarray]:  # type: ignore[type-arg]
    (exact,), arrays = evaluate_cone([root], leaves, digits=24, floor=-1200, max_bits=2048)
    return analyse(root, leaves, arrays, {}, FORMATS[dtype]).term, exact


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_the_bound_covers_random_formulas(dtype: str, data: st.DataObject) -> None:
    x, root = data.draw(expressions(dtype))
    seed = data.draw(st.integers(0, 10**6))
    tensor = torch.randn(3, 4, generator=torch.Generator().manual_seed(seed)).to(torch_dtype(dtype))
    *on_the_way, computed = execute(cone([root], [x]), {x: tensor})
    # the analysis is of first order and knows nothing of over- and underflow on the way
    assume(all(bool(torch.isfinite(v).all()) for v in on_the_way if v.is_floating_point()))
    term, exact = _analysis(root, {x: tensor}, dtype)
    fmt = FORMATS[dtype]
    assume(bool(torch.isfinite(computed).all()))
    assume(all(math.isfinite(float(v)) for v in exact.flat))
    bound = term.error.numpy() * fmt.u
    small = np.isfinite(bound) & (bound < 0.01 * np.abs(term.v.numpy()))
    absolute = errors_of(computed, exact).absolute
    # 3: elementary functions are rounded to within an ulp or two, not to half of one
    excess = small & ~(absolute <= 3 * bound + 64 * fmt.tiny)
    assert not excess.any(), (show([root]), absolute[excess], bound[excess])


@pytest.mark.parametrize("primitive", sorted(EXAMPLES))
def test_every_primitive_has_a_finite_bound(primitive: str) -> None:
    view = example(primitive)
    leaves = numbers(view)
    term, _ = _analysis(view.outputs[0], leaves, "float64")
    assert bool(torch.isfinite(term.error).all())
    assert bool((term.error >= 0).all())
    assert term.error.shape == term.v.shape == term.exponent.shape


def _bound(body: str, x: torch.Tensor, dtype: str = "float32") -> Term:
    view = parse(f"def graph(x: {dtype}[{', '.join(map(str, x.shape))}]):\n    {body}")
    return _analysis(view.outputs[0], {view.bindings["x"]: x}, dtype)[0]


def test_cancellation_shows() -> None:
    term = _bound("return sub(exp(x), 1.0)", torch.tensor([1e-4, 1.0]))
    relative = term.error / term.v.abs()
    assert relative[0] > 1e4
    assert relative[1] < 5


def test_sums_grow_with_their_length() -> None:
    short, long = (_bound("return sum(exp(x), axes=(0,), keepdim=True)", torch.zeros(n)) for n in (4, 400))
    assert float(long.error / long.v) > 50 * float(short.error / short.v)


def test_exponents_are_remembered_until_a_log() -> None:
    x = torch.tensor([80.0, -40.0])
    assert _bound("return exp(x)", x).exponent.tolist() == [80.0, 40.0]
    logged = _bound("return log(exp(x))", x)
    assert logged.exponent.tolist() == [0.0, 0.0]
    assert float(logged.error[0]) >= 160  # |v|, and the exponent of the stable form
    # in half precision exponents are carried in float32: they hardly count
    half = _bound("return log(exp(x))", torch.tensor([8.0, -4.0]).half(), "float16")
    assert float(half.error[0]) < 10


def test_exponents_beyond_the_range_of_exp_do_not_count() -> None:
    assert float(_bound("return exp(x)", torch.tensor([-1e4])).exponent) < 105

"""The small shapes that several rules look for: exact constants, either order, signs folded."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.shapes import is_guarded, may_vanish, one_plus, square_of, widened
from tests.passes.graphs import graph, nested, read

ONE_PLUS = {
    "add(1.0, x)": ("x", 1),
    "add(x, 1.0)": ("x", 1),
    "add(1.0, neg(x))": ("x", -1),
    "add(neg(x), 1.0)": ("x", -1),
    "sub(1.0, x)": ("x", -1),
    "sub(1.0, neg(x))": ("x", 1),
    "sub(x, -1.0)": ("x", 1),
    "sub(neg(x), -1.0)": ("x", -1),
    "add(1.0, h)": ("h", 1),
    "add(x, 2.0)": None,
    "add(x, 1.0000001)": None,
    "add(x, -1.0)": None,
    "sub(x, 1.0)": None,
    "sub(-1.0, x)": None,
    "sub(2.0, x)": None,
    "sub(x, -2.0)": None,
    "mul(1.0, x)": None,
    "add(x, z)": None,
    "sub(x, z)": None,
    "add(constant(value=1.0, dtype='float32', shape=()), 1.0)": None,
    "add(constant(value=1.0, dtype='float32', shape=()), 2.0)": None,
    "sub(constant(value=1.0, dtype='float32', shape=()), 2.0)": None,
    "sub(constant(value=2.0, dtype='float32', shape=()), -1.0)": None,
}  # fmt: skip

SQUARES = {
    "mul(x, x)": "x",
    "pow(x, 2.0)": "x",
    "mul(x, z)": None,
    "pow(x, 2.0000002)": None,
    "pow(x, 3.0)": None,
    "pow(2.0, x)": None,
    "add(x, x)": None,
}


@pytest.mark.parametrize(("body", "expected"), ONE_PLUS.items())
def test_one_plus(body, expected):
    found = one_plus(graph(body).outputs[0])
    assert (found and (nested(found[0]), found[1])) == expected


@pytest.mark.parametrize(("body", "expected"), SQUARES.items())
def test_square_of(body, expected):
    found = square_of(graph(body).outputs[0])
    assert (found and nested(found)) == expected


_MASK = "cast(B, dtype='float32')"
VANISHING = [
    "relu(x)",
    _MASK,
    "maximum(x, 0.0)",
    "maximum(0.0, x)",
    "where(B, x, 0.0)",
    "where(B, 0.0, x)",
    f"mul(x, {_MASK})",
    f"mul({_MASK}, x)",
    f"add(relu(x), {_MASK})",
    *(f"{op}(relu(x))" for op in ("abs", "sqrt", "detach")),
    "cast(relu(h), dtype='float32')",
    "sum(relu(x), axes=(1,), keepdim=True)",
    "mean(relu(x), axes=(1,), keepdim=True)",
    "unsqueeze(relu(x), axes=(0,))",
    "squeeze(relu(R), axes=(1,))",
    "expand(relu(R), shape=(4, 5))",
    "transpose(relu(x), perm=(1, 0))",
    "reshape(relu(x), shape=(20,))",
    "sqrt(abs(sqrt(abs(sqrt(relu(x))))))",  # six deep
    f"mul(mul(mul(mul(mul({_MASK}, x), x), x), x), z)",
    f"add(add(add(add(add({_MASK}, {_MASK}), relu(x)), relu(x)), relu(x)), relu(z))",
]

NEVER_FOR_WHOLE_RANGES = [
    "x",
    "mul(x, z)",
    "add(relu(x), z)",
    "add(x, relu(z))",
    "sub(relu(x), relu(z))",
    "exp(relu(x))",
    "neg(x)",
    "where(B, x, 1.0)",
    "maximum(x, 1.0)",
    "maximum(x, z)",
    "minimum(x, 0.0)",
    "cast(x, dtype='float16')",
    "max(relu(x), axes=(1,), keepdim=True)",
    "sqrt(abs(sqrt(abs(sqrt(abs(relu(x)))))))",  # seven deep: looked no further
    f"mul(mul(mul(mul(mul(mul({_MASK}, x), x), x), x), z), z)",
    "cast(cast(cast(cast(cast(cast(relu(h), dtype='float32'), dtype='float64'), dtype='float32'), dtype='float16'), "
    "dtype='float32'), dtype='float64')",
    f"add(add(add(add(add(add({_MASK}, {_MASK}), relu(x)), relu(x)), relu(x)), relu(z)), relu(z))",
]


@pytest.mark.parametrize("body", VANISHING)
def test_what_is_0_for_whole_ranges(body):
    assert may_vanish(graph(body).outputs[0])


@pytest.mark.parametrize("body", NEVER_FOR_WHOLE_RANGES)
def test_what_is_not(body):
    assert not may_vanish(graph(body).outputs[0])


WIDENED = {
    "x": "x",
    "D": "D",
    "h": "cast(h, dtype='float32')",
    "G": "cast(G, dtype='float32')",
    "constant(value=0.5, dtype='float16', shape=())": "0.5",
    "constant(value=0.5, dtype='float32', shape=(3,))": "constant(value=0.5, dtype='float32', shape=(3,))",
    "constant(value=0.5, dtype='bfloat16', shape=(3,))": "constant(value=0.5, dtype='float32', shape=(3,))",
}


@pytest.mark.parametrize(("body", "expected"), WIDENED.items())
def test_widened(body, expected):
    ctx, value = read(body)
    new = widened(ctx, value)
    assert nested(new) == expected
    assert new.dtype == ("float64" if body == "D" else "float32")
    assert new.shape == value.shape


@pytest.mark.parametrize(
    ("body", "guarded"),
    [
        ("add(x, 1e-06)", True),
        ("add(1e-06, x)", True),
        ("maximum(x, 1e-06)", True),
        ("sum(add(mul(x, x), 0.001), axes=(1,), keepdim=True)", True),
        ("sqrt(neg(transpose(add(x, 2.0), perm=(1, 0))))", True),
        ("where(B, x, z)", True),
        ("sigmoid(x)", True),
        ("add(x, 0.0)", False),
        ("maximum(x, 0.0)", False),
        ("add(x, z)", False),
        ("mul(x, 2.0)", False),
        ("gather(add(x, 1.0), I, axis=1)", False),
        ("x", False),
    ],
)
def test_guards(body: str, guarded: bool) -> None:
    ctx, value = read(body)
    assert is_guarded(ctx, value) == guarded

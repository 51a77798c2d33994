"""The small shapes that several rules look for: exact constants, either order, signs folded."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.shapes import one_plus, square_of
from tests.passes.graphs import graph, nested

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

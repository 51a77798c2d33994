"""The text form: what is shown is read back as the same graph."""

from __future__ import annotations

import pytest

from stabilize.errors import ShapeError
from stabilize.graph.build import Builder
from stabilize.graph.text import parse, show
from stabilize.graph.value import TensorType, Value

MATRIX = TensorType("float32", (2, 3))


def constants_only(b: Builder) -> list[Value]:
    half = b.constant(0.5, "float16")
    return [b.make("exp", half), half, b.make("add", half, b.constant(2.0, "float16"))]


def two_dtypes(b: Builder) -> list[Value]:
    x = b.input("x", MATRIX)
    shown = b.make("gt", x, b.constant(0.0, "float32"))
    return [b.make("where", shown, b.constant(1, "int64"), b.constant(2, "int64")), b.make("cast", shown, dtype="bool")]


def alike(b: Builder) -> list[Value]:
    return [b.make("sub", b.input("layer.w", MATRIX), b.input("layer_w", MATRIX))]


def scalars(b: Builder) -> list[Value]:
    u = b.input("u", TensorType("float32", ()))
    return [b.apply("where", b.apply("lt", u, float("inf")), u, float("nan"))]


@pytest.mark.parametrize("make", [scalars, constants_only, two_dtypes, alike])
def test_shown_and_read_back(make: object) -> None:
    assert callable(make)
    values = make(Builder())
    text = show(values)
    again = parse(text)
    assert [v.type for v in again.outputs] == [v.type for v in values]
    assert show(again.outputs) == text


def test_names_that_look_alike_stay_apart() -> None:
    (difference,) = parse(show(alike(Builder()))).outputs
    assert difference.operands[0] is not difference.operands[1]


def test_concat_of_different_ranks() -> None:
    b = Builder()
    with pytest.raises(ShapeError, match="ranks 2, 1"):
        b.make("concat", b.input("x", MATRIX), b.input("y", TensorType("float32", (3,))), axis=1)

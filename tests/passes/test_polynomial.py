"""Arithmetic as polynomials with exact coefficients, and back."""

from __future__ import annotations

from fractions import Fraction

import pytest

from stabilize.passes.polynomial import Polynomial, materialise, polynomial
from tests.passes.graphs import assert_same_function, graph, nested


def _text(form: Polynomial) -> dict[str, Fraction]:
    return {"·".join(nested(v) for v in monomial): k for monomial, k in form.terms.items()}


READ = {
    "x": {"x": 1},
    "add(x, 2.5)": {"x": 1, "": Fraction(5, 2)},
    "sub(x, z)": {"x": 1, "z": -1},
    "neg(sub(x, 1.0))": {"x": -1, "": 1},
    "sub(x, x)": {},
    "mul(x, x)": {"x·x": 1},
    "mul(z, x)": {"x·z": 1},
    "pow(x, 2.0)": {"x·x": 1},
    "pow(x, 3.0)": {"pow(x, 3.0)": 1},
    "pow(x, z)": {"pow(x, z)": 1},
    "pow(add(x, 1.0), 2.0)": {"x·x": 1, "x": 2, "": 1},
    "mul(add(x, z), sub(x, z))": {"x·x": 1, "z·z": -1},
    "div(add(x, z), 4.0)": {"x": Fraction(1, 4), "z": Fraction(1, 4)},
    "div(x, z)": {"div(x, z)": 1},
    "div(x, 0.0)": {"div(x, 0.0)": 1},
    "mul(0.0, x)": {},
    "sub(add(x, z), z)": {"x": 1},
    "exp(add(x, z))": {"exp(add(x, z))": 1},
    "add(y, y)": {"add(y, y)": 1},  # integers wrap around
    # four factors at most, and eight terms
    "mul(mul(x, x), mul(x, x))": {"x·x·x·x": 1},
    "mul(mul(mul(x, x), mul(x, x)), z)": {"mul(mul(mul(x, x), mul(x, x)), z)": 1},
    "mul(add(add(x, z), 1.0), add(add(w, a), 1.0))": {"mul(add(add(x, z), 1.0), add(add(w, a), 1.0))": 1},
    "mul(add(x, z), add(add(w, a), add(b, c)))":
        {"x·w": 1, "x·a": 1, "x·b": 1, "x·c": 1, "z·w": 1, "z·a": 1, "z·b": 1, "z·c": 1},
}  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), READ.items())
def test_read(body, expected):
    assert _text(polynomial(graph(body).outputs[0])) == expected


def test_reading_is_not_deep():
    """Doubling two hundred times is no polynomial of two hundred levels, nor a walk over 2²⁰⁰ paths."""
    lines = ["t0 = x", *(f"t{i + 1} = add(t{i}, t{i})" for i in range(200)), "return t200"]
    ((monomial, k),) = polynomial(graph("\n".join(lines)).outputs[0]).terms.items()
    assert len(monomial) == 1
    assert k == 2**6


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("x", "x"),
        ("neg(x)", "neg(x)"),
        ("mul(x, -2.0)", "mul(x, -2.0)"),
        ("sub(1.0, x)", "sub(1.0, x)"),
        ("sub(mul(x, z), mul(w, 3.0))", "sub(mul(x, z), mul(w, 3.0))"),
        ("add(mul(w, 2.0), sub(mul(x, 0.5), z))", "sub(add(mul(x, 0.5), mul(w, 2.0)), z)"),
        ("sub(neg(x), mul(z, 2.0))", "sub(neg(x), mul(z, 2.0))"),
        ("sub(0.5, sub(x, z))", "sub(add(0.5, z), x)"),
        ("sub(mul(h, h), 1.0)", "sub(mul(cast(h, dtype='float32'), cast(h, dtype='float32')), 1.0)"),
    ],
)
def test_materialised(body, expected):
    view = graph(body)
    value = view.outputs[0]
    new = materialise(view.builder, polynomial(value), "float32")
    assert nested(new) == expected
    assert new.dtype == "float32"
    assert_same_function(view.builder.cast(value, "float32"), new)


@pytest.mark.parametrize(
    ("body", "number"),
    [("sub(x, x)", 0), ("sub(add(x, 2.0), x)", 2), ("x", None), ("add(x, 1.0)", None), ("mul(x, 2.0)", None)],
)
def test_number(body, number):
    assert polynomial(graph(body).outputs[0]).number == number

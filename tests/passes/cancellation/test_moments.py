"""Sums of products and averages, read with exact scales."""

from __future__ import annotations

import pytest

from stabilize.passes.cancellation.moments import Factors, average, carrier, moment, multiplied, summed, terms
from tests.passes.graphs import graph, nested


def _product(factors: Factors) -> str:
    return "·".join(nested(f) for f in factors)


MOMENTS = {
    "sum(x, axes=(1,), keepdim=True)": ("1·Σ x", (1,), True, 5),
    "mean(x, axes=(1,), keepdim=False)": ("1·E x", (1,), False, 5),
    "sum(mul(mul(x, 2.0), div(z, 4.0)), axes=(0, 1), keepdim=False)": ("1/2·Σ x·z", (0, 1), False, 20),
    "neg(mul(3.0, sum(pow(neg(x), 2.0), axes=(1,), keepdim=True)))": ("-3·Σ x·x", (1,), True, 5),
    "div(sum(mul(x, x), axes=(1,), keepdim=True), -4.0)": ("-1/4·Σ x·x", (1,), True, 5),
    "sum(pow(abs(x), 2.0), axes=(1,), keepdim=True)": ("1·Σ x·x", (1,), True, 5),
    "sum(mul(n, n), axes=(0,), keepdim=True)": ("1·Σ n·n", (0,), True, None),
    "sum(cast(h, dtype='float32'), axes=(1,), keepdim=True)": ("1·Σ h", (1,), True, 5),
    "sum(cast(x, dtype='float16'), axes=(1,), keepdim=True)": ("1·Σ cast(x, dtype='float16')", (1,), True, 5),
    "matmul(a, b)": ("1·Σ a·b", (0,), False, 5),
    "mul(matmul(mul(a, 2.0), mul(b, 3.0)), 5.0)": ("30·Σ a·b", (0,), False, 5),
    "matmul(div(a, 2.0), b)": ("1/2·Σ a·b", (0,), False, 5),
    "sum(y, axes=(0,), keepdim=True)": None,
    "matmul(x, T)": None,
    "max(x, axes=(1,), keepdim=True)": None,
    "x": None,
}


@pytest.mark.parametrize(("body", "expected"), MOMENTS.items())
def test_moment(body, expected):
    found = moment(graph(body).outputs[0])
    if expected is None:
        assert found is None
    else:
        text = f"{found.scale}·{'E' if found.mean else 'Σ'} {_product(found.factors)}"
        assert (text, found.axes, found.keepdim, found.count) == expected
        assert found.mean is ("E" in text)


_SUM = "sum({}, axes=(1,), keepdim=False)"
AVERAGES = {
    "mean(mul(x, z), axes=(1,), keepdim=False)": "1·E[x·z]",
    "mul(2.0, mean(x, axes=(1,), keepdim=False))": "2·E[x]",
    _SUM.format("x"): "5·E[x]",
    f"div({_SUM.format('mul(x, 3.0)')}, 5.0)": "3·E[x]",
    "sum(n, axes=(0,), keepdim=False)": None,
    "sum(E, axes=(1,), keepdim=False)": None,
    _SUM.format("mul(softmax(z, axis=1), x)"): "1·E[x | softmax(z, axis=1)]",
    f"mul(0.5, {_SUM.format('mul(mul(x, 4.0), softmax(z, axis=1))')})": "2·E[x | softmax(z, axis=1)]",
    _SUM.format("mul(softmax(z, axis=0), x)"): "5·E[x·softmax(z, axis=0)]",
    "mean(mul(softmax(z, axis=1), x), axes=(1,), keepdim=False)": "1·E[x·softmax(z, axis=1)]",
    f"div({_SUM.format('mul(w, x)')}, {_SUM.format('w')})": "1·E[x | w]",
    f"mul(7.0, div({_SUM.format('mul(mul(w, x), 6.0)')}, {_SUM.format('mul(w, 4.0)')}))": "21/2·E[x | w]",
    f"div({_SUM.format('mul(w, x)')}, {_SUM.format('z')})": None,
    f"div({_SUM.format('mul(w, x)')}, U)": None,
    f"div(U, {_SUM.format('w')})": None,
    f"div({_SUM.format('mul(w, x)')}, mean(w, axes=(1,), keepdim=False))": None,
    # weights over entries that are not those
    "div(sum(mul(a, s), axes=(0,), keepdim=False), sum(a, axes=(0,), keepdim=False))": None,
    "div(sum(mul(a, s), axes=(1,), keepdim=False), sum(a, axes=(0,), keepdim=False))": "1·E[s | a]",
    "div(sum(mul(a, s), axes=(1,), keepdim=True), sum(a, axes=(0,), keepdim=False))": "1·E[s | a]",
    "div(sum(mul(s, s), axes=(1,), keepdim=True), sum(s, axes=(1,), keepdim=False))": None,
    "div(sum(mul(R, x), axes=(1,), keepdim=True), sum(R, axes=(1,), keepdim=True))": None,
    "div(sum(mul(s, s), axes=(0,), keepdim=False), sum(s, axes=(1,), keepdim=False))": None,
    "x": None,
}


@pytest.mark.parametrize(("body", "expected"), AVERAGES.items())
def test_average(body, expected):
    found = average(graph(body).outputs[0])
    weights = f" | {_product(found.weights)}" if found and found.weights else ""
    assert (found and f"{found.scale}·E[{_product(found.body)}{weights}]") == expected


def test_terms_and_back():
    view = graph("sub(add(mul(x, 2.0), neg(z)), sub(w, mul(0.5, add(a, 1.0))))")
    parts = terms(view.outputs[0])
    assert [(str(k), nested(v)) for k, v in parts] == [
        ("2", "x"), ("-1", "z"), ("-1", "w"), ("1/2", "a"), ("1/2", "1.0"),
    ]  # fmt: skip
    (_, x), *rest = parts
    assert nested(summed(view.builder, x, rest)) == "add(add(sub(sub(x, z), w), mul(a, 0.5)), mul(1.0, 0.5))"
    long = "\n".join(["t0 = x", *(f"t{i + 1} = add(t{i}, z)" for i in range(8)), "return t8"])
    assert terms(graph(long).outputs[0]) == []


def test_products_are_carried_in_the_widest_format():
    view = graph("add(mul(h, h), mul(h, cast(x, dtype='float16')))")
    assert carrier([]) == carrier(["float16", "bfloat16"]) == "float32"
    assert carrier(["float16", "float64"]) == "float64"
    h, x = view.bindings["h"], view.bindings["x"]
    assert nested(multiplied(view.builder, (h, x), "float32")) == "mul(cast(h, dtype='float32'), x)"
    one = multiplied(view.builder, (), "float64")
    assert (nested(one), one.dtype) == ("1.0", "float64")

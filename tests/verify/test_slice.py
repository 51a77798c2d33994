"""Where a rewrite is cut out of its graph."""

from __future__ import annotations

from stabilize.graph.build import Builder
from stabilize.graph.value import TensorType, Value
from stabilize.verify.slice import cut
from tests.verify.rewrites import rewrite


def _names(leaves: tuple[Value, ...]) -> list[str]:
    return [str(v.attr("name")) if v.op == "input" else v.op for v in leaves]


def test_the_cut_is_as_high_as_the_replacement_reaches() -> None:
    old, new = rewrite("t = matmul(x, s)\ne = exp(t)\ndiv(e, sum(e, axes=(1,), keepdim=True))", "softmax(t, axis=1)")
    assert _names(cut(old, new)) == ["matmul"]


def test_a_leaf_that_another_one_feeds_is_opened() -> None:
    old, new = rewrite("t = add(x, z)\nmul(sub(t, x), z)", "mul(sub(t, x), z)\nadd(mul(t, z), neg(mul(x, z)))")
    assert _names(cut(old, new)) == ["x", "z"]


def test_inputs_that_only_the_original_reads_are_leaves() -> None:
    old, new = rewrite("add(x, mul(0.0, z))", "neg(neg(x))")
    assert _names(cut(old, new)) == ["x", "z"]


def test_values_with_a_restricted_range_are_opened() -> None:
    old, new = rewrite(
        "e = exp(x)\nlog(sum(e, axes=(1,), keepdim=True))", "log1p(sub(sum(e, axes=(1,), keepdim=True), 1.0))"
    )
    assert _names(cut(old, new)) == ["x"]


def test_computed_masks_are_opened() -> None:
    old, new = rewrite("g = gt(z, 0.0)\nmul(x, cast(g, dtype='FLOAT'))", "where(g, x, 0.0)")
    assert _names(cut(old, new)) == ["x", "z"]


def test_opaque_values_end_the_walk() -> None:
    builder = Builder()
    type = TensorType("float32", (3,))
    x = builder.input("x", type)
    hidden = builder.opaque("mystery", [x], type)
    old = builder.make("log", builder.make("exp", builder.make("add", hidden, x)))
    new = builder.make("add", hidden, x)
    # `add` is the cut; it can be anything, so that what feeds it does not matter
    assert cut(old, new) == (new,)
    assert set(cut(old, builder.make("add", builder.make("mul", hidden, x), x))) == {hidden, x}


def test_a_replacement_by_a_constant() -> None:
    old, new = rewrite("sub(x, x)", "constant(value=0.0, dtype='FLOAT', shape=(4, 5))")
    assert _names(cut(old, new)) == ["x"]


def test_an_opaque_value_hides_what_it_is_computed_from() -> None:
    b = Builder()
    x = b.input("x", TensorType("float32", ("n", 3)))
    hidden = b.make("exp", b.opaque("host.op", [x], TensorType("float32", ("n", 3))))
    assert _names(cut(b.make("div", hidden, hidden), b.constant(1.0, "float32"))) == ["opaque"]

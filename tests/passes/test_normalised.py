"""Which sums of products are cosines: bounded by 1 whatever the vectors are. Every answer is checked with numbers."""

from __future__ import annotations

import pytest

from stabilize.graph.value import cone
from stabilize.passes.normalised import is_cosine, units_of
from stabilize.verify.execute import execute
from tests.passes.graphs import drawn, nested, read

_N = "norm({0}, axes=(1,), keepdim=True)"
_FLAT = "norm({0}, axes=(1,), keepdim=False)"
_LENGTH = "sqrt(sum(mul({0}, {0}), axes=(1,), keepdim=True))"


def _dot(*quotients: str, over: str = "axes=(1,), keepdim=True") -> str:
    """Σ u·v of rows, or Σ u·u."""
    first, *others = quotients
    return f"u = {first}\nt = {others[0] if others else 'u'}\nreturn sum(mul(u, t), {over})"


def _unit(x: str, length: str = _N) -> str:
    return f"div({x}, {length.format(x)})"


COSINES = [
    _dot(_unit("x")),
    _dot(_unit("x"), _unit("z")),
    _dot(_unit("x"), _unit("z"), over="axes=(1,), keepdim=False"),
    _dot(_unit("x", _LENGTH)),
    _dot(_unit("x", "sqrt(sum(pow({0}, 2.0), axes=(1,), keepdim=True))")),
    _dot(_unit("x", "sqrt(add(sum(mul({0}, {0}), axes=(1,), keepdim=True), 0.001))")),
    _dot(_unit("x", "sqrt(maximum(0.001, sum(mul({0}, {0}), axes=(1,), keepdim=True)))")),
    _dot(_unit("x", f"maximum({_N}, 0.001)")),
    _dot(_unit("x", f"add(0.001, {_N})")),
    _dot(_unit("x", f"add({_N}, 0.0)")),
    _dot(_unit("x", f"maximum(z, {_N})")),
    _dot(_unit("x", f"unsqueeze({_FLAT}, axes=(1,))")),
    _dot(_unit("x", f"expand(unsqueeze(add({_FLAT}, 0.5), axes=(1,)), shape=(4, 5))")),
    _dot(_unit("s", "norm({0}, axes=(0,), keepdim=False)"), over="axes=(0,), keepdim=True"),
    _dot(_unit("s", "squeeze(norm({0}, axes=(0,), keepdim=True), axes=(0,))"), over="axes=(0,), keepdim=True"),
    _dot(_unit("x", "norm({0}, axes=(0, 1), keepdim=False)"), over="axes=(0, 1), keepdim=False"),
    _dot(f"mul(x, div(1.0, {_N}))".format("x")),
    _dot(f"mul(div(1.0, {_N}), x)".format("x")),
    _dot(f"mul(x, unsqueeze(div(1.0, {_FLAT}), axes=(1,)))".format("x")),
    _dot("div(cast(h, dtype='float32'), norm(cast(h, dtype='float32'), axes=(1,), keepdim=True))"),
    _dot(f"div(x, detach({_N}))".format("x")),
    _dot(f"detach({_unit('x')})"),
    _dot(f"unsqueeze({_unit('x')}, axes=(0,))", over="axes=(2,), keepdim=True"),
    _dot(f"unsqueeze({_unit('x')}, axes=(2,))", over="axes=(1,), keepdim=True"),
    _dot(f"transpose({_unit('x')}, perm=(1, 0))", over="axes=(0,), keepdim=True"),
    f"matmul({_unit('x')}, transpose({_unit('z')}, perm=(1, 0)))",
    f"matmul({_unit('x')}, div(a, norm(a, axes=(0,), keepdim=True)))",
    f"matmul({_unit('x')}, div(T, norm(T, axes=(0,), keepdim=True)))",
    f"div(sum(mul(x, z), axes=(1,), keepdim=True), mul({_N.format('x')}, {_N.format('z')}))",
    f"div(sum(mul(x, z), axes=(1,), keepdim=True), mul({_N.format('z')}, {_LENGTH.format('x')}))",
    f"div(sum(mul(x, z), axes=(1,), keepdim=False), mul({_FLAT.format('x')}, {_FLAT.format('z')}))",
    f"div(sum(mul(x, z), axes=(1,), keepdim=False), maximum(mul({_FLAT.format('x')}, {_FLAT.format('z')}), 0.001))",
    f"div(sum(mul(x, z), axes=(1,), keepdim=False), mul(add({_FLAT.format('x')}, 1.0), {_FLAT.format('z')}))",
    f"div(sum(mul(x, z), axes=(1,), keepdim=False), squeeze(mul({_N.format('x')}, {_N.format('z')}), axes=(1,)))",
]


@pytest.mark.parametrize("body", COSINES)
def test_cosines(body):
    ctx, value = read(body)
    assert is_cosine(value)
    assert _largest(value) <= 1 + 1e-3 * ("float16" in body) + 1e-6
    bound = ctx.ranges.of(value)
    assert max(-bound.lo, bound.hi) == 1


#: What looks like a cosine and is not bounded by 1: the numbers drawn leave [−1, 1] wherever `True` stands.
NONE = [
    (_dot("x"), True),
    (_dot(_unit("x"), "z"), True),
    (_dot("z", _unit("x")), True),
    (_dot(f"div(x, {_N})".format("z")), True),
    (_dot(f"div(z, {_LENGTH})".format("x")), True),
    (_dot(_unit("x", "norm({0}, axes=(0,), keepdim=True)")), True),
    (_dot(_unit("x", "sqrt(sum(mul({0}, {0}), axes=(0,), keepdim=True))")), True),
    (_dot(_unit("x", "sqrt(sum(mul({0}, z), axes=(1,), keepdim=True))")), True),
    (_dot(_unit("x", "sqrt(sum(pow({0}, 4.0), axes=(1,), keepdim=True))")), True),
    (_dot(_unit("x", "sqrt(mean(mul({0}, {0}), axes=(1,), keepdim=True))")), True),
    (_dot(_unit("x", "sqrt({0})")), False),
    (_dot(_unit("x", "pow(sum(mul({0}, {0}), axes=(1,), keepdim=True), 0.25)")), True),
    (_dot(_unit("x", f"add({_N}, -0.5)")), True),
    (_dot(_unit("x", f"add({_N}, z)")), True),
    (_dot(_unit("x", f"minimum({_N}, 0.5)")), True),
    (_dot(_unit("x", f"mul({_N}, 0.5)")), True),
    (_dot(f"mul(x, div(2.0, {_N}))".format("x")), True),
    (_dot(f"mul(x, div({_N}, 1.0))".format("x")), True),
    (_dot(f"mul(x, {_N})".format("x")), True),
    # lengths of rows that divide columns
    (_dot(_unit("s", _FLAT)), True),
    (_dot(_unit("s", f"unsqueeze({_FLAT}, axes=(0,))")), True),
    (_dot(_unit("s", f"unsqueeze({_FLAT}, axes=(0,))"), over="axes=(0,), keepdim=True"), True),
    (_dot(_unit("s", f"squeeze(unsqueeze({_FLAT}, axes=(0,)), axes=(0,))")), True),
    (f"u = {_unit('s', _FLAT)}\nreturn matmul(u, transpose(u, perm=(1, 0)))", True),
    (f"div(sum(mul(s, s), axes=(1,), keepdim=True), mul({_FLAT}, {_FLAT}))".replace("{0}", "s"), True),
    (f"div(sum(mul(s, s), axes=(1,), keepdim=False), mul({_N}, {_N}))".replace("{0}", "s"), True),
    # one number, repeated along the axis after its length was taken
    (_dot(f"div(expand(R, shape=(4, 5)), {_N})".format("R")), True),
    (_dot(f"div(R, maximum({_N}, mul(z, 0.001)))".format("R")), True),
    (f"u = expand(R, shape=(4, 5))\nreturn div(sum(mul(u, u), axes=(1,), keepdim=True), mul({_N}, {_N}))"
     .replace("{0}", "R"), True),
    (f"u = mul(div(R, {_N}), {_unit('x')})\nreturn sum(u, axes=(1,), keepdim=True)".replace("{0}", "R"), True),
    (f"div(sum(mul(R, x), axes=(1,), keepdim=True), mul({_N.format('R')}, {_N.format('x')}))", True),
    (f"div(sum(mul(x, R), axes=(1,), keepdim=True), mul({_N.format('R')}, {_N.format('x')}))", True),
    # not of products, or not of the same vectors
    (f"sum({_unit('x')}, axes=(1,), keepdim=True)", True),
    (f"u = {_unit('x')}\nreturn sum(add(u, u), axes=(1,), keepdim=True)", True),
    (f"div(sum(mul(x, z), axes=(1,), keepdim=True), mul({_N}, {_N}))".replace("{0}", "x"), True),
    (f"div(sum(mul(x, z), axes=(1,), keepdim=True), mul({_N}, {_N}))".replace("{0}", "z"), True),
    (f"div(sum(mul(x, z), axes=(1,), keepdim=True), mul({_N}, w))".replace("{0}", "x"), True),
    (f"div(sum(mul(x, z), axes=(1,), keepdim=True), add({_N.format('x')}, {_N.format('z')}))", True),
    (f"div(sum(add(x, z), axes=(1,), keepdim=True), mul({_N.format('x')}, {_N.format('z')}))", True),
    (f"div(mean(mul(x, z), axes=(1,), keepdim=True), mul({_N.format('x')}, {_N.format('z')}))", False),
    (f"div(w, mul({_N.format('x')}, {_N.format('z')}))", False),
    (f"div(mul(x, z), mul({_N.format('x')}, {_N.format('z')}))", False),
    (f"matmul({_unit('s')}, {_unit('s')})", True),
    (f"matmul(s, {_unit('s', 'norm({0}, axes=(0,), keepdim=True)')})", True),
    (f"matmul({_unit('s')}, s)", True),
    # a view that mixes the rows, and an axis put where there was none
    (_dot(f"transpose({_unit('s')}, perm=(1, 0))"), True),
    (_dot(f"unsqueeze({_unit('x')}, axes=(2,))", over="axes=(2,), keepdim=True"), False),
    (_dot(f"reshape({_unit('s')}, shape=(5, 5))", over="axes=(0,), keepdim=True"), True),
]  # fmt: skip


@pytest.mark.parametrize(("body", "leaves_the_interval"), NONE)
def test_near_misses(body, leaves_the_interval):
    ctx, value = read(body)
    assert not is_cosine(value), nested(value)
    assert not leaves_the_interval or _largest(value) > 1.001
    bound = ctx.ranges.of(value)
    assert max(-bound.lo, bound.hi) > 1


def _largest(value) -> float:
    """The largest magnitude for large and for small numbers."""
    found = []
    for size in (3.0, 0.01):
        leaves = [v for v in cone([value]) if v.op == "input"]
        (result,) = execute([value], {v: size * t if t.is_floating_point() else t for v, t in drawn(leaves, 0).items()})
        found.append(float(result.abs().nan_to_num(nan=0.0).max()))
    return max(found)


def test_a_guard_is_told_from_the_length_itself():
    _, value = read(_dot(_unit("x"), _unit("z", f"maximum({_N}, 0.001)")))
    plain, guarded = units_of(value)
    assert not plain.guarded
    assert plain.divisor is plain.length
    assert guarded.guarded
    assert nested(guarded.divisor) == "maximum(norm(z, axes=(1,), keepdim=True), 0.001)"
    assert nested(guarded.length) == _N.format("z")
    put_back, _ = units_of(read(_dot(_unit("x", f"unsqueeze({_FLAT}, axes=(1,))")))[1])
    assert not put_back.guarded
    assert nested(put_back.value) == nested(value.operands[0].operands[0]).replace(
        _N.format("x"), f"unsqueeze({_FLAT.format('x')}, axes=(1,))"
    )


def test_a_divisor_of_many_guards_is_looked_through_once():
    """Sixty maxima, each over two ways to the one before, are no 2⁶⁰ paths."""
    lines = ["n0 = norm(x, axes=(1,), keepdim=True)"]
    lines += [f"n{i + 1} = maximum(add(n{i}, 0.5), add(n{i}, 0.25))" for i in range(60)]
    assert is_cosine(read("\n".join([*lines, "u = div(x, n60)", "return sum(mul(u, u), axes=(1,), keepdim=True)"]))[1])

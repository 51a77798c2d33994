"""The oracle against mpmath at points where floats fail, against torch where they do not, and at the edges."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flint
import mpmath
import pytest
import torch
from flint import arb
from hypothesis import given, settings
from hypothesis import strategies as st

from stabilize.graph.ops import VOCABULARY
from stabilize.graph.text import parse
from stabilize.verify import oracle
from stabilize.verify.execute import execute
from stabilize.verify.oracle import ORACLE, evaluate
from tests.verify.examples import EDGES, EXAMPLES, example, numbers


def test_every_primitive_has_an_exact_meaning() -> None:
    assert set(ORACLE) == set(VOCABULARY)


@pytest.mark.parametrize("primitive", sorted(EXAMPLES))
def test_agrees_with_float64_on_ordinary_numbers(primitive: str) -> None:
    view = example(primitive)
    for seed in range(3):
        leaves = numbers(view, seed)
        (exact,), (computed,) = evaluate(view.outputs, leaves), execute(view.outputs, leaves)
        assert exact.shape == tuple(computed.shape)
        for true, got in zip(exact.flat, computed.flatten().tolist(), strict=True):
            assert float(true) == pytest.approx(float(got), rel=1e-12, abs=1e-300)


# PyTorch's own results at ±inf and NaN that differ from the formula: softmax of a row with +inf is NaN throughout,
# a scan meets inf − inf in another order, attention has no NaN to divide by, losses multiply by 0.
_OWN_CONVENTIONS = {
    "softmax", "logcumsumexp", "attention", "cast", "floor", "argmax", "topk_indices", "bce_with_logits",
    "log_softmax", "sign",
}  # fmt: skip


@pytest.mark.parametrize("primitive", sorted(set(EXAMPLES) - _OWN_CONVENTIONS))
def test_agrees_with_torch_at_the_edges(primitive: str) -> None:
    view = example(primitive)
    leaves = numbers(view)
    for shift in range(4):
        for name in ("x", "p", "z"):
            row = [EDGES[(i + shift * 5) % len(EDGES)] for i in range(12)]
            leaves[view.bindings[name]] = torch.tensor(row, dtype=torch.float64).reshape(3, 4)
            if name != "x":
                leaves[view.bindings[name]] = leaves[view.bindings[name]].flip(0)
        (exact,), (computed,) = evaluate(view.outputs, leaves), execute(view.outputs, leaves)
        for true, got in zip(exact.flat, computed.flatten().tolist(), strict=True):
            if math.isfinite(float(true)):
                assert float(true) == pytest.approx(float(got), rel=1e-12, abs=1e-300)
            elif abs(float(got)) != math.inf or not isinstance(true, arb):  # a ball beyond float64 is inf there
                assert repr(float(got)) == repr(float(true)), (primitive, leaves)


def _softmax(row: list[Any]) -> list[Any]:
    total = mpmath.fsum(mpmath.exp(x) for x in row)
    return [mpmath.exp(x) / total for x in row]


HARD: dict[str, tuple[str, Callable[[list[Any]], list[Any]], tuple[float, ...]]] = {
    "softmax beyond the range of exp": (
        "e = exp(x)\n    return div(e, sum(e, axes=(0,), keepdim=True))", _softmax, (1e4, 9990.0, -1e4, 0.5),
    ),
    "softplus far below zero": (
        "return log(add(exp(x), 1.0))", lambda row: [mpmath.log1p(mpmath.exp(x)) for x in row],
        (-1e4, -40.0, 30.0, 1e4),
    ),
    "log of one minus sigmoid": (
        "return log(sub(1.0, sigmoid(x)))", lambda row: [-mpmath.log1p(mpmath.exp(x)) for x in row],
        (1e3, 40.0, -5.0, 2.0),
    ),
    "erfc in the tail": ("return erfc(x)", lambda row: [mpmath.erfc(x) for x in row], (30.0, 5.0, -3.0, 0.0)),
    "quotient of exponentials": (
        "return div(exp(x), exp(x))", lambda row: [mpmath.mpf(1) for _ in row], (1e4, -1e4, 710.0, 3.0),
    ),
    "expm1 over x": (
        "return div(sub(exp(x), 1.0), x)", lambda row: [mpmath.expm1(x) / x for x in row], (1e-30, 1e-8, -1e-300, 1.0),
    ),
    "variance that cancels": (
        "return expand(sub(mean(mul(x, x), axes=(0,), keepdim=True), "
        "mul(mean(x, axes=(0,), keepdim=True), mean(x, axes=(0,), keepdim=True))), shape=(4,))",
        lambda row: [mpmath.fsum((x - mpmath.fsum(row) / 4) ** 2 for x in row) / 4] * 4,
        (1e8, 1e8 + 1.0, 1e8 + 2.0, 1e8 + 3.0),
    ),
}  # fmt: skip


#: Special functions, which mpmath knows to fewer bits in reasonable time.
SPECIAL: dict[str, tuple[str, Callable[[list[Any]], list[Any]], tuple[float, ...]]] = {
    "erfcx in both tails": (
        "return erfcx(x)", lambda row: [mpmath.exp(x * x) * mpmath.erfc(x) for x in row], (30.0, 5.0, -30.0, 1e-9),
    ),
    "log ndtr in both tails": (
        "return log_ndtr(x)", lambda row: [mpmath.log(mpmath.erfc(-x / mpmath.sqrt(2)) / 2) for x in row],
        (-30.0, 9.0, -0.5, 0.0),
    ),
    "acosh next to 1": (
        "return acosh(add(x, 1.0))", lambda row: [mpmath.acosh(1 + x) for x in row], (1e-30, 1e-8, 3.0, 1e30),
    ),
    "acos and asin next to 1": (
        "return add(acos(sub(1.0, x)), asin(x))", lambda row: [mpmath.acos(1 - x) + mpmath.asin(x) for x in row],
        (1e-30, 1e-8, 0.75, 1.0),
    ),
    "atanh next to 1": (
        "return atanh(sub(1.0, x))", lambda row: [mpmath.atanh(1 - x) for x in row], (1e-30, 1e-8, 0.5, 1.5),
    ),
    "ndtri next to 0": (
        "return ndtri(x)", lambda row: [-mpmath.sqrt(2) * mpmath.erfinv(1 - 2 * x) for x in row],
        (1e-30, 1e-8, 0.25, 0.75),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [*HARD, *SPECIAL])
def test_agrees_with_mpmath_where_floats_fail(name: str) -> None:
    body, reference, row = {**HARD, **SPECIAL}[name]
    view = parse(f"def graph(x: float64[4]):\n    {body}")
    leaves = {view.bindings["x"]: torch.tensor(row, dtype=torch.float64)}
    (exact,) = evaluate(view.outputs, leaves, floor=-(10**6))
    with mpmath.workprec(60000 if name in HARD else 3000):
        expected = reference([mpmath.mpf(x) for x in row])
        for true, want in zip(exact.flat, expected, strict=True):
            got = mpmath.mpf(true.mid()._mpf_)
            assert abs(got - want) <= abs(want) * mpmath.mpf(2) ** -75, (float(got), float(want))


def test_the_formula_is_taken_as_written_at_singular_points() -> None:
    view = parse(
        "def graph(x: float64[2, 3]):\n    e = exp(x)\n"
        "    return div(e, sum(e, axes=(1,), keepdim=True)), log(sum(e, axes=(1,), keepdim=False))"
    )
    inf = math.inf
    leaves = {view.bindings["x"]: torch.tensor([[-inf, -inf, -inf], [0.0, inf, 1.0]], dtype=torch.float64)}
    quotient, logarithm = evaluate(view.outputs, leaves)
    assert [math.isnan(float(v)) for v in quotient[0]] == [True] * 3
    assert [repr(float(v)) for v in quotient[1]] == ["0.0", "nan", "0.0"]
    assert [float(v) for v in logarithm] == [-inf, inf]


def test_casts_between_floats_do_not_round() -> None:
    view = parse("def graph(x: float64[1]):\n    return sub(cast(cast(x, dtype='float16'), dtype='float64'), x)")
    (difference,) = evaluate(view.outputs, {view.bindings["x"]: torch.tensor([1.0001], dtype=torch.float64)})
    assert difference[0] == 0


def test_what_cannot_be_bounded_is_not_known() -> None:
    view = parse("def graph(x: float64[1]):\n    e = exp(exp(x))\n    return div(e, e)")
    (result,) = evaluate(view.outputs, {view.bindings["x"]: torch.tensor([1e5], dtype=torch.float64)}, max_bits=512)
    assert not result[0].is_finite()


def test_a_tower_ends_the_search_for_precision_and_spoils_no_other_element(monkeypatch: pytest.MonkeyPatch) -> None:
    """exp(exp(1e5)) is beyond 2¹⁷ bits; the other element needs 950."""
    bits: list[int] = []
    attempt = oracle._attempt
    monkeypatch.setattr(oracle, "_attempt", lambda *args: (bits.append(flint.ctx.prec), attempt(*args))[1])
    view = parse("def graph(x: float64[2]):\n    e = exp(exp(x))\n    return sub(add(e, x), e)")
    (result,) = evaluate(view.outputs, {view.bindings["x"]: torch.tensor([1e5, 6.5], dtype=torch.float64)})
    assert not result[0].is_finite()
    assert float(result[1]) == 6.5
    assert max(bits) == 1536


def test_a_true_tie_is_a_tie_and_a_near_tie_is_not() -> None:
    view = parse(
        "def graph(x: float64[2]):\n    d = sub(1.0, sigmoid(x))\n    t = sub(exp(x), exp(x))\n"
        "    return log(d), gt(d, 0.0), gt(t, 0.0), sqrt(t), log(t)"
    )
    leaves = {view.bindings["x"]: torch.tensor([2000.0, 3.0], dtype=torch.float64)}
    near, near_sign, tie_sign, tie_root, tie_log = evaluate(view.outputs, leaves, max_bits=2**13)
    assert float(near[0]) == pytest.approx(-2000.0)
    assert near_sign.tolist() == [True, True]
    assert tie_sign.tolist() == [False, False]
    assert [float(v) for v in tie_root] == [0.0, 0.0]
    assert not any(v.is_finite() for v in tie_log)  # −inf or a very negative number: not known
    # at a precision that cannot tell σ(2000) from 1, nothing is claimed
    assert not evaluate(view.outputs[:1], leaves, max_bits=2048)[0][0].is_finite()


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("ignored", [-100, 2])
def test_cross_entropy_options(reduction: str, smoothing: float, ignored: int) -> None:
    view = parse(
        "def graph(x: float64[3, 4, 2], y: int64[3, 2], w: float64[4]):\n"
        f"    return cross_entropy(x, y, w, reduction='{reduction}', ignore_index={ignored}, "
        f"label_smoothing={smoothing})"
    )
    leaves = {
        view.bindings["x"]: torch.randn(3, 4, 2, dtype=torch.float64),
        view.bindings["y"]: torch.tensor([[0, 2], [1, 3], [2, 2]]),
        view.bindings["w"]: torch.tensor([0.5, 1.0, 2.0, 0.25], dtype=torch.float64),
    }
    (exact,), (computed,) = evaluate(view.outputs, leaves), execute(view.outputs, leaves)
    assert [float(v) for v in exact.flat] == pytest.approx(computed.flatten().tolist(), rel=1e-13)


def test_masks_of_attention() -> None:
    for mask in ("bool", "float64"):
        view = parse(
            f"def graph(q: float64[2, 3, 4], k: float64[2, 5, 4], v: float64[2, 5, 6], m: {mask}[3, 5]):\n"
            "    return attention(q, k, v, m, scale=None)"
        )
        keep = torch.tensor([[True, False, True, True, False], [False] * 5, [True] * 5])
        leaves = {view.bindings[n]: torch.randn(*s, dtype=torch.float64) for n, s in
                  (("q", (2, 3, 4)), ("k", (2, 5, 4)), ("v", (2, 5, 6)))}  # fmt: skip
        additive = torch.zeros(3, 5, dtype=torch.float64).masked_fill(~keep, -math.inf)
        leaves[view.bindings["m"]] = keep if mask == "bool" else additive
        (exact,), (computed,) = evaluate(view.outputs, leaves), execute(view.outputs, leaves)
        assert [float(v) for v in exact.flat] == pytest.approx(computed.flatten().tolist(), rel=1e-13)
        assert computed[:, 1].abs().max() == 0  # a row without a key


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=6, max_size=6), st.sampled_from(["float32", "float64"]))
def test_softmax_in_any_spelling_has_one_meaning(row: list[float], dtype: str) -> None:
    view = parse(
        f"def graph(x: {dtype}[2, 3]):\n"
        "    e = exp(x)\n"
        "    m = max(x, axes=(1,), keepdim=True)\n"
        "    s = exp(sub(x, m))\n"
        "    return softmax(x, axis=1), div(e, sum(e, axes=(1,), keepdim=True)), "
        "div(s, sum(s, axes=(1,), keepdim=True)), exp(log_softmax(x, axis=1)), "
        "exp(sub(x, logsumexp(x, axes=(1,), keepdim=True)))"
    )
    x = torch.tensor(row, dtype=torch.float64).reshape(2, 3)
    first, *others = evaluate(view.outputs, {view.bindings["x"]: x})
    for other in others:
        for a, b in zip(first.flat, other.flat, strict=True):
            assert a.overlaps(b) or abs(a - b) < abs(a) * arb(2) ** -70

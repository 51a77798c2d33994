"""The search for inputs on which an expression breaks: what it finds, where it looks, and how mild what it gives is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from stabilize.formats import FORMATS
from stabilize.graph.value import Value, cone
from stabilize.graph.view import View
from stabilize.verify import breakage
from stabilize.verify.breakage import Break, Breakage, ordinary, search, within
from stabilize.verify.execute import execute
from stabilize.verify.oracle import evaluate
from stabilize.verify.shrink import Problem
from tests.passes.graphs import graph

INF = math.inf
_E = "e = exp(x)\n"
SOFTMAX = _E + "return div(e, sum(e, axes=(1,), keepdim=True))"
VARIANCE = "m1 = mean(x, axes=(1,), keepdim=True)\nreturn sub(mean(mul(x, x), axes=(1,), keepdim=True), mul(m1, m1))"
ENTROPY = "p = softmax(x, axis=1)\nreturn sum(mul(p, log(p)), axes=(1,), keepdim=False)"


@dataclass(frozen=True)
class Seen:
    """What was found, and the names of the leaves."""

    breakage: Breakage
    names: tuple[str, ...]

    @property
    def first(self) -> Break:
        return self.breakage.first

    @property
    def problem(self) -> Problem:
        return self.breakage.problem

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        return self.breakage.tensors

    @property
    def given(self) -> dict[str, torch.Tensor]:
        return dict(zip(self.names, self.tensors, strict=True))


def searched(
    body: str,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    data: Mapping[str, torch.Tensor] | None = None,
    new: str | None = None,
    **options: Any,
) -> Seen | None:
    view = graph(body if new is None else _both(body, new))
    old, *rest = view.outputs
    leaves = [v for v in cone(view.outputs) if v.op == "input"]
    limits = {view.bindings[n]: b for n, b in (bounds or {}).items()}
    known = {view.bindings[n]: t for n, t in (data or {}).items()}
    found = search(old, rest[0] if rest else None, leaves, lambda v: limits.get(v, (-INF, INF)), known, **options)
    return None if found is None else Seen(found, tuple(str(leaf.attr("name")) for leaf in leaves))


def _both(body: str, new: str) -> str:
    *lines, last = body.strip().splitlines()
    return "\n".join([*lines, f"{last if last.startswith('return') else 'return ' + last}, {new}"])


def replay(found: Seen) -> tuple[float, float]:
    """(computed, exact) at the element that is told."""
    leaves: dict[Value, torch.Tensor] = dict(zip(found.problem.leaves, found.tensors, strict=True))
    (computed,) = execute([found.problem.old], leaves)
    (exact,) = evaluate([found.problem.old], leaves, max_bits=2**13)
    return float(computed[found.first.index]), float(exact[found.first.index])


# --- kinds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "new"),
    [
        (SOFTMAX, None),
        (SOFTMAX, "softmax(x, axis=1)"),
        (ENTROPY, None),
        ("log(sum(exp(x), axes=(1,), keepdim=False))", "logsumexp(x, axes=(1,), keepdim=False)"),
        (VARIANCE, None),  # finite, and off by half
        ("div(mul(h, h), 64.0)", "mul(h, div(h, 64.0))"),
        ("log(sigmoid(x))", "log_sigmoid(x)"),
    ],
)
def test_lost_numbers(body: str, new: str | None) -> None:
    found = searched(body, new=new)
    assert found is not None
    assert (found.first.kind, found.first.gradient) == ("lost", None)
    computed, exact = replay(found)
    assert computed == found.first.computed or math.isnan(computed)
    assert exact == pytest.approx(found.first.exact)
    dtype = found.problem.old.dtype
    assert abs(exact) <= FORMATS[dtype].max
    assert not math.isfinite(computed) or abs(computed - exact) > abs(exact) / 2


def test_lost_comparisons_and_indices() -> None:
    """The sign of a difference that cancels; the place of the largest of numbers that overflow."""
    found = searched("gt(sub(exp(x), exp(z)), 1.0)", {"x": (0, 1000), "z": (0, 1000)})
    assert found is not None
    assert found.first.kind == "lost"
    assert found.first.computed != found.first.exact


@pytest.mark.parametrize(("body", "leaf"), [("sqrt(abs(x))", "x"), ("mul(z, sqrt(mul(relu(x), w)))", "w")])
def test_gradients(body: str, leaf: str) -> None:
    assert searched(body, gradients=False) is None
    found = searched(body, gradients=True)
    assert found is not None
    assert found.first.kind == "gradient"
    assert found.first.exact is None
    assert found.first.gradient is not None
    tensors = [t.clone().requires_grad_() for t in found.tensors]
    (result,) = execute([found.problem.old], dict(zip(found.problem.leaves, tensors, strict=True)))
    assert torch.isfinite(result).all()
    slopes = torch.autograd.grad(result.sum(), tensors)
    assert slopes[found.first.gradient][found.first.index].isnan()


@pytest.mark.parametrize(("body", "new"), [("log(add(1.0, x))", "log1p(x)"), ("sub(exp(x), 1.0)", "expm1(x)")])
def test_results_that_are_off(body: str, new: str) -> None:
    for other in (None, new):
        found = searched(body, {"x": (-0.5, 0.5)}, new=other)
        assert found is not None
        assert found.first.kind == "off"
        computed, exact = replay(found)
        assert abs(computed - exact) > abs(exact) / 16
        assert computed == found.first.computed


@pytest.mark.parametrize(
    ("body", "bounds"),
    [
        ("log(relu(x))", {}),
        ("div(x, z)", {}),
        ("exp(x)", {}),
        ("mul(h, 70000.0)", {}),
        ("acos(sub(x, 1.0))", {}),
        ("log(x)", {"x": (0.0, 1.0)}),
    ],
)
def test_poles_are_told_only_where_they_are_asked_for(body: str, bounds: Any) -> None:
    assert searched(body, bounds) is None
    found = searched(body, bounds, poles=True)
    assert found is not None
    assert found.first.kind == "lost"
    assert not math.isfinite(replay(found)[0])


def test_nothing_is_told_of_what_is_right() -> None:
    for body in (
        "softmax(x, axis=1)",
        "exp(x)",
        "log1p(abs(x))",
        "sigmoid(x)",
        "sum(mul(x, z), axes=(1,), keepdim=True)",
        "softplus(x)",
        "tanh(h)",
        "sqrt(add(mul(x, x), 1e-06))",
    ):
        assert searched(body, gradients=True) is None, body


# --- ranges ---------------------------------------------------------------------------------------------------------

_RANGES = [(50.0, 100.0), (-300.0, -90.0), (-500.0, 500.0), (0.0, 1000.0), (89.0, 89.0), (89.0, INF), (-INF, -104.0)]


@pytest.mark.parametrize(("low", "high"), _RANGES)
@pytest.mark.parametrize("gradients", [False, True])
def test_inputs_are_in_their_ranges(low: float, high: float, gradients: bool) -> None:
    found = searched(SOFTMAX, {"x": (low, high)}, new="softmax(x, axis=1)", gradients=gradients)
    assert found is not None
    x = found.given["x"]
    assert low <= x.min()
    assert x.max() <= high


@pytest.mark.parametrize(("low", "high"), [(-10.0, 10.0), (-80.0, 80.0), (3.0, 3.0), (60.0, 80.0)])
def test_nothing_is_found_inside_safe_ranges(low: float, high: float) -> None:
    for new in (None, "softmax(x, axis=1)"):
        assert searched(SOFTMAX, {"x": (low, high)}, new=new, gradients=True) is None


def test_every_leaf_has_its_own_range() -> None:
    found = searched("log(add(exp(x), exp(z)))", {"x": (-200, -150), "z": (-120, -110)})
    assert found is not None
    tensors = found.given
    assert tensors["x"].min() >= -200
    assert tensors["x"].max() <= -150
    assert tensors["z"].min() >= -120
    assert tensors["z"].max() <= -110


@pytest.mark.parametrize(("low", "high"), [(2, 5), (-3, 4), (0.5, 3.7), (7, 7), (-1e30, 1e30)])
def test_integers_are_in_their_ranges(low: float, high: float) -> None:
    """int64 inputs are drawn between their bounds, which need not be integers, nor fit."""
    found = searched("exp(mul(x, cast(unsqueeze(y, axes=(1,)), dtype='float32')))", {"y": (low, high)}, poles=True)
    assert found is not None
    y = found.given["y"]
    assert y.dtype == torch.int64
    assert low <= y.min()
    assert y.max() <= high


@pytest.mark.parametrize(
    ("dtype", "known", "expected"),
    [
        ("float32", (-INF, INF), (-1e4, 1e4)),
        ("float16", (-INF, INF), (-1e4, 1e4)),
        ("float64", (-INF, INF), (-1e4, 1e4)),
        ("float32", (0.0, INF), (0.0, 1e4)),
        ("float32", (-INF, 5.0), (-1e4, 5.0)),
        ("float32", (-1e6, 1e6), (-1e6, 1e6)),
        ("float16", (-1e6, 1e6), (-65504.0, 65504.0)),
        ("float16", (1e6, 2e6), (65504.0, 65504.0)),
        ("float32", (1e6, INF), (1e6, 2e6)),
        ("float32", (-INF, -1e6), (-2e6, -1e6)),
        ("float32", (1e4, INF), (1e4, 2e4)),
        ("float16", (5e4, INF), (5e4, 65504.0)),
    ],
)
def test_ordinary_numbers(dtype: str, known: tuple[float, float], expected: tuple[float, float]) -> None:
    view: View = graph("x")
    leaf = view.builder.input("leaf", view.bindings["x"].type)
    leaf = view.bindings[{"float32": "x", "float16": "h"}.get(dtype, "x")] if dtype != "float64" else leaf
    if dtype == "float64":
        leaf = graph("D").bindings["D"]
    assert ordinary(leaf, known) == expected


def test_integers_are_what_is_known_of_them() -> None:
    assert ordinary(graph("y").bindings["y"], (-INF, 3.0)) == (-INF, 3.0)


def test_tensors_are_scaled_into_ranges_before_they_are_cut() -> None:
    x = torch.tensor([-4.0, 0.0, 1.0, 2.0])
    assert within(x, -1.0, 1.0).tolist() == [-1.0, 0.0, 0.25, 0.5]
    assert within(x, -INF, 1.0).tolist() == [-2.0, 0.0, 0.5, 1.0]
    assert within(x, 0.5, 1.0).tolist() == [0.5, 0.5, 1.0, 1.0]
    assert within(x, -10.0, 10.0).tolist() == x.tolist()
    assert within(torch.empty(0), -1.0, 1.0).shape == (0,)


# --- data -----------------------------------------------------------------------------------------------------------


def test_data_stays_what_it_is() -> None:
    scale = torch.tensor([[2.0, 3.0, 0.5, 1.0, 7.0]] * 4)
    body = "e = exp(mul(x, w))\nreturn div(e, sum(e, axes=(1,), keepdim=True))"
    found = searched(body, {"w": (100.0, 200.0)}, {"w": scale})
    assert found is not None
    w, x = found.given["w"], found.given["x"]
    assert {float(k) for k in w.flatten()} <= {float(k) for k in scale.flatten()}
    assert not torch.equal(x, x.round(decimals=0)) or x.abs().max() > 1
    assert searched(body, {"x": (-10.0, 10.0)}, {"w": scale}) is None  # 70 at most
    assert searched(body, {"x": (-20.0, 20.0)}, {"w": scale}) is not None


def test_integers_of_the_data_stay() -> None:
    y = torch.tensor([0, 1, 2, 1])
    body = "exp(add(x, unsqueeze(cast(mul(y, 100), dtype='float32'), axes=(1,))))"
    found = searched(body, {"y": (5, 6), "x": (-1, 1)}, {"y": y}, poles=True)
    assert found is not None
    assert set(found.given["y"].tolist()) <= {0, 1, 2}


# --- what is given is mild and repeatable ---------------------------------------------------------------------------


def test_what_is_found_is_barely_enough_and_in_round_numbers() -> None:
    found = searched(SOFTMAX, new="softmax(x, axis=1)")
    assert found is not None
    x = found.given["x"]
    assert 20 < x.abs().max() < 500
    assert all(float(f"{k:.3g}") == pytest.approx(k, rel=1e-6) for k in x.flatten().tolist())
    leaves = {found.problem.leaves[0]: x * 0.5}
    assert torch.isfinite(execute([found.problem.old], leaves)[0]).all()
    worse = searched(SOFTMAX, {"x": (-1e30, 1e30)}, new="softmax(x, axis=1)")
    assert worse is not None
    assert worse.given["x"].abs().max() < 500


def test_numbers_that_are_nearly_0_are_0_unless_nothing_else_breaks() -> None:
    found = searched("log(relu(x))", poles=True)
    assert found is not None
    x = found.given["x"]
    assert ((x == 0) | (x.abs() >= 1e-6)).all()
    off = searched("log(add(1.0, x))", {"x": (-0.5, 0.5)})
    assert off is not None
    assert 0 < off.given["x"].abs().min() < 1e-3


def test_seeds() -> None:
    data = {"w": torch.full((4, 5), 2.0)}  # with data nothing is remembered
    body = "log(sum(mul(exp(x), w), axes=(1,), keepdim=False))"
    first, again, *others = (searched(body, {"x": (0, 200)}, data, seed=s) for s in (0, 0, 1, 2, 3))
    assert first is not None
    assert again is not None
    assert torch.equal(first.given["x"], again.given["x"])
    assert all(other is not None for other in others)
    assert not all(other is not None and torch.equal(first.given["x"], other.given["x"]) for other in others)


def test_what_is_remembered_is_of_the_same_question() -> None:
    """Two layers pose one problem; other ranges, gradients or poles make it another."""
    body = "log(sum(abs(x), axes=(1,), keepdim=True))"
    assert searched(body, {"x": (1.0, 2.0)}, poles=True) is None
    assert searched(body, {"x": (0.0, 2.0)}, poles=True) is not None
    assert searched(body, {"x": (0.0, 2.0)}, poles=False) is None
    assert searched("sqrt(abs(x))", gradients=False) is None
    assert searched("sqrt(abs(x))", gradients=True) is not None
    assert searched("sqrt(abs(x))", {"x": (0.5, 1.0)}, gradients=True) is None


def test_a_question_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for one with data, which is not told apart by its text."""
    runs: list[int] = []
    run = breakage._Search.run
    monkeypatch.setattr(breakage._Search, "run", lambda self, seed: (runs.append(seed), run(self, seed))[1])
    monkeypatch.setattr(breakage, "_searched", type(breakage._searched)())
    for seed in (0, 0, 1, 0):
        searched(SOFTMAX, {"x": (0.0, 123.0)}, seed=seed)
    assert runs == [0, 1]
    data = {"w": torch.full((4, 5), 2.0)}
    for _ in range(2):
        searched("log(mul(exp(x), w))", {"x": (0.0, 123.0)}, data, seed=5)
    assert runs[2:].count(5) >= 2


# --- sizes ----------------------------------------------------------------------------------------------------------


def test_sums_that_pass_their_format_at_full_length_only() -> None:
    """1000 entries of at most 100: 1e5 is beyond float16, a sum of six is not."""
    from stabilize.graph.text import parse

    view = parse(
        "def graph(x: float16[2, 1000]):\n    return div(x, sum(x, axes=(1,), keepdim=True))",
    )
    (old,), leaf = view.outputs, view.bindings["x"]
    found = search(old, None, [leaf], lambda _: (90.0, 100.0), {}, poles=False)
    assert found is not None
    assert not found.problem.shrunk
    assert found.tensors[0].shape == (2, 1000)


def test_what_cannot_be_searched() -> None:
    view = graph("exp(n)")
    assert search(view.outputs[0], None, [view.bindings["n"]], lambda _: (-INF, INF), {}, poles=True) is not None
    long = "\n".join(["t0 = exp(x)", *(f"t{i + 1} = add(t{i}, z)" for i in range(300)), "return t300"])
    assert searched(long, poles=True) is None  # too many operations

"""Exact gradients: against autograd in float64, against formulas, and where there is nothing to differentiate."""

from __future__ import annotations

import math

import pytest
import torch

from stabilize.graph.text import parse
from stabilize.graph.view import View
from stabilize.verify import gradient as gradients
from stabilize.verify.execute import execute
from stabilize.verify.gradient import gradient
from stabilize.verify.reals import is_known
from tests.verify.examples import EXAMPLES, example, numbers

_SMOOTH = sorted(
    set(EXAMPLES)
    - {"sign", "floor", "isnan", "not", "cast", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "any", "all"}
    - {"argmax", "topk_indices", "one_hot", "input", "opaque"}
)


def _autograd(view: View, leaves: dict, wrt: list, cotangent: torch.Tensor) -> list[torch.Tensor]:  # type: ignore[type-arg]
    tensors = {v: t.clone().requires_grad_() if v in wrt else t for v, t in leaves.items()}
    (result,) = execute(view.outputs, tensors)
    if not result.requires_grad:
        return [torch.zeros_like(tensors[v]) for v in wrt]
    result.backward(cotangent)  # type: ignore[no-untyped-call]
    return [torch.zeros_like(t) if (t := tensors[v]).grad is None else t.grad for v in wrt]  # type: ignore[misc]


@pytest.mark.parametrize("primitive", _SMOOTH)
def test_agrees_with_autograd_in_float64(primitive: str) -> None:
    view = example(primitive)
    leaves = numbers(view)
    # class weights have no gradient in PyTorch
    wrt = [v for v, t in leaves.items() if t.is_floating_point() and v.attr("name") != "w"]
    cotangent = torch.randn([int(d) for d in view.outputs[0].shape], dtype=torch.float64)
    exact = gradient(view.outputs[0], leaves, wrt, cotangent)
    for leaf, want in zip(exact, _autograd(view, leaves, wrt, cotangent), strict=True):
        assert [float(g) for g in leaf.flat] == pytest.approx(want.flatten().tolist(), rel=1e-11, abs=1e-14)


def test_gradient_of_a_collapsed_loss() -> None:
    """−log softmax at a lead of 80: p − 1 on the true class is e⁻⁸⁰, which float64 autograd rounds away."""
    view = parse(
        "def graph(x: float32[2]):\n    e = exp(x)\n"
        "    return neg(log(slice(div(e, sum(e, axes=(0,), keepdim=True)), axis=0, start=0, stop=1, step=1)))"
    )
    leaves = {view.bindings["x"]: torch.tensor([80.0, 0.0])}
    (exact,) = gradient(view.outputs[0], leaves, [view.bindings["x"]], torch.ones(1))
    assert [float(g) for g in exact] == pytest.approx([-math.exp(-80), math.exp(-80)], rel=1e-12)


def test_detached_parts_do_not_move() -> None:
    view = parse("def graph(x: float64[3]):\n    return mul(detach(x), x)")
    x = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    (exact,) = gradient(view.outputs[0], {view.bindings["x"]: x}, [view.bindings["x"]], torch.ones(3))
    assert [float(g) for g in exact] == pytest.approx(x.tolist(), rel=1e-15)


def test_entries_without_a_derivative_are_not_judged() -> None:
    view = parse("def graph(x: float64[4]):\n    return relu(x)")
    x = torch.tensor([0.0, 1.0, math.inf, math.nan], dtype=torch.float64)
    (exact,) = gradient(view.outputs[0], {view.bindings["x"]: x}, [view.bindings["x"]], torch.ones(4))
    assert [is_known(g) for g in exact] == [False, True, False, False]
    assert float(exact[1]) == 1.0


def test_ties_of_a_maximum_are_not_judged_but_other_rows_are() -> None:
    view = parse("def graph(x: float64[2, 2]):\n    return max(x, axes=(1,), keepdim=False)")
    x = torch.tensor([[1.0, 1.0], [2.0, 1.0]], dtype=torch.float64)
    (exact,) = gradient(view.outputs[0], {view.bindings["x"]: x}, [view.bindings["x"]], torch.ones(2))
    assert [is_known(g) for g in exact.flat] == [False, False, True, True]
    assert [float(g) for g in exact[1]] == [1.0, 0.0]


def test_masked_entries_do_not_spoil_the_others() -> None:
    view = parse("def graph(x: float64[3]):\n    return logsumexp(x, axes=(0,), keepdim=True)")
    x = torch.tensor([0.0, -math.inf, 0.0], dtype=torch.float64)
    (exact,) = gradient(view.outputs[0], {view.bindings["x"]: x}, [view.bindings["x"]], torch.ones(1))
    assert not is_known(exact[1])
    assert [float(exact[0]), float(exact[2])] == pytest.approx([0.5, 0.5], rel=1e-15)


@pytest.mark.parametrize("x", [1e-10, 1e-30, 1e-100])
def test_functions_that_bend_on_a_small_scale(x: float) -> None:
    view = parse("def graph(x: float64[1]):\n    return log(x)")
    leaves = {view.bindings["x"]: torch.tensor([x], dtype=torch.float64)}
    (exact,) = gradient(view.outputs[0], leaves, [view.bindings["x"]], torch.ones(1))
    assert float(exact[0]) == pytest.approx(1 / x, rel=1e-15)


def test_a_zero_gradient_is_zero() -> None:
    view = parse("def graph(x: float64[2]):\n    return mul(x, x), softmax(x, axis=0)")
    leaves = {view.bindings["x"]: torch.zeros(2, dtype=torch.float64)}
    for root in view.outputs:
        (exact,) = gradient(root, leaves, [view.bindings["x"]], torch.ones(2), floor=-200)
        assert [abs(float(g)) < 1e-60 for g in exact] == [True, True]


def test_chosen_positions_only() -> None:
    view = parse("def graph(x: float64[4]):\n    return exp(x)")
    leaves = {view.bindings["x"]: torch.zeros(4, dtype=torch.float64)}
    (exact,) = gradient(view.outputs[0], leaves, [view.bindings["x"]], torch.ones(4), positions=[[0, 2]])
    assert [is_known(g) for g in exact] == [True, False, True, False]


def test_the_work_at_the_highest_precision_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every entry needs it (x beside 2¹⁵⁸²), the first are judged and the others left unknown."""
    monkeypatch.setattr(gradients, "_MOST_WORK", 4 * 10000)
    view = parse("def graph(x: float32[4], y: float32[4]):\n    big = exp(exp(y))\n    return sub(add(big, x), big)")
    x = view.bindings["x"]
    leaves = {x: torch.ones(4), view.bindings["y"]: torch.full((4,), 7.0)}
    (found,) = gradient(view.outputs[0], leaves, [x], torch.ones(4))
    known = [is_known(g) for g in found.flat]
    assert 0 < sum(known) < 4
    monkeypatch.undo()
    (found,) = gradient(view.outputs[0], leaves, [x], torch.ones(4))
    assert [float(g) for g in found.flat] == [1.0, 1.0, 1.0, 1.0]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Grows with every evaluation at a base point."""
    runs: list[object] = []
    interpret = gradients.interpret
    monkeypatch.setattr(gradients, "interpret", lambda *args: (runs.append(args), interpret(*args))[1])
    return runs


def test_a_result_that_no_precision_bounds_is_computed_once_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = counted(monkeypatch)
    view = parse("def graph(x: float32[8]):\n    return sub(exp(exp(exp(x))), exp(exp(exp(x))))")
    x = view.bindings["x"]
    (found,) = gradient(view.outputs[0], {x: torch.full((8,), 100.0)}, [x], torch.ones(8))
    assert not any(is_known(g) for g in found.flat)
    assert len(runs) <= 3


def test_a_tower_is_left_at_the_first_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """exp(exp(1e5)) has no digit at 10,000 bits, so none is looked for there."""
    runs = counted(monkeypatch)
    view = parse("def graph(x: float32[4]):\n    return sqrt(exp(exp(exp(x))))")
    x = view.bindings["x"]
    (found,) = gradient(view.outputs[0], {x: torch.full((4,), 12.0)}, [x], torch.ones(4))
    assert not any(is_known(g) for g in found.flat)
    assert len(runs) == 1


def test_work_is_not_carried_to_a_higher_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "_MOST_WORK", 512)
    view = parse("def graph(x: float32[8]):\n    return exp(x)")
    x = view.bindings["x"]
    (found,) = gradient(view.outputs[0], {x: torch.ones(8)}, [x], torch.ones(8))
    known = [is_known(g) for g in found.flat]
    assert 0 < sum(known) < 8

"""Families: deterministic, in range, and with the special rows that they promise."""

from __future__ import annotations

import pytest
import torch

from stabilize.formats import FORMATS
from stabilize.graph.text import parse
from stabilize.graph.view import View
from stabilize.verify.execute import execute, torch_dtype
from stabilize.verify.inputs import Family, families, index_bounds


def _leaves(view: View) -> list:  # type: ignore[type-arg]
    return [v for v in view.bindings.values() if v.op == "input"]


def _families(view: View, seed: int = 0) -> dict[str, Family]:
    return {f.name: f for f in families(view.outputs, _leaves(view), {}, seed)}


def _softmax(dtype: str) -> View:
    return parse(f"def graph(x: {dtype}[3, 5]):\n    e = exp(x)\n    return div(e, sum(e, axes=(1,), keepdim=True))")


@pytest.mark.parametrize("dtype", FORMATS)
def test_the_naive_form_breaks_where_it_should(dtype: str) -> None:
    view = _softmax(dtype)
    found = _families(view)
    results = {name: execute(view.outputs, family.tensors)[0] for name, family in found.items()}
    for name in ("benign", "wide", "masked", "tied", "unit", "near-zero", "subnormal"):
        assert bool(torch.isfinite(results[name]).all()), name
    for name in ("large-positive", "large-negative", "large-mixed", "all-masked", "plus-inf", "nan"):
        assert bool(torch.isnan(results[name]).any()), name
    assert bool(torch.isfinite(results["all-masked"][1:]).all())


@pytest.mark.parametrize("dtype", FORMATS)
def test_tensors_have_the_dtype_and_are_reproducible(dtype: str) -> None:
    view = _softmax(dtype)
    first, second, other = _families(view), _families(view), _families(view, seed=1)
    (leaf,) = _leaves(view)
    for name, family in first.items():
        assert family.tensors[leaf].dtype == torch_dtype(dtype)
        assert torch.equal(family.tensors[leaf].nan_to_num(7.0), second[name].tensors[leaf].nan_to_num(7.0))
    assert not torch.equal(first["benign"].tensors[leaf], other["benign"].tensors[leaf])


def test_indices_stay_in_range() -> None:
    view = parse(
        "def graph(x: float32[3, 5], y: int64[3], i: int64[3], j: int64[3], c: int64[3]):\n"
        "    g = gather(x, unsqueeze(y, axes=(1,)), axis=1)\n"
        "    h = cast(one_hot(i, classes=3), dtype='float32')\n"
        "    o = cast(eq(unsqueeze(j, axes=(1,)), arange(size=2, dtype='int64')), dtype='float32')\n"
        "    return g, h, o, cross_entropy(x, c, reduction='mean', ignore_index=-100, label_smoothing=0.0)"
    )
    names = {name: view.bindings[name] for name in "yijc"}
    bounds = index_bounds(view.outputs, _leaves(view))
    assert {name: bounds[v] for name, v in names.items()} == {"y": 5, "i": 3, "j": 2, "c": 5}
    for family in _families(view).values():
        execute(view.outputs, family.tensors)
        assert all(int(family.tensors[v].max()) < bounds[v] for v in names.values())


def test_scores_are_masked_and_factors_are_not() -> None:
    view = parse(
        "def graph(q: float32[3, 4], k: float32[4, 5], b: float32[3, 5], w: float32[3, 5]):\n"
        "    return mul(exp(add(mul(matmul(q, k), 0.5), b)), w)"
    )
    masked = _families(view)["masked"].tensors
    infinite = {name: bool(torch.isinf(masked[view.bindings[name]]).any()) for name in "qkbw"}
    assert infinite == {"q": False, "k": False, "b": True, "w": False}
    assert set(masked[view.bindings["w"]].flatten().tolist()) == {0.0, 1.0}


def test_masked_entries_that_lead() -> None:
    view = parse("def graph(x: float32[3, 5], m: bool[3, 5]):\n    return where(m, exp(x), 0.0)")
    peak = _families(view)["masked-peak"].tensors
    x, m = peak[view.bindings["x"]], peak[view.bindings["m"]]
    assert bool((x[:, :1] > x[:, 1:] + 104).all())  # exp of the gap is 0
    assert not bool(m[:, 0].any())
    assert bool(m[:, 1].all())
    assert bool((torch.exp(x) > 0).all())


def test_masks_of_whole_rows() -> None:
    view = parse("def graph(x: float32[3, 5], m: bool[3, 5]):\n    return where(m, exp(x), 0.0)")
    rows = _families(view)["all-masked"].tensors[view.bindings["m"]]
    assert not bool(rows[0].any())
    assert bool(rows[1].all())


@pytest.mark.parametrize("shape", ["()", "1", "0", "0, 3", "3, 0", "1, 1", "2, 3, 4"])
def test_odd_shapes(shape: str) -> None:
    view = parse(f"def graph(x: float32[{shape}], m: bool[{shape}]):\n    return where(m, exp(x), 0.0)")
    for family in _families(view).values():
        assert execute(view.outputs, family.tensors)[0].shape == family.tensors[view.bindings["x"]].shape


def test_given_data_is_kept() -> None:
    view = parse("def graph(x: float32[3, 5], w: float32[5]):\n    return exp(mul(x, w))")
    weights = torch.arange(5.0)
    for family in families(view.outputs, _leaves(view), {view.bindings["w"]: weights}, 0):
        assert torch.equal(family.tensors[view.bindings["w"]], weights)

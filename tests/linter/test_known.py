"""What is known of numbers before a model runs: bounds that hold for every number in the ranges, and no others."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from stabilize.api import open_host
from stabilize.errors import UsageError
from stabilize.graph.host import Host
from stabilize.linter.known import TensorNumbers, Weights, ranges_of
from stabilize.passes.propose import context
from stabilize.passes.rule import Options
from tests.passes.graphs import graph

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_settings = settings(max_examples=60, deadline=None, derandomize=True)

_shapes = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 3))
_spreads = st.sampled_from((1e-6, 1.0, 30.0, 1e4))
_ends = st.floats(-1e6, 1e6, allow_nan=False)


def _drawn(shape: tuple[int, ...], dtype: torch.dtype, spread: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(shape, generator=generator, dtype=torch.float64) * spread
    return w.clamp(-6e4, 6e4).to(dtype)


def _exact(w: Tensor) -> np.ndarray:
    """Longer floats than float64, so that the sums here are more exact than what is judged."""
    return w.double().numpy().astype(np.longdouble)


@_settings
@given(_shapes, st.sampled_from(_DTYPES), _spreads, st.integers(0, 99))
def test_bounds_are_the_least_and_the_largest(
    shape: tuple[int, ...], dtype: torch.dtype, spread: float, seed: int
) -> None:
    w = _drawn(shape, dtype, spread, seed)
    low, high = TensorNumbers(w).bounds()
    assert (low, high) == (float(w.double().min()), float(w.double().max()))


@_settings
@given(_shapes, st.integers(-3, 2), st.sampled_from(_DTYPES), _spreads, st.integers(0, 99), st.tuples(_ends, _ends))
def test_combinations_of_bounded_numbers_are_inside(
    shape: tuple[int, ...], axis: int, dtype: torch.dtype, spread: float, seed: int, ends: tuple[float, float]
) -> None:
    """Random x in the range, and the corners that make a sum the largest and the smallest."""
    w = _drawn(shape, dtype, spread, seed)
    lo, hi = sorted(ends)
    low, high = TensorNumbers(w).combined(lo, hi, axis)
    wide = _exact(w)
    share = np.random.default_rng(seed).random((8, *shape)).astype(np.longdouble)
    corners = [np.where(wide > 0, hi, lo), np.where(wide > 0, lo, hi)]
    inside = np.clip(lo + share * (np.longdouble(hi) - lo), lo, hi)
    for x in (*inside, *corners, np.full(shape, lo), np.full(shape, hi)):
        total = (wide * x).sum(axis)
        assert low <= total.min()
        assert total.max() <= high
    # and they are tight: the corners reach them
    largest = np.abs(wide).sum(axis).max() * max(abs(lo), abs(hi))
    assert (wide * corners[0]).sum(axis).max() >= high - largest * 1e-13
    assert (wide * corners[1]).sum(axis).min() <= low + largest * 1e-13


@_settings
@given(_shapes, st.integers(-3, 2), st.sampled_from(_DTYPES), _spreads, st.integers(0, 99))
def test_lengths_are_not_exceeded(
    shape: tuple[int, ...], axis: int, dtype: torch.dtype, spread: float, seed: int
) -> None:
    w = _drawn(shape, dtype, spread, seed)
    longest = TensorNumbers(w).longest(axis)
    exact = np.sqrt((_exact(w) ** 2).sum(axis)).max()
    assert exact <= longest <= exact * (1 + 1e-13) + 1e-300


def test_one_channel_of_large_weights_does_not_count_for_the_others() -> None:
    w = torch.tensor([[1.0, 100.0], [-1.0, 100.0]])
    assert TensorNumbers(w).combined(-1.0, 1.0, 1) == pytest.approx((-101.0, 101.0))
    assert TensorNumbers(w).combined(-1.0, 1.0, 0) == pytest.approx((-200.0, 200.0))
    assert TensorNumbers(w).combined(0.0, 1.0, 0) == pytest.approx((-1.0, 200.0))
    assert TensorNumbers(w).longest(0) == pytest.approx(math.sqrt(2) * 100)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_nothing_is_known_of_a_weight_that_is_not_finite(odd: float) -> None:
    numbers = TensorNumbers(torch.tensor([[1.0, odd], [2.0, 3.0]]))
    assert numbers.bounds() == (-math.inf, math.inf)
    assert numbers.combined(-1.0, 1.0, 0) == (-math.inf, math.inf)
    assert numbers.longest(0) == math.inf


def test_rows_normalised_together_may_be_longer_than_one_of_them() -> None:
    """Σ of 20 squares is 20; one row may hold nearly all of it."""
    bounds: list[float] = []
    for axis in (1, 0):
        view = graph(f"matmul(layer_norm(x, axis={axis}, epsilon=0.0), T)")
        known = {view.bindings["T"]: TensorNumbers(torch.tensor([[0.5], [-0.5], [0.5], [-0.5], [0.5]]).expand(5, 3))}
        bounds.append(context(view, Options(hazards=True), {}, known.get).ranges.of(view.outputs[0]).hi)
    assert bounds[0] == pytest.approx(math.sqrt(5 * 1.25))
    row = torch.tensor([[1.0, -1.0, 1.0, -1.0, 1.0]] + [[0.0] * 5] * 3)
    reached = torch.nn.functional.layer_norm(row, (4, 5), eps=0.0)[0] @ torch.tensor([0.5, -0.5, 0.5, -0.5, 0.5])
    assert bounds[1] >= float(reached) > bounds[0]


@pytest.mark.parametrize(
    ("body", "bounds"),
    [
        ("matmul(x, T)", (0.0, 25 * 0.75)),
        ("matmul(cast(x, dtype='float64'), cast(T, dtype='float64'))", (0.0, 25 * 0.75)),
        ("matmul(x, detach(T))", (0.0, 25 * 0.75)),
        ("matmul(transpose(T, perm=(1, 0)), transpose(x, perm=(1, 0)))", (0.0, 25 * 0.75)),
        ("matmul(x, cast(cast(T, dtype='int64'), dtype='float32'))", (-math.inf, math.inf)),  # 0
        ("matmul(x, cast(cast(T, dtype='bool'), dtype='float32'))", (0.0, 25.0)),  # 1
    ],
)
def test_weights_are_seen_through_what_keeps_their_numbers(body: str, bounds: tuple[float, float]) -> None:
    view = graph(body)
    known = {view.bindings["T"]: TensorNumbers(torch.full((5, 3), 0.75))}
    r = context(view, Options(hazards=True), {"x": (0.0, 5.0)}, known.get).ranges.of(view.outputs[0])
    assert (r.lo, r.hi) == pytest.approx(bounds)


# --- which leaves are known -----------------------------------------------------------------------------------------


class _Layer(nn.Module):
    mask: Tensor
    scale: Tensor
    empty: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.trained = nn.Parameter(torch.full((3,), 2.0))
        self.frozen = nn.Parameter(torch.full((3,), 4.0), requires_grad=False)
        self.register_buffer("scale", torch.full((3,), 8.0))
        self.register_buffer("mask", torch.ones(3, dtype=torch.int64))
        self.register_buffer("empty", torch.zeros(0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.trained * self.frozen * self.scale * self.mask + self.empty.sum()


def _known(host: Host) -> Mapping[str, tuple[float, float] | None]:
    weights = Weights(host)
    leaves = {str(v.attr("name")): v for v in host.view.bindings.values() if v.op == "input"}
    found = {name: weights.numbers(leaf) for name, leaf in leaves.items()}
    return {name: None if numbers is None else numbers.bounds() for name, numbers in found.items()}


def test_what_trains_is_unknown_and_what_stays_is_known() -> None:
    known = _known(open_host(_Layer(), torch.ones(3), None))
    assert {name.rpartition("_")[2]: bounds for name, bounds in known.items()} == {
        "trained": None,
        "frozen": (4.0, 4.0),
        "scale": (8.0, 8.0),
        "mask": None,  # no floats
        "empty": None,  # no numbers
        "x": None,
    }
    module = _Layer().requires_grad_(False)
    (trained,) = (b for n, b in _known(open_host(module, torch.ones(3), None)).items() if n.endswith("trained"))
    assert trained == (2.0, 2.0)


def test_numbers_are_of_a_leaf_and_read_once() -> None:
    host = open_host(_Layer(), torch.ones(3), None)
    weights = Weights(host)
    (leaf,) = (v for n, v in host.view.bindings.items() if n.endswith("scale"))
    assert weights.numbers(leaf) is weights.numbers(leaf)
    (output,) = host.view.outputs
    assert weights.numbers(output) is None
    assert weights.tensor(output) is None


@pytest.mark.parametrize("kind", ["FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE"])
def test_initializers_are_known(kind: str) -> None:
    data_type = getattr(TensorProto, kind)
    w = helper.make_tensor("w", data_type, [2], [0.5, -3.0])
    nodes = [helper.make_node("Mul", ["x", "w"], ["y"])]
    ends = [helper.make_tensor_value_info(n, data_type, [2]) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [w])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    assert _known(open_host(model, None, None)) == {"x": None, "w": (-3.0, 0.5)}


def test_a_default_that_a_caller_may_change_is_no_weight() -> None:
    """An initializer that is an input as well, as opset 3 made them all."""
    w = numpy_helper.from_array(np.array([1, 2], np.float32), "w")
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in ("x", "w", "y")]
    graph = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["y"])], "g", ends[:2], ends[2:], [w])
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    assert _known(open_host(model, None, None)) == {"x": None, "w": None}


# --- ranges of data -------------------------------------------------------------------------------------------------


def test_ranges_of_data() -> None:
    data = {
        "x": torch.tensor([[1.0, -2.0], [0.0, 3.0]]),
        "h": torch.tensor([0.1], dtype=torch.float16),
        "b": torch.tensor([1.5], dtype=torch.bfloat16),
        "i": torch.tensor([1, 2]),
        "m": torch.tensor([True]),
        "inf": torch.tensor([1.0, -torch.inf]),
    }
    tenth = float(torch.tensor(0.1).half())
    assert ranges_of(data) == {"x": (-2.0, 3.0), "h": (tenth, tenth), "b": (1.5, 1.5), "inf": (-math.inf, 1.0)}


@pytest.mark.parametrize(("tensor", "said"), [(torch.tensor([1.0, torch.nan]), "NaN"), (torch.ones(0), "no numbers")])
def test_data_without_a_range(tensor: Tensor, said: str) -> None:
    with pytest.raises(UsageError, match=f"input data 'x' holds {said}: no range is known"):
        ranges_of({"x": tensor})

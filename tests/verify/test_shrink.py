"""Rewrites on small shapes: dimensions stay consistent, sizes that matter stay, the rest is refused."""

from __future__ import annotations

import pytest
import torch

from stabilize.graph.text import show
from stabilize.graph.value import Dim, cone
from stabilize.verify.execute import execute
from stabilize.verify.shrink import Problem, full_size, shrink, widen
from stabilize.verify.slice import cut
from tests.verify.rewrites import rewrite


def _shrunk(before: str, after: str, inputs: str) -> Problem | None:
    old, new = rewrite(before, after, inputs=inputs)
    return shrink(old, new, cut(old, new), {})


def _shapes(problem: Problem | None) -> list[tuple[Dim, ...]]:
    assert problem is not None
    return [leaf.shape for leaf in problem.leaves]


def _runs(problem: Problem) -> None:
    """The small expressions execute and have one shape."""
    tensors = {
        leaf: torch.zeros([int(d) for d in leaf.shape], dtype=torch.int64 if leaf.dtype == "int64" else torch.float32)
        for leaf in problem.leaves
    }
    old, new = execute([problem.old, problem.new], tensors)
    assert old.shape == new.shape


SOFTMAX = ("e = exp(x)\ndiv(e, sum(e, axes=(1,), keepdim=True))", "softmax(x, axis=1)")


def test_small_shapes_are_left_alone() -> None:
    problem = _shrunk(*SOFTMAX, "x: float32[4, 6]")
    assert _shapes(problem) == [(4, 6)]
    assert problem is not None
    assert not problem.shrunk


def test_large_and_symbolic_dimensions_become_small_and_different() -> None:
    for inputs in ("x: float32[n, 50257]", "x: float32[1024, 1025]", "x: float32[n, 1000]"):
        problem = _shrunk(*SOFTMAX, inputs)
        (shape,) = _shapes(problem)
        assert len(set(shape)) == 2
        assert all(isinstance(d, int) and 2 <= d <= 7 for d in shape)


def test_a_square_matrix_stays_square_and_a_wrong_axis_stays_wrong() -> None:
    problem = _shrunk(
        "e = exp(x)\ndiv(e, sum(e, axes=(1,), keepdim=False))", "softmax(x, axis=1)", "x: float32[512, 512]"
    )
    (shape,) = _shapes(problem)
    assert shape[0] == shape[1]


def test_sizes_follow_through_reshape_slice_and_concat() -> None:
    for before, after, inputs in (
        ("r = reshape(x, shape=(1024, 50257))\nlog(softmax(r, axis=1))", "log_softmax(r, axis=1)",
         "x: float32[8, 128, 50257]"),
        ("r = slice(x, axis=1, start=0, stop=127, step=1)\nt = slice(y, axis=1, start=1, stop=128, step=1)\n"
         "neg(log(squeeze(gather(softmax(r, axis=2), unsqueeze(t, axes=(2,)), axis=2), axes=(2,))))",
         "cross_entropy(transpose(r, perm=(0, 2, 1)), t, reduction='none', ignore_index=-100, label_smoothing=0.0)",
         "x: float32[8, 128, 50257], y: int64[8, 128]"),
        ("c = concat(x, z, axis=1)\nlog(sum(exp(c), axes=(1,), keepdim=True))",
         "logsumexp(c, axes=(1,), keepdim=True)", "x: float32[64, 100], z: float32[64, 28]"),
        ("o = cast(one_hot(y, classes=1000), dtype='float32')\nneg(sum(mul(o, log(softmax(x, axis=1))), axes=(1,), "
         "keepdim=False))", "cross_entropy(x, y, reduction='none', ignore_index=-100, label_smoothing=0.0)",
         "x: float32[64, 1000], y: int64[64]"),
    ):  # fmt: skip
        problem = _shrunk(before, after, inputs)
        assert problem is not None
        assert problem.shrunk
        assert max(int(d) for v in cone([problem.old, problem.new]) for d in v.shape) <= 40
        _runs(problem)


def test_a_size_that_only_one_side_divides_by_stays() -> None:
    problem = _shrunk(
        "log(mean(exp(x), axes=(1,), keepdim=True))",
        "sub(logsumexp(x, axes=(1,), keepdim=True), 6.907755278982137)",
        "x: float32[2048, 1000]",
    )
    (shape,) = _shapes(problem)
    assert shape[1] == 1000
    assert int(shape[0]) < 10
    # a mean on both sides may shrink
    both = _shrunk(
        "mean(log(softmax(x, axis=1)), axes=(1,), keepdim=True)",
        "mean(log_softmax(x, axis=1), axes=(1,), keepdim=True)",
        "x: float32[2048, 1000]",
    )
    assert max(int(d) for d in _shapes(both)[0]) < 10


def test_what_cannot_be_followed_is_refused() -> None:
    before, after = "r = reshape(x, shape=(96, 128))\nlog(softmax(r, axis=1))", "log_softmax(r, axis=1)"
    assert _shrunk(before + "", after, "x: float32[12288]") is not None  # the reshape is above the cut
    old, new = rewrite(
        "t = exp(x)\nr = reshape(t, shape=(96, 128))\ndiv(r, sum(r, axes=(1,), keepdim=True))",
        "softmax(reshape(x, shape=(96, 128)), axis=1)",
        inputs="x: float32[64, 192]",
    )
    assert shrink(old, new, cut(old, new), {}) is None
    whole = full_size(old, new, cut(old, new), {})
    assert whole is not None
    assert whole.leaves[0].shape == (64, 192)


def test_data_is_cut_to_size() -> None:
    old, new = rewrite("exp(add(log(w), x))", "mul(exp(x), w)", inputs="x: float32[1000, 300], w: float32[300]")
    leaves = cut(old, new)
    weights = torch.arange(300.0)
    problem = shrink(old, new, leaves, {leaves[1]: weights})
    assert problem is not None
    (data,) = problem.data.values()
    assert torch.equal(data, weights[: len(data)])
    assert len(data) < 10


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_widened_expressions_compute_in_float64(dtype: str) -> None:
    old, new = rewrite("cast(exp(cast(x, dtype='float32')), dtype='FLOAT')", "exp(x)", dtype)
    problem = shrink(old, new, cut(old, new), {})
    assert problem is not None
    wide = widen(problem)
    assert {v.dtype for v in cone([wide.old, wide.new])} == {"float64"}
    x = torch.full((4, 5), 20.0, dtype=torch.float64)
    assert float(execute([wide.old], {wide.leaves[0]: x})[0][0, 0]) == float(torch.exp(x)[0, 0])


def test_equal_problems_have_equal_texts() -> None:
    inputs = "a: float32[512, 512], b: float32[512, 512], x: float32[512, 512], z: float32[512, 512]"
    texts = set[str]()
    for name in ("a", "x", "z"):
        old, new = rewrite(f"e = exp({name})\ndiv(e, sum(e, axes=(1,), keepdim=True))", f"softmax({name}, axis=1)",
                           inputs=inputs)  # fmt: skip
        problem = shrink(old, new, cut(old, new), {})
        assert problem is not None
        texts.add(show([problem.old, problem.new]))
    assert len(texts) == 1


def test_a_mean_over_two_equal_sides_is_a_mean_over_their_product() -> None:
    """Both divide by 256, one as 16·16: the sides are no sizes that only one of the two divides by."""
    problem = _shrunk(
        "mean(exp(x), axes=(1, 2), keepdim=False)",
        "mean(exp(reshape(x, shape=(4, 256))), axes=(1,), keepdim=False)",
        "x: float32[4, 16, 16]",
    )
    assert max(int(d) for d in _shapes(problem)[0]) < 16

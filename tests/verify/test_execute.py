"""The torch interpretation: complete, in the value's own dtype, constants as PyTorch treats Python numbers."""

from __future__ import annotations

import pytest
import torch

from stabilize.errors import UsageError
from stabilize.graph.ops import VOCABULARY
from stabilize.graph.text import parse
from stabilize.verify.execute import EXECUTE, execute, torch_dtype
from tests.verify.examples import EXAMPLES, example, numbers


def test_every_primitive_is_executed_and_has_an_example() -> None:
    assert set(EXECUTE) == set(VOCABULARY) == set(EXAMPLES)


@pytest.mark.parametrize("primitive", sorted(EXAMPLES))
def test_result_has_the_inferred_type(primitive: str) -> None:
    view = example(primitive)
    (result,) = execute(view.outputs, numbers(view))
    assert tuple(result.shape) == view.outputs[0].shape
    assert result.dtype == torch_dtype(view.outputs[0].dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_constants_act_like_python_numbers(dtype: str) -> None:
    view = parse(f"def graph(x: {dtype}[64]):\n    return mul(x, 0.1), sub(1.0, x), div(0.3, x), pow(2.0, x)")
    x = torch.linspace(0.1, 3, 64, dtype=torch_dtype(dtype))
    expected = (x * 0.1, 1.0 - x, 0.3 / x, 2.0**x)
    for got, want in zip(execute(view.outputs, {view.bindings["x"]: x}), expected, strict=True):
        assert torch.equal(got, want)
    # rounding the constant to the format first gives other numbers: the distinction is real
    assert not torch.equal(x * 0.1, x * torch.tensor(0.1, dtype=x.dtype))


def test_a_constant_that_widens_the_result_is_a_tensor() -> None:
    view = parse("def graph(x: float32[3]):\n    return add(x, constant(value=1.0, dtype='float32', shape=(2, 3)))")
    (result,) = execute(view.outputs, {view.bindings["x"]: torch.zeros(3)})
    assert torch.equal(result, torch.ones(2, 3))


def test_symbols_are_read_off_the_leaves() -> None:
    view = parse("def graph(x: float32[n, 3]):\n    return expand(sum(x, axes=(0,), keepdim=True), shape=('n', 3))")
    (result,) = execute(view.outputs, {view.bindings["x"]: torch.ones(5, 3)})
    assert torch.equal(result, torch.full((5, 3), 5.0))


def test_a_tensor_of_the_wrong_shape_is_refused() -> None:
    view = parse("def graph(x: float32[n, n]):\n    return exp(x)")
    with pytest.raises(UsageError, match="n is 2"):
        execute(view.outputs, {view.bindings["x"]: torch.ones(2, 3)})


def test_a_missing_leaf_is_named() -> None:
    view = parse("def graph(x: float32[2], z: float32[2]):\n    return add(x, z)")
    with pytest.raises(UsageError, match="name=z"):
        execute(view.outputs, {view.bindings["x"]: torch.ones(2)})


def test_evaluation_stops_at_leaves_and_is_differentiable() -> None:
    view = parse("def graph(x: float32[2]):\n    e = exp(x)\n    return mul(e, e)")
    leaf = view.outputs[0].operands[0]
    tensor = torch.tensor([2.0, 3.0], requires_grad=True)
    (result,) = execute(view.outputs, {leaf: tensor})
    result.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.equal(result.detach(), torch.tensor([4.0, 9.0]))
    assert tensor.grad is not None
    assert torch.equal(tensor.grad, torch.tensor([4.0, 6.0]))


def test_reductions_over_no_axes_keep_every_element() -> None:
    view = parse(
        "def graph(x: float32[2, 2]):\n    return sum(x, axes=(), keepdim=True), max(x, axes=(), keepdim=False)"
    )
    x = torch.arange(4.0).reshape(2, 2)
    assert all(torch.equal(r, x) for r in execute(view.outputs, {view.bindings["x"]: x}))


def test_deep_graphs_do_not_recurse() -> None:
    lines = "\n".join(f"    x = add(x, {i}.0)" for i in range(3000))
    view = parse(f"def graph(x: float64[1]):\n{lines}\n    return x")
    leaf = next(v for v in view.builder.graph if v.op == "input")
    (result,) = execute(view.outputs, {leaf: torch.zeros(1, dtype=torch.float64)})
    assert result.item() == 3000 * 2999 / 2


def test_integer_division_truncates() -> None:
    view = parse("def graph(i: int64[2]):\n    return div(i, 2)")
    (result,) = execute(view.outputs, {view.bindings["i"]: torch.tensor([-3, 3])})
    assert result.tolist() == [-1, 1]

"""What must hold on any graph: rewrites are right, repeatable and complete, and stable graphs are left alone.

Graphs are random (`tests.strategies`). Truth is the oracle: the original formula in arbitrary precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, example, given, reject, settings
from hypothesis import strategies as st
from torch import nn

import stabilize
from stabilize.errors import ModelError
from stabilize.formats import FORMATS
from stabilize.graph.build import Builder
from stabilize.graph.text import parse, show
from stabilize.graph.value import Value, cone
from stabilize.graph.view import View
from stabilize.linter.known import TensorNumbers
from stabilize.passes.propose import context, proposals
from stabilize.passes.ranges import Ranges
from stabilize.passes.rule import Options, Proposal
from stabilize.verify.certificate import certify_rewrite
from stabilize.verify.compare import Floats, errors_of
from stabilize.verify.execute import execute, torch_dtype
from stabilize.verify.oracle import evaluate_cone
from stabilize.verify.running import Scales, analyse
from tests.frontends.onnx_support import program, run
from tests.strategies import NAIVE_STEPS, PRODUCTS, STABLE_STEPS, STEPS, graphs, rebuild

#: Longest sum that the drawn graphs hold (a concatenation of a few axes of size 4).
LONGEST: Final = 16

OPTIONS = st.builds(
    Options,
    form=st.sampled_from(("softmax", "collapse-free")),
    allow=st.sampled_from(("exact", "approximate")),
    host=st.sampled_from(("fx", "onnx")),
)


def examples(count: int) -> settings:
    """The same examples every time, each as long as it takes; a failure is shown as the smallest graph."""
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
    )


# --- running the rules ------------------------------------------------------------------------------------------


def first(proposal: Proposal) -> Value | None:
    """Accept everything."""
    return proposal.candidates[0] if proposal.candidates else None


def certified(proposal: Proposal) -> Value | None:
    """Accept what its certificate accepts."""
    return next((c for c in proposal.candidates if certify_rewrite(proposal.old, c).accepted), None)


def rewritten(
    view: View, accept: Callable[[Proposal], Value | None], options: Options | None = None
) -> tuple[tuple[Value, ...], dict[Value, Value]]:
    """(the outputs with every accepted replacement in place, the replacements)."""
    replaced = proposals(view, context(view, options or Options()), accept)
    made: dict[Value, Value] = {}

    def computed(value: Value) -> Value:
        if value not in made:
            new = replaced.get(value, value)
            if new is not value and new in replaced:
                made[value] = computed(new)
            else:
                operands = [computed(o) for o in new.operands]
                same = all(a is b for a, b in zip(operands, new.operands, strict=True))
                made[value] = new if same else view.builder.make(new.op, *operands, **dict(new.attrs))
        return made[value]

    return tuple(computed(v) for v in view.outputs), replaced


def on_its_own(outputs: Sequence[Value]) -> View:
    """The same expressions as a graph that a host computes value by value."""
    builder = Builder()
    leaves = {v: builder.input(str(v.attr("name")), v.type) for v in inputs_of(outputs)}
    again = tuple(rebuild(builder, outputs, leaves))
    bindings = {f"v{v.index}": v for v in cone(again) if v.op != "constant"}
    return View(builder, bindings, again)


def inputs_of(outputs: Sequence[Value]) -> list[Value]:
    return [v for v in cone(outputs) if v.op == "input"]


def is_continuous(view: View) -> bool:
    """Whether no comparison decides by a computed value, which may be off by a rounding on the wrong side."""
    deciding = [v for v in cone(view.outputs) if v.op in ("gt", "le", "ne", "sign")]
    return all(v.operands[0].op in ("input", "constant") for v in deciding)


# --- truth ------------------------------------------------------------------------------------------------------


def drawn(leaves: Sequence[Value], spread: str, seed: int) -> dict[Value, torch.Tensor]:
    """Tensors for the inputs: "benign", "wide" (to where exp is about to overflow) or "large" (beyond that)."""
    generator = torch.Generator().manual_seed(seed)
    result: dict[Value, torch.Tensor] = {}
    for leaf in leaves:
        shape = [d for d in leaf.shape if isinstance(d, int)]
        if leaf.dtype == "int64":
            result[leaf] = torch.zeros(shape, dtype=torch.int64)
            continue
        fmt = FORMATS[leaf.dtype]
        scale = {"benign": 1.0, "wide": 0.3 * fmt.exp_overflow, "large": 2.0 * fmt.exp_overflow}[spread]
        numbers = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
        result[leaf] = numbers.to(torch_dtype(leaf.dtype))
    return result


def truth_and_bound(output: Value, leaves: Mapping[Value, torch.Tensor]) -> tuple[np.ndarray, Floats]:
    """The exact result and what a rewritten graph may be off by.

    A rewrite may be off by K = n + 16 + 2·R·u_s/u roundings (`stabilize.verify.judge`) where each operation of the
    original is off by one; errors reach the output through the same derivatives, so K times the running error bound
    of the original bounds the error of the rewritten graph.
    """
    fmt = FORMATS[output.dtype]
    (exact,), arrays = evaluate_cone([output], leaves, digits=24, floor=fmt.emin - fmt.precision - 60, max_bits=2**13)
    assume(all(v.index in arrays for v in cone([output], leaves)))
    term = analyse(output, leaves, arrays, {}, fmt).term
    k = LONGEST + 16 + 2 * Scales.of(fmt).exponent_unit * Scales.of(fmt).reach
    size = np.maximum(np.abs(term.v.numpy()), fmt.min_normal)
    # PyTorch's sigmoid and matrix products give 0 for a subnormal result (but not in float16)
    flushed = 0.0 if output.dtype == "float16" else fmt.min_normal
    return exact, np.asarray((k + 1) * fmt.u * (term.error.numpy() + size) + 2 * fmt.tiny + flushed)


def harm(before: torch.Tensor, after: torch.Tensor, exact: np.ndarray, allowed: Floats) -> np.ndarray:
    """Elements at which the original was finite and right, and the rewritten graph is not."""
    old, new = errors_of(before, exact), errors_of(after, exact)
    with np.errstate(all="ignore"):
        right = old.known & np.isfinite(old.absolute) & (old.absolute <= allowed)
        return np.asarray(right & ~(new.absolute <= np.maximum(allowed, 2 * old.absolute)))


def assert_no_harm(
    outputs: Sequence[Value], before: Sequence[torch.Tensor], after: Sequence[torch.Tensor],
    leaves: Mapping[Value, torch.Tensor], told: str,
) -> None:  # fmt: skip
    for output, was, now in zip(outputs, before, after, strict=True):
        assert was.shape == now.shape
        assert was.dtype == now.dtype
        if output.op == "input":
            assert torch.equal(was.nan_to_num(), now.nan_to_num())
            continue
        exact, allowed = truth_and_bound(output, leaves)
        bad = harm(was, now, exact, allowed)
        where = np.argwhere(bad)[:1].tolist()
        assert not bad.any(), f"{told}\nat {where}: {was}\nbecame {now}\nwhere {exact} is right"


#: A value that cancels, x − x, is no larger than the exponents beside it.
CANCELLING: Final = """
def graph(x: float32[3, 4], column: float32[3, 1]):
    e = exp(neg(mul(column, 9.5367431640625e-07)))
    return sub(x, x), div(e, add(sum(e, axes=(0,), keepdim=True), 9.5367431640625e-07))
"""

# --- properties ---------------------------------------------------------------------------------------------------


@examples(800)
@example(text=CANCELLING, options=Options())
@given(text=graphs(), options=OPTIONS)
def test_no_graph_breaks_the_rules(text: str, options: Options) -> None:
    view = parse(text)
    outputs, replaced = rewritten(view, first, options)
    assert [v.type for v in outputs] == [v.type for v in view.outputs]
    assert all(old.type == new.type for old, new in replaced.items())


@examples(250)
@given(text=graphs())
def test_the_same_graph_gives_the_same_text(text: str) -> None:
    one, other = parse(text), parse(text)
    assert show(one.outputs) == text
    assert show(rewritten(one, first)[0]) == show(rewritten(other, first)[0])


@examples(400)
@given(text=graphs())
def test_a_second_run_finds_nothing(text: str) -> None:
    outputs, _ = rewritten(parse(text), first)
    twice, more = rewritten(on_its_own(outputs), first)
    assert not more, f"{show(outputs)}\nand then {show(twice)}"


@examples(400)
@given(text=graphs(STABLE_STEPS))
def test_stable_graphs_are_left_alone(text: str) -> None:
    view = parse(text)
    outputs, replaced = rewritten(view, first)
    assert not replaced, show(outputs)
    assert outputs == view.outputs


@examples(250)
@given(text=graphs(), spread=st.sampled_from(("benign", "wide", "large")), seed=st.integers(0, 999))
def test_accepted_rewrites_are_right(text: str, spread: str, seed: int) -> None:
    view = parse(text)
    outputs, replaced = rewritten(view, certified)
    assume(replaced and is_continuous(view))
    leaves = drawn(inputs_of(view.outputs), spread, seed)
    before, after = execute(view.outputs, leaves), execute(outputs, leaves)
    assert_no_harm(view.outputs, before, after, leaves, show(outputs))


@examples(300)
@given(text=graphs(dtypes=("float64",)), seed=st.integers(0, 999))
def test_every_proposal_is_an_identity_over_the_reals(text: str, seed: int) -> None:
    """Both graphs in arbitrary precision: what a certificate would decline must not be proposed as exact either."""
    view = parse(text)
    outputs, replaced = rewritten(view, first)
    assume(replaced and is_continuous(view))
    assume(all(0 not in v.shape for v in cone(view.outputs)))  # no elements have no maximum to shift by
    leaves = drawn(inputs_of(view.outputs), "benign", seed)
    before, after = (
        evaluate_cone(v, leaves, digits=24, floor=-1140, max_bits=2**13)[0] for v in (view.outputs, outputs)
    )
    for was, now in zip(before, after, strict=True):
        for a, b in zip(map(float, was.flat), map(float, now.flat), strict=True):
            # a logarithm of a constant is rounded to float64
            assert not math.isfinite(a) or abs(a - b) <= 1e-9 * max(abs(a), 1e-9), f"{a} became {b}: {show(outputs)}"


@examples(400)
@given(text=graphs(dtypes=("float64",)), spread=st.sampled_from(("benign", "large")), seed=st.integers(0, 999))
def test_ranges_hold_the_values(text: str, spread: str, seed: int) -> None:
    """Bounds over the reals, with room for the rounding of the bounds themselves."""
    view = parse(text)
    assert_inside(context(view, Options()).ranges, view, drawn(inputs_of(view.outputs), spread, seed))


WEIGHTS: Final = (0.01, 1.0, 30.0)
"""Sizes of weights whose numbers are known."""


@examples(300)
@given(
    text=graphs(steps=(*STEPS, *PRODUCTS), dtypes=("float64",), shapes=((3, 4), (3, 1), (1, 4))),
    ends=st.tuples(st.floats(-100, 100), st.floats(-100, 100)),
    size=st.sampled_from(WEIGHTS),
    seed=st.integers(0, 999),
)
def test_ranges_hold_the_values_of_given_inputs_and_known_weights(
    text: str, ends: tuple[float, float], size: float, seed: int
) -> None:
    """x and the column are between two numbers, z and the row are weights that are known."""
    view = parse(text)
    low, high = sorted(ends)
    generator = torch.Generator().manual_seed(seed)
    leaves = drawn(inputs_of(view.outputs), "benign", seed)
    weights: dict[Value, torch.Tensor] = {}
    for leaf, tensor in leaves.items():
        if str(leaf.attr("name")) in ("z", "row"):
            leaves[leaf] = weights[leaf] = tensor * size
        elif tensor.is_floating_point():
            share = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
            corner = (share > 0.5).to(tensor.dtype)  # half of the time the ends themselves
            leaves[leaf] = (low + (share if seed % 2 else corner) * (high - low)).clamp(low, high)
    known = {leaf: TensorNumbers(tensor) for leaf, tensor in weights.items()}
    ranges = context(view, Options(), {"x": (low, high), "column": (low, high)}, known.get).ranges
    assert_inside(ranges, view, leaves)


def assert_inside(ranges: Ranges, view: View, leaves: Mapping[Value, torch.Tensor]) -> None:
    """Bounds over the reals, with room for the rounding of the bounds themselves."""
    values = [v for v in cone(view.outputs) if v.dtype == "float64"]
    exact, _ = evaluate_cone(values, leaves, digits=24, floor=-1140, max_bits=2**13)
    for value, array in zip(values, exact, strict=True):
        r = ranges.of(value)
        for number in map(float, array.flat):
            room = 1e-12 * (1.0 + abs(number))
            assert not math.isfinite(number) or r.lo - room <= number <= r.hi + room, f"{number} outside {r}: {value}"


# --- particular graphs ----------------------------------------------------------------------------------------------

#: Graphs that raised once.
RAISING: Final = {
    "a log-softmax that is transposed, not picked from": """
def graph(y: float32[4, 4]):
    return sqrt(sigmoid(sqrt(transpose(softmax(y, axis=1), perm=(1, 0)))))
""",
    "a sum of no elements is 0, and an interval is divided by it": """
def graph(x: float32[3, 0]):
    e = exp(sigmoid(x))
    return div(e, sum(e, axes=(1,), keepdim=True))
""",
    "two terms with one exponent, of which one was computed in a wider format": """
def graph(x: float16[4]):
    wide = cast(x, dtype='float32')
    return sub(cast(mul(wide, sigmoid(wide)), dtype='float16'), sigmoid(x))
""",
}


@pytest.mark.parametrize("text", RAISING.values(), ids=list(RAISING))
def test_graphs_that_raised(text: str) -> None:
    rewritten(parse(text), first)


# --- whole models ---------------------------------------------------------------------------------------------------


class Twin(nn.Module):
    """A view as PyTorch code."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self.view = view
        self.leaves = inputs_of(view.outputs)

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(execute(self.view.outputs, dict(zip(self.leaves, tensors, strict=True))))


#: A rewrite that uncovers another one, which the second round finds.
UNCOVERED: Final = """
def graph(x: float32[3, 4], z: float32[3, 4]):
    return div(1.0, add(1.0, exp(neg(logsumexp(div(z, mul(exp(x), exp(z))), axes=(1,), keepdim=True)))))
"""


def test_a_rewrite_uncovers_another() -> None:
    module = Twin(parse(UNCOVERED)).eval()
    tensors = tuple(drawn(module.leaves, "benign", 0).values())
    fixed, report = stabilize.optimize(module, tensors, return_report=True)
    assert len(report.rewrites) == 2, report
    _, again = stabilize.optimize(fixed, tensors, return_report=True)
    assert not again.rewrites, again


@examples(25)
@given(text=graphs(NAIVE_STEPS, shapes=((3, 4),), most=4), seed=st.integers(0, 999))
def test_torch_modules_end_to_end(text: str, seed: int) -> None:
    view = parse(text)
    assume(inputs_of(view.outputs) and is_continuous(view))
    module, leaves = Twin(view), drawn(inputs_of(view.outputs), "benign", seed)
    tensors = tuple(leaves.values())
    fixed, report = stabilize.optimize(module, tensors, return_report=True)
    if not report.rewrites:
        assert fixed is module
        return
    assert_no_harm(view.outputs, module(*tensors), fixed(*tensors), leaves, str(report))
    _, again = stabilize.optimize(fixed, tensors, return_report=True)
    assert not again.rewrites, f"{report}\nand then {again}"


@examples(40)
@given(text=graphs(NAIVE_STEPS, dtypes=("float32",), shapes=((3, 4),), most=4), seed=st.integers(0, 999))
def test_onnx_models_end_to_end(text: str, seed: int) -> None:
    view = parse(text)
    output = view.outputs[-1]
    leaves = drawn(inputs_of([output]), "benign", seed)
    assume(output.op != "input" and leaves and is_continuous(view))
    names = {leaf: f"in_{leaf.attr('name')}" for leaf in leaves}

    def function(builder: Builder, *inputs: Value) -> Value:
        return rebuild(builder, [output], dict(zip(leaves, inputs, strict=True)))[0]

    try:
        model = program(function, {names[leaf]: leaf.type for leaf in leaves}, opset=21)
    except ModelError:
        reject()  # a primitive that this opset has no operator for
    fixed, report = stabilize.optimize(model, return_report=True)
    if not report.rewrites:
        assert fixed.SerializeToString() == model.SerializeToString()
        return
    feeds = {names[leaf]: tensor.numpy() for leaf, tensor in leaves.items()}
    before, after = (torch.as_tensor(run(m, feeds)[0]) for m in (model, fixed))
    assert_no_harm([output], [before], [after], leaves, str(report))
    _, again = stabilize.optimize(fixed, return_report=True)
    assert not again.rewrites, f"{report}\nand then {again}"

"""STB501: float16 sums of products are carried in float32, from the products to where the sum is used."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import stabilize
from stabilize.formats import FORMATS
from stabilize.graph.value import cone
from stabilize.passes.cancellation.float16_accumulation import RULE
from tests.passes.graphs import Options, Outcome, assert_no_match, assert_rewrite

_H = "cast(h, dtype='float32')"
_MEAN = "mean(mul({0}, {0}), axes=(1,), keepdim=True)"

AFTER = {
    _MEAN.format("h"): "cast(mean(mul({0}, {0}), axes=(1,), keepdim=True), dtype='float16')",
    f"mul({_MEAN}, 0.001)".format("h"):
        "cast(mul(mean(mul({0}, {0}), axes=(1,), keepdim=True), 0.001), dtype='float16')",
    "log(add(sum(pow(h, 2.0), axes=(1,), keepdim=True), 0.5))":
        "cast(log(add(sum(pow({0}, 2.0), axes=(1,), keepdim=True), 0.5)), dtype='float16')",
    f"cast({_MEAN}, dtype='float32')".format("h"): "mean(mul({0}, {0}), axes=(1,), keepdim=True)",
    "div(sum(h, axes=(1,), keepdim=False), 5.0)": "cast(div(sum({0}, axes=(1,), keepdim=False), 5.0), dtype='float16')",
    f"div(h, add({_MEAN}, 1.0))".format("h"):
        "cast(div({0}, add(mean(mul({0}, {0}), axes=(1,), keepdim=True), 1.0)), dtype='float16')",
}  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), AFTER.items())
def test_is_carried_in_float32(rewrite, body, expected):
    outcome = rewrite(body)
    assert outcome.codes == ["STB501"]
    name, text = "h", outcome.after()
    if text.count("\n"):  # the widened input has a name
        first, _, text = text.partition("\n")
        name, _, widened = first.partition(" = ")
        assert widened == _H
    else:
        name = _H
    assert text == "return " + expected.format(name)


#: (expression, bounds of its inputs, what takes the place of the part that is carried in float32)
REGIONS = [
    (
        "mean(mul(h, h), axes=(1,), keepdim=True)",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mean(mul(t1, t1), axes=(1,), keepdim=True), dtype='float16')",
    ),
    (
        "mul(mean(mul(h, h), axes=(1,), keepdim=True), 0.001)",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mul(mean(mul(t1, t1), axes=(1,), keepdim=True), 0.001), dtype='float16')",
    ),
    (
        "sqrt(add(mean(mul(h, h), axes=(1,), keepdim=True), 0.5))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(sqrt(add(mean(mul(t1, t1), axes=(1,), keepdim=True), 0.5)), dtype='float16')",
    ),
    (
        "div(h, sqrt(add(sum(mul(h, h), axes=(1,), keepdim=True), 0.5)))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(div(t1, sqrt(add(sum(mul(t1, t1), axes=(1,), keepdim=True), 0.5))), dtype='float16')",
    ),
    (
        "mul(h, mean(mul(h, h), axes=(1,), keepdim=True))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mul(t1, mean(mul(t1, t1), axes=(1,), keepdim=True)), dtype='float16')",
    ),
    (
        "mul(mean(mul(h, h), axes=(1,), keepdim=True), h)",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mul(mean(mul(t1, t1), axes=(1,), keepdim=True), t1), dtype='float16')",
    ),
    (
        "add(h, mean(mul(h, h), axes=(1,), keepdim=True))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mean(mul(t1, t1), axes=(1,), keepdim=True), dtype='float16')",
    ),
    (
        "exp(mean(mul(h, h), axes=(1,), keepdim=True))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mean(mul(t1, t1), axes=(1,), keepdim=True), dtype='float16')",
    ),
    (
        "exp(mul(mean(mul(h, h), axes=(1,), keepdim=True), -0.5))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mul(mean(mul(t1, t1), axes=(1,), keepdim=True), -0.5), dtype='float16')",
    ),
    (
        "add(mean(mul(h, h), axes=(1,), keepdim=True), sum(h, axes=(1,), keepdim=True))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(add(mean(mul(t1, t1), axes=(1,), keepdim=True), sum(t1, axes=(1,), keepdim=True)), "
        "dtype='float16')",
    ),
    (
        "add(mean(mul(h, h), axes=(1,), keepdim=True), mul(2.0, mean(h, axes=(1,), keepdim=True)))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(add(mean(mul(t1, t1), axes=(1,), keepdim=True), mul(2.0, mean(t1, axes=(1,), keepdim=True))), "
        "dtype='float16')",
    ),
    (
        "add(mean(mul(h, h), axes=(1,), keepdim=True), max(h, axes=(1,), keepdim=True))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mean(mul(t1, t1), axes=(1,), keepdim=True), dtype='float16')",
    ),
    (
        "sub(mul(mean(h, axes=(1,), keepdim=True), 3.0), mean(mul(h, h), axes=(1,), keepdim=True))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(sub(mul(mean(t1, axes=(1,), keepdim=True), 3.0), mean(mul(t1, t1), axes=(1,), keepdim=True)), "
        "dtype='float16')",
    ),
    (
        "sum(mul(h, cast(x, dtype='float16')), axes=(1,), keepdim=True)",
        {},
        "cast(sum(mul(cast(h, dtype='float32'), cast(cast(x, dtype='float16'), dtype='float32')), axes=(1,), "
        "keepdim=True), dtype='float16')",
    ),
    (
        "sum(neg(mul(h, h)), axes=(1,), keepdim=True)",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(sum(neg(mul(t1, t1)), axes=(1,), keepdim=True), dtype='float16')",
    ),
    (
        "sum(mul(h, expand(sum(h, axes=(1,), keepdim=True), shape=(4, 5))), axes=(1,), keepdim=True)",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(sum(mul(t1, expand(sum(t1, axes=(1,), keepdim=True), shape=(4, 5))), axes=(1,), keepdim=True), "
        "dtype='float16')",
    ),
    (
        "mean(pow(sub(h, mean(h, axes=(1,), keepdim=True)), 2.0), axes=(1,), keepdim=True)",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mean(pow(sub(t1, mean(t1, axes=(1,), keepdim=True)), 2.0), axes=(1,), keepdim=True), "
        "dtype='float16')",
    ),
    (
        "mean(pow(sub(h, div(sum(h, axes=(1,), keepdim=True), 5.0)), 2.0), axes=(1,), keepdim=True)",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mean(pow(sub(t1, div(sum(t1, axes=(1,), keepdim=True), 5.0)), 2.0), axes=(1,), keepdim=True), "
        "dtype='float16')",
    ),
    (
        "mean(pow(sub(h, mul(0.2, sum(h, axes=(1,), keepdim=True))), 2.0), axes=(1,), keepdim=True)",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mean(pow(sub(t1, mul(0.2, sum(t1, axes=(1,), keepdim=True))), 2.0), axes=(1,), keepdim=True), "
        "dtype='float16')",
    ),
    (
        "mean(pow(sub(h, sum(mul(h, softmax(h, axis=1)), axes=(1,), keepdim=True)), 2.0), axes=(1,), "
        "keepdim=True)",
        {},
        "cast(mean(pow(cast(sub(h, sum(mul(h, softmax(h, axis=1)), axes=(1,), keepdim=True)), "
        "dtype='float32'), 2.0), axes=(1,), keepdim=True), dtype='float16')",
    ),
    (
        "mean(pow(sub(h, max(h, axes=(1,), keepdim=True)), 2.0), axes=(1,), keepdim=True)",
        {},
        "cast(mean(pow(cast(sub(h, max(h, axes=(1,), keepdim=True)), dtype='float32'), 2.0), axes=(1,), "
        "keepdim=True), dtype='float16')",
    ),
    (
        "mean(pow(add(h, mean(h, axes=(1,), keepdim=True)), 2.0), axes=(1,), keepdim=True)",
        {},
        "cast(mean(pow(cast(add(h, mean(h, axes=(1,), keepdim=True)), dtype='float32'), 2.0), axes=(1,), "
        "keepdim=True), dtype='float16')",
    ),
    (
        "div(sum(mul(h, h), axes=(1,), keepdim=True), 5.0)",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(div(sum(mul(t1, t1), axes=(1,), keepdim=True), 5.0), dtype='float16')",
    ),
    (
        "div(sum(h, axes=(1,), keepdim=True), 5.0)",
        {"h": (-300, 250)},
        "cast(div(sum(cast(h, dtype='float32'), axes=(1,), keepdim=True), 5.0), dtype='float16')",
    ),
    (
        "mean(mul(h, h), axes=(1,), keepdim=True)",
        {"h": (-257, 255)},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mean(mul(t1, t1), axes=(1,), keepdim=True), dtype='float16')",
    ),
    (
        "mean(mul(h, h), axes=(1,), keepdim=True)",
        {"h": (0, 257)},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mean(mul(t1, t1), axes=(1,), keepdim=True), dtype='float16')",
    ),
    (
        "mean(mul(h, mul(h, h)), axes=(1,), keepdim=True)",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mean(mul(t1, mul(t1, t1)), axes=(1,), keepdim=True), dtype='float16')",
    ),
    (
        "squeeze(mean(mul(h, h), axes=(1,), keepdim=True), axes=(1,))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mean(mul(t1, t1), axes=(1,), keepdim=True), dtype='float16')",
    ),
    (
        "reshape(mean(mul(h, h), axes=(1,), keepdim=True), shape=(4,))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mean(mul(t1, t1), axes=(1,), keepdim=True), dtype='float16')",
    ),
    (
        "concat(mean(mul(h, h), axes=(1,), keepdim=True), h, axis=1)",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mean(mul(t1, t1), axes=(1,), keepdim=True), dtype='float16')",
    ),
    (
        "cast(mean(mul(h, h), axes=(1,), keepdim=True), dtype='float32')",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "mean(mul(t1, t1), axes=(1,), keepdim=True)",
    ),
    (
        "cast(mean(mul(h, h), axes=(1,), keepdim=True), dtype='bfloat16')",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mean(mul(t1, t1), axes=(1,), keepdim=True), dtype='bfloat16')",
    ),
    (
        "cast(mean(mul(h, h), axes=(1,), keepdim=True), dtype='int32')",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mean(mul(t1, t1), axes=(1,), keepdim=True), dtype='float16')",
    ),
    (
        "mul(cast(mean(mul(h, h), axes=(1,), keepdim=True), dtype='float32'), x)",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "mean(mul(t1, t1), axes=(1,), keepdim=True)",
    ),
    (
        "maximum(mean(mul(h, h), axes=(1,), keepdim=True), 0.5)",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(maximum(mean(mul(t1, t1), axes=(1,), keepdim=True), 0.5), dtype='float16')",
    ),
    (
        "relu(mean(mul(h, h), axes=(1,), keepdim=True))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mean(mul(t1, t1), axes=(1,), keepdim=True), dtype='float16')",
    ),
    (
        "where(B, mean(mul(h, h), axes=(1,), keepdim=True), h)",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mean(mul(t1, t1), axes=(1,), keepdim=True), dtype='float16')",
    ),
    (
        "log(add(mean(mul(h, h), axes=(1,), keepdim=True), 0.5))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(log(add(mean(mul(t1, t1), axes=(1,), keepdim=True), 0.5)), dtype='float16')",
    ),
    (
        "max(mean(mul(h, h), axes=(1,), keepdim=True), axes=(0,), keepdim=True)",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mean(mul(t1, t1), axes=(1,), keepdim=True), dtype='float16')",
    ),
    (
        "mean(mean(mul(h, h), axes=(1,), keepdim=True), axes=(0,), keepdim=True)",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mean(mean(mul(t1, t1), axes=(1,), keepdim=True), axes=(0,), keepdim=True), dtype='float16')",
    ),
    (
        "sum(add(mean(mul(h, h), axes=(1,), keepdim=True), h), axes=(1,), keepdim=True)",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mean(mul(t1, t1), axes=(1,), keepdim=True), dtype='float16')",
    ),
    (
        "mul(mean(mul(h, h), axes=(1,), keepdim=True), mean(mul(h, h), axes=(1,), keepdim=True))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "t2 = mean(mul(t1, t1), axes=(1,), keepdim=True)\n"
        "cast(mul(t2, t2), dtype='float16')",
    ),
    (
        "div(mean(mul(h, h), axes=(1,), keepdim=True), add(mean(mul(h, h), axes=(1,), keepdim=True), 1.0))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "t2 = mean(mul(t1, t1), axes=(1,), keepdim=True)\n"
        "cast(div(t2, add(t2, 1.0)), dtype='float16')",
    ),
    (
        "div(mean(mul(h, h), axes=(1,), keepdim=True), sum(h, axes=(1,), keepdim=True))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(div(mean(mul(t1, t1), axes=(1,), keepdim=True), sum(t1, axes=(1,), keepdim=True)), "
        "dtype='float16')",
    ),
    (
        "div(mean(mul(h, h), axes=(1,), keepdim=True), h)",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(div(mean(mul(t1, t1), axes=(1,), keepdim=True), t1), dtype='float16')",
    ),
    (
        "mean(pow(abs(h), 2.0), axes=(1,), keepdim=True)",
        {},
        "cast(mean(pow(abs(cast(h, dtype='float32')), 2.0), axes=(1,), keepdim=True), dtype='float16')",
    ),
    (
        "sqrt(mul(sum(mul(h, h), axes=(1,), keepdim=True), mean(h, axes=(1,), keepdim=True)))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(sqrt(mul(sum(mul(t1, t1), axes=(1,), keepdim=True), mean(t1, axes=(1,), keepdim=True))), "
        "dtype='float16')",
    ),
    (
        "add(mean(mul(h, h), axes=(1,), keepdim=True), pow(mean(h, axes=(1,), keepdim=True), 2.0))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(add(mean(mul(t1, t1), axes=(1,), keepdim=True), pow(mean(t1, axes=(1,), keepdim=True), 2.0)), "
        "dtype='float16')",
    ),
    (
        "add(mean(mul(h, h), axes=(1,), keepdim=True), mul(mean(h, axes=(1,), keepdim=True), h))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mean(mul(t1, t1), axes=(1,), keepdim=True), dtype='float16')",
    ),
    (
        "add(mean(mul(h, h), axes=(1,), keepdim=True), cast(sum(x, axes=(1,), keepdim=True), "
        "dtype='float16'))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mean(mul(t1, t1), axes=(1,), keepdim=True), dtype='float16')",
    ),
    (
        "mul(0.5, add(mean(mul(h, h), axes=(1,), keepdim=True), 1.0))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mul(0.5, add(mean(mul(t1, t1), axes=(1,), keepdim=True), 1.0)), dtype='float16')",
    ),
    (
        "neg(minimum(abs(mean(mul(h, h), axes=(1,), keepdim=True)), 9.0))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "neg(cast(minimum(abs(mean(mul(t1, t1), axes=(1,), keepdim=True)), 9.0), dtype='float16'))",
    ),
    (
        "pow(transpose(mean(mul(h, h), axes=(1,), keepdim=True), perm=(1, 0)), 2.0)",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(pow(transpose(mean(mul(t1, t1), axes=(1,), keepdim=True), perm=(1, 0)), 2.0), dtype='float16')",
    ),
    (
        "mean(pow(sub(h, div(sum(h, axes=(1,), keepdim=True), 5.0)), 2.0), axes=(1,), keepdim=True)",
        {"h": (-250, 250)},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mean(pow(sub(t1, div(sum(t1, axes=(1,), keepdim=True), 5.0)), 2.0), axes=(1,), keepdim=True), "
        "dtype='float16')",
    ),
    (
        "log(add(sub(mean(mul(h, h), axes=(1,), keepdim=True), pow(mean(h, axes=(1,), keepdim=True), 2.0)), "
        "0.5))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "t2 = sub(t1, mean(t1, axes=(1,), keepdim=True))\n"
        "cast(log(add(mean(mul(t2, t2), axes=(1,), keepdim=True), 0.5)), dtype='float16')",
    ),
    (
        "mean(mul(h, h), axes=(1,), keepdim=True)",
        {"h": (-256, 255)},
        "t1 = cast(h, dtype='float32')\n"
        "cast(mean(mul(t1, t1), axes=(1,), keepdim=True), dtype='float16')",
    ),
    (
        "sum(mul(log(abs(h)), mul(h, h)), axes=(1,), keepdim=True)",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(sum(mul(cast(log(abs(h)), dtype='float32'), mul(t1, t1)), axes=(1,), keepdim=True), "
        "dtype='float16')",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("body", "ranges", "expected"), REGIONS)
def test_regions(body, ranges, expected):
    proposal = assert_rewrite(RULE, body, ranges, expected)
    assert (proposal.safety, proposal.severity) == ("exact", None)


NEAR_MISSES = [
    (_MEAN.format("x"), {}),
    (_MEAN.format("G"), {}),  # bfloat16 has the range of float32
    (_MEAN.format(_H), {}),
    (_MEAN.format("h"), {"h": (-200.0, 200.0)}),
    ("mean(h, axes=(1,), keepdim=True)", {}),
    ("sum(h, axes=(1,), keepdim=True)", {}),
    ("sum(mul(h, log(h)), axes=(1,), keepdim=True)", {}),
    ("mul(h, h)", {}),
    ("sum(mul(softmax(h, axis=1), h), axes=(1,), keepdim=True)", {}),
    ("sum(mul(h, cast(B, dtype='float16')), axes=(1,), keepdim=True)", {}),
    ("sum(mul(h, 2.0), axes=(1,), keepdim=True)", {}),
    ("neg(matmul(h, transpose(h, perm=(1, 0))))", {}),  # the hosts' products are summed in float32
    ("sum(abs(mul(h, h)), axes=(1,), keepdim=True)", {}),
    ("div(sum(h, axes=(1,), keepdim=True), 5.0)", {"h": (-250, 250)}),
    ("div(sum(h, axes=(1,), keepdim=True), sum(h, axes=(1,), keepdim=True))", {}),
    ("mean(mul(h, h), axes=(1,), keepdim=True)", {"h": (-255, 255)}),
    ("mean(mul(h, softmax(h, axis=1)), axes=(1,), keepdim=True)", {}),
    ("mean(mul(h, log(abs(h))), axes=(1,), keepdim=True)", {}),
    ("mean(mul(log(abs(h)), log(abs(h))), axes=(1,), keepdim=True)", {}),
    ("mean(mul(log_softmax(h, axis=1), log_softmax(h, axis=1)), axes=(1,), keepdim=True)", {}),
    ("div(sum(h, axes=(1,), keepdim=True), 0.0)", {}),
    ("div(mean(h, axes=(1,), keepdim=True), 5.0)", {}),
    ("div(sum(h, axes=(1,), keepdim=True), sum(cast(B, dtype='float16'), axes=(1,), keepdim=True))", {}),
]


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)


def test_the_condition_names_the_root_of_the_largest_number():
    assert RULE.condition(FORMATS["float16"]) == "entries above 255.9 in float16"


LONG_CHAINS = {
    "onward": ["t0 = mean(mul(h, h), axes=(1,), keepdim=True)", "add(t{}, 0.5)", "t{}"],
    "products": ["t0 = h", "neg(t{})", "mean(mul(t{0}, t{0}), axes=(1,), keepdim=True)"],
}


@pytest.mark.parametrize(("first", "step", "last"), LONG_CHAINS.values(), ids=LONG_CHAINS)
def test_a_long_chain_is_carried_in_float32_in_part(first, step, last):
    lines = [first, *(f"t{i + 1} = {step.format(i)}" for i in range(400)), f"return {last.format(400)}"]
    outcome = Outcome("\n".join(lines), Options())
    assert outcome.codes == ["STB501"]
    ((_, new),) = outcome.replaced.items()
    assert 16 < sum(v.dtype == "float32" for v in cone([new])) < 256


class _Energy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-3)


def test_the_defect_is_real_and_repaired():
    """Entries of 300: the naive row is 0."""
    x = torch.full((2, 8), 300.0, dtype=torch.float16)
    assert (_Energy()(x) == 0).all()
    assert torch.allclose(
        stabilize.optimize(_Energy(), (x,))(x).double(), torch.full((2, 8), 8**-0.5).double(), atol=2e-4
    )


def test_special_rows():
    rows = torch.tensor([[0.0, torch.nan], [0.0, torch.inf], [-torch.inf, -torch.inf], [0.0, 0.0]], dtype=torch.float16)
    fixed = stabilize.optimize(_Energy(), (torch.randn(4, 2).half(),))
    assert torch.equal(fixed(rows).isnan(), _Energy()(rows).isnan())
    for shape in ((4, 1), (4, 0)):
        x = torch.ones(shape, dtype=torch.float16)
        assert torch.allclose(stabilize.optimize(_Energy(), (x,))(x), _Energy()(x), atol=1e-3)

"""STB401: variances and covariances by E[xy] − E[x]E[y], before and after; what must not match."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import stabilize
from stabilize.passes.cancellation.moments import product
from stabilize.passes.cancellation.naive_variance import RULE
from tests.passes.graphs import assert_rewrite, graph

_M = "mean(x, axes=(1,), keepdim=True)"
_CENTRED = f"v17 = sub(x, {_M})"

SPELLINGS = {
    f"sub(mean(mul(x, x), axes=(1,), keepdim=True), mul({_M}, {_M}))": "mean({}, axes=(1,), keepdim=True)",
    f"sub(mean(pow(x, 2.0), axes=(1,), keepdim=True), pow({_M}, 2.0))": "mean({}, axes=(1,), keepdim=True)",
    f"add(neg(pow({_M}, 2.0)), mean(pow(abs(x), 2.0), axes=(1,), keepdim=True))": "mean({}, axes=(1,), keepdim=True)",
    f"add(sub(mean(pow(x, 2.0), axes=(1,), keepdim=True), pow({_M}, 2.0)), 0.001)":
        "add(mean({}, axes=(1,), keepdim=True), 0.001)",
    f"sub(add(mean(pow(x, 2.0), axes=(1,), keepdim=True), 0.001), pow({_M}, 2.0))":
        "add(mean({}, axes=(1,), keepdim=True), 0.001)",
    "sub(div(sum(mul(x, x), axes=(1,), keepdim=False), 5.0), pow(div(sum(x, axes=(1,), keepdim=False), 5.0), 2.0))":
        "div(sum({}, axes=(1,), keepdim=False), 5.0)",
    "sub(sum(mul(x, x), axes=(1,), keepdim=False), div(pow(sum(x, axes=(1,), keepdim=False), 2.0), 5.0))":
        "sum({}, axes=(1,), keepdim=False)",
    "sub(sum(mul(x, x), axes=(1,), keepdim=False), mul(5.0, pow(mean(x, axes=(1,), keepdim=False), 2.0)))":
        "sum({}, axes=(1,), keepdim=False)",
}  # fmt: skip


@pytest.mark.parametrize(("before", "after"), SPELLINGS.items())
def test_two_passes(rewrite, before, after):
    outcome = rewrite(f"return {before}")
    assert outcome.codes == ["STB401"]
    centred, _, result = outcome.after().partition("\n")
    name = centred.partition(" ")[0]
    assert centred == f"{name} = sub(x, {_M})"
    assert result == "return " + after.format(f"mul({name}, {name})")


def test_half_precision_is_carried_in_float32(rewrite):
    m = "mean(h, axes=(1,), keepdim=False)"
    text = rewrite(f"return sub(mean(mul(h, h), axes=(1,), keepdim=False), mul({m}, {m}))").after()
    assert "cast(h, dtype='float32')" in text
    assert text.endswith("axes=(1,), keepdim=False), dtype='float16')")


def test_covariance(rewrite):
    body = (
        "return sub(mean(mul(x, z), axes=(0,), keepdim=False), "
        "mul(mean(x, axes=(0,), keepdim=False), mean(z, axes=(0,), keepdim=False)))"
    )
    assert rewrite(body).after() == (
        "return mean(mul(sub(x, mean(x, axes=(0,), keepdim=True)), sub(z, mean(z, axes=(0,), keepdim=True))), "
        "axes=(0,), keepdim=False)"
    )


#: Covariances, weights, factors that are numbers, what is beside the two terms.
AFTER = [
    (
        "e = sum(mul(softmax(z, axis=1), x), axes=(1,), keepdim=False)\n"
        "return sub(sum(mul(softmax(z, axis=1), mul(x, x)), axes=(1,), keepdim=False), mul(e, e))",
        {},
        "t1 = softmax(z, axis=1)\n"
        "t2 = sub(x, sum(mul(t1, x), axes=(1,), keepdim=True))\n"
        "sum(mul(mul(t1, t2), t2), axes=(1,), keepdim=False)",
    ),
    (
        "e = div(sum(mul(w, x), axes=(1,), keepdim=False), sum(w, axes=(1,), keepdim=False))\n"
        "return sub(div(sum(mul(w, mul(x, x)), axes=(1,), keepdim=False), sum(w, axes=(1,), keepdim=False)), "
        "mul(e, e))",
        {},
        "t1 = sub(x, div(sum(mul(w, x), axes=(1,), keepdim=True), sum(w, axes=(1,), keepdim=True)))\n"
        "div(sum(mul(mul(w, t1), t1), axes=(1,), keepdim=False), sum(w, axes=(1,), keepdim=False))",
    ),
    (
        "e = div(sum(mul(a, x), axes=(1,), keepdim=False), sum(a, axes=(0,), keepdim=False))\n"
        "return sub(div(sum(mul(a, mul(x, x)), axes=(1,), keepdim=False), sum(a, axes=(0,), keepdim=False)), "
        "mul(e, e))",
        {},
        "t1 = expand(a, shape=(4, 5))\n"
        "t2 = sub(x, div(sum(mul(a, x), axes=(1,), keepdim=True), sum(t1, axes=(1,), keepdim=True)))\n"
        "div(sum(mul(mul(a, t2), t2), axes=(1,), keepdim=False), sum(t1, axes=(1,), keepdim=False))",
    ),
    (
        "e = div(sum(mul(mul(w, z), x), axes=(1,), keepdim=False), sum(mul(w, z), axes=(1,), keepdim=False))\n"
        "return sub(div(sum(mul(mul(w, z), mul(x, x)), axes=(1,), keepdim=False), sum(mul(w, z), axes=(1,), "
        "keepdim=False)), mul(e, e))",
        {},
        "t1 = mul(z, w)\n"
        "t2 = sub(x, div(sum(mul(t1, x), axes=(1,), keepdim=True), sum(t1, axes=(1,), keepdim=True)))\n"
        "div(sum(mul(mul(t1, t2), t2), axes=(1,), keepdim=False), sum(t1, axes=(1,), keepdim=False))",
    ),
    (
        "e = div(sum(mul(cast(B, dtype='float32'), x), axes=(1,), keepdim=False), sum(cast(B, "
        "dtype='float32'), axes=(1,), keepdim=False))\n"
        "return sub(div(sum(mul(cast(B, dtype='float32'), mul(x, x)), axes=(1,), keepdim=False), sum(cast(B, "
        "dtype='float32'), axes=(1,), keepdim=False)), mul(e, e))",
        {},
        "t1 = cast(B, dtype='float32')\n"
        "t2 = sub(x, div(sum(mul(t1, x), axes=(1,), keepdim=True), sum(t1, axes=(1,), keepdim=True)))\n"
        "div(sum(mul(mul(t1, t2), t2), axes=(1,), keepdim=False), sum(t1, axes=(1,), keepdim=False))",
    ),
    (
        "e = sum(mul(softmax(z, axis=1), x), axes=(1,), keepdim=False)\n"
        "f = sum(mul(softmax(z, axis=1), w), axes=(1,), keepdim=False)\n"
        "return sub(sum(mul(softmax(z, axis=1), mul(x, w)), axes=(1,), keepdim=False), mul(e, f))",
        {},
        "t1 = softmax(z, axis=1)\n"
        "sum(mul(mul(t1, sub(x, sum(mul(t1, x), axes=(1,), keepdim=True))), sub(w, sum(mul(t1, w), axes=(1,),"
        " keepdim=True))), axes=(1,), keepdim=False)",
    ),
    (
        "div(sub(sum(mul(x, x), axes=(1,), keepdim=False), div(pow(sum(x, axes=(1,), keepdim=False), 2.0), "
        "5.0)), 4.0)",
        {},
        "t1 = sub(x, mean(x, axes=(1,), keepdim=True))\n"
        "sum(mul(t1, t1), axes=(1,), keepdim=False)",
    ),
    (
        "sub(mul(mean(mul(x, x), axes=(1,), keepdim=False), 2.0), mul(2.0, pow(mean(x, axes=(1,), "
        "keepdim=False), 2.0)))",
        {},
        "t1 = sub(x, mean(x, axes=(1,), keepdim=True))\n"
        "mul(mean(mul(t1, t1), axes=(1,), keepdim=False), 2.0)",
    ),
    (
        "sub(mul(mean(mul(x, x), axes=(1,), keepdim=False), -2.0), mul(-2.0, pow(mean(x, axes=(1,), "
        "keepdim=False), 2.0)))",
        {},
        "t1 = sub(x, mean(x, axes=(1,), keepdim=True))\n"
        "mul(mean(mul(t1, t1), axes=(1,), keepdim=False), -2.0)",
    ),
    (
        "sub(mean(mul(mul(x, 2.0), mul(x, 2.0)), axes=(1,), keepdim=False), pow(mean(mul(x, 2.0), axes=(1,), "
        "keepdim=False), 2.0))",
        {},
        "t1 = sub(x, mean(x, axes=(1,), keepdim=True))\n"
        "mul(mean(mul(t1, t1), axes=(1,), keepdim=False), 4.0)",
    ),
    (
        "sub(mean(mul(mul(x, z), mul(x, z)), axes=(1,), keepdim=False), pow(mean(mul(x, z), axes=(1,), "
        "keepdim=False), 2.0))",
        {},
        "t1 = mul(x, z)\n"
        "t2 = sub(t1, mean(t1, axes=(1,), keepdim=True))\n"
        "mean(mul(t2, t2), axes=(1,), keepdim=False)",
    ),
    (
        "sub(mean(mul(mul(x, z), w), axes=(1,), keepdim=False), mul(mean(mul(x, z), axes=(1,), "
        "keepdim=False), mean(w, axes=(1,), keepdim=False)))",
        {},
        "t1 = mul(x, z)\n"
        "mean(mul(sub(t1, mean(t1, axes=(1,), keepdim=True)), sub(w, mean(w, axes=(1,), keepdim=True))), "
        "axes=(1,), keepdim=False)",
    ),
    (
        "add(sub(mean(mul(x, x), axes=(1,), keepdim=False), pow(mean(x, axes=(1,), keepdim=False), 2.0)), "
        "mul(3.0, mean(z, axes=(1,), keepdim=False)))",
        {},
        "t1 = sub(x, mean(x, axes=(1,), keepdim=True))\n"
        "add(mean(mul(t1, t1), axes=(1,), keepdim=False), mul(mean(z, axes=(1,), keepdim=False), 3.0))",
    ),
    (
        "sub(sub(mean(mul(x, x), axes=(1,), keepdim=False), pow(mean(x, axes=(1,), keepdim=False), 2.0)), "
        "mul(3.0, mean(z, axes=(1,), keepdim=False)))",
        {},
        "t1 = sub(x, mean(x, axes=(1,), keepdim=True))\n"
        "sub(mean(mul(t1, t1), axes=(1,), keepdim=False), mul(mean(z, axes=(1,), keepdim=False), 3.0))",
    ),
    (
        "sub(mean(mul(x, z), axes=(1,), keepdim=False), mul(mean(z, axes=(1,), keepdim=False), mean(x, "
        "axes=(1,), keepdim=False)))",
        {},
        "mean(mul(sub(z, mean(z, axes=(1,), keepdim=True)), sub(x, mean(x, axes=(1,), keepdim=True))), "
        "axes=(1,), keepdim=False)",
    ),
    (
        "sub(mul(mean(x, axes=(1,), keepdim=False), mean(x, axes=(1,), keepdim=False)), mean(mul(x, x), "
        "axes=(1,), keepdim=False))",
        {},
        "t1 = sub(x, mean(x, axes=(1,), keepdim=True))\n"
        "neg(mean(mul(t1, t1), axes=(1,), keepdim=False))",
    ),
    (
        "sub(matmul(a, b), mul(5.0, mul(mean(a, axes=(0,), keepdim=False), mean(b, axes=(0,), "
        "keepdim=False))))",
        {},
        "sum(mul(sub(a, mean(a, axes=(0,), keepdim=True)), sub(b, mean(b, axes=(0,), keepdim=True))), "
        "axes=(0,), keepdim=False)",
    ),
    (
        "sub(matmul(a, a), div(pow(sum(a, axes=(0,), keepdim=False), 2.0), 5.0))",
        {},
        "t1 = sub(a, mean(a, axes=(0,), keepdim=True))\n"
        "sum(mul(t1, t1), axes=(0,), keepdim=False)",
    ),
    (
        "t = cast(h, dtype='float32')\n"
        "return sub(mean(mul(t, t), axes=(1,), keepdim=False), pow(mean(t, axes=(1,), keepdim=False), 2.0))",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "t2 = sub(t1, mean(t1, axes=(1,), keepdim=True))\n"
        "mean(mul(t2, t2), axes=(1,), keepdim=False)",
    ),
    (
        "sub(div(sum(mul(softmax(z, axis=1), mul(x, x)), axes=(1,), keepdim=False), 5.0), "
        "div(pow(sum(mul(softmax(z, axis=1), x), axes=(1,), keepdim=False), 2.0), 5.0))",
        {},
        "t1 = softmax(z, axis=1)\n"
        "t2 = sub(x, sum(mul(t1, x), axes=(1,), keepdim=True))\n"
        "div(sum(mul(mul(t1, t2), t2), axes=(1,), keepdim=False), 5.0)",
    ),
    (
        "sub(div(sum(mul(V, mul(s, s)), axes=(0,), keepdim=False), sum(V, axes=(0,), keepdim=False)), "
        "pow(div(sum(mul(V, s), axes=(0,), keepdim=False), sum(V, axes=(0,), keepdim=False)), 2.0))",
        {},
        "t1 = expand(V, shape=(5, 5))\n"
        "t2 = sub(s, div(sum(mul(V, s), axes=(0,), keepdim=True), sum(t1, axes=(0,), keepdim=True)))\n"
        "div(sum(mul(mul(V, t2), t2), axes=(0,), keepdim=False), sum(t1, axes=(0,), keepdim=False))",
    ),
    (
        "sub(div(mean(mul(w, mul(x, x)), axes=(1,), keepdim=False), mean(w, axes=(1,), keepdim=False)), "
        "pow(div(mean(mul(w, x), axes=(1,), keepdim=False), mean(w, axes=(1,), keepdim=False)), 2.0))",
        {},
        "t1 = sub(x, div(sum(mul(w, x), axes=(1,), keepdim=True), sum(w, axes=(1,), keepdim=True)))\n"
        "div(sum(mul(mul(w, t1), t1), axes=(1,), keepdim=False), sum(w, axes=(1,), keepdim=False))",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("body", "ranges", "expected"), AFTER)
def test_rewrites_to(body, ranges, expected):
    proposal = assert_rewrite(RULE, body, ranges, expected)
    assert (proposal.safety, proposal.severity) == ("exact", None)


def test_symbolic_count(rewrite):
    m = "mean(n, axes=(0,), keepdim=False)"
    assert rewrite(f"return sub(mean(mul(n, n), axes=(0,), keepdim=False), mul({m}, {m}))").codes == ["STB401"]


NEAR_MISSES = [
    "sub(mean(mul(x, x), axes=(1,), keepdim=True), pow(mean(z, axes=(1,), keepdim=True), 2.0))",
    "sub(mean(mul(x, x), axes=(1,), keepdim=True), pow(mean(x, axes=(0,), keepdim=True), 2.0))",
    f"sub(mean(mul(x, z), axes=(1,), keepdim=True), pow({_M}, 2.0))",
    f"sub(mean(mul(x, x), axes=(1,), keepdim=True), pow({_M}, 3.0))",
    f"sub(mean(mul(x, x), axes=(1,), keepdim=True), {_M})",
    f"add(mean(mul(x, x), axes=(1,), keepdim=True), pow({_M}, 2.0))",
    f"sub(mean(mul(x, x), axes=(1,), keepdim=True), mul(2.0, pow({_M}, 2.0)))",
    "sub(div(sum(mul(x, x), axes=(1,), keepdim=False), 4.0), pow(div(sum(x, axes=(1,), keepdim=False), 5.0), 2.0))",
    "sub(sum(mul(x, x), axes=(1,), keepdim=False), pow(sum(x, axes=(1,), keepdim=False), 2.0))",
    # on a square matrix the means of rows, laid out as a row, are subtracted from columns
    "sub(mean(mul(s, s), axes=(1,), keepdim=False), pow(mean(s, axes=(1,), keepdim=True), 2.0))",
    # weights that do not sum to one
    "sub(sum(mul(w, mul(x, x)), axes=(1,), keepdim=False), pow(sum(mul(w, x), axes=(1,), keepdim=False), 2.0))",
    # a softmax along the other axis
    "sub(sum(mul(softmax(z, axis=0), mul(x, x)), axes=(1,), keepdim=False), "
    "pow(sum(mul(softmax(z, axis=0), x), axes=(1,), keepdim=False), 2.0))",
    "sub(sum(mul(n, n), axes=(0,), keepdim=False), pow(sum(n, axes=(0,), keepdim=False), 2.0))",
    "sub(mean(mul(x, x), axes=(1,), keepdim=False), mul(pow(mean(x, axes=(1,), keepdim=False), 2.0), "
    "mean(z, axes=(1,), keepdim=False)))",
    # no elements
    "sub(mean(mul(E, E), axes=(1,), keepdim=False), pow(mean(E, axes=(1,), keepdim=False), 2.0))",
    # divided by the weights of other columns, by those of others, and by what is not kept where the rest is
    "sub(div(sum(mul(a, mul(s, s)), axes=(0,), keepdim=False), sum(a, axes=(0,), keepdim=False)), "
    "pow(div(sum(mul(a, s), axes=(0,), keepdim=False), sum(a, axes=(0,), keepdim=False)), 2.0))",
    "sub(div(sum(mul(w, mul(x, x)), axes=(1,), keepdim=False), sum(z, axes=(1,), keepdim=False)), "
    "pow(div(sum(mul(w, x), axes=(1,), keepdim=False), sum(z, axes=(1,), keepdim=False)), 2.0))",
    "sub(div(sum(mul(s, mul(s, s)), axes=(1,), keepdim=True), sum(s, axes=(1,), keepdim=False)), "
    "pow(div(sum(mul(s, s), axes=(1,), keepdim=True), sum(s, axes=(1,), keepdim=False)), 2.0))",
    "sub(div(mean(mul(w, mul(x, x)), axes=(1,), keepdim=True), sum(w, axes=(1,), keepdim=True)), "
    "pow(div(mean(mul(w, x), axes=(1,), keepdim=True), sum(w, axes=(1,), keepdim=True)), 2.0))",
    # two passes, and their compensated form
    f"mean(pow(sub(x, {_M}), 2.0), axes=(1,), keepdim=True)",
    f"sub(mean(pow(sub(x, {_M}), 2.0), axes=(1,), keepdim=True), "
    f"pow(mean(sub(x, {_M}), axes=(1,), keepdim=True), 2.0))",
]  # fmt: skip


@pytest.mark.parametrize("body", NEAR_MISSES)
def test_near_misses(rewrite, body):
    assert "STB401" not in rewrite(f"return {body}").codes


class _Spread(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sqrt(x.pow(2).mean(-1) - x.mean(-1).pow(2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_defect_is_real_and_repaired(dtype):
    """Spread 1 around 1e4 (110 in float16, 40 in bfloat16): the naive form is off by half or more, or NaN."""
    generator = torch.Generator().manual_seed(0)
    centre = {torch.float16: 110.0, torch.bfloat16: 40.0, torch.float32: 1e4, torch.float64: 2e8}[dtype]
    x = (torch.randn(8, 64, generator=generator, dtype=torch.float64) + centre).to(dtype)
    truth = x.double().sub(x.double().mean(-1, keepdim=True)).pow(2).mean(-1).sqrt()
    naive = _Spread()
    fixed = stabilize.optimize(naive, (x,))
    u = torch.finfo(dtype).eps / 2
    before, after = (((m(x).double() - truth) / truth).abs() for m in (naive, fixed))
    assert not (before <= 0.5).all()
    assert (after <= (64 + 20) * u).all()


def test_special_rows_keep_their_class():
    rows = torch.tensor([[0.0, torch.nan, 1.0], [0.0, torch.inf, 1.0], [-torch.inf] * 3, [2.0, 2.0, 2.0]])
    naive = _Spread()
    fixed = stabilize.optimize(naive, (torch.randn(4, 3),))
    assert torch.equal(fixed(rows).isnan(), torch.tensor([True, True, True, False]))
    assert fixed(rows)[3] == 0
    for shape in ((4, 1), (4, 0)):
        x = torch.ones(shape)
        assert torch.equal(stabilize.optimize(naive, (x,))(x).isnan(), naive(x).isnan())


def test_repeated_squares_are_taken_into_few_factors():
    """x to the power 2²⁰⁰ is not 2²⁰⁰ factors."""
    lines = ["t0 = x", *(f"t{i + 1} = mul(t{i}, t{i})" for i in range(200)), "return t200"]
    factors, scale = product(graph("\n".join(lines)).outputs[0])
    assert 1 < len(factors) < 20
    assert scale == 1

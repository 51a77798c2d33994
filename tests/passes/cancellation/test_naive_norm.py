"""STB402: norms by hand are scaled by their largest entry; what is guarded, bounded or fused stays."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor, nn

import stabilize
from stabilize.formats import FORMATS
from stabilize.passes.cancellation.naive_norm import RULE
from tests.passes.graphs import Options, Outcome, assert_no_match, assert_rewrite, brief


def _spelled(text: str) -> str:
    """‖x‖: the norm of rows by hand, kept; ‖x‖₁: not kept; rms(x): kept, of means; |x|: the scale of float32 rows."""
    kept = r"axes=(1,), keepdim=True)"
    text = re.sub(r"‖(\w)‖₁", r"sqrt(sum(mul(\1, \1), axes=(1,), keepdim=False))", text)
    text = re.sub(r"‖(\w)‖", rf"sqrt(sum(mul(\1, \1), {kept})", text)
    text = re.sub(r"rms\((\w)\)", rf"sqrt(mean(mul(\1, \1), {kept})", text)
    scale = rf"minimum(maximum(detach(max(abs(\1), {kept}), 1.1754943508222875e-38), 3.4028234663852886e+38)"
    return re.sub(r"\|(\w+)\|", scale, text)


def _long(x: str) -> str:
    return f"t1 = |{x}|\nmul(norm(div({x}, t1), axes=(1,), keepdim=True), t1)"


def _flat(x: str) -> str:
    return f"t1 = |{x}|\nsqueeze(mul(norm(div({x}, t1), axes=(1,), keepdim=True), t1), axes=(1,))"


def _cosine(x: str, z: str, kept: bool = True) -> str:
    over = f"axes=(1,), keepdim={kept})"
    sides = f"t1 = div({x}, |{x}|)\nt2 = div({z}, |{z}|)\n"
    return f"{sides}div(sum(mul(t1, t2), {over}, mul(norm(t1, {over}, norm(t2, {over}))"


_UNIT = "t1 = div(x, |x|)\ndiv(t1, norm(t1, axes=(1,), keepdim=True))"
_DOT = "sum(mul(x, z), axes=(1,), keepdim=True)"
_FLAT_DOT = "sum(mul(x, z), axes=(1,), keepdim=False)"

_NORM = {x: f"norm({x}, axes=(1,), keepdim=True)" for x in "xz"}

AFTER = [
    ("‖x‖", _long("x")),
    ("‖x‖₁", _flat("x")),
    ("pow(sum(pow(x, 2.0), axes=(1,), keepdim=True), 0.5)", _long("x")),
    ("sqrt(sum(pow(abs(x), 2.0), axes=(1,), keepdim=True))", _long("x")),
    ("rms(x)", "t1 = |x|\nmul(mul(norm(div(x, t1), axes=(1,), keepdim=True), t1), 0.4472135954999579)"),
    ("rms(n)", "t1 = |n|\nmul(mul(norm(div(n, t1), axes=(1,), keepdim=True), t1), 0.4472135954999579)"),
    ("sqrt(mul(sum(mul(x, x), axes=(1,), keepdim=True), 0.25))",
     "t1 = |x|\nmul(mul(norm(div(x, t1), axes=(1,), keepdim=True), t1), 0.5)"),
    ("‖G‖", "t1 = cast(G, dtype='float32')\nt2 = |t1|\n"
     "cast(mul(norm(div(t1, t2), axes=(1,), keepdim=True), t2), dtype='bfloat16')"),
    ("sqrt(sum(mul(cast(h, dtype='float32'), cast(h, dtype='float32')), axes=(1,), keepdim=True))",
     "norm(cast(h, dtype='float32'), axes=(1,), keepdim=True)"),
    ("div(x, ‖x‖)", _UNIT),
    ("div(x, expand(‖x‖, shape=(4, 5)))", _UNIT),
    ("div(x, unsqueeze(‖x‖₁, axes=(1,)))", _UNIT),
    ("div(mul(x, 3.0), ‖x‖)", "t1 = div(x, |x|)\nmul(div(t1, norm(t1, axes=(1,), keepdim=True)), 3.0)"),
    ("div(x, rms(x))", "t1 = div(x, |x|)\ndiv(div(t1, norm(t1, axes=(1,), keepdim=True)), 0.4472135954999579)"),
    (f"div({_DOT}, mul(‖x‖, ‖z‖))", _cosine("x", "z")),
    (f"div({_DOT}, mul(rms(x), rms(z)))", _cosine("x", "z").replace("\ndiv(", "\nmul(div(") + ", 5.0)"),
    (f"div(mul({_DOT}, 3.0), mul(mul(rms(x), 2.0), ‖z‖))",
     _cosine("x", "z").replace("\ndiv(", "\nmul(div(") + ", 3.3541019662496847)"),
    (f"div(mul({_DOT}, 3.0), mul(mul(rms(z), 2.0), ‖x‖))",
     _cosine("z", "x").replace("\ndiv(", "\nmul(div(") + ", 3.3541019662496847)"),
    (f"div({_FLAT_DOT}, mul(‖x‖₁, ‖z‖₁))", _cosine("x", "z", kept=False)),
    # norms of the host, and lengths that are divided by one after the other
    (f"div({_DOT}, mul({_NORM['x']}, {_NORM['z']}))", _cosine("x", "z")),
    (f"div({_DOT}, mul(‖x‖, {_NORM['z']}))", _cosine("x", "z")),
    (f"div(div({_DOT}, {_NORM['z']}), {_NORM['x']})", _cosine("x", "z")),
    (f"div(div({_FLAT_DOT}, mul(‖x‖₁, 2.0)), mul(‖z‖₁, 0.5))", _cosine("z", "x", kept=False)),
    # norms that are no part of a quotient that is read
    ("div(x, add(‖x‖, 0.001))", _long("x")),
    ("div(x, maximum(‖x‖, 0.001))", _long("x")),
    ("div(z, ‖x‖)", _long("x")),
    (f"div({_DOT}, ‖x‖)", _long("x")),
    (f"div({_DOT}, mul(‖x‖, ‖x‖))", _long("x")),
    (f"div({_DOT}, mul(‖x‖, w))", _long("x")),
    (f"div({_DOT}, mul(R, ‖x‖))", _long("x")),
    # the row norms of a square matrix, laid out as a row
    ("div(s, unsqueeze(‖s‖₁, axes=(0,)))", _flat("s")),
    ("div(s, ‖s‖₁)", _flat("s")),
]  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), AFTER)
def test_rewrites_to(body, expected):
    proposal = assert_rewrite(RULE, _spelled(body), {}, _spelled(expected))
    assert (proposal.safety, proposal.severity) == ("exact", "warning")


#: Quotients that are no cosines: a factor too many, a mean, norms over other axes or not kept where the others are.
TWO_NORMS = [
    f"div({_DOT}, mul(mul(‖x‖, ‖z‖), w))",
    "div(mean(mul(x, z), axes=(1,), keepdim=True), mul(‖x‖, ‖z‖))",
    "div(sum(mul(x, w), axes=(1,), keepdim=True), mul(‖x‖, ‖z‖))",
    f"div({_FLAT_DOT}, mul(‖x‖, ‖z‖))",
    f"div({_DOT}, mul(‖x‖, ‖z‖₁))",
    f"div({_DOT}, mul(‖x‖₁, ‖z‖))",
    "div(sum(mul(s, s), axes=(1,), keepdim=True), mul(‖s‖, sqrt(sum(mul(s, s), axes=(0,), keepdim=True))))",
    "div(sum(mul(s, s), axes=(0,), keepdim=True), mul(sqrt(sum(mul(s, s), axes=(0,), keepdim=True)), ‖s‖))",
    "div(sum(mul(s, s), axes=(0,), keepdim=True), mul(‖s‖, sqrt(mul(sum(mul(s, s), axes=(1,), keepdim=True), 2.0))))",
]


@pytest.mark.parametrize("body", TWO_NORMS)
def test_each_norm_alone(body):
    outcome = Outcome(_spelled(body), Options())
    assert outcome.codes == ["STB402"] * 2
    assert {old.op for old in outcome.replaced} == {"sqrt"}


def test_every_axis_and_vectors():
    most = "1.1754943508222875e-38), 3.4028234663852886e+38)"
    assert_rewrite(
        RULE,
        "sqrt(mean(mul(x, x), axes=(0, 1), keepdim=False))",
        {},
        f"t1 = minimum(maximum(detach(max(abs(x), axes=(0, 1), keepdim=True)), {most}\n"
        "squeeze(mul(mul(norm(div(x, t1), axes=(0, 1), keepdim=True), t1), 0.22360679774997896), axes=(0, 1))",
    )
    assert_rewrite(
        RULE,
        "sqrt(matmul(a, a))",
        {},
        f"t1 = minimum(maximum(detach(max(abs(a), axes=(0,), keepdim=True)), {most}\n"
        "squeeze(mul(norm(div(a, t1), axes=(0,), keepdim=True), t1), axes=(0,))",
    )


def test_the_scale_is_a_normal_number_of_float64_there():
    text = Outcome(_spelled("‖D‖"), Options()).after()
    assert "2.2250738585072014e-308" in text
    assert "1.7976931348623157e+308" in text


def test_float16_needs_no_scale_and_breaks_at_256():
    proposal = assert_rewrite(RULE, _spelled("‖h‖"), {}, "norm(h, axes=(1,), keepdim=True)")
    assert proposal.severity == "error"
    narrow = "t1 = cast(h, dtype='float32')\ncast(div(t1, norm(t1, axes=(1,), keepdim=True)), dtype='float16')"
    assert assert_rewrite(RULE, _spelled("div(h, ‖h‖)"), {}, narrow).severity == "error"


def test_a_cosine_in_float16_is_computed_in_float32():
    wide = "t1 = cast(h, dtype='float32')\nt2 = norm(t1, axes=(1,), keepdim=True)\n"
    n = "n = norm(h, axes=(1,), keepdim=True)\n"
    proposal = assert_rewrite(
        RULE,
        f"{n}div(sum(mul(h, h), axes=(1,), keepdim=True), mul(n, n))",
        {},
        f"{wide}cast(div(sum(mul(t1, t1), axes=(1,), keepdim=True), mul(t2, t2)), dtype='float16')",
    )
    assert proposal.severity == "error"


def test_without_gradients_there_is_less_to_tell():
    """Nothing is taken from the gradient at 0, and squares of float16 numbers are ordinary ones in float32."""
    (proposal,) = Outcome(_spelled("‖x‖"), Options(host="onnx")).proposed
    assert proposal.severity == "info"
    assert_no_match(
        RULE,
        "sqrt(sum(mul(cast(h, dtype='float32'), cast(h, dtype='float32')), axes=(1,), keepdim=True))",
        {},
        host="onnx",
    )


#: The largest entries whose squares may be summed 2³² at a time.
_MOST = math.sqrt(FORMATS["float32"].max) / 2**16


@pytest.mark.parametrize("body", ["‖x‖", "div(x, ‖x‖)"])
def test_squares_that_stay_in_range_are_let_be(body):
    assert_no_match(RULE, _spelled(body), {"x": (-_MOST, _MOST)})
    for bounds in ((-1.01 * _MOST, 0.0), (0.0, 1.01 * _MOST)):
        assert Outcome(_spelled(body), Options(), {"x": bounds}).codes == ["STB402"]


def test_a_cosine_needs_both_in_range():
    body = _spelled(f"div({_DOT}, mul(‖x‖, ‖z‖))")
    small = (-_MOST, _MOST)
    assert_no_match(RULE, body, {"x": small, "z": small})
    for name in "xz":
        outcome = Outcome(body, Options(), {name: small})
        assert [brief(new) for new in outcome.replaced.values()] == [_spelled(_cosine("x", "z"))]


NEAR_MISSES = [
    ("sqrt(add(sum(mul(x, x), axes=(1,), keepdim=True), 0.001))", {}),
    ("sqrt(sum(mul(x, z), axes=(1,), keepdim=True))", {}),
    ("sqrt(sum(x, axes=(1,), keepdim=True))", {}),
    ("sqrt(sum(pow(x, 3.0), axes=(1,), keepdim=True))", {}),
    ("sqrt(neg(sum(mul(x, x), axes=(1,), keepdim=True)))", {}),
    ("pow(sum(mul(x, x), axes=(1,), keepdim=True), 0.25)", {}),
    ("sqrt(sum(mul(x, x), axes=(1,), keepdim=True))", {"x": (-100.0, 100.0)}),
    ("div(x, norm(x, axes=(1,), keepdim=True))", {}),
    (f"div({_DOT}, mul({_NORM['x']}, w))", {}),
    (f"div({_DOT}, {_NORM['x']})", {}),
    (f"div(div({_DOT}, {_NORM['x']}), {_NORM['x']})", {}),
    (f"div(div({_DOT}, {_NORM['x']}), mul({_NORM['z']}, {_NORM['z']}))", {}),
    (f"div({_DOT}, mul({_NORM['x']}, norm(z, axes=(1,), keepdim=False)))", {}),
    (f"div({_DOT}, mul({_NORM['x']}, norm(z, axes=(0,), keepdim=True)))", {}),
    # what is emitted, and what computes in a format that holds the squares
    (_cosine("x", "z"), {}),
    (_cosine("x", "z", kept=False), {}),
    ("t = cast(h, dtype='float32')\nn = norm(t, axes=(1,), keepdim=True)\n"
     "div(sum(mul(t, t), axes=(1,), keepdim=True), mul(n, n))", {}),
    ("sqrt(mul(x, x))", {}),
    ("sqrt(mean(mul(n, n), axes=(0,), keepdim=True))", {}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, _spelled(body), ranges)


class _Unit(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / x.pow(2).sum(-1, keepdim=True).sqrt()


class _Length(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.pow(2).sum(-1).sqrt()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("power", [1, -1])
def test_the_defect_is_real_and_repaired(dtype, power):
    """Squares beyond the format, on either side: the naive unit vector is 0 or NaN, the new one has norm 1."""
    generator = torch.Generator().manual_seed(0)
    size = torch.finfo(dtype).max ** 0.7 if power > 0 else torch.finfo(dtype).smallest_normal ** 0.95
    x = (torch.randn(4, 16, generator=generator, dtype=torch.float64) * size).to(dtype)
    scaled = x.double() / x.double().abs().max()
    truth = scaled / torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    naive = _Unit()
    fixed = stabilize.optimize(naive, (x,))
    assert not torch.allclose(naive(x).double(), truth, atol=0.01)
    assert torch.allclose(fixed(x).double(), truth, rtol=32 * torch.finfo(dtype).eps, atol=1e-9)


def test_the_gradient_at_zero_is_zero():
    x = torch.randn(3, 5)
    x[1] = 0.0
    slopes = []
    for module in (_Length(), stabilize.optimize(_Length(), (x,))):
        leaf = x.clone().requires_grad_()
        module(leaf).sum().backward()
        slopes.append(leaf.grad)
    assert slopes[0][1].isnan().all()
    assert (slopes[1][1] == 0).all()
    assert torch.allclose(slopes[0][[0, 2]], slopes[1][[0, 2]])


def test_special_rows():
    rows = torch.tensor([[0.0, torch.nan, 1.0], [0.0, torch.inf, 1.0], [-torch.inf] * 3, [0.0] * 3, [1e-45] * 3])
    fixed = stabilize.optimize(_Length(), (torch.randn(5, 3),))
    assert fixed(rows)[0].isnan()
    assert fixed(rows)[1:4].tolist() == [torch.inf, torch.inf, 0.0]
    assert 0 < fixed(rows)[4] < 1e-44
    unit = stabilize.optimize(_Unit(), (torch.randn(5, 3),))
    assert torch.equal(unit(rows).isnan()[:4], _Unit()(rows).isnan()[:4])
    for shape in ((4, 1), (4, 0)):
        x = torch.ones(shape)
        assert torch.equal(stabilize.optimize(_Length(), (x,))(x), _Length()(x))

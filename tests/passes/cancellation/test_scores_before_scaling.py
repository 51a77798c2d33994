"""STB603: products of float16 matrices that are scaled down only afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import stabilize
from stabilize.passes.cancellation.scores_before_scaling import RULE
from stabilize.passes.rule import Options
from stabilize.verify.certificate import certify_rewrite
from tests.frontends.onnx_support import model
from tests.passes.graphs import Outcome, Ranges, assert_no_match, assert_rewrite

_HT = "transpose(h, perm=(1, 0))"
_P = f"matmul(h, {_HT})"
_BIAS = "cast(matmul(x, transpose(z, perm=(1, 0))), dtype='float16')"

#: (expression, what takes its place)
AFTER = [
    (f"mul({_P}, 0.125)", f"matmul(mul(h, 0.125), {_HT})"),
    (f"mul(0.125, {_P})", f"matmul(mul(h, 0.125), {_HT})"),
    (f"div({_P}, 8.0)", f"matmul(mul(h, 0.125), {_HT})"),
    (f"div({_P}, -8.0)", f"matmul(mul(h, -0.125), {_HT})"),
    (f"div(neg({_P}), 8.0)", f"matmul(mul(h, -0.125), {_HT})"),
    (f"mul(div({_P}, 8.0), 0.5)", f"matmul(mul(h, 0.0625), {_HT})"),
    (f"mul(mul({_P}, 0.0625), 2.0)", f"matmul(mul(h, 0.125), {_HT})"),
    # --- views between the product and the scale ---
    (f"div(transpose({_P}, perm=(1, 0)), 8.0)", f"transpose(matmul(mul(h, 0.125), {_HT}), perm=(1, 0))"),
    (f"div(unsqueeze({_P}, axes=(0,)), 8.0)", f"unsqueeze(matmul(mul(h, 0.125), {_HT}), axes=(0,))"),
    (f"div(reshape({_P}, shape=(2, 8)), 8.0)", f"reshape(matmul(mul(h, 0.125), {_HT}), shape=(2, 8))"),
    # --- a wider format takes it over ---
    (
        f"div(cast({_P}, dtype='float32'), 8.0)",
        f"mul(matmul(cast(h, dtype='float32'), cast({_HT}, dtype='float32')), 0.125)",
    ),
    (
        f"mul(cast(transpose({_P}, perm=(1, 0)), dtype='float32'), 0.125)",
        f"transpose(mul(matmul(cast(h, dtype='float32'), cast({_HT}, dtype='float32')), 0.125), perm=(1, 0))",
    ),
    # --- a bias is scaled as well ---
    (f"div(add({_P}, {_BIAS}), 8.0)", f"add(matmul(mul(h, 0.125), {_HT}), mul({_BIAS}, 0.125))"),
    (f"div(add({_BIAS}, {_P}), 8.0)", f"add(matmul(mul(h, 0.125), {_HT}), mul({_BIAS}, 0.125))"),
]  # fmt: skip
NEAR_MISSES: list[tuple[str, Ranges]] = [
    ("div(matmul(x, transpose(x, perm=(1, 0))), 8.0)", {}),  # float32
    ("div(matmul(G, transpose(G, perm=(1, 0))), 8.0)", {}),  # bfloat16 has its exponents
    (f"mul({_P}, 8.0)", {}),
    (f"mul({_P}, 1.0)", {}),
    (f"div({_P}, 0.5)", {}),
    (f"mul({_P}, 0.0)", {}),
    (f"div({_P}, matmul(h, {_HT}))", {}),  # no number
    (f"div(relu({_P}), 8.0)", {}),
    ("div(where(B, h, h), 8.0)", {}),
    (f"mul(slice({_P}, axis=0, start=0, stop=2, step=1), 0.125)", {}),
    ("div(matmul(h, constant(value=1.0, dtype='float16', shape=(5, 4))), 8.0)", {}),
    (f"div(cast(matmul(cast(h, dtype='float32'), cast({_HT}, dtype='float32')), dtype='float16'), 8.0)", {}),
    (f"div({_P}, 8.0)", {"h": (-50, 50)}),
    (f"div({_P}, 8.0)", {"h": (-114, 114)}),  # 5·114² is a number of float16
]  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), AFTER)
def test_is_scaled_before(body: str, expected: str) -> None:
    proposal = assert_rewrite(RULE, body, {}, _brief(expected))
    assert (proposal.safety, proposal.severity, proposal.message) == ("exact", None, "")
    (candidate,) = proposal.candidates
    certificate = certify_rewrite(proposal.old, candidate)
    assert certificate.accepted, certificate.reason


def _brief(expected: str) -> str:
    from tests.passes.graphs import brief, graph

    return brief(graph(expected).outputs[0])


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body: str, ranges: Ranges) -> None:
    assert_no_match(RULE, body, ranges)


def test_ranges_that_pass_the_format() -> None:
    assert_rewrite(RULE, f"div({_P}, 8.0)", {"h": (-115, 115)}, f"matmul(mul(h, 0.125), {_HT})")


def test_it_is_no_hazard_but_repaired_in_both_hosts() -> None:
    for host in ("fx", "onnx"):
        for hazards in (False, True):
            assert Outcome(f"div({_P}, 8.0)", Options(host=host, hazards=hazards)).codes == ["STB603"]
    assert RULE.condition is not None
    assert RULE.severity == "error"


# --- models ---------------------------------------------------------------------------------------------------------


class _Scores(nn.Module):
    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        return torch.softmax(q @ k.transpose(-1, -2) / 8.0, dim=-1)


class _Linear(nn.Module):
    """A product with a weight, not of data."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4).half())

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight / 8.0


def test_the_defect_is_real_and_repaired() -> None:
    """Entries of 40 in 64 coordinates: 102400, where the scaled score is 12800."""
    q, k = torch.full((2, 64), 40.0).half(), torch.stack([torch.full((64,), s) for s in (40.0, 39.0)]).half()
    assert _Scores()(q, k).isnan().all()
    fixed, report = stabilize.optimize(_Scores(), (q, k), return_report=True)
    assert [r.code for r in report.rewrites] == ["STB603"]
    assert torch.equal(fixed(q, k), torch.tensor([[1.0, 0.0]] * 2).half())


def test_special_rows() -> None:
    """Infinities and NaN stay what they are, and so do rows of zeros and a contracted axis of size 0 and 1."""
    q, k = torch.randn(2, 4, 64).half(), torch.randn(2, 3, 64).half()
    fixed = stabilize.optimize(_Scores(), (q, k))
    for special in (torch.inf, -torch.inf, torch.nan, 0.0, 6e-8):
        changed = q.clone()
        changed[:, 1] = special
        before, after = _Scores()(changed, k), fixed(changed, k)
        assert torch.equal(before.isnan(), after.isnan())
        assert torch.allclose(before.nan_to_num(), after.nan_to_num(), atol=2e-3)
    for size in (0, 1):
        a, b = torch.randn(2, size).half(), torch.randn(3, size).half()
        assert torch.allclose(stabilize.optimize(_Scores(), (a, b))(a, b), _Scores()(a, b), atol=2e-3)


def test_a_product_with_a_weight_is_left_alone() -> None:
    x = torch.randn(2, 4).half()
    assert stabilize.lint(_Linear(), x, budget=0).findings == []


def test_float16_in_onnx() -> None:
    """18432 is 8 in the bits of float16."""
    text = """g (float16[2, 64] q, float16[64, 3] k) => (float16[2, 3] y) <float16 d = {18432}> {
        p = MatMul(q, k)
        y = Div(p, d)
    }"""
    fixed, report = stabilize.optimize(model(text), return_report=True)
    assert [r.code for r in report.rewrites] == ["STB603"]
    assert [n.op_type for n in fixed.graph.node] == ["Mul", "MatMul"]

"""STB243: exponentials of what the model computes, whose infinity comes out of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import stabilize
from stabilize.passes.hazards.unbounded_exponential import RULE
from stabilize.passes.rule import Context
from tests.passes.graphs import Options, Outcome, Ranges, assert_not_told, assert_told, graph, nested
from tests.passes.graphs import context as read_context

FOUND: list[tuple[str, Ranges]] = [
    ("exp(mul(x, z))", {}),
    ("exp(matmul(x, s))", {}),
    ("mul(z, exp(mul(matmul(x, s), 0.5)))", {}),
    ("add(x, mul(z, exp(mul(w, add(x, z)))))", {}),
    ("mean(exp(matmul(x, s)), axes=(0, 1), keepdim=False)", {}),
    ("expm1(matmul(x, s))", {}),
    ("sinh(matmul(x, s))", {}),
    ("pow(2.0, matmul(x, s))", {}),
    ("exp(softplus(matmul(x, s)))", {}),
    ("exp(minimum(matmul(x, s), 100.0))", {}),
    ("exp(x)", {"x": (-100, 100)}),  # an input of which more is said than that it is one
    ("exp(h)", {"h": (-12, 12)}),
]
NEAR_MISSES: list[tuple[str, Ranges]] = [
    ("exp(x)", {}),  # its caller knows its range
    ("exp(mul(x, 2.0))", {}),
    ("exp(exp(x))", {}),
    ("exp(x)", {"x": (-80, 80)}),
    ("exp(h)", {"h": (-11, 11)}),
    ("exp(mul(x, z))", {"x": (-5, 5), "z": (-5, 5)}),
    ("exp(minimum(matmul(x, s), 20.0))", {}),
    ("exp(neg(sum(mul(x, x), axes=(1,), keepdim=True)))", {}),
    ("exp(sub(matmul(x, s), max(matmul(x, s), axes=(1,), keepdim=True)))", {}),
    ("exp(tanh(matmul(x, s)))", {}),
    ("exp(neg(softplus(matmul(x, s))))", {}),
    # --- its infinity does not come out ---
    ("tanh(exp(matmul(x, s)))", {}),
    ("sigmoid(exp(matmul(x, s)))", {}),
    ("minimum(exp(matmul(x, s)), 5.0)", {}),
    ("softmax(exp(matmul(x, s)), axis=1)", {}),
    ("pow(x, 2.0)", {}),
]


@pytest.mark.parametrize("host", ["fx", "onnx"])
@pytest.mark.parametrize(("body", "ranges"), FOUND)
def test_unbounded_exponents(body: str, ranges: Ranges, host: str) -> None:
    proposal = assert_told(RULE, body, ranges, host=host)
    assert proposal.message == ""
    assert (RULE.severity, RULE.poles, RULE.honest) == ("error", True, True)


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body: str, ranges: Ranges) -> None:
    assert_not_told(RULE, body, ranges)


def test_a_rule_that_repairs_speaks_alone() -> None:
    for body in ("div(1.0, add(1.0, exp(matmul(x, s))))", "log(exp(matmul(x, s)))"):
        (code,) = Outcome(body, Options(hazards=True)).codes
        assert code != RULE.code


# --- what escapes ---------------------------------------------------------------------------------------------------


def _escaping(body: str) -> set[str]:
    ctx: Context = read_context(graph(body), Options(hazards=True))
    return {nested(v) for v in ctx.escaping if v.op == "exp"}


@pytest.mark.parametrize(
    ("body", "escapes"),
    [
        ("mul(exp(x), z)", True),
        ("div(exp(x), z)", True),
        ("div(z, exp(x))", False),  # 0 comes out
        ("neg(transpose(exp(x), perm=(1, 0)))", True),
        ("maximum(exp(x), z)", True),
        ("minimum(exp(x), 5.0)", False),
        ("where(B, exp(x), z)", True),
        ("tanh(exp(x))", False),
        ("tanh(sub(exp(x), exp(z)))", True),  # inf − inf
        ("tanh(sub(exp(x), z))", False),
    ],
)
def test_whose_infinity_comes_out(body: str, escapes: bool) -> None:
    assert ("exp(x)" in _escaping(body)) == escapes


# --- models ---------------------------------------------------------------------------------------------------------


class _Rate(nn.Module):
    def __init__(self, limit: float) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(self.linear(x).clamp(max=self.limit))


def test_a_network_makes_the_exponent_even_of_one_input() -> None:
    x = torch.randn(4, 3)
    (finding,) = stabilize.lint(_Rate(float("inf")), x, budget=0).findings
    assert (finding.code, finding.severity, finding.fixable) == ("STB243", "info", False)
    assert stabilize.lint(_Rate(20.0), x, budget=0).findings == []

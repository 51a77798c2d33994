"""STB602: masks that their format stores as −inf, twice the lowest number, or an infinity times zero."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import stabilize
from stabilize.passes.cancellation.mask_beyond_format import RULE
from tests.passes.graphs import assert_no_match

_LOWEST = -65504.0
_OTHER = "not_(B)"


def _additive(number: float, mask: str = "B", like: str = "h") -> str:
    dtype = {"h": "float16", "x": "float32"}[like]
    zero, other = (f"constant(value={k}, dtype='{dtype}', shape=())" for k in (0.0, number))
    return f"where({mask}, {zero}, {other})"


AFTER = {
    "softmax(where(B, h, -1000000000.0), axis=1)": "softmax(where(B, cast(h, dtype='float32'), -1000000000.0), axis=1)",
    "log_softmax(add(h, mul(sub(1.0, cast(B, dtype='float16')), -1000000.0)), axis=1)":
        "log_softmax(add(cast(h, dtype='float32'), "
        "mul(cast(sub(1.0, cast(B, dtype='float16')), dtype='float32'), -1000000.0)), axis=1)",
    "logsumexp(sub(h, mul(sub(1.0, cast(B, dtype='float16')), 1000000.0)), axes=(1,), keepdim=True)":
        "logsumexp(sub(cast(h, dtype='float32'), "
        "mul(cast(sub(1.0, cast(B, dtype='float16')), dtype='float32'), 1000000.0)), axes=(1,), keepdim=True)",
}  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), AFTER.items())
def test_is_carried_in_float32(rewrite, body, expected):
    outcome = rewrite(body)
    assert outcome.codes == ["STB602"]
    assert outcome.after() == f"return cast({expected}, dtype='float16')"


def test_two_masks_of_float16_are_added_in_float32(rewrite):
    body = f"softmax(add(h, add({_additive(_LOWEST)}, {_additive(_LOWEST, _OTHER)})), axis=1)"
    assert rewrite(body).codes == ["STB602"]


def test_two_masks_of_float32_are_reported_only(rewrite):
    lowest = torch.finfo(torch.float32).min
    body = f"softmax(add(x, add({_additive(lowest, like='x')}, {_additive(lowest, _OTHER, 'x')})), axis=1)"
    outcome = rewrite(body)
    assert outcome.codes == ["STB602"]
    assert not outcome.replaced


def test_a_product_with_an_infinity_is_reported_only(rewrite):
    outcome = rewrite("softmax(add(h, mul(sub(1.0, cast(B, dtype='float16')), -inf)), axis=1)")
    assert outcome.codes == ["STB602"]
    assert not outcome.replaced


NEAR_MISSES = [
    ("softmax(where(B, h, -inf), axis=1)", {}),
    ("softmax(where(B, h, -65504.0), axis=1)", {}),
    ("softmax(where(B, h, -10000.0), axis=1)", {}),
    ("softmax(where(B, x, -1000000000.0), axis=1)", {}),
    ("softmax(where(B, G, -1000000000.0), axis=1)", {}),
    ("softmax(mul(h, 0.000001), axis=1)", {}),
    (f"softmax(add(h, {_additive(_LOWEST)}), axis=1)", {}),  # one mask
    (f"softmax(add(h, add({_additive(-30000.0)}, {_additive(-30000.0, _OTHER)})), axis=1)", {}),
]


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)


class _Masked(nn.Module):
    def forward(self, x: Tensor, m: Tensor) -> Tensor:
        return torch.softmax(torch.where(m, x, -1e9), -1)


def test_a_row_that_is_masked_throughout_is_a_mean():
    x, m = torch.randn(2, 4).half(), torch.tensor([[True] * 4, [False] * 4])
    assert _Masked()(x, m)[1].isnan().all()
    fixed = stabilize.optimize(_Masked(), (x, m))
    assert (fixed(x, m)[1] == 0.25).all()
    assert torch.equal(fixed(x, m)[0], _Masked()(x, m)[0])

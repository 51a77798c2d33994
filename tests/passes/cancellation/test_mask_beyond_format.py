"""STB602: masks that their format stores as −inf, twice the lowest number, or an infinity times zero."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import stabilize
from stabilize.formats import FORMATS
from stabilize.passes.cancellation.mask_beyond_format import RULE
from tests.passes.graphs import Options, Outcome, assert_no_match, assert_rewrite

_LOWEST = -65504.0
_OTHER = "not_(B)"


def _additive(number: float, mask: str = "B", like: str = "h") -> str:
    dtype = {"h": "float16", "x": "float32", "G": "bfloat16"}[like]
    zero, other = (f"constant(value={k}, dtype='{dtype}', shape=())" for k in (0.0, number))
    return f"where({mask}, {zero}, {other})"


#: (expression, bounds of its inputs, what takes its place)
AFTER = [
    (
        "softmax(where(B, h, -1000000000.0), axis=1)",
        {},
        "cast(softmax(where(B, cast(h, dtype='float32'), -1000000000.0), axis=1), dtype='float16')",
    ),
    (
        "softmax(where(B, h, -65505.0), axis=1)",
        {},
        "cast(softmax(where(B, cast(h, dtype='float32'), -65505.0), axis=1), dtype='float16')",
    ),
    (
        "softmax(where(B, h, 1000000000.0), axis=1)",
        {},
        "cast(softmax(where(B, cast(h, dtype='float32'), 1000000000.0), axis=1), dtype='float16')",
    ),
    (
        "softmax(add(h, mul(sub(1.0, cast(B, dtype='float16')), -1000000.0)), axis=1)",
        {},
        "cast(softmax(add(cast(h, dtype='float32'), mul(cast(sub(1.0, cast(B, dtype='float16')), "
        "dtype='float32'), -1000000.0)), axis=1), dtype='float16')",
    ),
    (
        "softmax(div(where(B, h, -1000000000.0), 8.0), axis=1)",
        {},
        "cast(softmax(div(where(B, cast(h, dtype='float32'), -1000000000.0), 8.0), axis=1), dtype='float16')",
    ),
    (
        "softmax(neg(where(B, h, 1000000000.0)), axis=1)",
        {},
        "cast(softmax(neg(where(B, cast(h, dtype='float32'), 1000000000.0)), axis=1), dtype='float16')",
    ),
    (
        "softmax(maximum(where(B, h, -1000000000.0), -2000000000.0), axis=1)",
        {},
        "cast(softmax(maximum(where(B, cast(h, dtype='float32'), -1000000000.0), -2000000000.0), axis=1), "
        "dtype='float16')",
    ),
    (
        "softmax(minimum(where(B, h, -1000000000.0), h), axis=1)",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(softmax(minimum(where(B, t1, -1000000000.0), t1), axis=1), dtype='float16')",
    ),
    (
        "softmax(transpose(where(B, h, -1000000000.0), perm=(1, 0)), axis=1)",
        {},
        "cast(softmax(transpose(where(B, cast(h, dtype='float32'), -1000000000.0), perm=(1, 0)), axis=1), "
        "dtype='float16')",
    ),
    (
        "softmax(concat(where(B, h, -1000000000.0), h, axis=0), axis=1)",
        {},
        "t1 = cast(h, dtype='float32')\n"
        "cast(softmax(concat(where(B, t1, -1000000000.0), t1, axis=0), axis=1), dtype='float16')",
    ),
    (
        "softmax(mul(mul(mul(mul(mul(where(B, h, -1000000000.0), 0.5), 0.5), 0.5), 0.5), 0.5), axis=1)",
        {},
        "cast(softmax(mul(mul(mul(mul(mul(where(B, cast(h, dtype='float32'), -1000000000.0), 0.5), 0.5), "
        "0.5), 0.5), 0.5), axis=1), dtype='float16')",
    ),
    (
        "softmax(mul(mul(mul(mul(where(B, h, -1000000000.0), 0.5), 0.5), 0.5), 0.5), axis=1)",
        {},
        "cast(softmax(mul(mul(mul(mul(where(B, cast(h, dtype='float32'), -1000000000.0), 0.5), 0.5), 0.5), "
        "0.5), axis=1), dtype='float16')",
    ),
    (
        "softmax(cast(where(B, h, -1000000000.0), dtype='float32'), axis=1)",
        {},
        "softmax(where(B, cast(h, dtype='float32'), -1000000000.0), axis=1)",
    ),
    (
        "softmax(where(B, G, -3.4028234663852886e+38), axis=1)",
        {},
        "cast(softmax(where(B, cast(G, dtype='float32'), -3.4028234663852886e+38), axis=1), dtype='bfloat16')",
    ),
    (
        "softmax(cast(where(B, h, -1000000000.0), dtype='float64'), axis=1)",
        {},
        "softmax(where(B, cast(h, dtype='float64'), -1000000000.0), axis=1)",
    ),
    (
        "softmax(where(B, cast(x, dtype='float16'), cast(where(gt(x, 0.0), cast(x, dtype='float16'), "
        "-70000.0), dtype='float16')), axis=1)",
        {},
        "t1 = cast(cast(x, dtype='float16'), dtype='float32')\n"
        "cast(softmax(where(B, t1, where(gt(x, 0.0), t1, -70000.0)), axis=1), dtype='float16')",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("body", "ranges", "expected"), AFTER)
def test_is_carried_in_a_wider_format(body, ranges, expected):
    proposal = assert_rewrite(RULE, body, ranges, expected)
    assert (proposal.safety, proposal.severity, proposal.message) == ("exact", None, "")


_TWICE = "masks or a bias add up to a number beyond the format: rows that they mask throughout are NaN"


def _two(first: float, second: float, like: str = "h") -> str:
    return f"add({_additive(first, like=like)}, {_additive(second, _OTHER, like)})"


@pytest.mark.parametrize(("first", "second"), [(_LOWEST, _LOWEST), (-40000.0, -40000.0), (-16376.0, _LOWEST)])
def test_two_masks_of_float16_are_added_in_float32(first, second):
    sides = (f"cast(where({m}, 0.0, {k}), dtype='float32')" for m, k in (("B", first), (_OTHER, second)))
    expected = f"cast(softmax(add(cast(h, dtype='float32'), add({', '.join(sides)})), axis=1), dtype='float16')"
    proposal = assert_rewrite(RULE, f"softmax(add(h, {_two(first, second)}), axis=1)", {}, expected)
    assert (proposal.safety, proposal.message) == ("exact", _TWICE)


@pytest.mark.parametrize("like", ["x", "G"])
def test_two_masks_that_no_wider_format_holds_are_reported_only(like):
    lowest = -torch.finfo({"x": torch.float32, "G": torch.bfloat16}[like]).max
    outcome = Outcome(f"softmax(add({like}, {_two(lowest, lowest, like)}), axis=1)", Options())
    assert outcome.codes == ["STB602"]
    assert not outcome.replaced
    (proposal,) = outcome.proposed
    assert proposal.old is outcome.view.outputs[0]
    assert (proposal.safety, proposal.severity, proposal.message) == (None, "warning", _TWICE)


@pytest.mark.parametrize(
    ("body", "ranges"),
    [
        ("softmax(add(h, mul(sub(1.0, cast(B, dtype='float16')), -inf)), axis=1)", {}),
        ("softmax(add(x, mul(inf, sub(cast(B, dtype='float32'), 1.0))), axis=1)", {}),
        ("softmax(mul(x, -inf), axis=1)", {"x": (0.0, 1.0)}),
        ("softmax(mul(x, -inf), axis=1)", {"x": (-1.0, 0.0)}),
    ],
)
def test_a_product_with_an_infinity_is_reported_only(body, ranges):
    outcome = Outcome(body, Options(), ranges)
    assert outcome.codes == ["STB602"]
    assert not outcome.replaced
    (proposal,) = outcome.proposed
    assert proposal.old is outcome.view.outputs[0]
    told = "a product with an infinity: inf·0 is NaN wherever nothing is masked"
    assert (proposal.safety, proposal.severity, proposal.message) == (None, None, told)


NEAR_MISSES = [
    ("softmax(where(B, h, -inf), axis=1)", {}),
    ("softmax(where(B, h, -65504.0), axis=1)", {}),
    ("softmax(where(B, h, -10000.0), axis=1)", {}),
    ("softmax(where(B, x, -1000000000.0), axis=1)", {}),
    ("softmax(where(B, G, -1000000000.0), axis=1)", {}),
    ("softmax(mul(h, 0.000001), axis=1)", {}),
    (f"softmax(add(h, {_additive(_LOWEST)}), axis=1)", {}),  # one mask
    (f"softmax(add(h, add({_additive(-30000.0)}, {_additive(-30000.0, _OTHER)})), axis=1)", {}),
    ("softmax(mul(x, -inf), axis=1)", {"x": (0.5, 1.0)}),
    (f"softmax({_two(-16000.0, _LOWEST)}, axis=1)", {}),
    (f"softmax({_two(-32752.0, -32752.0)}, axis=1)", {}),
    (f"softmax(sub({_additive(_LOWEST)}, {_additive(_LOWEST, _OTHER)}), axis=1)", {}),
    ("softmax(where(B, h, -1e+39), axis=1)", {}),
    ("softmax(exp(where(B, h, -1000000000.0)), axis=1)", {}),
    ("softmax(cast(where(B, x, -1000000000.0), dtype='float16'), axis=1)", {}),
    ("softmax(where(B, D, -1e+300), axis=1)", {}),
    ("softmax(where(B, x, -1e+39), axis=1)", {}),
    ("softmax(sub(1.0, cast(B, dtype='float16')), axis=1)", {}),
    ("softmax(where(B, G, -1e+38), axis=1)", {}),
    (
        "softmax(mul(mul(mul(mul(mul(mul(where(B, h, -1000000000.0), 0.5), 0.5), 0.5), 0.5), 0.5), 0.5), axis=1)",
        {},
    ),
    ("softmax(mul(gather(where(B, h, -1000000000.0), I, axis=1), 1.0), axis=1)", {}),
    ("softmax(cast(where(B, D, -1e+300), dtype='float32'), axis=1)", {}),
]


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body, ranges):
    assert_no_match(RULE, body, ranges)


class _Masked(nn.Module):
    def forward(self, x: Tensor, m: Tensor) -> Tensor:
        return torch.softmax(torch.where(m, x, -1e9), -1)


def test_special_rows():
    """Rows are those of float64; where the naive code gives a number it is the same. NaN and infinities count."""
    nan, inf = torch.nan, torch.inf
    x = torch.tensor([[1, 2, 3, 4], [nan, 1, 2, 3], [inf, 1, 2, 3], [-inf] * 4, [0] * 4, [65504, -65504, 1, 2]]).half()
    m = torch.ones(6, 4, dtype=torch.bool)
    m[:, 0] = False
    for mask in (torch.ones_like(m), m, ~m):
        fixed, naive = stabilize.optimize(_Masked(), (x, mask))(x, mask), _Masked()(x, mask)
        truth = _Masked()(x.double(), mask)
        assert torch.allclose(fixed.double(), truth, rtol=2e-3, atol=1e-7, equal_nan=True)
        assert torch.allclose(fixed[~naive.isnan()], naive[~naive.isnan()], rtol=2e-3, atol=1e-7)
    none = torch.zeros_like(m)
    assert _Masked()(x, none).isnan().all()
    assert (stabilize.optimize(_Masked(), (x, none))(x, none) == 0.25).all()
    for shape in ((4, 1), (0, 4)):
        x, m = torch.ones(shape).half(), torch.ones(shape, dtype=torch.bool)
        assert torch.equal(stabilize.optimize(_Masked(), (x, m))(x, m), _Masked()(x, m))


def test_the_condition_names_the_format():
    assert RULE.condition(FORMATS["float16"]) == "a row that is masked throughout, in float16"


def test_a_row_that_is_masked_throughout_is_a_mean():
    x, m = torch.randn(2, 4).half(), torch.tensor([[True] * 4, [False] * 4])
    assert _Masked()(x, m)[1].isnan().all()
    fixed = stabilize.optimize(_Masked(), (x, m))
    assert (fixed(x, m)[1] == 0.25).all()
    assert torch.equal(fixed(x, m)[0], _Masked()(x, m)[0])


# --- in a lint ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "bounds"),
    [
        (f"softmax(add({_additive(_LOWEST)}, h), axis=1)", {"h": (-100, 100)}),
        (f"softmax(add(h, {_additive(_LOWEST)}), axis=1)", {"h": (-50, 0)}),
        (f"logsumexp(add({_additive(-65000.0)}, h), axes=(1,), keepdim=True)", {"h": (-1000, 0)}),
    ],
)
def test_a_lint_tells_of_a_mask_and_a_bias(body, bounds):
    assert Outcome(body, Options(), bounds).codes == []
    (proposal,) = Outcome(body, Options(hazards=True), bounds).proposed
    assert (proposal.rule, proposal.message) == (RULE, _TWICE)


@pytest.mark.parametrize(
    ("body", "bounds"),
    [
        (f"softmax(add({_additive(_LOWEST)}, h), axis=1)", {}),  # nothing is known of the bias
        (f"softmax(add({_additive(_LOWEST)}, h), axis=1)", {"h": (0, 100)}),
        (f"softmax(add({_additive(_LOWEST)}, h), axis=1)", {"h": (-15, 0)}),  # it rounds back
        (f"softmax(add({_additive(-60000.0)}, h), axis=1)", {"h": (-5000, 0)}),
        (f"softmax(add({_additive(-15000.0)}, h), axis=1)", {"h": (-15000, 0)}),  # no mask
        (f"relu(add({_additive(_LOWEST)}, h))", {"h": (-100, 100)}),  # no softmax
    ],
)
def test_near_misses_of_a_lint(body, bounds):
    assert "STB602" not in Outcome(body, Options(hazards=True), bounds).codes

"""STB403: layer and RMS normalisation by hand, where its statistics are naive or of float16 squares."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import stabilize
from stabilize.formats import FORMATS
from stabilize.passes.cancellation.naive_normalisation import RULE
from tests.passes.graphs import assert_no_match, assert_same_function, nested

_MU = "mean({0}, axes=(1,), keepdim=True)"
_SQUARE = "mean(mul({0}, {0}), axes=(1,), keepdim=True)"
_CENTRED = f"sub({{0}}, {_MU})"
_NAIVE = f"sub({_SQUARE}, pow({_MU}, 2.0))"
_TWO_PASS = f"mean(pow({_CENTRED}, 2.0), axes=(1,), keepdim=True)"
_EPS = "0.0009765625"


def _spelled(top: str, variance: str, dtype: str = "x") -> str:
    return f"div({top}, sqrt(add({variance}, {_EPS})))".format(dtype)


_ALONE = "layer_norm(x, axis=1, epsilon=0.0009765625)"
_WIDE = "t = cast(h, dtype='float32')\nreturn "
_BOTH = "axes=(1, 2), keepdim=True)"
FOUND = {
    _spelled(_CENTRED, _NAIVE): _ALONE,
    _spelled(_CENTRED, _NAIVE, "G"): _ALONE.replace("x,", "G,"),
    _spelled(_CENTRED, _NAIVE, "D"): _ALONE.replace("x,", "D,"),
    _spelled(_CENTRED, f"maximum({_NAIVE}, 0.0)"): _ALONE,
    _spelled(_CENTRED, f"maximum(0.0, {_NAIVE})"): _ALONE,
    _spelled(_CENTRED, f"relu({_NAIVE})"): _ALONE,
    f"div({_CENTRED}, pow(add({_NAIVE}, {_EPS}), 0.5))".format("x"): _ALONE,
    f"mul({_CENTRED}, div(1.0, sqrt(add({_NAIVE}, {_EPS}))))".format("x"): _ALONE,
    f"mul(div(1.0, pow(add({_EPS}, {_NAIVE}), 0.5)), {_CENTRED})".format("x"): _ALONE,
    f"mul({_CENTRED}, pow(add({_NAIVE}, {_EPS}), -0.5))".format("x"): _ALONE,
    # numbers on either side of the difference
    f"div({_CENTRED}, sqrt(add(add({_NAIVE}, 0.5), 0.25)))".format("x"): "layer_norm(x, axis=1, epsilon=0.75)",
    f"div({_CENTRED}, sqrt(sub(add(0.5, {_SQUARE}), pow({_MU}, 2.0))))".format("x"):
        "layer_norm(x, axis=1, epsilon=0.5)",
    f"div({_CENTRED}, sqrt(sub({_NAIVE}, -0.5)))".format("x"): "layer_norm(x, axis=1, epsilon=0.5)",
    # weights and biases
    f"mul(a, {_spelled(_CENTRED, _NAIVE)})": "layer_norm(x, a, axis=1, epsilon=0.0009765625)",
    f"add(mul({_spelled(_CENTRED, _NAIVE)}, a), b)": "layer_norm(x, a, b, axis=1, epsilon=0.0009765625)",
    f"add(b, {_spelled(f'mul(a, {_CENTRED})', _NAIVE)})": "layer_norm(x, a, b, axis=1, epsilon=0.0009765625)",
    f"mul(mul({_CENTRED}, a), pow(add({_NAIVE}, {_EPS}), -0.5))".format("x"):
        "layer_norm(x, a, axis=1, epsilon=0.0009765625)",
    # what is none stays outside: of other shapes, a bias without a weight, a second weight
    f"mul(R, {_spelled(_CENTRED, _NAIVE)})": _ALONE,
    f"mul(z, {_spelled(_CENTRED, _NAIVE)})": _ALONE,
    f"add({_spelled(_CENTRED, _NAIVE)}, b)": _ALONE,
    f"add(mul({_spelled(_CENTRED, _NAIVE)}, a), R)": "layer_norm(x, a, axis=1, epsilon=0.0009765625)",
    f"mul(mul(a, {_spelled(_CENTRED, _NAIVE)}), b)": "layer_norm(x, a, axis=1, epsilon=0.0009765625)",
    f"mul(w, mul(a, {_spelled(_CENTRED, _NAIVE)}))": "layer_norm(x, a, axis=1, epsilon=0.0009765625)",
    f"add(z, mul(a, {_spelled(_CENTRED, _NAIVE)}))": "layer_norm(x, a, axis=1, epsilon=0.0009765625)",
    f"add(unsqueeze(b, axes=(0,)), mul(a, {_spelled(_CENTRED, _NAIVE)}))":
        "layer_norm(x, a, axis=1, epsilon=0.0009765625)",
    # several axes
    _spelled(_CENTRED, _NAIVE, "q").replace("axes=(1,), keepdim=True)", _BOTH):
        "layer_norm(q, axis=1, epsilon=0.0009765625)",
    # float16 squares, and what is carried in float32
    _spelled(_CENTRED, _TWO_PASS, "h"): "layer_norm(h, axis=1, epsilon=0.0009765625)",
    _spelled("{0}", _SQUARE, "h"): "rms_norm(h, axis=1, epsilon=0.0009765625)",
    _spelled("{0}", "mean(pow({0}, 2.0), axes=(1,), keepdim=True)", "h"): "rms_norm(h, axis=1, epsilon=0.0009765625)",
    f"mul(cast(a, dtype='float16'), {_spelled('{0}', _SQUARE, 'h')})":
        "rms_norm(h, cast(a, dtype='float16'), axis=1, epsilon=0.0009765625)",
    _WIDE + _spelled(_CENTRED, _NAIVE, "t"): "layer_norm(cast(h, dtype='float32'), axis=1, epsilon=0.0009765625)",
    _WIDE + f"mul(a, {_spelled(_CENTRED, _NAIVE, 't')})":
        "layer_norm(cast(h, dtype='float32'), a, axis=1, epsilon=0.0009765625)",
}  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), FOUND.items())
def test_is_fused(rewrite, body, expected):
    outcome = rewrite(body)
    assert outcome.codes == ["STB403"]
    ((old, new),) = outcome.replaced.items()
    assert nested(new) == expected
    assert_same_function(old, new)
    (proposal,) = outcome.proposed
    assert proposal.safety == "exact"
    assert proposal.severity == ("error" if old.dtype == "float16" else "warning")


NEAR_MISSES = [
    _spelled(_CENTRED, _TWO_PASS),  # two passes in float32
    _spelled("{0}", _SQUARE),  # RMS in float32
    _spelled(_CENTRED, _TWO_PASS, "G"),  # bfloat16 has the range of float32
    _spelled("{0}", _SQUARE, "G"),
    _spelled("{0}", _NAIVE),  # not centred
    _spelled(_CENTRED, _SQUARE, "h"),  # centred, over the RMS of what is not
    _spelled(_CENTRED.replace("axes=(1,)", "axes=(0,)"), _NAIVE),
    _spelled(_CENTRED, _NAIVE).replace("axes=(1,)", "axes=(0,)"),  # the first axis alone
    f"div({_CENTRED}, add(sqrt({_NAIVE}), {_EPS}))".format("x"),  # eps beside the root
    f"div({_CENTRED}, sqrt({_NAIVE}))".format("x"),
    f"div({_CENTRED}, sqrt(sub({_NAIVE}, {_EPS})))".format("x"),
    _spelled(_CENTRED, f"mul({_NAIVE}, 1.25)"),  # Bessel's correction
    _spelled("sub({0}, mean(z, axes=(1,), keepdim=True))", _NAIVE),
    _spelled("sub(z, mean({0}, axes=(1,), keepdim=True))", _NAIVE),
    _spelled("sub({0}, mean({0}, axes=(0, 1), keepdim=True))", _NAIVE),
    _spelled("sub({0}, mul(mean({0}, axes=(1,), keepdim=True), 0.5))", _NAIVE),
    _spelled("sub({0}, sum(mul({0}, softmax({0}, axis=1)), axes=(1,), keepdim=True))", _NAIVE),
    _spelled("add({0}, mean({0}, axes=(1,), keepdim=True))", _NAIVE),
    _spelled(_CENTRED, f"add({_NAIVE}, z)"),  # not a number
    _spelled(_CENTRED, f"sub(mean(mul({{0}}, z), axes=(1,), keepdim=True), mul({_MU}, {_MU.format('z')}))"),
    # not kept: on a square matrix the statistics of rows, laid out as a row
    _spelled(_CENTRED, _NAIVE, "s").replace("keepdim=True", "keepdim=False"),
    _spelled("{0}", _SQUARE, "cast(s, dtype='float16')").replace("keepdim=True", "keepdim=False"),
    _spelled(_CENTRED, _NAIVE, "q"),  # an axis in the middle
    f"mul({_CENTRED}, div(2.0, sqrt(add({_NAIVE}, {_EPS}))))".format("x"),
    f"mul({_CENTRED}, sqrt(add({_NAIVE}, {_EPS})))".format("x"),
    f"mul({_CENTRED}, pow(add({_NAIVE}, {_EPS}), 0.5))".format("x"),
    f"div({_CENTRED}, pow(add({_NAIVE}, {_EPS}), 0.25))".format("x"),
    f"mul({_CENTRED}, pow(add({_NAIVE}, {_EPS}), -0.25))".format("x"),
    f"mul({_CENTRED}, exp(add({_NAIVE}, {_EPS})))".format("x"),
    _spelled("{0}", "mean(mul({0}, z), axes=(1,), keepdim=True)", "cast(x, dtype='float16')").replace("z", "h"),
    _spelled("{0}", "mul(2.0, mean(mul({0}, {0}), axes=(1,), keepdim=True))", "h"),
    _spelled("{0}", "sum(mul(softmax({0}, axis=1), mul({0}, {0})), axes=(1,), keepdim=True)", "h"),
    _spelled("{0}", "mean(mul({0}, {0}), axes=(0,), keepdim=True)", "h"),
    _spelled("add(h, {0})", _SQUARE, "h"),
    _WIDE + _spelled("{0}", _SQUARE, "t"),  # RMS of float16 numbers in float32
]


@pytest.mark.parametrize("body", NEAR_MISSES)
def test_near_misses(body):
    assert_no_match(RULE, body, {})


class _Norm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        m = x.mean(-1, keepdim=True)
        return (x - m) * torch.rsqrt((x * x).mean(-1, keepdim=True) - m * m + 1e-5)


@pytest.mark.parametrize(("dtype", "centre"), [(torch.float16, 1000.0), (torch.bfloat16, 40.0), (torch.float32, 1e4)])
def test_the_defect_is_real_and_repaired(dtype, centre):
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(8, 64, generator=generator, dtype=torch.float64) + centre).to(dtype)
    truth = nn.functional.layer_norm(x.double(), (64,))
    fixed, report = stabilize.optimize(_Norm(), (x,), return_report=True)
    assert [r.code for r in report.rewrites] == ["STB403"]
    assert not ((_Norm()(x).double() - truth).abs() < 0.5).all()
    size = (x.double().abs() + centre) * (x.double().var(-1, unbiased=False, keepdim=True) + 1e-5).rsqrt()
    wide = torch.finfo(torch.float32).eps
    assert ((fixed(x).double() - truth).abs() <= 4 * wide * size + torch.finfo(dtype).eps * (1 + truth.abs())).all()


def test_widened_rows_are_normalised_in_float32():
    """Rounding to float16 in between would be worse than what the naive code gives on benign rows."""

    class Wide(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return _Norm()(x.float())

    x = (torch.randn(4, 32, generator=torch.Generator().manual_seed(0)) + 500).half()
    truth = nn.functional.layer_norm(x.double(), (32,))
    fixed, report = stabilize.optimize(Wide(), (x,), return_report=True)
    assert [r.code for r in report.rewrites] == ["STB403"]
    assert not report.declined
    assert (fixed(x) - truth).abs().max() < 1e-4 < (Wide()(x) - truth).abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_special_rows(dtype):
    """Rows of one number, and of 0, have variance 0: the guard keeps them finite. NaN and infinities stay NaN."""
    rows = torch.tensor(
        [[0.0] * 4, [3.0] * 4, [0.0, torch.nan, 1.0, 2.0], [0.0, torch.inf, 1.0, 2.0], [-torch.inf] * 4]
    )
    rows = rows.to(dtype)
    fixed, report = stabilize.optimize(_Norm(), (torch.randn(5, 4).to(dtype),), return_report=True)
    assert [r.code for r in report.rewrites] == ["STB403"]
    assert (fixed(rows)[:2] == 0).all()
    assert fixed(rows)[2:].isnan().all()
    assert torch.equal(fixed(rows).isnan()[:3], _Norm()(rows).isnan()[:3])
    leaf = rows[:2].clone().requires_grad_()
    fixed(leaf).sum().backward()
    assert leaf.grad.isfinite().all()
    for shape in ((4, 1), (4, 0), (0, 4)):
        x = torch.ones(shape, dtype=dtype)
        assert torch.equal(stabilize.optimize(_Norm(), (x,))(x), _Norm()(x))


def test_the_condition_tells_both_limits():
    condition = RULE.condition(FORMATS["float16"])
    assert condition == "entries above 255.9, or a mean above 45.3 deviations, in float16"


class _HuggingFace(nn.Module):
    """RMSNorm as written for half precision: carried in float32, rounded before the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(16))

    def forward(self, x: Tensor) -> Tensor:
        dtype, x = x.dtype, x.to(torch.float32)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * x.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_stable_code_comes_back_untouched(dtype):
    x = torch.randn(4, 16, dtype=dtype)
    module = _HuggingFace().to(dtype)
    fixed, report = stabilize.optimize(module, (x,), return_report=True)
    assert not report.findings
    assert torch.equal(fixed(x), module(x))

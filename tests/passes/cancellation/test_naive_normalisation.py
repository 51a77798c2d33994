"""STB403: layer and RMS normalisation by hand, where its statistics are naive or of float16 squares."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import stabilize
from stabilize.passes.cancellation.naive_normalisation import RULE
from tests.passes.graphs import assert_no_match

_MU = "mean({0}, axes=(1,), keepdim=True)"
_SQUARE = "mean(mul({0}, {0}), axes=(1,), keepdim=True)"
_CENTRED = f"sub({{0}}, {_MU})"
_NAIVE = f"sub({_SQUARE}, pow({_MU}, 2.0))"
_TWO_PASS = f"mean(pow({_CENTRED}, 2.0), axes=(1,), keepdim=True)"
_EPS = "0.0009765625"


def _spelled(top: str, variance: str, dtype: str = "x") -> str:
    return f"div({top}, sqrt(add({variance}, {_EPS})))".format(dtype)


FOUND = {
    _spelled(_CENTRED, _NAIVE): "layer_norm(x, axis=1, epsilon=0.0009765625)",
    _spelled(_CENTRED, f"maximum({_NAIVE}, 0.0)"): "layer_norm(x, axis=1, epsilon=0.0009765625)",
    _spelled(_CENTRED, f"relu({_NAIVE})"): "layer_norm(x, axis=1, epsilon=0.0009765625)",
    f"mul({_CENTRED}, div(1.0, sqrt(add({_NAIVE}, {_EPS}))))".format(
        "x"
    ): "layer_norm(x, axis=1, epsilon=0.0009765625)",
    f"mul({_CENTRED}, pow(add({_NAIVE}, {_EPS}), -0.5))".format("x"): "layer_norm(x, axis=1, epsilon=0.0009765625)",
    f"mul(a, {_spelled(_CENTRED, _NAIVE)})": "layer_norm(x, a, axis=1, epsilon=0.0009765625)",
    f"add(mul({_spelled(_CENTRED, _NAIVE)}, a), b)": "layer_norm(x, a, b, axis=1, epsilon=0.0009765625)",
    f"add(b, {_spelled(f'mul(a, {_CENTRED})', _NAIVE)})": "layer_norm(x, a, b, axis=1, epsilon=0.0009765625)",
    _spelled(_CENTRED, _TWO_PASS, "h"): "layer_norm(h, axis=1, epsilon=0.0009765625)",
    _spelled("{0}", _SQUARE, "h"): "rms_norm(h, axis=1, epsilon=0.0009765625)",
}


@pytest.mark.parametrize(("body", "expected"), FOUND.items())
def test_is_fused(rewrite, body, expected):
    outcome = rewrite(body)
    assert outcome.codes == ["STB403"]
    assert outcome.after() == f"return {expected}"


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
]


@pytest.mark.parametrize("body", NEAR_MISSES)
def test_near_misses(body):
    assert_no_match(RULE, body, {})


def test_a_weight_along_rows_stays_outside(rewrite):
    after = rewrite(f"mul(R, {_spelled(_CENTRED, _NAIVE)})").after()
    assert after == "return layer_norm(x, axis=1, epsilon=0.0009765625)"


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

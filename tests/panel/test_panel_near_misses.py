"""Near misses keep their meaning: nothing fused that is not the function that the user wrote.

The reference is the user's own formula in float64 on the numbers of a narrower format: all of it, special values
included, is representable there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import stabilize
from stabilize.formats import FORMATS, Format
from stabilize.report import Report
from tests.panel import hosts, near_geometry, near_misses, stable_forms
from tests.panel.inputs import DTYPES, generate
from tests.panel.near_miss import NearMiss

NEAR_MISSES = [*near_misses.FORMS.entries, *stable_forms.FORMS.entries, *near_geometry.FORMS.entries]


Case = tuple[str, tuple[Tensor, ...]]


class Formula(nn.Module):
    """A near miss as a module; the result is always a tuple."""

    def __init__(self, miss: NearMiss) -> None:
        super().__init__()
        self._formula = miss.fn

    def forward(self, *args: Tensor) -> tuple[Tensor, ...]:
        result = self._formula(*args)
        return result if isinstance(result, tuple) else (result,)


def _cases(miss: NearMiss, dtype: str) -> list[Case]:
    """The families, then each special row: in the first argument that takes one, at its first row."""
    cases = [(family, generate(miss.inputs, family, dtype, miss.name)) for family in miss.families]
    for row in miss.rows:
        inputs = [t.clone() for t in generate(miss.inputs, "benign", dtype, miss.name)]
        first = next(i for i, a in enumerate(miss.inputs) if a.role in ("logits", "real", "positive"))
        inputs[first][0] = torch.tensor(row, dtype=torch.float64).to(DTYPES[dtype])
        cases.append((f"row {row}", tuple(inputs)))
    return cases


def _wide(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(t.double() if t.is_floating_point() else t for t in inputs)


def _allowed(miss: NearMiss, inputs: tuple[Tensor, ...], want: float, fmt: Format) -> float:
    r = 1.0
    for spec, t in zip(miss.inputs, inputs, strict=True):
        finite = t[t.isfinite()] if spec.exponent else t[:0]
        r += 2 * float(finite.double().abs().max()) if finite.numel() else 0.0
    linear = (24 + 2 * r) * fmt.u * abs(want)
    return linear + ((r + 8) * fmt.u if miss.domain == "log" else 0.0) + 4 * fmt.tiny


def _agrees(got: float, want: float, allowed: float, fmt: Format) -> bool:
    if math.isnan(want) or math.isnan(got):
        return math.isnan(want) and math.isnan(got)
    if math.isinf(want) or abs(want) > fmt.max:
        return got == math.copysign(math.inf, want) or abs(got - want) <= allowed
    return abs(got - want) <= allowed


def _check_preserved(miss: NearMiss, before: nn.Module, after: object, dtype: str) -> None:
    """Wherever the original was right, so is the result; where the formula itself is undefined, nothing changes."""
    fmt = FORMATS[dtype]
    for name, inputs in _cases(miss, dtype):
        with torch.no_grad():
            reference, original = before(*_wide(inputs)), before(*inputs)
            fixed = after(*inputs)  # type: ignore[operator]
        for want_t, old_t, new_t in zip(reference, original, fixed, strict=True):
            assert new_t.shape == old_t.shape
            assert new_t.dtype == old_t.dtype
            flat = zip(*(t.double().flatten().tolist() for t in (want_t, old_t, new_t)), strict=True)
            for i, (want, old, new) in enumerate(flat):
                allowed = _allowed(miss, inputs, want, fmt)
                right = _agrees(old, want, allowed, fmt)
                fine = _agrees(new, want, allowed, fmt)
                assert fine or not right, f"{name}[{i}]: {old!r} became {new!r}, float64 says {want!r} ± {allowed:.3g}"


def _check_gradients(miss: NearMiss, before: nn.Module, after: nn.Module) -> None:
    """In float64: where the original gradient is finite, the new one equals it. What is NaN has none."""
    for name, inputs in _cases(miss, "float64"):
        if name not in ("benign", "tail") and not name.startswith("row"):
            continue
        with torch.no_grad():
            defined = [~t.isnan() for t in before(*inputs)]
        for old, new in zip(_slopes(before, inputs, defined), _slopes(after, inputs, defined), strict=True):
            known = old.isfinite()
            assert torch.allclose(new[known], old[known], rtol=1e-9, atol=1e-12), f"{name}: {old} became {new}"


def _slopes(module: nn.Module, inputs: tuple[Tensor, ...], defined: list[Tensor]) -> list[Tensor]:
    """Gradients of a weighted sum of the outputs, zeros where there is none; nothing is asked of undefined elements."""
    leaves = [t.clone().requires_grad_(t.is_floating_point()) for t in inputs]
    wanted = [t for t in leaves if t.requires_grad]
    terms = [t.masked_fill(~known, 0.0) * _cotangent(t) for t, known in zip(module(*leaves), defined, strict=True)]
    total = torch.stack([t.sum() for t in terms if t.is_floating_point()]).sum()
    if not total.requires_grad:
        return [torch.zeros_like(t) for t in wanted]
    grads = torch.autograd.grad(total, wanted, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(wanted, grads, strict=True)]


def _cotangent(t: Tensor) -> Tensor:
    return torch.linspace(-1.0, 2.0, t.numel(), dtype=t.dtype).reshape(t.shape)


def _check_report(demand: str, report: Report) -> None:
    if demand != "preserved":
        assert not report.rewrites, str(report)
    if demand == "clean":
        assert not report.findings, str(report)


def test_there_are_enough() -> None:
    assert len(NEAR_MISSES) >= 40
    assert len({m.name for m in NEAR_MISSES}) == len(NEAR_MISSES)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("miss", NEAR_MISSES, ids=lambda m: m.name)
def test_values_on_pytorch(miss: NearMiss, dtype: str) -> None:
    before = Formula(miss).eval()
    benign = generate(miss.inputs, "benign", dtype, miss.name)
    after, report = stabilize.optimize(before, benign, return_report=True)
    demand = miss.demand_in(dtype)
    _check_report(demand, report)
    if demand == "preserved":
        _check_preserved(miss, before, after, dtype)
    else:
        _check_identical(miss, before, after, dtype)


def _check_identical(miss: NearMiss, before: nn.Module, after: nn.Module, dtype: str) -> None:
    for name, inputs in _cases(miss, dtype):
        with torch.no_grad():
            for old, new in zip(before(*inputs), after(*inputs), strict=True):
                assert torch.equal(old.isnan(), new.isnan()), name
                assert torch.equal(old[~old.isnan()], new[~new.isnan()]), name


@pytest.mark.parametrize(
    "miss", [m for m in NEAR_MISSES if m.demand == "preserved" and m.differentiable], ids=lambda m: m.name
)
def test_gradients_on_pytorch(miss: NearMiss) -> None:
    before = Formula(miss).eval()
    benign = generate(miss.inputs, "benign", "float64", miss.name)
    _check_gradients(miss, before, stabilize.optimize(before, benign))


@pytest.mark.parametrize("miss", [m for m in NEAR_MISSES if m.exportable], ids=lambda m: m.name)
def test_on_onnx(miss: NearMiss) -> None:
    before = Formula(miss).eval()
    benign = generate(miss.inputs, "benign", "float32", miss.name)
    naive = hosts.export(before, benign)
    fixed, report = stabilize.optimize(naive, return_report=True)
    _check_report(miss.demand, report)
    if miss.demand != "preserved":
        assert fixed.SerializeToString() == naive.SerializeToString()
        return
    session = hosts.session(fixed)

    def run(*inputs: Tensor) -> list[Tensor]:
        feeds = {i.name: t.numpy() for i, t in zip(session.get_inputs(), inputs, strict=True)}
        return [torch.from_numpy(o) for o in session.run(None, feeds)]

    _check_preserved(miss, before, run, "float32")


class _Wrong(nn.Module):
    """What a careless rewriter would put in the place of a near miss."""

    def __init__(self, formula: Callable[..., Tensor]) -> None:
        super().__init__()
        self._formula = formula

    def forward(self, *args: Tensor) -> tuple[Tensor]:
        return (self._formula(*args),)


def _shifted_by_masked_maximum(x: Tensor) -> Tensor:
    e = torch.exp(x - x.amax(-1, keepdim=True)) * torch.tensor([0, 1, 1, 1, 1]).to(x.dtype)
    return e / e.sum(-1, keepdim=True)


_CARELESS: dict[str, Callable[..., Tensor]] = {
    "square_wrong_axis": lambda x: torch.softmax(x, -1),
    "log_of_other_axis": lambda x: torch.log_softmax(x, -1),
    "sum_of_another": lambda x, z: torch.softmax(x, -1),
    "eps_that_matters": lambda x: torch.softmax(x, -1),
    "dead_row_with_eps": lambda x, m: torch.softmax(x.masked_fill(~m, -torch.inf), -1),
    "masked_maximum": lambda x: _shifted_by_masked_maximum(x),
    "log_of_square": lambda x: 2 * torch.log(x),
    "log_of_difference": lambda a, b: torch.log((a.exp() - b.exp()).abs()),
    "two_instead_of_one": torch.sigmoid,
    "softmax_one_shifted_wrongly": lambda x: torch.softmax(F.pad(x, (0, 1)), -1)[..., :-1],
}


@pytest.mark.parametrize("name", _CARELESS)
def test_a_careless_fusion_is_caught(name: str) -> None:
    miss = next(m for m in NEAR_MISSES if m.name == name)
    with pytest.raises(AssertionError):
        _check_preserved(miss, Formula(miss), _Wrong(_CARELESS[name]), "float32")


def test_a_careless_gradient_is_caught() -> None:
    miss = next(m for m in NEAR_MISSES if m.name == "detached_denominator")
    with pytest.raises(AssertionError):
        _check_gradients(miss, Formula(miss), _Wrong(lambda x: torch.softmax(x, -1)))

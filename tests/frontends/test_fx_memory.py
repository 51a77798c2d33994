"""In-place operators, views and aliases: what is read is right or opaque, and patches respect memory.

Random programs over shared memory are exported, read and patched with rewrites that change nothing (a·b → b·a,
a → −(−a)); results, and what the program does to its inputs, must equal eager PyTorch's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from stabilize.frontends.fx import open_exported, open_graph_module
from stabilize.graph.value import Value, cone
from stabilize.graph.view import Replacement
from stabilize.verify.execute import execute

X = torch.linspace(-2, 2, 12).reshape(3, 4)


class _Program(nn.Module):
    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> object:
        return self.function(*inputs)


def _export(function: Callable[..., object], *inputs: torch.Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(_Program(function), tuple(t.clone() for t in inputs))


# --- reading --------------------------------------------------------------------------------------------------


def _softmax_in_place(x: torch.Tensor) -> torch.Tensor:
    e = torch.exp(x)
    e /= e.sum(-1, keepdim=True)
    return e


def _use_after_write(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    e = torch.exp(x)
    s = e.sum(-1, keepdim=True)
    f = e.div_(s)
    return e + 1, f * 2, s


def _view_sees_the_write(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    e = torch.exp(x)
    row = e[0]
    turned = e.transpose(0, 1)
    e.mul_(2)
    return row + 0, turned.unsqueeze(0) * 1, e


def _write_through_a_view(x: torch.Tensor) -> torch.Tensor:
    e = torch.exp(x)
    e[0].mul_(2)
    return e + 1


def _assignment(x: torch.Tensor) -> torch.Tensor:
    e = torch.exp(x)
    e[:, 0] = 0.0
    return e * 3


def _input_is_written(x: torch.Tensor) -> torch.Tensor:
    x.exp_()
    return x + 1


def _detached_alias(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    e = torch.exp(x)
    d = e.detach()
    d.mul_(2)
    return e + 0, d + 0


def _masked_fill(x: torch.Tensor) -> torch.Tensor:
    s = x * 2
    s.masked_fill_(x > 0, float("-inf"))
    return s


def _copy_and_zero(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    a = x * 2
    b = x * 3
    a.copy_(b)
    b.zero_()
    return a, b


def _maybe_a_copy(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    e = torch.exp(x)
    flat = e.transpose(0, 1).reshape(-1)
    same = e.reshape(-1)
    e.add_(1)
    return flat * 1, same * 1


def _half_by_float(x: torch.Tensor) -> torch.Tensor:
    h = x.half()
    h.mul_(x.double() * 1e6)
    return h


EXACT = (_softmax_in_place, _use_after_write, _view_sees_the_write, _input_is_written, _masked_fill, _copy_and_zero)
OPAQUE = (_write_through_a_view, _assignment, _detached_alias, _maybe_a_copy, _half_by_float)


@pytest.mark.parametrize("function", EXACT, ids=lambda f: f.__name__)
def test_a_write_is_read_exactly(function: Callable[..., object]) -> None:
    """Everything that the program returns is known, and is what eager PyTorch returns."""
    view = open_exported(_export(function, X)).view
    expected = _flat(function(X.clone()))
    values = list(view.outputs[: len(expected)])
    assert not any(v.op == "opaque" for v in cone(values))
    for actual, wanted in zip(execute(values, {view.bindings[_input(view.bindings)]: X}), expected, strict=True):
        torch.testing.assert_close(actual, wanted)


@pytest.mark.parametrize("function", OPAQUE, ids=lambda f: f.__name__)
def test_what_is_not_certain_is_opaque(function: Callable[..., object]) -> None:
    """Whatever is not opaque is still right."""
    view = open_exported(_export(function, X)).view
    assert any(v.op == "opaque" for v in cone(view.outputs))
    _check_known(view.outputs, _flat(function(X.clone())), view.bindings[_input(view.bindings)])


def _input(bindings: dict[str, Value]) -> str:
    return next(name for name, v in bindings.items() if v.op == "input" and v.shape == (3, 4))


def _check_known(outputs: tuple[Value, ...], expected: list[torch.Tensor], leaf: Value) -> int:
    known = 0
    for value, wanted in zip(outputs, expected, strict=False):
        if not any(v.op == "opaque" for v in cone([value])):
            torch.testing.assert_close(execute([value], {leaf: X})[0], wanted)
            known += 1
    return known


def _flat(result: object) -> list[torch.Tensor]:
    return list(result) if isinstance(result, (list, tuple)) else [result]  # type: ignore[list-item]


# --- patching -------------------------------------------------------------------------------------------------


def _run(program: Callable[..., object]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Results, and the input after the call."""
    x = X.clone()
    results = [t.clone() for t in _flat(program(x))]
    return results, x


def _same_function(function: Callable[..., object], patched: Callable[..., object]) -> None:
    for a, b in zip(*(_run(p) for p in (function, patched)), strict=True):
        torch.testing.assert_close(a, b, equal_nan=True)


def _softmax_of(view_outputs: tuple[Value, ...], make: Callable[..., Value]) -> Replacement:
    old = next(v for v in cone(view_outputs) if v.op == "div")
    return Replacement(old, make("softmax", old.operands[0].operands[0], axis=1))


def test_naive_softmax_in_place_leaves_nothing_behind() -> None:
    host = open_exported(_export(_softmax_in_place, X))
    patched = host.patched([_softmax_of(host.view.outputs, host.view.builder.make)]).model()
    assert [n.target for n in patched.graph.nodes if n.op == "call_function"] == [torch.ops.aten.softmax.int]
    _same_function(_softmax_in_place, patched.module())


def test_the_effect_on_an_input_is_kept() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        x.exp_()
        x.div_(x.sum(-1, keepdim=True))
        return x * 2

    host = open_exported(_export(function, X))
    patched = host.patched([_softmax_of(host.view.outputs, host.view.builder.make)]).model()
    assert torch.ops.aten.copy_.default in [n.target for n in patched.graph.nodes]
    _same_function(function, patched.module())


def test_a_later_write_gets_memory_of_its_own() -> None:
    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        e = torch.exp(x)
        p = e / e.sum(-1, keepdim=True)
        q = torch.exp(x)
        q = q / q.sum(-1, keepdim=True)
        p.mul_(2)
        return p, q

    host = open_exported(_export(function, X))
    patched = host.patched([_softmax_of(host.view.outputs, host.view.builder.make)]).model()
    _same_function(function, patched.module())


def test_a_view_kept_from_before_the_write_keeps_the_write() -> None:
    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        e = torch.exp(x)
        row = e[0]
        e /= e.sum(-1, keepdim=True)
        return e * 1, row

    host = open_exported(_export(function, X))
    patched = host.patched([_softmax_of(host.view.outputs, host.view.builder.make)]).model()
    _same_function(function, patched.module())


@dataclass(frozen=True)
class _Step:
    kind: str
    a: int
    b: int


_KINDS = (
    "exp", "mul", "add", "mul_", "add_", "sub_", "neg_", "transpose", "view", "row", "detach", "clone", "copy_",
    "zero_", "reshape", "scale", "fill_row", "same",
)  # fmt: skip


def _interpret(steps: list[_Step], x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Run a random program; every name is a 3×4 tensor or a view of one."""
    names = [x, x * 0.5]
    for step in steps:
        a, b = names[step.a % len(names)], names[step.b % len(names)]
        match step.kind:
            case "exp":
                names.append(torch.tanh(a))
            case "mul":
                names.append(a * b)
            case "add":
                names.append(a + b)
            case "scale":
                names.append(a * 1.5)
            case "mul_":
                names.append(a.mul_(b.clone()))
            case "add_":
                names.append(a.add_(0.25))
            case "sub_":
                a -= 1.0
            case "neg_":
                a.neg_()
            case "transpose":
                names.append(a.transpose(0, 1).contiguous().transpose(0, 1))
            case "view":
                names.append(a.unsqueeze(0).squeeze(0))
            case "row":
                names.append(a[:1].expand(3, 4) + 0.0)
            case "detach":
                names.append(a.detach())
            case "clone":
                names.append(a.clone())
            case "copy_":
                a.copy_(b.clone())
            case "zero_":
                a.zero_()
            case "reshape":
                names.append(a.reshape(12).reshape(3, 4))
            case "fill_row":
                a[1].fill_(0.5)
            case "same":
                names.append(a.to(torch.float32))
            case _:
                raise AssertionError(step.kind)
    return tuple(n * 1.0 for n in names)


_STEPS = st.lists(
    st.builds(_Step, st.sampled_from(_KINDS), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=9
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=_STEPS, choice=st.lists(st.integers(0, 99), min_size=1, max_size=6), negate=st.booleans())
def test_random_programs_over_shared_memory(steps: list[_Step], choice: list[int], negate: bool) -> None:
    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return _interpret(steps, x)

    host = open_exported(_export(function, X))
    view = host.view
    expected = [t.clone() for t in function(X.clone())]
    _check_known(view.outputs, expected, view.bindings[_input(view.bindings)])

    replacements: dict[Value, Replacement] = {}
    candidates = [v for v in dict.fromkeys(view.bindings.values()) if v.op in ("mul", "add", "tanh", "neg", "sub")]
    for index in choice:
        if candidates:
            old = candidates[index % len(candidates)]
            replacements[old] = Replacement(old, _rewritten(view.builder.make, old, negate))
    possible = [r for r in replacements.values() if host.refusal(r) is None]
    _same_function(function, host.patched(possible).model().module())


def _rewritten(make: Callable[..., Value], old: Value, negate: bool) -> Value:
    if negate or old.op not in ("mul", "add"):
        return make("neg", make("neg", old))
    return make(old.op, *reversed(old.operands))


def test_the_same_programs_at_torch_level() -> None:
    """In-place functions, operators and methods of a torch-level graph."""

    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        e = x.exp()
        e.div_(e.sum(-1, keepdim=True))
        y = torch.nn.functional.relu(x * 2, inplace=True)
        return e, y

    host = open_graph_module(_traced(function), (X,))
    patched = host.patched([_softmax_of(host.view.outputs, host.view.builder.make)]).model()
    assert not any(n.target == "div_" for n in patched.graph.nodes)
    _same_function(function, patched)


def _traced(function: Callable[..., object]) -> torch.fx.GraphModule:
    return torch.fx.GraphModule(nn.Module(), torch.fx.Tracer().trace(function))

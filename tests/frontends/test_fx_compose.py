"""What `optimize` returns for a module is a module like any other: traced, exported, copied, pickled, transformed.

Every test runs on both kinds: captured before (for one call), and captured at the first call, whoever makes it.
"""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import stabilize

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))


class Head(nn.Module):
    """log softmax over logits of some hundreds: infinite as it is written."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("gain", torch.ones(1))
        self.temperature = 1.0
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(8) * 300)
            self.linear.bias.zero_()

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Log-probabilities of x."""
        logits = self.drop(self.linear(x)) * self.gain / self.temperature
        if mask is not None:
            logits = logits.masked_fill(mask, float("-inf"))
        e = torch.exp(logits)
        return torch.log(e / e.sum(-1, keepdim=True))


def wanted(x: torch.Tensor, factor: float = 300.0) -> torch.Tensor:
    return F.log_softmax(x.double() * factor, -1).float()


def check(actual: torch.Tensor, x: torch.Tensor, factor: float = 300.0) -> None:
    """A logit z = 300·x carries a relative error of one rounding, the result the same absolute error: u·300·|x|·2."""
    assert actual.shape == x.shape
    torch.testing.assert_close(actual, wanted(x, factor), rtol=1e-6, atol=4 * 2**-24 * factor * float(x.abs().max()))


@pytest.fixture(params=["captured", "lazy"])
def fixed(request: pytest.FixtureRequest) -> Iterator[Any]:
    model = Head().eval()
    assert not torch.isfinite(model(X)).all()
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*runs as written")
        yield stabilize.optimize(model) if request.param == "lazy" else stabilize.optimize(model, (X,))
    torch._dynamo.reset()


def programs(module: Any) -> int:
    return len(module._rewritten.variants)


# --- torch.compile ----------------------------------------------------------------------------------------------------


def test_compiled_in_one_graph(fixed: Any) -> None:
    compiled = torch.compile(fixed, fullgraph=True, backend="eager")
    for rows in (4, 6, 7, 9):
        x = torch.randn(rows, 8)
        check(compiled(x), x)
    assert programs(fixed) == 2


@pytest.mark.parametrize("dynamic", ["compile", "mark"])
def test_compiled_with_open_sizes(fixed: Any, dynamic: str) -> None:
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(fixed, fullgraph=True, backend=counter, dynamic=True if dynamic == "compile" else None)
    for rows in (4, 6, 7, 9):
        x = torch.randn(rows, 8)
        if dynamic == "mark":
            torch._dynamo.mark_dynamic(x, 0)
        check(compiled(x), x)
    assert counter.frame_count == 1


def test_compiled_follows_modes_and_attributes(fixed: Any) -> None:
    compiled = torch.compile(fixed, fullgraph=True, backend="aot_eager")
    check(compiled(X), X)
    fixed.train()
    assert (compiled(X) != compiled(X)).any()
    fixed.eval()
    fixed.temperature = 2.0
    check(compiled(X), X, 150.0)
    compiled(X)[:, 0].sum().backward()
    assert torch.isfinite(fixed.linear.weight.grad).all()


def test_a_compiled_capture_warns_when_it_cannot_be_made() -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.sum() > 0:
                x = x + 1
            return torch.exp(x)

    with pytest.warns(UserWarning, match="Branching runs as written, not as rewritten"):
        y = torch.compile(stabilize.optimize(Branching()), backend="eager")(X)
    torch.testing.assert_close(y, Branching()(X))


# --- torch.export, ONNX, TorchScript ----------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [False, True])
def test_exported(fixed: Any, strict: bool) -> None:
    program = torch.export.export(fixed, (X,), strict=strict)
    check(program.module()(X), X)
    assert set(program.state_dict) == {"linear.weight", "linear.bias", "gain"}


@pytest.mark.parametrize("strict", [False, True])
def test_exported_with_dynamic_shapes(fixed: Any, strict: bool) -> None:
    shapes = {"x": {0: torch.export.Dim("rows", min=2, max=64)}}
    program = torch.export.export(fixed, (), {"x": X}, dynamic_shapes=shapes, strict=strict)
    x = torch.randn(9, 8)
    check(program.module()(x=x), x)
    assert stabilize.optimize(program) is program


@pytest.mark.parametrize("dynamo", [True, False])
def test_exported_to_onnx(fixed: Any, dynamo: bool) -> None:
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if dynamo:
            torch.onnx.export(fixed, (X,), dynamo=True, verbose=False).save(file)
        else:
            torch.onnx.export(fixed, (X,), file, dynamo=False)
    session = runtime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {session.get_inputs()[0].name: X.numpy()})
    check(torch.from_numpy(result), X)
    kinds = {n.op_type for n in onnx.load_from_string(file.getvalue()).graph.node}
    assert "LogSoftmax" in kinds
    assert "Exp" not in kinds


def test_traced_to_torchscript(fixed: Any) -> None:
    traced = torch.jit.trace(fixed, (X,))
    check(traced(X), X)
    assert "log_softmax" in str(traced.graph)


# --- copies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("called", [False, True])
def test_pickled(fixed: Any, called: bool) -> None:
    if called:
        fixed(X)
        fixed(torch.randn(6, 8))
    file = io.BytesIO()
    torch.save(fixed, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert isinstance(loaded, Head)
    assert programs(loaded) == programs(fixed)
    x = torch.randn(9, 8)
    check(loaded(x), x)
    assert loaded.linear.weight is not fixed.linear.weight
    if called:
        assert programs(loaded) == 2
        assert len(pickle.dumps(fixed)) < 200_000


def test_programs_keep_no_weights(fixed: Any) -> None:
    """After a conversion or a sharding the old weights are free."""
    fixed(X)
    (variant,) = fixed._rewritten.variants
    assert {t.device.type for t in variant._program.state_dict.values()} == {"meta"}


def test_copied(fixed: Any) -> None:
    fixed(X)
    deep, shallow = copy.deepcopy(fixed), copy.copy(fixed)
    with torch.no_grad():
        fixed.linear.weight.mul_(2)
    check(deep(X), X)
    check(shallow(X), X, 600.0)
    assert shallow.linear.weight is fixed.linear.weight


def test_state_is_the_originals() -> None:
    model = Head().eval()
    before = torch.optim.SGD(model.parameters(), lr=1.0)
    fixed = stabilize.optimize(model, (X,))
    after = torch.optim.SGD(fixed.parameters(), lr=1.0)
    assert list(fixed.state_dict()) == list(model.state_dict())
    assert all(a is b for a, b in zip(fixed.parameters(), model.parameters(), strict=True))
    for optimizer in (before, after):
        fixed(X)[:, 0].sum().backward()
        old = model.linear.weight.detach().clone()
        optimizer.step()
        assert (fixed.linear.weight != old).any()
        optimizer.zero_grad()
    fixed.load_state_dict(Head().state_dict())
    check(fixed(X), X)
    fixed.load_state_dict({k: v * 2 for k, v in Head().state_dict().items()}, assign=True)
    check(fixed(X), X, 1200.0)


def test_signature_and_name(fixed: Any) -> None:
    assert inspect.signature(fixed.forward) == inspect.signature(Head().forward)
    assert fixed.forward.__doc__ == "Log-probabilities of x."
    assert repr(fixed).splitlines()[0] == "StabilizedHead("
    assert repr(fixed).splitlines()[1:] == repr(Head()).splitlines()[1:]


def test_positions_and_keywords_are_one_call(fixed: Any) -> None:
    check(fixed(X), X)
    check(fixed(x=X), X)
    assert programs(fixed) == 1
    fixed(X, torch.zeros(4, 8, dtype=torch.bool))
    fixed(X, mask=torch.zeros(4, 8, dtype=torch.bool))
    fixed(mask=torch.zeros(4, 8, dtype=torch.bool), x=X)
    assert programs(fixed) == 2


def test_optimized_again(fixed: Any) -> None:
    fixed(X)
    assert stabilize.optimize(fixed, (X,)) is fixed
    again = stabilize.optimize(fixed)
    check(again(X), X)
    check(pickle.loads(pickle.dumps(again))(X), X)


# --- torch.func -------------------------------------------------------------------------------------------------------


def test_function_transforms(fixed: Any) -> None:
    x = X / 100
    check(torch.func.vmap(fixed)(torch.stack([x, 2 * x]))[1], 2 * x)
    gradient = torch.func.grad(lambda x: fixed(x)[:, 0].sum())(x)
    reverse, forward = torch.func.jacrev(fixed)(x), torch.func.jacfwd(fixed)(x)
    torch.testing.assert_close(reverse, forward, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(gradient, reverse[:, 0].sum(0), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(reverse, torch.func.jacrev(wanted)(x), rtol=1e-4, atol=1e-3)


def test_functional_call_and_ensembles(fixed: Any) -> None:
    names, buffers = dict(fixed.named_parameters()), dict(fixed.named_buffers())
    doubled = {k: v * 2 for k, v in names.items()}
    check(torch.func.functional_call(fixed, (doubled, buffers), (X,)), X, 600.0)
    gradients = torch.func.grad(lambda p: torch.func.functional_call(fixed, (p, buffers), (X,))[:, 0].sum())(names)
    assert all(torch.isfinite(g).all() for g in gradients.values())
    states = torch.func.stack_module_state([Head().eval(), Head().eval()])
    called = torch.func.vmap(lambda p, b: torch.func.functional_call(fixed, (p, b), (X,)))(*states)
    check(called[0], X)
    check(fixed(X), X)


# --- hooks, modes, devices --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lazy", [False, True])
def test_own_hooks_run_once(lazy: bool) -> None:
    model, calls = Head().eval(), list[int]()
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    model.register_forward_hook(lambda module, inputs, output: output * 2)
    fixed = stabilize.optimize(model) if lazy else stabilize.optimize(model, (X,))
    calls.clear()
    torch.testing.assert_close(fixed(X), 2 * wanted(X), rtol=1e-5, atol=1e-3)
    assert calls == [1]


def test_hooks_inside_are_called(fixed: Any) -> None:
    """A program would not call them: while there are any, the module is compiled around them."""
    fixed(X)
    seen: list[torch.Size] = []

    def double(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        seen.append(output.shape)
        return output * 2

    handle = fixed.linear.register_forward_hook(double)
    check(fixed(X), X, 600.0)
    assert seen
    handle.remove()
    seen.clear()
    check(fixed(X), X)
    assert not seen


def test_meta_device_and_half(fixed: Any) -> None:
    half = copy.deepcopy(fixed).half()
    assert half(X.half()).dtype is torch.float16
    assert torch.isfinite(half(X.half())).all()
    assert fixed.to("meta")(X.to("meta")).device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_moved_to_cuda(fixed: Any) -> None:
    check(fixed(X), X)
    check(fixed.to("cuda")(X.cuda()).cpu(), X)
    check(fixed.to("cpu")(X), X)


def test_without_gradients_first(fixed: Any) -> None:
    """What is captured without gradients has them when they are wanted."""
    with torch.inference_mode():
        check(fixed(X), X)
    with torch.no_grad():
        check(fixed(X), X)
    fixed(X)[:, 0].sum().backward()
    assert torch.isfinite(fixed.linear.weight.grad).all()
    assert fixed.linear.weight.grad.abs().sum() > 0
    assert programs(fixed) == 1

"""Graph modules of every origin, and what their users do with the rewritten ones."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

import stabilize

Tensor = torch.Tensor

HOT = torch.tensor([[2000.0, 100, -100, 0, 1], [-300, 5, 300, 2, 1], [1, 2, 3, 4, 5]])


def naive(x: Tensor) -> Tensor:
    e = torch.exp(x)
    return e / e.sum(-1, keepdim=True)


@fx.wrap
def wrapped_softmax(x: Tensor) -> Tensor:
    return naive(x)


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return naive(self.linear(x))


class Outer(nn.Module):
    """A graph module that is called twice, one in a sequence, and a softmax of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner: nn.Module = Inner()
        self.stack = nn.Sequential(Inner(), nn.Linear(5, 5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.log(self.inner(x)) + self.stack(x) + self.inner(x * 2) + naive(x)


class Shallow(fx.Tracer):
    """Leaves calls of `Inner` and of graph modules as they are."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (Inner, fx.GraphModule)) or super().is_leaf_module(m, module_qualified_name)


def nested() -> fx.GraphModule:
    torch.manual_seed(0)
    model = Outer()
    model.inner = fx.symbolic_trace(model.inner)
    model.stack[0] = fx.symbolic_trace(model.stack[0])
    return fx.GraphModule(model, Shallow().trace(model))


def opaque_leaves() -> fx.GraphModule:
    torch.manual_seed(0)
    model = Outer()
    return fx.GraphModule(model, Shallow().trace(model))


def traced() -> fx.GraphModule:
    torch.manual_seed(0)
    return fx.symbolic_trace(Outer())


def exported() -> fx.GraphModule:
    torch.manual_seed(0)
    return torch.export.export(Outer(), (HOT,)).module()  # type: ignore[return-value]


def reference(x: Tensor) -> Tensor:
    torch.manual_seed(0)
    m = Outer().double()
    x = x.double()
    p, q = (torch.log_softmax(m.inner.linear(v), -1) for v in (x, 2 * x))
    return (p + m.stack[1](torch.softmax(m.stack[0].linear(x), -1)) + q.exp() + torch.softmax(x, -1)).float()


ORIGINS = (nested, opaque_leaves, traced, exported)
USES: dict[str, Callable[[fx.GraphModule], Any]] = {
    "as it is": lambda m: m,
    "deepcopy": copy.deepcopy,
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "traced again": fx.symbolic_trace,
    "compiled": lambda m: torch.compile(m, backend="aot_eager", fullgraph=True),
    "exported": lambda m: torch.export.export(m, (HOT,)).module(),
    "recompiled": lambda m: (m.recompile(), m)[1],
    "printed": lambda m: (m.print_readable(print_output=False), m)[1],
}


@pytest.mark.parametrize("use", list(USES))
@pytest.mark.parametrize("origin", ORIGINS, ids=lambda o: o.__name__)
def test_origin_and_use(origin: Callable[[], fx.GraphModule], use: str) -> None:
    if origin is exported and use in ("pickle", "traced again"):
        pytest.skip("the module of an exported program, rewritten or not, does not pickle and guards its shapes")
    module = origin()
    for part in [m for m in module.modules() if isinstance(m, fx.GraphModule)]:
        for node in part.graph.nodes:
            node.type = None  # annotations that are strings do not pickle
        part.recompile()
    before = module.code
    fixed, report = stabilize.optimize(module, (HOT,), return_report=True)
    assert not report.declined
    assert module.code == before
    assert not module(HOT).isfinite().all()
    torch._dynamo.reset()
    torch.testing.assert_close(USES[use](fixed)(HOT), reference(HOT), rtol=2e-5, atol=2e-5)
    assert fixed.state_dict().keys() == module.state_dict().keys()
    fixed(HOT).sum().backward()
    assert all(p.grad is not None for p in fixed.parameters())
    assert stabilize.optimize(fixed, (HOT,)) is fixed


@pytest.mark.parametrize("tracing", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("pre_dispatch", [False, True])
def test_make_fx(tracing: Any, pre_dispatch: bool) -> None:
    module = make_fx(naive, tracing_mode=tracing, pre_dispatch=pre_dispatch)(HOT)
    fixed = stabilize.optimize(module, (HOT,))
    torch.testing.assert_close(fixed(HOT), torch.softmax(HOT, -1))


def test_one_tensor_for_two_inputs() -> None:
    """Example inputs that are the same tensor do not make two inputs one."""

    class Two(nn.Module):
        def forward(self, x: Tensor, input: Tensor) -> Tensor:
            return wrapped_softmax(x) - naive(input)

    fixed = stabilize.optimize(fx.symbolic_trace(Two()), (HOT, HOT))
    other = HOT.flip(-1)
    torch.testing.assert_close(fixed(HOT, other), torch.softmax(HOT, -1) - torch.softmax(other, -1))


def test_a_parameter_as_an_input() -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(HOT.clone())

        def forward(self, x: Tensor) -> Tensor:
            return naive(x) - naive(self.weight)

    module = fx.symbolic_trace(Weighted())
    fixed = stabilize.optimize(module, (module.weight,))
    torch.testing.assert_close(fixed(2 * HOT), torch.softmax(2 * HOT, -1) - torch.softmax(HOT, -1))


def test_train_and_eval_of_leaves_stay_live() -> None:
    """A norm read in eval is not taken apart: the module may train later."""

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(5)

        def forward(self, x: Tensor) -> Tensor:
            return torch.log(1 - torch.sigmoid(self.norm(x)))

    module = fx.symbolic_trace(Normed().eval())
    fixed, report = stabilize.optimize(module, (HOT,), return_report=True)
    assert report.rewrites
    torch.testing.assert_close(fixed(HOT), nn.functional.logsigmoid(-module.norm(HOT)))
    fixed.train()
    hot = 1e4 * HOT
    expected = nn.functional.logsigmoid(-nn.functional.batch_norm(hot, None, None, training=True))
    torch.testing.assert_close(fixed(hot), expected)
    assert fixed.norm.num_batches_tracked == 1


def test_names_and_metadata_stay() -> None:
    """New nodes take names that are free; nodes that stay keep names, metadata and stack traces."""

    class Clash(nn.Module):
        def forward(self, softmax: Tensor, input: Tensor) -> Tensor:
            log_softmax = softmax * 3
            return naive(softmax) + torch.log(naive(input)) + log_softmax

    tracer = fx.Tracer()
    tracer.record_stack_traces = True
    module = fx.GraphModule(nn.Module(), tracer.trace(Clash()))
    module.meta["mine"] = "kept"
    for node in module.graph.nodes:
        node.meta["mine"] = node.name
    fixed = stabilize.optimize(module, (HOT, HOT))
    kept = {n.name: n for n in module.graph.nodes}
    new = {n.name: n for n in fixed.graph.nodes}
    for name in kept.keys() & new.keys() - {"output"}:
        assert new[name].meta.items() >= kept[name].meta.items()
    assert all(n.meta["stack_trace"] for n in fixed.graph.nodes if n.name not in kept)
    assert fixed.meta["mine"] == "kept"
    assert len(new) == len(set(new))
    torch.testing.assert_close(fixed(HOT, HOT), torch.softmax(HOT, -1) + torch.log_softmax(HOT, -1) + 3 * HOT)


def test_attributes_by_path() -> None:
    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleDict({"a": nn.ParameterDict({"b": nn.Parameter(torch.ones(5))})})  # type: ignore[dict-item]
            self.register_buffer("mask", torch.tensor([True, True, True, True, False]))

        def forward(self, x: Tensor) -> Tensor:
            e = torch.exp(x * self.parts["a"]["b"]) * self.mask  # type: ignore[index]
            return e / e.sum(-1, keepdim=True)

    module = fx.symbolic_trace(Held())
    fixed, report = stabilize.optimize(module, (HOT,), return_report=True)
    assert report.rewrites
    torch.testing.assert_close(fixed(HOT), torch.softmax(HOT.masked_fill(~module.mask, -torch.inf), -1))


def test_prepared_for_quantization() -> None:
    """Observers are modules that the graph calls: they stay where they are."""

    class Observed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.ao.quantization.MinMaxObserver(), torch.ao.quantization.MinMaxObserver()

        def forward(self, x: Tensor) -> Tensor:
            return self.second(naive(self.first(x)))

    class Tracer(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return isinstance(m, torch.ao.quantization.ObserverBase)

    model = Observed()
    fixed, report = stabilize.optimize(fx.GraphModule(model, Tracer().trace(model)), (HOT,), return_report=True)
    assert len(report.rewrites) == 1
    assert [n.target for n in fixed.graph.nodes if n.op == "call_module"] == ["first", "second"]
    torch.testing.assert_close(fixed(HOT), torch.softmax(HOT, -1))
    assert fixed.first.max_val == 2000
    assert fixed.second.max_val == 1

"""Graphs inside PyTorch graphs: a naive softmax is found and replaced in any of them, and nothing else is touched."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch._higher_order_ops.map import map as map_rows
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.compiler import nested_compile_region
from torch.utils.checkpoint import checkpoint

import stabilize
from stabilize.frontends.fx import open_exported, open_graph_module
from stabilize.report import Report

Tensor = torch.Tensor

#: Rows that break the naive spelling: overflow, a lost maximum, an underflow of everything.
HOT = torch.tensor(
    [[2000.0, 100, -100, 0, 1], [-300, 5, 300, 2, 1], [1, 2, 3, 4, 5], [-200, -201, -202, -210, -220]],
)
MILD = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))


def naive(x: Tensor) -> Tensor:
    e = torch.exp(x)
    return e / e.sum(-1, keepdim=True)


def stable(x: Tensor) -> Tensor:
    return torch.softmax(x, -1)


# --- modules: each takes the softmax to use --------------------------------------------------------------------------


class Region(nn.Module):
    """One way of nesting; `softmax` is naive in the module under test and stable in its reference."""

    def __init__(self, softmax: Callable[[Tensor], Tensor] = naive) -> None:
        super().__init__()
        self.softmax = softmax


class Branches(Region):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda x: self.softmax(x) * x, lambda x: self.softmax(2 * x), (x,))


class Loop(Region):
    def forward(self, x: Tensor) -> Tensor:
        count = torch.zeros((), dtype=torch.int64)
        return while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, self.softmax(x)), (count, x))[1]


class LoopCondition(Region):
    def forward(self, x: Tensor) -> Tensor:
        count = torch.zeros((), dtype=torch.int64)
        enough = lambda i, x: (i < 2) & (self.softmax(x).max() > 0.5)  # noqa: E731
        return while_loop(enough, lambda i, x: (i + 1, x * 0.5), (count, x))[1]


class Scanned(Region):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        carry, rows = scan(lambda c, r: (c + self.softmax(r), self.softmax(2 * r)), torch.zeros(5, dtype=x.dtype), x)
        return carry, rows


class Mapped(Region):
    def forward(self, x: Tensor) -> Tensor:
        return map_rows(lambda row, weight: self.softmax(row) * weight, x, x[0] * 0 + 2)


class WithoutGradients(Region):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            p = self.softmax(x)
        return x * p


class GradientsInside(Region):
    """Gradients on again inside a region without."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            p = self.softmax(2 * x)
            with torch.enable_grad():
                q = self.softmax(x) * p
        return q + p


class Deep(Region):
    def forward(self, x: Tensor) -> Tensor:
        def outer(x: Tensor) -> Tensor:
            with torch.no_grad():
                p = self.softmax(x)
            return torch.cond(x.max() > -1e9, lambda x, p: self.softmax(3 * x) * p, lambda x, p: p - x, (x, p))

        return torch.cond(x.min() < 1e9, outer, lambda x: self.softmax(x), (x,))


class Checkpointed(Region):
    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.softmax, x, use_reentrant=False)


class Reused(Region):
    def __init__(self, softmax: Callable[[Tensor], Tensor] = naive) -> None:
        super().__init__(nested_compile_region(softmax))

    def forward(self, x: Tensor) -> Tensor:
        return self.softmax(x) + self.softmax(2 * x)


EXPORTED = (Branches, Loop, LoopCondition, Scanned, Mapped, WithoutGradients, GradientsInside, Deep)
CAPTURED = (*EXPORTED, Checkpointed, Reused)


def check(before: Callable[..., Any], after: Callable[..., Any], reference: nn.Module) -> None:
    """The rewritten graph agrees with stable operators in float64 on inputs that break the original."""
    double = reference.double()
    for x in (HOT, MILD):
        for actual, expected in zip(flat(after(x)), flat(double(x.double())), strict=True):
            torch.testing.assert_close(actual, expected.to(actual.dtype), rtol=1e-5, atol=1e-30)
    broken = [bool(t.isfinite().all()) for t in flat(before(HOT))]
    assert not all(broken), "the original was meant to fail"


def flat(result: Any) -> list[Tensor]:
    return list(result) if isinstance(result, (tuple, list)) else [result]


def gradients(model: Callable[..., Any], x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    sum(
        (t * torch.linspace(1, 2, t.numel(), dtype=t.dtype).reshape(t.shape)).sum() for t in flat(model(leaf))
    ).backward()  # type: ignore[union-attr]
    assert leaf.grad is not None
    return leaf.grad


def graph_modules(module: nn.Module) -> dict[str, fx.GraphModule]:
    return {n: m for n, m in module.named_modules() if isinstance(m, fx.GraphModule)}


def text(module: fx.GraphModule) -> str:
    return module.print_readable(print_output=False)


def clean(report: Report) -> None:
    assert report.rewrites
    assert not report.declined


# --- ExportedProgram -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [False, True], ids=["traced", "strict"])
@pytest.mark.parametrize("kind", EXPORTED, ids=lambda k: k.__name__)
def test_exported(kind: type[Region], strict: bool) -> None:
    exported = torch.export.export(kind(), (MILD,), strict=strict)
    before, modules = text(exported.graph_module), graph_modules(exported.graph_module)
    fixed, report = stabilize.optimize(exported, return_report=True)
    clean(report)
    fixed.validate()
    if kind is not LoopCondition:
        check(exported.module(), fixed.module(), kind(stable))
    assert text(exported.graph_module) == before
    assert graph_modules(exported.graph_module) == modules
    assert stabilize.optimize(fixed) is fixed
    assert fixed.graph_signature == exported.graph_signature


@pytest.mark.parametrize("kind", [WithoutGradients, GradientsInside, Branches, Deep], ids=lambda k: k.__name__)
def test_gradients_of_exported(kind: type[Region]) -> None:
    exported = torch.export.export(kind(), (MILD,))
    fixed = stabilize.optimize(exported).module()
    expected = gradients(kind(stable).double(), MILD.double())
    torch.testing.assert_close(gradients(fixed, MILD), expected.float())
    torch.testing.assert_close(gradients(exported.module(), MILD), expected.float())
    assert gradients(fixed, HOT).isfinite().all()


def test_a_condition_is_repaired() -> None:
    """The naive condition compares NaN and stops the loop; the repaired one runs it."""
    exported = torch.export.export(LoopCondition(), (MILD,))
    fixed, report = stabilize.optimize(exported, return_report=True)
    assert [r.node.partition("/")[0] for r in report.rewrites] == ["while_loop_cond_graph_0"]
    torch.testing.assert_close(fixed.module()(HOT), LoopCondition(stable)(HOT))
    assert not torch.equal(exported.module()(HOT), fixed.module()(HOT))


def test_names_tell_the_way_to_the_body() -> None:
    report = stabilize.optimize(torch.export.export(Deep(), (MILD,)), return_report=True)[1]
    ways = {r.node.rpartition("/")[0] for r in report.rewrites}
    assert ways == {"true_graph_0/submod_1", "true_graph_0/true_graph_0", "false_graph_0"}
    assert {f.node for f in report.findings} >= {r.node for r in report.rewrites}
    assert all(r.file == __file__ for r in report.rewrites)


def test_values_alone_count_where_gradients_are_off() -> None:
    report = stabilize.optimize(torch.export.export(GradientsInside(), (MILD,)), return_report=True)[1]
    kinds = {r.node.count("/"): r.certificate.gradients for r in report.rewrites}  # type: ignore[union-attr]
    # the tracer lifts the inner region to the top
    assert kinds == {0: "compared", 1: "not compared: none can be taken"}


def test_healthy_bodies_are_the_same_objects_or_read_the_same() -> None:
    class Half(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cond(x.sum() > 0, naive, stable, (x,))

    exported = torch.export.export(Half(), (MILD,))
    fixed, report = stabilize.optimize(exported, return_report=True)
    assert [r.node for r in report.rewrites] == ["true_graph_0/div"]
    for name, body in graph_modules(fixed.graph_module).items():
        original = graph_modules(exported.graph_module)[name]
        same = [n.format_node() for n in body.graph.nodes] == [n.format_node() for n in original.graph.nodes]
        assert same == (name != "true_graph_0")
    healthy = torch.export.export(Branches(stable), (MILD,))
    assert stabilize.optimize(healthy) is healthy


def test_dynamic_shapes_inside_bodies() -> None:
    rows = torch.export.Dim("rows", min=2, max=64)
    exported = torch.export.export(Branches(), (MILD,), dynamic_shapes={"x": {0: rows}})
    fixed = stabilize.optimize(exported)
    many = HOT.repeat(5, 1)
    torch.testing.assert_close(fixed.module()(many), Branches(stable)(many))


def test_modules_and_lazy_modules() -> None:
    for fixed in (stabilize.optimize(Deep(), (MILD,)), stabilize.optimize(Deep())):
        torch.testing.assert_close(fixed(HOT), Deep(stable)(HOT))


def test_ranges_of_inputs_do_not_reach_into_bodies() -> None:
    """A body's input of the same name as the model's is another value."""

    class Doubled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cond(x.sum() > 0, lambda x: naive(x), lambda x: naive(-x), (x * 100,))

    report = stabilize.optimize(Doubled(), (MILD,), ranges={"x": (-1, 1)}, return_report=True)[1]
    assert len(report.rewrites) == 2


# --- results that must not share memory ---------------------------------------------------------------------------


class Twice(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return torch.cond(x.sum() > 0, lambda x: (naive(x), stable(x), naive(x)), lambda x: (x + 1, x + 2, x + 3), (x,))


def test_results_of_a_branch_stay_apart() -> None:
    """Two results that become one computation are still two tensors: cond refuses results that alias."""
    exported = torch.export.export(Twice(), (MILD,))
    fixed = stabilize.optimize(exported)
    for actual in fixed.module()(HOT):
        torch.testing.assert_close(actual, stable(HOT))
    inductor = torch.export.export(fixed.module(), (MILD,)).run_decompositions()
    for actual in inductor.module()(HOT):
        torch.testing.assert_close(actual, stable(HOT))


def test_results_of_a_program_stay_apart() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return naive(x), naive(x)

    a, b = stabilize.optimize(torch.export.export(Two(), (MILD,))).module()(HOT)
    a.zero_()
    torch.testing.assert_close(b, stable(HOT))


# --- graph modules -----------------------------------------------------------------------------------------------


def test_aten_graph_module() -> None:
    module = torch.export.export(Deep(), (MILD,)).run_decompositions({}).graph_module
    before = text(module)
    fixed, report = stabilize.optimize(module, return_report=True)
    clean(report)
    torch.testing.assert_close(fixed(HOT)[0], Deep(stable)(HOT))
    assert text(module) == before


def shared_body() -> fx.GraphModule:
    """Both branches of a cond, and a second cond, run one graph; two attributes hold it."""
    exported = torch.export.export(Branches(), (MILD,))
    module = exported.graph_module
    body = module.get_submodule("true_graph_0")
    module.register_module("false_graph_0", body)
    graph = module.graph
    call = next(n for n in graph.nodes if n.name == "cond")
    with graph.inserting_after(call):
        again = graph.node_copy(call)
    result = graph.output_node().args[0][0]  # type: ignore[index]
    with graph.inserting_before(graph.output_node()):
        item = graph.node_copy(result)  # type: ignore[arg-type]
        item.args = (again, 0)
        total = graph.call_function(torch.ops.aten.add.Tensor, (result, item))
        total.meta["val"] = result.meta["val"]  # type: ignore[union-attr]
    graph.output_node().args = ((total,),)
    module.recompile()
    return module


def test_a_body_that_is_used_more_than_once_is_rewritten_once() -> None:
    module = shared_body()
    fixed, report = stabilize.optimize(module, return_report=True)
    assert len(report.rewrites) == 1
    assert fixed.get_submodule("true_graph_0") is fixed.get_submodule("false_graph_0")
    assert module.get_submodule("true_graph_0") is not fixed.get_submodule("true_graph_0")
    torch.testing.assert_close(fixed(HOT)[0], 2 * stable(HOT) * HOT)


@pytest.mark.parametrize("kind", CAPTURED, ids=lambda k: k.__name__)
def test_captured_by_dynamo(kind: type[Region]) -> None:
    reports: list[Report] = []

    def backend(module: fx.GraphModule, inputs: list[Tensor], **kwargs: object) -> Callable[..., Any]:
        before = text(module)
        fixed, report = stabilize.optimize(module, tuple(inputs), return_report=True)
        assert text(module) == before
        reports.append(report)
        return fixed.forward

    torch._dynamo.reset()
    compiled = torch.compile(kind(), backend=backend, fullgraph=True)
    if kind is LoopCondition:
        torch.testing.assert_close(compiled(HOT), kind(stable)(HOT))
    else:
        check(kind(), compiled, kind(stable))
    if kind in (Checkpointed, WithoutGradients, GradientsInside, Branches):
        torch.testing.assert_close(gradients(compiled, MILD), gradients(kind(stable).double(), MILD.double()).float())
    assert reports
    for report in reports:
        clean(report)
    torch._dynamo.reset()


def test_bodies_of_unknown_operators_are_left_alone() -> None:
    """What an operator does with its graph must be known before the graph is exchanged."""
    module = shared_body()
    graph = module.graph
    for node in [n for n in graph.nodes if n.target is torch.ops.higher_order.cond]:
        node.target = torch.ops.higher_order.run_const_graph
    assert not open_graph_module(module).bodies()


def test_bodies_are_hosts_of_their_own() -> None:
    host = open_exported(torch.export.export(Deep(), (MILD,)))
    bodies = host.bodies()
    assert list(bodies) == ["true_graph_0", "false_graph_0"]
    assert list(bodies["true_graph_0"].bodies()) == ["submod_1", "true_graph_0", "false_graph_0"]
    assert host.with_bodies({}) is host
    assert copy.copy(host).view is host.view

"""What becomes of a rewritten ExportedProgram: saved, loaded, exported again, lowered, compiled ahead of time."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.export import Dim, ExportedProgram

import stabilize

Tensor = torch.Tensor

HOT = torch.tensor([[2000.0, 100, -100, 0, 1], [-300, 5, 300, 2, 1], [1, 2, 3, 4, 5]])
MILD = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))


def naive(x: Tensor) -> Tensor:
    e = torch.exp(x)
    return e / e.sum(-1, keepdim=True)


class Head(nn.Module):
    """Tied weights (one parameter, two names), a buffer, a naive softmax, and one without gradients."""

    def __init__(self, softmax: Callable[[Tensor], Tensor] = naive) -> None:
        super().__init__()
        self.softmax = softmax
        self.first = nn.Linear(5, 5, bias=False)
        self.second = nn.Linear(5, 5, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("shift", torch.zeros(5))
        with torch.no_grad():
            self.first.weight.copy_(torch.eye(5))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            weights = self.softmax(self.second(x))
        return torch.log(self.softmax(self.first(x) + self.shift)) * weights


def expected(x: Tensor) -> Tensor:
    double = x.double()
    return (torch.log_softmax(double, -1) * torch.softmax(double, -1)).float()


def fixed_head(**keywords: Any) -> ExportedProgram:
    fixed, report = stabilize.optimize(torch.export.export(Head(), (MILD,), **keywords), return_report=True)
    assert len(report.rewrites) == 2
    assert not report.declined
    return fixed


def check(run: Callable[[Tensor], Any], hot: Tensor = HOT) -> None:
    for x in (hot, MILD):
        torch.testing.assert_close(run(x), expected(x))


# --- what users do with a program ------------------------------------------------------------------------------------


def test_save_and_load() -> None:
    file = io.BytesIO()
    torch.export.save(fixed_head(), file)
    file.seek(0)
    loaded = torch.export.load(file)
    check(loaded.module())
    assert stabilize.optimize(loaded) is loaded


def test_module_trains_and_keeps_tied_weights() -> None:
    module = fixed_head().module()
    assert module.get_parameter("first.weight") is module.get_parameter("second.weight")
    module(HOT).sum().backward()
    gradient = module.get_parameter("first.weight").grad
    assert gradient is not None
    assert gradient.isfinite().all()


def test_export_again() -> None:
    again = torch.export.export(fixed_head().module(), (MILD,))
    check(again.module())
    assert stabilize.optimize(again) is again


@pytest.mark.parametrize("table", ["functional", "core"])
def test_decompositions(table: str) -> None:
    fixed = fixed_head()
    lowered = fixed.run_decompositions({}) if table == "functional" else fixed.run_decompositions()
    check(lowered.module())
    assert stabilize.optimize(lowered) is lowered


@pytest.mark.parametrize("table", ["functional", "core"])
def test_decomposed_before(table: str) -> None:
    """Core ATen has _softmax, _log_softmax and amax in the place of the operators that were written."""
    exported = torch.export.export(Head(), (MILD,))
    lowered = exported.run_decompositions({}) if table == "functional" else exported.run_decompositions()
    fixed, report = stabilize.optimize(lowered, return_report=True)
    assert report.rewrites
    fixed.validate()
    check(fixed.module())
    again = fixed.run_decompositions()
    check(again.module())


def test_unflatten() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = Head()

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x * 1.0)

    exported = torch.export.export(Outer(), (MILD,), preserve_module_call_signature=("head",))
    module = torch.export.unflatten(stabilize.optimize(exported))
    check(module)
    check(module.head)


def test_a_preserved_signature_names_the_new_outputs() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = Head()

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x) + 0.0

    exported = torch.export.export(Outer(), (MILD,), preserve_module_call_signature=("head",))
    fixed = stabilize.optimize(exported)
    names = {n.name for n in fixed.graph.nodes}
    for entry in fixed.module_call_graph:
        for argument in entry.signature.outputs if entry.signature else ():
            assert argument.name in names
    check(torch.export.unflatten(fixed))


def test_onnx(tmp_path: Path) -> None:
    program = torch.onnx.export(fixed_head(), dynamo=True, verbose=False)
    assert program is not None
    path = tmp_path / "head.onnx"
    program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    check(lambda x: torch.from_numpy(np.asarray(session.run(None, {name: x.numpy()})[0])))


@pytest.mark.slow
def test_aot_inductor(tmp_path: Path) -> None:
    path = torch._inductor.aoti_compile_and_package(fixed_head(), package_path=str(tmp_path / "head.pt2"))
    check(torch._inductor.aoti_load_package(path))


def test_inductor_compiles_the_module() -> None:
    torch._dynamo.reset()
    check(torch.compile(fixed_head().module(), backend="aot_eager"))


# --- ways to capture --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [False, True], ids=["traced", "strict"])
def test_ways_to_export(strict: bool) -> None:
    check(fixed_head(strict=strict).module())


def test_draft_export() -> None:
    fixed, report = stabilize.optimize(torch.export.draft_export(Head(), (MILD,)), return_report=True)
    assert len(report.rewrites) == 2
    check(fixed.module())


@pytest.mark.skipif(not hasattr(torch.export, "export_for_training"), reason="this PyTorch has no export_for_training")
def test_export_for_training() -> None:
    check(stabilize.optimize(torch.export.export_for_training(Head(), (MILD,))).module())


def test_train_mode() -> None:
    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(5)

        def forward(self, x: Tensor) -> Tensor:
            return naive(self.norm(x) * 1000)

    model = Dropped().train()
    exported = torch.export.export(model, (MILD,))
    fixed = stabilize.optimize(exported)
    ways = (fixed, fixed.run_decompositions({}), stabilize.optimize(exported.run_decompositions({})))
    for calls, program in enumerate(ways, 1):  # they share the buffers
        module = program.module()
        result = module(HOT)
        assert result.isfinite().all()
        assert dict(module.named_buffers())["norm.num_batches_tracked"] == calls


# --- shapes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shapes",
    [{"x": {0: Dim("rows", min=2, max=100)}}, {"x": {0: Dim.AUTO}}, {"x": {0: Dim.DYNAMIC}}],
    ids=["named", "auto", "dynamic"],
)
def test_dynamic_shapes(shapes: dict[str, Any]) -> None:
    fixed = fixed_head(dynamic_shapes=shapes)
    check(fixed.module(), HOT.repeat(7, 1))
    file = io.BytesIO()
    torch.export.save(fixed, file)
    file.seek(0)
    check(torch.export.load(file).module(), HOT.repeat(7, 1))
    check(fixed.run_decompositions().module(), HOT.repeat(7, 1))


def test_derived_dimensions() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return naive(torch.cat([x, y], -1).reshape(x.shape[0], -1, 3)) + y.shape[1] / x.shape[1]

    size = Dim("size", min=1, max=32)
    shapes = {"x": {1: 3 * size}, "y": {1: 6 * size}}
    exported = torch.export.export(Pair(), (torch.randn(2, 6), torch.randn(2, 12)), dynamic_shapes=shapes)
    fixed = stabilize.optimize(exported)
    assert str(fixed.range_constraints) == str(exported.range_constraints)
    x, y = torch.full((2, 9), 300.0), torch.full((2, 18), -300.0)
    torch.testing.assert_close(fixed.module()(x, y), torch.softmax(torch.cat([x, y], -1).reshape(2, -1, 3), -1) + 2.0)


# --- what a program may hold ------------------------------------------------------------------------------------------


def test_mutated_buffers_and_inputs() -> None:
    class Writing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("last", torch.zeros(3, 5))
            self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

        def forward(self, x: Tensor, out: Tensor) -> Tensor:
            self.last.copy_(naive(x))
            self.calls.add_(1)
            out.mul_(naive(2 * x))
            return self.last + out

    exported = torch.export.export(Writing(), (MILD, torch.ones(3, 5)))
    for program in (exported, exported.run_decompositions({}), exported.run_decompositions()):
        fixed, report = stabilize.optimize(program, return_report=True)
        assert len(report.rewrites) == 2
        fixed.validate()
        file = io.BytesIO()
        torch.export.save(fixed, file)
        file.seek(0)
        module = torch.export.load(file).module()
        out = torch.full((3, 5), 2.0)
        result = module(HOT, out)
        torch.testing.assert_close(out, 2 * torch.softmax(2 * HOT, -1))
        torch.testing.assert_close(dict(module.named_buffers())["last"], torch.softmax(HOT, -1))
        assert dict(module.named_buffers())["calls"] == 1
        torch.testing.assert_close(result, torch.softmax(HOT, -1) + out)


def test_lifted_constants() -> None:
    class Constants(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])  # not registered

        def forward(self, x: Tensor) -> Tensor:
            return naive(x + self.table + torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0]))

    exported = torch.export.export(Constants(), (MILD,))
    fixed = stabilize.optimize(exported)
    file = io.BytesIO()
    torch.export.save(fixed, file)
    file.seek(0)
    shifted = HOT + torch.tensor([1.0, 3.0, 3.0, 5.0, 5.0])
    for program in (fixed, torch.export.load(file)):
        torch.testing.assert_close(program.module()(HOT), torch.softmax(shifted, -1))
        assert set(program.constants) == set(exported.constants)


def test_nested_inputs_and_outputs() -> None:
    class Nested(nn.Module):
        def forward(self, batch: dict[str, Tensor], scales: tuple[float, Tensor]) -> dict[str, Any]:
            p = naive(batch["x"] * scales[0])
            return {"p": p, "more": [p, scales[1], naive(batch["x"])], "none": None, "number": 3}

    exported = torch.export.export(Nested(), ({"x": MILD}, (2.0, torch.ones(()))))
    result = stabilize.optimize(exported).module()({"x": HOT}, (2.0, torch.ones(())))
    torch.testing.assert_close(result["p"], torch.softmax(2 * HOT, -1))
    torch.testing.assert_close(result["more"][2], torch.softmax(HOT, -1))
    assert (result["none"], result["number"]) == (None, 3)


def test_a_returned_input_and_a_returned_parameter() -> None:
    class Passing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(5))

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return x, self.weight, naive(x * self.weight), torch.log(torch.exp(x))

    exported = torch.export.export(Passing(), (MILD,))
    fixed = stabilize.optimize(exported)
    fixed.validate()
    x, weight, p, y = fixed.module()(HOT)
    torch.testing.assert_close(p, torch.softmax(HOT, -1))
    torch.testing.assert_close(y, HOT)
    assert y.data_ptr() != x.data_ptr()
    torch.testing.assert_close(weight, torch.ones(5))

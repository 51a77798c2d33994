"""`export_onnx` as a step: what it takes, what it writes, what it says."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import stabilize
from stabilize.errors import ModelError, StabilizeError, UsageError


class Net(nn.Module):
    """SiLU, a normalisation, a guard, and a softmax by hand, whose exponents overflow from 89 on."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
        hidden = self.norm(F.silu(self.linear(x)))
        e = torch.exp(x if scale is None else x * scale)
        return e / e.sum(-1, keepdim=True), torch.log(hidden.abs() + 1e-9)


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


def model() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def x() -> Tensor:
    return torch.randn(3, 6, generator=torch.Generator().manual_seed(1))


def session(source: torch.onnx.ONNXProgram | Path) -> Any:
    return onnxruntime.InferenceSession(
        str(source) if isinstance(source, Path) else source.model_proto.SerializeToString()
    )


def ops(program: torch.onnx.ONNXProgram) -> list[str]:
    return [node.op_type for node in program.model.graph]


def check(program: torch.onnx.ONNXProgram, net: nn.Module, *args: Tensor) -> None:
    run = session(program)
    results = run.run(None, {i.name: a.numpy() for i, a in zip(run.get_inputs(), args, strict=True)})
    for result, exact in zip(results, net(*args), strict=True):
        np.testing.assert_allclose(result, exact.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_the_report_says_what_was_found_and_how_the_whole_file_does() -> None:
    program, report = stabilize.export_onnx(model(), (x(),), return_report=True)
    assert [r.code for r in report.rewrites] == ["STB101"]
    assert report.certificate is not None
    assert report.certificate.accepted
    assert "the whole model" in str(report)
    assert {"Softmax", "Add", "Log"} <= set(ops(program))
    assert "Sigmoid" not in ops(program)
    check(program, model(), x())
    check(program, model(), x() * 1e-12)  # log(0 + 1e-9)
    assert np.isfinite(session(program).run(None, {"x": x().numpy() * 200})[0]).all()


def test_the_model_and_the_program_are_not_changed() -> None:
    net = model()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    program = torch.export.export(net, (x(),))
    text = str(program.graph)
    stabilize.export_onnx(program)
    stabilize.export_onnx(net, (x(),))
    assert str(program.graph) == text
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in before.items())


@pytest.mark.parametrize("opset", [18, 20, 23, 24])
def test_opsets(opset: int) -> None:
    program = stabilize.export_onnx(model(), (x(),), opset_version=opset, certify=False)
    assert program.model.opset_imports[""] == opset
    onnx.checker.check_model(program.model_proto, full_check=True)
    check(program, model(), x())


def test_names_and_open_axes_are_the_users() -> None:
    program = stabilize.export_onnx(
        model(),
        (x(),),
        input_names=["features"],
        output_names=["probabilities", "logs"],
        dynamic_shapes=({0: "rows"},),
        certify=False,
    )
    graph = program.model.graph
    assert [v.name for v in (*graph.inputs, *graph.outputs)] == ["features", "probabilities", "logs"]
    assert [str(v.shape) for v in (*graph.inputs, *graph.outputs)] == ["[rows,6]"] * 3
    check(program, model(), x()[:2])


def test_dynamic_axes_of_the_older_exporter() -> None:
    program = stabilize.export_onnx(model(), (x(),), dynamic_axes={"x": {0: "rows"}, "out": [0]}, certify=False)
    assert str(program.model.graph.inputs[0].shape) == "[rows,6]"
    named = stabilize.export_onnx(model(), (x(),), input_names=["a"], dynamic_axes={"a": [0]}, certify=False)
    check(named, model(), x()[:1])


def test_keyword_arguments_and_a_lone_tensor() -> None:
    check(stabilize.export_onnx(model(), x(), certify=False), model(), x())
    program = stabilize.export_onnx(model(), (x(),), kwargs={"scale": torch.tensor(2.0)}, certify=False)
    assert [v.name for v in program.model.graph.inputs] == ["x", "scale"]
    check(program, model(), x(), torch.tensor(2.0))


def test_the_users_own_translations_go_first() -> None:
    from onnxscript import opset18 as op

    def own(self: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
        return op.Relu(self)

    class Soft(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.softplus(x)

    table = {torch.ops.aten.softplus.default: own}
    program = stabilize.export_onnx(Soft(), (x(),), custom_translation_table=table, certify=False)
    assert ops(program) == ["Relu"]


def test_operators_in_branches_are_written_too() -> None:
    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cond(x.sum() > 0, lambda v: torch.log1p(v.abs()), lambda v: torch.expm1(v), (x,))

    program = stabilize.export_onnx(Branches(), (x(),), certify=False)
    run = session(program)
    for given in (torch.full((3, 6), 1e-9), torch.full((3, 6), -1e-9)):
        (result,) = run.run(None, {"x": given.numpy()})
        np.testing.assert_allclose(result, given.abs() * given.sign(), rtol=1e-6)


def test_optimize_finds_nothing_left_to_do() -> None:
    program = stabilize.export_onnx(model(), (x(),), certify=False)
    again, report = stabilize.optimize(program.model_proto, return_report=True)
    assert not report.rewrites
    assert again.SerializeToString() == program.model_proto.SerializeToString()


def test_without_optimize_nothing_is_cleaned_up_but_all_is_right() -> None:
    program = stabilize.export_onnx(model(), (x(),), optimize=False, certify=False)
    assert "Constant" in ops(program)
    check(program, model(), x())


def test_traces_stay_at_every_operator_of_the_user() -> None:
    program = stabilize.export_onnx(model(), (x(),), certify=False)
    traced = {n.op_type for n in program.model.graph if "pkg.torch.onnx.stack_trace" in n.metadata_props}
    assert {"LayerNormalization", "Log", "Mul"} <= traced


# --- constants that are nearly 0 or 1 ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "kept"),
    [
        (lambda x: x + 1e-9, "Add"),
        (lambda x: x - 1e-30, "Sub"),
        (lambda x: x * 1.000001, "Mul"),
        (lambda x: x / 1.000001, "Div"),
        (lambda x: x + 0.0, "Identity"),
        (lambda x: x * 1.0, "Identity"),
        (lambda x: x / 1, "Identity"),
        (lambda x: x - 0, "Identity"),
        (lambda x: x + torch.zeros(2, 1, 1), "Add"),
    ],
)  # fmt: skip
def test_only_what_changes_nothing_is_cleaned_up(formula: Any, kept: str) -> None:
    class Formula(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return formula(x)

    program = stabilize.export_onnx(Formula(), (x(),), certify=False)
    assert ops(program) == [kept]


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_file_and_its_data(tmp_path: Path) -> None:
    stabilize.export_onnx(model(), (x(),), tmp_path / "net.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", "net.onnx.data"]
    first = session(tmp_path / "net.onnx").run(None, {"x": x().numpy()})
    stabilize.export_onnx(model(), (x(),), str(tmp_path / "one.onnx"), external_data=False)
    assert not (tmp_path / "one.onnx.data").exists()
    second = session(tmp_path / "one.onnx").run(None, {"x": x().numpy()})
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    buffer = io.BytesIO()
    stabilize.export_onnx(model(), (x(),), buffer, certify=False)
    assert onnx.load_from_string(buffer.getvalue()).graph.node


def test_a_write_that_fails_leaves_the_files_that_were_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "net.onnx"
    stabilize.export_onnx(model(), (x(),), target, certify=False)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.onnx.ONNXProgram, "save", full)
    with pytest.raises(ModelError, match=r"net\.onnx: No space left on device"):
        stabilize.export_onnx(Doubled(), (x(),), target, certify=False)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="its folder does not exist"):
        stabilize.export_onnx(model(), (x(),), tmp_path / "none" / "net.onnx")
    with pytest.raises(ModelError, match="it is a folder"):
        stabilize.export_onnx(model(), (x(),), tmp_path)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"dynamo": False}, "dynamo=False"),
        ({"opset_version": 17}, "opset_version 17: give one from 18"),
        ({"opset_version": "18"}, "opset_version '18'"),
        ({"do_constant_folding": True}, "no keyword 'do_constant_folding'"),
        ({"f": 3}, "f is 3"),
        ({"form": "stable"}, "form 'stable'"),
        ({"runtime": "tensorflow"}, "runtime 'tensorflow'"),
        ({"dynamic_axes": {"x": "rows"}}, "dynamic_axes of 'x'"),
    ],
)
def test_wrong_arguments(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        stabilize.export_onnx(model(), (x(),), **keywords)


@pytest.mark.parametrize("given", [3, "net.onnx", None, torch.jit.script(Doubled())])
def test_what_is_no_model(given: Any) -> None:
    with pytest.raises(UsageError, match=r"takes an nn\.Module or an ExportedProgram"):
        stabilize.export_onnx(given, (x(),))


class Singular(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svdvals(x)


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(("net", "message"), [(Singular(), "cannot translate"), (Branch(), "cannot capture Branch")])
def test_models_that_have_no_export(net: nn.Module, message: str) -> None:
    with pytest.raises(StabilizeError, match=message) as caught:
        stabilize.export_onnx(net, (x(),))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_worse_is_told_of(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong translation of the user's own."""
    from onnxscript import opset18 as op

    def wrong(self: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
        return op.Relu(self)

    class Soft(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.softplus(x)

    table = {torch.ops.aten.softplus.default: wrong}
    with caplog.at_level(logging.WARNING, "stabilize"):
        _, report = stabilize.export_onnx(Soft(), (x(),), custom_translation_table=table, return_report=True)
    assert report.certificate is not None
    assert not report.certificate.accepted
    assert "not certified" in caplog.text


def test_outputs_keep_their_metadata_and_types() -> None:
    class Half(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return x.abs(), x.argmax(-1), x.float()

    program = stabilize.export_onnx(Half(), (x().half(),), certify=False)
    types = [v.dtype for v in program.model.graph.outputs]
    assert types == [ir.DataType.FLOAT16, ir.DataType.INT64, ir.DataType.FLOAT]
    onnx.checker.check_model(program.model_proto, full_check=True)


def test_buffers_that_are_written_are_no_outputs() -> None:
    class Counting(nn.Module):
        count: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(6).half())

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            self.count.add_(x.abs().sum(0))
            return x.abs(), x

    program = stabilize.export_onnx(Counting(), (x().half(),), certify=False)
    assert [v.dtype for v in program.model.graph.outputs] == [ir.DataType.FLOAT16] * 2

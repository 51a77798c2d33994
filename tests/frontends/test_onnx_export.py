"""What torch.onnx.export writes without its optimiser: read, patched, run."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch.nn import functional as F

from stabilize.frontends.onnx import open_onnx
from stabilize.graph.text import show
from stabilize.graph.value import Value, cone
from stabilize.graph.view import Replacement
from tests.frontends.onnx_support import op_types, run


class Head(torch.nn.Module):
    """A classifier's head around one function of its scores and labels."""

    def __init__(self, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 6)
        self.function = function

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.function(self.linear(x), y)


def export(
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], dynamic: bool = False
) -> torch.onnx.ONNXProgram:
    torch.manual_seed(0)
    args = (torch.randn(3, 4), torch.tensor([1, 2, 5]))
    shapes = ({0: "batch"}, {0: "batch"}) if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Head(function).eval(), args, dynamo=True, optimize=False, verbose=False, dynamic_shapes=shapes
        )
    assert program is not None
    return program


def naive(z: torch.Tensor) -> torch.Tensor:
    e = torch.exp(z)
    return e / e.sum(-1, keepdim=True)


FUNCTIONS: dict[str, tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], str]] = {
    "softmax": (lambda z, y: naive(z), "div(v, sum(v, axes=(1,), keepdim=True))"),
    "loss": (
        lambda z, y: -torch.log(naive(z)[torch.arange(z.shape[0]), y]).mean(),
        "gather(div(v, sum(v, axes=(1,), keepdim=True)), unsqueeze(y, axes=(1,)), axis=1)",
    ),
    "gathered": (lambda z, y: naive(z).gather(1, y[:, None]), "gather("),
    "one-hot": (lambda z, y: (F.one_hot(y, 6) * torch.log(naive(z))).sum(1), "arange(size=6, dtype='int64')"),
    "guarded": (lambda z, y: torch.log(naive(z) + 1e-9), "add(div("),
    "clamped": (lambda z, y: torch.log(naive(z).clamp(min=1e-7)), "maximum("),
    "logsumexp": (lambda z, y: torch.logsumexp(z, 1), "logsumexp("),
    "masked": (lambda z, y: F.softmax(z.masked_fill(y[:, None] > 3, -1e9), -1), "softmax(where(gt("),
    "gelu": (lambda z, y: F.silu(z) + torch.erf(z), "erf("),
    "norm": (lambda z, y: z / z.pow(2).mean(-1, keepdim=True).add(1e-6).sqrt(), "sqrt("),
    "cumulative": (lambda z, y: torch.cumsum(torch.exp(z), 1), "cumsum("),
    "top": (lambda z, y: torch.topk(naive(z), 2).values, "topk_values("),
    "heads": (lambda z, y: F.softmax(z.reshape(-1, 2, 3).transpose(1, 2), -1).flatten(1), "transpose("),
}


@pytest.mark.parametrize(
    ("name", "dynamic"), [*((n, True) for n in sorted(FUNCTIONS)), ("loss", False), ("heads", False)]
)
def test_exported_functions_are_read_completely(name: str, dynamic: bool) -> None:
    function, fragment = FUNCTIONS[name]
    host = open_onnx(export(function, dynamic).model_proto)
    opaque = [v for v in cone(host.view.outputs) if v.op == "opaque"]
    assert opaque == []
    text = show(host.view.outputs)
    exponential = next((v for v in cone(host.view.outputs) if v.op == "exp"), None)
    assert fragment in (text if exponential is None else text.replace(f"v{exponential.index}", "v"))


def test_patched_export_keeps_its_metadata_and_sources() -> None:
    program = export(lambda z, y: naive(z), dynamic=True)
    proto = program.model_proto
    host = open_onnx(proto)
    view = host.view
    (old,) = view.outputs
    scores = next(v for v in cone([old]) if v.op == "exp").operands[0]
    assert view.sources["linear"].module == "linear"
    assert str(view.sources["linear"].file).endswith("linear.py")
    assert str(view.sources["div"].file).endswith("test_onnx_export.py")
    patched = host.patched([Replacement(old, view.builder.make("softmax", scores, axis=1))]).model()
    assert isinstance(patched, onnx.ModelProto)
    onnx.checker.check_model(patched, full_check=True)
    assert op_types(patched)[-2:] == ["Gemm", "Softmax"]
    stable, naive_node = patched.graph.node[-1], next(n for n in proto.graph.node if n.op_type == "Div")
    assert stable.name == "node_div_stabilized_Softmax"
    assert {e.key: e.value for e in stable.metadata_props} == {e.key: e.value for e in naive_node.metadata_props}
    assert patched.graph.output == proto.graph.output
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32) * 1e3
    (y,) = run(patched, {"x": x, "y": np.zeros(5, np.int64)})
    np.testing.assert_allclose(y.sum(1), np.ones(5), rtol=1e-6)


def test_a_program_gives_a_program() -> None:
    program = export(lambda z, y: naive(z))
    x, y = torch.full((3, 4), 1e3), torch.tensor([0, 1, 2])
    (before,) = program(x, y)
    assert torch.isnan(before).any()
    host = open_onnx(program)
    (old,) = host.view.outputs
    scores = next(v for v in cone([old]) if v.op == "exp").operands[0]
    patched = host.patched([Replacement(old, host.view.builder.make("softmax", scores, axis=1))]).model()
    assert isinstance(patched, torch.onnx.ONNXProgram)
    (after,) = patched(x, y)
    assert torch.isfinite(after).all()
    assert "Exp" in {n.op_type for n in program.model.graph}


def test_the_program_itself_as_an_ir_model() -> None:
    program = export(lambda z, y: naive(z))
    host = open_onnx(program.model)
    (old,) = host.view.outputs
    scores: Value = next(v for v in cone([old]) if v.op == "exp").operands[0]
    patched = host.patched([Replacement(old, host.view.builder.make("softmax", scores, axis=1))]).model()
    assert isinstance(patched, ir.Model)
    weight = host.tensor(host.view.bindings["linear.weight"])
    assert weight is not None
    torch.testing.assert_close(weight, dict(program.exported_program.named_parameters())["linear.weight"].detach())
    program.model = patched
    (y,) = program(torch.full((3, 4), 1e3), torch.tensor([0, 1, 2]))
    assert torch.isfinite(y).all()

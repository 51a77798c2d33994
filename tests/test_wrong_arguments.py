"""Example inputs that do not suit, and tensors of unusual kinds: told in one sentence, or left as they are."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

import stabilize
from stabilize.errors import ModelError, StabilizeError, UsageError


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        e = torch.exp(self.linear(x))
        return e / e.sum(-1, keepdim=True) + y


X, Y = torch.linspace(-1, 1, 12).reshape(3, 4), torch.ones(3, 4)
_ONNX = """
<ir_version: 9, opset_import: ["" : 18]>
g (float[3, 4] x, float[3, 4] y) => (float[3, 4] z) <int64[1] axes = {1}> {
  e = Exp(x)
  s = ReduceSum(e, axes)
  p = Div(e, s)
  z = Add(p, y)
}
"""


def _model(kind: str) -> Any:
    match kind:
        case "module":
            return Head().eval()
        case "graph":
            return fx.symbolic_trace(Head().eval())
        case "program":
            return torch.export.export(Head().eval(), (X, Y))
        case _:
            return onnx.parser.parse_model(_ONNX)


_KINDS = ("module", "graph", "program", "onnx")
_CALLS: dict[str, Callable[[Any, object], object]] = {
    "optimize": lambda model, inputs: stabilize.optimize(model, inputs, certify=False),
    "certify": lambda model, inputs: stabilize.certify(model, model, inputs),
}


@pytest.mark.parametrize("call", _CALLS)
@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ((X,), "'y'|hold 1"),
        ((X, Y, X), "too many|hold 3"),
        ((), "'x'|hold 0"),
        ("text", "'y'|hold [01]"),
        ({"x": X, "q": Y}, "'[yq]'"),
        ({1: X, 2: Y}, "key 1.*strings"),
        ((np.array([object()]), Y), "array of type object"),
        ((np.array(["a"]), Y), "array of type <U1"),
    ],
    ids=["too few", "too many", "none", "text", "names", "keys", "objects", "texts"],
)
def test_inputs_that_the_model_does_not_have(call: str, kind: str, inputs: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        _CALLS[call](_model(kind), inputs)


@pytest.mark.parametrize("call", _CALLS)
@pytest.mark.parametrize("kind", ["module", "graph", "onnx"])
@pytest.mark.parametrize(
    "inputs",
    [(torch.ones(3, 5), Y), (X, torch.ones(7, 9)), (X, None), ("a", "b"), (torch.tensor(1.0), Y)],
    ids=["columns", "broadcast", "None", "texts", "no axes"],
)
def test_inputs_that_the_model_does_not_run_on(
    call: str, kind: str, inputs: object, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((UsageError, ModelError)) as caught:
        _CALLS[call](_model(kind), inputs)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("call", _CALLS)
@pytest.mark.parametrize("kind", _KINDS)
def test_arrays_are_tensors(call: str, kind: str) -> None:
    assert _CALLS[call](_model(kind), (X.numpy(), Y.numpy()))


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize(
    "x",
    [X.to("meta"), torch.quantize_per_tensor(X, 0.1, 0, torch.qint8)],  # type: ignore[no-untyped-call]
    ids=["meta", "quantized"],
)
def test_a_comparison_needs_numbers(kind: str, x: torch.Tensor) -> None:
    with pytest.raises(UsageError, match=r"tensor 0 of the example inputs is .*: pass a dense one"):
        stabilize.certify(_model(kind), _model(kind), (x, Y))


def test_onnx_takes_dense_inputs_of_its_types() -> None:
    model = _model("onnx")
    with pytest.raises(UsageError, match=r"'x' .*is dense"):
        stabilize.certify(model, model, (X.to_sparse(), Y))
    with pytest.raises(UsageError, match="'x' is float64, the model takes float32"):
        stabilize.optimize(model, (X.double(), Y))


def test_a_quantized_input_of_a_graph_is_refused() -> None:
    x = torch.quantize_per_tensor(X, 0.1, 0, torch.qint8)  # type: ignore[no-untyped-call]
    with pytest.raises(UsageError, match=r"input0 .* quantized"):
        stabilize.optimize(_model("graph"), (x, Y))


# --- tensors of unusual kinds inside a model ------------------------------------------------------------------------


class Carrier(nn.Module):
    """A naive softmax beside a tensor of some kind, which it returns too."""

    def __init__(self, tensor: torch.Tensor, read: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.register_buffer("w", tensor)
        self._read = read

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        e = torch.exp(x)
        return e / e.sum(-1, keepdim=True), self._read(self.get_buffer("w"))


def _same(w: torch.Tensor) -> torch.Tensor:
    return w


_EYE = torch.eye(4)
_UNUSUAL: dict[str, tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]] = {
    "float8": (_EYE.to(torch.float8_e4m3fn), lambda w: w.float() * 3),
    "float8 out": (_EYE, lambda w: w.to(torch.float8_e5m2)),
    "complex": (_EYE.to(torch.cfloat), lambda w: torch.exp(w) / torch.exp(w).sum(-1, keepdim=True)),
    "sparse": (_EYE.to_sparse(), lambda w: torch.sparse.mm(w, torch.ones(4, 4))),  # type: ignore[no-untyped-call]
    "uint4": (torch.zeros(4, 4, dtype=torch.uint8).view(torch.uint4), _same),
    "uint16": (torch.ones(4, 4, dtype=torch.uint16), lambda w: w.float()),
}


@pytest.mark.parametrize("kind", ["module", "lazy", "graph", "program"])
@pytest.mark.parametrize("unusual", _UNUSUAL)
def test_tensors_of_unusual_kinds_are_left_alone(unusual: str, kind: str) -> None:
    tensor, read = _UNUSUAL[unusual]
    module = Carrier(tensor, read).eval()
    x = torch.tensor([[0.0, 1e4], [3.0, -3.0]])
    fixed: Any
    match kind:
        case "module":
            fixed = stabilize.optimize(module, (x,))
        case "lazy":
            fixed = stabilize.optimize(module)
        case "graph":
            fixed = stabilize.optimize(fx.symbolic_trace(module), (x,))
        case _:
            fixed = stabilize.optimize(torch.export.export(module, (x,))).module()
    (probabilities, got), (_, want) = fixed(x), module(x)
    assert torch.equal(probabilities, x.softmax(-1))
    assert (got.dtype, got.shape, got.layout) == (want.dtype, want.shape, want.layout)
    if want.dtype != torch.uint4:
        assert torch.equal(got.to(torch.cfloat), want.to(torch.cfloat))
    assert stabilize.certify(module, fixed, (torch.ones(2, 2),)).accepted


def test_a_module_without_numbers_is_rewritten_and_not_compared() -> None:
    module = Head().to("meta")
    fixed = stabilize.optimize(module, (X.to("meta"), Y.to("meta")))
    loaded = fixed.to_empty(device="cpu")
    weights = Head()
    loaded.load_state_dict(weights.state_dict())
    assert torch.allclose(loaded(X, Y), weights(X, Y))
    empty = Head().to("meta")
    with pytest.raises(ModelError, match=r"'linear.weight'.*meta device: load the weights"):
        stabilize.certify(empty, empty, (X, Y))


# --- what cannot be captured ----------------------------------------------------------------------------------------


class Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum() > 0 else x.exp()


class Broken(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise KeyError("first\nsecond")


@pytest.mark.parametrize("module", [Branch(), Broken()], ids=["branch", "raises"])
def test_a_capture_that_fails_names_the_module_and_the_cure(
    module: nn.Module, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelError, match=rf"{type(module).__name__}: .*without example_inputs") as caught:
        stabilize.optimize(module, (X,))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("factory", ["branch", "broken", "bad"])
def test_on_the_command_line_it_is_one_line(factory: str, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(
        "import torch\n"
        "class Branch(torch.nn.Module):\n    def forward(self, x):\n        return x + 1 if x.sum() > 0 else x.exp()\n"
        "class Broken(torch.nn.Module):\n    def forward(self, x):\n        raise KeyError('no')\n"
        "def branch(): return Branch(), (torch.ones(2),)\n"
        "def broken(): return Broken(), (torch.ones(2),)\n"
        "def bad(): return Branch(), {'y': torch.ones(2)}\n"
    )
    command = [sys.executable, "-m", "stabilize", "optimize", f"user:{factory}", "-o", "out.pt2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "cannot capture" in done.stderr
    assert not (tmp_path / "out.pt2").exists()


@pytest.mark.parametrize("inputs", [(), {"x": None}, [None], {None: X}, (X, (Y,), {}), ({"x": X},), b"", 0, [[]]])
@pytest.mark.parametrize("kind", _KINDS)
def test_nothing_but_errors_of_its_own(kind: str, inputs: object) -> None:
    for call in _CALLS.values():
        with contextlib.redirect_stderr(io.StringIO()) as told, contextlib.suppress(StabilizeError):
            assert pytree.tree_leaves(call(_model(kind), inputs))
        assert told.getvalue() == ""

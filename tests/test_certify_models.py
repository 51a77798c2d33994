"""`stabilize.certify`: models of every kind, accepted, declined, and refused with one clear line."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import fx
from torch.nn import functional as F

import stabilize
from stabilize.cli import main
from stabilize.errors import ModelError, StabilizeError, UsageError

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(3))


class Head(torch.nn.Module):
    """A linear layer and what `spelling` says."""

    def __init__(self, spelling: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(6, 5)
        self.spelling = spelling

    def forward(self, x: torch.Tensor) -> Any:
        return self.spelling(self.linear(x))


def naive(z: torch.Tensor) -> torch.Tensor:
    e = torch.exp(z)
    return e / e.sum(-1, keepdim=True)


def stable(z: torch.Tensor) -> torch.Tensor:
    return torch.softmax(z, -1)


def wrong_axis(z: torch.Tensor) -> torch.Tensor:
    return torch.softmax(z, 0)


def with_eps(z: torch.Tensor) -> torch.Tensor:
    return torch.log(stable(z) + 1e-6)


def without_eps(z: torch.Tensor) -> torch.Tensor:
    return torch.log(stable(z))


def exported(spelling: Callable[[torch.Tensor], Any]) -> torch.export.ExportedProgram:
    return torch.export.export(Head(spelling), (X,))


def traced(spelling: Callable[[torch.Tensor], Any]) -> fx.GraphModule:
    return fx.symbolic_trace(Head(spelling))


KINDS = {"module": Head, "graph": traced, "program": exported}

ONNX = {
    "naive": "y = Exp(x)\n s = ReduceSum(y, axes)\n out = Div(y, s)",
    "stable": "out = Softmax<axis = -1>(x)",
    "wrong axis": "out = Softmax<axis = 0>(x)",
    "with eps": "p = Softmax(x)\n q = Add(p, eps)\n out = Log(q)",
    "without eps": "p = Softmax(x)\n out = Log(p)",
    "einsum": 'y = Exp(x)\n s = Einsum<equation = "ij->i">(y)\n t = Unsqueeze(s, axes)\n out = Div(y, t)',
    "argmax": "y = Exp(x)\n out = ArgMax<axis = -1>(y)",
}


def onnx_model(body: str, *, dtype: str = "float", shape: str = "n, 5", out: str | None = None) -> onnx.ModelProto:
    constant = ", float[1] eps = {0.000001}" if "eps" in body else ""
    text = f"""<ir_version: 8, opset_import: ["" : 18, "com.microsoft" : 1]>
    m ({dtype}[{shape}] x) => ({out or dtype + "[" + shape + "]"} out)
    <int64[1] axes = {{-1}}{constant}> {{
    {ONNX.get(body, body)}
    }}"""
    return onnx.parser.parse_model(text)


# --- PyTorch ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", KINDS)
@pytest.mark.parametrize("before", KINDS)
def test_a_repair_is_accepted(before: str, after: str) -> None:
    certificate = stabilize.certify(KINDS[before](naive), KINDS[after](stable), (X,))
    assert certificate.accepted, certificate.reason
    assert certificate.oracle == "float64"
    large = next(f for f in certificate.families if f.name == "64-fold")
    assert large.failed_after == 0
    again = stabilize.certify(KINDS[before](naive), KINDS[after](stable), (4 * X,))
    assert max(f.failed_before for f in again.families) > 0 == max(f.failed_after for f in again.families)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("before", "after"), [(naive, wrong_axis), (stable, wrong_axis), (with_eps, without_eps)])
def test_another_function_is_declined(
    kind: str, before: Callable[[torch.Tensor], Any], after: Callable[[torch.Tensor], Any]
) -> None:
    certificate = stabilize.certify(KINDS[kind](before), KINDS[kind](after), X)
    assert not certificate.accepted
    assert "output 0" in str(certificate.reason)


def test_a_repair_undone_is_declined() -> None:
    certificate = stabilize.certify(Head(stable), Head(naive), (30 * X,))
    assert not certificate.accepted
    assert "finite" in str(certificate.reason)


def test_what_optimize_returns_is_accepted() -> None:
    model = Head(naive)
    certificate = stabilize.certify(model, stabilize.optimize(model, (X,)), (X,))
    assert certificate.accepted, certificate.reason


def test_inputs_by_keyword_and_by_array() -> None:
    for given in (X, (X,), [X], {"x": X}, ((X,), {}), X.numpy(), {"x": X.numpy()}):
        for before in (Head, exported):
            assert stabilize.certify(before(naive), exported(stable), given).accepted


def test_an_exported_program_knows_its_inputs() -> None:
    assert stabilize.certify(exported(naive), Head(stable)).accepted
    assert stabilize.certify(Head(naive), exported(stable)).accepted


def test_half_precision() -> None:
    before, after, wrong = (Head(f).to(torch.bfloat16) for f in (naive, stable, wrong_axis))
    x = X.to(torch.bfloat16)
    assert stabilize.certify(before, after, x).accepted
    assert not stabilize.certify(before, wrong, x).accepted


def test_nested_and_mixed_outputs() -> None:
    def both(spelling: Callable[[torch.Tensor], torch.Tensor]) -> Head:
        return Head(lambda z: {"p": spelling(z), "best": (spelling(z).argmax(-1), None, 1.5)})

    assert stabilize.certify(both(naive), both(stable), (X,)).accepted
    # naive rows are NaN here, and an argmax of NaN is nothing to keep, even when float64 overflows as well
    for scale in (20, 100, 1000):
        certificate = stabilize.certify(both(naive), both(stable), (scale * X,))
        assert certificate.accepted, certificate.reason
    certificate = stabilize.certify(
        both(stable), Head(lambda z: {"p": stable(z), "best": (z.argmin(-1), None, 1.5)}), (X,)
    )
    assert "output 1: 4 entries differ" in str(certificate.reason)


def test_models_that_remember_are_left_as_they_were() -> None:
    class Remembering(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(6)
            self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
            self.calls: torch.Tensor

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            x += 1
            return F.dropout(self.norm(x), 0.5) * self.calls

    model = Remembering().train()
    state = copy.deepcopy(model.state_dict())
    x, rng = X.clone(), torch.get_rng_state()
    certificate = stabilize.certify(model, copy.deepcopy(model), x)
    assert certificate.accepted, certificate.reason
    assert torch.equal(x, X)
    assert torch.equal(rng, torch.get_rng_state())
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in state.items())


# --- gradients -------------------------------------------------------------------------------------------------


def log_naive(z: torch.Tensor) -> torch.Tensor:
    return torch.log(naive(z))


class Apart(torch.nn.Module):
    """A log-softmax of what `prepare` gives."""

    def __init__(self, prepare: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.prepare = prepare

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(self.prepare(x), -1)


@pytest.mark.parametrize("after", KINDS)
@pytest.mark.parametrize("before", KINDS)
def test_gradients_are_compared(before: str, after: str) -> None:
    certificate = stabilize.certify(KINDS[before](log_naive), KINDS[after](lambda z: torch.log_softmax(z, -1)), (X,))
    assert certificate.accepted, certificate.reason
    assert certificate.gradients == "compared"
    given = certificate.families[0]
    assert given.gradient_before is not None
    assert given.gradient_after is not None


@pytest.mark.parametrize(
    ("prepare", "named"),
    [
        (lambda x: x.detach(), "input 0 is harmed: it is gone"),
        (lambda x: 1.01 * x - 0.01 * x.detach(), "input 0 is harmed: an entry is"),
        (lambda x: torch.tensor(x.tolist()), "input 0 is harmed: it is gone"),
        (lambda x: x + 0 * torch.sqrt(x - x), "input 0 is harmed: 24 entries that were finite are not"),
        (lambda x: torch.from_numpy(x.numpy()), "the second model (Apart) cannot be differentiated"),
    ],
)
def test_harmed_gradients_are_declined(prepare: Callable[[torch.Tensor], torch.Tensor], named: str) -> None:
    before = Apart(lambda x: x)
    certificate = stabilize.certify(before, Apart(prepare), X)
    assert not certificate.accepted
    assert named in str(certificate.reason)
    assert stabilize.certify(before, before, X).accepted


def test_gradients_of_shared_parameters_are_compared() -> None:
    class Frozen(Head):
        def forward(self, x: torch.Tensor) -> Any:
            return self.spelling(F.linear(x, self.linear.weight.detach(), self.linear.bias))

    ids = torch.arange(4)[:, None] + torch.arange(6)
    assert "linear.weight is harmed: it is gone" in str(stabilize.certify(Head(stable), Frozen(stable), X).reason)

    class Embedded(Head):
        def forward(self, x: torch.Tensor) -> Any:
            return super().forward(torch.sin(x.float()))

    certificate = stabilize.certify(Embedded(log_naive), Embedded(lambda z: torch.log_softmax(z, -1)), ids)
    assert (certificate.accepted, certificate.gradients) == (True, "compared")


@pytest.mark.parametrize(
    ("before", "after", "given", "why"),
    [
        (lambda: Head(lambda z: z.argmax(-1)), None, X, "no output of the first model has a gradient"),
        (lambda: Apart(lambda x: x.detach()), lambda: Apart(lambda x: x), X, "no output of the first model"),
        (lambda: Apart(lambda x: x.double()), None, torch.arange(6), "no float input"),
        (lambda: Apart(lambda x: torch.from_numpy(x.numpy())), None, X, "cannot be differentiated"),
        (lambda: onnx_model("naive"), lambda: onnx_model("stable"), None, "two PyTorch models"),
        (lambda: Head(stable), lambda: Head(wrong_axis), X, "the values are worse"),
    ],
)
def test_why_gradients_were_not_compared(
    before: Callable[[], object], after: Callable[[], object] | None, given: object, why: str
) -> None:
    certificate = stabilize.certify(before(), (after or before)(), given)
    assert certificate.gradients.startswith("not compared: ")
    assert why in certificate.gradients
    assert certificate.accepted or "worse" in why


def test_gradients_leave_no_trace() -> None:
    model, x = Head(log_naive), X.clone().requires_grad_()
    with torch.no_grad():
        certificate = stabilize.certify(model, stabilize.optimize(model, (x,)), (x,))
    assert certificate.accepted, certificate.reason
    assert certificate.gradients == "compared"
    assert x.grad is None
    assert all(p.grad is None for p in model.parameters())


def test_gradients_of_tied_parameters_and_half_precision() -> None:
    class Tied(Head):
        def __init__(self, spelling: Callable[[torch.Tensor], Any]) -> None:
            super().__init__(spelling)
            self.other = self.linear

        def forward(self, x: torch.Tensor) -> Any:
            x += 1
            return self.spelling(self.linear(x) + self.other(x))

    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        certificate = stabilize.certify(
            Tied(log_naive).to(dtype), Tied(lambda z: torch.log_softmax(z, -1)).to(dtype), X.to(dtype)
        )
        assert certificate.accepted, certificate.reason
        assert certificate.gradients == "compared"


# --- nothing to compare ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [torch.full((4, 6), torch.nan), torch.ones(0, 6), torch.full((4, 6), torch.inf)])
def test_what_could_not_be_compared_is_not_accepted(given: torch.Tensor) -> None:
    for after in (stable, wrong_axis):
        certificate = stabilize.certify(Head(naive), Head(after), given)
        assert not certificate.accepted
        assert str(certificate.reason).startswith("nothing could be compared")


def test_an_output_without_numbers_must_stay_the_same() -> None:
    def beside(constant: float) -> Head:
        return Head(lambda z: (stable(z), torch.full_like(z, constant)))

    assert stabilize.certify(beside(-torch.inf), beside(-torch.inf), X).accepted
    certificate = stabilize.certify(beside(-torch.inf), beside(torch.inf), X)
    assert "output 1: nothing could be compared" in str(certificate.reason)


# --- ONNX ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given", [None, {"x": 3 * X[:, :5].numpy()}, {"x": 3 * X[:, :5]}], ids=["none", "numpy", "torch"]
)
@pytest.mark.parametrize("dtype", ["float", "float16", "bfloat16", "double"])
def test_onnx(dtype: str, given: Mapping[str, Any] | None) -> None:
    if given is not None:
        narrow = {"float": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "double": torch.float64}
        given = {"x": torch.as_tensor(given["x"]).to(narrow[dtype])}
    models = {name: onnx_model(name, dtype=dtype) for name in ("naive", "stable", "wrong axis")}
    certificate = stabilize.certify(models["naive"], models["stable"], given)
    assert certificate.accepted, certificate.reason
    if dtype != "double":
        assert max(f.failed_before for f in certificate.families) > 0
    certificate = stabilize.certify(models["naive"], models["wrong axis"], given)
    assert "output 0" in str(certificate.reason)


def test_onnx_kinds(tmp_path: Path) -> None:
    path = tmp_path / "naive.onnx"
    onnx.save(onnx_model("naive"), path)
    proto = onnx_model("stable")
    for before in (path, str(path), onnx.load(path), ir.from_proto(onnx.load(path))):
        for after in (proto, ir.from_proto(proto)):
            assert stabilize.certify(before, after).accepted


def test_dropping_an_epsilon_of_an_onnx_model_is_declined() -> None:
    assert stabilize.certify(onnx_model("with eps"), onnx_model("with eps")).accepted
    assert not stabilize.certify(onnx_model("with eps"), onnx_model("without eps")).accepted


def test_operators_that_the_view_does_not_read_run_as_a_float64_copy() -> None:
    fast = "c = ThresholdedRelu<alpha = 0.5>(x)\n d = Constant<value_float = 0.1>()\n out = Mul(c, d)"
    slow = fast.replace("out = ", "e = ") + "\n b = Cast<to = 10>(e)\n out = Cast<to = 1>(b)"
    certificate = stabilize.certify(onnx_model(slow), onnx_model(fast))
    assert certificate.accepted, certificate.reason
    assert max(f.before for f in certificate.families) > 1000  # float16 in between, against float64
    assert max(f.after for f in certificate.families) < 4


def test_weights_and_external_data(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((5, 300)).astype(np.float32)
    models = []
    for body in ("naive", "stable", "wrong axis"):
        model = onnx_model(f"z = MatMul(x, w)\n {ONNX[body].replace('(x)', '(z)')}", shape="4, 5", out="float[4, 300]")
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
        path = tmp_path / f"{body}.onnx"
        onnx.save(model, path, save_as_external_data=True, location=f"{body}.bin", size_threshold=100)
        models.append(path)
    x = {"x": 40 * X[:, :5]}
    assert stabilize.certify(models[0], models[1], x).accepted
    assert not stabilize.certify(models[0], models[2], x).accepted
    # an optimised file is a model that still refers to the data beside the file
    fixed = stabilize.optimize(models[0])
    certificate = stabilize.certify(models[0], fixed, x)
    assert certificate.accepted, certificate.reason


def test_random_inputs_fit_the_model() -> None:
    text = """<ir_version: 8, opset_import: ["" : 18]>
    m (int64[batch, "length"] ids, bool[batch, "length"] mask, float[3, 2] table) => (float[batch, "length", 2] out) {
    e = Gather(table, ids)
    m = Cast<to = 1>(mask)
    a = Constant<value_ints = [2]>()
    w = Unsqueeze(m, a)
    out = Mul(e, w)
    }""".replace('"length"', "length")
    model = onnx.parser.parse_model(text)
    certificate = stabilize.certify(model, model)
    assert certificate.accepted
    assert certificate.families[0].judged == 2 * 3 * 2


# --- between hosts ---------------------------------------------------------------------------------------------


def test_an_exported_file_is_compared_with_its_module() -> None:
    programs = {f: torch.onnx.export(Head(f), (X,), dynamo=True, verbose=False) for f in (stable, wrong_axis)}
    for given in ((X,), {"x": X}):
        assert stabilize.certify(Head(stable), programs[stable], given).accepted
        assert not stabilize.certify(Head(stable), programs[wrong_axis], given).accepted
    assert stabilize.certify(Head(stable), programs[stable].model_proto).accepted
    assert stabilize.certify(programs[stable], Head(stable), {"x": X}).accepted
    assert stabilize.certify(exported(naive), programs[stable]).accepted


# --- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "given", "error", "named"),
    [
        (lambda: Head(naive), lambda: Head(stable), None, UsageError, "example_inputs are needed"),
        (lambda: Head(naive), lambda: Head(stable), (X, X), UsageError, "too many positional"),
        (lambda: Head(naive), lambda: Head(stable), {"z": X}, UsageError, "'x'"),
        (lambda: exported(naive), lambda: Head(stable), {"z": X}, UsageError, "no 'x'"),
        (lambda: exported(naive), lambda: Head(stable), (X, X), UsageError, "takes 1 inputs (x)"),
        (lambda: Head(naive), lambda: Head(stable), (X[:, :3],), ModelError, "mat1 and mat2"),
        (lambda: exported(naive), lambda: Head(stable), (X[:2],), ModelError, "first model"),
        (lambda: Head(lambda z: None), lambda: Head(stable), X, ModelError, "returns no tensors"),
        (lambda: Head(lambda z: {1, 2}), lambda: Head(stable), X, ModelError, "returns a builtins.set"),
        (lambda: Head(naive), lambda: 3, X, UsageError, "the second model, a builtins.int"),
        (lambda: Head(naive), lambda: "model.txt", X, StabilizeError, "model.txt"),
        (lambda: "absent.onnx", lambda: Head(stable), X, ModelError, "absent.onnx"),
        (lambda: onnx_model("naive"), lambda: onnx_model("stable"), {"y": X}, UsageError, "no 'x'"),
        (lambda: onnx_model("naive"), lambda: onnx_model("stable"), {"x": X[:, :5], "y": X}, UsageError, "'y'"),
        (lambda: onnx_model("naive"), lambda: onnx_model("stable"), {"x": X}, UsageError, "['n', 5], not [4, 6]"),
        (lambda: onnx_model("naive"), lambda: onnx_model("stable"), {"x": X[0, :5]}, UsageError, "shape"),
        (lambda: onnx_model("naive"), lambda: onnx_model("stable"), {"x": X[:, :5].double()}, UsageError, "float64"),
        (lambda: onnx_model("naive"), lambda: onnx_model("stable"), {"x": "text"}, UsageError, "'x'"),
        (
            lambda: onnx_model("r = RandomNormalLike(x)\n out = Add(x, r)"),
            lambda: onnx_model("stable"),
            None,
            UsageError,
            "RandomNormalLike",
        ),
        (
            lambda: onnx_model("out = com.microsoft.Gelu(x)"),
            lambda: onnx_model("stable"),
            None,
            ModelError,
            "com.microsoft.Gelu",
        ),
        (lambda: onnx_model("out = Absent(x)"), lambda: onnx_model("stable"), None, ModelError, "Absent"),
    ],
)
def test_refusals(
    before: Callable[[], object], after: Callable[[], object], given: object, error: type[Exception], named: str
) -> None:
    with pytest.raises(error) as caught:
        stabilize.certify(before(), after(), given)
    assert named in str(caught.value)


def test_other_outputs_are_a_reason() -> None:
    two = Head(lambda z: (stable(z), z))
    assert "1 and 2 tensors" in str(stabilize.certify(Head(stable), two, X).reason)
    short = Head(lambda z: stable(z)[:2])
    assert "[2, 5] instead of" in str(stabilize.certify(Head(stable), short, X).reason)
    half = Head(lambda z: stable(z).half())
    assert "float16" in str(stabilize.certify(Head(stable), half, X).reason)


def test_a_replacement_that_fails_is_declined() -> None:
    def fails(z: torch.Tensor) -> torch.Tensor:
        raise ValueError("no luck")

    certificate = stabilize.certify(Head(stable), Head(fails), X)
    assert "on given inputs" in str(certificate.reason)
    assert "no luck" in str(certificate.reason)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("naive", "stable", "wrong axis"):
        onnx.save(onnx_model(name), tmp_path / f"{name}.onnx")
    a, b, c = (str(tmp_path / f"{name}.onnx") for name in ("naive", "stable", "wrong axis"))
    assert main(["certify", a, b]) == 0
    assert "→" in capsys.readouterr().out
    assert main(["certify", a, c]) == 1
    assert capsys.readouterr().out.startswith("declined: on given inputs")
    np.savez(tmp_path / "x.npz", y=X.numpy())
    assert main(["certify", a, b, "--input-data", str(tmp_path / "x.npz")]) == 2
    assert "'x'" in capsys.readouterr().err
    np.savez(tmp_path / "x.npz", X[:, :5].numpy())
    assert main(["certify", a, b, "--input-data", str(tmp_path / "x.npz")]) == 0
    assert main(["certify", a, str(tmp_path / "absent.onnx")]) == 2

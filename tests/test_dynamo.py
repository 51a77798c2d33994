"""The backend of torch.compile, and the modules that only torch.compile can capture."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import stabilize
from stabilize import dynamo

ROOT = Path(__file__).resolve().parents[1]
X = torch.randn(4, 10, generator=torch.Generator().manual_seed(0)) * 200

NO_COMPILER = shutil.which("c++") is None
INDUCTOR = pytest.param("inductor", marks=pytest.mark.skipif(NO_COMPILER, reason="inductor needs a C++ compiler"))


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(
    function: Callable[..., Any], *, fullgraph: bool = True, dynamic: bool | None = None, **options: Any
) -> Any:
    return torch.compile(
        function, backend=dynamo.stabilize, fullgraph=fullgraph, dynamic=dynamic, options=options or None
    )


def log_probabilities(x: torch.Tensor) -> torch.Tensor:
    e = torch.exp(x)
    return torch.log(e / e.sum(-1, keepdim=True))


def check(actual: torch.Tensor, x: torch.Tensor) -> None:
    torch.testing.assert_close(actual, F.log_softmax(x.detach().double(), -1).float(), rtol=1e-6, atol=1e-6)


# --- the backend ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["eager", "aot_eager", INDUCTOR, lambda module, inputs: module.forward])
def test_values_and_gradients(backend: object) -> None:
    """What runs after it is any backend; the backward pass is that of the rewritten graph."""
    run = compiled(log_probabilities, backend=backend)
    x = X.clone().requires_grad_()
    y = run(x)
    check(y, x)
    weights = torch.randn(4, 10)
    (actual,) = torch.autograd.grad((y * weights).sum(), x)
    exact = X.double().requires_grad_()
    (wanted,) = torch.autograd.grad((F.log_softmax(exact, -1) * weights).sum(), exact)
    # a sum of ten products, each rounded, and one exp of a rounded argument
    torch.testing.assert_close(actual, wanted.float(), rtol=1e-5, atol=1e-5)


def test_it_is_found_by_name(tmp_path: Path) -> None:
    """As an entry point of the installed package: nothing of stabilize is imported before."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["torch_dynamo_backends"]
    folder = tmp_path / "stabilize_backend-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: stabilize-backend\nVersion: 1\n")
    lines = [f"{name} = {target}" for name, target in declared.items()]
    (folder / "entry_points.txt").write_text("\n".join(["[torch_dynamo_backends]", *lines, ""]))
    program = (
        "import sys, torch\n"
        "x = torch.full((2, 3), 500.0)\n"
        "assert 'stabilize' not in sys.modules\n"
        "f = torch.compile(lambda x: torch.log(torch.exp(x).sum(-1)), backend='stabilize', fullgraph=True)\n"
        "print(f(x).tolist())\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("[501.098")
    assert run.stderr == ""


def test_graph_breaks_give_several_graphs() -> None:
    reports: list[stabilize.Report] = []

    def broken(x: torch.Tensor) -> torch.Tensor:
        y = torch.log(torch.exp(x).sum(-1, keepdim=True))
        torch._dynamo.graph_break()
        e = torch.exp(x - y)
        return torch.log(1 - (e / e.sum(-1, keepdim=True)).amax(-1)) if float(y.max()) > 1e9 else x - y

    y = compiled(broken, fullgraph=False, report=reports.append)(X)
    check(y, X)
    assert len(reports) >= 2
    assert [r.code for report in reports for r in report.rewrites] == ["STB103"]
    assert all(report.model.startswith("torch.compile graph ") for report in reports)


@pytest.mark.parametrize("how", ["dynamic", "mark", "automatic"])
def test_dynamic_shapes(how: str) -> None:
    reports: list[stabilize.Report] = []
    run = compiled(log_probabilities, dynamic=True if how == "dynamic" else None, report=reports.append)
    for rows in (4, 5, 7, 23):
        x = torch.randn(rows, 10) * 300
        if how == "mark":
            torch._dynamo.mark_dynamic(x, 0)
        check(run(x), x)
    assert len(reports) == (2 if how == "automatic" else 1)
    assert all(len(report.rewrites) == 1 for report in reports)


def test_symbolic_sizes_in_the_formula() -> None:
    """A size that is an input of its own (Dynamo's SymInt placeholders)."""

    def mean_log(x: torch.Tensor, n: int) -> torch.Tensor:
        rows = x.shape[0]
        e = torch.exp(x.view(rows, -1))
        return torch.log(e.sum(-1)) / rows + n

    run = compiled(mean_log, dynamic=True)
    for rows, n in ((4, 7), (6, 9), (8, 11)):
        x = torch.randn(rows, 10) * 300
        torch.testing.assert_close(run(x, n), torch.logsumexp(x, -1) / rows + n)


def test_memory_keywords_and_nested_results() -> None:
    def step(batch: dict[str, torch.Tensor], *, cache: list[torch.Tensor], scale: float = 1.0) -> dict[str, Any]:
        x = batch["x"]
        e = torch.exp(x * scale)
        e /= e.sum(-1, keepdim=True)
        cache[0].add_(e)
        view = cache[0][1:]
        view.mul_(2)
        return {"p": [e, view], "same": x, "log": torch.log(e)}

    cache = [torch.zeros(4, 10)]
    out = compiled(step)({"x": X}, cache=cache, scale=2.0)
    p = torch.softmax(X * 2, -1)
    torch.testing.assert_close(out["p"][0], p)
    torch.testing.assert_close(cache[0], torch.cat([p[:1], 2 * p[1:]]))
    assert out["p"][1].data_ptr() == cache[0][1:].data_ptr()
    assert out["same"] is X
    check(out["log"], X * 2)


def test_modules_keep_their_parameters() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(10, 10, bias=False)
            self.register_buffer("steps", torch.zeros((), dtype=torch.long))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.steps += 1
            return log_probabilities(self.linear(x))

    model = Model()
    run = compiled(model)
    run(X)[:, 0].sum().backward()
    assert torch.isfinite(model.linear.weight.grad).all()
    assert model.linear.weight.grad.abs().sum() > 0
    assert int(model.steps) == 1


def test_reports_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "stabilize"):
        compiled(log_probabilities)(X)
        compiled(lambda x: torch.softmax(x, -1))(X)
    (record,) = caplog.records
    assert "STB102" in record.getMessage()
    assert f"{Path(__file__).name}:" in record.getMessage()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"from": "softmax"}, "'from'.*form, allow, select, ignore, certify, backend, backend_options, report"),
        ({"form": "hardmax"}, "hardmax"),
        ({"allow": "all"}, "allow 'all'"),
        ({"select": "STB999"}, "STB999"),
        ({"ranges": {"x": (0, 1)}}, "name their inputs themselves"),
        ({"backend": "nowhere"}, "nowhere"),
        ({"backend": "stabilize"}, "cannot be stabilize"),
        ({"backend": "inductor", "backend_options": {"nothing": 1}}, "nothing"),
        ({"backend_options": 3}, "backend_options.*by name"),
        ({"report": "file.json"}, "callable"),
    ],
)
def test_wrong_options_are_usage_errors(options: dict[str, Any], named: str) -> None:
    with pytest.raises(stabilize.UsageError, match=named):
        compiled(log_probabilities, **options)(X)


def test_options_are_those_of_optimize() -> None:
    loss = compiled(lambda x, y: F.cross_entropy(x, y, reduction="none"), form="collapse-free")
    logits = torch.zeros(1, 10)
    logits[0, 0] = 40.0
    assert float(loss(logits, torch.tensor([0]))) > 0
    x = X.clone()
    assert not torch.isfinite(compiled(log_probabilities, ignore=["STB1"])(x)).all()


def test_a_graph_that_cannot_be_read_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> object:
        raise KeyError("a mistake in here")

    monkeypatch.setattr(dynamo, "run", broken)
    x = torch.rand(4, 10)
    with pytest.warns(UserWarning, match="runs as written, not as rewritten: KeyError: 'a mistake in here'"):
        check(compiled(log_probabilities)(x), x)


def test_a_graph_that_takes_nothing_is_read() -> None:
    """What is left of a function between graph breaks may compute from numbers alone."""

    def grid(size: int) -> torch.Tensor:
        return torch.arange(-size / 2, size / 2) / size

    reports: list[stabilize.Report] = []
    compiled = torch.compile(grid, backend="stabilize", options={"report": reports.append})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = compiled(8)
    assert [report.findings for report in reports] == [[]]
    assert torch.equal(result, grid(8))


def test_a_healthy_graph_is_the_same_graph() -> None:
    seen: list[object] = []

    def keep(module: torch.fx.GraphModule, inputs: object) -> Any:
        seen.append([str(n.target) for n in module.graph.nodes])
        return module.forward

    def healthy(x: torch.Tensor) -> torch.Tensor:
        return F.log_softmax(x, -1).exp().sum()

    compiled(healthy, backend=keep)(X)
    torch.compile(healthy, backend=keep)(X.clone())
    assert seen[0] == seen[-1]


# --- what only Dynamo can capture -------------------------------------------------------------------------------------


class Branching(nn.Module):
    """A branch on data in the middle."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 1e6:
            return x
        return log_probabilities(x)


class Validated(nn.Module):
    """torch.distributions looks at the values it is given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = torch.log1p(torch.exp(x))
        return torch.distributions.Normal(x, scale + 1).log_prob(x) * 0 + log_probabilities(x)


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        return grads[0] * 3


class Custom(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return log_probabilities(Straight.apply(x))


class Checkpointed(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return log_probabilities(checkpoint(lambda x: torch.tanh(x) * x.abs(), x, use_reentrant=False))


@pytest.mark.parametrize("kind", [Branching, Validated, Custom])
def test_what_export_cannot_capture_is_captured_by_dynamo(kind: type[nn.Module]) -> None:
    fixed = stabilize.optimize(kind())
    x = X.clone().requires_grad_()
    y = fixed(x)
    check(y, x)
    y[:, 0].sum().backward()
    exact = X.double().requires_grad_()
    F.log_softmax(exact, -1)[:, 0].sum().backward()
    factor = 3 if kind is Custom else 1
    torch.testing.assert_close(x.grad, factor * exact.grad.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [Branching, Custom])
def test_export_now_says_the_cure(kind: type[nn.Module]) -> None:
    with pytest.raises(stabilize.ModelError, match=r"optimize (it )?without example_inputs"):
        stabilize.optimize(kind(), (X,))


def test_such_modules_are_quiet(tmp_path: Path) -> None:
    """A capture that fails on the way prints nothing."""
    file = tmp_path / "program.py"
    file.write_text(
        "import torch, stabilize\n"
        "class M(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        if x.sum() > 1e6: return x\n"
        "        return torch.log(torch.exp(x).sum(-1))\n"
        "print(stabilize.optimize(M())(torch.full((2, 3), 500.0)).tolist())\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, str(file)], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("[501.098")
    assert run.stderr == ""


def test_many_modules_of_one_class() -> None:
    """The limit that torch.compile has on recompilations is for each of them."""
    for _ in range(10):
        check(stabilize.optimize(Branching())(X), X)

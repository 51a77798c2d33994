"""The lint's corpus: its defects are real, its exported graphs are those of its modules, and the lint finds them.

`benchmarks/lint_corpus.py` runs all of it; here the graphs of PyTorch and those written in ONNX, a third of the
exported ones, and of the standard's node tests one in nine.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
_FAMILIES = 38


@pytest.fixture(scope="module")
def corpus() -> Iterator[ModuleType]:
    """The benchmark, imported."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield importlib.import_module("lint_corpus")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def cases(corpus: ModuleType) -> Any:
    return importlib.import_module("lint_cases")


def test_it_is_larger_than_the_published_ones(corpus: ModuleType, cases: Any) -> None:
    every = list(corpus.subjects())
    assert len({d.name for d in cases.DEFECTS}) == len(cases.DEFECTS) >= 120
    assert len({g.name for g in cases.WRITTEN}) == len(cases.WRITTEN) >= 50
    assert len(every) > 3 * 79
    assert len({s.family for s in every}) >= _FAMILIES
    assert sum(s.overflows for s in every) > 100
    assert len(corpus.healthy()) > 1800


def test_the_defects_of_modules_are_real(cases: Any) -> None:
    """On ordinary inputs they work, on others inside their ranges they fail, and the failing line is marked."""
    failure = importlib.import_module("lint_judge").failure
    for defect in cases.DEFECTS:
        assert defect.lines, defect.name
        assert failure(defect.module(), defect.inputs(), gradient=defect.gradient) is None, defect.name
        module, inputs = defect.broken()
        assert failure(module, inputs, gradient=defect.gradient), defect.name
        given = zip(defect.inputs(), inputs, strict=True)
        named = dict(zip(inspect.signature(module.forward).parameters, given, strict=True))
        for name, (low, high) in defect.ranges.items():
            assert all(low <= t.min() and t.max() <= high for t in named[name]), (defect.name, name)


def test_the_defects_of_written_graphs_are_real(cases: Any) -> None:
    failure = importlib.import_module("lint_judge_onnx").failure
    for graph in cases.WRITTEN:
        computed = {o for n in _nodes(graph.model.graph) for o in n.output}
        computed |= {o for f in graph.model.functions for n in f.node for o in n.output}
        assert set(graph.at) <= computed, graph.name
        assert failure(graph.model, graph.inputs(), graph.truth) is None, graph.name
        assert failure(graph.model, graph.broken(), graph.truth), graph.name
        for name, (low, high) in graph.ranges.items():
            assert all(low <= x[name].min() and x[name].max() <= high for x in (graph.inputs(), graph.broken()))


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def test_exported_graphs_are_of_the_modules_as_they_are(corpus: ModuleType, cases: Any) -> None:
    """`python benchmarks/lint_export.py` writes those again whose class was edited."""
    export = importlib.import_module("lint_export")
    failure = importlib.import_module("lint_judge_onnx").failure
    exported = [d for d in cases.DEFECTS if d.exported]
    assert {path.name for path in export.GRAPHS.iterdir()} == {f"{d.name}.onnx" for d in exported}
    assert len(exported) > 100
    for defect in exported:
        assert export.is_current(defect), f"{defect.name}: run python benchmarks/lint_export.py"
        model = export.graph_of(defect)
        assert str(ROOT).encode() not in model.SerializeToString()
        names = [i.name for i in model.graph.input]
        _, inputs = defect.broken()
        ordinary = failure(model, {n: t.numpy() for n, t in zip(names, defect.inputs(), strict=True)})
        assert ordinary is None or defect.name == "masked-fill-in-half", defect.name  # -1e9 was written as -inf
        assert failure(model, {n: t.numpy() for n, t in zip(names, inputs, strict=True)}), defect.name


def test_the_judge_tells_wrong_from_right() -> None:
    judge = importlib.import_module("lint_judge")
    x = torch.tensor([1.0, 2.0])
    assert judge.wrong([x], [x.double()]) is None
    assert judge.wrong([x * 1.001], [x.double()]) is None
    assert judge.wrong([torch.tensor([1.0, 2.1])], [x.double()]) is not None
    assert judge.wrong([torch.tensor([1.0, torch.nan])]) == "NaN"
    assert judge.wrong([torch.tensor([-torch.inf, 0.0])]) == "infinite"
    tiny = torch.tensor([1.0, 1e-9])
    assert judge.wrong([torch.tensor([1.0, 0.0])], [tiny.double()]) is None
    assert judge.wrong([torch.tensor([1.0, 0.0])], [tiny.double()], scale="element") is not None


class Shown(dict[str, torch.Tensor]):
    """A witness."""

    file = None

    def __init__(self, scope: str = "model", **tensors: torch.Tensor) -> None:
        super().__init__(tensors)
        self.scope = scope


def test_a_witness_that_breaks_nothing_is_no_proof(corpus: ModuleType) -> None:
    """Nor is one outside the ranges, or one that does not run."""
    replay = importlib.import_module("lint_replay").replay
    subject = next(s for s in corpus.subjects() if s.name == "softmax-in-half" and s.host == "PyTorch")
    module, (x,) = subject.make()
    good, bad = torch.ones_like(x), torch.full_like(x, 30.0)
    node = "div"
    assert replay(module, Shown(x=bad), node, subject.ranges) is not None
    assert replay(module, Shown(x=good), node, subject.ranges) is None
    assert replay(module, Shown(x=2 * bad), node, subject.ranges) is None
    assert replay(module, Shown("expression", e=bad), node, subject.ranges) is None


@pytest.fixture(scope="module")
def defective(corpus: ModuleType) -> list[Any]:
    every = list(corpus.subjects())
    exported = [s for s in every if s.host == "ONNX, exported"]
    chosen = [s for s in every if s.host != "ONNX, exported"] + exported[::3]
    return [corpus.measured(s, budget=10.0) for s in chosen]


def test_every_defect_is_found_where_it_is(defective: list[Any]) -> None:
    assert len(defective) > 200
    assert [(r.name, r.host) for r in defective if not r.found] == []
    assert [(r.name, r.failed) for r in defective if r.failed] == []


def test_every_error_breaks_when_its_witness_is_run_again(defective: list[Any]) -> None:
    errors = [(r.name, t) for r in defective for t in r.findings if t.severity == "error"]
    assert len(errors) > 100
    assert [(name, t.code, t.node) for name, t in errors if not t.replayed] == []


def test_every_overflow_is_proven(defective: list[Any]) -> None:
    assert [(r.name, r.host) for r in defective if r.overflows and not r.proven] == []


def test_healthy_graphs_have_no_errors(corpus: ModuleType) -> None:
    every = corpus.healthy()
    nodes = [h for h in every if h.group == "ONNX node tests"]
    chosen = [h for h in every if h.group != "ONNX node tests"] + nodes[::9]
    records = [corpus.checked(h, budget=10.0) for h in chosen]
    assert len(records) >= 350
    assert [(r.name, r.failed) for r in records if r.failed] == []
    assert [(r.name, t.code) for r in records for t in r.findings if t.severity == "error"] == []
    loud = [r.name for r in records if r.findings]
    assert len(loud) <= len(records) // 20, loud


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_the_benchmark_prints_its_tables(tmp_path: Path) -> None:
    path = tmp_path / "corpus.json"
    done = _run("benchmarks/lint_corpus.py", "--only", "nll-of-softmax", "--only", "exp-sum-log", "--json", str(path))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "| log of softmax | 1/1 | 1/1 |  |  | 2/2 |" in done.stdout
    assert "| exp/Σexp, then log | 1/1 | 1/1 |  | 2/2 |  |" in done.stdout
    assert "RANUM 79 of 79, SA-Fuzzer 79 of 79, DEBAR" in done.stdout
    graphs = json.loads(path.read_text())["graphs"]
    assert [g["host"] for g in graphs] == ["PyTorch", "PyTorch", "ONNX, exported", "ONNX, exported"]
    assert all(t["witness"] == "model" and t["replayed"] for g in graphs for t in g["findings"] if t["hit"])


def test_speed_is_told_plainly() -> None:
    done = _run("benchmarks/lint_speed.py", "--nodes", "100", "--gigabytes", "0", "--repeat", "1")
    assert done.returncode in (0, 1), done.stderr[-2000:]
    assert "| 100 nodes, weights of next to no size |" in done.stdout
    said = "takes less time" if done.returncode == 0 else "takes MORE time"
    assert said in done.stdout

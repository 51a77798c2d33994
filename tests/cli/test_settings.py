"""[tool.stabilize] in pyproject.toml: found, strict, and overruled by the command line."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from stabilize.cli.settings import _KEYS, configured
from stabilize.errors import UsageError
from tests.cli.support import Outcome, one_line

Run = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(table: str, file: str = "pyproject.toml") -> Path:
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"[project]\nname = 'x'\n\n[tool.stabilize]\n{table}\n")
    return path


def test_every_key_is_read(here: Path) -> None:
    write(
        """
        select = ["STB1", "STB203"]
        ignore = ["STB104"]
        ranges = { x = [-50, 50], "a.b:0" = [-inf, 1e4] }
        runtime = "openvino"
        allow-fast = ["Sigmoid"]
        input-data = "data/inputs.npz"
        format = "json"
        fail-on = "never"
        statistics = true
        budget = 5
        witness-dir = "proof"
        seed = 7
        """
    )
    options = configured(None)
    assert options == {
        "select": ["STB1", "STB203"], "ignore": ["STB104"],
        "ranges": {"x": (-50.0, 50.0), "a.b:0": (-math.inf, 1e4)},
        "runtime": "openvino", "allow_fast": ["Sigmoid"],
        "input_data": str(here / "data/inputs.npz"), "form": "json", "fail_on": "never", "statistics": True,
        "budget": 5.0, "witness_dir": str(here / "proof"), "seed": 7,
    }  # fmt: skip
    assert len(options) == len(_KEYS)


def test_the_nearest_table_upward_is_taken(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("seed = 1")
    write("seed = 2", "a/pyproject.toml")
    Path("a/b/c").mkdir(parents=True)
    Path("a/b/pyproject.toml").write_text("[tool.other]\nx = 1\n")  # a package of the same repository, without a table
    for folder, seed in (("a/b/c", 2), ("a", 2), (".", 1)):
        monkeypatch.chdir(here / folder)
        assert configured(None) == {"seed": seed}
    monkeypatch.chdir(here / "a/b/c")
    assert configured(here / "pyproject.toml") == {"seed": 1}


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("colour = true", "has no key 'colour': the keys are allow-fast, budget, fail-on, format, ignore, input-data"),
        ("fail_on = 'error'", "has no key 'fail_on'"),
        ("fail-on = 'fatal'", "fail-on is 'fatal': give one of error, warning, info, never"),
        ("format = 'html'", "format is 'html': give one of text, json, sarif, github"),
        ("format = ['text']", "format is ['text']: give one of"),
        ("select = 'STB1'", "select is 'STB1': give rule codes"),
        ("ignore = ['STB1', 2]", "ignore is ['STB1', 2]: give rule codes"),
        ("ignore = ['FOO']", "ignore is ['FOO']: give rule codes"),
        ("ranges = [1, 2]", "ranges is [1, 2]: give the lowest and the highest value by input"),
        ("ranges = { x = [1] }", "ranges is {'x': [1]}: give"),
        ("ranges = { x = [2, 1] }", "ranges is {'x': [2, 1]}: give"),
        ("ranges = { x = [nan, 1] }", "ranges is {'x': [nan, 1]}: give"),
        ("ranges = { x = [true, 1] }", "ranges is {'x': [True, 1]}: give"),
        ("ranges = { x = 'ab' }", "ranges is {'x': 'ab'}: give"),
        ("budget = '5'", "budget is '5': give a number of seconds"),
        ("budget = -1", "budget is -1: give a number of seconds, 0 or more"),
        ("budget = nan", "budget is nan: give"),
        ("budget = true", "budget is True: give"),
        ("statistics = 1", "statistics is 1: give true or false"),
        ("seed = 1.0", "seed is 1.0: give a whole number"),
        ("seed = -1", "seed is -1: give a whole number"),
        ("runtime = 'ort'", "runtime is 'ort': give one of portable, onnxruntime, openvino, tensorrt, tvm"),
        ("allow-fast = 'Sigmoid'", "allow-fast is 'Sigmoid': give operators, like"),
        ("witness-dir = ''", "witness-dir is '': give the path of a folder"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(here: Path, table: str, told: str) -> None:
    write(table)
    with pytest.raises(UsageError) as error:
        configured(None)
    assert str(error.value).startswith(f"{here}/pyproject.toml: [tool.stabilize] {told}")


def test_files_that_are_no_configuration(here: Path) -> None:
    Path("bad.toml").write_text("[tool.stabilize\n")
    Path("latin.toml").write_bytes(b"x = '\xe4'\n")
    Path("none.toml").write_text("[tool.other]\n")
    Path("number.toml").write_text("tool.stabilize = 3\n")
    for file, told in (
        ("bad.toml", "not a TOML file"),
        ("latin.toml", "not a TOML file"),
        ("none.toml", "has no \\[tool.stabilize\\]"),
        ("number.toml", "tool.stabilize is 3: write a table"),
    ):
        with pytest.raises(UsageError, match=f"^{file}: {told}"):
            configured(Path(file))
    assert configured(None) == {}


# -- with the command line ------------------------------------------------------------------------------------------


def test_the_command_line_wins(run: Run) -> None:
    write('format = "json"\nfail-on = "never"\nbudget = 0\nselect = ["STB20"]\nstatistics = true')
    assert run("lint", "models:head").status == 0
    outcome = run("lint", "models:head", "--select", "STB1", "--fail-on", "warning", "--no-statistics")
    assert outcome.status == 1
    assert [f["severity"] for f in json.loads(outcome.out)["findings"]] == ["warning"]
    assert (
        run("lint", "models:head", "--select", "STB1", "--format", "text").out == "1  STB101  warning  naive-softmax\n"
    )
    assert run("lint", "models:head", "--no-config").out.startswith("models.py:7: error")


def test_ranges_are_overruled_one_by_one(run: Run) -> None:
    write("ranges = { x = [-50, 50] }\nbudget = 0")
    assert run("lint", "models:head").status == 0
    assert run("lint", "models:head", "--range", "x=-500:500").status == 1


def test_paths_are_those_of_the_file(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write('input-data = "small.npz"\nbudget = 0', "conf/other.toml")
    np.savez("conf/small.npz", x=np.ones((3, 5), np.float32))
    assert run("lint", "models:head", "--config", str(file)).status == 0


def test_a_wrong_configuration_is_one_line(run: Run) -> None:
    write("colour = true")
    line = one_line(run("lint", "models:head"))
    assert "pyproject.toml: [tool.stabilize] has no key 'colour'" in line
    assert run("optimize", "models:clean", "-o", "x.pt2").status == 0  # it is of lint alone
    assert os.path.exists("x.pt2")


def test_a_runtime_in_the_configuration(run: Run) -> None:
    node = onnx.helper.make_node("Sigmoid", ["x"], ["y"])
    ends = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [3]) for n in "xy"]
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), "m.onnx")
    write('runtime = "onnxruntime"')
    outcome = run("lint", "m.onnx")
    assert (outcome.status, "STB810" in outcome.out) == (1, True)
    assert run("lint", "m.onnx", "--runtime", "portable").status == 0
    assert run("lint", "m.onnx", "--allow-fast", "Softplus,Sigmoid").status == 0
    assert run("optimize", "m.onnx", "-o", "out.onnx", "--runtime", "onnxruntime").status == 0
    assert [n.op_type for n in onnx.load("out.onnx").graph.node] == ["Min", "Exp", "Add", "Div"]
    kept = run("optimize", "m.onnx", "-o", "kept.onnx", "--runtime", "onnxruntime", "--allow-fast", "Sigmoid")
    assert kept.status == 0
    assert Path("kept.onnx").read_bytes() == Path("m.onnx").read_bytes()
    wrong = run("optimize", "m.onnx", "-o", "no.onnx", "--runtime", "ort")
    assert (wrong.status, wrong.err.count("\n"), Path("no.onnx").exists()) == (2, 1, False)

"""`stabilize lint` as a team runs it: what it prints, where, and the status."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.cli.support import FACTORY, Outcome, on_terminal, one_line, softmax_model

Run = Callable[..., Outcome]


def found(outcome: Outcome) -> list[dict[str, Any]]:
    assert outcome.err == ""
    return json.loads(outcome.out)["findings"]


def test_text_of_a_module(run: Run) -> None:
    outcome = run("lint", "models:head")
    assert (outcome.status, outcome.err) == (1, "")
    lines = outcome.out.splitlines()
    assert lines[0].startswith("models.py:7: error[STB101] naive-softmax: ")
    assert lines[2:4] == [
        "7 |         return e / e.sum(dim=-1, keepdim=True)",
        "  |                ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
    ]
    assert {"  - exp(x) / (sum(exp(x), 1))", "  + softmax(x, 1)"} < set(lines)
    assert any(line.startswith("  = witness: x = [") for line in lines)
    assert lines[-1] == "models:head: 1 finding (1 error), 1 fixable"
    assert "rewrite" not in outcome.out


def test_a_clean_model(run: Run) -> None:
    assert run("lint", "models:clean") == Outcome(0, "models:clean: 0 findings\n", "")


def test_json(run: Run) -> None:
    outcome = run("lint", "models:head", "--format", "json")
    told = json.loads(outcome.out)
    assert (outcome.status, outcome.err) == (1, "")
    assert list(told) == ["schema_version", "model", "findings"]
    assert (told["schema_version"], told["model"]) == (1, "models:head")
    (finding,) = told["findings"]
    assert (finding["code"], finding["severity"], finding["line"]) == ("STB101", "error", 7)
    assert np.shape(finding["witness"]["x"]) == (3, 5)


def test_sarif_and_annotations_name_the_onnx_file(run: Run) -> None:
    onnx.save(softmax_model(), "m.onnx")
    log = json.loads(run("lint", "m.onnx", "--budget", "0", "--format", "sarif").out)
    (result,) = log["runs"][0]["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "m.onnx"
    assert run("lint", "m.onnx", "--budget", "0", "--format", "github").out.startswith(
        "::warning file=m.onnx,title=STB101 naive-softmax::"
    )


def test_every_kind_of_model(run: Run) -> None:
    assert run("optimize", "models:head", "-o", "naive.pt2", "--select", "STB2").status == 0
    onnx.save(softmax_model(), "m.onnx")
    onnx.save(softmax_model(stable=True), "clean.onnx")
    for model in ("naive.pt2", "m.onnx"):
        assert [f["code"] for f in found(run("lint", model, "--format", "json"))] == ["STB101"]
    assert run("lint", "clean.onnx").out == "clean.onnx: 0 findings\n"


def test_output_goes_to_a_file_whole_or_not_at_all(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = run("lint", "models:head", "--budget", "0")
    assert run("lint", "models:head", "--budget", "0", "-o", "out.txt") == Outcome(1, "", "")
    assert Path("out.txt").read_text() == printed.out

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "out.txt")

    monkeypatch.setattr(os, "fsync", full)
    one_line(run("lint", "models:head", "--budget", "0", "--format", "json", "-o", "out.txt"))
    assert Path("out.txt").read_text() == printed.out
    assert sorted(set(os.listdir()) - {"__pycache__"}) == ["models.py", "out.txt"]


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ([], 1),
        (["--fail-on", "error"], 0),
        (["--fail-on", "warning"], 1),
        (["--fail-on", "info"], 1),
        (["--fail-on", "never"], 0),
        (["--ignore", "STB1", "--ignore", "STB24,STB5"], 0),
        (["--select", "STB20,STB3", "--select", "STB4"], 0),
        (["--select", "STB20,STB101"], 1),
    ],
)
def test_status(run: Run, options: list[str], status: int) -> None:
    assert run("lint", "models:head", "--budget", "0", *options).status == status  # a warning: nothing is proven


def test_fail_on_error_is_met_by_a_witness(run: Run) -> None:
    assert run("lint", "models:head", "--fail-on", "error").status == 1


def test_ranges_and_data_say_what_inputs_are(run: Run) -> None:
    assert run("lint", "models:head", "--range", "x=-50:50").out == "models:head: 0 findings\n"
    assert run("lint", "models:head", "--range", "x=-inf:inf", "--budget", "0").status == 1
    assert run("lint", "models:head", "--range", "x=-1e3:1e3").status == 1
    np.savez("small.npz", x=np.full((3, 5), 2, np.float32))
    np.savez("large.npz", np.full((3, 5), 200, np.float32))
    onnx.save(softmax_model(), "m.onnx")
    for model in ("models:head", "m.onnx"):
        assert run("lint", model, "--input-data", "small.npz").status == 0
        assert run("lint", model, "--input-data", "large.npz").status == 1  # by position


def test_statistics(run: Run) -> None:
    outcome = run("lint", "models:head", "--statistics")
    assert outcome == Outcome(1, "1  STB101  error  naive-softmax\n", "")
    told = json.loads(run("lint", "models:head", "--statistics", "--format", "json").out)
    assert told["statistics"] == [{"count": 1, "code": "STB101", "severity": "error", "name": "naive-softmax"}]
    assert run("lint", "models:clean", "--statistics") == Outcome(0, "", "")


def test_witnesses_are_saved_and_named(run: Run) -> None:
    outcome = run("lint", "models:head", "--witness-dir", "proof", "--seed", "3")
    (file,) = Path("proof").glob("*.npz")
    assert f"saved in {file}\n" in outcome.out
    with np.load(file) as arrays:
        x = arrays["x"]
    with np.errstate(all="ignore"):
        e = np.exp(x)
        assert not np.isclose((e / e.sum(-1, keepdims=True)).sum(-1), 1).all()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["lint"], "MODEL"),
        (["lint", "models:head", "--format", "html"], "'html' is not one of 'text', 'json', 'sarif', 'github'"),
        (["lint", "models:head", "--range", "x"], "'x': give NAME=LO:HI"),
        (["lint", "models:head", "--range", "=1:2"], "'=1:2': give NAME=LO:HI"),
        (["lint", "models:head", "--range", "x=a:2"], "'x=a:2': 'a:2' is not two numbers"),
        (["lint", "models:head", "--range", "x=2:1"], "'x=2:1': the lowest value is above"),
        (["lint", "models:head", "--range", "x=nan:1"], "'x=nan:1': NaN is no bound"),
        (["lint", "models:head", "--range", "x=0:1", "--range", "x=0:2"], "x was given a range before"),
        (["lint", "models:head", "--range", "z=0:1"], "ranges['z']: no such input; the inputs are x"),
        (["lint", "models:head", "--budget", "-1"], "-1.0: give a number of seconds"),
        (["lint", "models:head", "--budget", "nan"], "nan: give a number of seconds"),
        (["lint", "models:head", "--seed", "1.5"], "--seed"),
        (["lint", "models:head", "--select", "STB9"], "select 'STB9' is no rule"),
        (["lint", "models:head", "--statistics", "--format", "sarif"], "--statistics is written as text or json"),
        (["lint", "models:head", "--input-data", "absent.npz"], "absent.npz: no such file"),
        (["lint", "models:head", "--input-data", "z.npz"], "z.npz: no array 'x'; the inputs of models:head are x"),
        (["lint", "models:head", "--input-data", "many.npz"], "many.npz: no array 'x'"),
        (["lint", "models:head", "-o", "absent/out.txt"], "absent/out.txt"),
        (["lint", "models:head", "--witness-dir", "models.py"], "models.py: witnesses cannot be written there"),
        (["lint", "models:head", "--config", "absent.toml"], "absent.toml: No such file"),
        (["lint", "models:head", "--config", "a.toml", "--no-config"], "exclude each other"),
        (["lint", "absent.onnx"], "absent.onnx: no such file"),
        (["lint", "m.onnx", "-o", "m.onnx"], "m.onnx: is the model itself"),
        (["lint", "models:raises"], "ValueError: no weights"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_one_line_and_status_2(run: Run, arguments: list[str], named: str) -> None:
    onnx.save(softmax_model(), "m.onnx")
    np.savez("z.npz", z=np.ones((3, 5), np.float32))
    np.savez("many.npz", np.ones((3, 5), np.float32), np.ones(1))
    assert named in one_line(run(*arguments))


def test_positional_data_reaches_inputs_in_their_order(run: Run) -> None:
    (Path.cwd() / "two.py").write_text(
        "import torch\n\n"
        "class Two(torch.nn.Module):\n"
        "    def forward(self, a, b):\n"
        "        return torch.log(torch.exp(a).sum(-1)) + torch.tanh(b)\n\n"
        "def two():\n    return Two(), (torch.ones(2, 3), torch.ones(2))\n"
    )
    np.savez("data.npz", np.full((2, 3), 5, np.float32), np.full(2, 500, np.float32))
    assert run("lint", "two:two", "--input-data", "data.npz").status == 0
    np.savez("data.npz", a=np.full((2, 3), 500, np.float32), b=np.full(2, 5, np.float32))
    assert run("lint", "two:two", "--input-data", "data.npz").status == 1


# -- terminals ------------------------------------------------------------------------------------------------------


def test_colours_and_progress_on_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(FACTORY)
    shown = on_terminal(["lint", "models:head"], tmp_path)
    assert "\x1b[1;31merror[STB101]\x1b[0m" in shown
    assert "reading models:head" in shown
    grey = on_terminal(["lint", "models:head"], tmp_path, NO_COLOR="1")
    assert "error[STB101]" in grey
    assert not re.search(r"\x1b\[[\d;]*3\dm", grey)


def test_linting_an_export_loads_no_runtime(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(FACTORY)
    probe = (
        "import sys; from stabilize.cli import main; main(sys.argv[1:]);"
        "print(sorted({'onnxruntime', 'tvm'} & set(sys.modules)), file=sys.stderr)"
    )
    command = [sys.executable, "-c", probe, "lint", "models:head", "--budget", "0"]
    outcome = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert outcome.stderr == "[]\n"
    assert "STB101" in outcome.stdout


@pytest.mark.parametrize("closed", ["1", "2"])
def test_a_stream_that_is_closed(tmp_path: Path, closed: str) -> None:
    (tmp_path / "models.py").write_text(FACTORY)
    command = f"exec {sys.executable} -m stabilize lint models:head --budget 0 {closed}>&-"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr

"""The command line as a user meets it: a process with arguments, exit status, stdout and stderr."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

import stabilize
from stabilize.passes.rules import ALL
from tests.cli.support import FACTORY, Outcome, commands_of, on_terminal, one_line, read, softmax_model

BIG = torch.tensor([[1000.0, 0.0, -1000.0, 999.0, 3.0]])


# -- optimize -------------------------------------------------------------------------------------------------------


def test_onnx_file(run: Callable[..., Outcome]) -> None:
    onnx.save(softmax_model(), "m.onnx")
    outcome = run("optimize", "m.onnx", "-o", "out.onnx")
    assert outcome.status == 0
    assert outcome.err == ""
    rewrite, total = outcome.out.splitlines()
    assert "STB1" in rewrite
    assert total == "out.onnx: 1 finding (1 error), 1 rewrite, 0 declined"
    session = onnxruntime.InferenceSession("out.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": BIG.numpy()})[0], BIG.softmax(-1).numpy(), rtol=1e-6)
    assert sorted(os.listdir()) == ["m.onnx", "models.py", "out.onnx"]


@pytest.mark.parametrize("name", ["models:head", "models:keywords"])
def test_factory_and_pt2(run: Callable[..., Outcome], name: str) -> None:
    first = run("optimize", name, "-o", "out.pt2")
    assert (first.status, first.err) == (0, "")
    assert first.out.startswith("models.py:7: STB101 naive-softmax: ")
    program = torch.export.load("out.pt2")
    inputs = ((BIG.expand(3, 5),), {}) if name == "models:head" else ((), {"x": BIG.expand(3, 5)})
    torch.testing.assert_close(program.module()(*inputs[0], **inputs[1]), BIG.expand(3, 5).softmax(-1))

    again = run("optimize", "out.pt2", "-o", "again.pt2")
    assert (again.status, again.err) == (0, "")
    assert again.out.splitlines() == ["again.pt2: 0 findings, 0 rewrites, 0 declined"]


def test_report_file(run: Callable[..., Outcome]) -> None:
    assert run("optimize", "models:head", "-o", "out.pt2", "--report", "report.json").status == 0
    report = json.loads(Path("report.json").read_text())
    assert report["schema_version"] == 1
    assert report["model"] == "models:head"
    (rewrite,) = report["rewrites"]
    assert rewrite["certificate"]["accepted"] is True
    assert rewrite["file"].endswith("models.py")


def test_no_certify(run: Callable[..., Outcome]) -> None:
    assert run("optimize", "models:head", "-o", "out.pt2", "--no-certify", "--report", "report.json").status == 0
    (rewrite,) = json.loads(Path("report.json").read_text())["rewrites"]
    assert rewrite["certificate"] is None


def test_select_and_ignore(run: Callable[..., Outcome]) -> None:
    assert run("optimize", "models:head", "-o", "a.pt2", "--ignore", "STB1").out.count("\n") == 1
    assert run("optimize", "models:head", "-o", "a.pt2", "--select", "STB2,STB3").out.count("\n") == 1
    assert run("optimize", "models:head", "-o", "a.pt2", "--select", "STB1").out.count("\n") == 2


def test_a_clean_model_says_so(run: Callable[..., Outcome]) -> None:
    outcome = run("optimize", "models:clean", "-o", "out.pt2")
    assert outcome == Outcome(0, "out.pt2: 0 findings, 0 rewrites, 0 declined\n", "")


def test_what_cannot_be_fixed_is_told_and_exits_1(run: Callable[..., Outcome]) -> None:
    outcome = run("optimize", "models:wrong_one", "-o", "out.pt2")
    assert (outcome.status, outcome.err) == (1, "")
    told, total = outcome.out.splitlines()
    assert told.startswith("models.py:16: ")
    assert "not fixed" in told
    assert total.endswith("0 rewrites, 0 declined")
    assert Path("out.pt2").exists()


# -- certify --------------------------------------------------------------------------------------------------------


def test_certify_accepts_and_declines(run: Callable[..., Outcome]) -> None:
    onnx.save(softmax_model(), "naive.onnx")
    onnx.save(softmax_model(stable=True), "stable.onnx")
    np.savez("x.npz", x=np.concatenate([BIG.numpy(), np.ones((3, 5), np.float32)]))
    better = run("certify", "naive.onnx", "stable.onnx", "--input-data", "x.npz")
    assert (better.status, better.err) == (0, "")
    worse = run("certify", "stable.onnx", "naive.onnx", "--input-data", "x.npz")
    assert (worse.status, worse.err) == (1, "")


def test_certify_without_anything_to_compare(run: Callable[..., Outcome]) -> None:
    onnx.save(softmax_model(), "m.onnx")
    for x in (np.full((3, 5), np.nan, np.float32), np.ones((0, 5), np.float32)):
        np.savez("x.npz", x=x)
        outcome = run("certify", "m.onnx", "m.onnx", "--input-data", "x.npz")
        assert outcome.status == 1
        assert outcome.out.startswith("declined: nothing could be compared")


def test_certify_torch_with_arrays(run: Callable[..., Outcome]) -> None:
    for arrays in ({"x": BIG.expand(3, 5).numpy()}, {"arr_0": BIG.expand(3, 5).numpy()}):
        np.savez("x.npz", **arrays)
        assert run("certify", "models:head", "models:clean", "--input-data", "x.npz").status == 0
        assert run("certify", "models:clean", "models:head", "--input-data", "x.npz").status == 1
    np.savez("x.npz", y=BIG.numpy())
    assert "'x'" in one_line(run("certify", "models:head", "models:clean", "--input-data", "x.npz"))


def test_certify_compares_a_model_with_its_export(run: Callable[..., Outcome]) -> None:
    onnx.save(softmax_model(), "m.onnx")
    np.savez("x.npz", x=BIG.expand(3, 5).numpy())
    assert run("certify", "m.onnx", "models:clean", "--input-data", "x.npz").status == 0
    assert run("certify", "models:clean", "m.onnx", "--input-data", "x.npz").status == 1
    assert run("certify", "models:head", "m.onnx").status == 0


# -- bad usage, unreadable input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["optimize"], "MODEL"),
        (["optimize", "models:head"], "--output"),
        (["optimise"], "optimise"),
        (["optimize", "models:head", "-o", "x.pt2", "--allow", "anything"], "anything"),
        (["optimize", "models:head", "-o", "x.pt2", "--form", "hardmax"], "hardmax"),
        (["optimize", "models:head", "-o", "x.pt2", "--select", "STB1,,STB2"], "empty code"),
        (["optimize", "models:head", "-o", "x.pt2", "--wrong"], "--wrong"),
        (["optimize", "models:head", "-o", "x.onnx"], ".pt2"),
        (["optimize", "m.onnx", "-o", "x.pt2"], ".onnx"),
        (["optimize", "models:head", "-o", "no/such/x.pt2"], "no such directory"),
        (["optimize", "models:head", "-o", "folder.pt2"], "is a directory"),
        (["optimize", "models:head", "-o", "fifo.pt2"], "not a regular file"),
        (["optimize", "models:head", "-o", "x.pt2", "--report", "x.txt"], ".json"),
        (["optimize", "README", "-o", "x.pt2"], "README"),
        (["optimize", "ok.txt", "-o", "o.onnx"], "stabilize: ok.txt: not a model file: expected .onnx, .pt2 or pack"),
        (["optimize", "", "-o", "o.onnx"], "stabilize: '': not a model file: expected .onnx, .pt2 or package.module:"),
        (["certify", "models:head", "ok.txt"], "stabilize: ok.txt: not a model file"),
        (
            ["optimize", "models:head", "-o", "x.pt2", "--select", "FOO"],
            "select 'FOO' is no rule: codes begin with STB1",
        ),
        (["optimize", "models:head", "-o", "x.pt2", "--select", "STB1,STB9"], "select 'STB9'"),
        (["optimize", "models:head", "-o", "x.pt2", "--ignore", "stb101"], "ignore 'stb101'"),
        (["optimize", "models.head", "-o", "x.pt2"], "models.head"),
        (["optimize", "absent.onnx", "-o", "x.onnx"], "absent.onnx: no such file"),
        (["optimize", "absent.pt2", "-o", "x.pt2"], "absent.pt2: no such file"),
        (["optimize", "folder.pt2", "-o", "x.pt2"], "folder.pt2: is a directory"),
        (["optimize", "text.onnx", "-o", "x.onnx"], "text.onnx"),
        (["optimize", "text.pt2", "-o", "x.pt2"], "text.pt2"),
        (["optimize", "empty.onnx", "-o", "x.onnx"], "empty.onnx"),
        (["optimize", "empty.pt2", "-o", "x.pt2"], "empty.pt2"),
        (["optimize", "absent_module:head", "-o", "x.pt2"], "absent_module"),
        (["optimize", "models:absent", "-o", "x.pt2"], "absent"),
        (["optimize", "models:constant", "-o", "x.pt2"], "int"),
        (["optimize", "models:not_a_pair", "-o", "x.pt2"], "(torch.nn.Module, example_inputs)"),
        (["optimize", "models:raises", "-o", "x.pt2"], "ValueError: no weights (models.py:"),
        (["optimize", "models:branching", "-o", "x.pt2"], "torch.export cannot capture"),
        (["certify", "models:head"], "B"),
        (["certify", "models:head", "models:clean", "--input-data", "absent.npz"], "absent.npz"),
        (["certify", "models:head", "models:clean", "--input-data", "text.npz"], "text.npz"),
        (["certify", "models:head", "models:clean", "--input-data", "pickle.npz"], "pickle.npz"),
        (["certify", "models:head", "models:clean", "--input-data", "one.npy"], "one.npy: one array, not a .npz file"),
        (
            ["certify", "models:head", "models:clean", "--input-data", "words.npz"],
            "words.npz: an array that is no tensor",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_one_line_and_status_2(run: Callable[..., Outcome], arguments: list[str], named: str) -> None:
    Path("folder.pt2").mkdir()
    os.mkfifo("fifo.pt2")
    for name in ("text.onnx", "text.pt2", "text.npz"):
        Path(name).write_text("this is no model")
    for name in ("empty.onnx", "empty.pt2"):
        Path(name).touch()
    np.savez("pickle.npz", x=np.array([{}], dtype=object))
    np.savez("words.npz", x=np.array(["a"]))
    np.save("one.npy", np.ones((3, 5), np.float32))
    before = sorted(os.listdir())
    assert named in one_line(run(*arguments))
    assert sorted(set(os.listdir()) - {"__pycache__"}) == before


def test_a_missing_extra_is_named(run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(softmax_model(), "m.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "pip install 'stabilize[onnx]'" in one_line(run("optimize", "m.onnx", "-o", "out.onnx"))


def test_without_arguments_the_help_is_shown(run: Callable[..., Outcome]) -> None:
    outcome = run()
    assert outcome.status == 2
    assert "Commands:" in outcome.err


def test_only_commands_that_exist_are_listed(run: Callable[..., Outcome]) -> None:
    outcome = run("--help")
    assert outcome.status == 0
    assert commands_of(outcome.out) == ["certify", "convert", "explain", "export", "lint", "optimize", "rules"]


def test_a_failed_write_leaves_the_old_file(run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("out.pt2").write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "out.pt2")

    monkeypatch.setattr(os, "fsync", full)
    assert "out.pt2: No space left on device" in one_line(run("optimize", "models:head", "-o", "out.pt2"))
    assert Path("out.pt2").read_text() == "old"
    assert sorted(set(os.listdir()) - {"__pycache__"}) == ["models.py", "out.pt2"]


def test_an_input_can_be_overwritten_by_its_output(run: Callable[..., Outcome]) -> None:
    onnx.save(softmax_model(), "m.onnx")
    assert run("optimize", "m.onnx", "-o", "m.onnx").status == 0
    assert "Softmax" in [node.op_type for node in onnx.load("m.onnx").graph.node]


def test_external_data_goes_with_the_model(run: Callable[..., Outcome]) -> None:
    weight = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
    model = softmax_model()
    model.graph.node.insert(0, helper.make_node("MatMul", ["a", "W"], ["x"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "W"))
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("a", TensorProto.FLOAT, ["n", 16]))
    Path("in").mkdir()
    Path("out").mkdir()
    onnx.save(model, "in/m.onnx", save_as_external_data=True, location="m.weights", size_threshold=0)
    a = np.full((2, 16), 100, np.float32)
    logits = torch.tensor(a @ weight)
    for target in ("out/fixed.onnx", "in/fixed.onnx", "in/m.onnx"):
        outcome = run("optimize", "in/m.onnx", "-o", target)
        assert (outcome.status, outcome.err) == (0, "")
        session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
        np.testing.assert_allclose(session.run(None, {"a": a})[0], logits.softmax(-1).numpy(), rtol=1e-4, atol=1e-30)
    assert sorted(os.listdir("out")) == ["fixed.onnx", "m.weights"]
    assert Path("in/m.weights").read_bytes() == Path("out/m.weights").read_bytes()


def test_a_linked_output_is_written_where_it_points(run: Callable[..., Outcome]) -> None:
    Path("real").mkdir()
    Path("out.pt2").symlink_to("real/out.pt2")
    assert run("optimize", "models:head", "-o", "out.pt2").status == 0
    assert Path("out.pt2").is_symlink()
    assert Path("real/out.pt2").is_file()


def test_output_permissions_follow_the_umask(run: Callable[..., Outcome]) -> None:
    onnx.save(softmax_model(), "m.onnx")
    before = os.umask(0o027)
    try:
        assert run("optimize", "models:head", "-o", "out.pt2").status == 0
        assert run("optimize", "m.onnx", "-o", "out.onnx").status == 0
    finally:
        os.umask(before)
    assert {oct(Path(name).stat().st_mode & 0o777) for name in ("out.pt2", "out.onnx")} == {"0o640"}


# -- rules and explain ----------------------------------------------------------------------------------------------


def test_rules_are_listed(run: Callable[..., Outcome]) -> None:
    outcome = run("rules")
    assert (outcome.status, outcome.err) == (0, "")
    header, *rows = outcome.out.splitlines()
    assert header.split() == ["code", "name", "severity", "safety", "fixable", "what", "it", "finds"]
    assert [row[:6] for row in rows] == [rule.code for rule in ALL]
    assert "STB101  naive-softmax " in outcome.out
    told = json.loads(run("rules", "--format", "json").out)
    assert told["schema_version"] == 1
    assert [rule["code"] for rule in told["rules"]] == [rule.code for rule in ALL]
    assert list(told["rules"][0]) == ["code", "name", "severity", "safety", "fixable", "summary"]


@pytest.mark.parametrize("name", ["STB101", "stb101", "naive-softmax", " Naive-Softmax "])
def test_a_rule_is_explained(run: Callable[..., Outcome], name: str) -> None:
    outcome = run("explain", name)
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.startswith("# naive-softmax (STB101)\n\nSeverity: error. Fix: exact.\n\n## What it does\n")
    assert "    exp(x) / exp(x).sum(-1, keepdim=True)\n→\n    softmax(x, -1)\n" in outcome.out


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("STB1010", "did you mean"),
        ("naive-sofmax", "did you mean naive-softmax"),
        ("STB41", "did you mean STB411, STB412, STB413, STB415?"),
        ("", "'stabilize rules' lists them"),
        ("nothing at all", "'stabilize rules' lists them"),
    ],
)
def test_a_rule_that_is_none(run: Callable[..., Outcome], name: str, hint: str) -> None:
    line = one_line(run("explain", name))
    assert line.startswith(f"stabilize: no rule {name!r}: ")
    assert hint in line


@pytest.mark.parametrize("command", [["rules"], ["explain", "STB101"], ["--help"], ["lint", "--help"]])
def test_what_the_rules_say_needs_no_torch(command: list[str]) -> None:
    probe = (
        "import sys; from stabilize.cli import main; status = main(sys.argv[1:]);"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'tvm', 'numpy'} & set(sys.modules)), file=sys.stderr);"
        "sys.exit(status)"
    )
    run = subprocess.run([sys.executable, "-c", probe, *command], capture_output=True, text=True, check=True)
    assert run.stderr == "[]\n"
    assert run.stdout


def test_an_output_that_cannot_hold_the_letters(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stabilize", "explain", "STB101"]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, env=environment, check=True)
    assert b"\\u03a3exp(x)" in run.stdout


@pytest.mark.parametrize("command", [["rules"], ["explain", "STB101"]])
def test_a_terminal_gets_tables_and_headings(tmp_path: Path, command: list[str]) -> None:
    shown = on_terminal([*command], tmp_path)
    assert "\x1b[" in shown
    assert "naive-softmax" in shown
    assert "##" not in shown
    plain = on_terminal([*command], tmp_path, NO_COLOR="1")
    assert not re.search(r"\x1b\[[\d;]*3\dm", plain)


# -- processes ------------------------------------------------------------------------------------------------------


def test_version() -> None:
    script = Path(sys.executable).with_name("stabilize")
    for command in ([str(script)], [sys.executable, "-m", "stabilize"]):
        shown = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        assert shown.stdout == f"stabilize, version {stabilize.__version__}\n"


def test_progress_goes_to_a_terminal_only(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(FACTORY)
    command = [sys.executable, "-m", "stabilize", "optimize", "models:head", "-o", "out.pt2"]

    terminal, device = pty.openpty()
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=device, env=os.environ | {"TERM": "xterm"}
    ) as process:
        os.close(device)
        shown = b""
        while chunk := read(terminal):
            shown += chunk
        assert process.stdout is not None
        out = process.stdout.read().decode()
    assert process.returncode == 0
    assert b"reading models:head" in shown
    assert b"Traceback" not in shown
    assert "out.pt2: 1 finding" in out
    assert "\x1b" not in out

    piped = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert piped.stderr == ""
    assert piped.stdout == out


@pytest.mark.parametrize(
    "arguments",
    [["optimize", "models:head", "-o", "out.pt2"], ["certify", "models:head", "models:clean"]],
    ids=lambda arguments: arguments[0],
)
def test_stderr_is_silent_in_a_process_of_its_own(tmp_path: Path, arguments: list[str]) -> None:
    """In this process pytest takes the warnings; a user would see them."""
    (tmp_path / "models.py").write_text(FACTORY)
    command = [sys.executable, "-m", "stabilize", *arguments]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m stabilize --help | true; echo ${{PIPESTATUS[0]}}"
    shown = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert shown.stdout.strip() == "0"
    assert shown.stderr == ""

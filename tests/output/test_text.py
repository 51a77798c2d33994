"""The text form, as it is read."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console

from stabilize.output.excerpt import Sources
from stabilize.output.text import coloured, printable, text
from tests.output.findings import RATIO, ROUNDS, SOFTMAX, with_witness, write_source

SHOWN = """\
head.py:4: error[STB101] naive-softmax: exp(x) overflows: 100% of it, always
  |
4 |     return torch.exp(x) / torch.exp(x).sum(1)  # as in the book
  |            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  |
  - exp(x) / sum(exp(x), 1)
  + softmax(x, 1)
  = breaks: x > 88.72 in float32
  = witness: values inside the model
             x = [89, 89] (float32[1, 2])
             n = 3 (int64)
             div_1 gives nan where 0.5 is right
             saved in witnesses/STB101-div_1.npz
  = at: node div_1, in blocks.0.attention
  = fix: stabilize optimize (exact: equal over the reals)
  = help: stabilize explain STB101

m.onnx: warning[STB431] zero-over-zero: NaN where every term of the divisor is 0
  = naive: relu(x) / sum(relu(x), 1)
  = at: node Div_3
  = fix: stabilize optimize --allow approximate
  = help: r / where(s == 0, 1, s),  s = r.sum(-1, keepdim=True)        with allow="approximate"
  = help: stabilize explain STB431

m.onnx: 2 findings (1 error, 1 warning), 1 fixable
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_source(tmp_path)


def test_findings_read_like_errors_of_a_compiler() -> None:
    assert text("m.onnx", [with_witness(), RATIO]) == SHOWN


def test_colours_add_nothing_but_colours() -> None:
    shown = coloured("m.onnx", [with_witness(), RATIO, ROUNDS])
    assert shown.plain == text("m.onnx", [with_witness(), RATIO, ROUNDS])
    console = Console(force_terminal=True, color_system="standard", highlight=False, soft_wrap=True)
    with console.capture() as capture:
        console.print(shown, end="")
    assert "\x1b[1;31merror[STB101]\x1b[0m" in capture.get()
    assert re.sub(r"\x1b\[[\d;]*m", "", capture.get()) == shown.plain


def test_nothing_found_is_one_line() -> None:
    assert text("Head", []) == "Head: 0 findings\n"


def test_without_a_file_the_node_is_named_once() -> None:
    lines = text("Head", [ROUNDS]).splitlines()
    assert lines[0] == "sub: info[STB218] complement-of-sigmoid: 1 − σ(x) cancels"
    assert not any(line.startswith("  = at") for line in lines)


def test_names_from_a_model_cannot_write_to_the_terminal() -> None:
    nasty = dataclasses.replace(SOFTMAX, node="a\x1b[2J\r\nb", message="[red]x[/red]", file=None)
    shown = text("m.onnx", [nasty])
    assert "node a\\x1b[2J\\r\\nb" in shown
    assert "[red]x[/red]" in coloured("m.onnx", [nasty]).plain
    assert printable("Σ → 1·x") == "Σ → 1·x"


def test_a_rule_that_is_not_known_here_is_shown_too() -> None:
    shown = text("m", [dataclasses.replace(RATIO, code="STB899", safety=None)])
    assert "help" not in shown


# -- witnesses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (torch.tensor([1.5, -torch.inf]), "[1.5, -inf] (float32[2])"),
        (torch.tensor(2.0, dtype=torch.float16), "2 (float16)"),
        (torch.arange(12.0).view(3, 4), "[0, 1, 2, 3, 4, 5, …] (float32[3, 4] from 0 to 11)"),
        (torch.full((7,), 3e38), "[3e+38, 3e+38, 3e+38, 3e+38, 3e+38, 3e+38, …] (float32[7])"),
        (torch.zeros(0, 3), "[] (float32[0, 3])"),
        (torch.tensor([True]), "[True] (bool[1])"),
        (torch.arange(12.0).view(3, 4).t()[:, 1], "[4, 5, 6, 7] (float32[4])"),
        (89.0, "89.0"),
    ],
)
def test_arrays_in_a_few_words(value: object, expected: str) -> None:
    shown = text("m", [dataclasses.replace(SOFTMAX, witness={"x": value})])
    assert f"  = witness: x = {expected}\n" in shown


def test_many_inputs_are_counted() -> None:
    shown = text("m", [dataclasses.replace(SOFTMAX, witness={f"x{i}": torch.tensor(i) for i in range(6)})])
    assert "x3 = 3 (int64)\n             and 2 more\n" in shown


# -- the user's line ------------------------------------------------------------------------------------------------


def marked(folder: Path, source: str, line: int, name: str = "case.py") -> str | None:
    """The part of a line that is marked."""
    (folder / name).write_text(source)
    excerpt = Sources().excerpt(str(folder / name), line)
    return None if excerpt is None else excerpt.text[excerpt.start : excerpt.end]


@pytest.mark.parametrize(
    ("source", "line", "expected"),
    [
        ("y = exp(x)  # why", 1, "exp(x)"),
        ("def f(x):\n\treturn exp(x)", 2, "exp(x)"),
        ("größe = exp(größe)", 1, "exp(größe)"),
        ("x += log(x)", 1, "log(x)"),
        ("y: T = exp(x)", 1, "exp(x)"),
        ("if x.sum() > 0: y = 1", 1, "1"),
        ("while any(x):\n    pass", 1, "any(x)"),
        ("y = (a +\n     b / c)", 2, "b / c"),
        ("def f(x) -> T:", 1, "def f(x) -> T:"),
        ("y = (unfinished", 1, "y = (unfinished"),
        ("return_ = lambda x: x", 1, "lambda x: x"),
    ],
)
def test_what_a_line_computes_is_marked(tmp_path: Path, source: str, line: int, expected: str) -> None:
    assert marked(tmp_path, source, line) == expected


@pytest.mark.parametrize(
    ("source", "node", "expected"),
    [
        ("return log(p), x.pow(2) - x.mean().pow(2)", "sub", "x.pow(2) - x.mean().pow(2)"),
        ("return log(p), x.pow(2) - x.mean().pow(2)", "body/log_3", "log(p)"),
        ("return log(p), x.pow(2) - x.mean().pow(2)", "pow_1", "log(p), x.pow(2) - x.mean().pow(2)"),
        ("y = e / e.sum(-1) + 1", "node_div_12", "e / e.sum(-1)"),
        ("y = e / e.sum(-1) + 1", "sum_1", "e.sum(-1)"),
        ("y = f(x) + 1", "opaque", "f(x) + 1"),
        ("x.exp_()", "exp", "x.exp_()"),
    ],
)
def test_the_one_expression_that_made_a_node_is_marked(source: str, node: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "case.py").write_text(f"def f():\n    {source}\n")
    excerpt = Sources().excerpt(str(tmp_path / "case.py"), 2, node)
    assert excerpt is not None
    assert excerpt.text[excerpt.start : excerpt.end] == expected


def test_sources_that_are_not_here(tmp_path: Path) -> None:
    import os

    assert marked(tmp_path, "y = 1", 2) is None
    assert marked(tmp_path, "\n", 1) is None
    assert marked(tmp_path, "root:x:0:0", 1, name="passwd") is None  # a model file may name any path
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "latin.py").write_bytes(b"x = '\xe4'\n")
    (tmp_path / "folder.py").mkdir()
    for name in ("pipe.py", "absent.py", "latin.py", "folder.py"):
        assert Sources().excerpt(str(tmp_path / name), 1) is None
    assert Sources().excerpt(None, 1) is None
    assert Sources().excerpt(str(tmp_path / "head.py"), None) is None


def test_a_cell_of_a_notebook_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    import linecache

    monkeypatch.setitem(linecache.cache, "<ipython-input-1>", (9, None, ["y = exp(x)\n"], "<ipython-input-1>"))
    excerpt = Sources().excerpt("<ipython-input-1>", 1)
    assert excerpt is not None
    assert excerpt.text[excerpt.start : excerpt.end] == "exp(x)"

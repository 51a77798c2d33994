"""docs/quickstart.md: its commands run as they stand there, and its findings are those of today."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from stabilize.cli import main
from stabilize.cli.settings import configured

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "quickstart.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def commands(block: str) -> list[str]:
    return [line.partition("  #")[0].strip() for line in block.splitlines()]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """What a reader has: a checkout, and `my_model.py` in it."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("stabilize", "passes", "codegen"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=ignore)
    (tmp_path / "my_model.py").write_text(blocks("python")[0])
    return tmp_path


@pytest.fixture
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An empty environment to install into, beside the dependencies of this one; pip reaches no network."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    (site,) = (folder / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = folder / "bin" / "pip"
    pip.write_text(f'#!/bin/sh\nexec {sys.executable} -m pip --python {folder}/bin/python "$@"\n')
    pip.chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "PIP_"))}
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return kept | offline | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}


def test_from_nothing_to_the_first_finding(home: Path, environment: dict[str, str]) -> None:
    install, *more = commands(blocks("sh")[0])
    assert install.startswith("pip install ")
    assert 1 + len(more) < 5
    outputs: list[str] = []
    for command in (install, *more, *commands(blocks("sh")[1])):
        run = subprocess.run(["sh", "-c", command], cwd=home, env=environment, capture_output=True, text=True)
        outputs.append(run.stdout)
        assert run.returncode == (1 if command.startswith("stabilize lint") else 0), (command, run.stdout, run.stderr)
        assert "Traceback" not in run.stderr
    assert "error[STB101] naive-softmax" in outputs[len(more)]
    assert "my_model.py:7: " in outputs[len(more)]
    assert (home / "fixed.pt2").is_file()
    stabilize = Path(environment["PATH"].partition(":")[0]) / "stabilize"
    assert stabilize.is_file()  # what ran is what was installed


def test_commands_of_a_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_model.py").write_text(blocks("python")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_model", raising=False)
    lines = commands(blocks("sh")[2])
    assert len(lines) == 3
    for line in lines:
        program, *arguments = shlex.split(line)
        assert (program, main(arguments)) == ("stabilize", 1)
    captured = capfd.readouterr()
    assert captured.out.startswith("::error file=my_model.py,line=7,title=STB101 naive-softmax::")
    assert captured.out.endswith("1  STB101  error  naive-softmax\n")
    assert captured.err == ""
    assert (tmp_path / "lint.sarif").is_file()


def test_the_configuration_is_read(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(blocks("toml")[0])
    assert configured(tmp_path / "pyproject.toml") == {
        "ignore": ["STB218"], "fail_on": "error", "ranges": {"x": (-50.0, 50.0)}, "budget": 20.0,
    }  # fmt: skip


def without_numbers_of_witnesses(text: str) -> str:
    """Which input is found may differ from machine to machine; that one is found may not."""
    return re.sub(r"^( +)= witness: .*\n(?:\1   .*\n)*", r"\1= witness\n", text, flags=re.MULTILINE)


def test_findings_are_shown_as_they_are() -> None:
    sections = re.findall(r"<!-- \w+: (benchmarks/quickstart\.py) (\S+) -->\n(.*?)<!-- /", TEXT, re.DOTALL)
    assert len(sections) == 5
    command = [sys.executable, "-W", "ignore", sections[0][0], *(model for _, model, _ in sections)]
    now = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert now.stderr == ""
    quoted = "".join(text for _, _, text in sections)
    assert without_numbers_of_witnesses(now.stdout) == without_numbers_of_witnesses(quoted)
    assert quoted.count("= witness: ") >= 8
    assert quoted.count("error[") >= 8

"""The command line in this process: a fresh one would import torch each time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.support import FACTORY, Outcome


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run the command line in a folder of its own."""
    from stabilize.cli import main

    (tmp_path / "models.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "models", raising=False)

    def call(*arguments: str) -> Outcome:
        capfd.readouterr()
        status = main(list(arguments))
        captured = capfd.readouterr()
        return Outcome(status, captured.out, captured.err)

    return call

"""Findings point at the line that computes, in a helper as well."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.fx.proxy import TracerBase
from torch.nn import functional

import stabilize
from stabilize.frontends.fx_frames import helpers_traced

HERE = Path(__file__)


def log_probability(x: torch.Tensor) -> torch.Tensor:
    p = torch.softmax(x, -1)
    return torch.log(p)  # the helper


class Policy(torch.nn.Module):
    def scores(self, x: torch.Tensor) -> torch.Tensor:
        return log_probability(x * 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.scores(x))


class Wrapped(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.policy = Policy()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.policy(x) + torch.log(torch.exp(x).sum(-1, keepdim=True))  # the module


def line_with(comment: str) -> int:
    return next(i for i, line in enumerate(HERE.read_text().splitlines(), start=1) if line.endswith(f"# {comment}"))


def test_a_helper_is_named_by_its_own_line() -> None:
    report = stabilize.lint(Wrapped(), (torch.randn(3, 4),), budget=0)
    assert {(f.code, f.line) for f in report.findings} == {
        ("STB102", line_with("the helper")),
        ("STB103", line_with("the module")),
    }
    assert {f.file for f in report.findings} == {str(HERE)}
    (inner,) = (f for f in report.findings if f.code == "STB102")
    assert inner.module == "policy"


def test_the_hook_is_put_back() -> None:
    before = TracerBase.__dict__["_filter_traceback_frames"]
    with helpers_traced():
        assert TracerBase.__dict__["_filter_traceback_frames"] is not before
    assert TracerBase.__dict__["_filter_traceback_frames"] is before


def test_without_the_hook_calls_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(TracerBase, "_filter_traceback_frames")
    with helpers_traced():
        assert "_filter_traceback_frames" not in TracerBase.__dict__

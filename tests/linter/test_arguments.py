"""Wrong keywords of `lint`: told in one sentence, and what is odd but allowed works."""

from __future__ import annotations

import math
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch

import stabilize
from stabilize.errors import UsageError


class Head(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        e = torch.exp(x)
        return e / e.sum(-1, keepdim=True)


X = torch.linspace(-1, 1, 8).reshape(2, 4)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"budget": -1}, "budget is -1"),
        ({"budget": math.nan}, "budget is nan"),
        ({"budget": "a"}, "budget is 'a'"),
        ({"budget": None}, "budget is None"),
        ({"budget": True}, "budget is True"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"seed": None}, "seed is None"),
        ({"witness_dir": 5}, "witness_dir is 5"),
        ({"witness_dir": b"folder"}, "witness_dir is b'folder'"),
        ({"witness_dir": ""}, "witness_dir is ''"),
        ({"witness_dir": "a\0b"}, "witness_dir is 'a"),
        ({"input_data": X.long()}, "'x' is int64, the model takes float32"),
        ({"input_data": X.to(torch.complex64)}, "'x' is complex64, the model takes float32"),
        ({"input_data": X[0]}, r"'x' has the shape \[4\], the model takes 2×4"),
        ({"input_data": X[:, :3]}, r"'x' has the shape \[2, 3\], the model takes 2×4"),
        ({"input_data": torch.full((2, 4), math.nan)}, "'x' holds NaN"),
        ({"input_data": torch.zeros(0, 4)}, "'x' holds no numbers"),
    ],
)
def test_wrong_keywords(keywords: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        stabilize.lint(Head(), X, **keywords)


@pytest.mark.parametrize(
    "keywords",
    [
        {"budget": math.inf},
        {"budget": 10**400},
        {"seed": 2**64 - 1},
        {"ranges": {"x": (-(10**400), 10**400)}},
        {"ranges": {"x": (1e39, 1e40)}},  # beyond float32
        {"ranges": {"x": (math.inf, math.inf)}},
    ],
)
def test_odd_keywords(keywords: dict[str, Any]) -> None:
    report = stabilize.lint(Head(), X, **keywords)
    assert [(f.code, f.severity) for f in report.findings] == [("STB101", "error")]


def test_data_of_more_rows_and_another_width() -> None:
    assert not stabilize.lint(Head(), X, input_data=torch.cat([X, X, X]).half()).findings


def test_a_file_is_no_folder_for_witnesses(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(UsageError, match="witnesses cannot be written there"):
            stabilize.lint(Head(), X, witness_dir=path)


def test_witnesses_that_cannot_be_written_are_not_looked_for(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    def looked(done: float, what: str) -> None:
        pytest.fail(f"looked at {what}")

    with pytest.raises(UsageError, match="witnesses cannot be written there"):
        stabilize.lint(Head(), X, witness_dir=tmp_path / "file", progress=looked)


def test_several_threads_at_once() -> None:
    before = torch.get_num_threads()
    codes: list[list[str]] = []
    threads = [Thread(target=lambda: codes.append([f.code for f in stabilize.lint(Head(), X).findings])) for _ in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [["STB101"]] * 3
    assert torch.get_num_threads() == before

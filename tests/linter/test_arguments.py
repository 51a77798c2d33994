"""Wrong keywords of `lint`: told in one sentence, and what is odd but allowed works."""

from __future__ import annotations

import math
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from onnx import numpy_helper

import stabilize
from stabilize.errors import ModelError, UsageError


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


def test_numbers_that_are_not_there_are_missed(tmp_path: Path) -> None:
    """Without its axes the sum of a softmax is not known to be one."""
    model = onnx.parser.parse_model(
        """
        <ir_version: 9, opset_import: ["" : 18]>
        g (float[3, 4] x) => (float[3, 4] y) {
          e = Exp(x)
          s = ReduceSum(e, axes)
          y = Div(e, s)
        }
        """
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "axes"))
    path = tmp_path / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="m.bin", size_threshold=0)
    assert [f.code for f in stabilize.lint(path, budget=0).findings] == ["STB101"]
    (tmp_path / "m.bin").unlink()
    for given in (path, onnx.load(path, load_external_data=False)):
        with pytest.raises(ModelError, match=r"m\.bin is missing"):
            stabilize.lint(given, budget=0)


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

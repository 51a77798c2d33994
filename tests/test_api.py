"""The arguments of the public functions: what is wrong with them is told in one sentence, before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import stabilize
from stabilize.errors import ModelError, UsageError

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


class Naive(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        e = torch.exp(self.linear(x))
        return e / e.sum(-1, keepdim=True)


def onnx_model() -> onnx.ModelProto:
    return onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]> m (float[n, 5] x) => (float[n, 5] out) { out = Exp(x) }'
    )


def codes(**arguments: Any) -> list[str]:
    _, report = stabilize.optimize(Naive(), (X,), return_report=True, **arguments)
    return [rewrite.code for rewrite in report.rewrites]


@pytest.mark.parametrize("argument", ["select", "ignore"])
@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["STB999"], "'STB999'"),
        (["STB1", "STB9"], "'STB9'"),
        ("FOO", "'FOO'"),
        (["stb101"], "'stb101'"),
        ([""], "''"),
        ("", "''"),
        (["STB1", 3], "3"),
        (3, "is 3"),
    ],
)
def test_unknown_codes_are_refused(argument: str, given: object, named: str) -> None:
    with pytest.raises(UsageError, match="STB1") as caught:
        codes(**{argument: given})
    assert str(caught.value).startswith(argument)
    assert named in str(caught.value)


def test_codes_are_one_or_several() -> None:
    assert codes() == codes(select="STB1") == codes(select=("STB101",)) == codes(ignore="STB2") == ["STB101"]
    assert codes(select="STB2") == codes(ignore="STB101") == codes(ignore={"STB1"}) == codes(select=[]) == []


def test_every_rule_can_be_selected() -> None:
    from stabilize.passes.rules import ALL

    stabilize.optimize(onnx_model(), select=[rule.code for rule in ALL])


@pytest.mark.parametrize(
    "given",
    [{"x": 1}, [1], {"x": ("a", "b")}, {"x": (1, 0)}, {"x": (0.0, float("nan"))}, {"x": (0, 1, 2)}, {3: (0, 1)}, "x"],
)
def test_ranges_are_pairs_by_name(given: Any) -> None:
    with pytest.raises(UsageError, match=r"ranges.*give"):
        stabilize.optimize(Naive(), (X,), ranges=given)


@pytest.mark.parametrize("name", ["y", "p_linear_weight", "exp", "linear.weight"])
def test_ranges_of_what_is_no_input_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=rf"{name}.*the inputs are x$"):
        stabilize.optimize(Naive(), (X,), ranges={name: (0, 1)})
    with pytest.raises(UsageError, match=name):
        stabilize.optimize(onnx_model(), ranges={name: (0, 1)})
    lazy = stabilize.optimize(Naive(), ranges={name: (0, 1)})
    with pytest.raises(UsageError, match=name):
        lazy(X)


def test_ranges_of_inputs_are_used() -> None:
    class Head(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.log(torch.exp(x).sum(-1))

    for low, high in ((-1, 1), (np.float32(-1), np.float64(1))):
        fixed, report = stabilize.optimize(Head(), (X,), ranges={"x": (low, high)}, return_report=True)  # type: ignore[dict-item]
        assert not report.rewrites
        lazy = stabilize.optimize(Head(), ranges={"x": (low, high)})  # type: ignore[dict-item]
        assert torch.equal(lazy(X), fixed(X))
    assert stabilize.optimize(Head(), (X,), return_report=True)[1].rewrites


@pytest.mark.parametrize(
    "arguments", [{"form": "hardmax"}, {"form": 3}, {"form": ["softmax"]}, {"allow": "all"}, {"allow": None}]
)
def test_other_keywords_are_one_of_a_few(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="is not one of"):
        stabilize.optimize(Naive(), (X,), **arguments)


@pytest.mark.parametrize("model", [onnx_model().graph, onnx_model().graph.node[0], 3, None, X])
def test_what_is_no_model_is_refused(model: object) -> None:
    with pytest.raises(ModelError, match="cannot read"):
        stabilize.optimize(model)


@pytest.mark.parametrize("name", ["missing.pt2", "missing.onnx", "folder.pt2", "folder.onnx", "file.txt"])
def test_load_names_the_file(name: str, tmp_path: Path) -> None:
    for folder in ("folder.pt2", "folder.onnx"):
        (tmp_path / folder).mkdir()
    for path in (tmp_path / name, str(tmp_path / name)):
        with pytest.raises(ModelError, match=name):
            stabilize.load(path)


@pytest.mark.parametrize("path", [3, None, [], b"model.onnx"])
def test_load_takes_paths_only(path: Any) -> None:
    with pytest.raises(UsageError, match="path"):
        stabilize.load(path)


class _Cosine(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1))


def test_a_change_of_format_alone_is_named() -> None:
    """Texts leave casts out: the expression before and after would be the same line."""
    x, y = (torch.linspace(-300, 300, 32).roll(k).reshape(4, 8).half() for k in (0, 5))
    fixed, report = stabilize.optimize(_Cosine(), (x, y), return_report=True)
    assert [r.code for r in report.rewrites] == ["STB402"]
    assert report.rewrites[0].stable == f"{report.rewrites[0].naive}, computed in float32"
    exact = torch.nn.functional.cosine_similarity(x.double(), y.double(), dim=-1)
    assert not torch.isfinite(_Cosine()(x, y)).all()
    torch.testing.assert_close(fixed(x, y).double(), exact, rtol=2**-10, atol=2**-14)

"""Witnesses as files: their names, what is in them, and what can be done with them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import stabilize
from stabilize.errors import UsageError
from stabilize.linter.saved import save
from stabilize.linter.witness import Witness
from stabilize.records import Finding
from tests.cli.support import softmax_model
from tests.frontends.onnx_support import model, run


def softmax(x: Tensor) -> Tensor:
    e = torch.exp(x)
    return e / e.sum(-1, keepdim=True)


class Softmax(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return softmax(x)


class Inside(nn.Module):
    """A defect that the inputs do not lead to: its witness is one of the expression."""

    def forward(self, x: Tensor) -> Tensor:
        return softmax(torch.linalg.qr(x)[0])


def saved(target: Any, inputs: Any, folder: Path, **options: Any) -> list[Finding]:
    findings = stabilize.lint(target, inputs, witness_dir=folder, **options).findings
    for finding in findings:
        assert finding.witness is None or Path(cast(Witness, finding.witness).file or "").parent == folder
    return findings


def test_a_witness_of_the_model(tmp_path: Path) -> None:
    (finding,) = saved(Softmax(), torch.randn(3, 5), tmp_path / "new" / "proof")
    witness = cast(Witness, finding.witness)
    (file,) = (tmp_path / "new" / "proof").iterdir()
    assert (str(file), file.name) == (witness.file, "01-STB101-div.npz")
    with np.load(file, allow_pickle=False) as arrays:
        assert list(arrays) == ["x"]
        np.testing.assert_array_equal(arrays["x"], witness["x"].numpy())
        assert not torch.isclose(softmax(torch.from_numpy(arrays["x"])).sum(-1), torch.ones(3)).all()


def test_a_piece_beside_a_witness_of_an_expression(tmp_path: Path) -> None:
    (finding, *_) = saved(Inside(), torch.randn(4, 4), tmp_path)
    witness = cast(Witness, finding.witness)
    assert witness.scope == "expression"
    stem = Path(witness.file or "").with_suffix("")
    assert {p.suffix for p in tmp_path.iterdir() if p.stem == stem.name} == {".npz", ".pt2"}
    program = torch.export.load(stem.with_suffix(".pt2"))
    with np.load(stem.with_suffix(".npz")) as arrays:
        given = {name: torch.from_numpy(arrays[name]) for name in arrays}
    (result,) = program.module()(**given)
    assert not result.isfinite().all()
    # and what is repaired there is proven by the same arrays
    fixed = stabilize.optimize(program)
    assert not stabilize.certify(program, program, given).reason
    assert stabilize.certify(program, fixed, given).accepted
    assert fixed.module()(**given)[0].isfinite().all()


_BRANCH = """g (float[2, 3] x, bool c) => (float[2, 3] y) {
    y = If (c) <
        then_branch = then () => (float[2, 3] p) { e = Exp(x) t = Neg(e) l = Sub(e, t) p = Log(l) },
        else_branch = other () => (float[2, 3] q) { q = Neg(x) }
    >
}"""


def test_a_piece_of_an_onnx_model(tmp_path: Path) -> None:
    finding, *_ = saved(model(_BRANCH), None, tmp_path, select=["STB1", "STB2"])
    witness = cast(Witness, finding.witness)
    stem = Path(witness.file or "").with_suffix("")
    assert "/" not in stem.name
    part = onnx.load(stem.with_suffix(".onnx"))
    onnx.checker.check_model(part, full_check=True)
    with np.load(stem.with_suffix(".npz")) as arrays:
        (result,) = run(part, {i.name: arrays[i.name] for i in part.graph.input})
    assert not np.isfinite(result).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_formats(tmp_path: Path, dtype: torch.dtype) -> None:
    """NumPy has no bfloat16: float32 holds the same numbers."""
    (finding,) = saved(Softmax(), torch.randn(3, 5).to(dtype), tmp_path)
    witness = cast(Witness, finding.witness)
    assert witness["x"].dtype == dtype
    with np.load(witness.file or "") as arrays:
        held = torch.from_numpy(arrays["x"])
        assert held.dtype == (torch.float32 if dtype is torch.bfloat16 else dtype)
        assert torch.equal(held.to(dtype), witness["x"])


def test_findings_are_numbered_and_their_nodes_made_names(tmp_path: Path) -> None:
    def finding(node: str, witness: Witness | None) -> Finding:
        return Finding("STB101", "naive-softmax", "error", "m", node, None, None, None, "a", "b", "c", witness)

    witness = Witness({"x": torch.ones(2), "a/b": torch.tensor(3)}, "model", "x is nan", "lost")
    nodes = ["/layers.0/Div_2", "a b:c\\d", "../../etc", "n" * 300, "plain"]
    told = save([*(finding(n, witness) for n in nodes), finding("none", None)], tmp_path)
    names = [Path(cast(Witness, f.witness).file or "").name for f in told[:-1]]
    assert names == [
        "01-STB101-_layers.0_Div_2.npz", "02-STB101-a_b_c_d.npz", "03-STB101-.._.._etc.npz",
        f"04-STB101-{'n' * 80}.npz", "05-STB101-plain.npz",
    ]  # fmt: skip
    assert told[-1].witness is None
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    with np.load(tmp_path / names[0]) as arrays:
        assert sorted(arrays) == ["a/b", "x"]
    assert witness.file is None


def test_names_that_numpy_takes_for_its_own(tmp_path: Path) -> None:
    """An input may be called `file`, as the argument of np.savez is."""
    witness = Witness({"file": torch.ones(2), "args": torch.zeros(1)}, "model", "x", "lost")
    finding = Finding("STB101", "n", "error", "m", "div", None, None, None, "a", "b", "c", witness)
    (told,) = save([finding], tmp_path)
    with np.load(cast(Witness, told.witness).file or "") as arrays:
        assert sorted(arrays) == ["args", "file"]
        np.testing.assert_array_equal(arrays["file"], np.ones(2, np.float32))


def test_gradients_and_views_are_saved_as_numbers(tmp_path: Path) -> None:
    x = torch.arange(6.0).reshape(2, 3).T.requires_grad_()
    witness = Witness({"x": x, "b": torch.tensor([True, False])}, "model", "x", "lost")
    finding = Finding("STB101", "n", "error", "m", "div", None, None, None, "a", "b", "c", witness)
    (told,) = save([finding], tmp_path)
    with np.load(cast(Witness, told.witness).file or "") as arrays:
        np.testing.assert_array_equal(arrays["x"], x.detach().numpy())
        assert arrays["b"].dtype == np.bool_


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_folder_that_cannot_be_made(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("there")
    with pytest.raises(UsageError, match="witnesses cannot be written there"):
        saved(Softmax(), torch.randn(3, 5), tmp_path / name)
    assert (tmp_path / "file").read_text() == "there"


def test_nothing_is_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Exception, match="No space left"):
        saved(Softmax(), torch.randn(3, 5), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_clean_model_saves_nothing(tmp_path: Path) -> None:
    class Clean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.softmax(x, -1)

    assert saved(Clean(), torch.randn(3, 5), tmp_path) == []
    assert list(tmp_path.iterdir()) == []


# --- on the command line --------------------------------------------------------------------------------------------

Run = Callable[..., Any]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    from stabilize.cli import main

    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        status = main(list(arguments))
        return status, *capfd.readouterr()

    return call


def test_certify_replays_a_witness(command: Run) -> None:
    onnx.save(softmax_model(), "m.onnx")
    assert command("lint", "m.onnx", "--witness-dir", "proof")[0] == 1
    (file,) = Path("proof").iterdir()
    assert command("optimize", "m.onnx", "-o", "fixed.onnx")[0] == 0
    status, out, err = command("certify", "m.onnx", "fixed.onnx", "--input-data", str(file))
    assert (status, err) == (0, "")
    with np.load(file) as arrays:
        feeds = {"x": arrays["x"]}
    assert not np.isclose(run(onnx.load("m.onnx"), feeds)[0].sum(-1), 1).all()
    np.testing.assert_allclose(run(onnx.load("fixed.onnx"), feeds)[0].sum(-1), 1, rtol=1e-5)
    # the wrong way round it is refused
    status, out, _ = command("certify", "fixed.onnx", "m.onnx", "--input-data", str(file))
    assert status == 1
    assert out

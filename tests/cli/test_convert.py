"""`stabilize convert`: what it writes, says and refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.cli.support import Outcome, one_line
from tests.frontends.onnx_support import model as parsed

TEXT = """g (float[n, 8] x) => (float[n, 8] y) {
  a = MatMul (x, w)
  e = Exp (a)
  b = MatMul (e, w)
  y = Relu (b)
}"""


@pytest.fixture
def written(tmp_path: Path) -> onnx.ModelProto:
    proto = parsed(TEXT)
    array = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32) / 3
    proto.graph.initializer.append(numpy_helper.from_array(array, "w"))
    onnx.save(proto, tmp_path / "model.onnx")
    np.savez(tmp_path / "inputs.npz", x=np.ones((3, 8), np.float32))
    return proto


def test_a_model_is_converted_and_what_stays_is_told(
    run: Callable[..., Outcome], written: onnx.ModelProto, tmp_path: Path
) -> None:
    options = ("--input-data", "inputs.npz", "--range", "x=-2:2", "--report", "r.json")
    outcome = run("convert", "model.onnx", "--to", "fp16", "-o", "half.onnx", *options)
    assert (outcome.status, outcome.err) == (0, "")
    assert "e: Exp stays float32: it is steep" in outcome.out
    assert "model.onnx: 3 nodes in float16, 1 in float32" in outcome.out
    assert "against float64; rounding emulated; run in ONNX Runtime" in outcome.out
    onnx.checker.check_model(str(tmp_path / "half.onnx"), full_check=True)
    assert (tmp_path / "half.onnx").stat().st_size < (tmp_path / "model.onnx").stat().st_size + 300
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["narrowed"] == 3
    assert report["certificate"]["accepted"]
    # again: the same
    outcome = run("convert", "half.onnx", "--to", "fp16", "-o", "again.onnx")
    assert outcome.status == 0
    assert "converted to float16 before" in outcome.out
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "half.onnx").read_bytes()
    del written


def test_bfloat16_runs_nowhere_here_and_is_judged_all_the_same(
    run: Callable[..., Outcome], written: onnx.ModelProto
) -> None:
    outcome = run("convert", "model.onnx", "--to", "bf16", "-o", "half.onnx")
    assert outcome.status == 0
    assert "ONNX Runtime on the CPU has no kernel for it" in outcome.out
    del written


def test_inputs_and_outputs_on_request(run: Callable[..., Outcome], written: onnx.ModelProto, tmp_path: Path) -> None:
    assert run("convert", "model.onnx", "--to", "fp16", "--narrow-io", "--keep", "b", "-o", "half.onnx").status == 0
    graph = onnx.load(tmp_path / "half.onnx").graph
    assert [v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)] == [onnx.TensorProto.FLOAT16] * 2
    del written


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("missing.onnx", "--to", "fp16", "-o", "h.onnx"), "no such file"),
        (("models:head", "--to", "fp16", "-o", "h.onnx"), "only .onnx files are converted"),
        (("model.onnx", "--to", "fp8", "-o", "h.onnx"), "fp8"),
        (("model.onnx", "--to", "fp16", "-o", "h.pt2"), "must end in .onnx"),
        (("model.onnx", "--to", "fp16", "-o", "nowhere/h.onnx"), "no such directory"),
        (("model.onnx", "--to", "fp16", "-o", "h.onnx", "--range", "q=0:1"), "no such input"),
        (("model.onnx", "--to", "fp16", "-o", "h.onnx", "--range", "x=1"), "NAME=LO:HI"),
        (("model.onnx", "--to", "fp16", "-o", "h.onnx", "--keep", "q"), "no float32 node"),
        (("model.onnx", "--to", "fp16", "-o", "h.onnx", "--tolerance", "0"), "above 0"),
        (("model.onnx", "--to", "fp16", "-o", "h.onnx", "--input-data", "model.onnx"), "npz"),
        (("integers.onnx", "--to", "fp16", "-o", "h.onnx"), "no float32 in it"),
        (("narrow.onnx", "--to", "bf16", "-o", "h.onnx"), "no float32 in it"),
        (("damaged.onnx", "--to", "fp16", "-o", "h.onnx"), "not an ONNX file"),
    ],
)
def test_bad_input_is_one_line(
    run: Callable[..., Outcome], written: onnx.ModelProto, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    onnx.save(parsed("g (int64[2] x) => (int64[2] y) { y = Neg (x) }"), tmp_path / "integers.onnx")
    onnx.save(parsed("g (float16[2] x) => (float16[2] y) { y = Neg (x) }"), tmp_path / "narrow.onnx")
    (tmp_path / "damaged.onnx").write_bytes((tmp_path / "model.onnx").read_bytes()[:-20])
    before = sorted(os.listdir(tmp_path))
    assert told in one_line(run("convert", *arguments))
    assert sorted(os.listdir(tmp_path)) == before
    del written


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_cannot_be_written(run: Callable[..., Outcome], written: onnx.ModelProto, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "cannot write" in one_line(run("convert", "model.onnx", "--to", "fp16", "-o", "closed/h.onnx"))
    del written

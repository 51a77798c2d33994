"""Folders of exported models: rewritten where they stand or into another folder, as a whole or not at all."""

from __future__ import annotations

import os
import resource
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from stabilize.errors import ModelError, UsageError
from stabilize.onnx import optimize_folder
from tests.frontends.onnx_support import softmax
from tests.onnx.exported import WEIGHT, contents, write_export

MODELS = ("decoder/model.onnx", "encoder_model.onnx", "right.onnx")
X = np.full((2, 16), 50, np.float32)


@contextmanager
def no_file_larger_than(size: int) -> Generator[None]:
    """As on a full disk, a write fails in the middle of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def check(folder: Path) -> None:
    """All models run in ONNX Runtime, with their data, and are right."""
    for name in MODELS:
        onnx.checker.check_model(str(folder / name), full_check=True)
        session = onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])
        (y,) = session.run(None, {"x": X})
        h = X.astype(np.float64) @ WEIGHT.astype(np.float64)
        np.testing.assert_allclose(np.asarray(y), softmax(h), rtol=1e-3, atol=1e-30)


def test_in_place(tmp_path: Path) -> None:
    write_export(tmp_path)
    before, modified = contents(tmp_path), (tmp_path / "right.onnx").stat().st_mtime_ns
    reports = optimize_folder(tmp_path)
    assert list(reports) == list(MODELS)
    assert [[r.code for r in report.rewrites] for report in reports.values()] == [["STB101"], ["STB101"], []]
    check(tmp_path)
    after = contents(tmp_path)
    assert after.keys() == before.keys()
    assert {n for n in after if after[n] != before[n]} == {"decoder/model.onnx", "encoder_model.onnx"}
    assert (tmp_path / "right.onnx").stat().st_mtime_ns == modified
    assert all(not report.rewrites for report in optimize_folder(tmp_path).values())
    assert contents(tmp_path) == after


def test_to_another_folder_with_all_that_belongs_to_it(tmp_path: Path) -> None:
    source, target = tmp_path / "export", tmp_path / "new" / "fixed"
    write_export(source)
    (source / "empty").mkdir()
    before = contents(source)
    optimize_folder(str(source), str(target))
    check(target)
    assert contents(source) == before
    after = contents(target)
    assert after.keys() == before.keys()
    assert {n for n in after if after[n] != before[n]} == {"decoder/model.onnx", "encoder_model.onnx"}
    assert (target / "empty").is_dir()
    optimize_folder(source, target)  # once more: what is there already is the same
    assert contents(target) == after


def test_keywords_are_those_of_optimize(tmp_path: Path) -> None:
    write_export(tmp_path)
    before = contents(tmp_path)
    reports = optimize_folder(tmp_path, ignore="STB1")
    assert all(not report.rewrites for report in reports.values())
    assert contents(tmp_path) == before
    with pytest.raises(UsageError, match="form 'hardmax'"):
        optimize_folder(tmp_path, form="hardmax")


@pytest.mark.parametrize("in_place", [True, False])
def test_a_damaged_model_among_them_stops_all(tmp_path: Path, in_place: bool) -> None:
    write_export(tmp_path / "export")
    (tmp_path / "export" / "zzz.onnx").write_bytes(b"no model")
    before = contents(tmp_path)
    with pytest.raises(ModelError, match=r"zzz\.onnx: not an ONNX file"):
        optimize_folder(tmp_path / "export", None if in_place else tmp_path / "out" / "fixed")
    assert contents(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["export"]


@pytest.mark.parametrize("in_place", [True, False])
def test_a_disk_that_is_full_stops_all(tmp_path: Path, in_place: bool) -> None:
    write_export(tmp_path / "export")
    before = contents(tmp_path)
    smallest = min(p.stat().st_size for p in (tmp_path / "export").rglob("*.onnx"))
    with no_file_larger_than(smallest - 100), pytest.raises(ModelError, match=r"\.onnx(_data)?: File too large"):
        optimize_folder(tmp_path / "export", None if in_place else tmp_path / "out")
    assert contents(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["export"]


def test_other_files_are_not_overwritten(tmp_path: Path) -> None:
    source, target = tmp_path / "export", tmp_path / "fixed"
    write_export(source)
    target.mkdir()
    (target / "config.json").write_text("another model's")
    before = contents(tmp_path)
    with pytest.raises(ModelError, match=r"config\.json would replace .*fixed/config\.json"):
        optimize_folder(source, target)
    assert contents(tmp_path) == before


def test_links_of_a_cache_are_followed_and_never_written_through(tmp_path: Path) -> None:
    """Model hubs keep files under the hashes of their contents."""
    write_export(tmp_path / "blobs")
    snapshot = tmp_path / "snapshot"
    (snapshot / "decoder").mkdir(parents=True)
    for name in contents(tmp_path / "blobs"):
        (snapshot / name).symlink_to(tmp_path / "blobs" / name)
    before = contents(tmp_path)
    with pytest.raises(ModelError, match=r"snapshot/decoder/model\.onnx: is a link to .*blobs.*another folder"):
        optimize_folder(snapshot)
    assert contents(tmp_path) == before
    optimize_folder(snapshot, tmp_path / "fixed")
    check(tmp_path / "fixed")
    assert not any(p.is_symlink() for p in (tmp_path / "fixed").rglob("*"))
    assert {n: b for n, b in contents(tmp_path).items() if not n.startswith("fixed/")} == before


@pytest.mark.parametrize("inside", ["", "below"])
def test_a_folder_inside_itself_is_refused(tmp_path: Path, inside: str) -> None:
    write_export(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="another folder, or rewrite in place"):
        optimize_folder(tmp_path, tmp_path / "link" / inside)


def test_what_is_no_folder_of_models(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        optimize_folder(tmp_path / "absent")
    (tmp_path / "config.json").touch()
    with pytest.raises(ModelError, match=r"a directory without a \.onnx file"):
        optimize_folder(tmp_path)


def test_data_is_not_read_from_outside(tmp_path: Path) -> None:
    write_export(tmp_path / "export")
    path = tmp_path / "export" / "decoder" / "model.onnx"
    proto = onnx.load(str(path), load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../secret"
    path.write_bytes(proto.SerializeToString())
    (tmp_path / "export" / "secret").write_bytes(bytes(1000))
    with pytest.raises(ModelError, match=r"'\.\./secret' is not inside the model's folder"):
        optimize_folder(tmp_path / "export")


def test_many_writes_leave_no_temporary_file(tmp_path: Path) -> None:
    write_export(tmp_path)
    optimize_folder(tmp_path)
    assert not [name for _, _, names in os.walk(tmp_path) for name in names if name.startswith(".")]

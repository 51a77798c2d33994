"""ONNX files: errors that name the file and the cure, external data, writing in one step."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from stabilize.errors import MissingExtraError, ModelError
from stabilize.frontends.onnx import open_onnx, save
from stabilize.frontends.onnx_run import OnnxRunner
from stabilize.graph.view import Replacement
from tests.frontends.onnx_support import model, run

TEXT = """
g (float[n, 4] x) => (float[n, 4] y) <float[4, 4] w = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}> {
  h = MatMul (x, w)
  e = Exp (h)
  y = Log (e)
}"""


def with_external_data(folder: Path, location: str = "weights.bin") -> Path:
    proto = model(TEXT)
    # as raw bytes, which is what the onnx package can move to a file
    weight = np.arange(16, dtype=np.float32).reshape(4, 4)
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w"))
    path = folder / "model.onnx"
    onnx.save_model(proto, str(path), save_as_external_data=True, location=location, size_threshold=0)
    return path


def test_a_path_gives_a_proto_that_still_refers_to_its_data(tmp_path: Path) -> None:
    path = with_external_data(tmp_path)
    host = open_onnx(path)
    patched = host.patched([Replacement(host.view.bindings["y"], host.view.bindings["h"])]).model()
    assert isinstance(patched, onnx.ModelProto)
    assert patched.graph.initializer[0].data_location == onnx.TensorProto.EXTERNAL
    assert not patched.graph.initializer[0].raw_data


def test_tensor_reads_the_data_on_demand(tmp_path: Path) -> None:
    host = open_onnx(with_external_data(tmp_path))
    assert host.view.parameters == {"w"}
    weight = host.tensor(host.view.bindings["w"])
    assert weight is not None
    torch.testing.assert_close(weight, torch.arange(16.0).reshape(4, 4))
    assert host.tensor(host.view.bindings["x"]) is None
    assert host.tensor(host.view.bindings["h"]) is None


def test_opening_needs_no_data_file(tmp_path: Path) -> None:
    path = with_external_data(tmp_path)
    (tmp_path / "weights.bin").unlink()
    host = open_onnx(path)
    assert host.tensor(host.view.bindings["w"]) is None


def test_data_that_is_cut_short_is_named(tmp_path: Path) -> None:
    path = with_external_data(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"1234")
    host = open_onnx(path)
    assert host.view.bindings["w"].shape == (4, 4)
    with pytest.raises(ModelError, match=r"model\.onnx: the data of w cannot be read"):
        host.tensor(host.view.bindings["w"])


def test_large_external_data_is_not_loaded(tmp_path: Path) -> None:
    """Four gigabytes that are not there: reading the graph must not notice."""
    path = with_external_data(tmp_path)
    proto = onnx.load(str(path), load_external_data=False)
    proto.graph.initializer[0].dims[:] = [4, 2**28]
    onnx.save_model(proto, str(path))
    host = open_onnx(path)
    assert host.view.bindings["w"].shape == (4, 2**28)
    assert isinstance(host.patched([]).model(), onnx.ModelProto)


@pytest.mark.parametrize("location", ["/etc/passwd", "../weights.bin", "a/../../weights.bin", "..\\weights.bin", ""])
def test_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    path = with_external_data(tmp_path)
    proto = onnx.load(str(path), load_external_data=False)
    next(e for e in proto.graph.initializer[0].external_data if e.key == "location").value = location
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="not inside the model's folder"):
        open_onnx(path)
    with pytest.raises(ModelError, match="not inside the model's folder"):
        open_onnx(proto)
    with pytest.raises(ModelError, match="not inside the model's folder"):
        save(proto, tmp_path / "out.onnx")


def test_bad_files_are_named_with_a_cure(tmp_path: Path) -> None:
    missing, text, empty = tmp_path / "missing.onnx", tmp_path / "text.onnx", tmp_path / "empty.onnx"
    text.write_text("this is not a model, it is a text file\n" * 10)
    empty.write_bytes(b"")
    with pytest.raises(ModelError, match=r"missing\.onnx: No such file.*check the path"):
        open_onnx(missing)
    with pytest.raises(ModelError, match=r"text\.onnx: not an ONNX"):
        open_onnx(text)
    with pytest.raises(ModelError, match=r"empty\.onnx: not an ONNX"):
        open_onnx(empty)
    with pytest.raises(ModelError, match="Is a directory"):
        open_onnx(tmp_path)
    whole = model(TEXT).SerializeToString()
    text.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"text\.onnx: .*export the model again"):
        open_onnx(text)


def test_invalid_graphs_are_refused() -> None:
    proto = model(TEXT)
    del proto.graph.node[0]
    with pytest.raises(ModelError, match="'h'"):
        open_onnx(proto)


def test_old_opsets_say_how_to_convert() -> None:
    proto = model("g (float[4] x) => (float[4] y) {\n y = Exp (x)\n}", 9)
    with pytest.raises(ModelError, match=r"opset 9 is older than 11.*convert_version"):
        open_onnx(proto)


def test_save_carries_the_data_along(tmp_path: Path) -> None:
    source = tmp_path / "source"
    target = tmp_path / "target" / "fixed.onnx"
    source.mkdir()
    target.parent.mkdir()
    host = open_onnx(with_external_data(source))
    patched = host.patched([Replacement(host.view.bindings["y"], host.view.bindings["h"])]).model()
    with pytest.raises(ModelError, match=r"external data .* is missing"):
        save(patched, target)
    assert list(target.parent.iterdir()) == []
    save(patched, target, str(source))
    assert sorted(p.name for p in target.parent.iterdir()) == ["fixed.onnx", "weights.bin"]
    x = np.eye(4, dtype=np.float32)
    (y,) = run(onnx.load(str(target)), {"x": x})
    np.testing.assert_array_equal(y, np.arange(16, dtype=np.float32).reshape(4, 4))


def test_save_replaces_the_file_it_was_read_from(tmp_path: Path) -> None:
    path = with_external_data(tmp_path)
    host = open_onnx(path)
    save(host.patched([Replacement(host.view.bindings["y"], host.view.bindings["h"])]).model(), path, str(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "weights.bin"]
    assert [n.op_type for n in onnx.load(str(path)).graph.node] == ["MatMul", "Identity"]


def test_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    save(model(TEXT), path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ModelError, match="No space left on device"):
        save(model(TEXT.replace("Log", "Neg")), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    with pytest.raises(ModelError, match=r"nowhere/model\.onnx: No such file"):
        save(model(TEXT), tmp_path / "nowhere" / "model.onnx")


def test_save_takes_an_ir_model(tmp_path: Path) -> None:
    save(ir.serde.deserialize_model(model(TEXT)), tmp_path / "model.onnx")
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)


def test_bfloat16_weights_become_torch_tensors() -> None:
    proto = model("g (bfloat16[2] x) => (bfloat16[2] y) <bfloat16[2] w = {1, 2}> {\n y = Add (x, w)\n}")
    weights = np.asarray([1.0, 2.0]).astype(ir.DataType.BFLOAT16.numpy())
    proto.graph.initializer[0].CopyFrom(ir.serde.serialize_tensor(ir.tensor(weights, name="w")))
    host = open_onnx(proto)
    weight = host.tensor(host.view.bindings["w"])
    assert weight is not None
    assert weight.dtype == torch.bfloat16
    assert weight.tolist() == [1.0, 2.0]


def test_importing_the_frontend_imports_no_onnx() -> None:
    code = "import sys, stabilize.frontends.onnx; print([m for m in sys.modules if m.split('.')[0].startswith('onnx')])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'stabilize\[onnx\]'") as raised:
        open_onnx("model.onnx")
    assert raised.value.package == "onnx-ir"


# --- where external data may be -----------------------------------------------------------------------------------


def external(location: str = "w.bin", **keys: str) -> TensorProto:
    """Four floats in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **keys}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def holding(place: str, tensor: TensorProto) -> onnx.ModelProto:
    """A model with `tensor` at `place`."""
    proto = model("g (float[4] x, bool c) => (float[4] y) {\n w = Identity (x)\n y = Add (x, w)\n}")
    constant = helper.make_node("Constant", [], ["w"], value=tensor)
    inner = helper.make_graph([constant], "branch", [], [helper.make_tensor_value_info("w", 1, [4])])
    match place:
        case "initializer":
            proto.graph.node.pop(0)
            proto.graph.initializer.append(tensor)
        case "constant":
            proto.graph.node[0].CopyFrom(constant)
        case "subgraph":
            proto.graph.node[0].CopyFrom(helper.make_node("If", ["c"], ["w"], then_branch=inner, else_branch=inner))
        case "sparse":
            proto.graph.sparse_initializer.append(
                onnx.SparseTensorProto(values=tensor, indices=numpy_helper.from_array(np.arange(4)), dims=[9])
            )
        case _:
            imports = [helper.make_opsetid("", 18)]
            proto.functions.append(helper.make_function("test", "F", [], ["w"], [constant], imports))
            proto.graph.node[0].CopyFrom(helper.make_node("F", [], ["w"], domain="test"))
    return proto


PLACES = ("initializer", "constant", "subgraph", "function", "sparse")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"location": "../w.bin"}, "not inside the model's folder"),
        ({"location": "."}, "not inside the model's folder"),
        ({"location": "a/.."}, "not inside the model's folder"),
        ({"location": "link.bin"}, r"link to .*copy the file into the folder"),
        ({"offset": "9" * 23}, "the offset of tensor 'w' .* no position in a file"),
        ({"offset": "zzz"}, "the offset of tensor 'w' .* no position in a file"),
        ({"length": "-8"}, "the length of tensor 'w' .* no position in a file"),
    ],
)
def test_every_tensor_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, keys: dict[str, str], message: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"0" * 16)
    (folder / "link.bin").symlink_to(tmp_path / "secret")
    monkeypatch.chdir(folder)  # a model without a file has its data here
    proto = holding(place, external(**keys))
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match=message):
        open_onnx(proto)
    with pytest.raises(ModelError, match=message):
        open_onnx(path)
    with pytest.raises(ModelError, match=message):
        save(proto, folder / "out.onnx", str(folder))
    if place != "sparse" and not {"offset", "length"} & keys.keys():  # which onnx_ir does not read
        with pytest.raises(ModelError, match=message):
            open_onnx(ir.serde.deserialize_model(proto))


@pytest.mark.parametrize("place", PLACES[:4])
def test_data_in_the_folder_is_accepted_wherever_it_is_used(tmp_path: Path, place: str) -> None:
    (tmp_path / "w.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    (tmp_path / "link.bin").symlink_to(tmp_path / "w.bin")
    for location in ("w.bin", "link.bin", "./w.bin"):
        path = tmp_path / "model.onnx"
        path.write_bytes(holding(place, external(location, offset="0", length="16")).SerializeToString())
        assert open_onnx(path).view.outputs[0].shape == (4,)


@pytest.mark.parametrize("place", ["initializer", "constant"])
def test_data_is_found_when_a_model_is_run_in_float64(tmp_path: Path, place: str) -> None:
    (tmp_path / "w.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    path = tmp_path / "model.onnx"
    path.write_bytes(holding(place, external(offset="0", length="16")).SerializeToString())
    x = {"x": torch.ones(4), "c": torch.tensor(True)}
    (y,) = OnnxRunner(path, "model").run_wide(x)
    assert y.tolist() == [1, 2, 3, 4]
    assert y.dtype == torch.float64


def test_a_cache_may_link_a_model_and_its_data(tmp_path: Path) -> None:
    """Model hubs keep files under other names and link them."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    (blobs / "1").write_bytes(holding("initializer", external()).SerializeToString())
    (blobs / "2").write_bytes(bytes(16))
    (snapshot / "model.onnx").symlink_to(blobs / "1")
    (snapshot / "w.bin").symlink_to(blobs / "2")
    assert open_onnx(snapshot / "model.onnx").view.outputs[0].shape == (4,)


# --- writing beside other files -----------------------------------------------------------------------------------


def test_other_data_is_never_overwritten(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "w.bin").write_bytes(bytes(16))
    (target / "w.bin").write_bytes(b"another model's ")
    proto = holding("constant", external())
    with pytest.raises(ModelError, match=r"source/w\.bin would replace .*target/w\.bin.*another folder"):
        save(proto, target / "model.onnx", str(source))
    assert [p.name for p in target.iterdir()] == ["w.bin"]
    assert (target / "w.bin").read_bytes() == b"another model's "
    (target / "w.bin").write_bytes(bytes(16))
    save(proto, target / "model.onnx", str(source))
    assert sorted(p.name for p in target.iterdir()) == ["model.onnx", "w.bin"]


@pytest.mark.parametrize(("location", "out"), [("w.onnx", "source/w.onnx"), ("a/w.onnx", "source/a/w.onnx")])
@pytest.mark.parametrize("link", [False, True])
def test_a_model_is_not_written_over_its_own_data(tmp_path: Path, location: str, out: str, link: bool) -> None:
    data = tmp_path / "source" / location
    data.parent.mkdir(parents=True)
    data.write_bytes(bytes(16))
    target = tmp_path / out
    if link:
        target = data.with_name("link.onnx")
        target.hardlink_to(data)
    with pytest.raises(ModelError, match=r"own data is in .*another file"):
        save(holding("initializer", external(location)), target, str(tmp_path / "source"))
    assert data.read_bytes() == bytes(16)


def test_a_model_is_not_written_where_its_data_would_go(tmp_path: Path) -> None:
    source, target = tmp_path / "C", tmp_path / "D"
    source.mkdir()
    target.mkdir()
    (source / "w.onnx").write_bytes(bytes(16))
    with pytest.raises(ModelError, match=r"own data is in .*another file"):
        save(holding("initializer", external("w.onnx")), target / "w.onnx", str(source))
    assert list(target.iterdir()) == []

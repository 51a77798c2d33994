"""`stabilize optimize` of files and folders: byte for byte where nothing is to do, as a whole or not at all."""

from __future__ import annotations

import filecmp
import json
import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.cli.support import Outcome, one_line, softmax_model
from tests.onnx.exported import contents, encoder, write_export
from tests.onnx.test_folder import check, no_file_larger_than

# -- what is already right ------------------------------------------------------------------------------------------


def unusual(model: onnx.ModelProto) -> bytes:
    """A serialization that protobuf would not write: fields out of order, one that onnx does not know."""
    known = [model.SerializeToString()]
    graph = onnx.ModelProto()
    graph.doc_string = "first"
    return graph.SerializeToString() + known[0] + b"\xba\x3e\x05later"


def test_a_file_that_needs_nothing_is_copied_byte_for_byte(run: Callable[..., Outcome]) -> None:
    Path("a.onnx").write_bytes(unusual(softmax_model(stable=True)))
    parsed = onnx.load("a.onnx")
    assert parsed.SerializeToString() != Path("a.onnx").read_bytes()
    outcome = run("optimize", "a.onnx", "-o", "b.onnx")
    assert outcome == Outcome(0, "b.onnx: 0 findings, 0 rewrites, 0 declined\n", "")
    assert filecmp.cmp("a.onnx", "b.onnx", shallow=False)


def test_with_its_external_data(run: Callable[..., Outcome]) -> None:
    Path("in").mkdir()
    Path("out").mkdir()
    onnx.save(encoder(naive=False), "in/a.onnx", save_as_external_data=True, location="a.data", size_threshold=0)
    assert run("optimize", "in/a.onnx", "-o", "out/a.onnx").status == 0
    assert contents(Path("in")) == contents(Path("out"))


def test_over_itself_it_is_not_even_touched(run: Callable[..., Outcome]) -> None:
    Path("a.onnx").write_bytes(unusual(softmax_model(stable=True)))
    before = os.stat("a.onnx")
    for arguments in (["-o", "a.onnx"], ["--in-place"]):
        assert run("optimize", "a.onnx", *arguments).status == 0
        assert (os.stat("a.onnx").st_mtime_ns, os.stat("a.onnx").st_ino) == (before.st_mtime_ns, before.st_ino)


def test_a_program_that_needs_nothing_too(run: Callable[..., Outcome]) -> None:
    assert run("optimize", "models:head", "-o", "a.pt2").status == 0
    for output in (["-o", "b.pt2"], ["-o", "a.pt2"], ["--in-place"]):
        before = Path("a.pt2").read_bytes()
        assert run("optimize", "a.pt2", *output).status == 0
        assert Path("a.pt2").read_bytes() == before
    assert filecmp.cmp("a.pt2", "b.pt2", shallow=False)


def test_what_is_rewritten_keeps_everything_else(run: Callable[..., Outcome]) -> None:
    """Metadata, documentation, source traces, fields that onnx does not know: of the model, the graph and its nodes."""
    model = encoder()
    model.doc_string, model.domain, model.model_version = "said", "some.where", 7
    model.graph.doc_string, model.graph.node[0].doc_string = "of the graph", "of the product"
    model.metadata_props.add(key="author", value="somebody")
    trace = 'File "model.py", line 12, in forward\n    return e / e.sum(-1)'
    for node in model.graph.node:
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=trace)
    model.graph.node[0].MergeFromString(b"\xba\x3e\x05later")
    model.MergeFromString(b"\xba\x3e\x05newer")
    onnx.save(model, "a.onnx")
    outcome = run("optimize", "a.onnx", "--in-place")
    assert outcome.out.startswith("model.py:12: STB101")
    after = onnx.load("a.onnx")
    assert [n.op_type for n in after.graph.node] == ["MatMul", "Softmax"]
    assert after.graph.node[0].SerializeToString() == model.graph.node[0].SerializeToString()
    assert after.graph.node[1].metadata_props == model.graph.node[3].metadata_props
    for each in (model, after):
        del each.graph.node[:]
        del each.graph.initializer[:]
        del each.graph.value_info[:]
    assert after.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


# -- folders, several models, in place ------------------------------------------------------------------------------


def test_a_folder_in_place(run: Callable[..., Outcome]) -> None:
    write_export(Path("export"))
    outcome = run("optimize", "export", "--in-place", "--report", "report.json")
    assert (outcome.status, outcome.err) == (0, "")
    assert [line for line in outcome.out.splitlines() if "rewrite" in line] == [
        "export/decoder/model.onnx: 1 finding (1 error), 1 rewrite, 0 declined",
        "export/encoder_model.onnx: 1 finding (1 error), 1 rewrite, 0 declined",
        "export/right.onnx: 0 findings, 0 rewrites, 0 declined",
    ]
    check(Path("export"))
    report = json.loads(Path("report.json").read_text())
    assert report["schema_version"] == 1
    assert [r["model"] for r in report["reports"]] == [
        "export/decoder/model.onnx", "export/encoder_model.onnx", "export/right.onnx"
    ]  # fmt: skip


def test_a_folder_to_a_folder(run: Callable[..., Outcome]) -> None:
    write_export(Path("export"))
    before = contents(Path("export"))
    assert run("optimize", "export", "-o", "fixed").status == 0
    check(Path("fixed"))
    assert contents(Path("export")) == before
    assert contents(Path("fixed")).keys() == before.keys()


def test_several_files_and_folders(run: Callable[..., Outcome]) -> None:
    write_export(Path("export"))
    onnx.save(softmax_model(), "m.onnx")
    assert run("optimize", "models:head", "-o", "p.pt2").status == 0
    assert run("optimize", "m.onnx", "p.pt2", "export", "-o", "out").status == 0
    check(Path("out/export"))
    assert sorted(os.listdir("out")) == ["export", "m.onnx", "p.pt2"]
    assert [n.op_type for n in onnx.load("out/m.onnx").graph.node] == ["Softmax"]
    assert run("optimize", "m.onnx", "export/encoder_model.onnx", "--in-place").status == 0
    assert [n.op_type for n in onnx.load("m.onnx").graph.node] == ["Softmax"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["m.onnx"], "give one of --output (-o) and --in-place"),
        (["m.onnx", "-o", "x.onnx", "--in-place"], "give one of --output (-o) and --in-place"),
        (["models:head", "--in-place"], "models:head: is no file: say with --output"),
        (["m.onnx", "models:head", "-o", "out"], "models:head: is no file"),
        (["m.onnx", "absent.onnx", "-o", "out"], "absent.onnx: no such file"),
        (["m.onnx", "export/m.onnx", "-o", "out"], "out/m.onnx: two of the models"),
        (["m.onnx", "export", "-o", "text.txt"], "text.txt: is no directory"),
        (["export", "-o", "text.txt/below"], "text.txt/below: is no directory"),
        (["export", "-o", "export/fixed"], "name another folder"),
        (["empty", "--in-place"], "empty: is a directory without a .onnx file"),
        (["m.onnx", "bad.onnx", "--in-place"], "bad.onnx: not an ONNX file"),
        (["m.onnx", "bad.onnx", "-o", "out"], "bad.onnx: not an ONNX file"),
        (["link.onnx", "--in-place"], "link.onnx: is a link to"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_done_is_told_before_anything_is(
    run: Callable[..., Outcome], arguments: list[str], named: str
) -> None:
    for folder in ("export", "empty"):
        Path(folder).mkdir()
    onnx.save(softmax_model(), "m.onnx")
    onnx.save(softmax_model(), "export/m.onnx")
    Path("bad.onnx").write_text("no model")
    Path("text.txt").write_text("text")
    Path("link.onnx").symlink_to("m.onnx")
    before = contents(Path())
    assert named in one_line(run("optimize", *arguments))
    assert {n: b for n, b in contents(Path()).items() if "__pycache__" not in n} == before
    assert not Path("out").exists()


# -- errors ---------------------------------------------------------------------------------------------------------


def test_an_operator_that_nobody_knows_is_passed_through(run: Callable[..., Outcome]) -> None:
    model = softmax_model()
    model.graph.node.append(helper.make_node("NoSuchOperator", ["y"], ["z"]))
    model.graph.node.append(helper.make_node("Mine", ["z"], ["w"], domain="mine"))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    model.graph.output[0].name = "w"
    onnx.save(model, "m.onnx")
    assert run("optimize", "m.onnx", "-o", "out.onnx").status == 0
    assert [n.op_type for n in onnx.load("out.onnx").graph.node] == ["Softmax", "NoSuchOperator", "Mine"]


def test_an_opset_that_is_too_old(run: Callable[..., Outcome]) -> None:
    model = softmax_model()
    model.opset_import[0].version = 9
    onnx.save(model, "m.onnx")
    assert "m.onnx: opset 9 is older than 11: convert it first" in one_line(run("optimize", "m.onnx", "-o", "o.onnx"))
    assert not Path("o.onnx").exists()


def test_a_folder_that_cannot_be_written(run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(softmax_model(), "m.onnx")
    Path("out").mkdir()
    if Path("/proc/self").exists():  # no file can be made there, by nobody
        assert "/proc/o.onnx: " in one_line(run("optimize", "m.onnx", "-o", "/proc/o.onnx"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "out/o.onnx: cannot write in" in one_line(run("optimize", "m.onnx", "-o", "out/o.onnx"))
    assert "out/new: cannot write in " in one_line(run("optimize", "m.onnx", "m.onnx", "-o", "out/new"))


@pytest.mark.parametrize("arguments", [["-o", "out.onnx"], ["--in-place"]])
def test_a_file_that_may_not_be_written(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """Renaming would replace it all the same; who may write anywhere (root) is not asked."""
    for name in ("m.onnx", "out.onnx"):
        onnx.save(softmax_model(), name)
        os.chmod(name, 0o444)
    before = contents(Path())
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK or bool(os.stat(path).st_mode & 0o200))
    assert "is read-only" in one_line(run("optimize", "m.onnx", *arguments))
    assert contents(Path()) == before


def test_a_source_that_may_not_be_written_is_read(run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    write_export(Path("export"))
    monkeypatch.setattr(os, "access", lambda path, mode: "export" not in str(path))
    assert run("optimize", "export", "-o", "fixed").status == 0
    check(Path("fixed"))


@pytest.mark.parametrize("output", ["m.onnx", "out.onnx"])
def test_a_disk_that_is_full(run: Callable[..., Outcome], output: str) -> None:
    """The write itself fails, in the middle; what was there is there."""
    model = softmax_model()
    model.doc_string = "long " * 20_000
    onnx.save(model, "m.onnx")
    before = contents(Path())
    with no_file_larger_than(50_000):
        assert f"{output}: File too large" in one_line(run("optimize", "m.onnx", "-o", output))
    assert contents(Path()) == before


def test_a_disk_that_is_full_of_data(run: Callable[..., Outcome]) -> None:
    write_export(Path("export"))
    Path("out").mkdir()
    with Path("export/decoder/model.onnx_data").open("ab") as file:
        file.write(bytes(100_000))
    with no_file_larger_than(50_000):
        told = one_line(run("optimize", "export/decoder/model.onnx", "-o", "out/m.onnx"))
    assert "out/model.onnx_data: File too large" in told
    assert os.listdir("out") == []


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("../secret", "external data '../secret' is not inside the model's folder"),
        ("sub/../../secret", "external data 'sub/../../secret' is not inside"),
        ("{here}/secret", "secret' is not inside the model's folder"),
        ("linked", "external data 'linked' is a link to"),
        ("linked_folder/secret", "external data 'linked_folder/secret' is a link to"),
    ],
)
@pytest.mark.parametrize("arguments", [["-o", "out/o.onnx"], ["--in-place"]])
def test_data_outside_the_folder(
    run: Callable[..., Outcome], location: str, told: str, arguments: list[str], tmp_path: Path
) -> None:
    Path("in/sub").mkdir(parents=True)
    Path("out").mkdir()
    Path("secret").write_bytes(bytes(20))
    Path("in/linked").symlink_to(tmp_path / "secret")
    Path("in/linked_folder").symlink_to(tmp_path)
    model = softmax_model()
    tensor = TensorProto(name="W", data_type=TensorProto.FLOAT, dims=[5], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location.format(here=tmp_path))
    model.graph.initializer.append(tensor)
    onnx.save(model, "in/m.onnx")
    before = Path("in/m.onnx").read_bytes()
    line = one_line(run("optimize", "in/m.onnx", *arguments))
    assert told in line
    assert "in/m.onnx" in line
    assert Path("in/m.onnx").read_bytes() == before
    assert os.listdir("out") == []

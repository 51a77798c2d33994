"""The written model: casts, names, types, graphs inside, functions, files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import stabilize
from stabilize.conversion.narrow import MARK
from stabilize.errors import ModelError, StabilizeError, UsageError
from tests.conversion.support import HALF, WIDE, converted, formats, rng
from tests.frontends.onnx_support import model, names_of, op_types, run


def weighted(text: str, opset: int = 18, ir_version: int = 10, **weights: tuple[int, ...]) -> onnx.ModelProto:
    proto = model(text, opset, ir_version)
    for seed, (name, shape) in enumerate(weights.items()):
        array = rng(seed).normal(size=shape).astype(np.float32) / 3
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return proto


def test_a_cast_is_shared_and_names_stay() -> None:
    text = """g (float[n, 8] x) => (float[n, 8] y, float[n, 8] z) {
      a = MatMul (x, w)
      y = Softmax (a)
      b = Softmax <axis = 0> (a)
      c = MatMul (b, w)
      d = Add (a, c)
      z = Relu (d)
    }"""
    found, report = converted(weighted(text, w=(8, 8)))
    casts = [(n.input[0], n.output[0]) for n in found.graph.node if n.op_type == "Cast"]
    assert len(casts) == len(set(casts)) == report.casts
    assert Counter(source for source, _ in casts)["a"] == 1  # both softmaxes read one
    assert len(set(names_of(found.graph))) == len(names_of(found.graph))
    assert [o.name for o in found.graph.output] == ["y", "z"]
    assert {formats(found)[n] for n in "xyz"} == {WIDE}
    assert formats(found)["w"] == HALF
    assert formats(found)["a"] == HALF


@pytest.mark.parametrize(("io", "wide"), [(True, "xyz"), (False, ""), (["x"], "x"), ("z", "z"), ((), "")])
def test_inputs_and_outputs_as_asked(io: object, wide: str) -> None:
    text = """g (float[n, 8] x) => (float[n, 8] y, float[n, 8] z) {
      a = MatMul (x, w)
      y = Softmax (a)
      z = Relu (a)
    }"""
    found, report = converted(weighted(text, w=(8, 8)), keep_io_types=io)
    assert {n for n in "xyz" if formats(found)[n] == WIDE} == set(wide)
    assert report.certificate.accepted
    feed = rng(1).normal(size=(3, 8)).astype(np.float32 if "x" in wide else np.float16)
    y, z = run(found, {"x": feed})
    assert (y.dtype == np.float32) == ("y" in wide)
    assert (z.dtype == np.float32) == ("z" in wide)


def test_an_input_that_does_not_fit_stays() -> None:
    proto = weighted("g (float[n, 8] x) => (float[n, 8] y) { a = Tanh (x) y = MatMul (a, w) }", w=(8, 8))
    data = {"x": np.full((2, 8), 1e6, np.float32)}
    found, _ = converted(proto, keep_io_types=False, input_data=data)
    assert formats(found)["x"] == WIDE
    assert formats(found)["y"] == HALF


def test_a_weight_that_both_read_is_stored_once() -> None:
    text = "g (float[n, 8] x) => (float[n, 8] y) { a = MatMul (x, w) b = Softmax (a) c = Exp (w) d = MatMul (b, c) y = Add (d, a) }"  # noqa: E501
    found, _ = converted(weighted(text, w=(8, 8)))
    assert [t.name for t in found.graph.initializer] == ["w"]
    assert formats(found)["w"] == WIDE
    assert [n.input[0] for n in found.graph.node if n.op_type == "Cast"].count("w") == 1


def test_metadata_and_sources_stay() -> None:
    proto = weighted("g (float[n, 8] x) => (float[n, 8] y) { a = MatMul (x, w) y = Relu (a) }", w=(8, 8))
    proto.doc_string, proto.producer_name = "said", "me"
    helper.set_model_props(proto, {"kept": "yes"})
    entry = proto.graph.node[0].metadata_props.add()
    entry.key, entry.value = "pkg.torch.onnx.stack_trace", 'File "a.py", line 3'
    found, _ = converted(proto)
    assert (found.doc_string, found.producer_name) == ("said", "me")
    assert {e.key: e.value for e in found.metadata_props} == {"kept": "yes", MARK: "float16"}
    (product,) = [n for n in found.graph.node if n.op_type == "MatMul"]
    assert product.metadata_props[0].value == 'File "a.py", line 3'


def test_stated_types_follow() -> None:
    proto = weighted("g (float[2, 8] x) => (float[2, 8] y) { a = MatMul (x, w) b = Relu (a) y = Exp (b) }", w=(8, 8))
    proto = onnx.shape_inference.infer_shapes(proto)
    found, _ = converted(proto)
    stated = {i.name: i.type.tensor_type for i in found.graph.value_info}
    assert stated["a"].elem_type == HALF
    assert [d.dim_value for d in stated["b_float32"].shape.dim] == [2, 8]
    assert stated["b_float32"].elem_type == WIDE


def test_graphs_inside_stay_and_read_what_they_did() -> None:
    text = """g (float[2, 8] x, bool c) => (float[2, 8] y) {
      a = MatMul (x, w)
      b = If (c) <
        then_branch = t () => (float[2, 8] p) { q = Add (a, a) p = Exp (q) },
        else_branch = e () => (float[2, 8] r) { r = MatMul (a, w) }
      >
      d = Relu (a)
      s = Add (b, d)
      y = MatMul (s, w)
    }"""
    found, report = converted(weighted(text, w=(8, 8)))
    (reason,) = [k.reason for k in report.kept if k.op_type == "If"]
    assert reason == "the graphs inside If stay as they are"
    assert formats(found)["w"] == WIDE  # the branch reads it
    feeds = {"x": rng(2).normal(size=(2, 8)).astype(np.float32), "c": np.asarray(False)}
    (new,), (old,) = run(found, feeds), run(weighted(text, w=(8, 8)), feeds)
    np.testing.assert_allclose(new, old, rtol=0, atol=2e-2 * np.abs(old).max())


def test_functions_stay_and_are_told() -> None:
    text = """<ir_version: 10, opset_import: ["" : 18, "local" : 1]>
    g (float[2, 8] x) => (float[2, 8] y) { a = MatMul (x, w) b = local.f (a) y = MatMul (b, w) }
    <domain: "local", opset_import: ["" : 18]> f (u) => (v) { s = Sigmoid (u) v = Mul (u, s) }"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(numpy_helper.from_array(rng().normal(size=(8, 8)).astype(np.float32), "w"))
    found, report = converted(proto)
    assert any("own function f" in k.reason for k in report.kept)
    assert formats(found)["w"] == HALF
    assert found.functions == proto.functions


def test_defaults_that_a_caller_may_set_stay() -> None:
    proto = weighted("g (float[2, 8] x, float[8, 8] w) => (float[2, 8] y) { a = MatMul (x, w) y = Relu (a) }", w=(8, 8))
    found, _ = converted(proto)
    assert formats(found)["w"] == WIDE


def test_a_model_that_is_partly_narrow_already() -> None:
    text = """g (float16[2, 8] x) => (float[2, 8] y) {
      a = Cast <to = 1> (x)
      b = MatMul (a, w)
      c = Cast <to = 10> (b)
      d = Relu (c)
      e = Cast <to = 1> (d)
      y = Neg (e)
    }"""
    found, _ = converted(weighted(text, w=(8, 8)))
    assert sorted(op_types(found)) == ["Cast", "MatMul", "Neg", "Relu"]


@pytest.mark.parametrize("opset", [13, 18, 21, 24])
@pytest.mark.parametrize("to", ["fp16", "bf16"])
def test_opsets(opset: int, to: str) -> None:
    text = "g (float[n, 8] x) => (float[n, 8] y) { a = MatMul (x, w) b = Softmax (a) c = MatMul (b, w) y = Erf (c) }"
    _, report = converted(weighted(text, opset, w=(8, 8)), to)
    assert report.narrowed == 3
    assert report.certificate.accepted


def test_opset_11_has_no_bfloat16() -> None:
    proto = weighted("g (float[n, 8] x) => (float[n, 8] y) { y = MatMul (x, w) }", 11, 6, w=(8, 8))
    with pytest.raises(ModelError, match="opset 11 have no bfloat16"):
        stabilize.convert(proto, "bf16")
    stabilize.convert(proto, "fp16")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("g (int64[2] x) => (int64[2] y) { y = Neg (x) }", "no float32 in it"),
        ("g (float16[2] x) => (float16[2] y) { y = Neg (x) }", "no float32 in it"),
        ("g (double[2] x) => (double[2] y) { y = Neg (x) }", "no float32 in it"),
    ],
)
def test_nothing_to_convert(text: str, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        stabilize.convert(model(text), "fp16")


def test_operators_of_other_domains_alone() -> None:
    proto = model("g (float[2] x) => (float[2] y) { y = test.Mine (x) }")
    del proto.opset_import[0]
    with pytest.raises(ModelError, match="no operators of the standard"):
        stabilize.convert(proto, "fp16")


@pytest.mark.parametrize(
    ("keywords", "told"),
    [
        ({"to": "fp8"}, "give one of fp16, bf16"),
        ({"to": 16}, "give one of fp16, bf16"),
        ({"ranges": {"q": (0, 1)}}, "no such input"),
        ({"tolerance": -1}, "above 0"),
        ({"tolerance": float("nan")}, "above 0"),
        ({"keep_io_types": ["q"]}, "no input or output"),
        ({"keep": 3}, "list of names"),
        ({"input_data": {"q": np.zeros((2, 8), np.float32)}}, "no 'x'"),
        ({"input_data": {"x": np.zeros((2, 9), np.float32)}}, "shape"),
        ({"input_data": {"x": np.full((2, 8), np.nan, np.float32)}}, "NaN"),
        ({"f": 3}, "path of a file"),
    ],
)
def test_wrong_arguments(keywords: dict[str, object], told: str) -> None:
    proto = weighted("g (float[n, 8] x) => (float[n, 8] y) { y = MatMul (x, w) }", w=(8, 8))
    with pytest.raises(UsageError, match=told):
        stabilize.convert(proto, **{"to": "fp16", **keywords})


def test_a_module_is_refused() -> None:
    import torch

    with pytest.raises(ModelError, match="export"):
        stabilize.convert(torch.nn.Linear(2, 2), "fp16")


def test_one_that_was_converted_to_another_format_is_refused() -> None:
    found, _ = converted(weighted("g (float[n, 8] x) => (float[n, 8] y) { y = MatMul (x, w) }", w=(8, 8)))
    with pytest.raises(UsageError, match="was converted to float16"):
        stabilize.convert(found, "bf16")


# --- kinds and files -----------------------------------------------------------------------------------------------


def test_kinds_come_back(tmp_path: Path) -> None:
    proto = weighted("g (float[n, 8] x) => (float[n, 8] y) { y = MatMul (x, w) }", w=(8, 8))
    onnx.save(proto, tmp_path / "a.onnx")
    narrow = converted(proto)[0].SerializeToString()
    assert isinstance(stabilize.convert(ir.from_proto(proto), "fp16"), ir.Model)
    by_path = stabilize.convert(tmp_path / "a.onnx", "fp16")
    assert isinstance(by_path, onnx.ModelProto)
    assert by_path.SerializeToString() == narrow


def external(tmp_path: Path) -> tuple[onnx.ModelProto, Path]:
    text = "g (float[n, 64] x) => (float[n, 64] y) { a = MatMul (x, w) b = Add (a, v) c = Mul (b, s) y = Softmax (c) }"
    proto = weighted(text, w=(64, 64), v=(64,), s=(64,))
    proto.graph.initializer[2].CopyFrom(numpy_helper.from_array(np.full(64, 1e-9, np.float32), "s"))
    folder = tmp_path / "in"
    folder.mkdir()
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    onnx.save(copy, folder / "a.onnx", save_as_external_data=True, location="a.bin", size_threshold=0)
    return proto, folder / "a.onnx"


def test_external_data_is_narrowed_and_written_beside(tmp_path: Path) -> None:
    proto, path = external(tmp_path)
    before = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    target = tmp_path / "out" / "h.onnx"
    target.parent.mkdir()
    returned, report = stabilize.convert(path, "fp16", f=target, return_report=True)
    assert sorted(p.name for p in target.parent.iterdir()) == ["h.onnx", "h.onnx.data"]
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == before
    onnx.checker.check_model(str(target), full_check=True)
    written = onnx.load(target)
    assert {t.name: t.data_type for t in written.graph.initializer} == {"w": HALF, "v": HALF, "s": WIDE}
    inside, _ = converted(proto)
    for mine, other in zip(written.graph.initializer, inside.graph.initializer, strict=True):
        assert (numpy_helper.to_array(mine) == numpy_helper.to_array(other)).all()
    assert report.certificate.accepted
    assert returned.graph.node == written.graph.node
    # a second time, into the same place
    first = target.read_bytes()
    stabilize.convert(path, "fp16", f=target)
    assert target.read_bytes() == first
    assert sorted(p.name for p in target.parent.iterdir()) == ["h.onnx", "h.onnx.data"]


def test_external_data_comes_inside_without_a_file(tmp_path: Path) -> None:
    proto, path = external(tmp_path)
    found = stabilize.convert(path, "fp16")
    assert not any(t.data_location == TensorProto.EXTERNAL for t in found.graph.initializer)
    assert run(found, {"x": np.ones((2, 64), np.float32)})[0].shape == (2, 64)
    del proto


def test_missing_data_is_told(tmp_path: Path) -> None:
    _, path = external(tmp_path)
    (path.parent / "a.bin").unlink()
    with pytest.raises(StabilizeError, match=r"a\.bin"):
        stabilize.convert(path, "fp16")


def test_nothing_is_left_where_it_cannot_be_written(tmp_path: Path) -> None:
    proto = weighted("g (float[n, 8] x) => (float[n, 8] y) { y = MatMul (x, w) }", w=(8, 8))
    with pytest.raises(ModelError, match="no_such"):
        stabilize.convert(proto, "fp16", f=tmp_path / "no_such" / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_program_of_torch_comes_back_as_one() -> None:
    import torch

    head = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Softmax(-1)).eval()
    program = torch.onnx.export(head, (torch.randn(2, 8),), dynamo=True, verbose=False)
    assert program is not None
    found, report = stabilize.convert(program, "fp16", return_report=True)
    assert isinstance(found, torch.onnx.ONNXProgram)
    assert report.narrowed == 1
    assert sorted(op_types(found.model_proto)) == ["Cast", "Cast", "Gemm", "Softmax"]
    assert op_types(program.model_proto) == ["Gemm", "Softmax"]

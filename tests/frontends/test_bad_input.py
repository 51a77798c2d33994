"""Damaged and hostile models: each is refused with the file, the node and the cure, or is read and left whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import stabilize
from stabilize.errors import ModelError
from stabilize.frontends.onnx import open_onnx, save
from stabilize.frontends.onnx_run import OnnxRunner
from tests.frontends.onnx_support import model

NAIVE = "g (float[n, 6] x) => (float[n, 6] y) <float k = {3}> {\n e = Exp (x)\n d = Add (e, k)\n y = Log (d)\n}"


def refused(proto: onnx.ModelProto, tmp_path: Path) -> str:
    """Why a file with this model is not read, by `optimize` and as a proto alike."""
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError) as told:
        stabilize.optimize(path)
    message = str(told.value)
    assert str(path) in message
    assert "\n" not in message
    assert message.partition(": ")[2]
    with pytest.raises(ModelError):
        open_onnx(proto)
    return message


# --- order ----------------------------------------------------------------------------------------------------------


def test_unsorted_nodes_say_how_to_sort_them(tmp_path: Path) -> None:
    proto = model(NAIVE)
    nodes = [*proto.graph.node][::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    message = refused(proto, tmp_path)
    assert "'d' of Log" in message
    assert "sort its nodes, e.g. onnx_ir.load(path).graph.sort()" in message
    sorted_model = ir.serde.deserialize_model(proto)
    sorted_model.graph.sort()
    assert open_onnx(sorted_model).view.outputs[0].op == "log"


def test_a_cycle_is_named(tmp_path: Path) -> None:
    proto = model(NAIVE)
    proto.graph.node[0].input[0] = "d"
    assert "input 'd' of Exp '' is computed from that node's own output" in refused(proto, tmp_path)


def test_a_value_computed_twice_is_named(tmp_path: Path) -> None:
    proto = model(NAIVE)
    proto.graph.node[1].output[0] = "e"
    message = refused(proto, tmp_path)
    assert "'e'" in message
    assert "'Add'" in message
    assert "check it with onnx.checker" in message


@pytest.mark.parametrize("kind", [onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS])
def test_graphs_that_a_function_would_be_given_are_named(kind: int, tmp_path: Path) -> None:
    proto = model(NAIVE)
    proto.graph.node[0].attribute.add(name="body", type=kind, ref_attr_name="given")
    message = refused(proto, tmp_path)
    assert "'body'" in message
    assert "onnx.inliner" in message
    with pytest.raises(ModelError, match=r"onnx\.inliner"):
        open_onnx(ir.serde.deserialize_model(proto))


# --- functions ------------------------------------------------------------------------------------------------------


def with_functions(*functions: tuple[str, list[tuple[str, list[str], str]]]) -> onnx.ModelProto:
    """A model that calls the first function; each is (name, [(operator or function, inputs, output)])."""
    proto = model("g (float[n, 6] x) => (float[n, 6] y) {\n h = Exp (x)\n y = Log (h)\n}")
    names = {name for name, _ in functions}
    for name, body in functions:
        nodes = [helper.make_node(op, i, [o], domain="local" if op in names else "") for op, i, o in body]
        imports = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
        proto.functions.append(helper.make_function("local", name, ["x"], [body[-1][2]], nodes, imports))
    proto.graph.node[0].CopyFrom(helper.make_node(functions[0][0], ["x"], ["h"], domain="local"))
    proto.opset_import.append(helper.make_opsetid("local", 1))
    return proto


def test_functions_that_call_each_other_are_refused(tmp_path: Path) -> None:
    proto = with_functions(("f", [("g", ["x"], "y")]), ("g", [("f", ["x"], "y")]))
    message = refused(proto, tmp_path)
    assert "a function calls itself: f → g → f" in message or "a function calls itself: g → f → g" in message


def test_a_function_that_calls_itself_is_refused(tmp_path: Path) -> None:
    assert "a function calls itself: f → f" in refused(with_functions(("f", [("f", ["x"], "y")])), tmp_path)


def test_the_bodies_of_functions_are_checked(tmp_path: Path) -> None:
    message = refused(with_functions(("f", [("Exp", ["t"], "y"), ("Log", ["x"], "t")])), tmp_path)
    assert "in function 'f'" in message
    assert "'t' of Exp" in message


@pytest.mark.parametrize(("levels", "calls"), [(40, 2), (2000, 1)])
def test_functions_without_end_are_read_and_not_run(levels: int, calls: int) -> None:
    """2^40 nodes when written out, or 2000 calls deep: shape inference and runtimes would do that."""
    bodies = []
    for level in range(levels):
        callee = f"f{level + 1}" if level + 1 < levels else "Exp"
        names = ["x", *(f"t{i}" for i in range(calls))]
        bodies.append((f"f{level}", [(callee, [names[i]], names[i + 1]) for i in range(calls)]))
    proto = with_functions(*bodies)
    assert stabilize.optimize(proto) == proto
    with pytest.raises(ModelError, match="its functions call each other too often to be run"):
        OnnxRunner(proto, "model")


# --- tensors --------------------------------------------------------------------------------------------------------


def damaged(field: str, value: object) -> TensorProto:
    tensor = numpy_helper.from_array(np.asarray(3, np.float32), "k")
    if field == "dims":
        tensor.dims[:] = value  # type: ignore[index]
    elif field == "raw_data":
        tensor.raw_data = value  # type: ignore[assignment]
    elif field == "data_type":
        tensor.data_type = value  # type: ignore[assignment]
    else:
        getattr(tensor, field).extend(value)
    return tensor


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("dims", [2**40], "holds 4 bytes instead of 4398046511104"),
        ("dims", [-1], "has the size -1"),
        ("dims", [1] * 100, "has 100 axes"),
        ("raw_data", b"\0\0", "holds 2 bytes instead of 4"),
        ("raw_data", b"\0" * 9, "holds 9 bytes instead of 4"),
        ("float_data", [3.0], "has its data in two places"),
        ("data_type", TensorProto.INT4, "holds 4 bytes instead of 1"),
        ("data_type", TensorProto.UNDEFINED, "has no element type"),
    ],
)
@pytest.mark.parametrize("place", ["initializer", "constant"])
def test_tensors_hold_what_they_say(place: str, field: str, value: object, fault: str, tmp_path: Path) -> None:
    proto, tensor = model(NAIVE), damaged(field, value)
    if place == "initializer":
        proto.graph.initializer[0].CopyFrom(tensor)
    else:
        del proto.graph.initializer[:]
        proto.graph.node.insert(0, helper.make_node("Constant", [], ["k"], value=tensor))
    message = refused(proto, tmp_path)
    assert "tensor 'k'" in message or place == "constant"
    assert fault in message


def test_data_in_the_wrong_field_is_refused(tmp_path: Path) -> None:
    proto = model(NAIVE)
    tensor = TensorProto(name="k", data_type=TensorProto.FLOAT, int64_data=[3])
    proto.graph.initializer[0].CopyFrom(tensor)
    assert "tensor 'k' of FLOAT has its data in int64_data" in refused(proto, tmp_path)


@pytest.mark.parametrize("dtype", [d for d in ir.DataType if d not in (ir.DataType.UNDEFINED, ir.DataType.STRING)])
def test_tensors_of_every_type_are_accepted(dtype: ir.DataType) -> None:
    proto = model(NAIVE)
    for count in (0, 1, 5):
        tensor = ir.tensor(np.ones((count,), dtype.numpy()), dtype, name=f"c{count}")
        proto.graph.initializer.append(ir.serde.serialize_tensor(tensor))
    if hasattr(TensorProto, dtype.name) and not dtype.name.startswith("FLOAT6"):
        proto.graph.initializer.append(helper.make_tensor("t", int(dtype), [4], [1, 1, 1, 1]))
    assert open_onnx(proto).view.outputs[0].op == "log"


def test_data_cut_short_is_not_written_on(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    proto = model(NAIVE)
    tensor = proto.graph.initializer[0]
    tensor.CopyFrom(TensorProto(name="k", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL))
    for key, value in (("location", "w.bin"), ("offset", "8"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    (source / "w.bin").write_bytes(bytes(20))
    with pytest.raises(ModelError, match=r"w\.bin is cut short, tensor 'k' ends after it: copy the data again"):
        save(proto, target / "model.onnx", str(source))
    assert list(target.iterdir()) == []


# --- words ----------------------------------------------------------------------------------------------------------


def test_strings_that_are_no_text_pass_through(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An operator of another domain may keep bytes in a string; nothing is said about it."""
    proto = model(NAIVE)
    proto.graph.node.append(helper.make_node("Opaque", ["y"], ["z"], domain="com.example"))
    proto.graph.node[-1].attribute.append(onnx.AttributeProto(name="blob", type=3, s=b"\xff\xfe"))
    proto.graph.output.append(helper.make_tensor_value_info("z", 1, ["n", 6]))
    proto.opset_import.append(helper.make_opsetid("com.example", 1))
    fixed = stabilize.optimize(proto)
    assert isinstance(fixed, onnx.ModelProto)
    assert fixed.graph.node[-1] == proto.graph.node[-1]
    assert capfd.readouterr().err == ""


def test_an_operator_whose_name_is_no_text_is_opaque(tmp_path: Path) -> None:
    proto = model("g (float[n, 6] x) => (float[n, 6] y) {\n e = Exp (x)\n t = Log (e)\n y = Abs (t)\n}")
    damaged = onnx.ModelProto.FromString(proto.SerializeToString().replace(b"Abs", b"A\xff\xfe"))
    fixed = stabilize.optimize(damaged)
    assert isinstance(fixed, onnx.ModelProto)
    assert [str(node.op_type) for node in fixed.graph.node] == [str(damaged.graph.node[-1].op_type)]


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    proto = model(NAIVE)
    proto.graph.node[0].name = "called"
    damaged = onnx.ModelProto.FromString(proto.SerializeToString().replace(b"called", b"cal\xff\xfed"))
    assert "is no UTF-8" in refused(damaged, tmp_path)


def test_metadata_that_is_no_text_is_not_handed_on() -> None:
    """New nodes take the metadata of those that they replace; protobuf takes no bytes for text."""
    proto = model(NAIVE)
    for node in proto.graph.node:
        node.metadata_props.add(key="place", value="here")
        node.metadata_props.add(key="origin", value="there")
    damaged = onnx.ModelProto.FromString(proto.SerializeToString().replace(b"origin", b"ori\xff\xfen"))
    fixed, report = stabilize.optimize(damaged, return_report=True)
    assert isinstance(fixed, onnx.ModelProto)
    assert report.rewrites
    assert {p.key for node in fixed.graph.node for p in node.metadata_props} == {"place"}


@pytest.mark.parametrize(("size", "asked"), [(2**40, False), (6, True)])
def test_a_vector_of_a_million_millions_is_not_taken_for_a_shape(
    size: int, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shape inference would write each of its elements down as an axis: it is not asked."""
    calls: list[object] = []
    infer = onnx.shape_inference.infer_shapes
    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", lambda *a, **k: (calls.append(a), infer(*a, **k))[1])
    nodes = "s = ConstantOfShape (size)\n i = Cast <to: int = 7> (s)\n z = Reshape (x, i)\n e = Exp (x)\n y = Log (e)"
    proto = model(f"g (float[n, 6] x) => (float[n, 6] y, float[] z) <int64[1] size = {{{size}}}> {{\n {nodes}\n}}")
    _, report = stabilize.optimize(proto, return_report=True)
    assert bool(calls) == asked
    assert len(report.rewrites) == 1  # log(exp(x)): the rest of the model is read


def test_a_shape_that_is_no_shape_is_left_alone() -> None:
    proto = model(
        "g (float[2] x) => (float[2] y) <int64[2] c = {1, 2}, float t = {0.5}> {\n r = Reshape (c, t)\n y = Exp (x)\n}"
    )
    assert open_onnx(proto).view.outputs[0].op == "exp"


@pytest.mark.parametrize("shape", [[2**40, 6], [-3, 6], [2**62, 2**62]])
def test_inputs_too_large_to_draw_are_named(shape: list[int]) -> None:
    proto = model(NAIVE)
    for dim, size in zip(proto.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dim.dim_value = size
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    with pytest.raises(stabilize.errors.StabilizeError, match=r"input 'x' of .* pass example inputs|cannot load"):
        stabilize.certify(proto, proto)


def test_an_opset_beyond_any_is_passed_through(tmp_path: Path) -> None:
    proto = model("g (float[3] x) => (float[3] y) { e = Exp(x) y = Mul(e, x) }")
    proto.opset_import[0].version = 2**40
    onnx.save(proto, str(tmp_path / "m.onnx"))
    assert stabilize.optimize(str(tmp_path / "m.onnx")).opset_import[0].version == 2**40

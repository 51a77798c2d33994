"""What shape inference is given: everything that types depend on, and no weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from stabilize.frontends.onnx import open_onnx
from stabilize.frontends.onnx_infer import inferred
from stabilize.frontends.onnx_outline import outline
from tests.towers import onnx_tower

IMPORTS = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]


def value(name: str, shape: list[int | str] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def everywhere() -> onnx.ModelProto:
    """Weights among initializers, in an attribute, a branch and a function; an absent input and an absent output."""
    weight = np.random.default_rng(0).standard_normal((100, 100)).astype(np.float32)

    def constant(name: str) -> onnx.NodeProto:
        return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(weight))

    inner = [constant("c1"), helper.make_node("MatMul", ["a", "c1"], ["d1"])]
    branch = helper.make_graph(inner, "then", [], [value("d1", None)])
    other = helper.make_graph([helper.make_node("Identity", ["a"], ["d2"])], "else", [], [value("d2", None)])
    body = [constant("c2"), helper.make_node("MatMul", ["p", "c2"], ["q"])]
    function = helper.make_function("local", "Layer", ["p"], ["q"], body, IMPORTS[:1])
    nodes = [
        constant("c0"),
        helper.make_node("MatMul", ["x", "c0"], ["m0"]),
        helper.make_node("Clip", ["m0", "", "one"], ["m"]),
        helper.make_node("MaxPool", ["image"], ["pooled", ""], kernel_shape=[2, 2]),
        helper.make_node("MatMul", ["m", "w"], ["a"]),
        helper.make_node("If", ["flag"], ["b"], then_branch=branch, else_branch=other),
        helper.make_node("Layer", ["b"], ["c"], domain="local"),
        helper.make_node("Reshape", ["c", "shape"], ["y"]),
    ]
    weights = [
        numpy_helper.from_array(weight, "w"),
        numpy_helper.from_array(np.asarray(1, np.float32), "one"),
        numpy_helper.from_array(np.array([-1, 50, 2]), "shape"),
    ]
    ends = [value("x", ["n", 100]), value("image", [1, 1, 8, 8])]
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    graph = helper.make_graph(nodes, "g", [*ends, flag], [value("y", None)], weights)
    return helper.make_model(graph, opset_imports=IMPORTS, functions=[function], ir_version=10)


@pytest.mark.parametrize("proto", [everywhere(), onnx_tower(100)], ids=["everywhere", "tower"])
def test_types_are_those_of_the_whole_model(proto: onnx.ModelProto) -> None:
    read = ir.serde.deserialize_model(proto)
    types = inferred(read)
    whole = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    wanted = {info.name: info.type for info in (*whole.graph.value_info, *whole.graph.output)}
    for node in read.graph:
        for output in node.outputs:
            if output.name:
                type, shape = types.stated(output)
                assert type == ir.serde.deserialize_type_proto_for_type(wanted[output.name])
                assert shape == ir.serde.deserialize_type_proto_for_shape(wanted[output.name])


def test_an_outline_holds_no_weights_and_leaves_the_model_alone() -> None:
    proto = everywhere()
    before = proto.SerializeToString()
    written = outline(ir.serde.deserialize_model(proto)).SerializeToString()
    assert len(before) > 4 * 40_000
    assert len(written) < 2000
    assert proto.SerializeToString() == before
    assert np.array([-1, 50, 2]).tobytes() in written  # what may be a shape is there


def test_a_shape_in_another_file_is_at_hand(tmp_path: Path) -> None:
    proto = everywhere()
    onnx.save(proto, str(tmp_path / "m.onnx"), save_as_external_data=True, location="m.bin", size_threshold=0)
    assert open_onnx(str(tmp_path / "m.onnx")).view.bindings["y"].shape[1:] == (50, 2)
    (tmp_path / "m.bin").unlink()
    assert open_onnx(str(tmp_path / "m.onnx")).view.bindings["m"].shape == ("n", 100)


def test_types_of_a_body_are_inferred_where_it_stands() -> None:
    read = ir.serde.deserialize_model(everywhere())
    types = inferred(read)
    (branch,) = (n.attributes["then_branch"].as_graph() for n in read.graph if n.op_type == "If")
    assert [str(types.of(o)) for n in branch for o in n.outputs] == ["float32[100, 100]", "float32[n, 100]"]


def test_weights_that_are_alike_in_most_elements_are_told_apart() -> None:
    """A sample of them is compared first: the first two differ outside it."""
    first = np.arange(20_000, dtype=np.float32)
    second = first.copy()
    second[7] = 0
    weights = [numpy_helper.from_array(a, f"w{i}") for i, a in enumerate((first, second, second, first))]
    nodes = [helper.make_node("Add", [f"h{i}", f"w{i}"], [f"h{i + 1}"]) for i in range(4)]
    graph = helper.make_graph(nodes, "g", [value("h0", [20_000])], [value("h4", [20_000])], weights)
    v = open_onnx(helper.make_model(graph, opset_imports=IMPORTS[:1], ir_version=10)).view
    w = [v.bindings[f"w{i}"] for i in range(4)]
    assert w[0] is w[3]
    assert w[1] is w[2]
    assert w[0] is not w[1]

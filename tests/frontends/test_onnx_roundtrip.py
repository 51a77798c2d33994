"""The node tests of the onnx package, read and written again: the view means what the model means.

Every model that the reader expresses without an opaque value is executed from its view by torch and compared with the
stored outputs (the reader's rows), then spelled anew from the view alone, run in ONNX Runtime and compared with torch
(the emitter's rows). Every model at all must come back byte for byte when nothing is replaced.
"""

from __future__ import annotations

import warnings
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented

from stabilize.errors import ModelError
from stabilize.frontends.onnx import OLDEST_OPSET, OnnxHost, open_onnx
from stabilize.frontends.onnx_emit import ROWS
from stabilize.frontends.onnx_emitter import Emitter, Names, Place, Ref
from stabilize.frontends.onnx_types import DATA_TYPES, host_shape, to_torch
from stabilize.graph.value import Value, cone
from stabilize.verify.execute import execute
from tests.frontends.onnx_support import run

#: ONNX Runtime's newest opset; node tests of a newer one are written for this one.
NEWEST_RUN = 25

#: torch.gather takes no negative index.
NEGATIVE_INDEX = {"test_gather_negative_indices", "test_gather_elements_negative_indices"}


@cache
def cases() -> dict[str, Any]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # overflows that the cases of Cast make on purpose
        return {c.name: c for c in collect_testcases(None)}


def opened(case: Any) -> OnnxHost | None:
    """The host of a node test; None for the few that are older than what is read."""
    old = any(o.domain == "" and o.version < OLDEST_OPSET for o in case.model.opset_import)
    return None if old else open_onnx(case.model)


def leaves(host: OnnxHost, case: Any) -> dict[Value, torch.Tensor] | None:
    """The tensors behind the leaves of the view; None when the view or the data is outside the vocabulary."""
    values = cone(host.view.outputs)
    if any(v.op == "opaque" or v.dtype == "other" for v in values):
        return None
    given = dict(zip((i.name for i in case.model.graph.input), case.data_sets[0][0], strict=True))
    found: dict[Value, torch.Tensor] = {}
    for value in values:
        if value.op == "input":
            data = given.get(str(value.attr("name")))
            if isinstance(data, onnx.TensorProto):
                data = onnx.numpy_helper.to_array(data)
            tensor = host.tensor(value) if data is None else to_torch(np.asarray(data))
            assert tensor is not None, value
            found[value] = tensor
    return found


def respelled(host: OnnxHost, values: dict[Value, torch.Tensor]) -> onnx.ModelProto:
    """A new model with the outputs of the view, nothing of the old one reused."""
    inputs = {
        v: ir.Value(name=f"in_{i}", type=ir.TensorType(DATA_TYPES[v.dtype]), shape=host_shape(v.shape))
        for i, v in enumerate(values)
    }
    sizes = {d: (h, i) for v, h in inputs.items() for i, d in enumerate(v.shape) if isinstance(d, str)}
    opset = min(host.opset, NEWEST_RUN)
    emitter = Emitter(
        host.view.builder,
        opset,
        Names(h.name or "" for h in inputs.values()),
        ROWS,
        Place("p", {}, inputs.get, sizes.get),
    )
    outputs: list[ir.Value] = []
    for value in host.view.outputs:
        made = emitter.value(value)
        if made.host.producer() is None or made.host in outputs:
            made = emitter.op("Identity", Ref(made.host, value.type), type=value.type)
        outputs.append(made.host)
    graph = ir.Graph(
        list(inputs.values()),
        outputs,
        nodes=emitter.nodes,
        initializers=emitter.initializers,
        opset_imports={"": opset},
        name="respelled",
    )
    proto = ir.serde.serialize_model(ir.Model(graph, ir_version=10))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def close(got: np.ndarray, want: np.ndarray, case: Any, half: bool) -> None:
    assert got.shape == want.shape
    rtol, atol = (2e-2, 1e-2) if half else (max(case.rtol, 1e-4), max(case.atol, 1e-6))
    np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), rtol=rtol, atol=atol)


def test_every_model_comes_back_byte_for_byte() -> None:
    for name, case in cases().items():
        host = opened(case)
        if host is not None:
            assert host.patched([]).model().SerializeToString() == case.model.SerializeToString(), name  # type: ignore[union-attr]


def test_onnx_ir_models_come_back_as_they_were() -> None:
    for name, case in list(cases().items())[::7]:
        read = ir.serde.deserialize_model(case.model)
        before = ir.serde.serialize_model(read).SerializeToString(deterministic=True)
        try:
            host = open_onnx(read)
        except ModelError:
            continue
        same = host.patched([]).model()
        assert isinstance(same, ir.Model)
        assert ir.serde.serialize_model(same).SerializeToString(deterministic=True) == before, name
        assert ir.serde.serialize_model(read).SerializeToString(deterministic=True) == before, name


def test_views_and_their_spelling_compute_the_stored_outputs() -> None:
    count: Counter[str] = Counter()
    for name, case in cases().items():
        host = opened(case)
        data = None if host is None else leaves(host, case)
        if host is None or data is None or name in NEGATIVE_INDEX:
            count["not expressible"] += 1
            continue
        results = execute(host.view.outputs, data)
        halves = [v.dtype in ("float16", "bfloat16") for v in host.view.outputs]
        for result, output, half in zip(results, case.data_sets[0][1], halves, strict=True):
            stored = onnx.numpy_helper.to_array(output) if isinstance(output, onnx.TensorProto) else np.asarray(output)
            close(result.to(torch.float64).numpy(), stored, case, half)
        count["read"] += 1
        if any(v.dtype == "bfloat16" for v in (*data, *host.view.outputs)):
            continue  # ONNX Runtime has no such kernels on CPU
        try:
            written = run(respelled(host, data), {f"in_{i}": t.numpy() for i, t in enumerate(data.values())})
        except NotImplemented:  # integer types that ONNX Runtime leaves out of arithmetic
            count["no kernel"] += 1
            continue
        for got, result, half in zip(written, results, halves, strict=True):
            close(np.asarray(got), result.to(torch.float64).numpy(), case, half)
        count["written"] += 1
    assert count["read"] > 540
    assert count["written"] > 520
    assert count["no kernel"] < 10


@pytest.mark.parametrize(
    "name", ["test_attention_4d_causal_expanded", "test_layer_normalization_2d_axis1_expanded_ver18"]
)
def test_decompositions_of_the_standard_are_read(name: str) -> None:
    case = cases()[name]
    host = opened(case)
    assert host is not None
    assert not any(v.op == "opaque" for v in cone(host.view.outputs))

"""Help for the tests of conversions."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

import stabilize
from stabilize.conversion.narrow import MARK
from tests.frontends.onnx_support import model

HALF, WIDE = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT


def converted(given: onnx.ModelProto | str, to: str = "fp16", **keywords: Any) -> tuple[onnx.ModelProto, Any]:
    """The converted model and the report: valid, its argument untouched, and converted again it is the same bytes."""
    proto = model(given) if isinstance(given, str) else given
    before = proto.SerializeToString()
    found, report = stabilize.convert(proto, to, return_report=True, **keywords)
    assert proto.SerializeToString() == before
    onnx.checker.check_model(found, full_check=True)
    onnx.shape_inference.infer_shapes(found, strict_mode=True)
    mark = {e.key: e.value for e in found.metadata_props}.get(MARK)
    assert mark == ({"fp16": "float16", "bf16": "bfloat16"}[to] if report.narrowed else None)
    assert stabilize.convert(found, to, **keywords).SerializeToString() == found.SerializeToString()
    return found, report


def formats(proto: onnx.ModelProto) -> dict[str, int]:
    """Element type of every value of the main graph."""
    inferred = onnx.shape_inference.infer_shapes(proto)
    graph = inferred.graph
    types = {i.name: i.type.tensor_type.elem_type for i in (*graph.input, *graph.value_info, *graph.output)}
    return types | {t.name: t.data_type for t in graph.initializer}


def kept(report: Any) -> dict[str, str]:
    """Operator → why it stays float32, for a report in which each is kept once."""
    return {k.op_type: k.reason for k in report.kept}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)

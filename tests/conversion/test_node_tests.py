"""The ONNX standard's own node tests, a slice of them: converted, they are valid and accurate, or refused in words."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest

import stabilize
from stabilize.errors import StabilizeError

_PARTS = 24


@cache
def cases() -> list[Any]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [c for c in collect_testcases(None) if c.model is not None and "training_dropout" not in c.name]
    return [
        c for c in found if any(i.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for i in c.model.graph.input)
    ]


def is_valid(model: onnx.ModelProto) -> bool:
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError:
        return False
    return True


@pytest.mark.parametrize("part", range(6))
def test_a_slice(part: int) -> None:
    narrowed = 0
    for case in cases()[part::_PARTS]:
        names = [i.name for i in case.model.graph.input]
        data = dict(zip(names, (np.asarray(a) for a in case.data_sets[0][0]), strict=False))
        try:
            found, report = stabilize.convert(
                case.model, "fp16", input_data=data, keep_io_types=part % 2 == 0, return_report=True
            )
        except StabilizeError:
            continue  # sequences, strings, 4-bit numbers, NaN, old operator sets
        assert is_valid(found) or not is_valid(case.model), case.name
        assert report.certificate is not None
        assert report.certificate.accepted, (case.name, report.certificate.reason)
        narrowed += bool(report.narrowed)
    assert narrowed > 0

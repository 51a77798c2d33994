"""The ONNX standard's own node tests: every operator, and the standard's decompositions of the functions among them."""

from __future__ import annotations

import warnings
from functools import cache

import onnx

from lint_clean.entry import Healthy

#: Families that the standard decomposes naively, and how. A finding there is right.
NAIVE = {
    "test_softplus": "log(exp(x) + 1)",
    "test_elu": "exp(x) − 1",
    "test_layer_normalization": "E[x²] − E[x]²",
    "test_group_normalization": "E[x²] − E[x]²",
    "test_mvn": "E[x²] − E[x]²",
}


@cache
def _models() -> dict[str, onnx.ModelProto]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {c.name: c.model for c in collect_testcases(None) if isinstance(c.model, onnx.ModelProto)}


def naive(name: str) -> str | None:
    """What is naive in the decomposition of that name."""
    return next((how for family, how in NAIVE.items() if name.startswith(family) and "expanded" in name), None)


def entries() -> list[Healthy]:
    """All that are not naive, of opset 11 or newer: older ones are not read."""
    return [
        Healthy(name, "ONNX node tests", lambda name=name: (_models()[name], None))
        for name, model in _models().items()
        if naive(name) is None and _opset(model) >= 11
    ]


def _opset(model: onnx.ModelProto) -> int:
    """Of the standard's own operators."""
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=99)

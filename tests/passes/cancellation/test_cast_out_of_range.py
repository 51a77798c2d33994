"""Casts of floats whose bounds are known to pass those of the integer type."""

from __future__ import annotations

import math

import pytest

from stabilize.passes.rule import Options
from stabilize.verify.certificate import certify_rewrite
from tests.passes.graphs import Outcome, brief

#: (expression, bounds of its inputs)
REPORTED = [
    ("cast(mul(sigmoid(x), 255.0), dtype='int8')", {}),
    ("cast(mul(tanh(x), 128.0), dtype='int8')", {}),
    ("cast(mul(softmax(h, axis=1), 256.0), dtype='uint8')", {}),
    ("cast(x, dtype='uint8')", {"x": (0, 300)}),
    ("cast(mul(sin(x), 3000000000.0), dtype='int32')", {}),
    ("cast(mul(sigmoid(E), 255.0), dtype='int8')", {}),
    ("cast(x, dtype='int8')", {"x": (-129, 127)}),
    ("cast(x, dtype='int8')", {"x": (-128, 128)}),
    ("cast(x, dtype='int16')", {"x": (0, 32768)}),
    ("cast(D, dtype='int64')", {"D": (0, 1e19)}),
]

#: Casts of what may be anything, of what fits, and of integers.
SILENT = [
    ("cast(x, dtype='int8')", {}),
    ("cast(x, dtype='int8')", {"x": (-128.9, 127.9)}),
    ("cast(x, dtype='int8')", {"x": (-math.inf, 127)}),
    ("cast(x, dtype='int8')", {"x": (-128, math.inf)}),
    ("cast(arange(size=300, dtype='int64'), dtype='int8')", {}),
    ("cast(exp(x), dtype='int64')", {}),
    ("cast(floor(mul(sigmoid(x), 255.0)), dtype='uint8')", {}),
    ("cast(mul(tanh(x), 127.0), dtype='int8')", {}),
    ("cast(mul(sigmoid(x), 255.5), dtype='uint8')", {}),
    ("cast(minimum(maximum(x, 0.0), 255.0), dtype='uint8')", {}),
    ("cast(mul(sigmoid(x), 255.0), dtype='float16')", {}),
    ("cast(y, dtype='int8')", {}),
    ("cast(gt(x, 0.0), dtype='int8')", {}),
    ("cast(x, dtype='int32')", {"x": (-1000000, 1000000)}),
]


@pytest.mark.parametrize(("body", "ranges"), REPORTED)
def test_reported(body, ranges):
    outcome = Outcome(body, Options(), ranges)
    assert outcome.codes == ["STB521"]
    (proposal,) = outcome.proposed
    assert proposal.old is outcome.view.outputs[0]
    assert proposal.candidates == ()
    assert proposal.safety == "approximate"
    assert "clamped" in proposal.message


@pytest.mark.parametrize(("body", "ranges"), SILENT)
def test_silent(body, ranges):
    assert Outcome(body, Options(), ranges).codes == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            "cast(mul(sigmoid(x), 255.0), dtype='int8')",
            "cast(minimum(maximum(mul(sigmoid(x), 255.0), -128.0), 127.0), dtype='int8')",
        ),
        (  # the largest float32 below 2³¹
            "cast(mul(sin(x), 3000000000.0), dtype='int32')",
            "cast(minimum(maximum(mul(sin(x), 3000000000.0), -2147483648.0), 2147483520.0), dtype='int32')",
        ),
        (  # float64 holds it exactly
            "cast(mul(sin(D), 3000000000.0), dtype='int32')",
            "cast(minimum(maximum(mul(sin(D), 3000000000.0), -2147483648.0), 2147483647.0), dtype='int32')",
        ),
        (  # and float16 none beyond 2047 odd, nor 32767
            "cast(mul(sin(h), 60000.0), dtype='int16')",
            "cast(minimum(maximum(mul(sin(h), 60000.0), -32768.0), 32752.0), dtype='int16')",
        ),
    ],
)
def test_clamped_when_the_user_allows_it(body, expected):
    outcome = Outcome(body, Options(allow="approximate"))
    ((old, new),) = outcome.replaced.items()
    assert brief(new) == expected
    (proposal,) = outcome.proposed
    assert proposal.safety == "approximate"
    assert proposal.message.startswith("the number is between ")
    assert "clamped" not in proposal.message
    certificate = certify_rewrite(old, new, approximate=True)
    assert certificate.accepted, certificate.reason


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
def test_products_of_small_integers_wrap_around(dtype):
    body = f"matmul(cast(x, dtype='{dtype}'), cast(transpose(z, perm=(1, 0)), dtype='{dtype}'))"
    outcome = Outcome(body, Options())
    (proposal,) = outcome.proposed
    assert (proposal.rule.code, proposal.candidates, proposal.safety) == ("STB522", (), "model-changing")
    assert proposal.old is outcome.view.outputs[0]
    assert proposal.message == f"the sum of products wraps around in {dtype}"


@pytest.mark.parametrize("dtype", ["int32", "int64", "float16"])
def test_products_of_other_numbers_do_not(dtype):
    body = f"matmul(cast(x, dtype='{dtype}'), cast(transpose(z, perm=(1, 0)), dtype='{dtype}'))"
    assert "STB522" not in Outcome(body, Options()).codes

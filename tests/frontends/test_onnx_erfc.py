"""erfc, erfcx and log Φ in standard operators: accurate in both tails, exact at the special values, read back."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest

from stabilize.frontends.onnx import open_onnx
from stabilize.frontends.onnx_types import numpy_dtype
from stabilize.graph.value import TensorType
from tests.frontends.onnx_support import program, run

FLOATS = ("float16", "float32", "float64")
INF, NAN = math.inf, math.nan


def _erfcx(x: mpmath.mpf) -> mpmath.mpf:
    return mpmath.exp(x * x) * mpmath.erfc(x)


def _log_ndtr(x: mpmath.mpf) -> mpmath.mpf:
    return mpmath.log(mpmath.erfc(-x / mpmath.sqrt(2)) / 2)


TRUTH: dict[str, Callable[[mpmath.mpf], mpmath.mpf]] = {"erfc": mpmath.erfc, "erfcx": _erfcx, "log_ndtr": _log_ndtr}

#: Where the result is a normal number of float32 (float16 has its own ends).
REACH = {"erfc": (-6.0, 9.0), "erfcx": (-9.0, 60.0), "log_ndtr": (-60.0, 12.0)}
REACH_HALF = {"erfc": (-3.0, 2.7), "erfcx": (-3.2, 60.0), "log_ndtr": (-60.0, 3.8)}

#: Largest error in ulps.
ULPS = {"float16": 0.51, "float32": 6.0, "float64": 8.0}


def _run(op: str, x: np.ndarray, dtype: str) -> np.ndarray:
    return np.asarray(run(program(lambda b, v: b.make(op, v), {"x": TensorType(dtype, x.shape)}, 18), {"x": x})[0])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", TRUTH)
def test_accurate_over_the_whole_range(op: str, dtype: str) -> None:
    low, high = (REACH_HALF if dtype == "float16" else REACH)[op]
    rng = np.random.default_rng(3)
    x = np.concatenate([rng.uniform(low, high, 300), rng.uniform(-3, min(3, high), 200), rng.normal(size=100) * 1e-4])
    x = x.astype(numpy_dtype(dtype))
    y = _run(op, x, dtype)
    with mpmath.workdps(80):
        truth = [TRUTH[op](mpmath.mpf(float(t))) for t in x]
        ulp = np.spacing(np.abs(np.asarray([float(t) for t in truth])).astype(x.dtype)).astype(np.float64)
        errors = [abs(float((mpmath.mpf(float(b)) - t) / mpmath.mpf(s))) for b, t, s in zip(y, truth, ulp, strict=True)]
    worst = int(np.argmax(errors))
    assert errors[worst] <= ULPS[dtype], f"{op}({x[worst]}) = {y[worst]}, not {float(truth[worst])}: {errors[worst]}"


SPECIAL = {
    "erfc": {-INF: 2.0, INF: 0.0, NAN: NAN, 0.0: 1.0, -1000.0: 2.0, 1000.0: 0.0},
    "erfcx": {-INF: INF, INF: 0.0, NAN: NAN, 0.0: 1.0, -1000.0: INF},
    "log_ndtr": {-INF: -INF, INF: 0.0, NAN: NAN, 1000.0: 0.0},
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", SPECIAL)
def test_special_values(op: str, dtype: str) -> None:
    x = np.asarray(list(SPECIAL[op])).astype(numpy_dtype(dtype))
    want = np.asarray(list(SPECIAL[op].values()))
    np.testing.assert_allclose(_run(op, x, dtype).astype(np.float64), want, rtol=1e-3 if dtype == "float16" else 3e-7)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", TRUTH)
def test_read_back(op: str, dtype: str) -> None:
    model = program(lambda b, v: b.make(op, v), {"x": TensorType(dtype, (3,))}, 18)
    (output,) = open_onnx(model).view.outputs
    assert op in {output.op, *(o.op for o in output.operands)}  # a cast around it in half precision

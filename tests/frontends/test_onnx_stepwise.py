"""Models in float64, node by node: right where a runtime as a whole refuses, or is wrong."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from stabilize.errors import ModelError
from stabilize.frontends.onnx_run import OnnxRunner
from stabilize.frontends.onnx_stepwise import Stepwise
from tests.frontends.onnx_random import Maker
from tests.frontends.onnx_support import model


def test_a_model_that_no_runtime_takes_whole() -> None:
    # ONNX Runtime has no float64 for Conv, the reference gathers wrongly from more than 64 rows
    text = """g (float[1, 3, 8, 8] x, int64[1, 24] i) => (float[1, 24] y) <float[4, 3, 3, 3] w, float[1, 200] t> {
      a = Conv (x, w)
      b = ReduceMean <keepdims = 0> (a)
      c = GatherElements <axis = 1> (t, i)
      y = Mul (b, c)
    }"""
    proto = model(text, 13)
    generator = np.random.default_rng(0)
    arrays = {n: generator.normal(size=s).astype(np.float32) for n, s in (("w", (4, 3, 3, 3)), ("t", (1, 200)))}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in arrays.items())
    x, i = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(0, 192, 8)[None]
    (y,) = OnnxRunner(proto, "m").run_wide({"x": x, "i": i})
    w, t = (torch.as_tensor(a).double() for a in arrays.values())
    wanted = torch.nn.functional.conv2d(x.double(), w).mean() * t.gather(1, i)
    assert y.dtype == torch.float64
    torch.testing.assert_close(y, wanted, rtol=1e-12, atol=0)


def test_a_kernel_that_refuses_when_it_runs() -> None:
    text = "g (float[5, 2, 3] x) => (float[5, 1, 2, 4] y) <float[1, 12, 3] w, float[1, 12, 4] r> { y = GRU <hidden_size = 4> (x, w, r) }"  # noqa: E501
    proto = model(text)
    generator = np.random.default_rng(0)
    arrays = {n: generator.normal(size=s).astype(np.float32) for n, s in (("w", (1, 12, 3)), ("r", (1, 12, 4)))}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in arrays.items())
    runner, x = OnnxRunner(proto, "m"), torch.randn(5, 2, 3)
    (narrow,), (wide,) = runner.run({"x": x}), runner.run_wide({"x": x})
    assert wide.dtype == torch.float64
    torch.testing.assert_close(narrow.double(), wide, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_branches_loops_and_functions(seed: int) -> None:
    proto = Maker(seed).model()
    generator = np.random.default_rng(seed)
    feeds = {
        "x": generator.normal(size=(3, 4)).astype(np.float32),
        "z": generator.normal(size=(3, 4)).astype(np.float32),
        "c": np.asarray(True),
    }
    names = [o.name for o in proto.graph.output]
    found = Stepwise(proto, "m").run(names, feeds)
    whole = OnnxRunner(proto, "m").run({n: torch.as_tensor(a) for n, a in feeds.items()})
    for a, b in zip(found, whole, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-5, atol=1e-6)


def test_a_node_that_nothing_runs_is_named() -> None:
    proto = model("g (float[2] x) => (float[2] y) { a = Relu (x) y = test.Unknown (a) }")
    with pytest.raises(ModelError, match="Unknown"):
        Stepwise(proto, "m").run(["y"], {"x": np.ones(2, np.float32)})

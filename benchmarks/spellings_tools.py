"""The tools that benchmarks/spellings.py compares: each turns a spelling into something that runs on torch tensors."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import shutil
from abc import ABC, abstractmethod
from typing import final

import onnx
import torch

import stabilize
from tests.panel import hosts
from tests.panel.entry import Spelling
from tests.panel.measure import Run


class NotApplicableError(Exception):
    """The tool has no such format, or cannot express the spelling: it is left out of its total."""


class Tool(ABC):
    """A way to run a spelling. `gradients`: the backward pass is judged too. `slow`: only on demand."""

    name: str
    host: str = "fx"
    gradients: bool = False
    slow: bool = False

    def missing(self) -> str | None:
        """Why the tool cannot run here, or None."""
        return None

    @abstractmethod
    def prepare(self, entry: Spelling, dtype: str) -> Run:
        """The spelling in `dtype` as this tool leaves it."""


@final
class Eager(Tool):
    name = "PyTorch eager (the naive form)"
    gradients = True

    def prepare(self, entry: Spelling, dtype: str) -> Run:
        return entry.fn


@final
class Inductor(Tool):
    name = "torch.compile (inductor)"
    gradients = True
    slow = True

    def missing(self) -> str | None:
        return None if shutil.which("g++") else "needs g++"

    def prepare(self, entry: Spelling, dtype: str) -> Run:
        torch._dynamo.reset()
        return torch.compile(hosts.Spelled(entry).eval(), dynamic=False)


@final
class StabilizeTorch(Tool):
    name = "stabilize (PyTorch)"
    gradients = True

    def prepare(self, entry: Spelling, dtype: str) -> Run:
        allow = "exact" if entry.exact else "approximate"
        return stabilize.optimize(hosts.Spelled(entry).eval(), hosts.example(entry, dtype), allow=allow)


class OnnxTool(Tool):
    """A tool that rewrites an ONNX graph; ONNX Runtime at full optimisation runs what it leaves
    (the reference evaluator in bfloat16, for which the CPU runtime has no kernels)."""

    host = "onnx"

    def prepare(self, entry: Spelling, dtype: str) -> Run:
        return hosts.runner(self.rewrite(hosts.retargeted(hosts.exported(entry), dtype), entry), dtype)

    def rewrite(self, model: onnx.ModelProto, entry: Spelling) -> onnx.ModelProto:
        """What the tool makes of `model`."""
        del entry
        return model


@final
class OnnxRuntime(OnnxTool):
    name = "ONNX Runtime (all optimisations)"

    def prepare(self, entry: Spelling, dtype: str) -> Run:
        if dtype == "bfloat16":
            raise NotApplicableError("no bfloat16 kernels on a CPU")
        return super().prepare(entry, dtype)


@final
class OnnxSim(OnnxTool):
    name = "onnxsim"

    def missing(self) -> str | None:
        return _not_installed("onnxsim")

    def rewrite(self, model: onnx.ModelProto, entry: Spelling) -> onnx.ModelProto:
        simplified, _ = importlib.import_module("onnxsim").simplify(model)
        return simplified


@final
class OnnxScript(OnnxTool):
    name = "onnxscript optimizer"

    def missing(self) -> str | None:
        return _not_installed("onnxscript")

    def rewrite(self, model: onnx.ModelProto, entry: Spelling) -> onnx.ModelProto:
        optimized = importlib.import_module("onnxscript.optimizer").optimize(model)
        return importlib.import_module("onnxscript.rewriter").rewrite(optimized)


@final
class StabilizeOnnx(OnnxTool):
    name = "stabilize (ONNX)"

    def rewrite(self, model: onnx.ModelProto, entry: Spelling) -> onnx.ModelProto:
        return stabilize.optimize(model, allow="exact" if entry.exact else "approximate")


@final
class PyTensor(Tool):
    name = "PyTensor (fast_run)"

    def missing(self) -> str | None:
        return _not_installed("pytensor")

    def prepare(self, entry: Spelling, dtype: str) -> Run:
        if dtype == "bfloat16":
            raise NotApplicableError("no bfloat16")
        peer = importlib.import_module("pytensor_peer")
        try:
            return peer.compiled(hosts.Spelled(entry).eval(), hosts.example(entry, dtype))
        except peer.InexpressibleError as error:
            raise NotApplicableError(str(error)) from error


TOOLS: tuple[Tool, ...] = (
    Eager(),
    Inductor(),
    OnnxRuntime(),
    OnnxSim(),
    OnnxScript(),
    PyTensor(),
    StabilizeTorch(),
    StabilizeOnnx(),
)


def _not_installed(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        return f"not installed ({error}); pip install -r benchmarks/requirements.txt"
    return None


@functools.cache
def versions() -> dict[str, str]:
    """Versions of what was compared, as far as installed."""
    found = {}
    for name in ("torch", "onnx", "onnxruntime", "onnxscript", "onnxsim", "pytensor"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found

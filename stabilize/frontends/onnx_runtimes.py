"""What ONNX runtimes compute: operators that a runtime computes badly in some format, so that others are emitted.

Measured by `benchmarks/runtime_accuracy.py` with ONNX Runtime 1.31 and OpenVINO 2026.4 on x86-64 CPUs: docs/runtimes.md
has it all, and a test compares the two. An operator is here where its results are off by more than 16 ulp (1 in half
precision), lost, infinite or NaN, or where it has no kernel, and what the emitter writes instead is better by more than
chance.

TensorRT and TVM were not measured: for them, and where a runtime does not compute in a format (OpenVINO takes float64
and computes in float32; ONNX Runtime multiplies no bfloat16 on CPUs), the portable choice holds: what every runtime
that was measured computes well, in bfloat16 the reference implementation of the onnx package, too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, final

from stabilize.errors import UsageError

Table: TypeAlias = Mapping[str, Collection[str]]
"""Operator → the formats in which it is not to be used."""

_BFLOAT16: Final = ("bfloat16",)
_FLOAT64: Final = ("float64",)
#: Formats that CPU runtimes have few kernels for.
_RARE: Final = ("bfloat16", "float64")
_ALL: Final = ("float16", "bfloat16", "float32", "float64")

#: Wherever it runs.
_ANYWHERE: Final[Table] = {
    "Cosh": _FLOAT64,
    "CumSum": _BFLOAT16,
    "LeakyRelu": _FLOAT64,
    "LogSoftmax": _RARE,
    "Mean": _FLOAT64,
    "ReduceL2": ("bfloat16", "float32", "float64"),
    "SoftmaxCrossEntropyLoss": _RARE,
}

_ONNXRUNTIME: Final[Table] = {
    **_ANYWHERE,
    "Mish": ("float16", "bfloat16", "float64"),
    "ReduceLogSumExp": _ALL,
    "Sigmoid": ("float16", "float32", "float64"),
    "Softmax": _BFLOAT16,
    "Softplus": ("float16", "bfloat16", "float64"),
    "Swish": _ALL,
}

_OPENVINO: Final[Table] = {
    **_ANYWHERE,
    "Mish": _ALL,
    "ReduceLogSumExp": _RARE,
    "Sigmoid": _FLOAT64,
    "Softplus": _ALL,
    "Swish": _FLOAT64,
}

_PORTABLE: Final[Table] = {**_ONNXRUNTIME, "Mish": _ALL, "Softplus": _ALL}

#: Runtime → what it does not compute well. The names are what `optimize` takes.
UNSTABLE: Final[Mapping[str, Table]] = {
    "portable": _PORTABLE,
    "onnxruntime": _ONNXRUNTIME,
    "openvino": _OPENVINO,
    "tensorrt": _PORTABLE,
    "tvm": _PORTABLE,
}

#: Runtimes whose operators were measured by themselves.
MEASURED: Final = ("onnxruntime", "openvino")


@final
@dataclass(frozen=True, slots=True)
class Runtime:
    """What a model will run in.

    name: a key of `UNSTABLE`. fast: operators that are taken as they are, however the runtime computes them.
    avoided: operators, each in one format, that are not used besides those of the table.
    """

    name: str = "portable"
    fast: frozenset[str] = frozenset()
    avoided: frozenset[tuple[str, str]] = frozenset()

    def __post_init__(self) -> None:
        if self.name not in UNSTABLE:
            raise UsageError(f"runtime {self.name!r} is not one of {', '.join(UNSTABLE)}")

    @property
    def is_measured(self) -> bool:
        """Whether the table says what this runtime computes, rather than what every measured one computes well."""
        return self.name in MEASURED

    def computes(self, op_type: str, dtype: str) -> bool:
        """Whether the operator of the default domain is computed stably on tensors of `dtype`."""
        if op_type in self.fast:
            return True
        return dtype not in UNSTABLE[self.name].get(op_type, ()) and (op_type, dtype) not in self.avoided


PORTABLE: Final = Runtime()

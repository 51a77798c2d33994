"""What ONNX runtimes compute: operators that a runtime computes badly in some format, so that others are emitted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, final

from stabilize.errors import UsageError

_HALVES: Final = ("float16", "bfloat16")
_ALL: Final = (*_HALVES, "float32", "float64")

#: Operator → the formats in which it is not computed stably by every runtime that was measured.
_PORTABLE: Final[Mapping[str, Collection[str]]] = {
    "Sigmoid": _ALL,
    "ReduceLogSumExp": _ALL,
    "Softplus": (*_HALVES, "float64"),
    "LogSoftmax": ("bfloat16",),
    "LayerNormalization": ("bfloat16",),
    "RMSNormalization": ("bfloat16",),
    **dict.fromkeys(("Asin", "Acos", "Atan", "Sinh", "Asinh", "Acosh", "Atanh", "ReduceL2"), _HALVES),
}

UNSTABLE: Final[Mapping[str, Mapping[str, Collection[str]]]] = dict.fromkeys(
    ("portable", "onnxruntime", "openvino", "tensorrt", "tvm"), _PORTABLE
)

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

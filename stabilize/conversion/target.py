"""The formats that a model can be narrowed to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np
import onnx

from stabilize.errors import UsageError
from stabilize.formats import BFLOAT16, FLOAT16, Format
from stabilize.frontends.onnx_types import numpy_dtype


@final
@dataclass(frozen=True, slots=True)
class Target:
    """A half-precision format. data_type: ONNX's number of it; oldest_opset: the first whose operators take it."""

    format: Format
    data_type: int
    oldest_opset: int

    @property
    def name(self) -> str:
        return self.format.name

    @property
    def numpy(self) -> np.dtype:
        return numpy_dtype(self.name)

    @property
    def tolerance(self) -> float:
        """How far off an output may be by default, relative to its largest entry: 32 unit roundoffs."""
        return 32 * self.format.u


_FLOAT16: Final = Target(FLOAT16, onnx.TensorProto.FLOAT16, 11)
_BFLOAT16: Final = Target(BFLOAT16, onnx.TensorProto.BFLOAT16, 13)

TARGETS: Final = {"fp16": _FLOAT16, "bf16": _BFLOAT16, "float16": _FLOAT16, "bfloat16": _BFLOAT16}


def target_of(to: object) -> Target:
    """The format of this name; UsageError for a name that is none."""
    if not isinstance(to, str) or to not in TARGETS:
        raise UsageError(f"to is {to!r}: give one of {', '.join(TARGETS)}")
    return TARGETS[to]

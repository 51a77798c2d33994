"""One operator in one format: the truth, what runtimes make of it, and the errors of that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
import torch
from runtime_cases import WIDTH, Case
from runtime_runners import Setting, Unsupported

from stabilize.formats import FORMATS, Format
from stabilize.verify.compare import errors_of
from stabilize.verify.oracle import evaluate

#: Results this close to the least normal number are counted with the subnormal ones: kernels scale by powers of two.
_MARGIN = 4.0
#: A format whose subnormal numbers are normal in the one that it is computed in: they count like others.
_INSIDE = "float16"

#: Numbers whose truth is computed together: precision is raised for all of them at once.
CHUNK = 1024


@dataclass(frozen=True)
class Result:
    """What a runtime makes of an operator in a format.

    worst: largest error in ulps, of normal results of normal numbers; at: the input. subnormal: of the others.
    non_finite: how often NaN or an infinity stands where the exact result is a number of the format; missing: how often
    a number stands where it is NaN or an infinity; lost: how often 0 stands for a normal number. falls: the largest
    step, in ulps, against the direction in which the function goes; None where that was not looked at.
    unsupported: why it was not run. composed: what the emitter writes where it may not use the operator.
    """

    op: str
    dtype: str
    setting: str
    composed: bool = False
    points: int = 0
    worst: float = 0.0
    at: str = ""
    subnormal: float = 0.0
    non_finite: int = 0
    non_finite_at: str = ""
    missing: int = 0
    missing_at: str = ""
    lost: int = 0
    lost_at: str = ""
    falls: float | None = None
    falls_at: str = ""
    unsupported: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Without what is as it is by default."""
        empty = Result("", "", "")
        return {k: v for k, v in asdict(self).items() if k in ("op", "dtype", "setting") or v != getattr(empty, k)}


@dataclass(frozen=True)
class Problem:
    """A case in one format with its inputs, the exact results, and what errors are relative to where that is larger."""

    case: Case
    dtype: str
    families: list[str]
    tensors: list[torch.Tensor]
    exact: Any
    scale: Any

    @classmethod
    def of(cls, case: Case, dtype: str, points: int) -> Problem:
        families, tensors = case.inputs(dtype, points)
        exact, scale = [], []
        count, step = len(tensors[0]), CHUNK // WIDTH if families else CHUNK
        for start in range(0, count, step):
            chunk = [t[start : start + step] if len(t) == count else t for t in tensors]
            _, leaves, roots = case.values(chunk)
            results = evaluate(roots, dict(zip(leaves, chunk, strict=True)))
            exact.append(results[0])
            if len(results) > 1:
                scale.append(np.vectorize(_number, otypes=[float])(results[1]))
        return cls(case, dtype, families, tensors, np.concatenate(exact), np.concatenate(scale) if scale else None)

    def judged(self, setting: Setting) -> list[Result]:
        """The operator and what may be written instead, run and compared."""
        models = (
            self.case.model(self.tensors, setting.opset),
            self.case.composed(self.tensors, setting.runtime or "portable", setting.opset),
        )
        return [self._judged(setting, model, composed) for composed, model in enumerate(models) if model is not None]

    def _judged(self, setting: Setting, model: onnx.ModelProto, composed: int) -> Result:
        head = (self.case.name, self.dtype, setting.name, bool(composed))
        try:
            computed = setting.run(model, self.tensors)
        except Unsupported as error:
            return Result(*head, unsupported=str(error))
        wanted = getattr(torch, self.dtype)
        computed = computed.to(wanted) if computed.dtype != wanted else computed
        if tuple(computed.shape) != self.exact.shape:
            return Result(*head, unsupported=f"the shape is {tuple(computed.shape)}, not {self.exact.shape}")
        return Result(*head, **self._compared(computed))

    def _compared(self, computed: torch.Tensor) -> dict[str, Any]:
        fmt = FORMATS[self.dtype]
        errors = errors_of(computed, self.exact)
        truth = np.vectorize(_number, otypes=[float])(self.exact)
        numbers = computed.double().numpy()
        ulps = errors.ulps if self.scale is None else _against(errors.absolute, truth, self.scale, fmt)
        plain = self._plain(fmt)
        least = fmt.tiny if self.dtype == _INSIDE else _MARGIN * fmt.min_normal
        normal = plain & ((np.abs(truth) >= least) | (truth == 0)) & errors.known
        confused, finite = np.isinf(ulps), np.isfinite(ulps) & errors.known
        found: dict[str, Any] = {"points": int(errors.known.sum())}
        found["worst"], found["at"] = self._worst(np.where(normal & finite, ulps, -1.0))
        others = ulps[(finite | (confused & np.isfinite(truth))) & ~normal]
        found["subnormal"] = float(np.max(others, initial=0.0))
        marks = {
            "non_finite": confused & normal & np.isfinite(truth) & ~np.isfinite(numbers),
            "missing": confused & plain & ~np.isfinite(truth),
            "lost": (numbers == 0) & normal & (truth != 0) & np.isfinite(truth) & (ulps > 1),
        }
        for name, where in marks.items():
            found[name], found[f"{name}_at"] = self._count(where)
        found["falls"], found["falls_at"] = self._falls(numbers, truth, fmt)
        return found

    def _plain(self, fmt: Format) -> Any:
        """Where no operand is subnormal."""
        found = np.ones(self.exact.shape, dtype=bool)
        for tensor in self.tensors:
            if not tensor.is_floating_point() or len(tensor) != len(self.exact):
                continue
            if self.dtype == _INSIDE:
                break
            size = tensor.double().abs().numpy()
            plain = (size == 0) | ~(size < fmt.min_normal)
            found &= plain if plain.shape == found.shape else plain.all(-1, keepdims=plain.ndim == found.ndim)
        return found

    def _worst(self, ulps: Any) -> tuple[float, str]:
        if not ulps.size or ulps.max() < 0:
            return 0.0, ""
        return float(ulps.max()), self._told(int(np.argmax(ulps)))

    def _count(self, where: Any) -> tuple[int, str]:
        count = int(where.sum())
        return count, self._told(int(np.argmax(where))) if count else ""

    def _told(self, flat: int) -> str:
        """The input of a result: its numbers, or the family of its row."""
        row = int(np.unravel_index(flat, self.exact.shape)[0])
        if self.families:
            return self.families[row]
        return ", ".join(f"{float(t[row]):.9g}" for t in self.tensors)

    def _falls(self, numbers: Any, truth: Any, fmt: Format) -> tuple[float | None, str]:
        """The largest step against the direction of the truth between neighbours of the sweep, in ulps."""
        if self.case.kind != "unary":
            return None, ""
        with np.errstate(all="ignore"):
            step, true = np.diff(numbers), np.diff(truth)
            against = np.where((step * np.sign(true) < 0) & np.isfinite(step), np.abs(step), 0.0)
            spacing = np.array([fmt.spacing(n) for n in np.maximum(np.abs(truth[1:]), np.abs(truth[:-1]))])
            against = np.where(np.isfinite(spacing), against / spacing, 0.0)
        worst = int(np.argmax(against))
        return float(against[worst]), self._told(worst) if against[worst] else ""


def _number(x: Any) -> float:
    try:
        return float(x)
    except OverflowError:
        return math.inf if x > 0 else -math.inf


def _against(absolute: Any, truth: Any, scale: Any, fmt: Format) -> Any:
    """Absolute errors in ulps of the larger of the result and what it is made of; confusions stay infinite."""
    size = np.maximum(np.abs(truth), np.where(np.isfinite(scale), scale, 0.0))
    spacing = np.vectorize(fmt.spacing, otypes=[float])(np.where(np.isfinite(size), size, 0.0))
    with np.errstate(over="ignore"):
        return np.where(np.isfinite(absolute), absolute / spacing, absolute)


def measured(cases: Sequence[Case], dtypes: Sequence[str], settings: Sequence[Setting], points: int) -> list[Result]:
    """Every case in every format by every setting; the truth is computed once."""
    results: list[Result] = []
    for case in cases:
        for dtype in dtypes:
            problem = Problem.of(case, dtype, points)
            for setting in settings:
                results += problem.judged(setting)
    return results

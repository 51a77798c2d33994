"""How accurate exported operators are: `python benchmarks/export_accuracy.py [--full] [--ops NAME ...]`.

Every float operator that `torch.onnx.export` translates (`export_ops.py`), in each format, on numbers of the whole
format and on awkward rows (`export_inputs.py`): PyTorch eager, the file that `torch.onnx.export` writes by default, and
the one that `stabilize.export_onnx` writes, both in ONNX Runtime on the CPU. Errors are in ulps of the exact result, or
of the largest term where terms cancel. Counted besides: results that are not finite where the exact one is a number
of the format, and those that are 0 where it is a normal one.

The truth is the operator itself, PyTorch's in float64 for float16 and float32; in float64, and where float64 is not
exact enough, arbitrary precision, if the formula can be read (else nothing is judged, and that is said).
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import torch
from export_inputs import inputs
from export_ops import OPS, Op
from torch import Tensor, nn

import stabilize
from stabilize.frontends.fx import open_exported
from stabilize.graph.host import input_values
from stabilize.graph.value import cone
from stabilize.verify.oracle import evaluate

FORMATS = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64}
#: What is worse than this many times PyTorch's error, and this many ulps, is worse than PyTorch.
TIMES, ULPS = 4.0, 16.0
#: Results below the smallest normal number are counted in steps of the smallest subnormal one: this many are allowed.
STEPS = 4096.0
COUNTS = {False: 60, True: 400}


class Called(nn.Module):
    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        self.call = call

    def forward(self, *args: Tensor) -> Any:
        return self.call(*args)


@dataclass
class Side:
    """worst: largest finite error, in ulps. infinite: results that are not finite where the exact one is a number of
    the format. vanished: that are 0 where it is a normal one. failed: why there are no results."""

    worst: float = 0.0
    infinite: int = 0
    vanished: int = 0
    failed: str = ""

    def worse(self, eager: Side) -> bool:
        if self.failed or eager.failed:
            return False
        further = self.worst > max(TIMES * eager.worst, ULPS)
        return self.infinite > eager.infinite or self.vanished > eager.vanished or further

    def text(self) -> str:
        if self.failed:
            return self.failed
        parts = [f"{self.worst:.3g}"]
        parts += [f"{self.infinite} not finite"] if self.infinite else []
        parts += [f"{self.vanished} vanished"] if self.vanished else []
        return ", ".join(parts)


@dataclass
class Row:
    op: str
    dtype: str
    eager: Side
    default: Side
    ours: Side


def truth(op: Op, args: Sequence[Tensor]) -> np.ndarray:
    """The exact results, as near as float64 or longer numbers hold them; NaN where nothing is known."""
    exact = cast(Tensor, op.call(*(a.double() for a in args)))
    if args[0].dtype != torch.float64 and op.name.partition("+")[0] not in _PRECISE:
        return exact.numpy()
    try:
        host = open_exported(torch.export.export(Called(op.call), tuple(args)))
        (root,) = host.view.outputs
        if any(v.op == "opaque" for v in cone([root])):
            raise ValueError("opaque")
        named = input_values(host)
        found = evaluate([root], dict(zip(named.values(), args, strict=True)), max_bits=2**13)[0]
        return np.array([float(v) for v in found.flat]).reshape(found.shape)
    except Exception:  # what the vocabulary does not hold is judged by float64, or not at all
        return exact.numpy() if args[0].dtype != torch.float64 else np.full(exact.shape, np.nan)


#: Formulas that lose digits in float64 as well.
_PRECISE = {
    "special_ndtr",
    "tanhshrink",
    "logaddexp",
    "logaddexp2",
    "special_log_ndtr",
    "softplus",
    "mish",
    "special_erfcx",
}


def judged(result: Tensor | None, exact: np.ndarray, op: Op, args: Sequence[Tensor]) -> Side:
    if result is None:
        return Side(failed="not run")
    if result.dtype != args[0].dtype or tuple(result.shape) != exact.shape:
        return Side(failed=f"returns {str(result.dtype)[6:]}{list(result.shape)}")
    info = torch.finfo(args[0].dtype)
    sizes = (
        np.abs(exact) if op.terms is None else np.maximum(op.terms(*(a.double() for a in args)).numpy(), np.abs(exact))
    )
    got = result.double().numpy()
    odd = np.zeros(exact.shape, bool)  # a NaN that goes in may come out
    for a in args:
        if a.shape == exact.shape:
            odd |= np.isnan(a.double().numpy())
    known = np.isfinite(exact) & (np.abs(exact) <= info.max) & ~odd & np.isfinite(sizes)
    with np.errstate(all="ignore"):
        normal = np.maximum(sizes, info.smallest_normal)
        spacing = np.ldexp(1.0, np.frexp(normal)[1] - 1) * info.eps
        errors = np.abs(got - exact) / spacing
        errors = np.where(sizes < info.smallest_normal * 2, np.maximum(errors - STEPS, 0.0), errors)
        beyond = known & (np.abs(exact) > info.max * (1 - info.eps))
    infinite = known & ~beyond & ~np.isfinite(got)
    vanished = known & (got == 0) & (np.abs(exact) >= info.smallest_normal * 2) & (sizes == np.abs(exact))
    errors = np.where(known & np.isfinite(got) & ~beyond, errors, 0.0)
    return Side(float(errors.max(initial=0.0)), int(infinite.sum()), int(vanished.sum()))


def run_onnx(program: Any, args: Sequence[Tensor]) -> Tensor:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), options, ["CPUExecutionProvider"])
    feeds = {i.name: a.numpy() for i, a in zip(session.get_inputs(), args, strict=True)}
    return torch.as_tensor(session.run(None, feeds)[0])


def attempt(make: Callable[[], Any], args: Sequence[Tensor], exact: np.ndarray, op: Op) -> Side:
    try:
        program = make()
    except Exception:  # of torch.onnx.export, whatever an operator without translation raises
        return Side(failed="no export")
    try:
        result = run_onnx(program, args)
    except Exception:  # ONNX Runtime has no kernel: its errors have types of their own
        return Side(failed="no kernel")
    return judged(result, exact, op, args)


def row(op: Op, name: str, count: int) -> Row:
    dtype = FORMATS[name]
    args = inputs(op.kind, dtype, count)
    model = Called(op.call).eval()
    with torch.no_grad():
        exact = truth(op, args)
        try:
            eager = judged(cast(Tensor, op.call(*args)), exact, op, args)
        except (RuntimeError, NotImplementedError):
            eager = Side(failed="not in PyTorch")
    default = attempt(lambda: torch.onnx.export(model, args, dynamo=True, verbose=False), args, exact, op)
    ours = attempt(lambda: stabilize.export_onnx(model, args, certify=False), args, exact, op)
    return Row(op.name, name, eager, default, ours)


def table(rows: Sequence[Row]) -> Iterator[str]:
    yield "| operator | format | PyTorch | torch.onnx.export | export_onnx |"
    yield "|---|---|---:|---:|---:|"
    for r in rows:
        if r.default.worse(r.eager) or r.ours.worse(r.eager) or r.default.failed or r.ours.failed:
            yield f"| {r.op} | {r.dtype} | {r.eager.text()} | {r.default.text()} | {r.ours.text()} |"


def counts(rows: Sequence[Row]) -> Iterator[str]:
    heads = ("worse than PyTorch", "not finite", "vanished", "not run")
    yield f"| format | operators | {' | '.join(f'{h}: torch.onnx.export | export_onnx' for h in heads)} |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for name in FORMATS:
        of = [r for r in rows if r.dtype == name]
        cells: list[object] = [name, len(of)]
        for count in (
            lambda s, e: s.worse(e),
            lambda s, _: s.infinite,
            lambda s, _: s.vanished,
            lambda s, _: bool(s.failed),
        ):
            cells += [sum(count(r.default, r.eager) for r in of), sum(count(r.ours, r.eager) for r in of)]
        yield f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="400 numbers a sweep in place of 60")
    parser.add_argument("--ops", nargs="*", help="names of operators (default: all)")
    parser.add_argument("--formats", nargs="*", choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument("--json", type=Path, help="write all rows there")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    onnxruntime.set_default_logger_severity(4)
    torch.set_num_threads(1)
    ops = [op for op in OPS if not asked.ops or op.name in asked.ops or op.name.partition("+")[0] in asked.ops]
    rows = [row(op, name, COUNTS[asked.full]) for name in asked.formats for op in ops]
    print("\n".join([*counts(rows), "", *table(rows)]))
    if asked.json:
        asked.json.write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()

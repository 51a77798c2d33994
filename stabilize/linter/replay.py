"""A small input that breaks an expression, at the sizes of the model, replayed in the model's own runtime."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import torch

from stabilize.errors import ShapeError, StabilizeError, UsageError
from stabilize.frontends.random_inputs import draw
from stabilize.graph.value import cone
from stabilize.linter.proof import Suspect
from stabilize.linter.witness import Witness
from stabilize.verify.certificate import undisturbed
from stabilize.verify.execute import torch_dtype

#: Elements of the largest value of an expression that is replayed at full size.
_MOST_ELEMENTS: Final = 1 << 24


#: What is said of an outcome that was not ONNX Runtime's.
_ROUNDING: Final = " (in onnx.reference: ONNX Runtime's kernels for CPUs compute float16 in float32)"


def replayed(suspect: Suspect) -> Witness | None:
    """What the runtime gives for the expression; None when that is right, or the expression cannot be run by itself."""
    try:
        with undisturbed():
            given = full_size(suspect)
            piece = suspect.run(list(given), [suspect.target]).piece
            given |= {name: _drawn(suspect, name, i) for i, name in enumerate(piece.inputs) if name not in given}
            outcome = suspect.outcome(given)
    except (StabilizeError, ShapeError):
        return None
    if outcome is not None:
        return Witness(given, "expression", outcome.text + (_ROUNDING if suspect.rounding else ""), outcome.kind, piece)
    narrow = any(v.dtype == "float16" for v in cone([suspect.found.proposal.old], suspect.leaves))
    if suspect.host.kind == "onnx" and narrow and not suspect.rounding:
        return replayed(replace(suspect, rounding=True))
    return None


def full_size(suspect: Suspect) -> dict[str, torch.Tensor]:
    """The leaves at full size: the small tensors, repeated."""
    values = cone([suspect.found.proposal.old], suspect.leaves)
    if max(math.prod(max(d, 1) for d in suspect.shape(v)) for v in values) > _MOST_ELEMENTS:
        raise UsageError("the expression is too large to be replayed")
    return {
        name: _repeated(small, suspect.shape(leaf))
        for name, leaf, small in zip(suspect.names, suspect.leaves, suspect.breakage.tensors, strict=True)
        if leaf not in suspect.data
    }


def _drawn(suspect: Suspect, name: str, position: int) -> torch.Tensor:
    """For an input of the model whose shape, but not whose numbers, the expression depends on."""
    value = suspect.host.view.bindings[name]
    return draw(torch.empty(suspect.shape(value), dtype=torch_dtype(value.dtype), device="meta"), position)


def _repeated(small: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """`small`, repeated (and cut off) along every axis."""
    for axis, size in enumerate(shape):
        if small.shape[axis] != size:
            if not small.shape[axis]:
                raise UsageError("an axis of size 0 cannot be repeated")
            small = small.index_select(axis, torch.arange(size) % small.shape[axis])
    return small

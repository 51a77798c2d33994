"""Elements of a replacement that may differ from the truth at inputs that are infinite or NaN.

Each excuse is checked by running the original on changed inputs, and only for elements that need one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np
import torch

from stabilize.formats import FORMATS, is_float
from stabilize.graph.value import Value, cone
from stabilize.verify.compare import AnyArray, Bools, Floats
from stabilize.verify.execute import execute
from stabilize.verify.inputs import Family
from stabilize.verify.judge import at_limit, is_nan
from stabilize.verify.running import Scales
from stabilize.verify.shrink import Problem
from stabilize.verify.truth import ArbTruth, Truth

Tensors = Mapping[Value, torch.Tensor]

#: Operators that PyTorch computes as NaN at infinite operands, by their definition as (1 − y)·x + softplus(−x).
_UNDEFINED_AT_INFINITY: Final = frozenset({"bce_with_logits"})
_ENTRIES: Final = 40
_TWO_NUMBERS: Final = (1.0, 2.5)
_FAR: Final = 1000.0


def excused_values(
    problem: Problem, family: Family, before: torch.Tensor, after: torch.Tensor, truth: Truth, n: int
) -> Bools:
    """Elements of `after` that are right, or not to be blamed, though neither the truth nor the original says so."""
    tensors = family.tensors
    excused: Bools = np.zeros(tuple(after.shape), dtype=bool)
    if not is_float(problem.old.dtype) or all(bool(torch.isfinite(t).all()) for t in tensors.values()):
        return excused
    before, after = before.detach(), after.detach()
    if bool((torch.isnan(after) & ~torch.isnan(before)).any()) and n > 1:
        if family.poisoned:
            excused |= _array(torch.isnan(after)) & _depends_on(problem, tensors, torch.isinf)
        excused |= _array(torch.isnan(after)) & _contaminated(problem, tensors, before)
    undefined = any(v.op in _UNDEFINED_AT_INFINITY for v in cone([problem.new]))
    if undefined and not bool(torch.isfinite(after).all()):
        excused |= _array(~torch.isfinite(after)) & _depends_on(problem, tensors, torch.isinf)
    singular = is_nan(truth.values) & _array(torch.isnan(before) & ~torch.isnan(after))
    undefined_near = _array(torch.isnan(after) & ~torch.isnan(before)) & ~excused
    if singular.any() or undefined_near.any():
        limits = (_approached(problem, tensors, 1), _approached(problem, tensors, 2))
        excused |= singular & at_limit(after, (_doubles(limits[0]), _doubles(limits[1])), n)
        excused |= undefined_near & is_nan(limits[0]) & is_nan(limits[1])
    return excused


def excused_gradient(problem: Problem, tensors: Tensors, leaf: Value, lost: Bools, truth: Truth) -> Bools:
    """Entries of `leaf` among `lost` that no finite element of the result depends on."""
    finite = np.array([math.isfinite(float(x)) for x in truth.values.flat], dtype=bool).reshape(truth.values.shape)
    excused: Bools = np.zeros(lost.shape, dtype=bool)
    for index in list(zip(*np.nonzero(lost), strict=True))[:_ENTRIES] if lost.ndim else [()]:
        reached = _reached(problem, tensors, leaf, tuple(int(i) for i in index))
        excused[index] = not bool((reached & finite).any())
    return excused


def _array(mask: torch.Tensor) -> Bools:
    return np.asarray(mask.numpy(), dtype=bool)


def _floats(tensors: Tensors) -> Iterator[tuple[Value, torch.Tensor]]:
    return ((leaf, t) for leaf, t in tensors.items() if t.is_floating_point())


def _depends_on(problem: Problem, tensors: Tensors, special: Callable[[torch.Tensor], torch.Tensor]) -> Bools:
    """Elements of the original that depend on a special input."""

    def filled(number: float) -> Tensors:
        return {**tensors, **{leaf: t.masked_fill(special(t), number) for leaf, t in _floats(tensors)}}

    return _follows(problem, filled)


def _follows(problem: Problem, filled: Callable[[float], Tensors]) -> Bools:
    """Elements of the original that are NaN when some inputs are, or differ between two numbers in their place.

    The second shows what a comparison hides: NaN > 0 is false, and where(x > 0, eˣ, 0) is 0.
    """
    lost, one, other = (execute([problem.old], filled(x))[0] for x in (math.nan, *_TWO_NUMBERS))
    return _array(torch.isnan(lost) | (one != other))


def _reached(problem: Problem, tensors: Tensors, leaf: Value, index: tuple[int, ...]) -> Bools:
    """Elements of the original that depend on one entry: on calm inputs, those that a NaN in its place turns NaN."""
    generator = torch.Generator().manual_seed(0)
    calm = dict(tensors)
    for each, tensor in _floats(tensors):
        calm[each] = (0.5 + 0.1 * torch.rand(tensor.shape, generator=generator)).to(tensor.dtype)
    kept = execute([problem.old], calm)[0]
    calm[leaf][index] = math.nan
    moved = execute([problem.old], calm)[0]
    # what is NaN even there may depend on it
    return _array(torch.isnan(moved) | torch.isnan(kept))


def _contaminated(problem: Problem, tensors: Tensors, before: torch.Tensor) -> Bools:
    """Elements that share an infinite input with one that the original gives as NaN (the row of a naive softmax)."""
    lost = _array(torch.isnan(before))
    result: Bools = np.zeros(lost.shape, dtype=bool)
    if not lost.any():
        return result
    for leaf, tensor in _floats(tensors):
        for position in torch.nonzero(torch.isinf(tensor))[:_ENTRIES]:
            index = tuple(int(i) for i in position)

            def filled(number: float, leaf: Value = leaf, index: tuple[int, ...] = index) -> Tensors:
                finite = {k: t.masked_fill(torch.isinf(t), 0.0) for k, t in _floats(tensors)}
                finite[leaf][index] = number
                return {**tensors, **finite}

            reached = _follows(problem, filled)
            if (reached & lost).any():
                result |= reached
    return result


def _doubles(exact: AnyArray) -> Floats:
    return np.array([float(x) for x in exact.flat], dtype=np.float64).reshape(exact.shape)


def _approached(problem: Problem, tensors: Tensors, draw: int) -> AnyArray:
    """The truth where inputs of ±inf are large numbers, and inputs of NaN any numbers, drawn anew each time."""
    generator = torch.Generator().manual_seed(draw)
    changed = dict(tensors)
    for leaf, tensor in _floats(tensors):
        if bool(torch.isfinite(tensor).all()):
            continue
        unit = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
        large = torch.sign(tensor.double()) * max(_FAR, 2.0 * Scales.of(FORMATS[leaf.dtype]).reach) * (1.0 + 0.5 * unit)
        stand_in = torch.where(torch.isnan(tensor), unit, large)
        changed[leaf] = torch.where(torch.isfinite(tensor), tensor.double(), stand_in)
    return ArbTruth(problem, changed).values

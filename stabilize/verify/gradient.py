"""Exact gradients of a formula: central differences carried far below the resolution of any float.

With step h = 2⁻ᵏ and a working precision of several k bits, the truncation error of a central difference is about
h² and its cancellation costs k bits of a precision that has many more. The two one-sided slopes are compared:
where they disagree at every step the function has a kink (or a scale below 2⁻ᵏ), and the entry is not judged.

The work is bounded: an entry that only the highest precision settles costs a hundred times the others, and where the
first of them have used up `_MOST_WORK` there (exponentials of exponentials of exponentials), the rest is not judged.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Final, cast, final

import flint
import numpy as np
import torch
from flint import arb

from stabilize.graph.ops import BROADCASTING
from stabilize.graph.value import Value, cone
from stabilize.verify.execute import symbol_sizes
from stabilize.verify.oracle import ORACLE, array_of, interpret, is_tight, is_tower
from stabilize.verify.oracle_rules import Context, OracleArray
from stabilize.verify.reals import UNKNOWN, ZERO, Reals, Scalar, UndecidedError, is_known

#: (k of the step 2⁻ᵏ, working precision, whether a ball on a decision point may be snapped to it)
_LADDER: Final = ((100, 512, False), (320, 1536, False), (1300, 10000, True))
_GOOD_BITS: Final = 60
_SMALL: Final = 2.0**-250
_SLOPE_TOLERANCE: Final = 2.0**-30
#: Elements times bits that one call of `gradient` computes with at one rung: a fraction of a second.
_MOST_WORK: Final = 2**23

_OTHER: Final = np.frompyfunc(operator.is_not, 2, 1)


def gradient(
    root: Value,
    leaves: Mapping[Value, torch.Tensor],
    wrt: Sequence[Value],
    cotangent: torch.Tensor,
    *,
    floor: int = -1200,
    positions: Sequence[Sequence[int]] | None = None,
) -> list[OracleArray]:
    """The gradient of Σ cotangent·root with respect to each leaf of `wrt`; `reals.UNKNOWN` is "not judged".

    Sub-values under `detach` are held at their value at the base point. An entry is not judged where the leaf is
    not finite, where the function is not differentiable, or where it is not finite on both sides. Elements of
    `root` that are not finite at the base point are left out of the sum.

    floor: as in `oracle.evaluate`.
    positions: for each leaf, the flat positions of the entries to judge; None for all.
    """
    rungs = [_Rung(root, leaves, cotangent, *rung, floor) for rung in _LADDER]
    chosen = [range(leaves[leaf].numel()) for leaf in wrt] if positions is None else positions
    return [_leaf_gradient(rungs, leaf, leaves[leaf], each) for leaf, each in zip(wrt, chosen, strict=True)]


def _leaf_gradient(rungs: Sequence[_Rung], leaf: Value, data: torch.Tensor, positions: Sequence[int]) -> OracleArray:
    result: OracleArray = np.full(tuple(data.shape), UNKNOWN, dtype=object)
    finite = [bool(x) for x in torch.isfinite(data).flatten().numpy()]
    for position in positions:
        if not finite[position]:
            continue
        index = np.unravel_index(position, result.shape) if result.ndim else ()
        small = 0.0 < abs(float(data.double().flatten()[position])) < _SMALL
        result[index] = _climb(rungs, leaf, tuple(int(i) for i in index), small)
    return result


def _climb(rungs: Sequence[_Rung], leaf: Value, index: tuple[int, ...], small: bool) -> arb:
    """The partial derivative from the first step that settles it."""
    for position, rung in enumerate(rungs):
        try:
            return rung.slope(leaf, index)
        except _SpentError:
            break
        except _KinkError:
            # a kink at steps of 2⁻¹⁰⁰ may be a curve on a smaller scale; at 2⁻³²⁰, only beside a number as small
            if position > 0 and not small:
                return UNKNOWN
        except UndecidedError:
            if rung.tower:
                break  # no precision helps
    return UNKNOWN


@final
class _KinkError(ArithmeticError):
    """The function is not smooth on the scale of the step."""


@final
class _SpentError(ArithmeticError):
    """No more work is to be done at this precision."""


@final
class _Rung:
    """One step size and precision, with what was computed at the base point."""

    def __init__(
        self,
        root: Value,
        leaves: Mapping[Value, torch.Tensor],
        cotangent: torch.Tensor,
        k: int,
        bits: int,
        snap: bool,
        floor: int,
    ) -> None:
        self.root, self.leaves = root, leaves
        self.k, self.bits, self.floor = k, bits, floor
        sizes = symbol_sizes({leaf: tuple(tensor.shape) for leaf, tensor in leaves.items()})
        self.context = Context(Reals(snap=snap), sizes)
        self.cotangent = array_of(cotangent)
        self.base: dict[int, OracleArray] | None = None
        self.dependents: dict[Value, list[Value]] = {}
        self.undecided = self.tower = False
        self.work = 0

    def slope(self, leaf: Value, index: tuple[int, ...]) -> arb:
        """The partial derivative. UndecidedError asks for more precision, `_KinkError` for a smaller step, and
        `_SpentError` for neither."""
        if self.work > _MOST_WORK:
            raise _SpentError
        with flint.ctx.workprec(self.bits), np.errstate(all="ignore"):
            return self._slope(leaf, index)

    def _slope(self, leaf: Value, index: tuple[int, ...]) -> arb:
        if self.base is None:
            self.base = self._at_base_point()
        h = arb(2) ** -self.k
        after, before = self._difference(leaf, index, h), self._difference(leaf, index, -h)
        slope, right, left = (after - before) / (2 * h), after / h, -before / h
        edge = arb(2) ** self.floor
        if not is_tight(slope, _GOOD_BITS, edge):
            raise UndecidedError
        if abs(right - left) <= _SLOPE_TOLERANCE * abs(slope) or (abs(right) < edge and abs(left) < edge):
            return slope
        raise _KinkError

    def _at_base_point(self) -> dict[int, OracleArray]:
        """Every value at the base point. UndecidedError, from then on at no cost, where this precision does not bound
        the result: it bounds no difference of it either."""
        if self.undecided:
            raise UndecidedError
        self.undecided = True
        base = {each.index: array_of(tensor) for each, tensor in self.leaves.items()}
        try:
            (result,) = interpret([self.root], base, self.context, self.leaves)
            if not all(is_known(cast("Scalar", y)) for y in result.flat):
                raise UndecidedError
        except UndecidedError:
            self.tower = is_tower([self.root], self.leaves, base, _LADDER[-1][1])
            raise
        self.undecided = False
        return base

    def _difference(self, leaf: Value, index: tuple[int, ...], h: arb) -> arb:
        """Σ cotangent·(root(x + h) − root(x)); a kink where it is not finite."""
        assert self.base is not None
        moved = self.base[leaf.index].copy()
        moved[index] = moved[index] + h
        arrays = {leaf.index: moved}
        for value in self._dependents(leaf):
            arrays[value.index] = self._again(value, arrays)
        total = ZERO
        changed, start = arrays.get(self.root.index), self.base[self.root.index]
        if changed is None:
            return total
        rows = cast(
            "list[tuple[object, object, object]]", list(zip(self.cotangent.flat, changed.flat, start.flat, strict=True))
        )
        for c, y, y0 in rows:
            if not isinstance(y0, arb):
                continue
            if not isinstance(y, arb):
                raise _KinkError
            total += cast(arb, c) * (y - y0)
        return total

    def _again(self, value: Value, arrays: Mapping[int, OracleArray]) -> OracleArray:
        """`value` after `arrays` changed; an element by element operation only where an operand did."""
        assert self.base is not None
        operands = [arrays.get(o.index, self.base[o.index]) for o in value.operands]
        if value.op not in BROADCASTING:
            result = ORACLE[value.op](self.context, value, operands)
            self.work += result.size * self.bits
            return result
        result = self.base[value.index].copy()
        changed = np.zeros(result.shape, dtype=bool)
        for operand, new in zip(value.operands, operands, strict=True):
            if operand.index in arrays:
                changed |= np.asarray(_OTHER(new, self.base[operand.index]), dtype=bool)
        full = [new if new.shape == result.shape else np.broadcast_to(new, result.shape) for new in operands]
        result[changed] = ORACLE[value.op](self.context, value, [new[changed] for new in full])
        self.work += int(changed.sum()) * self.bits
        return result

    def _dependents(self, leaf: Value) -> list[Value]:
        """Values that change with `leaf`; what lies behind a `detach` does not."""
        if leaf in self.dependents:
            return self.dependents[leaf]
        moving = {leaf.index}
        result: list[Value] = []
        for value in cone([self.root], self.leaves):
            if value in self.leaves or value.op == "detach":
                continue
            if any(o.index in moving for o in value.operands):
                moving.add(value.index)
                result.append(value)
        self.dependents[leaf] = result
        return result

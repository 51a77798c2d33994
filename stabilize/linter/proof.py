"""A defect whose expression breaks on small shapes, and whether the model's own runtime breaks on given inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import TypeAlias, cast, final

import torch

from stabilize.errors import ModelError, UsageError
from stabilize.formats import FORMATS
from stabilize.frontends.onnx_run import OnnxRunner
from stabilize.graph.host import Host, Piece
from stabilize.graph.value import Dim, Value, latest_first
from stabilize.linter.analysis import Found
from stabilize.verify.breakage import HALF, MOST_OPERATIONS, SHARE, Breakage, Kind, is_overflow, search, without_dust
from stabilize.verify.execute import execute, torch_dtype
from stabilize.verify.shrink import rebuild
from stabilize.verify.slice import cut

Named: TypeAlias = Mapping[str, torch.Tensor]
"""Tensors by the names of host values."""


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """What is wrong, in words."""

    text: str
    kind: Kind


@final
@dataclass(frozen=True)
class Suspect:
    """A defect whose expression breaks.

    leaves: what its expression is computed from, all of them values of the host. new: what is proposed instead, where
    that is computed from them too. data: of those that stay as they are.
    rounding: whether it is run where every result is rounded to its type, rather than in the usual runtime.
    """

    found: Found
    leaves: tuple[Value, ...]
    new: Value | None
    data: Mapping[Value, torch.Tensor]
    breakage: Breakage
    rounding: bool = False

    @staticmethod
    def of(found: Found, seed: int) -> Suspect | None:
        """None when no input is found on which it breaks.

        The expression is cut where what is proposed instead stands on it, first at values that do not feed each other;
        failing that, where it is smallest; failing that, at what the model is given: a defect may need numbers that its
        immediate operands take together only.
        """
        names, old, new = found.graph.host.view.names(), found.proposal.old, found.replacement
        if old not in names:
            return None
        cuts = [
            (cut(old, new or old, names), new),
            (cut(old, new or old, names, independent=False), new),
            (cut(old, old, names), None),
        ]
        if len(list(islice(latest_first(old), MOST_OPERATIONS))) < MOST_OPERATIONS:
            cuts.append((cut(old, new or old, ()), new))
        for leaves, instead in dict(cuts).items():
            if all(leaf in names for leaf in leaves):
                suspect = Suspect._cut(found, leaves, instead, seed)
                if suspect is not None:
                    return suspect
        return None

    @staticmethod
    def _cut(found: Found, leaves: tuple[Value, ...], new: Value | None, seed: int) -> Suspect | None:
        graph, rule = found.graph, found.proposal.rule
        # of parameters that train nothing is known, but a witness is one of the model as it is
        data = {leaf: t.detach() for leaf in leaves if (t := graph.host.tensor(leaf)) is not None}

        def bounds(leaf: Value) -> tuple[float, float]:
            r = graph.ctx.ranges.of(leaf)
            return r.lo, r.hi

        gradients = graph.host.kind == "fx"
        breakage = search(
            found.proposal.old, new, leaves, bounds, data, seed=seed, gradients=gradients, poles=rule.poles
        )
        return None if breakage is None else Suspect(found, leaves, new, data, breakage)

    @property
    def host(self) -> Host:
        return self.found.graph.host

    @cached_property
    def names(self) -> list[str]:
        """Of the leaves in the host."""
        names = self.host.view.names()
        return [names[leaf][0] for leaf in self.leaves]

    @cached_property
    def target(self) -> str:
        """The host value that breaks."""
        return self.host.view.names()[self.found.proposal.old][0]

    @cached_property
    def sizes(self) -> dict[Dim, int]:
        """A size for every symbol: what it was when the host was made, else that of the small tensors."""
        found: dict[Dim, int] = {}
        found.update(self.host.sizes)
        for leaf, small in zip(self.leaves, self.breakage.tensors, strict=True):
            found.update((d, n) for d, n in _symbols(leaf, small) if d not in found)
        return found

    def shape(self, value: Value) -> tuple[int, ...]:
        """Of a value of the host; UsageError when a size is not known."""
        if any(isinstance(d, str) and d not in self.sizes for d in value.shape):
            raise UsageError(f"the size of {value.shape} is not known")
        return tuple(d if isinstance(d, int) else self.sizes[d] for d in value.shape)

    # --- running ----------------------------------------------------------------------------------------------

    @cached_property
    def _runs(self) -> dict[tuple[tuple[str, ...], tuple[str, ...]], Run]:
        return {}

    @cached_property
    def _weights(self) -> dict[str, torch.Tensor]:
        """Leaves whose data the host holds."""
        held = ((name, self.host.tensor(leaf)) for name, leaf in zip(self.names, self.leaves, strict=True))
        return {name: tensor for name, tensor in held if tensor is not None}

    def run(self, given: Sequence[str], wanted: Sequence[str]) -> Run:
        """What computes host values from others."""
        key = tuple(given), tuple(wanted)
        if key not in self._runs:
            self._runs[key] = Run(self.host.piece(given, wanted), self.rounding)
        return self._runs[key]

    def outcome(self, given: Named) -> Outcome | None:
        """What the runtime computes wrongly from these host values; None when it is right, or wrong before.

        StabilizeError when it cannot be run.
        """
        of_gradient = self.breakage.first.gradient is not None
        if of_gradient:
            given = {n: t.detach().clone().requires_grad_(t.is_floating_point()) for n, t in given.items()}
        try:
            values = self.values(given)
        except ModelError as error:
            if not is_overflow(error):
                raise
            return Outcome(f"{self.target} fails: {error.__cause__}", "lost")
        leaves = {leaf: values[name] for name, leaf in zip(self.names, self.leaves, strict=True)}
        if not all(bool(torch.isfinite(t).all()) for t in leaves.values()):
            return None
        if of_gradient:
            return self._gradient(values)
        found = self._value(values[self.target].detach(), {leaf: t.detach() for leaf, t in leaves.items()})
        if found is None or found.kind == "off" or self.breakage.first.kind == "lost":
            return found
        return found if self._is_lost_without_dust(given) else replace(found, kind="off")

    def _is_lost_without_dust(self, given: Named) -> bool:
        """Whether it is not only numbers that are nearly 0 that break it."""
        clean = {n: without_dust(t) if t.is_floating_point() else t for n, t in given.items()}
        values = self.values(clean)
        leaves = {leaf: values[name].detach() for name, leaf in zip(self.names, self.leaves, strict=True)}
        found = self._value(values[self.target].detach(), leaves)
        return found is not None and found.kind == "lost"

    def values(self, given: Named) -> dict[str, torch.Tensor]:
        """The leaves and the value that breaks, by name, computed from `given`."""
        known = {**self._weights, **given}
        wanted = [*(name for name in self.names if name not in known), self.target]
        return {**known, **dict(zip(wanted, self.run(list(given), wanted)(given), strict=True))}

    def _value(self, result: torch.Tensor, leaves: Mapping[Value, torch.Tensor]) -> Outcome | None:
        if result.dtype != torch_dtype(self.found.proposal.old.dtype):
            return None
        right = None if self.found.proposal.rule.poles else self._right(leaves)
        wrong = _wrong(result, right, proposed=self.new is not None)
        if not bool(wrong.any()):
            return None
        lost = wrong & _is_lost(result, right)
        index = tuple(int(i) for i in (lost if bool(lost.any()) else wrong).nonzero()[0])
        place = f"{self.target}[{', '.join(map(str, index))}]" if index else self.target
        text = f"{place} is {float(result[index]):.6g}"
        if right is not None:
            text += f" where {float(right[index]):.6g} is right"
        return Outcome(text, "lost" if bool(lost.any()) else "off")

    def _right(self, leaves: Mapping[Value, torch.Tensor]) -> torch.Tensor:
        """What is proposed instead, else the expression itself, in float64 (integers as they are): the small one was
        judged exactly."""
        old = self.found.proposal.old
        new = self.new or old
        sizes = dict(self.sizes)
        for leaf, tensor in leaves.items():
            sizes.update(_symbols(leaf, tensor))
        twins = rebuild([old, new], self.leaves, sizes, widened=True)
        wide = {twins[v.index]: t.double() if t.is_floating_point() else t for v, t in leaves.items()}
        with torch.no_grad():
            return execute([twins[new.index]], wide)[0]

    def _gradient(self, values: Named) -> Outcome | None:
        """Whether a gradient of a finite result is NaN."""
        assert self.breakage.first.gradient is not None
        name = self.names[self.breakage.first.gradient]
        result, wrt = values[self.target], values[name]
        if not result.requires_grad or not wrt.requires_grad or not bool(torch.isfinite(result).all()):
            return None
        (slope,) = torch.autograd.grad(result.sum(), [wrt], allow_unused=True, materialize_grads=True)
        if not bool(slope.isnan().any()):
            return None
        index = ", ".join(str(int(i)) for i in slope.isnan().nonzero()[0])
        return Outcome(f"the gradient of {self.target} with respect to {name} is nan at [{index}]", "gradient")


@final
class Run:
    """A piece in the host's runtime."""

    def __init__(self, piece: Piece, rounding: bool) -> None:
        self.piece = piece
        model = piece.model
        self._runner: OnnxRunner | None = None
        if not isinstance(model, torch.nn.Module):
            self._runner = OnnxRunner(model, "a part of the model", rounding=rounding)

    def __call__(self, given: Named) -> list[torch.Tensor]:
        """Its results; ModelError when it fails, UsageError when it needs more than what is given."""
        missing = [name for name in self.piece.inputs if name not in given]
        if missing:
            raise UsageError(f"a part of the model needs {missing[0]!r} as well")
        given = {name: given[name] for name in self.piece.inputs}
        if self._runner is not None:
            return self._runner.run(given)
        try:
            return list(cast("Callable[..., tuple[torch.Tensor, ...]]", self.piece.model)(*given.values()))
        except Exception as error:  # operators of any library may be in it
            raise ModelError(f"a part of the model does not run by itself: {error}") from error


def _symbols(value: Value, tensor: torch.Tensor) -> list[tuple[Dim, int]]:
    """The symbolic sizes of a value, as its tensor has them."""
    return [(d, int(n)) for d, n in zip(value.shape, tensor.shape, strict=True) if isinstance(d, str)]


def _is_lost(result: torch.Tensor, right: torch.Tensor | None) -> torch.Tensor:
    """NaN, infinite, another index, or off by half of the largest result."""
    if not result.is_floating_point():
        return torch.ones_like(result, dtype=torch.bool)
    lost = ~torch.isfinite(result)
    if right is None:
        return lost
    held = right[torch.isfinite(right)]
    most = float(held.abs().max()) if held.numel() else 0.0
    return lost | ((result.double() - right).abs() > HALF * most) if most else lost


def _wrong(result: torch.Tensor, right: torch.Tensor | None, *, proposed: bool) -> torch.Tensor:
    """Elements that are not what they should be."""
    if right is None:
        return ~torch.isfinite(result)
    if not result.is_floating_point():
        return result != right
    fmt = FORMATS[str(result.dtype).removeprefix("torch.")]
    held = torch.isfinite(right) & (right.abs() <= fmt.max)
    off = (result.double() - right).abs() > torch.clamp(right.abs() * SHARE, min=2 * fmt.min_normal)
    wrong = held & (~torch.isfinite(result) | off)
    # of an expression by itself float64 may not hold what is on the way either; what is proposed instead does
    return wrong if proposed else wrong | (torch.isnan(right) & torch.isnan(result))

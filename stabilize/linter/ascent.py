"""Inputs of a whole model that lead one of its expressions to where it breaks.

Tried in turn: the small input on which the expression is known to break, where it consists of the model's own inputs;
the examples, larger ones, zeros; ascent, whose steps move the inputs, each further than the one before, along the
gradient that takes what the expression is computed from towards that small input; much larger examples, and the ends of
the ranges. All of it inside the ranges of the inputs, until the time is up. What is found is made smaller while it
still breaks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, final

import torch

from stabilize.errors import ShapeError, StabilizeError
from stabilize.graph.value import Value, cone
from stabilize.linter.proof import Named, Outcome, Suspect
from stabilize.linter.replay import full_size
from stabilize.linter.witness import Witness
from stabilize.verify.breakage import Bounds, ordinary, within
from stabilize.verify.certificate import undisturbed
from stabilize.verify.execute import execute

_FACTORS: Final = (8.0, 64.0)
_LARGE_FACTORS: Final = (512.0, 4096.0)
_HALVINGS: Final = 8
_FIRST_STEP: Final = 2.0**-6
_STEPS: Final = 20


def reached(suspect: Suspect, examples: Sequence[Named], deadline: float, seed: int) -> Witness | None:
    """Inputs of the model on which its runtime computes the expression wrongly; None when none are found in time.

    examples: inputs that the model runs on.
    """
    far_off: Witness | None = None
    wanted = suspect.breakage.first.kind
    honest = suspect.found.proposal.rule.honest
    with undisturbed():
        try:
            for given in (tries := _Tries(suspect, examples, seed)):
                outcome = suspect.outcome(given)
                if outcome is not None and honest and not _outputs(suspect, given):
                    outcome = None
                if outcome is not None and outcome.kind == wanted:
                    given, outcome = _milder(suspect, tries, given, outcome, deadline)
                    return _witness(suspect, given, outcome)
                if outcome is not None and far_off is None:
                    far_off = _witness(suspect, given, outcome)
                if time.monotonic() > deadline or (far_off and wanted == "off"):
                    break
        except (StabilizeError, ShapeError):
            return None  # it cannot be followed from the inputs
    return far_off


def _milder(suspect: Suspect, tries: _Tries, given: Named, outcome: Outcome, deadline: float) -> tuple[Named, Outcome]:
    """A small multiple, with entries of 1 at least, on which it breaks in the same way, and what it gives."""
    largest = max((float(given[n].abs().max()) for n in tries.limits if given[n].numel()), default=0.0)
    good, bad, mildest = min(1.0, 1.0 / largest) if largest else 1.0, 1.0, given
    for _ in range(_HALVINGS if good < bad else 0):
        if time.monotonic() > deadline:
            break
        middle = (good + bad) / 2
        smaller = tries.scaled(given, middle)
        found = suspect.outcome(smaller)
        if found is None or found.kind != outcome.kind:
            good = middle
        else:
            bad, mildest, outcome = middle, smaller, found
    return mildest, outcome


def _witness(suspect: Suspect, given: Named, outcome: Outcome) -> Witness:
    return Witness(given, "model", outcome.text + _outputs(suspect, given), outcome.kind)


#: Said of an output that is itself what breaks.
_ITSELF: Final = ", an output"


def _outputs(suspect: Suspect, given: Named) -> str:
    """What of the outputs is not finite, in words."""
    view = suspect.host.view
    names = view.names()
    outputs = list(dict.fromkeys(names[v][0] for v in view.outputs if v in names))
    if suspect.target in outputs:
        return _ITSELF
    if not outputs:
        return ""
    try:
        results = suspect.run(list(given), outputs)(given)
    except StabilizeError:
        return ""
    for name, result in zip(outputs, results, strict=True):
        lost = result[~torch.isfinite(result)]
        if lost.numel():
            return f"; output {name} is {float(lost.detach().flatten()[0]):g}"
    return ""


@final
class _Tries:
    """Inputs to try, in order."""

    def __init__(self, suspect: Suspect, examples: Sequence[Named], seed: int) -> None:
        self.suspect, self.examples = suspect, examples
        self.generator = torch.Generator().manual_seed(seed)
        bindings, ranges = suspect.host.view.bindings, suspect.found.graph.ctx.ranges
        self.inputs: dict[str, Value] = {name: bindings[name] for name in examples[0]} if examples else {}
        self.limits: dict[str, Bounds] = {}
        for name, value in self.inputs.items():
            r = ranges.of(value)
            if examples[0][name].is_floating_point():
                self.limits[name] = ordinary(value, (r.lo, r.hi))

    def __iter__(self) -> Iterator[Named]:
        if not self.limits:
            yield from self.examples
            return
        first = self.examples[0]
        known = self._full()
        if known and set(known) <= set(first) and all(known[n].shape == first[n].shape for n in known):
            yield {**first, **known}
        yield from map(self._moved, self.examples)
        yield from (self.scaled(first, factor) for factor in (*_FACTORS, 0.0))
        if any(bool(w.any()) for w in self._aims().values()):
            yield from self._ascent(first)
        yield from (self.scaled(first, factor) for factor in _LARGE_FACTORS)
        for ends in ((1.0, 1.0), (-1.0, -1.0), (-1.0, 1.0)):
            yield self._moved({n: self._end(t, *ends) if n in self.limits else t for n, t in first.items()})

    def scaled(self, given: Named, factor: float) -> Named:
        """Float inputs times a factor, inside their ranges."""
        # 0 is added so that nothing is −0
        return self._moved({n: t * factor + 0 if n in self.limits else t for n, t in given.items()})

    def _full(self) -> dict[str, torch.Tensor]:
        """The small input on which the expression breaks, at full size."""
        try:
            return full_size(self.suspect)
        except StabilizeError:
            return {}

    def _moved(self, given: Named) -> Named:
        """Into the ranges, which are those of the user and otherwise ordinary numbers."""
        return {n: within(t, *self.limits[n]) if n in self.limits else t for n, t in given.items()}

    def _end(self, like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        """One end or the other, entry by entry; `_moved` takes them to where they are."""
        pick = torch.rand(like.shape, generator=self.generator) < 0.5
        return torch.where(pick, low, high).to(like.dtype) * torch.finfo(like.dtype).max

    # --- ascent -----------------------------------------------------------------------------------------------

    def _aims(self) -> dict[Value, torch.Tensor]:
        """Float leaves that the inputs lead to → where they are to be led."""
        suspect, full = self.suspect, self._full()
        own = set(self.inputs.values())
        return {
            leaf: full[name]
            for name, leaf in zip(suspect.names, suspect.leaves, strict=True)
            if name in full and full[name].is_floating_point() and own & set(cone([leaf]))
        }

    def _ascent(self, start: Named) -> Iterator[Named]:
        aims, given = self._aims(), self._moved(start)
        for k in range(_STEPS):
            slopes = self._slopes(given, aims)
            if slopes is None:
                return
            step = _FIRST_STEP * 2.0**k
            given = self._moved({n: t + step * slopes[n].sign() if n in slopes else t for n, t in given.items()})
            yield given

    def _slopes(self, given: Named, aims: Mapping[Value, torch.Tensor]) -> dict[str, torch.Tensor] | None:
        """The gradients of Σ leaf·aim, None when there are none."""
        free = {n: t.detach().clone().requires_grad_() for n, t in given.items() if n in self.limits}
        leaves = self._leaves({**given, **free}, list(aims))
        if leaves is None:
            return None
        total = torch.zeros((), dtype=torch.float64)
        for leaf, aim in zip(leaves, aims.values(), strict=True):
            if leaf.shape == aim.shape:
                total = total + (leaf.double() * (aim.double() / aim.double().abs().max().clamp(min=1e-30))).sum()
        if not total.requires_grad:
            return None
        found = torch.autograd.grad(total, list(free.values()), allow_unused=True, materialize_grads=True)
        slopes = {n: torch.nan_to_num(s) for n, s in zip(free, found, strict=True)}
        return slopes if any(bool(s.any()) for s in slopes.values()) else None

    def _leaves(self, given: Named, leaves: Sequence[Value]) -> list[torch.Tensor] | None:
        """The leaves as differentiable functions of the inputs: of the host's own operators where those are torch's,
        else as the view reads them."""
        suspect = self.suspect
        if suspect.host.kind == "fx":
            values = suspect.values(given)
            names = dict(zip(suspect.leaves, suspect.names, strict=True))
            return [values[names[leaf]] for leaf in leaves]
        tensors: dict[Value, torch.Tensor] = {self.inputs[n]: t for n, t in given.items()}
        for value in cone(leaves, tensors):
            data = suspect.host.tensor(value) if value not in tensors and value.op in ("input", "opaque") else None
            if data is not None:
                tensors[value] = data
            elif value.op in ("input", "opaque") and value not in tensors:
                return None
        return execute(leaves, tensors)

"""Whole models: both run on the same inputs and are compared with a float64 run of the original, its shadow.

Arbitrary precision is too slow for a model. In float64 the rounding errors of float16, bfloat16 and float32 all but
vanish; what overflows there too is not known, and there the replacement's own shadow stands in when it is given.
A model has no error bound in closed form: the replacement may be twice as far off as the original, or a fixed
multiple of the roundoff of the largest entry (but no more than a small share of that entry: bfloat16 would excuse
anything), whichever is more. Gradients are judged likewise, with more slack, where both models have them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast, final

import numpy as np
import torch
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from stabilize.errors import ModelError
from stabilize.formats import FORMATS
from stabilize.graph.value import Value, cone
from stabilize.verify.certificate import Certificate, FamilyResult
from stabilize.verify.compare import AnyArray, Errors, errors_of
from stabilize.verify.execute import execute
from stabilize.verify.shrink import rebuild

Tensors: TypeAlias = Sequence[torch.Tensor]
Runner: TypeAlias = Callable[[Tensors], Tensors]
"""Runs a model on its (flat) inputs; gives its (flat) outputs."""
Slope: TypeAlias = tuple[str, torch.Tensor, torch.Tensor, torch.Tensor, float]
"""A gradient: with respect to what; of the original, of the replacement, of the original in float64; and its size
elsewhere: where functions saturate (σ near 1) it is small, but what it is computed from is not."""
Slopes: TypeAlias = Callable[[Tensors], "list[Slope] | str"]
"""Gradients on some inputs, or why there are none to compare; ModelError when only the replacement has none."""

_ROUNDOFFS: Final = 256.0
_SHARE: Final = 2.0**-5
#: Two right formulas have backward passes that add in another order; those of attention differ 9-fold.
_SLOPE_FACTOR: Final = 16.0


def certify_models(
    run_before: Runner,
    run_after: Runner,
    shadow: Runner,
    inputs: Iterable[tuple[str, Tensors]],
    *,
    shadow_after: Runner | None = None,
    slopes: Slopes | None = None,
    failures: Sequence[str] = (),
) -> Certificate:
    """Compare two models on named sets of inputs.

    shadow: the original in float64. shadow_after: the replacement in float64, which is consulted only where the
    original is not finite even there. slopes: the gradients, which are compared where the values are accepted.
    failures: harms that are found while the inputs are drawn (a list that grows, read at the end).
    """
    results: list[FamilyResult] = []
    reason: str | None = None
    seen: list[_Output] = []
    gradients = "not compared: " + _NO_SLOPES if slopes is None else ""
    for name, tensors in inputs:
        before, after, truth = run_before(tensors), run_after(tensors), shadow(tensors)
        stand_in = shadow_after(tensors) if shadow_after is not None else truth
        if not len(before) == len(after) == len(truth) == len(stand_in):
            reason = f"the models return {len(before)} and {len(after)} tensors"
            break
        # where the original leaves the range even of float64, what it decides (an argmax of NaN) is not the truth
        decided = truth if all(_finite(t) for t in truth) else stand_in
        judged = [_judge(*each) for each in zip(before, after, truth, stand_in, decided, strict=True)]
        harms = [f"on {name} inputs, output {i}: {harm}" for i, (_, _, harm) in enumerate(judged) if harm is not None]
        seen = seen or [_Output() for _ in judged]
        for output, (old, _, _), first, second in zip(seen, judged, before, after, strict=True):
            output.compared = output.compared or bool(old.known.any())
            output.same = output.same and _same(first, second)
        measured: list[tuple[Errors, Errors]] = []
        if slopes is not None and not harms and reason is None:
            measured, told, harm = _judge_slopes(slopes, tensors)
            gradients = told if told == "compared" else gradients or told
            harms = [] if harm is None else [f"on {name} inputs, {harm}"]
        results.append(FamilyResult.of(name, [(old, new) for old, new, _ in judged], measured))
        reason = reason or (harms[0] if harms else None)
    reason = reason or (failures[0] if failures else None) or _nothing(seen)
    return Certificate(
        reason is None, reason, "float64", tuple(results), gradients or "not compared: the values are worse"
    )


_NO_SLOPES: Final = "only two PyTorch models have gradients to compare"


@final
@dataclass(slots=True)
class _Output:
    """One output on all inputs. compared: somewhere there was a truth; same: bit for bit what it was."""

    compared: bool = False
    same: bool = True


def _nothing(seen: Sequence[_Output]) -> str | None:
    """What was not compared at all, and so is not known to be right."""
    if not any(output.compared for output in seen):
        return "nothing could be compared: the outputs have no elements, or none that is a number in float64"
    for i, output in enumerate(seen):
        if not (output.compared or output.same):
            return f"output {i}: nothing could be compared: it has no number in float64, and it is not the same"
    return None


def _same(first: torch.Tensor, second: torch.Tensor) -> bool:
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    return torch.equal(first, second) or bool(torch.allclose(first, second, rtol=0, atol=0, equal_nan=True))


def _judge_slopes(slopes: Slopes, tensors: Tensors) -> tuple[list[tuple[Errors, Errors]], str, str | None]:
    """The errors of gradients; "compared", or why not; the first harm in words."""
    try:
        found = slopes(tensors)
    except ModelError as error:
        return [], "compared", str(error)
    if isinstance(found, str):
        return [], f"not compared: {found}", None
    errors: list[tuple[Errors, Errors]] = []
    reason: str | None = None
    known = False
    for name, before, after, truth, size in found:
        exact = truth.detach().double()
        # a gradient beyond the format is neither's fault
        keep = exact.abs() <= FORMATS[str(before.dtype).removeprefix("torch.")].max
        known = known or bool(keep.any())
        before, after, exact = (torch.where(keep, each, 0.0) for each in (before, after, exact))
        wanted = exact.numpy()
        old, new = errors_of(before, wanted), errors_of(after, wanted)
        errors.append((old, new))
        harm = _harm(old, new, before, after, wanted, factor=_SLOPE_FACTOR, size=size)
        if harm is not None:
            harm = harm if bool(after.any()) else "it is gone (zero everywhere)"
            reason = reason or f"the gradient with respect to {name} is harmed: {harm}"
    return errors, "compared" if known else "not compared: none is a number in float64", reason


def _judge(
    before: torch.Tensor, after: torch.Tensor, truth: torch.Tensor, stand_in: torch.Tensor, decided: torch.Tensor
) -> tuple[Errors, Errors, str | None]:
    if before.shape != after.shape or before.dtype != after.dtype:
        nothing = np.zeros(())
        empty = Errors(nothing, nothing, np.zeros((), dtype=bool))
        return empty, empty, f"{after.dtype}{list(after.shape)} instead of {before.dtype}{list(before.shape)}"
    if not before.is_floating_point():
        exact = _flags(decided if decided.shape == before.shape and not decided.is_floating_point() else before)
        old, new = errors_of(before, exact), errors_of(after, exact)
        differ = int((np.isinf(new.ulps) & ~np.isinf(old.ulps)).sum())
        return old, new, f"{differ} entries differ" if differ else None
    exact = torch.where(torch.isfinite(truth), truth, stand_in).detach().double().numpy()
    old, new = errors_of(before, exact), errors_of(after, exact)
    return old, new, _harm(old, new, before, after, exact)


def _finite(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _flags(tensor: torch.Tensor) -> AnyArray:
    exact = np.empty(tuple(tensor.shape), dtype=object)
    exact.reshape(-1)[:] = [int(x) for x in tensor.flatten().numpy()]
    return exact


def _harm(
    old: Errors,
    new: Errors,
    before: torch.Tensor,
    after: torch.Tensor,
    exact: AnyArray,
    *,
    factor: float = 2.0,
    size: float = 0.0,
) -> str | None:
    """What is worse than it was.

    factor: how many times as far off it may be. size: what errors are relative to, when more than the largest entry.
    """
    fmt = FORMATS[str(before.dtype).removeprefix("torch.")]
    lost = torch.isfinite(before) & ~torch.isfinite(after)
    if bool(lost.any()):
        return f"{int(lost.sum())} entries that were finite are not"
    sound = old.known & np.isfinite(old.absolute)
    if not sound.any():
        return None
    known = exact[old.known]
    scale = max(size, float(np.abs(known).max())) if known.size else size
    limit = max(factor * float(old.absolute[sound].max()), min(_ROUNDOFFS * fmt.u, _SHARE) * scale + 2 * fmt.tiny)
    worst = float(new.absolute[sound].max())
    if worst <= limit:
        return None
    return f"an entry is {worst:.3g} off where the original was within {float(old.absolute[sound].max()):.3g}"


def model_families(inputs: Tensors) -> list[tuple[str, Tensors]]:
    """The given inputs, and their float entries 8 and 64 times as large (beyond the range of exp, for most)."""

    if not any(t.is_floating_point() for t in inputs):
        return [("given", inputs)]
    return [("given", inputs), *((f"{n}-fold", [scaled(t, n) for t in inputs]) for n in (8, 64))]


def scaled(tensor: torch.Tensor, factor: float) -> torch.Tensor:
    """A multiple, in the format of `tensor`; what is no float, or packs several into a byte, as it is."""
    if not tensor.is_floating_point() or tensor.dtype == torch.float4_e2m1fn_x2:
        return tensor
    if tensor.itemsize == 1:  # these formats have no arithmetic
        return (tensor.float() * factor).to(tensor.dtype)
    return tensor * factor


# --- shadows -----------------------------------------------------------------------------------------------


def view_shadow(outputs: Sequence[Value], leaves: Mapping[Value, torch.Tensor]) -> list[torch.Tensor]:
    """`outputs` of a semantic view computed in float64; ModelError when an opaque operation is in the way."""
    opaque = [v for v in cone(outputs, leaves) if v.op == "opaque" and v not in leaves]
    if opaque:
        raise ModelError(f"{opaque[0].attr('target')} cannot be computed in float64 through the semantic view")
    twins = rebuild(outputs, list(leaves), {}, widened=True)
    wide = {twins[leaf.index]: t.double() if t.is_floating_point() else t for leaf, t in leaves.items()}
    return execute([twins[v.index] for v in outputs], wide)


def module_shadow(module: torch.nn.Module) -> Callable[..., Any]:
    """A float64 copy of a module, in which casts to narrower floats do nothing; call it as the module is called."""
    wide = copy.deepcopy(module).double()

    def run(*args: Any, **kwargs: Any) -> Any:
        with torch.no_grad(), widened():
            return wide(*tree_map(_widen, args), **tree_map(_widen, kwargs))

    return run


@contextmanager
def widened() -> Generator[None]:
    """What runs in here, on float64 tensors, runs in float64, whatever it says itself. Gradients do too."""
    default = torch.get_default_dtype()
    # tensors that the model makes without naming a dtype
    torch.set_default_dtype(torch.float64)
    try:
        with _Widened():  # type: ignore[no-untyped-call]
            yield
    finally:
        torch.set_default_dtype(default)


class _Widened(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every operation in float64: narrower tensors and dtypes among its arguments are widened. So are the operations
    of branches and loop bodies, which operators of higher order call while this mode is off."""

    supports_higher_order_operators = True

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        inside = isinstance(cast(object, func), HigherOrderOperator)
        widen = self._widen_callable if inside else _widen
        return func(*tree_map(widen, args), **tree_map(widen, kwargs or {}))

    def _widen_callable(self, x: Any) -> Any:
        if isinstance(x, torch.dtype) or not callable(x):
            return _widen(x)

        def run(*args: Any, **kwargs: Any) -> Any:
            with self:
                return x(*args, **kwargs)

        return run


def _widen(x: Any) -> Any:
    if isinstance(x, torch.Tensor) and x.is_floating_point() and x.dtype != torch.float64:
        return x.double()
    return torch.float64 if isinstance(x, torch.dtype) and x.is_floating_point else x

"""The inputs that a conversion is decided and judged on."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast, final

import numpy as np
import torch

from stabilize.errors import UsageError
from stabilize.frontends.example import Example
from stabilize.frontends.onnx_run import OnnxRunner
from stabilize.frontends.onnx_types import numpy_dtype

Named = Mapping[str, torch.Tensor]

#: How many times as large, and as small, inputs are tried: those that have a range, inside it, and examples.
_RANGED: Final = 8.0
_OTHERS: Final = 2.0


@final
@dataclass(frozen=True, slots=True)
class Sample:
    """Inputs of the model by name. family: how they were made; "given" for those of the user, or the examples."""

    family: str
    tensors: Named

    @property
    def given(self) -> bool:
        return self.family == "given"

    @property
    def feeds(self) -> dict[str, Any]:
        return {name: _array(tensor) for name, tensor in self.tensors.items()}


def samples_of(runner: OnnxRunner, data: object, ranges: Mapping[str, tuple[float, float]]) -> list[Sample]:
    """The given inputs, or seeded examples, larger and smaller ones, and the ends of `ranges`. Masks stay masks.

    What has a range stays in it, examples are drawn from it. UsageError for data that does not suit the model.
    """
    given = _split(runner, data) if data is not None else [_within(_examples(runner), ranges, drawn=True)]
    first, found = given[0], [Sample("given", tensors) for tensors in given]
    if not any(t.is_floating_point() for t in first.values()):
        return found
    factors = {n: _RANGED if n in ranges else _OTHERS for n in first}
    # data says how large inputs are, where no range does
    larger = {n: _scaled(t, factors[n]) if data is None or n in ranges else t for n, t in first.items()}
    smaller = {n: _scaled(t, 1 / factors[n]) for n, t in first.items()}
    if any(larger[n] is not first[n] for n in first):
        found.append(Sample("larger", _within(larger, ranges)))
    found.append(Sample("smaller", _within(smaller, ranges)))
    return [*found, *_corners(first, ranges)]


def _examples(runner: OnnxRunner) -> Named:
    return cast("Named", runner.recorded().kwargs)


def _corners(first: Named, ranges: Mapping[str, tuple[float, float]]) -> Generator[Sample]:
    bounded = {n: r for n, r in ranges.items() if first[n].is_floating_point() and np.isfinite(r).all()}
    for which, end in enumerate(("lowest", "highest")):
        if bounded:
            yield Sample(
                end, {n: torch.full_like(t, bounded[n][which]) if n in bounded else t for n, t in first.items()}
            )


def _within(
    tensors: Named, ranges: Mapping[str, tuple[float, float]], *, drawn: bool = False
) -> dict[str, torch.Tensor]:
    """Floats inside their ranges: spread over them where they are drawn, cut off at their ends where they are not."""
    found = dict(tensors)
    for name, (low, high) in ranges.items():
        tensor = found[name]
        if not tensor.is_floating_point():
            continue
        if drawn and np.isfinite((low, high)).all():
            share = (1.0 + torch.erf(tensor.double() / math.sqrt(2.0))) / 2.0  # of a normal number, uniform
            tensor = (low + (high - low) * share).to(tensor.dtype)
        found[name] = tensor.clamp(low, high)
    return found


def _scaled(tensor: torch.Tensor, factor: float) -> torch.Tensor:
    return tensor * factor if tensor.is_floating_point() and not _is_mask(tensor) else tensor


def _is_mask(tensor: torch.Tensor) -> bool:
    """Whether a float tensor holds 0 and at most one other number: half of it would be nothing that occurs."""
    numbers = np.unique(tensor.detach().cpu().double().numpy())
    return tensor.numel() > 2 and numbers.size <= 2 and bool((numbers == 0).any() or (numbers == 1).all())


def _split(runner: OnnxRunner, data: object) -> list[Named]:
    """Input data by name; where the model takes fewer rows than there are, in pieces of as many as it takes."""
    example = Example.of(data)
    example.check_numbers()
    example.check_names(runner.inputs, runner.name)
    tensors = example.by_name(runner.inputs, runner.name)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and bool(tensor.isnan().any()):
            raise UsageError(f"input data {name!r} holds NaN: it would calibrate nothing")
    rows = {n: _rows(runner, n, t) for n, t in tensors.items()}
    counts = {tensors[n].shape[0] / r for n, r in rows.items() if r}
    if len(counts) == 1 and len(rows) == len([r for r in rows.values() if r]) and (count := counts.pop()) > 1:
        if count != int(count):
            raise UsageError(f"the input data has {tensors[next(iter(rows))].shape[0]} rows, of which the model takes "
                             f"{rows[next(iter(rows))]} at a time")  # fmt: skip
        pieces = [{n: t[i * rows[n] : (i + 1) * rows[n]] for n, t in tensors.items()} for i in range(int(count))]
    else:
        pieces = [tensors]
    for piece in pieces:
        runner.check(piece)
    return list(pieces)


def _rows(runner: OnnxRunner, name: str, tensor: torch.Tensor) -> int:
    """How many rows an input takes; 0 where that is open."""
    sizes = runner.sizes(name)
    return sizes[0] if sizes and tensor.dim() == len(sizes) and isinstance(sizes[0], int) else 0


def _array(tensor: torch.Tensor) -> Any:
    dense = tensor.detach().cpu().contiguous()
    if dense.dtype is torch.bfloat16:
        return dense.view(torch.int16).numpy().view(numpy_dtype("bfloat16"))
    return dense.numpy()

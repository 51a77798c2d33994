"""A witness in a few words: what goes in, what comes out, where it is saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stabilize.records import bounds, dtype, size

_INPUTS, _NUMBERS = 4, 6


def described(witness: Mapping[str, object]) -> Iterator[str]:
    """Line by line: one for each input, then what comes out, then where all of it is saved."""
    if getattr(witness, "scope", "model") == "expression":
        yield "values inside the model"
    for name, value in list(witness.items())[:_INPUTS]:
        yield f"{name} = {_array(value)}"
    if len(witness) > _INPUTS:
        yield f"and {len(witness) - _INPUTS} more"
    if outcome := getattr(witness, "outcome", None):
        yield str(outcome)
    if file := getattr(witness, "file", None):
        yield f"saved in {file}"


def _array(value: Any) -> str:
    """`[1, 2] (float32[2])`; of a long array the beginning, and where its numbers lie."""
    if not hasattr(value, "shape"):
        return str(value)
    shape = f"[{', '.join(map(str, value.shape))}]" if len(value.shape) else ""
    count = size(value)
    shown = [_number(x) for x in value.reshape(-1)[:_NUMBERS].tolist()]
    if count <= _NUMBERS:
        numbers = f"[{', '.join(shown)}]" if shape else shown[0]
        return f"{numbers} ({dtype(value)}{shape})"
    low, high = bounds(value)
    between = f" from {_number(low)} to {_number(high)}" if low != high else ""
    return f"[{', '.join(shown)}, …] ({dtype(value)}{shape}{between})"


def _number(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)

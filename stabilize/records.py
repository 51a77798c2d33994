"""What was found, changed and refused: plain records and their JSON form.

The records hold data only. They are made one per match, and never change afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol, TypeAlias, cast, final

Severity: TypeAlias = Literal["error", "warning", "info"]
Safety: TypeAlias = Literal["exact", "approximate", "model-changing"]
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

#: Version of the JSON form. It grows by one when a reader of the old form could misread the new one.
SCHEMA_VERSION = 1

#: The gravest first.
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")

#: A witness is written out in JSON up to this many numbers in all; beyond, its arrays are described.
WRITTEN_OUT = 1024


class Certificate(Protocol):
    """Evidence that a rewrite, or a whole model, is at least as accurate as what it replaces."""

    @property
    def accepted(self) -> bool:
        """Whether the replacement may stand."""
        ...

    @property
    def reason(self) -> str | None:
        """Why not, when it may not."""
        ...

    def text(self) -> str:
        """The evidence for a reader, error before and after in ulps."""
        ...

    def to_dict(self) -> dict[str, object]:
        """The evidence for a program."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """A place in a model where floating point breaks the formula.

    code, name: the rule, e.g. `"STB101"`, `"naive-softmax"`; a name states the defect.
    severity: of a lint: `"error"` when the model's own runtime was seen to break on an input inside the ranges, the
        witness; `"warning"` when the analysis allows it and none was found; `"info"` for what is less accurate than it
        could be, or may come of operands of which nothing is known. Of `optimize`: what the rule says.
    message: one sentence.
    node: name of the host node whose value is affected.
    module: dotted path of the module it came from, if the host knows.
    file, line: the user's source, if the host knows.
    naive, stable: one-line text of both expressions; `stable` is None when there is no fix.
    condition: when it breaks, e.g. `"x > 88.72 in float32"`.
    witness: an input that breaks it (name → array), if one is known. It may say more of itself: `scope` ("model": the
        names are the model's inputs; "expression": they are values inside it), `outcome` (what came out and what is
        right, in one line), `file` (where it is saved as `.npz`).
    safety: what the fix may change, None when there is none.
    fixable: whether a rewrite exists.
    """

    code: str
    name: str
    severity: Severity
    message: str
    node: str
    module: str | None = None
    file: str | None = None
    line: int | None = None
    naive: str | None = None
    stable: str | None = None
    condition: str | None = None
    witness: Mapping[str, object] | None = None
    safety: Safety | None = None
    fixable: bool = False

    def to_dict(self) -> dict[str, Json]:
        """JSON-clean fields, in the order of the class."""
        return _record(self)


@final
@dataclass(frozen=True, slots=True)
class Rewrite:
    """A replacement that was applied, with its evidence (None when certification was switched off)."""

    code: str
    name: str
    node: str
    module: str | None
    file: str | None
    line: int | None
    naive: str
    stable: str
    safety: Safety
    certificate: Certificate | None = None

    def to_dict(self) -> dict[str, Json]:
        """JSON-clean fields, in the order of the class."""
        return _record(self)


@final
@dataclass(frozen=True, slots=True)
class Declined:
    """A match that was left as it was, with the reason."""

    code: str
    name: str
    node: str
    module: str | None
    file: str | None
    line: int | None
    reason: str

    def to_dict(self) -> dict[str, Json]:
        """JSON-clean fields, in the order of the class."""
        return _record(self)


def _record(record: Finding | Rewrite | Declined) -> dict[str, Json]:
    values = {f.name: getattr(record, f.name) for f in fields(record)}
    return {name: _witness(value) if name == "witness" else json_clean(value) for name, value in values.items()}


def json_clean(value: object) -> Json:
    """`value` with tensors and arrays as lists, non-finite floats as strings, objects through their `to_dict`."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case Mapping():
            items = cast("Mapping[object, object]", value).items()
            return {str(key): json_clean(item) for key, item in items}
        case list() | tuple():
            return [json_clean(item) for item in cast("Sequence[object]", value)]
        case _:
            for method in ("to_dict", "tolist"):
                convert = getattr(value, method, None)
                if callable(convert):
                    return json_clean(convert())
            return str(value)


def size(value: object) -> int:
    """How many numbers a tensor or an array holds; 1 for anything else."""
    return math.prod(cast("Sequence[int]", getattr(value, "shape", ())))


def _witness(witness: Mapping[str, object] | None) -> Json:
    """Arrays as nested lists as long as they are short, else what they are like and where they were saved."""
    if witness is None or sum(size(value) for value in witness.values()) <= WRITTEN_OUT:
        return json_clean(witness)
    file = getattr(witness, "file", None)
    return {name: _described(value, None if file is None else str(file)) for name, value in witness.items()}


def _described(value: Any, file: str | None) -> Json:
    if not hasattr(value, "shape"):
        return json_clean(value)
    low, high = bounds(value)
    return {"shape": list(value.shape), "dtype": dtype(value), "min": low, "max": high, "file": file}


def dtype(value: Any) -> str:
    """`float32` for a tensor or an array of that type, the name of its class for anything else."""
    return str(getattr(value, "dtype", type(value).__name__)).removeprefix("torch.")


def bounds(value: Any) -> tuple[Json, Json]:
    """The least and the greatest number of an array; NaN where it holds one, None where it is empty or complex."""
    if not size(value) or dtype(value).startswith("complex"):
        return None, None
    if getattr(value, "is_floating_point", bool)():
        value = value.double()  # some formats have no order of their own
    return json_clean(value.min().item()), json_clean(value.max().item())

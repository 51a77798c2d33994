"""The options of `lint`, as they stand in [tool.stabilize] of a pyproject.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from math import isnan
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypedDict, cast

from stabilize.errors import UsageError
from stabilize.frontends.onnx_runtimes import UNSTABLE

FORMATS: Final = ("text", "json", "sarif", "github")
LEVELS: Final = ("error", "warning", "info", "never")

Ranges: TypeAlias = dict[str, tuple[float, float]]


class Options(TypedDict, total=False):
    """What may be chosen; absent: as it is by default."""

    select: list[str]
    ignore: list[str]
    ranges: Ranges
    runtime: str
    allow_fast: list[str]
    input_data: str
    form: Literal["text", "json", "sarif", "github"]
    fail_on: Literal["error", "warning", "info", "never"]
    statistics: bool
    budget: float
    witness_dir: str
    seed: int


def configured(file: Path | None) -> Options:
    """What `file` says, or the nearest pyproject.toml upward from here that has a [tool.stabilize].

    Raises UsageError naming the file and the key for anything that no option takes.
    """
    for path in [file] if file else [folder / "pyproject.toml" for folder in (Path.cwd(), *Path.cwd().parents)]:
        if file is None and not path.is_file():
            continue
        table = _table(path)
        if table is not None:
            return _checked(path, table)
        if file is not None:
            raise UsageError(f"{path}: has no [tool.stabilize]")
    return Options()


def _table(path: Path) -> dict[str, object] | None:
    try:
        with path.open("rb") as opened:
            content = cast("dict[str, object]", tomllib.load(opened))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a TOML file: {error}") from error
    tool = content.get("tool", {})
    table = cast("dict[str, object]", tool).get("stabilize") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise UsageError(f"{path}: tool.stabilize is {table!r}: write a table, [tool.stabilize]")
    return cast("dict[str, object] | None", table)


def _checked(path: Path, table: dict[str, object]) -> Options:
    options: dict[str, object] = {}
    for key, value in table.items():
        if key not in _KEYS:
            raise UsageError(f"{path}: [tool.stabilize] has no key {key!r}: the keys are {', '.join(sorted(_KEYS))}")
        name, wanted, read = _KEYS[key]
        try:
            options[name] = read(value)
        except (TypeError, ValueError, OverflowError):
            raise UsageError(f"{path}: [tool.stabilize] {key} is {value!r}: give {wanted}") from None
        if name in ("input_data", "witness_dir"):
            options[name] = str(path.parent / str(value))
    return cast("Options", options)


# -- values ----------------------------------------------------------------------------------------------------------


def as_range(low: object, high: object) -> tuple[float, float]:
    """Two numbers, the lower first, infinities allowed; else ValueError or TypeError."""
    pair = (_number(low), _number(high))
    if not pair[0] <= pair[1]:
        raise ValueError("NaN is no bound" if any(map(isnan, pair)) else "the lowest value is above the highest")
    return pair


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


def as_budget(value: object) -> float:
    if not _number(value) >= 0:  # nor NaN
        raise ValueError
    return _number(value)


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _string(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError
    return value


def _strings(value: object) -> list[str]:
    if not isinstance(value, list):
        raise TypeError
    return [_string(each) for each in cast("list[object]", value)]


def _codes(value: object) -> list[str]:
    from stabilize.passes.rules import known

    if not isinstance(value, list) or not all(known(_string(code)) for code in cast("list[object]", value)):
        raise TypeError
    return [_string(code) for code in cast("list[object]", value)]


def _ranges(value: object) -> Ranges:
    if not isinstance(value, dict):
        raise TypeError
    return {name: _pair(bounds) for name, bounds in cast("dict[str, object]", value).items()}


def _pair(value: object) -> tuple[float, float]:
    if not isinstance(value, list):
        raise TypeError
    low, high = cast("list[object]", value)
    return as_range(low, high)


def _one_of(known: tuple[str, ...]) -> Callable[[object], object]:
    def read(value: object) -> object:
        if value not in known:
            raise ValueError
        return value

    return read


#: Key → the option, what it takes, and how that is read.
_KEYS: dict[str, tuple[str, str, Callable[[object], object]]] = {
    "select": ("select", 'rule codes or their beginnings, like ["STB101", "STB3"]', _codes),
    "ignore": ("ignore", 'rule codes or their beginnings, like ["STB101", "STB3"]', _codes),
    "ranges": ("ranges", "the lowest and the highest value by input, like {x = [-50, 50]}", _ranges),
    "runtime": ("runtime", f"one of {', '.join(UNSTABLE)}", _one_of(tuple(UNSTABLE))),
    "allow-fast": ("allow_fast", 'operators, like ["Sigmoid"]', _strings),
    "input-data": ("input_data", "the path of a .npz file", _string),
    "format": ("form", f"one of {', '.join(FORMATS)}", _one_of(FORMATS)),
    "fail-on": ("fail_on", f"one of {', '.join(LEVELS)}", _one_of(LEVELS)),
    "statistics": ("statistics", "true or false", _flag),
    "budget": ("budget", "a number of seconds, 0 or more", as_budget),
    "witness-dir": ("witness_dir", "the path of a folder", _string),
    "seed": ("seed", "a whole number, 0 or more", _integer),
}

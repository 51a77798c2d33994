"""The keywords of `optimize` as one checked `Request`; the same for every way to call it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Final, cast

from stabilize.errors import UsageError
from stabilize.frontends.onnx_runtimes import UNSTABLE, Runtime
from stabilize.pipeline import Request

FORMS: Final = ("softmax", "collapse-free")
ALLOWED: Final = ("exact", "approximate")
#: The largest number that torch takes as a seed.
MOST_SEED: Final = 2**64 - 1


def checked(form: object, allow: object, ranges: object, select: object, ignore: object, certify: object) -> Request:
    """A request of these keywords of `optimize`; UsageError for a value that one of them does not take."""
    return Request(
        _one_of("form", form, FORMS),
        _one_of("allow", allow, ALLOWED),
        _ranges(ranges),
        None if select is None else _codes("select", select),
        () if ignore is None else _codes("ignore", ignore),
        bool(certify),
    )


def checked_runtime(runtime: object, allow_fast: object) -> Runtime:
    """The runtime that these keywords of `optimize` name; UsageError for an unknown one, or an unknown operator."""
    name = _one_of("runtime", runtime, tuple(UNSTABLE))
    names = (allow_fast,) if isinstance(allow_fast, str) else allow_fast
    if not isinstance(names, Iterable):
        raise UsageError(f"allow_fast is {allow_fast!r}: give an operator or several, like ['Sigmoid']")
    known = sorted({operator for table in UNSTABLE.values() for operator in table})
    fast: set[str] = set()
    for operator in cast("Iterable[object]", names):
        if not isinstance(operator, str) or operator not in known:
            raise UsageError(
                f"allow_fast {operator!r} is no operator that a runtime computes badly; these are: {', '.join(known)}"
            )
        fast.add(operator)
    return Runtime(name, frozenset(fast))


def _one_of(argument: str, given: object, known: tuple[str, ...]) -> str:
    if not isinstance(given, str) or given not in known:
        raise UsageError(f"{argument} {given!r} is not one of {', '.join(known)}")
    return given


def _codes(argument: str, given: object) -> tuple[str, ...]:
    """Codes or beginnings of codes; UsageError for one that no rule has."""
    codes = (given,) if isinstance(given, str) else given
    if not isinstance(codes, Iterable):
        raise UsageError(f"{argument} is {given!r}: give a rule code or several, like ['STB101', 'STB3']")
    from stabilize.passes.rules import BY_CODE, known

    result: list[str] = []
    for code in cast("Iterable[object]", codes):
        if not isinstance(code, str) or not known(code):
            beginnings = ", ".join(sorted({rule[:4] for rule in BY_CODE}))
            raise UsageError(f"{argument} {code!r} is no rule: codes begin with {beginnings}")
        result.append(code)
    return tuple(result)


def _ranges(given: object) -> dict[str, tuple[float, float]]:
    """Pairs of numbers by input name, in order; UsageError for anything else."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise UsageError(f"ranges is {given!r}: give a mapping from input names to (lowest, highest)")
    result: dict[str, tuple[float, float]] = {}
    for name, bounds in cast("Mapping[object, object]", given).items():
        pair = tuple(cast("Sequence[object]", bounds)) if isinstance(bounds, (tuple, list)) else ()
        match pair:
            case (Real() as low, Real() as high) if isinstance(name, str) and low <= high:
                result[name] = (as_float(low), as_float(high))
            case _:
                raise UsageError(f"ranges[{name!r}] is {bounds!r}: give (lowest, highest), two numbers")
    return result


def as_float(number: Real) -> float:
    """The infinity for a whole number that no float holds."""
    try:
        return float(number)
    except OverflowError:
        return -math.inf if number < 0 else math.inf


def checked_search(budget: object, seed: object, witness_dir: object) -> tuple[float, int, Path | None]:
    """The keywords of `lint` that say how witnesses are looked for, and where they go; UsageError for other values."""
    seconds = -1.0 if isinstance(budget, bool) or not isinstance(budget, Real) else as_float(budget)
    if not seconds >= 0:  # nor NaN
        raise UsageError(f"budget is {budget!r}: give a number of seconds, 0 or more")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MOST_SEED:
        raise UsageError(f"seed is {seed!r}: give a whole number from 0 to {MOST_SEED}")
    return seconds, seed, None if witness_dir is None else _folder(witness_dir)


def _folder(path: object) -> Path:
    name = os.fspath(cast("os.PathLike[str]", path)) if isinstance(path, (str, os.PathLike)) else path
    if not isinstance(name, str) or not name or "\0" in name:
        raise UsageError(f"witness_dir is {path!r}: give the path of a folder")
    return Path(name)

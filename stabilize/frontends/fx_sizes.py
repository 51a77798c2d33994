"""The sizes that a captured program was made for, as one plain Python function.

Shape conditions of a capture are symbolic expressions tied to the environment that made them. As source text they can
be pickled, cost little at every call, and are understood by what traces through them (torch.compile, torch.export).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self, cast, final

import torch
from torch.utils._sympy.printers import PythonPrinter

from stabilize.frontends.fx_types import expression_of


@final
class Sizes:
    """Which shapes (and symbolic integers) a program takes.

    fakes: its inputs as captured. constraints: symbol → the range that its size may have.
    """

    def __init__(self, fakes: Sequence[object], constraints: Mapping[Any, Any]) -> None:
        self._source = "\n    ".join(["def fits(x):", *_lines(fakes, constraints), "return True"])
        self.static = tuple(_static(fake) for fake in fakes)
        self.fits = _compiled(self._source)

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (self._source, self.static)

    @classmethod
    def restored(cls, source: str, static: tuple[tuple[bool, ...], ...]) -> Self:
        sizes = cls.__new__(cls)
        sizes._source, sizes.static, sizes.fits = source, static, _compiled(source)
        return sizes


def _restored(source: str, static: tuple[tuple[bool, ...], ...]) -> Sizes:
    return Sizes.restored(source, static)


def _static(fake: object) -> tuple[bool, ...]:
    """Axis by axis, whether the size is a number."""
    return tuple(not isinstance(s, torch.SymInt) for s in fake.shape) if isinstance(fake, torch.Tensor) else ()


def _lines(fakes: Sequence[object], constraints: Mapping[Any, Any]) -> Iterator[str]:
    """Statements that return False for sizes that do not fit; `x[i]` is the shape of input i, or its integer."""
    bound: dict[Any, str] = {}
    derived: list[str | None] = []
    for i, fake in enumerate(fakes):
        places: list[tuple[str, int | torch.SymInt]]
        if isinstance(fake, torch.Tensor):
            yield f"if len(x[{i}]) != {fake.dim()}: return False"
            places = [(f"x[{i}][{axis}]", size) for axis, size in enumerate(fake.shape)]
        else:
            places = [(f"x[{i}]", fake)] if isinstance(fake, torch.SymInt) else []
        for place, size in places:
            expression: Any = expression_of(size) if isinstance(size, torch.SymInt) else size
            if isinstance(size, torch.SymInt) and expression.is_Symbol and expression not in bound:
                bound[expression] = str(expression)
                yield f"{expression} = {place}"
            else:
                derived.append(_condition(expression, bound, f"{place} == {{}}"))
    yield from (f"if not ({condition}): return False" for condition in derived if condition)
    for guard in _guards(fakes):
        condition = _condition(guard, bound, "{}")
        if condition:
            yield f"if not ({condition}): return False"
    for symbol, span in constraints.items():
        if symbol in bound:
            yield from (f"if {bound[symbol]} {sign} {int(end)}: return False" for sign, end in _ends(span))


def _condition(expression: Any, bound: Mapping[Any, str], pattern: str) -> str | None:
    """`pattern` filled with Python text; None when the expression has symbols that no input is."""
    if isinstance(expression, int):
        return pattern.format(expression)
    if not expression.free_symbols <= set(bound):
        return None
    return pattern.format(f"({cast(Any, PythonPrinter()).doprint(expression)})")


def _ends(span: Any) -> Iterator[tuple[str, Any]]:
    if span.lower.is_Integer:
        yield "<", span.lower
    if span.upper.is_Integer:
        yield ">", span.upper


def _guards(fakes: Sequence[object]) -> list[Any]:
    """Conditions on symbolic sizes (sympy expressions) that the capture relied on."""
    sizes = [s for f in fakes if isinstance(f, torch.Tensor) for s in f.shape if isinstance(s, torch.SymInt)]
    environment: Any = cast(Any, sizes[0]).node.shape_env if sizes else None
    return [guard.expr for guard in environment.guards] if environment is not None else []


def _compiled(source: str) -> Callable[[Sequence[Any]], bool]:
    names: dict[str, Any] = {"math": math}
    exec(compile(source, "<sizes of a captured program>", "exec"), names)
    return cast("Callable[[Sequence[Any]], bool]", names["fits"])

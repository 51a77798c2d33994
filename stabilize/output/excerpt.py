"""The line of the user's source that a finding points at, and which part of it computes."""

from __future__ import annotations

import ast
import linecache
import re
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, final

Span: TypeAlias = tuple[int, int]
_Expressions: TypeAlias = dict[int, list[tuple[str, Span]]]

#: A model file may name any path: what is shown of it is Python source of a size that people write.
_LARGEST = 4_000_000

#: What nodes that compute an operator of Python are called.
_OPERATORS: dict[type[ast.operator], tuple[str, ...]] = {
    ast.Add: ("add", "radd"),
    ast.Sub: ("sub", "rsub"),
    ast.Mult: ("mul", "rmul"),
    ast.Div: ("div", "truediv", "rtruediv", "reciprocal"),
    ast.Pow: ("pow", "rpow"),
    ast.MatMult: ("matmul", "bmm", "mm"),
}


@final
@dataclass(frozen=True, slots=True)
class Excerpt:
    """A line of source, tabs as spaces. start, end: the columns of what it computes."""

    line: int
    text: str
    start: int
    end: int


@final
class Sources:
    """Reads each file once."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[Sequence[str], _Expressions]] = {}

    def excerpt(self, file: str | None, line: int | None, node: str = "") -> Excerpt | None:
        """None when the source is not here, or is shorter than it was.

        node: the host node that was computed there: if one expression of the line alone can have made it, that is
        marked, else all that the line computes.
        """
        if file is None or line is None:
            return None
        if file not in self._files:
            lines = _lines(file)
            self._files[file] = lines, _expressions(lines)
        lines, expressions = self._files[file]
        if not 1 <= line <= len(lines) or not lines[line - 1].strip():
            return None
        raw = lines[line - 1].rstrip()
        start, end = _marked(expressions.get(line, []), node) or (len(raw) - len(raw.lstrip()), len(raw))
        columns = (len(raw[:column].expandtabs(4)) for column in (start, end))
        return Excerpt(line, raw.expandtabs(4), *columns)


def _marked(found: Sequence[tuple[str, Span]], node: str) -> Span | None:
    made = [span for name, span in found if name and _operator(node) in name.split()]
    whole = [span for name, span in found if not name]
    return made[0] if len(made) == 1 else whole[-1] if whole else None


def _operator(node: str) -> str:
    """`blocks.0/node_exp_12` → `exp`."""
    return re.sub(r"(_\d+)+$", "", node.rpartition("/")[2].lower().removeprefix("node_"))


def _lines(file: str) -> Sequence[str]:
    path = Path(file)
    try:
        if path.suffix == ".py" and path.is_file() and path.stat().st_size <= _LARGEST:
            with tokenize.open(path) as source:  # in the encoding that the file declares
                return source.read().splitlines()
    except (OSError, SyntaxError, UnicodeDecodeError):
        return ()
    return linecache.getlines(file) if file in linecache.cache else ()  # the cells of a notebook


def _expressions(lines: Sequence[str]) -> _Expressions:
    """Line → what is computed there, with the operators it may be of; without any, what a whole statement computes."""
    try:
        tree = ast.parse("\n".join(line.rstrip("\n") for line in lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    found: _Expressions = {}
    for name, expression in _named(tree):
        for line in range(expression.lineno, (expression.end_lineno or expression.lineno) + 1):
            text = lines[line - 1].rstrip()
            start = (
                _column(text, expression.col_offset) if line == expression.lineno else len(text) - len(text.lstrip())
            )
            end = _column(text, expression.end_col_offset or 0) if line == expression.end_lineno else len(text)
            found.setdefault(line, []).append((name, (start, max(start + 1, end))))
    return found


def _named(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Calls and operators by name; what statements compute, outer statements first, without one."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
                yield name.lower().strip("_"), node
            case ast.BinOp() if type(node.op) in _OPERATORS:
                yield " ".join(_OPERATORS[type(node.op)]), node
            case ast.Assign() | ast.AugAssign() | ast.AnnAssign() | ast.Return() | ast.Expr() if node.value is not None:
                yield "", node.value
            case ast.If() | ast.While() | ast.Assert():
                yield "", node.test
            case _:
                pass


def _column(text: str, offset: int) -> int:
    """The column of an offset in bytes."""
    return len(text.encode()[:offset].decode(errors="ignore"))

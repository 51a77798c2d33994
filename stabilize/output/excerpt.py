"""The line of the user's source that a finding points at, and which part of it computes."""

from __future__ import annotations

import ast
import linecache
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, final

Span: TypeAlias = tuple[int, int]

#: A model file may name any path: what is shown of it is Python source of a size that people write.
_LARGEST = 4_000_000


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
        self._files: dict[str, tuple[Sequence[str], dict[int, Span]]] = {}

    def excerpt(self, file: str | None, line: int | None) -> Excerpt | None:
        """None when the source is not here, or is shorter than it was."""
        if file is None or line is None:
            return None
        if file not in self._files:
            lines = _lines(file)
            self._files[file] = lines, _computed(lines)
        lines, computed = self._files[file]
        if not 1 <= line <= len(lines) or not lines[line - 1].strip():
            return None
        raw = lines[line - 1].rstrip()
        start, end = computed.get(line, (len(raw) - len(raw.lstrip()), len(raw)))
        columns = (len(raw[:column].expandtabs(4)) for column in (start, end))
        return Excerpt(line, raw.expandtabs(4), *columns)


def _lines(file: str) -> Sequence[str]:
    path = Path(file)
    try:
        if path.suffix == ".py" and path.is_file() and path.stat().st_size <= _LARGEST:
            with tokenize.open(path) as source:  # in the encoding that the file declares
                return source.read().splitlines()
    except (OSError, SyntaxError, UnicodeDecodeError):
        return ()
    return linecache.getlines(file) if file in linecache.cache else ()  # the cells of a notebook


def _computed(lines: Sequence[str]) -> dict[int, Span]:
    """Line → the columns of the expression that the innermost statement there computes."""
    try:
        tree = ast.parse("\n".join(line.rstrip("\n") for line in lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    spans: dict[int, Span] = {}
    for expression in _expressions(tree):
        for line in range(expression.lineno, (expression.end_lineno or expression.lineno) + 1):
            text = lines[line - 1].rstrip()
            start = (
                _column(text, expression.col_offset) if line == expression.lineno else len(text) - len(text.lstrip())
            )
            end = _column(text, expression.end_col_offset or 0) if line == expression.end_lineno else len(text)
            spans[line] = start, max(start + 1, end)
    return spans


def _expressions(tree: ast.AST) -> Iterator[ast.expr]:
    """What the statements compute, outer statements first."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Return, ast.Expr)):
            if node.value is not None:
                yield node.value
        elif isinstance(node, (ast.If, ast.While, ast.Assert)):
            yield node.test


def _column(text: str, offset: int) -> int:
    """The column of an offset in bytes."""
    return len(text.encode()[:offset].decode(errors="ignore"))

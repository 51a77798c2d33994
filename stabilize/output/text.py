"""Findings as a compiler tells of errors: the user's line, both expressions, what breaks them, what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from stabilize.output.excerpt import Excerpt, Sources
from stabilize.output.places import origin, place
from stabilize.output.witness import described
from stabilize.passes.rules import BY_CODE
from stabilize.records import SEVERITIES, Finding

if TYPE_CHECKING:
    from rich.text import Text

#: A line is what is written, each part with its style in the terms of rich; "" is plain.
Line: TypeAlias = "list[tuple[str, str]]"

_STYLES = {"error": "bold red", "warning": "bold yellow", "info": "bold cyan"}
_GUTTER, _REMOVED, _ADDED, _LABEL = "bold blue", "red", "green", "bold"


def text(model: str, findings: Sequence[Finding]) -> str:
    """Every finding and the totals, for a file or a pipe."""
    return plain(lines(model, findings))


def coloured(model: str, findings: Sequence[Finding]) -> Text:
    """The same for a terminal."""
    from rich.text import Text

    shown = Text()
    for line in lines(model, findings):
        for part, style in line:
            shown.append(printable(part), style)
        shown.append("\n")
    return shown


def plain(shown: Iterable[Line]) -> str:
    """Lines without their styles, each ended."""
    return "".join("".join(printable(part) for part, _ in line) + "\n" for line in shown)


def printable(part: str) -> str:
    """Names come from the model: none of them moves the cursor or breaks a line."""
    return part if part.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in part)


def lines(model: str, findings: Sequence[Finding]) -> Iterator[Line]:
    """A block for each finding, then the totals."""
    sources = Sources()
    for finding in findings:
        yield from block(model, finding, sources.excerpt(finding.file, finding.line, finding.node))
        yield []
    yield [(f"{model}: ", ""), (totals(findings), _LABEL)]


def block(model: str, finding: Finding, excerpt: Excerpt | None) -> Iterator[Line]:
    """One finding."""
    at, style = place(finding, model), _STYLES[finding.severity]
    yield [
        (f"{at}: ", _LABEL),
        (f"{finding.severity}[{finding.code}]", style),
        (f" {finding.name}: ", _LABEL),
        (finding.message, ""),
    ]
    margin = " " * (len(str(excerpt.line)) if excerpt else 1)
    if excerpt is not None:
        yield [(f"{margin} |", _GUTTER)]
        yield [(f"{excerpt.line} | ", _GUTTER), (excerpt.text, "")]
        marks = " " * excerpt.start + "^" * (excerpt.end - excerpt.start)
        yield [(f"{margin} | ", _GUTTER), (marks, style)]
        yield [(f"{margin} |", _GUTTER)]
    if finding.naive is not None and finding.stable is not None:
        yield [(f"{margin} - {finding.naive}", _REMOVED)]
        yield [(f"{margin} + {finding.stable}", _ADDED)]
    yield from notes(margin, _told(finding, at))


def notes(margin: str, told: Iterable[tuple[str, Sequence[str]]]) -> Iterator[Line]:
    """`= label: text`, further lines below the first; none without text."""
    for label, rows in told:
        for i, row in enumerate(row for row in rows if row):
            lead = f"{margin} = {label}: " if not i else " " * len(f"{margin} = {label}: ")
            yield [(lead, _GUTTER), (row, "")]


def _told(finding: Finding, at: str) -> Iterator[tuple[str, list[str]]]:
    """What is said below the expressions, by label."""
    rule = BY_CODE.get(finding.code)
    if finding.naive is not None and finding.stable is None:
        yield "naive", [finding.naive]
    if finding.condition:
        yield "breaks", [finding.condition]
    if finding.witness:
        yield "witness", list(described(finding.witness))
    yield "at", [origin(finding, at)]
    if finding.safety == "exact" and finding.fixable:
        yield "fix", ["stabilize optimize (exact: equal over the reals)"]
    elif finding.safety == "approximate":
        yield "fix", ["stabilize optimize --allow approximate"]
    if finding.stable is None and rule is not None:
        yield "help", rule.remedy.splitlines()
    if rule is not None:
        yield "help", [f"stabilize explain {finding.code}"]


def totals(findings: Sequence[Finding]) -> str:
    """`3 findings (1 error, 2 warnings), 2 fixable`."""
    fixable = sum(f.fixable for f in findings)
    return found(findings) + (f", {fixable} fixable" if fixable else "")


def found(findings: Sequence[Finding]) -> str:
    """`3 findings (1 error, 2 warnings)`."""
    by_severity = [(s, sum(f.severity == s for f in findings)) for s in SEVERITIES]
    detail = ", ".join(counted(n, s) if s != "info" else f"{n} info" for s, n in by_severity if n)
    return counted(len(findings), "finding") + (f" ({detail})" if detail else "")


def counted(count: int, noun: str) -> str:
    """`1 rewrite`, `2 rewrites`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as columns, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    filled = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in filled)

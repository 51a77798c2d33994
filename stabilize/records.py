"""What `optimize` found, changed and refused: plain records, their JSON form, and text for a terminal.

The records hold data only. They are made by the pipeline, one per match, and never change afterwards.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal, Protocol, TypeAlias, cast, final

Severity: TypeAlias = Literal["error", "warning", "info"]
Safety: TypeAlias = Literal["exact", "approximate", "model-changing"]
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

#: Version of the JSON form. It grows by one when a reader of the old form could misread the new one.
SCHEMA_VERSION = 1

_SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


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
    severity: `"error"` when inputs of ordinary size break it, `"warning"` when extreme ones do, else `"info"`.
    message: one sentence.
    node: name of the host node whose value is affected.
    module: dotted path of the module it came from, if the host knows.
    file, line: the user's source, if the host knows.
    naive, stable: one-line text of both expressions; `stable` is None when there is no fix.
    condition: when it breaks, e.g. `"x > 88.72 in float32"`.
    witness: an input that breaks it (input name → value), if one is known.
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


@final
@dataclass(frozen=True, slots=True)
class Report:
    """Everything one run of `optimize` has to say about one model.

    model: what was read: a class name, or the path of a file.
    findings: every defect that was found, fixed or not.
    rewrites: what was applied.
    declined: what was refused.
    """

    model: str
    findings: list[Finding] = field(default_factory=list["Finding"])
    rewrites: list[Rewrite] = field(default_factory=list["Rewrite"])
    declined: list[Declined] = field(default_factory=list["Declined"])

    def extend(self, other: Report) -> None:
        """Add the records of `other`."""
        self.findings.extend(other.findings)
        self.rewrites.extend(other.rewrites)
        self.declined.extend(other.declined)

    def within(self, body: str) -> Report:
        """The same report as said of a graph that has this one inside it: nodes are named `body/node`."""
        return Report(
            self.model,
            [replace(f, node=f"{body}/{f.node}") for f in self.findings],
            [replace(r, node=f"{body}/{r.node}") for r in self.rewrites],
            [replace(d, node=f"{body}/{d.node}") for d in self.declined],
        )

    def to_dict(self) -> dict[str, Json]:
        """`{"schema_version": 1, "model": ..., "findings": [...], "rewrites": [...], "declined": [...]}`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "findings": [f.to_dict() for f in self.findings],
            "rewrites": [r.to_dict() for r in self.rewrites],
            "declined": [d.to_dict() for d in self.declined],
        }

    def to_json(self, *, indent: int | None = 2) -> str:
        """`to_dict` as strict JSON: infinities and NaN are the strings `"inf"`, `"-inf"`, `"nan"`."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    def __str__(self) -> str:
        return render(self)


def _record(record: Finding | Rewrite | Declined) -> dict[str, Json]:
    return {f.name: json_clean(getattr(record, f.name)) for f in fields(record)}


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


# -- text ------------------------------------------------------------------------------------------------------------


def place(record: Finding | Rewrite | Declined) -> str:
    """Where a record points: `file:line` as far as it is known, else the host node. Paths as seen from here."""
    if record.file is None:
        return record.node
    file = os.path.relpath(record.file) if Path(record.file).is_relative_to(Path.cwd()) else record.file
    return file if record.line is None else f"{file}:{record.line}"


def origin(record: Finding | Rewrite | Declined) -> str:
    """The host node and the module it came from, as far as `place` did not name them."""
    node = f"node {record.node}" if record.file is not None else ""
    module = f"in {record.module}" if record.module else ""
    return ", ".join(part for part in (node, module) if part)


def counted(count: int, noun: str) -> str:
    """`1 rewrite`, `2 rewrites`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def summary(report: Report) -> str:
    """One line of totals."""
    by_severity = [(s, sum(f.severity == s for f in report.findings)) for s in _SEVERITIES]
    detail = ", ".join(counted(n, s) if s != "info" else f"{n} info" for s, n in by_severity if n)
    found = counted(len(report.findings), "finding") + (f" ({detail})" if detail else "")
    return f"{found}, {counted(len(report.rewrites), 'rewrite')}, {len(report.declined)} declined"


def render(report: Report) -> str:
    """The report as text: one block per finding, then what was done about it, then the totals."""
    blocks = [*map(_finding_text, report.findings), *map(_rewrite_text, report.rewrites)]
    blocks += map(_declined_text, report.declined)
    return "\n\n".join(["\n".join(block) for block in blocks] + [f"{report.model}: {summary(report)}"])


def _finding_text(finding: Finding) -> list[str]:
    head = f"{place(finding)}: {finding.severity}[{finding.code}]: {finding.message} [{finding.name}]"
    return [
        head,
        *_aligned(
            [
                ("at", origin(finding)),
                ("naive", finding.naive),
                ("breaks", finding.condition),
                ("witness", _witness(finding.witness)),
                ("stable", finding.stable),
            ]
        ),
    ]


def _rewrite_text(rewrite: Rewrite) -> list[str]:
    certificate = "not certified" if rewrite.certificate is None else rewrite.certificate.text()
    return [
        f"{place(rewrite)}: rewrote[{rewrite.code}]: {rewrite.name}, {rewrite.safety}",
        *_aligned(
            [
                ("at", origin(rewrite)),
                ("before", rewrite.naive),
                ("after", rewrite.stable),
                ("proof", certificate),
            ]
        ),
    ]


def _declined_text(declined: Declined) -> list[str]:
    return [
        f"{place(declined)}: declined[{declined.code}]: {declined.name}",
        *_aligned([("at", origin(declined)), ("reason", declined.reason)]),
    ]


def _aligned(rows: Iterable[tuple[str, str | None]]) -> list[str]:
    """`  label   text`; continuation lines keep the text's column, rows without text are left out."""
    kept = [(label, text) for label, text in rows if text]
    width = max((len(label) for label, _ in kept), default=0)
    lines: list[str] = []
    for label, text in kept:
        first, *rest = text.splitlines()
        lines.append(f"  {label:<{width}}  {first}")
        lines += [f"  {'':<{width}}  {line}" for line in rest]
    return lines


def _witness(witness: Mapping[str, object] | None) -> str | None:
    if not witness:
        return None
    return ", ".join(f"{name} = {json.dumps(json_clean(value))}" for name, value in witness.items())

"""Everything that one run has to say about one model, and its forms."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import final

from stabilize.output import sarif
from stabilize.output.excerpt import Sources
from stabilize.output.places import origin, place
from stabilize.output.text import Line, block, counted, found, notes, plain, totals
from stabilize.records import SCHEMA_VERSION, Certificate, Declined, Finding, Json, Rewrite


@final
@dataclass(frozen=True, slots=True)
class Report:
    """What one run of `optimize` or `lint` has to say about one model.

    model: what was read: a class name, or the path of a file.
    findings: every defect that was found, fixed or not.
    rewrites: what was applied.
    declined: what was refused.
    certificate: of the whole model, where one was asked for: how it compares with what it was made from.
    """

    model: str
    findings: list[Finding] = field(default_factory=list["Finding"])
    rewrites: list[Rewrite] = field(default_factory=list["Rewrite"])
    declined: list[Declined] = field(default_factory=list["Declined"])
    certificate: Certificate | None = None

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

    def to_sarif(self) -> str:
        """The findings as a SARIF 2.1.0 log, for code scanning; files are named from the working directory."""
        return sarif.text(self.model, self.findings)

    def __str__(self) -> str:
        return plain(_lines(self)).removesuffix("\n")


def summary(report: Report) -> str:
    """One line of totals of a run that rewrites."""
    return f"{found(report.findings)}, {counted(len(report.rewrites), 'rewrite')}, {len(report.declined)} declined"


def _lines(report: Report) -> Iterator[Line]:
    """A block for each finding, what was done about it, the totals."""
    sources = Sources()
    for finding in report.findings:
        yield from block(report.model, finding, sources.excerpt(finding.file, finding.line, finding.node))
        yield []
    for rewrite in report.rewrites:
        yield from _rewrite(rewrite)
        yield []
    for declined in report.declined:
        yield from _declined(declined)
        yield []
    if report.certificate is not None:
        yield [(f"{report.model}: the whole model: {report.certificate.text()}", "")]
    told = summary(report) if report.rewrites or report.declined else totals(report.findings)
    yield [(f"{report.model}: {told}", "")]


def _rewrite(rewrite: Rewrite) -> Iterator[Line]:
    at = place(rewrite)
    proof = "not certified" if rewrite.certificate is None else rewrite.certificate.text()
    yield [(f"{at}: rewrote[{rewrite.code}] {rewrite.name}: {rewrite.safety}", "")]
    yield [(f"  - {rewrite.naive}", "")]
    yield [(f"  + {rewrite.stable}", "")]
    yield from notes(" ", [("proof", proof.splitlines()), ("at", [origin(rewrite, at)])])


def _declined(declined: Declined) -> Iterator[Line]:
    at = place(declined)
    yield [(f"{at}: declined[{declined.code}] {declined.name}", "")]
    yield from notes(" ", [("reason", declined.reason.splitlines()), ("at", [origin(declined, at)])])

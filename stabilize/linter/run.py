"""One lint of one model: find, prove, grade."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from stabilize.graph.host import Host
from stabilize.linter.analysis import Found, found_in
from stabilize.passes.rule import Options
from stabilize.pipeline import Request
from stabilize.report import Finding, Report


def lint_host(host: Host, request: Request, model: str) -> Report:
    """The findings in a host graph and the graphs inside it, in the order in which they are computed."""
    options = Options(request.form, request.allow, host.kind, hazards=True)
    return Report(model, findings=_distinct(_unproven(f) for f in found_in(host, options, request)))


def _unproven(found: Found) -> Finding:
    """An error is a defect that an input was seen to cause; without one it is a warning."""
    finding = found.finding
    return replace(finding, severity="warning") if finding.severity == "error" else finding


def _distinct(findings: Iterable[Finding]) -> list[Finding]:
    """Each defect of a node once: two rules may meet in it, and one in two of its parts."""
    return list({(f.code, f.node, f.naive): f for f in findings}.values())

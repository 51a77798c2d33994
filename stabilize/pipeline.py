"""One run over one host graph: propose, certify, record, patch, until nothing is left; the host graph and the report.

Nothing here knows a rule or a host: rules propose, the host says what it can express, the certificate judges.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias, TypeVar, final

from stabilize.graph.host import Host
from stabilize.graph.value import Value
from stabilize.graph.view import Replacement
from stabilize.passes.coarse_operator import RULE as COARSE
from stabilize.passes.propose import context, proposals, uncovered
from stabilize.passes.rule import Options, Proposal
from stabilize.report import Report
from stabilize.respell import respelled
from stabilize.scribe import Scribe
from stabilize.verify.certificate import Effort, certify_rewrite

#: Told what is being looked at: (values certified so far, name of the rule).
Progress: TypeAlias = Callable[[int, str], None]


@final
@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked of one run; the keywords of `stabilize.optimize`."""

    form: str = "softmax"
    allow: str = "exact"
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    select: Collection[str] | None = None
    ignore: Collection[str] = ()
    certify: bool = True

    def wants(self, code: str) -> bool:
        """`select` and `ignore` take codes or their prefixes ("STB1")."""
        if any(code.startswith(c) for c in self.ignore):
            return False
        return self.select is None or any(code.startswith(c) for c in self.select)


#: A rewrite can uncover another one inside what it emitted or around it. On the panel three rounds are enough: two that
#: rewrite, and one that finds nothing.
_MOST_ROUNDS: Final = 4

_Host = TypeVar("_Host", bound=Host)


def run(
    host: _Host, request: Request, model: str, progress: Progress | None = None, effort: Effort | None = None
) -> tuple[_Host, Report]:
    """`host` and the graphs inside it with every rewrite that was accepted, itself when there was none; the report."""
    report, effort = Report(model), effort or Effort()
    for _ in range(_MOST_ROUNDS):
        replacements, found, settled = _round(host, request, model, progress, effort)
        _append(report, found)
        host = host.patched(replacements)
        if settled:
            break
    if request.wants(COARSE.code):
        host, found = respelled(host, model, certify=request.certify)
        report.extend(found)
    changed: dict[str, Host] = {}
    inside = replace(request, ranges={})  # they name inputs of the model, not of a body
    for name, body in host.bodies().items():
        rewritten, found = run(body, inside, model, progress, effort)
        report.extend(found.within(name))
        if rewritten is not body:
            changed[name] = rewritten
    return host.with_bodies(changed) if changed else host, report


def _append(report: Report, later: Report) -> None:
    """Add what a later round found and changed. What it could not fix for the second time is known already; what it
    did fix is no longer declined."""
    fixed = {(r.code, r.node) for r in later.rewrites}
    report.findings[:] = [f for f in report.findings if f.fixable or (f.code, f.node) not in fixed]
    report.declined[:] = [d for d in report.declined if (d.code, d.node) not in fixed]
    reported = {(f.code, f.node) for f in report.findings}
    refused = {(d.code, d.node) for d in report.declined}
    report.findings.extend(f for f in later.findings if f.fixable or (f.code, f.node) not in reported)
    report.declined.extend(d for d in later.declined if (d.code, d.node) not in refused)
    report.rewrites.extend(later.rewrites)


def _round(
    host: Host, request: Request, model: str, progress: Progress | None, effort: Effort
) -> tuple[list[Replacement], Report, bool]:
    """Propose, certify and record once: replacements, report, and whether they uncover nothing.

    The host is read, never changed.
    """
    ctx = context(host.view, Options(request.form, request.allow, host.kind), dict(request.ranges))
    judge = _Judge(host, request, Report(model), progress, effort)
    replaced = proposals(host.view, ctx, judge.take)
    judge.report.findings.reverse()
    judge.report.rewrites.reverse()
    judge.report.declined.reverse()
    settled = not any(request.wants(p.rule.code) for p in uncovered(host.view, ctx, replaced))
    return [Replacement(old, new) for old, new in replaced.items()], judge.report, settled


@final
class _Judge:
    """Decides on proposals one by one and writes down what it decided."""

    def __init__(self, host: Host, request: Request, report: Report, progress: Progress | None, effort: Effort) -> None:
        self.report: Final = report
        self._effort = effort
        self._host, self._request, self._progress = host, request, progress
        self._scribe = Scribe(host.view)

    def take(self, proposal: Proposal) -> Value | None:
        """The candidate to apply, or None."""
        rule = proposal.rule
        if not self._request.wants(rule.code):
            return None
        if self._progress is not None:
            self._progress(len(self.report.rewrites), rule.name)
        refusals: list[str] = []
        for candidate in proposal.candidates:
            refusal = self._host.refusal(Replacement(proposal.old, candidate))
            if refusal is not None:
                refusals.append(refusal)
                continue
            approximate = proposal.safety == "approximate"
            certificate = (
                certify_rewrite(proposal.old, candidate, approximate=approximate, effort=self._effort)
                if self._request.certify
                else None
            )
            if certificate is None or (certificate.accepted and certificate.idle is None):
                self.report.findings.append(self._scribe.finding(proposal, candidate, fixable=True))
                self.report.rewrites.append(self._scribe.rewrite(proposal, candidate, certificate))
                return candidate
            refusals.append(certificate.reason or certificate.idle or "worse than the original")
        first = proposal.candidates[0] if proposal.candidates else None
        self.report.findings.append(self._scribe.finding(proposal, first, fixable=False))
        if refusals:
            self.report.declined.append(self._scribe.declined(proposal, "; ".join(dict.fromkeys(refusals))))
        return None

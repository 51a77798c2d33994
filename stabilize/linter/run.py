"""One lint of one model: find, prove, grade."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Final, TypeAlias, final

from stabilize.graph.host import Host
from stabilize.linter.analysis import Found, found_in
from stabilize.linter.ascent import reached
from stabilize.linter.proof import Named, Suspect
from stabilize.linter.replay import replayed
from stabilize.linter.witness import Witness
from stabilize.passes.rule import Options
from stabilize.pipeline import Request
from stabilize.records import Finding
from stabilize.report import Report
from stabilize.verify.certificate import undisturbed

#: Told how much is done, 0 to 1, and what is looked at.
Progress: TypeAlias = Callable[[float, str], None]


#: Host values of a model that is searched as a whole: one run of a larger one takes longer than all its expressions.
_MOST_NODES: Final = 3000


@final
class Search:
    """The search for witnesses. examples: gives inputs that the model runs on; asked once, and only when needed."""

    def __init__(self, budget: float, seed: int, examples: Callable[[], Sequence[Named]]) -> None:
        self._deadline = time.monotonic() + budget
        self._seed = seed
        self._find_examples = examples

    @cached_property
    def _examples(self) -> Sequence[Named]:
        return self._find_examples()

    @property
    def _left(self) -> float:
        """Seconds."""
        return self._deadline - time.monotonic()

    def witnesses(self, every: Sequence[Found], tell: Callable[[int, Found], None]) -> list[Witness | None]:
        """For each finding an input of the model if one is found, else of its expression, else None.

        Expressions come first: they are small, and what is found of them says what to look for in the model.
        tell: told what is looked at, and how many looks are done of two for each finding.
        """
        suspects: list[Suspect | None] = []
        witnesses: list[Witness | None] = []
        for i, found in enumerate(every):
            tell(i, found)
            suspect = Suspect.of(found, self._seed) if self._left > 0 else None
            honest = found.proposal.rule.honest  # of the expression it proves nothing
            suspects.append(suspect)
            witnesses.append(None if suspect is None or honest else replayed(suspect))
        for i, (found, suspect) in enumerate(zip(every, suspects, strict=True)):
            tell(len(every) + i, found)
            large = len(found.graph.host.view.bindings) > _MOST_NODES
            if suspect is None or found.graph.path or large or self._left <= 0 or not self._examples:
                continue
            deadline = time.monotonic() + self._left / (len(every) - i)
            witnesses[i] = reached(suspect, self._examples, deadline, self._seed) or witnesses[i]
        return witnesses


def lint_host(host: Host, request: Request, model: str, search: Search | None, progress: Progress | None) -> Report:
    """The findings in a host graph and the graphs inside it, in the order in which they are computed."""
    options = Options(request.form, request.allow, host.kind, hazards=True)
    with undisturbed():  # weights are summed by the thousand
        every = list(found_in(host, options, request))

    def tell(done: int, found: Found) -> None:
        if progress is not None:
            progress(done / (2 * len(every)), f"{found.finding.code} {found.finding.node}")

    witnesses = [None for _ in every] if search is None else search.witnesses(every, tell)
    graded = (_graded(f, w, searched=search is not None) for f, w in zip(every, witnesses, strict=True))
    return Report(model, findings=_distinct(graded))


def _graded(found: Found, witness: Witness | None, *, searched: bool) -> Finding:
    """An error is a defect that an input was seen to cause; without one it is a warning. A number that is lost makes an
    error of what is told as less, if there is a fix, or if the rule is one of errors."""
    finding, rule = replace(found.finding, witness=witness), found.proposal.rule
    fixable = found.replacement is not None
    if not fixable and not (rule.poles and not rule.honest) and (witness is None or witness.scope == "expression"):
        # of operands that nothing is known of: they may be related, so that they never meet like this
        return replace(finding, severity="info")
    if witness is None:
        if finding.severity == "error":  # of a rule that relies on the ranges
            return replace(finding, severity="warning")
        return replace(finding, severity="info") if searched and fixable else finding
    grave = fixable or (rule.severity == "error" and not rule.poles)
    return replace(finding, severity="error") if witness.kind == "lost" and grave else finding


def _distinct(findings: Iterable[Finding]) -> list[Finding]:
    """Each defect of a node once: two rules may meet in it, and one in two of its parts."""
    return list({(f.code, f.node, f.naive): f for f in findings}.values())

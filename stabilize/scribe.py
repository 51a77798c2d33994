"""How a proposal is told: as a finding, a rewrite or a decline, with the host's names and the user's source."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from typing import final

from stabilize.formats import FORMATS, is_float
from stabilize.graph.text import one_line
from stabilize.graph.value import Value, cone, latest_first, shared_frontier
from stabilize.graph.view import Source, View
from stabilize.passes.rule import Proposal
from stabilize.records import Certificate, Declined, Finding, Rewrite


@final
class Scribe:
    """Writes the records of one view."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._names = _shown_names(view)
        self._nodes = view.names()

    def finding(self, proposal: Proposal, new: Value | None, *, fixable: bool) -> Finding:
        """new: what would stand in the place of what was found; None when nothing is known that could."""
        rule, node, source = proposal.rule, *self._where(proposal.old)
        naive, stable = self._texts(proposal.old, new)
        severity = proposal.severity or rule.severity
        # indices have no format of their own: that of what they were found in
        fmt = next(FORMATS[v.dtype] for v in latest_first(proposal.old) if is_float(v.dtype))
        condition = None if rule.condition is None else rule.condition(fmt)
        return Finding(
            rule.code, rule.name, severity, proposal.message or rule.reason,
            node, source.module, source.file, source.line, naive, stable, condition, None, proposal.safety, fixable,
        )  # fmt: skip

    def rewrite(self, proposal: Proposal, new: Value, certificate: Certificate | None) -> Rewrite:
        rule, node, source = proposal.rule, *self._where(proposal.old)
        naive, stable = self._texts(proposal.old, new)
        assert proposal.safety is not None
        return Rewrite(
            rule.code, rule.name, node, source.module, source.file, source.line, naive, stable or "",
            proposal.safety, certificate,
        )  # fmt: skip

    def declined(self, proposal: Proposal, reason: str) -> Declined:
        rule, node, source = proposal.rule, *self._where(proposal.old)
        return Declined(rule.code, rule.name, node, source.module, source.file, source.line, reason)

    def _where(self, value: Value) -> tuple[str, Source]:
        """The host node that computes `value`, and where it came from."""
        names = self._nodes.get(value, [])
        node = names[0] if names else f"v{value.index}"
        sources = self._view.sources
        return node, next((sources[n] for n in names if n in sources), Source())

    def _texts(self, old: Value, new: Value | None) -> tuple[str, str | None]:
        """Both expressions as one line, over the values that the new one stands on."""
        leaves = ChainMap({}, self._names)
        if new is not None:
            for v in shared_frontier(new, old):
                if v in self._nodes and v.op not in ("constant", "detach") and v is not old:
                    leaves.setdefault(v, self._where(v)[0])
        naive = one_line(old, leaves)
        if new is None:
            return naive, None
        stable = one_line(new, leaves)
        return naive, stable if stable != naive else f"{stable}, computed in {_widest(new, leaves)}"


def _widest(value: Value, leaves: Mapping[Value, str]) -> str:
    """The most precise format in which an expression over `leaves` computes."""
    formats = {v.dtype for v in cone([value], {v for v in leaves if v is not value}) if v.dtype in FORMATS}
    return max(formats, key=lambda dtype: FORMATS[dtype].precision, default=value.dtype)


def _shown_names(view: View) -> dict[Value, str]:
    """Inputs and opaque values by their host names: where one-line text stops."""
    return {v: n for n, v in reversed(list(view.bindings.items())) if v.op in ("input", "opaque")}

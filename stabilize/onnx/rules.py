"""`rewrite_rules`: the engine where onnxscript's rewriter expects a set of rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack, final

import onnx_ir as ir

from stabilize.errors import MissingExtraError
from stabilize.onnx.graph_pass import rewrite_in_place
from stabilize.onnx.keywords import Keywords, check
from stabilize.report import Report

try:
    from onnxscript.rewriter import MatchingTracer, RewriteRuleSet
except ImportError as error:
    raise MissingExtraError("onnxscript", "onnx", "a rule set for onnxscript's rewriter") from error

if TYPE_CHECKING:
    from onnxscript.rewriter import RewriteRule


def rewrite_rules(*rules: RewriteRule, **keywords: Unpack[Keywords]) -> StabilizeRules:
    """A rule set for `onnxscript.rewriter.rewrite(model, pattern_rewrite_rules=...)` and `RewritePass`.

    rules: of onnxscript, to apply as well; after the engine has run, since some of onnxscript's own take a small
        epsilon for 0, which the engine would have to know of.
    keywords: `form`, `allow`, `ranges`, `select`, `ignore`, `runtime`, `allow_fast`, `certify`, as for
        `stabilize.optimize`.

    The engine reads whole graphs, so it is no rule with a pattern that onnxscript matches node by node, and is not
    found by iterating over the set: the set as a whole applies it.

    Raises UsageError for wrong keywords. Applying the set raises ModelError for a model that cannot be read.
    """
    check(keywords)
    return StabilizeRules(rules, keywords)


@final
class StabilizeRules(RewriteRuleSet):
    """What `rewrite_rules` makes. report: of the last run, None before the first."""

    def __init__(self, rules: tuple[RewriteRule, ...], keywords: Keywords) -> None:
        self._keywords = keywords
        self._others = RewriteRuleSet(rules) if rules else None
        self.rules = rules
        self.remove_unused_nodes = self._others is not None and self._others.remove_unused_nodes
        self.report: Report | None = None

    def apply_to_model(
        self, model: ir.Model, *, verbose: int | None = None, tracer: MatchingTracer | None = None
    ) -> int:
        """Rewrite `model` in place; how many rewrites there were, those of the other rules included.

        verbose: whether to print each rewrite. tracer: looks at the other rules alone, and nothing is changed.
        """
        count = 0
        if tracer is None:
            self.report = rewrite_in_place(model, self._keywords)
            count = len(self.report.rewrites)
            if verbose and count:
                print(self.report)
        if self._others is not None:
            count += self._others.apply_to_model(model, verbose=verbose, tracer=tracer)
        return count

    def __repr__(self) -> str:
        return f"rewrite_rules({', '.join(map(str, self.rules))})"

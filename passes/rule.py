"""What a rule is, what it may propose, and what it may look at."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias, final

from stabilize.formats import FORMATS, Format
from stabilize.graph.build import Builder, constant_of
from stabilize.graph.ops import LAYOUT
from stabilize.graph.value import Value, cone
from stabilize.passes.emit import Emitter
from stabilize.passes.linear import Linear
from stabilize.passes.ranges import Ranges, comparison
from stabilize.passes.scaled import Engine

Safety: TypeAlias = Literal["exact", "approximate", "model-changing"]
Severity: TypeAlias = Literal["error", "warning", "info"]

_SAFETIES: dict[str, Safety] = {"exact": "exact", "approximate": "approximate", "model-changing": "model-changing"}


@final
@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for. `host` is "fx" or "onnx": some fused operators exist only on one.

    hazards: whether to look for what no rewrite repairs as well, for a lint. inside: whether the graph stands inside
    another, where a branch may be taken for numbers that it suits.
    """

    form: str = "softmax"
    allow: str = "exact"
    host: str = "fx"
    hazards: bool = False
    inside: bool = False


#: Where an infinity meets another, or 0.
_SUMS = frozenset({"add", "sub", "mul", "sum", "mean", "matmul"})


@final
@dataclass(frozen=True)
class Context:
    """The readings of one graph that rules share.

    branches: values that nothing but one side of one `where` uses, with its condition, and what that is then.
    outputs: what leaves the model. parameters: names of inputs that are weights.
    """

    engine: Engine
    ranges: Ranges
    emitter: Emitter
    options: Options = field(default_factory=Options)
    branches: Mapping[Value, tuple[Value, bool]] = field(default_factory=dict[Value, tuple[Value, bool]])
    outputs: tuple[Value, ...] = ()
    parameters: frozenset[str] = frozenset()

    @property
    def builder(self) -> Builder:
        return self.engine.builder

    def broken(self, value: Value) -> bool:
        return self.ranges.of(value).broken and not self._is_held(value) and not self.is_schedule(value)

    def _is_held(self, value: Value) -> bool:
        """Whether a comparison keeps the exponent of log1p(eˣ) in range where that is looked at: x where x > 20."""
        if value.op != "log1p" or value not in self.branches or value.operands[0].op != "exp":
            return False
        exponent = self.engine.linear(value.operands[0].operands[0])
        return self.bounds(value, exponent)[1] <= FORMATS[value.dtype].exp_overflow

    def is_schedule(self, value: Value) -> bool:
        """Whether it is a root of a running product p that is picked from, or of 1 − p, or a quotient by such a root:
        the early steps of a noise schedule are what is used, and a product of plain numbers keeps them."""
        if value.op == "div":
            return self.is_schedule(value.operands[1])
        if value.op not in ("sqrt", "pow"):
            return value.op in LAYOUT and self.is_schedule(value.operands[0])
        source = value.operands[0]
        while source.op in LAYOUT or (source.op == "sub" and constant_of(source.operands[0]) == 1):
            source = source.operands[-1 if source.op == "sub" else 0]
        return source.op == "cumprod"

    def is_parameter(self, value: Value) -> bool:
        return value.op == "input" and value.attr("name") in self.parameters

    def of_data(self, value: Value) -> bool:
        """Whether `value` depends on what the model is given, not on its weights alone."""
        known, stack = self._of_data, [value]
        while stack:
            each = stack[-1]
            below = [] if each in known else [o for o in each.operands if o not in known]
            if below:
                stack.extend(below)
                continue
            if each not in known:
                drawn = each.op == "opaque" and not each.operands and "rand" in str(each.attr("target")).lower()
                own = drawn or (each.op == "input" and not self.is_parameter(each))
                known[each] = own or any(known[o] for o in each.operands)
            stack.pop()
        return known[value]

    @cached_property
    def _of_data(self) -> dict[Value, bool]:
        return {}

    @cached_property
    def escaping(self) -> frozenset[Value]:
        """Values whose infinity, where they pass their format, comes out of the model as an infinity or NaN."""
        found, stack = set[Value](), [v for v in self.outputs if self.ranges.of(v).big]
        broken = (v for v in cone(self.outputs) if v.op in _SUMS and self.broken(v))
        stack.extend(o for v in broken for o in v.operands if self.ranges.of(o).big)
        while stack:
            value = stack.pop()
            if value not in found:
                found.add(value)
                operands = value.operands[:1] if value.op == "div" else value.operands
                stack.extend(o for o in operands if self.ranges.of(o).big)
        return frozenset(found)

    def bounds(self, value: Value, form: Linear) -> tuple[float, float]:
        """(lo, hi) of a linear form over the reals, where `value` is looked at: a branch is, where it is taken."""
        lo, hi = self.ranges.bounds(form)
        said = comparison(self.engine, *self.branches[value]) if value in self.branches else None
        if said is not None and self.engine.linear(said[0]) == form:
            return (max(lo, said[2]), hi) if said[1] else (lo, min(hi, said[2]))
        return lo, hi

    def repairs(self, old: Value, new: Value) -> bool:
        """Whether `new` leaves out a broken value that `old` computes, and brings none of its own."""
        if new is old or new.type != old.type:
            return False
        change = self.change(old, new)
        return any(self.broken(v) for v in change.gone) and not any(self.broken(v) for v in change.added)

    def change(self, old: Value, new: Value) -> Change:
        """What goes and what comes when `new` takes the place of `old`; the cost is that of the two expressions."""
        host_size = self.emitter.host_size
        added: list[Value] = []
        leaves: set[Value] = set()
        stack, seen = [new], set[Value]()
        while stack:
            value = stack.pop()
            if value in seen:
                continue
            seen.add(value)
            if value.index < host_size:
                leaves.add(value)
            else:
                added.append(value)
                stack.extend(value.operands)
        below = cone([old], leaves)
        reached = set(below)
        added += [leaf for leaf in leaves if leaf not in reached]  # the host computes it, but not for `old`
        return Change(tuple(v for v in below if v not in leaves), tuple(added))


@final
@dataclass(frozen=True, slots=True)
class Change:
    """Values that only the old expression needs, and values that only the new one has."""

    gone: tuple[Value, ...]
    added: tuple[Value, ...]


@final
@dataclass(frozen=True, slots=True)
class Proposal:
    """Replace `old` by the first of `candidates` (best first) that its certificate accepts.

    With no candidates the proposal only reports: `safety` is None, or names what a repair would cost.
    `severity`: of this finding, where it is not that of its rule.
    """

    rule: Rule
    old: Value
    candidates: tuple[Value, ...]
    safety: Safety | None = "exact"
    message: str = ""
    severity: Severity | None = None


def exponents(fmt: Format) -> str:
    """The condition of what exponentials break."""
    return f"an exponent above {fmt.exp_overflow:.2f} or below {fmt.exp_underflow:.2f} in {fmt.name}"


Match: TypeAlias = Callable[[Context, Value], Proposal | None]


@final
@dataclass(frozen=True, slots=True)
class Rule:
    """A defect and its repair. `documentation` is the rule's own page (the docstring of its module).

    `ops`: the primitives a match can end in; `severity`: of a finding by this rule when it breaks; `condition`: which
    inputs break it in a format, where that is not a matter of exponents. `poles`: whatever is not finite is wrong, also
    where the formula has no value or one beyond the format. `honest`: an infinity is the right result of the
    expression, and a defect only of a model whose output it reaches.
    """

    code: str
    name: str
    ops: frozenset[str]
    match: Match
    documentation: str | None
    severity: Severity = "error"
    condition: Callable[[Format], str] | None = None
    poles: bool = False
    honest: bool = False

    def section(self, title: str) -> str:
        """The text of one section of its page."""
        return (self.documentation or "").partition(f"## {title}\n")[2].partition("\n\n## ")[0].strip()

    @property
    def summary(self) -> str:
        """What it finds, in one sentence: the first of its page."""
        return _first_sentence(self.section("What it does"))

    @property
    def reason(self) -> str:
        """Why what it finds is unstable, in one sentence: the first of that section of its page."""
        return _first_sentence(self.section("Why it is unstable"))

    @property
    def safety(self) -> Safety | None:
        """What its repair may change: the word that its section on safety begins with. None where there is none."""
        word = re.match(r"[\w-]*", self.section("Safety"))
        return _SAFETIES.get(word[0] if word else "")

    @property
    def fixable(self) -> bool:
        """Whether it repairs what it finds; another function is never put in the place of a model's."""
        return self.safety in ("exact", "approximate")

    @property
    def remedy(self) -> str:
        """What to write instead, as in the first example of its page; else what its section on safety says."""
        example = self.section("Example").partition("\n\n")[0]
        _, after, *others = [*example.split("\n→\n"), ""]
        lines = after.splitlines()[: -1 if any(others) else None]  # the last one is what the next example begins with
        return textwrap.dedent("\n".join(lines)).strip() or _first_sentence(self.section("Safety"))

    def proposal(
        self,
        old: Value,
        *candidates: Value,
        safety: Safety | None = "exact",
        message: str = "",
        severity: Severity | None = None,
    ) -> Proposal:
        return Proposal(self, old, candidates, safety, message, severity)


def _first_sentence(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split()).partition(". ")[0].rstrip(".")


RuleTable: TypeAlias = Mapping[str, tuple[Rule, ...]]

"""Shared by the tests of the rules: graphs as text, what the engine reads in them, and whether two formulas agree."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from typing import TypeAlias

import torch

from stabilize.formats import is_float
from stabilize.graph.text import parse, show, spell
from stabilize.graph.value import Value, cone
from stabilize.graph.view import View
from stabilize.passes.linear import Linear
from stabilize.passes.propose import context, proposals
from stabilize.passes.rule import Context, Options, Proposal, Rule
from stabilize.verify.execute import torch_dtype
from stabilize.verify.oracle import evaluate

#: What every graph of these tests may use. Rows of x have 5 entries, there are 4; m is a symbolic size.
INPUTS = (
    "x: float32[4, 5], z: float32[4, 5], w: float32[4, 5], y: int64[4], a: float32[5], b: float32[5], "
    "c: float32[5], h: float16[4, 5], q: float32[2, 3, 4], k: float32[2, 6, 4], v: float32[2, 6, 7], "
    "s: float32[5, 5], n: float32[m, 5], j: int64[2, 3]"
)
#: Inputs that only the graphs have that name them: one number a row, a single element, no elements, a scalar, …
MORE = {
    "R": "float32[4, 1]", "O": "float32[1, 1]", "E": "float32[4, 0]", "U": "float32[()]", "G": "bfloat16[4, 5]",
    "D": "float64[4, 5]", "T": "float32[5, 3]", "B": "bool[4, 5]", "I": "int64[4, 1]", "V": "float32[5, 1]",
}  # fmt: skip
#: The largest exponent x over the support of the weights z along a row, without a guard and with one of ½.
M = "detach(maximum(max(where(ne(z, 0.0), x, -inf), axes=(1,), keepdim=True), -3.4028234663852886e+38))"
G = "detach(maximum(max(where(ne(z, 0.0), x, -inf), axes=(1,), keepdim=True), -0.6931471805599453))"

Ranges: TypeAlias = dict[str, tuple[float, float]]
SYMBOL = 4  # the size of m where numbers are drawn


def graph(body: str) -> View:
    """A view from the lines of a body; an expression alone is returned."""
    lines = [line.strip() for line in body.strip().splitlines()]
    if not lines[-1].startswith("return "):
        lines[-1] = f"return {lines[-1]}"
    named = set(re.findall(r"\w+", body))
    inputs = ", ".join([INPUTS, *(f"{name}: {type}" for name, type in MORE.items() if name in named)])
    return parse(f"def graph({inputs}):\n" + "\n".join("    " + line for line in lines))


def read(body: str, ranges: Ranges | None = None, **options: str) -> tuple[Context, Value]:
    """The readings of a graph, and its first output."""
    view = graph(body)
    return context(view, Options(**options), ranges), view.outputs[0]


class Outcome:
    """Rules that spoke, and the returned values after their first candidates were taken."""

    def __init__(self, body: str, options: Options, ranges: Ranges | None = None) -> None:
        self.view = graph(body)
        self.codes: list[str] = []
        self.proposed: list[Proposal] = []
        self.replaced = proposals(self.view, context(self.view, options, ranges), self._take)
        assert all(p.old in self.replaced for p in self.proposed if p.candidates)

    def _take(self, proposal: Proposal) -> Value | None:
        self.codes.append(proposal.rule.code)
        self.proposed.append(proposal)
        return proposal.candidates[0] if proposal.candidates else None

    def after(self) -> str:
        """The text of what replaces the one sink of the graph."""
        assert len(self.replaced) == 1, [show([old]) for old in self.replaced]
        return body_of(next(iter(self.replaced.values())))


def body_of(value: Value) -> str:
    """The lines of the text form, without the signature."""
    return "\n".join(line.strip() for line in show([value]).splitlines()[1:])


def nested(value: Value) -> str:
    """`value` as one expression, every part written where it is used."""
    text: dict[Value, str] = {}
    for v in cone([value]):
        if v.op == "input":
            text[v] = str(v.attr("name"))
        elif v.op == "constant" and v.shape == ():
            text[v] = str(v.attr("value"))
        else:
            text[v] = spell(v, [text[o] for o in v.operands])
    return text[value]


def brief(value: Value) -> str:
    """`value` with a name, t1, t2, …, for every part that is used twice."""
    order = cone([value])
    uses = Counter(o for v in order for o in v.operands)
    text: dict[Value, str] = {}
    lines: list[str] = []
    for v in order:
        if v.op == "input" or (v.op == "constant" and v.shape == ()):
            text[v] = nested(v)
            continue
        text[v] = spell(v, [text[o] for o in v.operands])
        if uses[v] > 1:
            lines.append(f"t{len(lines) + 1} = {text[v]}")
            text[v] = f"t{len(lines)}"
    return "\n".join([*lines, text[value]])


def form_text(form: Linear) -> str:
    """A linear form: `2·x - z + 1/2`; numbers that are no short fraction as decimals."""
    parts = [(k, nested(atom)) for atom, k in form.terms]
    if form.constant or not parts:
        parts.append((form.constant, ""))
    text = ""
    for k, atom in parts:
        sign = " - " if k < 0 else " + "
        sign = sign if text else sign.replace(" ", "").replace("+", "")
        size = _number(abs(k))
        text += sign + (atom if size == "1" and atom else f"{size}·{atom}" if atom else size)
    return text


def _number(k: Fraction) -> str:
    return str(k) if k.denominator <= 1000 else f"{float(k):.12g}"


# --- rules --------------------------------------------------------------------------------------------------------


def assert_rewrite(rule: Rule, body: str, ranges: Ranges, expected: str, **options: str) -> Proposal:
    """`rule` alone speaks, and proposes `expected` first; that and what else it proposes is the same function.

    What it said is returned.
    """
    outcome = Outcome(body, Options(**options), ranges)
    assert outcome.codes == [rule.code]
    ((old, new),) = outcome.replaced.items()
    assert outcome.proposed[0].old is old
    assert brief(new) == expected
    for candidate in outcome.proposed[0].candidates:
        assert_same_function(old, candidate)
    return outcome.proposed[0]


def assert_no_match(rule: Rule, body: str, ranges: Ranges, **options: str) -> None:
    """`rule` has nothing to say to any value of the graph."""
    ctx, value = read(body, ranges, **options)
    asked = [v for v in cone([value]) if v.op in rule.ops and is_float(v.dtype)]
    assert asked, "the rule is not even asked"
    for v in asked:
        assert rule.match(ctx, v) is None, brief(v)


def assert_told(
    rule: Rule,
    body: str,
    ranges: Ranges | None = None,
    *,
    severity: str | None = None,
    alone: bool = True,
    **options: str,
) -> Proposal:
    """A lint is told of a defect by `rule`, which repairs nothing; a run that rewrites does not ask. What it said.

    severity: that differs from the rule's. alone: nothing else is told.
    """
    outcome = Outcome(body, Options(hazards=True, **options), ranges)
    (proposal,) = (p for p in outcome.proposed if p.rule is rule)
    assert not alone or outcome.codes == [rule.code]
    assert (proposal.candidates, proposal.safety, proposal.severity) == ((), None, severity)
    assert rule.code not in Outcome(body, Options(**options), ranges).codes
    return proposal


def assert_not_told(rule: Rule, body: str, ranges: Ranges | None = None, **options: str) -> None:
    """A lint asks `rule` about some value of the graph, and it has nothing to say of any."""
    view = graph(body)
    ctx = context(view, Options(hazards=True, **options), ranges)
    asked = [v for v in cone(view.outputs) if v.op in rule.ops]
    assert asked, "the rule is not even asked"
    for v in asked:
        assert rule.match(ctx, v) is None, brief(v)
    assert rule.code not in Outcome(body, Options(hazards=True, **options), ranges).codes


# --- numbers ------------------------------------------------------------------------------------------------------


def drawn(leaves: Iterable[Value], seed: int, positive: bool = False) -> dict[Value, torch.Tensor]:
    """A tensor for every leaf: ordinary numbers, in (0, 1) where `positive`; indices that are in range."""
    generator = torch.Generator().manual_seed(seed)
    result: dict[Value, torch.Tensor] = {}
    for leaf in leaves:
        shape = [d if isinstance(d, int) else SYMBOL for d in leaf.shape]
        if leaf.dtype == "bool":
            result[leaf] = torch.rand(shape, generator=generator) > 0.4
        elif is_float(leaf.dtype):
            wide = torch.rand if positive else torch.randn
            result[leaf] = wide(shape, generator=generator, dtype=torch.float64).to(torch_dtype(leaf.dtype))
        else:
            result[leaf] = torch.randint(0, 3, shape, generator=generator)
    return result


def assert_same_function(old: Value, new: Value, tolerance: float = 1e-9) -> None:
    """Both formulas in arbitrary precision on ordinary numbers; constants may be rounded to float64."""
    assert old.type == new.type
    leaves = [v for v in cone([old, new]) if v.op == "input"]
    judged = 0
    for seed, positive in ((0, False), (1, True)):
        was, now = evaluate([old, new], drawn(leaves, seed, positive), digits=24, floor=-1140, max_bits=2**13)
        for before, after in zip(map(float, was.flat), map(float, now.flat), strict=True):
            judged += not math.isnan(before)
            if math.isfinite(before):
                assert abs(before - after) <= tolerance * max(1e-3, abs(before)), f"{before} became {after}"
            elif math.isinf(before):
                assert before == after
    assert judged or 0 in old.shape, "no input gave a number"

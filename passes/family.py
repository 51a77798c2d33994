"""The softmax family: every spelling whose normal form the engine reaches, one mechanism.

A *sink* is where a linear-domain value must come out: a log, a division, a product of exponentials, an exp of a
difference of logs. At a sink the normal form is emitted again; when that leaves out a broken value of the original
and brings none of its own, it is proposed. Which rule a proposal belongs to is read off what was emitted.
"""

from __future__ import annotations

from stabilize.formats import FORMATS
from stabilize.graph.build import constant_of
from stabilize.graph.value import Value
from stabilize.passes.catalogue import FAMILY, GENERIC
from stabilize.passes.emit import Term, terms_of
from stabilize.passes.linear import Linear
from stabilize.passes.rule import Context, Proposal, Rule

LOG_SINKS = frozenset({"log", "log1p", "add", "sub"})
LINEAR_SINKS = frozenset({"div", "mul", "exp", "pow", "sqrt"})
INDEX_SINKS = frozenset({"topk_indices", "argmax"})
SINKS = LOG_SINKS | LINEAR_SINKS | INDEX_SINKS

_SPECIAL = frozenset({"logsumexp", "softplus", "logcumsumexp", "topk_values", "detach", "where", "maximum", "minimum"})


def propose(ctx: Context, value: Value) -> Proposal | None:
    """The repair of `value` as a sink of the softmax family, or None."""
    new: Value | None
    if value.op in LOG_SINKS or (value.op in ("mul", "div") and _shrinks(ctx, value)):
        new = _log_sink(ctx, value)
    elif value.op in INDEX_SINKS:
        new = _index_sink(ctx, value)
    else:
        new = _linear_sink(ctx, value)
    if new is None or _is_number(new) or not ctx.repairs(value, new):
        return None
    return classify(ctx, value, new).proposal(value, new)


def _is_number(value: Value) -> bool:
    """e/e as 1 would be 1 where e is NaN."""
    while value.op in ("cast", "expand"):
        value = value.operands[0]
    return constant_of(value) is not None


def classify(ctx: Context, old: Value, new: Value) -> Rule:
    """The rule whose repair `new` is: the first of the family whose operator was newly emitted."""
    emitted = {v.op for v in ctx.change(old, new).added}
    return next((rule for op, rule in FAMILY.items() if op in emitted), GENERIC)


def _log_sink(ctx: Context, value: Value) -> Value | None:
    form = ctx.engine.linear(value)
    if form.single is value:
        return None
    if value.op in ("add", "sub") and not _merges(ctx, value, form, [ctx.engine.linear(o) for o in value.operands]):
        return None
    return ctx.emitter.log(form, value)


def _shrinks(ctx: Context, value: Value) -> bool:
    """k·log(…) in half precision: the log may leave the format, or lose digits, that the multiple keeps."""
    if FORMATS[value.dtype].precision >= 24:
        return False
    return any(ctx.broken(o) and o.op in LOG_SINKS for o in value.operands)


def _linear_sink(ctx: Context, value: Value) -> Value | None:
    reading = ctx.engine.scaled(value)
    if reading.trivial and reading.coefficient is value:
        return None
    if ctx.is_schedule(value):
        return None
    if value.op == "exp":
        new = ctx.emitter.scaled(reading, value)
        return None if new.op == "exp" else new
    if not ctx.broken(value):
        forms = [ctx.engine.scaled(o).exponent for o in value.operands]
        if value.op != "mul" or not (_merges(ctx, value, reading.exponent, forms) or _rounds_twice(ctx, value)):
            return None
    return ctx.emitter.scaled(reading, value)


def _rounds_twice(ctx: Context, value: Value) -> bool:
    """x·p in half precision with a broken p, which would take the product with it; σ·(1 − σ) with a coarse σ."""
    if any(o in ctx.emitter.coarse for o in value.operands):
        return any(o.op == "sub" and not ctx.engine.scaled(o).trivial for o in value.operands)
    narrow = FORMATS[value.dtype].precision < 24
    return narrow and any(ctx.broken(o) and o.op != "sigmoid" for o in value.operands)


def _index_sink(ctx: Context, value: Value) -> Value | None:
    """Which entries are largest does not change under an increasing function; ties by underflow go away."""
    source = value.operands[0]
    reading = ctx.engine.scaled(source)
    if reading.trivial or reading.number is None or reading.number <= 0:
        return None
    varying, _ = ctx.engine.algebra.pull(reading.exponent, value.axes, source.type.rank)
    if not varying.terms:
        return None
    logits = ctx.builder.expand(ctx.emitter.operand(varying, ctx.engine.algebra.dtype_of(varying)), source.shape)
    return ctx.builder.make(value.op, logits, **dict(value.attrs))


def _merges(ctx: Context, value: Value, form: Linear, parts: list[Linear]) -> bool:
    """Whether something happens here that does not happen further in: a new fused term, or terms that cancel."""
    if not any(_special(a) for p in parts for a in p.atoms):
        return False
    here = ctx.emitter.split(form)
    splits = [ctx.emitter.split(p) for p in parts]
    if len(here.terms) < sum(len(s.terms) for s in splits) and value.op != "mul":
        return True
    return bool({_key(t) for t in terms_of([here])} - {_key(t) for t in terms_of(splits)})


def _key(term: Term) -> tuple[object, ...]:
    return (term.kind, term.form, term.axes, term.other, term.mixture)


def _special(atom: Value) -> bool:
    while atom.op in ("unsqueeze", "squeeze", "transpose", "slice", "gather", "reshape"):
        atom = atom.operands[0]
    return atom.op in _SPECIAL

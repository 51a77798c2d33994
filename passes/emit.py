"""Emission: from a normal form back to the most accurate values that compute it.

The inverse of reading, and where accuracy is decided. A linear form is split into *terms*, each a fused shape
with a small error bound of its own (log_softmax, log_sigmoid, softplus, logaddexp, logsumexp), by a bounded
search for the split with the fewest terms: x − lse(x) is one term, never a difference of two large atoms.

In the linear domain terms with exponent ≤ 0 become factors (softmax, sigmoid); anything else is one exp of the
whole sum. Half-precision sites compute in float32 and round once, unless a single fused operator does that itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import final

from stabilize.formats import FORMATS, is_float
from stabilize.graph.build import constant_along
from stabilize.graph.value import Value
from stabilize.passes.algebra import is_view, reshaped
from stabilize.passes.linear import NOTHING, Linear
from stabilize.passes.mixture import Mixture, MixtureEmitter, common_shift, part_of, summands
from stabilize.passes.scaled import Engine, Scaled
from stabilize.passes.steps import Steps

#: Operators whose half-precision kernels compute in float32 and round once.
#: Not sigmoid and tanh: their gradients σ(1 − σ), 1 − t² are taken from the rounded result, where they are lost.
ROUNDS_ONCE = frozenset({"softmax", "log_softmax", "log_sigmoid", "softplus", "expm1", "log1p", "norm"})


@final
@dataclass(frozen=True, slots=True)
class Term:
    """A fused shape in the log domain.

    kind "atom": the value itself. "log_softmax": over `axes` of `form`. "log_sigmoid", "softplus": of `form`.
    "logaddexp": of `form` and `other`. "logsumexp": over `axes` of `form`, taken apart again. "mixture": ln of the
    mixture; "ratio": `form` − ln of it. `views` are applied to the result, innermost first.
    """

    kind: str
    form: Linear
    axes: tuple[int, ...] = ()
    other: Linear = NOTHING
    views: tuple[Value, ...] = ()
    mixture: Mixture | None = None


@final
@dataclass(frozen=True, slots=True)
class Split:
    """Σ coefficient·term + constant, and what it costs."""

    terms: tuple[tuple[Fraction, Term], ...]
    constant: Fraction
    cost: float

    def plus(self, k: Fraction, term: Term, cost: float) -> Split:
        return Split(((k, term), *self.terms), self.constant, self.cost + cost)


#: Forms looked at for one sink: nearly all need a few, some 25; what needs more than 60 has no fused form.
_OWN_SPLITS, _SPARE_SPLITS, _MOST_SPLITS = 2, 1000, 60


@final
class Emitter:
    """Turns normal forms into values.

    host_size: values with a smaller index belong to the host. coarse: sigmoids of the host that lose their tail.
    bounds: (lowest, highest) value of a form over the reals.
    """

    def __init__(
        self,
        engine: Engine,
        host_size: int,
        bounds: Callable[[Linear], tuple[float, float]],
        coarse: Collection[Value] = (),
    ) -> None:
        self.engine = engine
        self.builder = engine.builder
        self.host_size = host_size
        self.bounds = bounds
        self.coarse = frozenset(coarse)
        self._steps = Steps(_OWN_SPLITS, _SPARE_SPLITS, _MOST_SPLITS)
        self._splits: dict[tuple[Linear, int], Split] = {}
        self._made: dict[tuple[str, Linear, str], Value] = {}

    @contextmanager
    def sink(self) -> Generator[None]:
        """A new sink: what may be tried for it is bounded, so that a tower of sums takes no exponential time."""
        with self._steps:
            yield
            if self._steps.spent:
                self._made.clear()  # made from splits that were cut short

    # --- splitting --------------------------------------------------------------------------------------------------

    def split(self, form: Linear, depth: int = 5) -> Split:
        """The cheapest split of `form` into terms."""
        form = form.lifted()
        known = self._splits.get((form, depth))
        if known is None:
            known = self._split(form, depth)
            if not self._steps.spent:  # one that was cut short may do better for another sink
                self._splits[form, depth] = known
        return known

    def _split(self, form: Linear, depth: int) -> Split:
        plain = Split(
            tuple((k, Term("atom", Linear.of(a))) for a, k in form.terms),
            form.constant,
            sum(1.01 if _hides_special(a) else 1.0 for a in form.atoms) + (0.5 if form.constant else 0.0),
        )
        self._steps.take()
        if not depth or self._steps.spent:
            return plain
        return min([plain, *self._options(form, depth)], key=lambda split: split.cost)

    def _options(self, form: Linear, depth: int) -> list[Split]:
        for atom, k in reversed(form.terms):
            match atom.op:
                case "logsumexp":
                    return self._lse_options(form, atom, k, depth)
                case "softplus":
                    return self._softplus_options(form, atom, k, depth)
                case "maximum":
                    return self._maximum_options(form, atom, k, depth)
                case _:
                    continue
        return self._view_options(form, depth)

    def _lse_options(self, form: Linear, atom: Value, k: Fraction, depth: int) -> list[Split]:
        options = [self._aside(form, atom, k, depth)]
        inner = self.engine.linear(atom.operands[0])
        whole = Linear.of(atom)
        options += self._try(form, inner - whole, -k, Term("log_softmax", inner, atom.axes), depth)
        for a in form.atoms:
            picked = self._picked(inner, a, atom)
            if picked is not None:
                term = Term("log_softmax", inner, atom.axes, views=(a,))
                options += self._try(form, picked - whole, -k, term, depth)
        if k == 1:
            options += self._inner_lse(form, atom, inner, depth)
        return options

    def _try(self, form: Linear, part: Linear, k: Fraction, term: Term, depth: int) -> list[Split]:
        rest = form - part.scale(k)
        if len(rest.terms) >= len(form.terms):
            return []
        return [self.split(rest, depth - 1).plus(k, term, 1.0)]

    def _aside(self, form: Linear, atom: Value, k: Fraction, depth: int) -> Split:
        rest = form - Linear.of(atom).scale(k)
        return self.split(rest, depth - 1).plus(k, Term("atom", Linear.of(atom)), 1.0)

    def _picked(self, inner: Linear, atom: Value, lse: Value) -> Linear | None:
        """`inner` seen through the gather or slice that made `atom`, along the axis that was summed."""
        if atom.op not in ("gather", "slice") or atom.axes[0] not in lse.axes:
            return None
        if len(lse.axes) != 1 or atom.operands[0].shape != lse.operands[0].shape:
            return None
        return self.engine.algebra.view(inner, atom)

    def _inner_lse(self, form: Linear, atom: Value, inner: Linear, depth: int) -> list[Split]:
        """lse(y) − k·lse(x) as one lse of terms that are each accurate: ln Σ softmax(x)²."""
        rank = atom.type.rank
        outer = Linear(
            tuple(
                (a, k)
                for a, k in form.terms
                if a is not atom and k < 0 and a.op in ("logsumexp", "softplus") and constant_along(a, atom.axes, rank)
            )
        )
        shifts = form.split([a for a in form.atoms if _is_shift(a) and constant_along(a, atom.axes, rank)])[0]
        if shifts.terms and self.engine.algebra.known(inner + shifts) is not None:
            outer = shifts  # the host has x − m: its rounding, not that of lse(x) − m
        elif not outer.terms or len(self.split(inner + outer, depth - 1).terms) != 1:
            return []
        inside = inner + outer
        rest = form - Linear.of(atom) - outer
        return [self.split(rest, depth - 1).plus(Fraction(1), Term("logsumexp", inside, atom.axes), 1.1)]

    def _softplus_options(self, form: Linear, atom: Value, k: Fraction, depth: int) -> list[Split]:
        d = self.engine.linear(atom.operands[0])
        minus = d.scale(Fraction(-1))
        whole = Linear.of(atom)
        options = self._mixture_options(form, atom, k)
        for oriented, part in ((d, whole), (minus, whole - d)):
            kind, argument = ("softplus", oriented) if k > 0 else ("log_sigmoid", oriented.scale(Fraction(-1)))
            rest = form - part.scale(k)
            options.append(self.split(rest, depth - 1).plus(abs(k), Term(kind, argument), 1.0))
        if k <= -2:  # 4σ(d)σ(−d) = sech²(d/2)
            rest = form - (d - whole - whole).scale(-k / 2)
            both = self.split(rest, depth - 1).plus(-k / 2, Term("log_sigmoid", minus), 0.9)
            options.append(both.plus(-k / 2, Term("log_sigmoid", d), 0.9))
        if k == 1 and len(form.terms) + bool(form.constant) > 1:
            a = form - whole
            cost = 1.0 + 0.1 * (self.split(a, depth - 1).cost + self.split(a + d, depth - 1).cost)
            options.append(Split(((Fraction(1), Term("logaddexp", a, other=a + d)),), Fraction(0), cost))
        return options

    def _view_options(self, form: Linear, depth: int) -> list[Split]:
        """Take off a view that hides a log-sum-exp or softplus, split what is under it, put the view back on."""
        for hiding, _ in reversed(form.terms):
            if not is_view(hiding) or not _hides_special(hiding):
                continue
            atom = _widest(hiding, form.atoms)
            same = [(a, k) for a, k in form.terms if _same_view(a, atom)]
            under = self.split(Linear.collect([(a.operands[0], k) for a, k in same]), depth - 1)
            chosen = {a for a, _ in same}
            rest = Linear(tuple(t for t in form.terms if t[0] not in chosen), form.constant)
            outer = self.split(rest, depth - 1)
            wrapped = tuple((k, replace(t, views=(*t.views, atom))) for k, t in under.terms)
            return [Split(wrapped + outer.terms, under.constant + outer.constant, under.cost + outer.cost)]
        return []

    def _mixture_options(self, form: Linear, atom: Value, k: Fraction) -> list[Split]:
        """`form` as ln of a mixture of several kinds, or as an exponent less that."""
        engine = self.engine
        if k == 1:
            forms = summands(engine, form)
            mixture = Mixture(tuple(part_of(engine, f) for f in forms))
            term = Term("mixture", form, mixture=mixture)
        elif k == -1:
            numerator = form + Linear.of(atom)
            forms = [Linear(), *summands(engine, engine.linear(atom.operands[0]))]
            shift = common_shift(numerator, forms)
            mixture = Mixture(tuple(part_of(engine, f + shift) for f in forms))
            term = Term("ratio", numerator + shift, mixture=mixture)
        else:
            return []
        return [Split(((Fraction(1), term),), Fraction(0), 0.9)] if mixture.worthwhile else []

    def _maximum_options(self, form: Linear, atom: Value, k: Fraction, depth: int) -> list[Split]:
        """ln of a sum of exponentials that is clamped from below."""
        options = [self._aside(form, atom, k, depth)]
        mixture = Mixture(tuple(part_of(self.engine, self.engine.linear(o)) for o in atom.operands), "maximum")
        if not mixture.worthwhile or abs(k) != 1:
            return options
        rest = form - Linear.of(atom).scale(k)
        if k == -1:
            options.append(Split(((Fraction(1), Term("ratio", rest, mixture=mixture)),), Fraction(0), 0.9))
        else:
            options.append(self.split(rest, depth - 1).plus(k, Term("mixture", Linear.of(atom), mixture=mixture), 0.9))
        return options

    # --- building ---------------------------------------------------------------------------------------------------

    def build(self, form: Linear, dtype: str) -> Value:
        """`form` as a value of `dtype`: the split, emitted term by term."""
        return self._once(self._build, form, dtype)

    def _once(self, make: Callable[[Linear, str], Value], form: Linear, dtype: str) -> Value:
        """`make(form, dtype)`, remembered: expressions share parts, which would be made once for each path to them."""
        key = (make.__name__, form, dtype)
        known = self._made.get(key)
        if known is None:
            known = self._made[key] = make(form, dtype)
        return known

    def _build(self, form: Linear, dtype: str) -> Value:
        split = self.split(form)
        if not split.terms:
            return self.builder.constant(float(split.constant), dtype)
        total: Value | None = None
        for k, term in sorted(split.terms, key=lambda t: t[0] < 0):
            value = self._term(term, dtype)
            scaled = self.engine.algebra.times(value, abs(k) if total is not None else k)
            total = scaled if total is None else self.builder.apply("add" if k > 0 else "sub", total, scaled)
        assert total is not None
        if split.constant:
            op = "add" if split.constant > 0 else "sub"
            total = self.builder.apply(op, total, abs(split.constant))
        return total

    def operand(self, form: Linear, dtype: str) -> Value:
        """A plain sum of atoms, or a split when that is more accurate; the argument of a fused operator."""
        return self._once(self._operand, form, dtype)

    def _operand(self, form: Linear, dtype: str) -> Value:
        known = self.engine.algebra.known(form)
        if known is not None and self._holds(known, form):
            return self.builder.cast(known, dtype)
        split = self.split(form)
        if all(t.kind == "atom" for _, t in split.terms):
            terms = [(self.atom(a, dtype), k) for a, k in form.terms]
            return self.engine.algebra.materialise(Linear.collect(terms, form.constant), dtype)
        return self.build(form, dtype)

    def _holds(self, known: Value, form: Linear) -> bool:
        """Whether the format of the host's own sum is sure to hold it: in half precision x/0.1 overflows before x."""
        if FORMATS[known.dtype].precision >= 24:
            return True
        return all(abs(k) <= 1 for _, k in form.terms)

    def atom(self, atom: Value, dtype: str) -> Value:
        """An atom in `dtype`: the host's own value rounded up, or an expression of the engine computed in `dtype`."""
        if atom.index < self.host_size or atom.op in ("constant", "input", "opaque") or not is_float(atom.dtype):
            return self.builder.cast(atom, dtype)
        if atom.op in ("logsumexp", "softplus", "max", "logcumsumexp", "topk_values"):
            inner = self.operand(self.engine.linear(atom.operands[0]), dtype)
            inner = self.builder.expand(inner, atom.operands[0].shape)
            return self.builder.make(atom.op, inner, **dict(atom.attrs))
        if atom.op in ("where", "maximum", "minimum", "concat", "cumsum", "sum"):
            parts = [self._part(o, dtype) for o in atom.operands]
            return self.builder.make(atom.op, *parts, **dict(atom.attrs))
        if is_view(atom):
            moved = self.atom(atom.operands[0], dtype)
            return self._without_kept_axes(self.builder.make(atom.op, moved, *atom.operands[1:], **dict(atom.attrs)))
        return self.builder.cast(atom, dtype)

    def _part(self, operand: Value, dtype: str) -> Value:
        """An operand of an atom of the engine's making: exponents are emitted anew, conditions are not."""
        if not is_float(operand.dtype):
            return operand
        form = self.engine.linear(operand)
        if form.single is operand:
            return self.atom(operand, dtype)
        return self.builder.expand(self.operand(form, dtype), operand.shape)

    def _term(self, term: Term, dtype: str) -> Value:
        return self._viewed(self._plain_term(term, dtype), term)

    def _viewed(self, value: Value, term: Term) -> Value:
        for view in term.views:
            if view.op == "reshape":
                value = self.builder.expand(value, view.operands[0].shape)
            value = self.builder.make(view.op, value, *view.operands[1:], **dict(view.attrs))
        return self._without_kept_axes(value)

    def _plain_term(self, term: Term, dtype: str) -> Value:
        b = self.builder
        match term.kind:
            case "atom":
                return self.atom(term.form.atoms[0], dtype)
            case "log_softmax":
                return self._log_softmax(term, dtype)
            case "mixture" | "ratio":
                assert term.mixture is not None
                emitter = self._mixtures(dtype)
                whole = term.kind == "mixture"
                return emitter.log(term.mixture) if whole else emitter.log_ratio(term.form, term.mixture)
            case "logaddexp":
                return b.make("logaddexp", self.build(term.form, dtype), self.build(term.other, dtype))
            case "logsumexp":
                return b.reduce("logsumexp", self.operand(term.form, dtype), term.axes)
            case _:
                return b.make(term.kind, self.operand(term.form, dtype))

    def logits(self, form: Linear, dtype: str) -> Value:
        """The argument of a softmax: the host's own expression if it has one, whatever number it adds."""
        known = self.engine.algebra.known_up_to_a_number(form)
        if known is not None and len(form.terms) > 1 and self._holds(known, form):
            return self.builder.cast(known, dtype)
        return self.operand(form, dtype)

    def _log_softmax(self, term: Term, dtype: str) -> Value:
        b = self.builder
        x = self.logits(term.form, dtype)
        fused = self._fused("log_softmax", x, term.axes)
        if fused is not None:
            return fused
        shifted = b.make("sub", x, b.make("detach", b.reduce("max", x, term.axes)))
        return b.make("sub", shifted, b.make("log", b.reduce("sum", b.make("exp", shifted), term.axes)))

    def _softmax(self, term: Term, dtype: str) -> Value:
        b = self.builder
        x = self.logits(term.form, dtype)
        fused = self._fused("softmax", x, term.axes)
        if fused is not None:
            return fused
        e = b.make("exp", b.make("sub", x, b.make("detach", b.reduce("max", x, term.axes))))
        return b.make("div", e, b.reduce("sum", e, term.axes))

    def _fused(self, op: str, x: Value, axes: tuple[int, ...]) -> Value | None:
        """The operator over one axis; over neighbouring axes of known sizes on a view in which they are one."""
        first, last = axes[0], axes[-1]
        if len(axes) == 1:
            return self.builder.make(op, x, axis=first)
        sizes = [d for d in x.shape if isinstance(d, int)]
        if axes != tuple(range(first, last + 1)) or len(sizes) != len(x.shape):
            return None
        flat = (*sizes[:first], math.prod(sizes[first : last + 1]), *sizes[last + 1 :])
        whole = self.builder.make(op, self.builder.make("reshape", x, shape=flat), axis=first)
        return self.builder.make("reshape", whole, shape=x.shape)

    def _mixtures(self, dtype: str) -> MixtureEmitter:
        return MixtureEmitter(self.engine, self.build, self.operand, dtype)

    # --- the linear domain ------------------------------------------------------------------------------------------

    def exponential(self, form: Linear, dtype: str, rounded: str) -> Value:
        """exp(form): a product of softmaxes and sigmoids where that is what it is, else one exp of the sum.

        rounded: the dtype that the result will have.
        """
        b = self.builder
        split = self.split(form)
        factors = [self._factor(k, t, dtype) for k, t in split.terms]
        if not factors or any(f is None for f in factors):
            return self._exp(form, dtype, rounded)
        product: Value | None = None
        for factor in factors:
            assert factor is not None
            product = factor if product is None else b.make("mul", product, factor)
        assert product is not None
        if split.constant:
            product = b.apply("mul", product, math.exp(split.constant))
        return product

    def _exp(self, form: Linear, dtype: str, rounded: str) -> Value:
        """exp(form), or exp(form/2)² where exp(form) may be infinite while a gradient of 0 (of a clamp) must stay 0.

        The factors that the original multiplied were finite there; 0·∞ would make the gradient NaN.
        """
        b = self.builder
        exponent = self.build(form, dtype)
        held = 2 * FORMATS[rounded].emax < FORMATS[dtype].emax  # rounding to float16 makes the infinity
        if len(form.terms) < 2 or held or not b.detaches or self.bounds(form)[1] <= FORMATS[dtype].exp_overflow:
            return b.make("exp", exponent)
        root = b.make("exp", b.apply("mul", exponent, 0.5))
        return b.make("mul", root, root)

    def _factor(self, k: Fraction, term: Term, dtype: str) -> Value | None:
        if k <= 0 or k.denominator != 1 or term.kind not in ("log_softmax", "ratio", "log_sigmoid"):
            return None
        if term.kind == "log_softmax":
            value = self._softmax(term, dtype)
        elif term.kind == "log_sigmoid":
            argument = self.operand(term.form, dtype)
            value = self.builder.make("sigmoid", argument)
            if value in self.coarse:
                value = self.builder.make("exp", self.builder.make("log_sigmoid", argument))
        else:
            assert term.mixture is not None
            value = self._mixtures(dtype).ratio(term.form, term.mixture)
        value = self._viewed(value, term)
        return value if k == 1 else self.builder.apply("pow", value, int(k))

    def scaled(self, reading: Scaled, like: Value) -> Value:
        """c·exp(s) as a value of the type of `like`, rounded to its format once."""
        c = reading.coefficient
        if reading.exponent.is_zero:
            return self.finish(c, like)
        body = self.exponential(reading.exponent, self.carrier(like, reading.exponent), like.dtype)
        if reading.number == 1:
            return self.finish(body, like)
        if c.op == "div" and c.index >= self.host_size:  # multiply first: (w·e)/Σ rounds like the original
            top = self.engine.times(c.operands[0], body)
            return self.finish(self.engine.over(top, c.operands[1]), like)
        return self.finish(self.engine.times(c, body), like)

    def log(self, form: Linear, like: Value) -> Value:
        """`form` as a value of the type of `like`."""
        return self.finish(self.build(form, self.carrier(like, form)), like)

    def carrier(self, like: Value, form: Linear) -> str:
        """Exponents are carried in at least float32, and in no less than their atoms have."""
        names = [like.dtype, "float32", *(a.dtype for a in form.atoms if is_float(a.dtype))]
        return max(names, key=lambda n: FORMATS[n].precision)

    def finish(self, value: Value, like: Value) -> Value:
        """Round to the dtype of `like` and broadcast to its shape."""
        value = self._without_kept_axes(self.narrow(value, like.dtype))
        if value.shape != like.shape:
            if value.type.rank > like.type.rank:
                value = self.builder.squeeze(value, list(range(value.type.rank - like.type.rank)))
            value = self.builder.expand(value, like.shape)
        return value

    def _without_kept_axes(self, value: Value) -> Value:
        """squeeze(reduce(x, keepdim)) as one reduction, however many squeezes there are."""
        kept, gone = value, list[int]()
        while kept.op == "squeeze":
            left = [i for i in range(kept.operands[0].type.rank) if i not in kept.axes]
            gone = [*kept.axes, *(left[a] for a in gone)]
            kept = kept.operands[0]
        if kept.op not in ("logsumexp", "max", "sum") or not gone or tuple(sorted(gone)) != kept.axes:
            return value
        return self.builder.reduce(kept.op, kept.operands[0], kept.axes, keepdim=False)

    def narrow(self, value: Value, dtype: str) -> Value:
        """`value` rounded to `dtype`; a single fused operator on `dtype` inputs is left to round by itself."""
        if value.dtype == dtype:
            return value
        if is_view(value) or value.op == "neg":
            inner = self.narrow(value.operands[0], dtype)
            return self.builder.make(value.op, inner, *value.operands[1:], **dict(value.attrs))
        if value.op in ROUNDS_ONCE:
            source = self._lossless(value.operands[0], dtype)
            if source is not None:
                return self.builder.make(value.op, source, **dict(value.attrs))
        return self.builder.cast(value, dtype)

    def unwidened(self, value: Value, dtype: str) -> Value:
        """`value` in `dtype` where it was only widened from it, else as it is."""
        return self._lossless(value, dtype) or value

    def _lossless(self, value: Value, dtype: str) -> Value | None:
        """`value` as it was in `dtype` before it was widened."""
        if value.op == "cast" and value.operands[0].dtype == dtype:
            return value.operands[0]
        if value.op in ("neg", "detach") or is_view(value):
            inner = self._lossless(value.operands[0], dtype)
            if inner is not None:
                return self.builder.make(value.op, inner, *value.operands[1:], **dict(value.attrs))
        return None


def _hides_special(atom: Value) -> bool:
    while is_view(atom):
        atom = atom.operands[0]
    return atom.op in ("logsumexp", "softplus")


def _is_shift(atom: Value) -> bool:
    return atom.op == "max" or (atom.op == "detach" and atom.operands[0].op == "max")


def _widest(view: Value, atoms: Sequence[Value]) -> Value:
    """The reshape among `atoms` of which `view` is a row, a column or the like; else `view` itself."""
    wide = [a for a in atoms if a is not view and a.op == view.op == "reshape" and _same_view(view, a)]
    return max(wide, key=lambda a: sum(d != 1 for d in a.operands[0].shape), default=view)


def _same_view(a: Value, b: Value) -> bool:
    """Whether one view of a sum of both operands is the sum of both views. The operand of a reshape `a` may be
    broadcast to that of `b`."""
    if a.op != b.op or not is_view(a) or a.operands[0].type.rank != b.operands[0].type.rank:
        return False
    x, y = a.operands[0], b.operands[0]
    if a.op == "reshape":
        fits = all(p in (1, q) for p, q in zip(x.shape, y.shape, strict=True))
        return fits and reshaped(x.shape, y.shape, b.shape) == a.shape
    if (a.attrs, a.operands[1:]) != (b.attrs, b.operands[1:]):
        return False
    # of a gather or slice: elements that the other does not have may be among those left out
    return a.op not in ("gather", "slice") or all(x.shape[axis] == y.shape[axis] for axis in a.axes)


def terms_of(splits: Sequence[Split]) -> set[Term]:
    """The fused terms (not plain atoms) of several splits."""
    return {t for s in splits for _, t in s.terms if t.kind != "atom"}

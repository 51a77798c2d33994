"""The scaled-value engine: every value v is c·exp(s), c a value, s a linear form over atoms.

Two mutually recursive readings of a value, each one rule per primitive:

- `linear(v)`: v = Σ kᵢ·atomᵢ + k₀, the additive reading; what stands inside an exp, what a log gives;
- `scaled(v)`: v = c·exp(s), the multiplicative reading; `(v, 0)` when nothing better is known.

Ignorance is safe: a rule that cannot prove its reading over the reals returns the trivial one. Values are read
in topological order and remembered, so the cost is linear in the graph and no rule recurses deeply.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import TypeAlias, cast, final

from stabilize.formats import FORMATS, is_float
from stabilize.graph.build import Builder, constant_of, element_count
from stabilize.graph.value import Value
from stabilize.passes.algebra import Algebra, wider
from stabilize.passes.linear import NOTHING, Linear, ln

_MAX_TERMS = 12  # a longer sum (a residual stream) is an atom: keeps reading linear in the graph


@final
@dataclass(frozen=True, slots=True)
class Scaled:
    """coefficient · exp(exponent), broadcast to the shape of the value it reads."""

    coefficient: Value
    exponent: Linear

    @property
    def trivial(self) -> bool:
        return self.exponent.is_zero

    @property
    def number(self) -> Fraction | None:
        """The coefficient, when it is one finite number."""
        return number_of(self.coefficient)


@final
@dataclass(frozen=True, slots=True)
class WeightedSum:
    """scale·Σ weights·exp(varying), over axes of a value of `shape`: how a coefficient came about."""

    weights: Value
    varying: Linear
    host: Value
    scale: Fraction


def number_of(value: Value) -> Fraction | None:
    """The finite number that every element of `value` equals, exactly; None otherwise."""
    k = constant_of(value)
    return None if k is None else _exactly(k)


@lru_cache(maxsize=1024)
def _exactly(k: float) -> Fraction | None:
    return Fraction(k) if math.isfinite(k) else None


@final
class Engine:
    """Reads values of one graph. `builder` makes the atoms and coefficients that the readings need."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.algebra = Algebra(builder)
        self._linear: dict[Value, Linear] = {}
        self._scaled: dict[Value, Scaled] = {}
        self._weighted: dict[Value, WeightedSum] = {}
        #: sums made here that hold a term of size about 1
        self.normalised: set[Value] = set()

    def read(self, values: list[Value]) -> None:
        """Read the host's values, given in topological order; its own sums are remembered for emission."""
        for value in values:
            form = self.linear(value)
            if value.op in _DIRECT and form.single is None and self._direct(value):
                self.algebra.remember(form, value)
            self.scaled(value)

    # --- the two readings ---------------------------------------------------------------------------------------

    def linear(self, value: Value) -> Linear:
        found = self._linear.get(value)
        if found is None:
            rule = LINEAR.get(value.op) if is_float(value.dtype) else None
            found = (rule(self, value) if rule else None) or Linear.of(value)
            if len(found.terms) > _MAX_TERMS:
                found = Linear.of(value)
            self._linear[value] = found
        return found

    def _direct(self, value: Value) -> bool:
        """Whether `value` adds and scales atoms, nothing else: then its own rounding is as good as any."""
        return all(
            o.op == "constant" or self.linear(o).single is o or self.algebra.known(self.linear(o)) is o
            for o in value.operands
        )

    def scaled(self, value: Value) -> Scaled:
        found = self._scaled.get(value)
        if found is None:
            rule = SCALED.get(value.op) if is_float(value.dtype) else None
            found = (rule(self, value) if rule else None) or self.plain(value)
            if len(found.exponent.terms) > _MAX_TERMS or (found.trivial and not self._reveals(value)):
                found = self.plain(value)
            self._scaled[value] = found
        return found

    def _reveals(self, value: Value) -> bool:
        """Whether exponentials went into `value` and cancelled, so that its coefficient is worth keeping."""
        return any(is_float(o.dtype) and self.scaled(o).coefficient is not o for o in value.operands)

    def plain(self, value: Value) -> Scaled:
        return Scaled(value, NOTHING)

    def log_of(self, value: Value) -> Linear | None:
        """ln(value) as a linear form, when the reading of `value` has an exponent and a known sign."""
        reading = self.supported(self.scaled(value))
        if reading.trivial and reading.coefficient is value:
            k = reading.number
            return Linear.number(ln(k)) if k is not None and k > 0 else None
        return self.log_coefficient(reading)

    def log_coefficient(self, reading: Scaled) -> Linear | None:
        """s + ln c: ln c is a number for a positive constant, else an atom (NaN where c < 0, as it must be)."""
        k = reading.number
        if k is None:
            return reading.exponent + Linear.of(self.builder.make("log", reading.coefficient))
        if k <= 0:
            return None
        return reading.exponent + Linear.number(ln(k))

    # --- weighted sums ----------------------------------------------------------------------------------------------

    def weigh(self, coefficient: Value, weighted: WeightedSum) -> None:
        """Remember that `coefficient` is Σ weights·softmax."""
        self._weighted[coefficient] = weighted

    def weighted(self, coefficient: Value) -> WeightedSum | None:
        return self._weighted.get(coefficient)

    def guardable(self, reading: Scaled) -> WeightedSum | None:
        """The weighted sum that `reading` is, without a factor: a number added to it is one more term of the sum."""
        weighted = self._weighted.get(reading.coefficient)
        whole = weighted is not None and reading.exponent == self.weighted_exponent(weighted)
        return weighted if whole else None

    def supported(self, reading: Scaled, extra: Fraction | None = None) -> Scaled:
        """A weighted sum (plus `extra` > 0) shifted by the maximum over its *support*, the entries of nonzero weight.

        A mask given as 0/1 weights hides large entries; a maximum over those would underflow all others.
        """
        weighted = self._weighted.get(reading.coefficient)
        if weighted is None:
            return reading
        b, host = self.builder, weighted.host
        top, capped = self.shift(weighted, extra)
        weights = b.cast(weighted.weights, capped.dtype)
        terms = b.expand(b.make("mul", weights, b.make("exp", capped)), host.operands[0].shape)
        total = b.reduce("sum", terms, host.axes)
        if weighted.scale != 1:
            total = b.apply("mul", total, weighted.scale)
        if extra is not None:
            total = b.make("add", total, b.make("exp", b.apply("sub", math.log(extra), top)))
        self.normalised.add(total)
        if not host.attr("keepdim"):
            total, top = b.squeeze(total, host.axes), b.squeeze(top, host.axes)
        self.settle(total)
        return Scaled(total, reading.exponent - self.weighted_exponent(weighted) + Linear.of(top))

    def shift(self, weighted: WeightedSum, extra: Fraction | None = None) -> tuple[Value, Value]:
        """(M, min(s − M, T)): M the maximum of s over the support (and ln `extra`), finite even where that is empty.

        Entries of weight 0 may lie above M: they are capped where their exponential is still finite, so that
        0·exp is 0 and the gradient by the weight is not lost. Within the support the cap is never reached.
        """
        b, axes = self.builder, weighted.host.axes
        form = weighted.varying
        dtype = self.carrier(form)
        exponents = self.algebra.materialise(form, dtype)
        zero = b.constant(0.0, weighted.weights.dtype)
        shown = b.apply("where", b.make("ne", weighted.weights, zero), exponents, -math.inf)
        floor = math.log(extra) if extra is not None else -FORMATS[dtype].max
        top = b.make("detach", b.apply("maximum", b.reduce("max", shown, axes), floor))
        cap = float(round(0.8 * FORMATS[dtype].exp_overflow))
        return top, b.apply("minimum", b.make("sub", exponents, top), cap)

    def carrier(self, form: Linear) -> str:
        """The format exponents are carried in: at least float32."""
        dtype = self.algebra.dtype_of(form)
        return dtype if FORMATS[dtype].precision >= 24 else "float32"

    def settle(self, total: Value) -> None:
        """Read `total`, shifted already, as itself: reading it again would shift it again."""
        self.normalised.add(total)
        self._scaled[total] = self.plain(total)

    def weighted_exponent(self, weighted: WeightedSum) -> Linear:
        source = weighted.host.operands[0]
        total = self.algebra.lse(weighted.varying, weighted.host.axes, source.shape)
        assert total is not None
        return _drop_axes(self, total, weighted.host)

    # --- building coefficients ------------------------------------------------------------------------------------

    def one(self, dtype: str) -> Value:
        return self.builder.constant(1.0, dtype)

    def times(self, a: Value, b: Value) -> Value:
        """a·b with numbers folded."""
        dtype = a.dtype if FORMATS[a.dtype].precision >= FORMATS[b.dtype].precision else b.dtype
        ka, kb = number_of(a), number_of(b)
        if ka is not None and kb is not None:
            return self.builder.constant(float(ka * kb), dtype)
        if ka == 1:
            return self.builder.cast(b, dtype)
        if kb == 1:
            return self.builder.cast(a, dtype)
        return self.builder.make("mul", self.builder.cast(a, dtype), self.builder.cast(b, dtype))

    def over(self, a: Value, b: Value) -> Value:
        """a/b with numbers folded."""
        dtype = a.dtype if FORMATS[a.dtype].precision >= FORMATS[b.dtype].precision else b.dtype
        ka, kb = number_of(a), number_of(b)
        if ka is not None and kb:
            return self.builder.constant(float(ka / kb), dtype)
        if kb == 1:
            return self.builder.cast(a, dtype)
        return self.builder.make("div", self.builder.cast(a, dtype), self.builder.cast(b, dtype))

    def hide(self, form: Linear, mask: Value, value: Value) -> Linear:
        """`form` where the boolean `mask` holds, −inf elsewhere (its exponential is 0 there)."""
        full = [a for a in form.atoms if a.shape == value.shape]
        form, outer = form.split(full) if full else (form, Linear())  # finite where the whole is: stays outside
        shown = self.algebra.materialise(form, self.algebra.dtype_of(form))
        hidden = self.builder.constant(-math.inf, shown.dtype)
        return Linear.of(self.builder.make("where", mask, shown, hidden)) + outer


LinearRule: TypeAlias = Callable[[Engine, Value], Linear | None]
ScaledRule: TypeAlias = Callable[[Engine, Value], Scaled | None]

# --- linear rules -----------------------------------------------------------------------------------------------------


def _lin_constant(e: Engine, v: Value) -> Linear | None:
    k = number_of(v)
    return None if k is None else Linear.number(k)


def _lin_add(e: Engine, v: Value) -> Linear:
    return e.linear(v.operands[0]) + e.linear(v.operands[1])


def _lin_sub(e: Engine, v: Value) -> Linear:
    return e.linear(v.operands[0]) - e.linear(v.operands[1])


def _lin_neg(e: Engine, v: Value) -> Linear:
    return e.linear(v.operands[0]).scale(Fraction(-1))


def _lin_mul(e: Engine, v: Value) -> Linear | None:
    a, b = v.operands
    ka, kb = number_of(a), number_of(b)
    if kb:
        return e.linear(a).scale(kb)
    return e.linear(b).scale(ka) if ka else None


def _lin_div(e: Engine, v: Value) -> Linear | None:
    k = number_of(v.operands[1])
    return e.linear(v.operands[0]).scale(1 / k) if k else None


def _lin_log(e: Engine, v: Value) -> Linear | None:
    return e.log_of(v.operands[0])


def _lin_log1p(e: Engine, v: Value) -> Linear | None:
    reading = e.scaled(v.operands[0])
    if reading.trivial or reading.number is None:
        return None
    if reading.number < 0:
        rest = complement(e, reading.exponent, Fraction(1), v.dtype) if reading.number == -1 else None
        return None if rest is None else rest.exponent
    return e.algebra.softplus(reading.exponent + Linear.number(ln(reading.number)))


def _lin_log_softmax(e: Engine, v: Value) -> Linear | None:
    form = e.linear(v.operands[0])
    total = e.algebra.lse(form, v.axes, v.shape)
    return None if total is None else form - total


def _lin_logsumexp(e: Engine, v: Value) -> Linear | None:
    source = v.operands[0]
    total = e.algebra.lse(e.linear(source), v.axes, source.shape)
    return None if total is None else _drop_axes(e, total, v)


def _lin_max(e: Engine, v: Value) -> Linear:
    source = v.operands[0]
    return _drop_axes(e, e.algebra.max(e.linear(source), v.axes, source.shape), v)


def _drop_axes(e: Engine, form: Linear, v: Value) -> Linear:
    """Squeeze the kept axes of a reduction's form when the host reduced without keepdim."""
    if v.attr("keepdim"):
        return form
    rank = v.operands[0].type.rank
    terms = [(_squeezed(e, a, v.axes, rank), k) for a, k in form.terms]
    return Linear.collect(terms, form.constant)


def _squeezed(e: Engine, atom: Value, axes: tuple[int, ...], rank: int) -> Value:
    offset = rank - atom.type.rank
    return e.builder.squeeze(atom, [a - offset for a in axes if a >= offset])


def _lin_softplus(e: Engine, v: Value) -> Linear:
    return e.algebra.softplus(e.linear(v.operands[0]))


def _lin_log_sigmoid(e: Engine, v: Value) -> Linear:
    return e.algebra.softplus(e.linear(v.operands[0]).scale(Fraction(-1))).scale(Fraction(-1))


def _lin_logaddexp(e: Engine, v: Value) -> Linear:
    return e.algebra.logaddexp(e.linear(v.operands[0]), e.linear(v.operands[1]))


def _lin_logcumsumexp(e: Engine, v: Value) -> Linear:
    return e.algebra.scan("logcumsumexp", e.linear(v.operands[0]), v.axes[0], v.shape)


def _lin_topk(e: Engine, v: Value) -> Linear | None:
    return e.algebra.topk(e.linear(v.operands[0]), v)


def _lin_view(e: Engine, v: Value) -> Linear | None:
    return e.algebra.view(e.linear(v.operands[0]), v)


def _lin_cast(e: Engine, v: Value) -> Linear | None:
    source = v.operands[0]
    if not is_float(source.dtype) or not widens(source.dtype, v.dtype):
        return None
    return e.linear(source)


def widens(source: str, target: str) -> bool:
    """Whether every number of `source` is a number of `target`."""
    a, b = FORMATS[source], FORMATS[target]
    return a.precision <= b.precision and a.emax <= b.emax


def _lin_detach(e: Engine, v: Value) -> Linear:
    form = e.linear(v.operands[0])
    return Linear.collect([(e.builder.make("detach", a), k) for a, k in form.terms], form.constant)


LINEAR: dict[str, LinearRule] = {
    "constant": _lin_constant, "add": _lin_add, "sub": _lin_sub, "neg": _lin_neg, "mul": _lin_mul, "div": _lin_div,
    "log": _lin_log, "log1p": _lin_log1p, "log_softmax": _lin_log_softmax, "logsumexp": _lin_logsumexp,
    "max": _lin_max, "softplus": _lin_softplus, "log_sigmoid": _lin_log_sigmoid, "logaddexp": _lin_logaddexp,
    "logcumsumexp": _lin_logcumsumexp, "topk_values": _lin_topk, "cast": _lin_cast, "detach": _lin_detach,
    "unsqueeze": _lin_view, "squeeze": _lin_view, "transpose": _lin_view, "slice": _lin_view, "gather": _lin_view,
    "expand": _lin_view, "reshape": _lin_view,
}  # fmt: skip

_DIRECT = frozenset({"add", "sub", "neg", "mul", "div"})

# --- scaled rules -----------------------------------------------------------------------------------------------------


def _sc_exp(e: Engine, v: Value) -> Scaled:
    return Scaled(e.one(v.dtype), e.linear(v.operands[0]))


def _sc_pow(e: Engine, v: Value) -> Scaled | None:
    base, power = v.operands
    k, n = number_of(base), number_of(power)
    if k is not None and k > 0:
        return Scaled(e.one(v.dtype), e.linear(power).scale(ln(k)))
    return None if n is None else power_of(e, e.scaled(base), n, v.dtype)


def power_of(e: Engine, reading: Scaled, n: Fraction, dtype: str) -> Scaled | None:
    """(c·exp s)ⁿ = cⁿ·exp(n·s); where c < 0 both sides are real, or NaN, together."""
    k = reading.number
    if k is not None and k > 0:
        try:
            return Scaled(e.builder.constant(float(k) ** float(n), dtype), reading.exponent.scale(n))
        except OverflowError:
            return None
    if reading.trivial:
        return None
    return Scaled(e.builder.apply("pow", reading.coefficient, float(n)), reading.exponent.scale(n))


def _sc_sqrt(e: Engine, v: Value) -> Scaled | None:
    reading = e.scaled(v.operands[0])
    return None if reading.trivial else power_of(e, reading, Fraction(1, 2), v.dtype)


def _sc_mul(e: Engine, v: Value) -> Scaled | None:
    a, b = (e.scaled(o) for o in v.operands)
    for one, other in ((a, b), (b, a)):
        mask = boolean(e, other.coefficient) if other.trivial else None
        if mask is not None and not one.trivial:
            return Scaled(one.coefficient, e.hide(one.exponent, mask, v))
    return Scaled(e.times(a.coefficient, b.coefficient), a.exponent + b.exponent)


def boolean(e: Engine, value: Value) -> Value | None:
    """The condition behind a 0/1 float value, made by a cast or by where(c, 1, 0)."""
    if value.op == "cast" and value.operands[0].dtype == "bool":
        return value.operands[0]
    if value.op == "where":
        yes, no = (number_of(o) for o in value.operands[1:])
        if yes == 1 and no == 0:
            return value.operands[0]
        if yes == 0 and no == 1:
            return e.builder.make("not", value.operands[0])
    return None


def _sc_div(e: Engine, v: Value) -> Scaled:
    a, b = (e.scaled(o) for o in v.operands)
    weighted, extra = _denominator(e, v.operands[1], b)
    if weighted is not None:
        b = e.supported(b if extra is None else e.scaled(_unguarded(v.operands[1])), extra)
        if _carries(a.coefficient, weighted.weights):
            top, capped = e.shift(weighted, extra)
            a = Scaled(a.coefficient, a.exponent - weighted.varying + Linear.of(capped) + Linear.of(top))
    return Scaled(e.over(a.coefficient, b.coefficient), a.exponent - b.exponent)


def _denominator(e: Engine, value: Value, reading: Scaled) -> tuple[WeightedSum | None, Fraction | None]:
    """(the weighted sum that `value` is, a positive number added to it as a guard)."""
    weighted = e.weighted(reading.coefficient)
    if weighted is None and value.op == "add":
        for part, guard in (value.operands, value.operands[::-1]):
            k = number_of(guard)
            if k is not None and k > 0:
                return e.guardable(e.scaled(part)), k
    return weighted, None


def _unguarded(value: Value) -> Value:
    return value.operands[0] if number_of(value.operands[0]) is None else value.operands[1]


def _carries(coefficient: Value, weights: Value) -> bool:
    """Whether `coefficient` is 0 wherever `weights` is: a product with it."""
    return coefficient is weights or (
        coefficient.op == "mul" and any(_carries(o, weights) for o in coefficient.operands)
    )


def _sc_neg(e: Engine, v: Value) -> Scaled:
    a = e.scaled(v.operands[0])
    return Scaled(e.times(a.coefficient, e.builder.constant(-1.0, v.dtype)), a.exponent)


def _sc_abs(e: Engine, v: Value) -> Scaled | None:
    a = e.scaled(v.operands[0])
    k = a.number
    return None if a.trivial or k is None else Scaled(e.builder.constant(abs(float(k)), v.dtype), a.exponent)


def _sc_add(e: Engine, v: Value) -> Scaled | None:
    return _two_terms(e, v, Fraction(1))


def _sc_sub(e: Engine, v: Value) -> Scaled | None:
    return _two_terms(e, v, Fraction(-1))


def _two_terms(e: Engine, v: Value, sign: Fraction) -> Scaled | None:
    a, b = (e.scaled(o) for o in v.operands)
    ka, kb = a.number, b.number
    if kb == 0 and b.trivial:  # an ε that the format rounded to 0
        return None if a.trivial else a
    for one, other in ((a, b), (b, a)):
        if sign > 0 and other.trivial and (other.number or 0) > 0 and e.guardable(one) is not None:
            return e.supported(one, other.number)
    if a.trivial and b.trivial:
        return _one_and_tanh(e, v, sign)
    if a.exponent == b.exponent:
        op = "add" if sign > 0 else "sub"
        if ka is not None and kb is not None:
            return Scaled(e.builder.constant(float(ka + sign * kb), v.dtype), a.exponent)
        wide = wider([a.coefficient.dtype, b.coefficient.dtype])
        parts = (e.builder.cast(c, wide) for c in (a.coefficient, b.coefficient))
        return Scaled(e.builder.make(op, *parts), a.exponent)
    if ka is None or kb is None:
        return None
    kb *= sign
    if ka > 0 and kb > 0:
        total = e.algebra.logaddexp(a.exponent + Linear.number(ln(ka)), b.exponent + Linear.number(ln(kb)))
        return Scaled(e.one(v.dtype), total)
    if ka == -kb and ka > 0 and a.trivial:
        return complement(e, b.exponent, ka, v.dtype)
    if kb == -ka and kb > 0 and b.trivial:
        return complement(e, a.exponent, kb, v.dtype)
    return None


def _one_and_tanh(e: Engine, v: Value, sign: Fraction) -> Scaled | None:
    """1 ± tanh(u) = 2·σ(±2u), 1 − tanh(u)² = 4·σ(2u)·σ(−2u)."""
    for one, other in (v.operands, v.operands[::-1]):
        if number_of(one) == 1 and other.op == "tanh" and (sign > 0 or one is v.operands[0]):
            minus = e.linear(other.operands[0]).scale(-2 * sign)
            return Scaled(e.builder.constant(2.0, v.dtype), e.algebra.softplus(minus).scale(Fraction(-1)))
    return _sech_squared(e, v) if number_of(v.operands[0]) == 1 and sign < 0 else None


def _sech_squared(e: Engine, v: Value) -> Scaled | None:
    """1 − tanh(u)² = 4·σ(2u)·σ(−2u)."""
    square = v.operands[1]
    root = square.operands[0] if square.op in ("mul", "pow") else square
    squared = square.op == "mul" and square.operands[1] is root
    squared = squared or (square.op == "pow" and number_of(square.operands[1]) == 2)
    if not squared or root.op != "tanh":
        return None
    twice = e.linear(root.operands[0]).scale(Fraction(2))
    exponent = e.algebra.softplus(twice) + e.algebra.softplus(twice.scale(Fraction(-1)))
    return Scaled(e.builder.constant(4.0, v.dtype), exponent.scale(Fraction(-1)))


def complement(e: Engine, s: Linear, k: Fraction, dtype: str) -> Scaled | None:
    """k·(1 − exp(s)) where exp(s) is a sigmoid: 1 − σ(w) = σ(−w). No cancellation is left."""
    for atom, c in s.terms:
        if atom.op != "softplus" or c != -1:
            continue
        w = e.linear(atom.operands[0])
        rest = s + Linear.of(atom)
        if rest.is_zero:
            return Scaled(e.builder.constant(float(k), dtype), w - Linear.of(atom))
        if rest == w:
            return Scaled(e.builder.constant(float(k), dtype), Linear.of(atom).scale(Fraction(-1)))
    return None


def _sc_sigmoid(e: Engine, v: Value) -> Scaled:
    minus = e.linear(v.operands[0]).scale(Fraction(-1))
    return Scaled(e.one(v.dtype), e.algebra.softplus(minus).scale(Fraction(-1)))


def _sc_softmax(e: Engine, v: Value) -> Scaled | None:
    form = e.linear(v.operands[0])
    total = e.algebra.lse(form, v.axes, v.shape)
    return None if total is None else Scaled(e.one(v.dtype), form - total)


def _sc_sum(e: Engine, v: Value) -> Scaled | None:
    source = v.operands[0]
    reading = e.scaled(source)
    if reading.trivial:
        return None
    divisor = element_count(source.shape, v.axes) if v.op == "mean" else 1
    k = reading.number
    if divisor is None:
        return None if k is None else _shifted_mean(e, v, reading, k)
    if not divisor:
        return None
    if k is not None:
        total = e.algebra.lse(reading.exponent, v.axes, source.shape)
        if total is None:
            return None
        return Scaled(e.builder.constant(float(k / divisor), v.dtype), _drop_axes(e, total, v))
    return _weighted_sum(e, v, reading, Fraction(1, divisor))


def _shifted_mean(e: Engine, v: Value, reading: Scaled, k: Fraction) -> Scaled:
    """k·mean exp(s) over a symbolic number of entries: ln n is no number, so the mean itself is shifted."""
    b, source = e.builder, v.operands[0]
    varying, fixed = e.algebra.pull(reading.exponent, v.axes, source.type.rank)
    logits = e.algebra.materialise(varying, e.carrier(varying), source.shape)
    top = b.make("detach", b.apply("maximum", b.reduce("max", logits, v.axes), -FORMATS[logits.dtype].max))
    mean = b.reduce("mean", b.make("exp", b.make("sub", logits, top)), v.axes)
    e.normalised.add(mean)
    if not v.attr("keepdim"):
        mean = b.squeeze(mean, v.axes)
    e.settle(mean)
    return Scaled(e.times(mean, b.constant(float(k), mean.dtype)), _drop_axes(e, fixed + Linear.of(top), v))


def _weighted_sum(e: Engine, v: Value, reading: Scaled, scale: Fraction) -> Scaled | None:
    """Σ c·exp(s) = (Σ c·softmax(s))·exp(lse s), for weights c of any sign."""
    source = v.operands[0]
    varying, fixed = e.algebra.pull(reading.exponent, v.axes, source.type.rank)
    if _is_shifted(varying.single):
        e.settle(v)
        return None
    total = e.algebra.lse(varying, v.axes, source.shape)
    if total is None or len(v.axes) != 1:
        return None
    if not varying.terms:
        terms = reading.coefficient
        total = Linear()
    else:
        logits = e.algebra.materialise(varying, e.algebra.dtype_of(varying), source.shape)
        weights = e.builder.cast(e.builder.make("softmax", logits, axis=v.axes[0]), v.dtype)
        terms = e.times(e.builder.cast(reading.coefficient, v.dtype), weights)
    terms = e.builder.expand(terms, source.shape)
    summed = e.builder.make("sum", terms, axes=v.axes, keepdim=v.attr("keepdim"))
    coefficient = e.times(summed, e.builder.constant(float(scale), v.dtype))
    if varying.terms:
        e.weigh(coefficient, WeightedSum(reading.coefficient, varying, v, scale))
    return Scaled(coefficient, _drop_axes(e, fixed + total, v))


def _is_shifted(atom: Value | None) -> bool:
    """min(s − M, T), M the maximum of s over a support: the exponent of a weighted sum that was shifted already."""
    if atom is None or atom.op != "minimum" or number_of(atom.operands[1]) is None or atom.operands[0].op != "sub":
        return False
    exponents, top = atom.operands[0].operands
    if top.op == "detach":
        top = top.operands[0]
    if top.op != "maximum" or number_of(top.operands[1]) is None or top.operands[0].op != "max":
        return False
    shown = top.operands[0].operands[0]
    return exponents in (shown, *shown.operands)


def _sc_prod(e: Engine, v: Value) -> Scaled | None:
    """Π p = Π sign(p) · exp(Σ ln|p|); for positive exponentials simply exp(Σ s)."""
    source = v.operands[0]
    reading = e.scaled(source)
    if reading.trivial:
        if constant_of(source) is not None or source.op == "sign":
            return None
        signs = e.builder.make(v.op, e.builder.make("sign", source), **dict(v.attrs))
        carrier = source.dtype if FORMATS[source.dtype].precision >= 24 else "float32"
        exponents = e.builder.make("log", e.builder.cast(e.builder.make("abs", source), carrier))
        return Scaled(signs, _accumulated(e, v, exponents))
    if reading.number is None or reading.number <= 0:
        return None
    form = reading.exponent + Linear.number(ln(reading.number))
    exponents = e.algebra.materialise(form, e.carrier(form), source.shape)
    return Scaled(e.one(v.dtype), _accumulated(e, v, exponents))


def _accumulated(e: Engine, v: Value, exponents: Value) -> Linear:
    """Σ of exponents where `v` is a product, running Σ where it is a running product."""
    op = "sum" if v.op == "prod" else "cumsum"
    return Linear.of(e.builder.make(op, exponents, **dict(v.attrs)))


def _sc_norm(e: Engine, v: Value) -> Scaled | None:
    """√Σx² as it is spelled, when x has an exponent."""
    source = v.operands[0]
    if e.scaled(source).trivial or not v.axes:
        return None
    squares = e.builder.make("sum", e.builder.make("mul", source, source), **dict(v.attrs))
    return e.scaled(e.builder.make("sqrt", squares))


def _sc_cumsum(e: Engine, v: Value) -> Scaled | None:
    reading = e.scaled(v.operands[0])
    if reading.trivial or reading.number is None:
        return None
    return Scaled(reading.coefficient, e.algebra.scan("logcumsumexp", reading.exponent, v.axes[0], v.shape))


def _positive_form(e: Engine, value: Value) -> Linear | None:
    """ln of a value that is a positive constant times an exponential."""
    reading = e.scaled(value)
    k = reading.number
    return None if k is None or k <= 0 else reading.exponent + Linear.number(ln(k))


def _sc_max(e: Engine, v: Value) -> Scaled | None:
    source = v.operands[0]
    form = _positive_form(e, source)
    if form is None or e.scaled(source).trivial:
        return None
    return Scaled(e.one(v.dtype), _drop_axes(e, e.algebra.max(form, v.axes, source.shape), v))


def _sc_extremum(e: Engine, v: Value) -> Scaled | None:
    """max(eᵃ, eᵇ) = e^max(a, b), and for clamps with a positive bound."""
    forms = [_positive_form(e, o) for o in v.operands]
    for form, other in ((forms[0], v.operands[1]), (forms[1], v.operands[0])):
        bound = number_of(other)
        if v.op == "maximum" and form is not None and bound is not None and bound <= 0:
            return Scaled(e.one(v.dtype), form)  # never below 0: the clamp does nothing
    if forms[0] is None or forms[1] is None or all(e.scaled(o).trivial for o in v.operands):
        return None
    dtype = e.carrier(forms[0] + forms[1])
    a, b = (e.algebra.materialise(f, dtype) for f in forms if f is not None)
    return Scaled(e.one(v.dtype), Linear.of(e.builder.make(v.op, a, b)))


def _sc_where(e: Engine, v: Value) -> Scaled | None:
    condition, a, b = v.operands
    ra, rb = e.scaled(a), e.scaled(b)
    if ra.trivial and rb.trivial:
        return None
    if constant_of(b) == 0 and ra.number is not None:
        return Scaled(ra.coefficient, e.hide(ra.exponent, condition, v))
    if constant_of(a) == 0 and rb.number is not None:
        return Scaled(rb.coefficient, e.hide(rb.exponent, e.builder.make("not", condition), v))
    forms = [_positive_form(e, o) for o in (a, b)]
    if forms[0] is None or forms[1] is None:
        return None
    dtype = e.carrier(forms[0] + forms[1])
    x, y = (e.algebra.materialise(f, dtype) for f in forms if f is not None)
    return Scaled(e.one(v.dtype), Linear.of(e.builder.make("where", condition, x, y)))


def _sc_view(e: Engine, v: Value) -> Scaled | None:
    source = v.operands[0]
    reading = e.scaled(source)
    if reading.trivial:
        return None
    form = e.algebra.view(reading.exponent, v)
    if form is None:
        return None
    if reading.number is not None:
        return Scaled(reading.coefficient, form)
    whole = e.builder.expand(reading.coefficient, source.shape)
    moved = e.builder.make(v.op, whole, *v.operands[1:], **dict(v.attrs))
    weighted = e.weighted(reading.coefficient)
    if weighted is not None and v.op == "unsqueeze" and v.axes == weighted.host.axes:
        host = weighted.host
        kept = e.builder.reduce("sum", host.operands[0], host.axes)
        e.weigh(moved, replace(weighted, host=kept))
    return Scaled(moved, form)


def _sc_cast(e: Engine, v: Value) -> Scaled | None:
    """A rounding is the identity on reals: the exponent stays in the format it was computed in."""
    source = v.operands[0]
    if not is_float(source.dtype):
        return None
    reading = e.scaled(source)
    return None if reading.trivial else reading


def _sc_topk(e: Engine, v: Value) -> Scaled | None:
    reading = e.scaled(v.operands[0])
    if reading.trivial or reading.number is None or reading.number <= 0:
        return None
    form = e.algebra.topk(reading.exponent, v)
    return None if form is None else Scaled(reading.coefficient, form)


def _sc_concat(e: Engine, v: Value) -> Scaled | None:
    forms = [_positive_form(e, o) for o in v.operands]
    if any(f is None for f in forms) or all(e.scaled(o).trivial for o in v.operands):
        return None
    dtype = "float64" if v.dtype == "float64" else "float32"
    parts = [e.algebra.materialise(f, dtype, o.shape) for f, o in zip(forms, v.operands, strict=True) if f is not None]
    return Scaled(e.one(v.dtype), Linear.of(e.builder.make("concat", *parts, axis=cast(int, v.attr("axis")))))


_LARGEST_LOG_PRODUCT = 2**20  # elements of the broadcast sum that a product of two exponentials needs


def _sc_matmul(e: Engine, v: Value) -> Scaled | None:
    """exp(S) @ V = (softmax(S) @ V)·exp(lse S); a product with a vector is a weighted sum."""
    a, b = v.operands
    ra, rb = e.scaled(a), e.scaled(b)
    if ra.trivial and rb.trivial:
        return None
    vector = _as_sum(e, v, a, b)
    if vector is not None:
        return e.scaled(vector)
    axis = a.type.rank - 1
    if a.type.rank < 2 or not rb.trivial or rb.coefficient is not b:
        return None
    varying, fixed = e.algebra.pull(ra.exponent, (axis,), a.type.rank)
    total = e.algebra.lse(varying, (axis,), a.shape)
    if not varying.terms or total is None:
        return None
    if ra.number is None:
        weighted = WeightedSum(ra.coefficient, varying, e.builder.reduce("sum", a, (axis,)), Fraction(1))
        top, capped = e.shift(weighted)
        terms = e.builder.make("mul", e.builder.cast(ra.coefficient, capped.dtype), e.builder.make("exp", capped))
        weights, total = e.builder.cast(e.builder.expand(terms, a.shape), v.dtype), Linear.of(top)
    else:
        logits = e.algebra.materialise(varying, e.algebra.dtype_of(varying), a.shape)
        weights = e.builder.cast(e.builder.make("softmax", logits, axis=axis), v.dtype)
    product = e.builder.make("matmul", weights, b)
    number = e.builder.constant(float(ra.number), v.dtype) if ra.number is not None else e.one(v.dtype)
    return Scaled(e.times(product, number), fixed + total)


def _as_sum(e: Engine, v: Value, a: Value, b: Value) -> Value | None:
    """A @ b as Σ A·b: for a vector, for a constant matrix of one column, for two small exponentials."""
    builder, rank = e.builder, a.type.rank
    if b.type.rank == 1:
        return builder.reduce("sum", builder.make("mul", a, b), (rank - 1,), keepdim=False)
    if rank == 1 and b.type.rank == 2:
        column = builder.unsqueeze(a, (1,))
        return builder.reduce("sum", builder.make("mul", column, b), (0,), keepdim=False)
    if b.shape[-1] == 1 and b.type.rank == 2:
        row = builder.squeeze(b, (1,))
        return builder.reduce("sum", builder.make("mul", a, row), (rank - 1,))
    k = number_of(b)
    if k is not None and b.type.rank == 2:
        summed = builder.reduce("sum", builder.apply("mul", a, k) if k != 1 else a, (rank - 1,))
        return builder.expand(summed, v.shape)
    size = element_count((*v.shape, a.shape[-1]), range(v.type.rank + 1))
    both = not e.scaled(a).trivial and not e.scaled(b).trivial
    if not both or rank != 2 or b.type.rank != 2 or size is None or size > _LARGEST_LOG_PRODUCT:
        return None
    terms = builder.make("mul", builder.unsqueeze(a, (2,)), builder.unsqueeze(b, (0,)))
    return builder.reduce("sum", terms, (1,), keepdim=False)


SCALED: dict[str, ScaledRule] = {
    "exp": _sc_exp, "pow": _sc_pow, "sqrt": _sc_sqrt, "mul": _sc_mul, "div": _sc_div, "neg": _sc_neg, "abs": _sc_abs,
    "add": _sc_add, "sub": _sc_sub, "sigmoid": _sc_sigmoid, "softmax": _sc_softmax, "sum": _sc_sum,
    "mean": _sc_sum, "norm": _sc_norm, "prod": _sc_prod, "cumprod": _sc_prod, "cumsum": _sc_cumsum, "max": _sc_max,
    "maximum": _sc_extremum, "minimum": _sc_extremum, "where": _sc_where, "cast": _sc_cast,
    "topk_values": _sc_topk, "concat": _sc_concat, "matmul": _sc_matmul,
    "unsqueeze": _sc_view, "squeeze": _sc_view, "transpose": _sc_view, "slice": _sc_view, "gather": _sc_view,
    "expand": _sc_view, "reshape": _sc_view,
}  # fmt: skip

"""What the formats do to a value: bounds over the reals, and where the computed number leaves them behind.

For each value: `lo`..`hi` bound it over the reals; `big` / `tiny`: its magnitude may pass the format's largest
number / fall below its smallest positive one, so that inf / 0 is what gets stored (which is the correct rounding);
`broken`: from operands that are right up to rounding, the result (or its gradient) can still be wrong beyond any
bound: inf/inf, 0/0, log of an underflowed number, inf − inf. A broken value is where a repair is due.

Bounds of exponents use what relates atoms: x ≤ max x, 0 ≤ lse x − max x ≤ ln n, x ≤ lse x, softplus x ≥ max(x, 0).
That is why max-shifted code is found healthy and why a shift by anything else is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import TypeAlias, cast, final

from stabilize.formats import FORMATS, is_float
from stabilize.graph.build import constant_of, element_count
from stabilize.graph.value import Value
from stabilize.passes.known import Known, Numbers, unknown
from stabilize.passes.linear import Linear, ln
from stabilize.passes.normalised import averaged_by, is_cosine
from stabilize.passes.scaled import Engine, number_of
from stabilize.passes.steps import Steps

INF = math.inf
_DEPTH = 5  # relations applied one after the other to bound a form
#: Forms looked at to bound one: nearly all need one, some a hundred. Relations between many atoms are given up.
_OWN_STEPS, _SPARE_STEPS, _MOST_STEPS = 2, 1000, 200
_MOST_NESTED = 40  # values bounded to bound another: towers of hundreds of exponentials would overflow the stack
_COUNTING = ("arange", "reshape", "unsqueeze", "squeeze", "transpose", "expand", "slice")  # known of integers too
_VIEWS = ("unsqueeze", "squeeze", "transpose", "expand")
_FEW = 4  # factors: a product of coordinates is told as little as a·b is
_MOST_FACTORS = 16  # of a product, that are looked at
_LOOKED_AT = 1 << 12  # elements of a weight whose bounds are taken by themselves: scales, biases, tables
_WEAK = -10.0  # a lower bound of an exponent below it decides nothing: exp may leave even float16


@final
@dataclass(frozen=True, slots=True)
class Range:
    """Bounds over the reals, and what the format may have done."""

    lo: float = -INF
    hi: float = INF
    big: bool = False
    tiny: bool = False
    broken: bool = False

    def __contains__(self, x: float) -> bool:
        return self.lo <= x <= self.hi


RangeRule: TypeAlias = Callable[["Ranges", Value, list[Range]], Range]


@final
class Ranges:
    """Ranges of the values an engine reads. `given` bounds leaves; others are unbounded.

    coarse: values that the host's own kernel computes with an unbounded relative error. known: the numbers of leaves.
    """

    def __init__(
        self,
        engine: Engine,
        given: Mapping[Value, tuple[float, float]] | None = None,
        coarse: Collection[Value] = (),
        known: Known = unknown,
    ) -> None:
        self.engine = engine
        self.known = known
        self._coarse = frozenset(coarse)
        self._given = dict(given or {})
        self._ranges: dict[Value, Range] = {}
        self._lowest: dict[tuple[Linear, int], float] = {}
        self._weaker: dict[Linear, list[Linear]] = {}
        self._steps = Steps(_OWN_STEPS, _SPARE_STEPS, _MOST_STEPS)
        self._nested = 0

    def of(self, value: Value) -> Range:
        found = self._ranges.get(value)
        if found is None:
            if self._nested == _MOST_NESTED:
                return Range()
            self._nested += 1
            for inner in _pending(value, self._ranges):
                self._ranges[inner] = self._compute(inner)
            self._nested -= 1
            found = self._ranges[value]
        return found

    def _compute(self, value: Value) -> Range:
        if value in self._given:
            return Range(*self._given[value])
        if value.op == "input" and is_float(value.dtype):
            count = element_count(value.shape, range(value.type.rank))
            # a matrix is looked at in products with what is bounded
            numbers = self.known(value) if count is not None and count <= _LOOKED_AT else None
            return Range() if numbers is None else Range(*numbers.bounds())
        if not is_float(value.dtype) and value.op not in _COUNTING:
            return Range()
        rule = RANGE.get(value.op)
        if rule is None:
            return Range()
        found = rule(self, value, [self._ranges[o] for o in value.operands])
        if not is_float(value.dtype):
            return found
        found = _possible(self._refine(value, found))
        return replace(found, broken=True) if value in self._coarse else found

    def _refine(self, value: Value, r: Range) -> Range:
        """Tighten with the scaled reading: what the operands' ranges cannot see but algebra can."""
        if value.op == "constant":
            return r
        if value in self.engine.normalised:
            return Range(r.lo, r.hi)
        reading = self.engine.scaled(value)
        k = None if reading.trivial else reading.number
        if k is None or k <= 0:
            return self._refine_linear(value, r)
        lo, hi = self.bounds(reading.exponent)
        lo, hi = _exp(lo) * float(k), _exp(hi) * float(k)
        fmt = FORMATS[value.dtype]
        cancels = value.op in ("add", "sub") and r.lo <= 0  # 1 − σ(x): positive, stored as 0
        return Range(
            max(r.lo, lo), min(r.hi, hi),
            big=r.big and hi > fmt.max, tiny=(r.tiny or cancels) and lo < fmt.min_normal, broken=r.broken,
        )  # fmt: skip

    def _refine_linear(self, value: Value, r: Range) -> Range:
        form = self.engine.linear(value)
        if form.single is value or len(form.terms) > 8:
            return r
        lo, hi = self.bounds(form)
        return Range(max(r.lo, lo), min(r.hi, hi), r.big, r.tiny, r.broken)

    def weight(self, value: Value, axis: int) -> tuple[Numbers, int] | None:
        """The numbers of a weight that is known, and where its `axis` is in them, seen through transpositions."""
        perm = tuple(range(value.type.rank))
        axis = max(axis, -value.type.rank)
        while value.op in ("transpose", "cast", "detach") and is_float(value.dtype):  # integers are other numbers
            if value.op == "transpose":
                own = cast("tuple[int, ...]", value.attr("perm"))
                perm = tuple(own[p] for p in perm)
            value = value.operands[0]
        if value.op != "input" or not is_float(value.dtype):
            return None
        numbers = self.known(value)
        return None if numbers is None else (numbers, perm[axis])

    # --- bounds of linear forms -------------------------------------------------------------------------------------

    def bounds(self, form: Linear) -> tuple[float, float]:
        """(lo, hi) of a linear form over the reals."""
        form = self._attached(form)
        if any(atom.op in _RELATED for atom, _ in form.terms):
            return self._least(form), -self._least(-form)
        with self._steps:  # none is needed: they go to later searches
            return self._by_parts(form)

    def _least(self, form: Linear) -> float:
        with self._steps:
            return self._lower(form, _DEPTH)

    def _attached(self, form: Linear) -> Linear:
        """`form` seen through what changes gradients (detach) or infinities (a clamp to ±the largest number) only."""
        seen = {atom: through for atom in form.atoms if (through := self._through(atom)) is not None}
        if not seen:
            return form
        attached = Linear.number(form.constant)
        for atom, k in form.terms:
            attached = attached + seen.get(atom, Linear.of(atom)).scale(k)
        return self._attached(attached)

    def _through(self, atom: Value) -> Linear | None:
        """What an atom, or what it is a view of, is on finite reals; None when that is itself."""
        inner = _transparent(atom)
        if inner is not atom:
            return self.engine.linear(inner)
        if atom.op not in _VIEWS:
            return None
        through = self._through(atom.operands[0])
        return None if through is None else self.engine.algebra.view(through, atom)

    def _lower(self, form: Linear, depth: int) -> float:
        """A lower bound of `form`, remembered up to its constant: eliminations meet the same forms in any order."""
        bare = Linear(form.terms)
        key = bare, depth
        found = self._lowest.get(key)
        if found is None:
            found = self._search(bare, depth)
            if not self._steps.spent or depth == _DEPTH:  # else it was cut short: one with more steps may do better
                self._lowest[key] = found
        total = found + _float(form.constant) if form.constant else found
        return -INF if math.isnan(total) else total

    def _search(self, form: Linear, depth: int) -> float:
        best, _ = self._by_parts(form)
        self._steps.take()
        if depth and not self._steps.spent and best < _WEAK:
            for bound in self._by_relations(form, depth - 1):
                best = max(best, bound)
                if self._steps.spent:
                    break
        return best

    def _by_relations(self, form: Linear, depth: int) -> Generator[float]:
        """Lower bounds of `form` by what each of its atoms is never less than."""
        for atom, k in form.terms:
            if atom.op not in _RELATED:
                continue
            weaker = [form.without(atom) + below for below in self._weaken(atom, k)]
            for other in weaker:
                if len(other.terms) <= len(form.terms):
                    yield self._lower(other, depth)
            if atom.op in ("maximum", "minimum"):  # at every point it is one of them
                rest = form.without(atom)
                forms = [self.engine.linear(o) for o in _choices(atom)]
                if atom.op == "maximum" and k == 1:
                    yield self._lower_max([f + rest for f in forms], depth)
                yield min(self._lower(rest + f.scale(k), depth) for f in forms)

    def _lower_max(self, forms: list[Linear], depth: int) -> float:
        """A lower bound of the largest of `forms`, case by case of a maximum that is taken off all of them."""
        forms = [self._attached(f) for f in forms]
        best = max(self._lower(f, depth - 1) for f in forms) if depth > 0 else -INF
        shift = next((a for a, k in forms[0].terms if k == -1 and a.op == "maximum"), None)
        if (
            best > _WEAK
            or depth <= 0
            or self._steps.spent
            or shift is None
            or any(f.coefficient(shift) != -1 for f in forms)
        ):
            return best
        shifted = [f + Linear.of(shift) for f in forms]
        cases = [[f - self.engine.linear(o) for f in shifted] for o in _choices(shift)]
        return max(best, min(self._lower_max(case, depth - 1) for case in cases))

    def _by_parts(self, form: Linear) -> tuple[float, float]:
        """(lo, hi) of `form` by the ranges of its atoms alone."""
        lo = hi = 0.0
        for atom, k in form.terms:
            r, factor = self.of(atom), _float(k)
            lo += factor * (r.lo if k.numerator > 0 else r.hi)
            hi += factor * (r.hi if k.numerator > 0 else r.lo)
        if form.constant:
            lo, hi = lo + _float(form.constant), hi + _float(form.constant)
        return -INF if math.isnan(lo) else lo, INF if math.isnan(hi) else hi

    def _weaken(self, atom: Value, k: Fraction) -> list[Linear]:
        """Forms that k·atom is never less than."""
        multiple = Linear(((atom, k),))
        found = self._weaker.get(multiple)
        if found is None:
            found = self._weaker[multiple] = self._below(atom, k)
        return found

    def _below(self, atom: Value, k: Fraction) -> list[Linear]:
        e = self.engine
        if atom.op in _VIEWS:
            return [w for form in self._weaken(atom.operands[0], k) if (w := e.algebra.view(form, atom)) is not None]
        below: list[Linear] = []
        if _dominates(atom) and k > 0:
            below += [e.linear(o).scale(k) for o in _choices(atom)]  # each is ≥ its own operands
            if atom.op == "logsumexp":
                below.append(e.algebra.max(e.linear(atom.operands[0]), atom.axes, atom.operands[0].shape).scale(k))
                below.append(self._restricted_lse(atom, k))
        if k < 0:
            below += self._ceiling(atom, k)
        return [b for b in below if b.terms != ((atom, k),)]

    def _restricted_lse(self, atom: Value, k: Fraction) -> Linear:
        """lse over the k largest is at least the maximum over all."""
        inner = atom.operands[0]
        if inner.op == "topk_values" and inner.attr("largest") and atom.axes == inner.axes:
            source = inner.operands[0]
            return self.engine.algebra.max(self.engine.linear(source), atom.axes, source.shape).scale(k)
        return Linear.of(atom).scale(k)

    def _ceiling(self, atom: Value, k: Fraction) -> list[Linear]:
        """Forms that k·atom (k negative) is never less than: what the atom is never more than."""
        e = self.engine
        if atom.op == "logsumexp":
            source = atom.operands[0]
            count = element_count(source.shape, atom.axes)
            if count is None:
                return []
            top = e.algebra.max(e.linear(source), atom.axes, source.shape)
            return [(top + Linear.number(ln(Fraction(max(count, 1))))).scale(k)]
        if atom.op == "where":
            a, b = atom.operands[1:]
            return [e.linear(x).scale(k) for x, y in ((a, b), (b, a)) if constant_of(y) == -INF]
        if atom.op == "max" and atom.operands[0].op == "where":
            _, a, b = atom.operands[0].operands
            shown = a if constant_of(b) == -INF else b if constant_of(a) == -INF else None
            if shown is not None:
                return [e.algebra.max(e.linear(shown), atom.axes, atom.operands[0].shape).scale(k)]
        if atom.op == "minimum":
            return [e.linear(o).scale(k) for o in _choices(atom)]
        return []


#: Atoms of which more is known than their own range.
_RELATED = frozenset((*_VIEWS, "logsumexp", "max", "softplus", "maximum", "minimum", "relu", "topk_values", "where"))


def _possible(r: Range) -> Range:
    """A real number is less than inf, also where its least size is beyond what bounds are kept in."""
    if r.lo == INF or r.hi == -INF:
        most = FORMATS["float64"].max
        return replace(r, lo=min(r.lo, most), hi=max(r.hi, -most))
    return r


def _dominates(atom: Value) -> bool:
    """Whether an atom is never less than its operands; of a top-k only the largest value is not."""
    if atom.op == "topk_values":
        return atom.attr("largest") is True and atom.attr("k") == 1
    if atom.op in ("logsumexp", "max") and 0 in atom.operands[0].shape:
        return False  # of no operands
    return atom.op in ("logsumexp", "max", "softplus", "maximum", "relu")


def _choices(atom: Value) -> list[Value]:
    """The operands of an atom; of a maximum of maxima all of them, but for clamps to the format's limits."""
    if atom.op not in ("maximum", "minimum"):
        return list(atom.operands)
    found: list[Value] = []
    stack, seen = list(reversed(atom.operands)), set[Value]()
    while stack:
        operand = stack.pop()
        if operand in seen:
            continue
        seen.add(operand)
        if operand.op == atom.op:
            stack.extend(reversed(operand.operands))
        elif not _is_limit(operand, atom.op):
            found.append(operand)
    return found or list(atom.operands)


def _transparent(atom: Value) -> Value:
    """What an atom is on finite reals: the operand of a detach, of a clamp to the format's limits, or of a guard
    against infinities."""
    while atom.op in ("detach", "maximum", "minimum", "where"):
        if _is_finite_part(atom):
            atom = atom.operands[2]
            continue
        below = [o for o in atom.operands if not _is_limit(o, atom.op)]
        if len(below) != 1:
            break
        atom = below[0]
    return atom


def _is_finite_part(atom: Value) -> bool:
    """where(|m| = ∞, 0, m): so that m − m is 0, not NaN."""
    if atom.op != "where" or constant_of(atom.operands[1]) != 0 or atom.operands[0].op != "eq":
        return False
    size, infinity = atom.operands[0].operands
    return constant_of(infinity) == INF and size.op == "abs" and size.operands[0] is atom.operands[2]


def _is_limit(value: Value, op: str) -> bool:
    """The lowest number in a maximum, the largest in a minimum: such a clamp changes infinities only."""
    k = number_of(value) if op in ("maximum", "minimum") else None
    return k is not None and float(k if op == "minimum" else -k) >= FORMATS[value.dtype].max


def _pending(value: Value, done: Mapping[Value, Range]) -> list[Value]:
    """What must be computed before `value`, itself last; topological order."""
    seen: dict[int, Value] = {}
    stack = [value]
    while stack:
        v = stack.pop()
        if v.index not in seen and v not in done:
            seen[v.index] = v
            stack.extend(v.operands)
    return [seen[i] for i in sorted(seen)]


def _float(k: Fraction) -> float:
    """A coefficient as a float, ±inf beyond its range."""
    try:
        return k.numerator / k.denominator
    except OverflowError:
        return INF if k > 0 else -INF


def _exp(x: float) -> float:
    return math.exp(x) if x < 709.0 else INF


def _prod(a: float, b: float) -> float:
    return 0.0 if a == 0.0 or b == 0.0 else a * b


def _of_pair(pair: tuple[float, float]) -> float:
    return _prod(*pair)


def _product(a: float, b: float, towards: int) -> float:
    """a·b, rounded outward where it is not exact."""
    found = _prod(a, b)
    if not math.isfinite(found) or found == 0.0 or Fraction(a) * Fraction(b) == Fraction(found):
        return found
    return up(found, towards)


def _total(a: float, b: float, towards: int) -> float:
    """a + b, rounded outward where it is not exact."""
    found = a + b
    if math.isnan(found):
        return towards * INF
    rest = found - a
    exact = not math.isfinite(found) or (a - (found - rest)) + (b - rest) == 0.0
    return found if exact else up(found, towards)


def _below(function: Callable[[float], float], x: float) -> float:
    """A lower bound of an increasing function of the standard library, whose last digit is not to be relied on."""
    return function(x) if x == 0.0 else up(function(x), -1)


def _above(function: Callable[[float], float], x: float) -> float:
    return function(x) if x == 0.0 else up(function(x), 1)


def up(x: float, towards: int) -> float:
    """`x` rounded outward: the next float above (1) or below (−1), unless it is 0 or infinite."""
    return x if x == 0.0 or not math.isfinite(x) else math.nextafter(x, towards * INF)


# --- rules ----------------------------------------------------------------------------------------------------------


def _r_constant(_: Ranges, v: Value, r: list[Range]) -> Range:
    k = number_of(v)
    if k is None:
        return Range()
    fmt = FORMATS[v.dtype]
    size = abs(float(k))
    return Range(float(k), float(k), big=size > fmt.max, tiny=0 < size < fmt.tiny / 2)


def _r_arange(_: Ranges, v: Value, r: list[Range]) -> Range:
    (size,) = v.shape
    return Range(0.0, max(size - 1.0, 0.0)) if isinstance(size, int) else Range(lo=0.0)


def _r_exp(_: Ranges, v: Value, r: list[Range]) -> Range:
    fmt, lo, hi = FORMATS[v.dtype], _below(_exp, r[0].lo), _above(_exp, r[0].hi)
    return Range(lo, hi, big=r[0].hi > fmt.exp_overflow, tiny=r[0].lo < fmt.exp_underflow)


def _r_pow(s: Ranges, v: Value, r: list[Range]) -> Range:
    base, power = number_of(v.operands[0]), number_of(v.operands[1])
    if base is not None and base > 0:
        ends = sorted(_prod(x, math.log(base)) for x in (r[1].lo, r[1].hi))
        fmt = FORMATS[v.dtype]
        return Range(_exp(ends[0]), _exp(ends[1]), big=ends[1] > fmt.exp_overflow, tiny=ends[0] < fmt.exp_underflow)
    lo = 0.0 if r[0].lo >= 0 or (power is not None and power % 2 == 0) else -INF
    if power is None:
        return Range(lo, INF, r[0].big, r[0].tiny, broken=r[0].big or r[0].tiny)
    broken = (r[0].tiny or r[0].big) and power < 1
    size = max(abs(r[0].lo), abs(r[0].hi))
    known = power > 0 and size < INF and (lo == 0 or size <= 1)
    if r[0].lo > 0 and power > 0:
        lo = up(_power(r[0].lo, power), -1)
    return Range(lo, _power(size, power) if known else INF, r[0].big, r[0].tiny, broken)


def _power(base: float, power: Fraction) -> float:
    try:
        return math.pow(base, float(power))
    except OverflowError:
        return INF


def _r_sqrt(_: Ranges, v: Value, r: list[Range]) -> Range:
    hi = up(math.sqrt(r[0].hi), 1) if r[0].hi >= 0 else INF
    lo = up(math.sqrt(r[0].lo), -1) if r[0].lo > 0 else 0.0
    return Range(lo, hi, r[0].big, False, broken=r[0].tiny or r[0].big)


def _r_log(_: Ranges, v: Value, r: list[Range]) -> Range:
    lo = up(math.log(r[0].lo), -1) if r[0].lo > 0 else -INF
    hi = up(math.log(r[0].hi), 1) if 0 < r[0].hi < INF else INF
    return Range(lo, hi, broken=r[0].big or r[0].tiny)


def _r_log1p(s: Ranges, v: Value, r: list[Range]) -> Range:
    lo = math.log1p(r[0].lo) if r[0].lo > -1 else -INF
    hi = math.log1p(r[0].hi) if -1 < r[0].hi < INF else INF
    saturated = r[0].lo >= -1 and not s.engine.scaled(v.operands[0]).trivial  # log1p(−σ(x)): σ rounds to 1
    return Range(lo, hi, broken=r[0].big or (saturated and r[0].lo == -1))


def _r_expm1(_: Ranges, v: Value, r: list[Range]) -> Range:
    return Range(_exp(r[0].lo) - 1, _exp(r[0].hi) - 1, big=r[0].hi > FORMATS[v.dtype].exp_overflow)


def _r_add(_: Ranges, v: Value, r: list[Range]) -> Range:
    a, b = r
    lo, hi = _total(a.lo, b.lo, -1), _total(a.hi, b.hi, 1)
    # a sum of non-negative numbers is as small as its smallest part allows, no smaller
    small = 1 / FORMATS[v.dtype].max  # below it the reciprocal, and with it the gradient of a log, overflows
    tiny = (a.tiny or b.tiny) and not max(a.lo, b.lo) >= small
    if a.lo >= 0 and b.lo >= 0:
        tiny = tiny and max(_floor(a), _floor(b)) < small
    elif not (a.tiny and b.tiny):
        tiny = False
    return Range(lo, hi, a.big or b.big, tiny, broken=_clash(a, b))


def _floor(r: Range) -> float:
    return 0.0 if r.tiny else r.lo


def _clash(a: Range, b: Range) -> bool:
    """inf + (−inf) can occur: both may overflow, with opposite signs."""
    return a.big and b.big and not (a.lo >= 0 and b.lo >= 0) and not (a.hi <= 0 and b.hi <= 0)


def _r_sub(s: Ranges, v: Value, r: list[Range]) -> Range:
    return _r_add(s, v, [r[0], _negated(r[1])])


def _negated(r: Range) -> Range:
    return Range(-r.hi, -r.lo, r.big, r.tiny)


def _r_neg(_: Ranges, v: Value, r: list[Range]) -> Range:
    return _negated(r[0])


def _r_mul(_: Ranges, v: Value, r: list[Range]) -> Range:
    a, b = r
    pairs = [(x, y) for x in (a.lo, a.hi) for y in (b.lo, b.hi)]
    least, most = (_product(*min(pairs, key=_of_pair), -1), _product(*max(pairs, key=_of_pair), 1))
    if v.operands[0] is v.operands[1]:  # never inf·0
        return Range(0.0, most, a.big, a.tiny)
    sign = _sign_of_squares(v) if least < 0 < most else 0
    least, most = 0.0 if sign > 0 else least, 0.0 if sign < 0 else most
    return Range(least, most, a.big or b.big, a.tiny or b.tiny, broken=(a.big and b.tiny) or (a.tiny and b.big))


def _sign_of_squares(product: Value) -> int:
    """1 or −1 where it is k·u²·v²·… with a number k of that sign, in any order; else 0."""
    once: set[Value] = set()
    sign, stack = 1, [product]
    for _ in range(_MOST_FACTORS):
        if not stack:
            return 0 if once else sign
        u = stack.pop()
        k = number_of(u)
        if k is not None:
            sign *= (k > 0) - (k < 0)
        elif u.op == "neg":
            sign, stack = -sign, [*stack, u.operands[0]]
        elif u.op == "mul":
            stack += u.operands
        else:
            once ^= {u}
    return 0


def _r_div(_: Ranges, v: Value, r: list[Range]) -> Range:
    a, b = r
    # any number over exp(t): inf and 0 are right wherever t is a scale's logarithm in its usual range
    scaled = v.operands[1].op == "exp" and not (a.big or a.tiny) and number_of(v.operands[0]) is None
    broken = (b.big or b.tiny) and not scaled
    if is_cosine(v):
        return Range(-1.0, 1.0, a.big or b.tiny, a.tiny or b.big, broken)
    if b.lo > 0:
        ends = [_quotient(x, y) for x in (a.lo, a.hi) for y in (b.lo, b.hi)]
        exact = number_of(v.operands[1]) == 1 or a.lo == a.hi == 0
        least, most = (min(ends), max(ends)) if exact else (up(min(ends), -1), up(max(ends), 1))
        return Range(least, most, a.big or b.tiny, a.tiny or b.big, broken)
    return Range(0.0 if a.lo >= 0 and b.lo >= 0 else -INF, INF, a.big or b.tiny, a.tiny or b.big, broken)


def _quotient(x: float, y: float) -> float:
    if y == INF:
        return 0.0
    return x / y if y else INF  # the interval of an empty sum is empty


def _r_sigmoid(_: Ranges, v: Value, r: list[Range]) -> Range:
    tiny = r[0].lo < FORMATS[v.dtype].exp_underflow
    return Range(0.5 if r[0].lo >= 0 else 0.0, 0.5 if r[0].hi <= 0 else 1.0, tiny=tiny)


def _r_softmax(_: Ranges, v: Value, r: list[Range]) -> Range:
    return Range(0.0, 1.0, tiny=True)


def _r_tanh(_: Ranges, v: Value, r: list[Range]) -> Range:
    return Range(math.tanh(r[0].lo), math.tanh(r[0].hi), tiny=r[0].tiny)


def _r_softplus(_: Ranges, v: Value, r: list[Range]) -> Range:
    return Range(max(0.0, r[0].lo), INF, r[0].big, tiny=r[0].lo < FORMATS[v.dtype].exp_underflow)


def _r_nonpositive(_: Ranges, v: Value, r: list[Range]) -> Range:
    return Range(-INF, 0.0)


def _r_abs(_: Ranges, v: Value, r: list[Range]) -> Range:
    lo = max(0.0, r[0].lo, -r[0].hi)
    return Range(lo, max(abs(r[0].lo), abs(r[0].hi)), r[0].big, r[0].tiny)


def _r_relu(_: Ranges, v: Value, r: list[Range]) -> Range:
    return Range(max(0.0, r[0].lo), max(0.0, r[0].hi), r[0].big, r[0].tiny)


def _r_maximum(_: Ranges, v: Value, r: list[Range]) -> Range:
    a, b = r
    floor = max(a.lo, b.lo)
    tiny = (a.tiny or b.tiny) and not floor > FORMATS[v.dtype].tiny
    return Range(floor, max(a.hi, b.hi), a.big or b.big, tiny)


def _r_minimum(_: Ranges, v: Value, r: list[Range]) -> Range:
    a, b = r
    big = (a.big and b.big) or (a.big and a.lo < 0) or (b.big and b.lo < 0)
    return Range(min(a.lo, b.lo), min(a.hi, b.hi), big, a.tiny or b.tiny)


def _r_where(s: Ranges, v: Value, r: list[Range]) -> Range:
    condition = v.operands[0]
    a, b = (_where_it_holds(comparison(s.engine, condition, i == 1), v.operands[i], r[i]) for i in (1, 2))
    return Range(min(a.lo, b.lo), max(a.hi, b.hi), a.big or b.big, a.tiny or b.tiny)


Comparison: TypeAlias = tuple[Value, bool, float]


def _where_it_holds(known: Comparison | None, branch: Value, r: Range) -> Range:
    """The range of a branch that the condition compares with a number: x in where(x > c, x, …) is above c."""
    if known is None:
        return r
    compared, above, c = known
    if compared is branch:
        return replace(r, lo=max(r.lo, c)) if above else replace(r, hi=min(r.hi, c))
    if compared.op == "abs" and compared.operands[0] is branch and not above:
        return replace(r, lo=max(r.lo, -c), hi=min(r.hi, c))
    if branch.op in ("minimum", "maximum") and any(o is compared for o in branch.operands):  # min(x, k) where x > c
        limit = next((number_of(o) for o in branch.operands if o is not compared), None)
        if limit is not None and above == (branch.op == "minimum"):
            end = min(c, float(limit)) if above else max(c, float(limit))
            return replace(r, lo=max(r.lo, end)) if above else replace(r, hi=min(r.hi, end))
    return r


def comparison(engine: Engine, condition: Value, holds: bool) -> Comparison | None:
    """(x, above, c) when a condition that is true (or is false) says that x is above, or is below, the number c."""
    if condition.op not in ("gt", "ge", "lt", "le"):
        return None
    above = (condition.op in ("gt", "ge")) == holds
    for (compared, other), side in ((condition.operands, above), (reversed(condition.operands), not above)):
        c = number_of(other)
        if c is None and is_float(other.dtype) and not (form := engine.linear(other)).terms:
            c = form.constant
        if c is not None:
            return compared, side, float(c)
    return None


def _r_sum(s: Ranges, v: Value, r: list[Range]) -> Range:
    count = element_count(v.operands[0].shape, v.axes) if v.op == "sum" else 1
    lo, hi = r[0].lo, r[0].hi
    if count is None:
        lo, hi = (0.0 if lo >= 0 else -INF), (0.0 if hi <= 0 else INF)
    else:
        lo, hi = _product(lo, count, -1), _product(hi, count, 1)
    if v.op == "sum" and is_cosine(v):
        lo, hi = max(lo, -1.0), min(hi, 1.0)
    averaged = averaged_by(v)
    if averaged is not None:
        lo, hi = max(lo, s.of(averaged).lo), min(hi, s.of(averaged).hi)
    return Range(lo, hi, r[0].big, r[0].tiny, broken=r[0].big and lo < 0 < hi)


def _r_sign(_: Ranges, v: Value, r: list[Range]) -> Range:
    return Range(-1.0, 1.0)


def _r_prod(_: Ranges, v: Value, r: list[Range]) -> Range:
    """A product of many factors leaves the format unless they are known to be near 1; one of a few is like a·b."""
    if v.operands[0].op == "sign":
        return Range(-1.0, 1.0)
    lo, hi, fmt = r[0].lo, r[0].hi, FORMATS[v.dtype]
    size = max(abs(lo), abs(hi))
    count = element_count(v.operands[0].shape, v.axes)
    if count == 1:
        return replace(r[0], broken=False)
    if count is None or count <= 0:
        ends = (0.0 if lo >= 0 else -INF, 1.0 if lo >= 0 and hi <= 1 else INF)
        many = count is None
        return Range(*ends, r[0].big or (many and size > 1), r[0].tiny or (many and lo < 1 and hi > -1), r[0].big)
    most = max(size, _power(size, Fraction(count)))
    least = min(lo, _power(lo, Fraction(count))) if lo > 0 else 0.0
    many = count > _FEW
    big = r[0].big or (many and most > fmt.max)
    tiny = r[0].tiny or (many and least < fmt.min_normal and hi > -1)
    return Range(up(least, -1) if lo >= 0 else -up(most, 1), up(most, 1), big, tiny, broken=r[0].big)


def _r_norm(_: Ranges, v: Value, r: list[Range]) -> Range:
    """A fused operator: what it does with squares beyond the format is the host's."""
    largest = max(abs(r[0].lo), abs(r[0].hi))
    count = element_count(v.operands[0].shape, v.axes)
    return Range(0.0, INF if count is None else _prod(largest, math.sqrt(count)), r[0].big, r[0].tiny)


def _r_same(_: Ranges, v: Value, r: list[Range]) -> Range:
    return Range(r[0].lo, r[0].hi, r[0].big, r[0].tiny)


def _r_join(_: Ranges, v: Value, r: list[Range]) -> Range:
    return Range(min(x.lo for x in r), max(x.hi for x in r), any(x.big for x in r), any(x.tiny for x in r))


def _r_cast(_: Ranges, v: Value, r: list[Range]) -> Range:
    source = v.operands[0]
    if source.dtype == "bool":
        return Range(0.0, 1.0)
    fmt = FORMATS[v.dtype]
    known = r[0].hi < INF and r[0].lo > -INF
    big = r[0].big or (known and max(abs(r[0].hi), abs(r[0].lo)) > fmt.max)
    # what the host holds in a narrower format is a number of it; a formula may be beyond it
    leaf = source.op in ("input", "opaque") and is_float(source.dtype) and FORMATS[source.dtype].emax < fmt.emax
    held = FORMATS[source.dtype].max if leaf else INF
    return Range(max(r[0].lo, -held), min(r[0].hi, held), big, r[0].tiny)


def _r_matmul(s: Ranges, v: Value, r: list[Range]) -> Range:
    a, b = r
    positive = a.lo >= 0 and b.lo >= 0
    broken = (a.big or b.big) and not positive
    tiny = (a.tiny and b.tiny) or (positive and (a.tiny or b.tiny))
    lo, hi = (-1.0, 1.0) if is_cosine(v) else _products(s, v, r)
    averaged = averaged_by(v)
    if averaged is not None:
        lo, hi = max(lo, s.of(averaged).lo), min(hi, s.of(averaged).hi)
    return Range(max(lo, 0.0) if positive else lo, hi, a.big or b.big, tiny, broken)


def _products(s: Ranges, v: Value, r: list[Range]) -> tuple[float, float]:
    """Bounds of Σ a·b: by the columns of a weight that is known, by the lengths of what is normalised (|a·b| ≤ ‖a‖‖b‖),
    else term by term."""
    left, right = v.operands
    count = left.shape[-1]
    bounds: list[tuple[float, float]] = []
    if isinstance(count, int):
        ends = [_prod(x, y) for x in (r[0].lo, r[0].hi) for y in (r[1].lo, r[1].hi)]
        bounds.append((up(_prod(min(ends), count), -1), up(_prod(max(ends), count), 1)))
        lengths = _length(left, -1, r[0], count), _length(right, -2, r[1], count)
        long = up(_prod(*lengths), 1)
        bounds.append((-long, long))
    for weight, axis, beside, numbers in ((left, -1, right, r[1]), (right, -2, left, r[0])):
        bounded, unit = max(abs(numbers.lo), abs(numbers.hi)) < INF, beside is left and _is_unit(left)
        known = s.weight(weight, axis) if bounded or unit else None
        if known is not None and bounded:
            bounds.append(known[0].combined(numbers.lo, numbers.hi, known[1]))
        if known is not None and unit and isinstance(count, int):  # more than the bounds of the entries say
            long = up(_prod(math.sqrt(count), known[0].longest(known[1])), 1)
            bounds.append((-long, long))
    return max((lo for lo, _ in bounds), default=-INF), min((hi for _, hi in bounds), default=INF)


def _length(x: Value, axis: int, r: Range, count: int) -> float:
    """What ‖x‖₂ over `axis`, which is contracted, is at most by the bounds of x."""
    size = max(abs(r.lo), abs(r.hi))
    plain = _prod(math.sqrt(count), size)
    return min(plain, math.sqrt(count)) if axis == -1 and _is_unit(x) else plain


def _is_unit(x: Value) -> bool:
    """Whether each row of x is normalised to the length √n, and nothing else."""
    while x.op in ("cast", "detach"):
        x = x.operands[0]
    return x.op in ("layer_norm", "rms_norm") and x.axes == (x.type.rank - 1,) and len(x.operands) == 1


def _r_logsumexp(_: Ranges, v: Value, r: list[Range]) -> Range:
    """max x ≤ ln Σ eˣ ≤ max x + ln n; a running one has between 1 and n terms."""
    count = element_count(v.operands[0].shape, v.axes)
    most = math.log(count) if count else (INF if count is None else 0.0)
    return Range(r[0].lo if count != 0 else -INF, r[0].hi + most, r[0].big)


def _r_logaddexp(_: Ranges, v: Value, r: list[Range]) -> Range:
    return Range(max(x.lo for x in r), max(x.hi for x in r) + math.log(2), any(x.big for x in r))


def _r_wave(_: Ranges, v: Value, r: list[Range]) -> Range:
    return Range(-1.0, 1.0, broken=r[0].big)


def _r_erf(_: Ranges, v: Value, r: list[Range]) -> Range:
    return Range(math.erf(r[0].lo), math.erf(r[0].hi), tiny=r[0].tiny)


def _r_erfc(_: Ranges, v: Value, r: list[Range]) -> Range:
    smallest = math.erfc(r[0].hi)
    return Range(smallest, math.erfc(r[0].lo), tiny=smallest < FORMATS[v.dtype].min_normal)


def _r_increasing(
    function: Callable[[float], float], low: float, high: float, _: Ranges, v: Value, r: list[Range]
) -> Range:
    """The range of an increasing function on [low, high], NaN outside."""
    lo, hi = (_limit(function, min(max(x, low), high)) for x in (r[0].lo, r[0].hi))
    return Range(lo, hi, tiny=r[0].tiny and low < 0 < high)


def _limit(function: Callable[[float], float], x: float) -> float:
    """The value of an increasing function, ±inf where it leaves the floats or has a pole."""
    try:
        return function(x)
    except (OverflowError, ValueError):
        return INF if x > 0 else -INF


def _r_acos(_: Ranges, v: Value, r: list[Range]) -> Range:
    return Range(math.acos(min(max(r[0].hi, -1.0), 1.0)), math.acos(min(max(r[0].lo, -1.0), 1.0)))


def _r_sinh(_: Ranges, v: Value, r: list[Range]) -> Range:
    most = FORMATS[v.dtype].exp_overflow + math.log(2.0)
    big = r[0].hi > most or r[0].lo < -most
    return Range(_limit(math.sinh, r[0].lo), _limit(math.sinh, r[0].hi), big, r[0].tiny)


def _r_erfcx(_: Ranges, v: Value, r: list[Range]) -> Range:
    """Decreasing from inf to 0, about 2·eˣ² on the left; below 1/(x√π) on the right."""
    most = math.sqrt(FORMATS[v.dtype].exp_overflow - math.log(2.0))
    lo = 0.0 if r[0].hi > 0 else math.erfc(r[0].hi)  # eˣ² is at least 1
    hi = 1.0 if r[0].lo >= 0 else 2 * _exp(min(r[0].lo ** 2, 800.0)) if r[0].lo > -INF else INF
    return Range(lo, hi, big=r[0].lo < -most)


def _r_log_ndtr(_: Ranges, v: Value, r: list[Range]) -> Range:
    return Range(-INF, 0.0, r[0].big)


def _r_quantile(centre: float, _: Ranges, v: Value, r: list[Range]) -> Range:
    """erf⁻¹ and Φ⁻¹: negative below the centre of their domain, positive above."""
    return Range(0.0 if r[0].lo >= centre else -INF, 0.0 if r[0].hi <= centre else INF)


def _r_floor(_: Ranges, v: Value, r: list[Range]) -> Range:
    lo, hi = (math.floor(x) if math.isfinite(x) else x for x in (r[0].lo, r[0].hi))
    return Range(lo, hi, r[0].big)


def _r_loss(_: Ranges, v: Value, r: list[Range]) -> Range:
    """Weights, biases and targets may have any sign."""
    return Range(big=any(x.big for x in r))


def _r_normalised(_: Ranges, v: Value, r: list[Range]) -> Range:
    """At most √n in size before weight and bias, however large the operand is."""
    count = element_count(v.shape, range(v.axes[0], v.type.rank))
    size = INF if count is None else up(math.sqrt(count), 1)
    if len(r) > 1:
        size = _prod(size, max(abs(r[1].lo), abs(r[1].hi)))
    lo, hi = (-size + r[2].lo, size + r[2].hi) if len(r) > 2 else (-size, size)
    return Range(lo, hi, big=any(x.big for x in r[1:]))


def _r_attention(_: Ranges, v: Value, r: list[Range]) -> Range:
    """Each row is a weighted mean of rows of v."""
    return Range(r[2].lo, r[2].hi, r[2].big, r[2].tiny)


def _r_cumsum(_: Ranges, v: Value, r: list[Range]) -> Range:
    return Range(0.0 if r[0].lo >= 0 else -INF, INF, r[0].big, r[0].tiny)


RANGE: dict[str, RangeRule] = {
    "constant": _r_constant, "arange": _r_arange, "exp": _r_exp, "pow": _r_pow, "sqrt": _r_sqrt, "log": _r_log,
    "log1p": _r_log1p,
    "expm1": _r_expm1, "add": _r_add, "sub": _r_sub, "neg": _r_neg, "mul": _r_mul, "div": _r_div,
    "sigmoid": _r_sigmoid, "softmax": _r_softmax, "tanh": _r_tanh, "softplus": _r_softplus,
    "log_sigmoid": _r_nonpositive, "log_softmax": _r_nonpositive, "abs": _r_abs, "sign": _r_sign, "relu": _r_relu,
    "maximum": _r_maximum, "minimum": _r_minimum, "where": _r_where, "sum": _r_sum, "mean": _r_sum,
    "norm": _r_norm, "prod": _r_prod, "cumprod": _r_prod, "cumsum": _r_cumsum, "max": _r_same, "min": _r_same,
    "cast": _r_cast, "matmul": _r_matmul, "topk_values": _r_same, "detach": _r_same, "concat": _r_join,
    "reshape": _r_same, "unsqueeze": _r_same, "squeeze": _r_same, "transpose": _r_same, "expand": _r_same,
    "gather": _r_same, "slice": _r_same, "logsumexp": _r_logsumexp, "logcumsumexp": _r_logsumexp,
    "logaddexp": _r_logaddexp,
    "sin": _r_wave, "cos": _r_wave, "erf": _r_erf, "erfc": _r_erfc, "floor": _r_floor, "xlogy": _r_loss,
    "asin": partial(_r_increasing, math.asin, -1.0, 1.0), "acos": _r_acos,
    "atan": partial(_r_increasing, math.atan, -INF, INF), "asinh": partial(_r_increasing, math.asinh, -INF, INF),
    "acosh": partial(_r_increasing, math.acosh, 1.0, INF), "atanh": partial(_r_increasing, math.atanh, -1.0, 1.0),
    "sinh": _r_sinh, "erfcx": _r_erfcx, "log_ndtr": _r_log_ndtr,
    "erfinv": partial(_r_quantile, 0.0), "ndtri": partial(_r_quantile, 0.5),
    "cross_entropy": _r_loss, "nll_loss": _r_loss, "bce_with_logits": _r_loss, "attention": _r_attention,
    "layer_norm": _r_normalised, "rms_norm": _r_normalised,
}  # fmt: skip

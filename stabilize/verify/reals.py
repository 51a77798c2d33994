"""Arithmetic on the extended reals with rigorous error balls: the scalars of the oracle.

A finite number is an Arb ball (Johansson, IEEE Trans. Comput. 66(8), 2017) that contains the exact value; ±inf
and NaN are Python floats and follow IEEE 754: inf − inf = 0·inf = inf/inf = 0/0 = NaN, exp(−inf) = 0,
log 0 = −inf, a/0 = ±inf, log of a negative number = NaN. Zeros are unsigned: a/0 takes the sign of a.
A ball that is not finite means "not known at this precision".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cmp_to_key
from typing import Final, TypeAlias, final

from flint import arb

Scalar: TypeAlias = "arb | float"
"""A finite ball, or one of the floats inf, −inf, NaN."""

ZERO: Final = arb(0)
ONE: Final = arb(1)
UNKNOWN: Final = arb.nan()
_LARGEST_EXACT_POWER: Final = 1024


@final
class UndecidedError(ArithmeticError):
    """A ball straddles the point where a comparison or a domain changes: more precision is needed."""


def lift(number: float | int) -> Scalar:
    """A Python number as a scalar, exactly."""
    return arb(number) if isinstance(number, int) or math.isfinite(number) else float(number)


def is_known(x: Scalar) -> bool:
    """Whether `x` is a finite ball, an infinity or NaN, rather than a failure to bound."""
    return type(x) is float or (isinstance(x, arb) and x.is_finite())


def _unary(finite: Callable[[arb], Scalar], at_minus_inf: Scalar, at_plus_inf: Scalar) -> Callable[[Scalar], Scalar]:
    """Extend a function of finite balls to ±inf by its limits, and to NaN."""

    def extended(x: Scalar) -> Scalar:
        if isinstance(x, arb):
            return finite(x)
        return x if math.isnan(x) else at_plus_inf if x > 0 else at_minus_inf

    return extended


def _softplus(x: arb) -> arb:
    return x.exp().log1p()


exp = _unary(arb.exp, ZERO, math.inf)
expm1 = _unary(arb.expm1, arb(-1), math.inf)
sigmoid = _unary(lambda x: 1 / (1 + (-x).exp()), ZERO, ONE)
softplus = _unary(_softplus, ZERO, math.inf)
log_sigmoid = _unary(lambda x: -_softplus(-x), -math.inf, ZERO)
tanh = _unary(arb.tanh, arb(-1), ONE)
erf = _unary(arb.erf, arb(-1), ONE)
erfc = _unary(arb.erfc, arb(2), ZERO)
sin = _unary(arb.sin, math.nan, math.nan)
cos = _unary(arb.cos, math.nan, math.nan)
sinh = _unary(arb.sinh, -math.inf, math.inf)
asinh = _unary(arb.asinh, -math.inf, math.inf)
absolute = _unary(abs, math.inf, math.inf)


def atan(x: Scalar) -> Scalar:
    """±π/2, at the working precision, at ±inf."""
    if isinstance(x, arb):
        return x.atan()
    return x if math.isnan(x) else arb.pi() / 2 if x > 0 else -arb.pi() / 2


def _erfcx(x: arb) -> arb:
    """eˣ² erfc x = U(½, ½, x²)/√π for x > 0, where the factors leave the range even of a ball's exponent."""
    if x > 4:
        return (x * x).hypgeom_u(arb(0.5), arb(0.5)) / arb.pi().sqrt()
    return (x * x).exp() * x.erfc()


def _log_ndtr(x: arb) -> arb:
    z = x / arb(2).sqrt()
    return (_erfcx(-z) / 2).log() - z * z if x < -1 else (-z.erfc() / 2).log1p()


erfcx = _unary(_erfcx, math.inf, ZERO)
log_ndtr = _unary(_log_ndtr, -math.inf, ZERO)


def neg(x: Scalar) -> Scalar:
    return -x


def isnan(x: Scalar) -> bool:
    return not isinstance(x, arb) and math.isnan(x)


@final
class Reals:
    """The operations that may have to decide a sign.

    snap: a ball that still straddles a decision point is taken to lie on it. Without it `UndecidedError` is
    raised, and the caller comes back with more precision.
    """

    def __init__(self, *, snap: bool) -> None:
        self.snap = snap

    # --- decisions ------------------------------------------------------------------------------------------

    def sign(self, x: Scalar) -> int:
        """−1, 0 or 1; NaN has none and must be handled before."""
        if not isinstance(x, arb):
            return 1 if x > 0 else -1
        if x > 0:
            return 1
        if x < 0:
            return -1
        if x.is_zero() or (self.snap and x.is_finite()):
            return 0
        raise UndecidedError

    def compare(self, a: Scalar, b: Scalar) -> int:
        """The sign of a − b; neither may be NaN."""
        if isinstance(a, arb) and isinstance(b, arb):
            if a < b:
                return -1
            if a > b:
                return 1
            return self.sign(a - b)
        x, y = (0.0 if isinstance(v, arb) else v for v in (a, b))
        return (x > y) - (x < y)

    def _representative(self, x: Scalar) -> float:
        """A float with the sign of `x` and its class (zero, finite, infinite, NaN)."""
        return float(self.sign(x)) if isinstance(x, arb) else x

    # --- arithmetic -----------------------------------------------------------------------------------------

    def add(self, a: Scalar, b: Scalar) -> Scalar:
        if isinstance(a, arb) and isinstance(b, arb):
            return a + b
        return (0.0 if isinstance(a, arb) else a) + (0.0 if isinstance(b, arb) else b)

    def sub(self, a: Scalar, b: Scalar) -> Scalar:
        return a - b if isinstance(a, arb) and isinstance(b, arb) else self.add(a, -b)

    def mul(self, a: Scalar, b: Scalar) -> Scalar:
        if isinstance(a, arb) and isinstance(b, arb):
            return a * b
        if isnan(a) or isnan(b):
            return math.nan
        return self._representative(a) * self._representative(b)

    def div(self, a: Scalar, b: Scalar) -> Scalar:
        if isnan(a) or isnan(b):
            return math.nan
        if not isinstance(b, arb):
            return ZERO if isinstance(a, arb) else math.nan
        sign = self.sign(b)
        if sign and isinstance(a, arb):
            return a / b
        if sign:
            return a * sign
        numerator = self.sign(a)
        return numerator * math.inf if numerator else math.nan

    def pow(self, a: Scalar, b: Scalar) -> Scalar:
        """aᵇ with the conventions of C's pow: pow(x, 0) = pow(1, y) = 1."""
        if isinstance(b, arb) and b.is_integer() and b.is_exact() and abs(b) <= _LARGEST_EXACT_POWER:
            power = int(b.unique_fmpz() or 0)
            if power == 0:
                return ONE
            if power > 0 and isinstance(a, arb):
                return a**power
        if isinstance(a, arb) and a == ONE:
            return ONE
        if isnan(a) or isnan(b):
            return math.nan
        if isinstance(a, arb) and isinstance(b, arb):
            return self._finite_pow(a, b)
        return lift(math.pow(self._pow_class(a), float(b) if isinstance(b, arb) else b))

    def _finite_pow(self, a: arb, b: arb) -> Scalar:
        sign = self.sign(a)
        if sign > 0:
            return a**b
        if sign == 0:
            exponent = self.sign(b)
            return ONE if exponent == 0 else ZERO if exponent > 0 else math.inf
        if not b.is_integer():
            return math.nan
        odd = int(b.unique_fmpz() or 0) % 2
        return -((-a) ** b) if odd else (-a) ** b

    def _pow_class(self, a: Scalar) -> float:
        """A float on the same side of −1, 0 and 1 as `a`."""
        if not isinstance(a, arb):
            return a
        sign = self.sign(a)
        if sign == 0:
            return 0.0
        return sign * {-1: 0.5, 0: 1.0, 1: 2.0}[self.compare(abs(a), ONE)]

    def log(self, x: Scalar) -> Scalar:
        if not isinstance(x, arb):
            return x if x > 0 else math.nan
        return x.log() if self._positive(x) else self._edge_of_log(x)

    def log1p(self, x: Scalar) -> Scalar:
        if not isinstance(x, arb):
            return x if x > 0 else math.nan
        return x.log1p() if self._positive(1 + x) else self._edge_of_log(1 + x)

    def _positive(self, x: arb) -> bool:
        return bool(x > 0)

    def _edge_of_log(self, x: arb) -> Scalar:
        """The log of a number not known to be positive: snapping to 0 here would make −inf of log(1 − σ(1e4))."""
        if x < 0:
            return math.nan
        if x.is_zero():
            return -math.inf
        if self.snap:
            return UNKNOWN
        raise UndecidedError

    def sqrt(self, x: Scalar) -> Scalar:
        if not isinstance(x, arb):
            return x if x > 0 else math.nan
        sign = self.sign(x)
        if sign < 0:
            return math.nan
        # a ball that straddles 0 is known not to be negative only by the decision to snap
        return x.sqrt() if sign > 0 else arb(0, x.abs_upper().sqrt())

    # --- inverse functions: NaN outside their domains -------------------------------------------------------

    def acos(self, x: Scalar) -> Scalar:
        """2·arcsin √((1 − x)/2): only the root has to decide whether a ball ends at ±1."""
        if not isinstance(x, arb):
            return math.nan
        half = self.sqrt((1 - x if x > 0 else 1 + x) / 2)
        if not isinstance(half, arb):
            return half
        return 2 * half.asin() if x > 0 else arb.pi() - 2 * half.asin()

    def asin(self, x: Scalar) -> Scalar:
        if isinstance(x, arb) and abs(x) < arb(0.5):
            return x.asin()
        return self.sub(arb.pi() / 2, self.acos(x))

    def acosh(self, x: Scalar) -> Scalar:
        """ln(1 + t + √t·√(t + 2)) with t = x − 1."""
        if not isinstance(x, arb):
            return x if x > 0 else math.nan
        root = self.sqrt(x - 1)
        return (x - 1 + root * (x + 1).sqrt()).log1p() if isinstance(root, arb) else root

    def atanh(self, x: Scalar) -> Scalar:
        return self.div(self.sub(self.log1p(x), self.log1p(-x)), arb(2))

    def erfinv(self, x: Scalar) -> Scalar:
        return self._inverse(x, arb(-1), ONE, arb.erfinv)

    def ndtri(self, x: Scalar) -> Scalar:
        return self._inverse(x, ZERO, ONE, lambda p: -arb(2).sqrt() * (2 * p).erfcinv())

    def _inverse(self, x: Scalar, low: arb, high: arb, function: Callable[[arb], arb]) -> Scalar:
        """An increasing function from (low, high) onto the reals."""
        if not isinstance(x, arb):
            return math.nan
        below, above = self.compare(x, low), self.compare(x, high)
        if below < 0 or above > 0:
            return math.nan
        return -math.inf if below == 0 else math.inf if above == 0 else function(x)

    def xlogy(self, a: Scalar, b: Scalar) -> Scalar:
        if isinstance(a, arb) and not isnan(b) and self.sign(a) == 0:
            return ZERO
        return self.mul(a, self.log(b))

    def logaddexp(self, a: Scalar, b: Scalar) -> Scalar:
        return self.logsumexp((a, b))

    def floor(self, x: Scalar) -> Scalar:
        if not isinstance(x, arb):
            return x
        result = x.floor()
        if result.is_exact():
            return result
        nearest = (x + arb(0.5)).floor()
        return nearest if nearest.is_exact() and self.sign(x - nearest) >= 0 else nearest - 1

    def truncate(self, x: Scalar) -> int:
        """Towards zero, as a cast to an integer; NaN and ±inf, which no integer represents, give 0."""
        if not isinstance(x, arb):
            return 0
        whole = self.floor(x) if self.sign(x) >= 0 else -self.floor(-x)
        return int(whole.unique_fmpz() or 0) if isinstance(whole, arb) else 0

    def signum(self, x: Scalar) -> Scalar:
        return x if isnan(x) else arb(self.sign(x))

    # --- order ----------------------------------------------------------------------------------------------

    def maximum(self, a: Scalar, b: Scalar) -> Scalar:
        if isnan(a) or isnan(b):
            return math.nan
        if isinstance(a, arb) and isinstance(b, arb):
            return a if a > b else b if a < b else a.max(b)
        return a if self.compare(a, b) >= 0 else b

    def minimum(self, a: Scalar, b: Scalar) -> Scalar:
        return -self.maximum(-a, -b)

    def relu(self, x: Scalar) -> Scalar:
        return self.maximum(x, ZERO)

    def order(self, row: Sequence[Scalar], largest: bool = True) -> list[int]:
        """Positions of `row` from the largest (or smallest) on; NaN counts as largest; the earlier of equals first."""

        def ascending(i: int, j: int) -> int:
            a, b = row[i], row[j]
            if isnan(a) or isnan(b):
                return isnan(a) - isnan(b)
            return self.compare(a, b)

        def descending(i: int, j: int) -> int:
            return ascending(j, i)

        return sorted(range(len(row)), key=cmp_to_key(descending if largest else ascending))

    # --- rows -----------------------------------------------------------------------------------------------

    def sum(self, row: Sequence[Scalar]) -> Scalar:
        total: Scalar = ZERO
        for x in row:
            total = self.add(total, x)
        return total

    def prod(self, row: Sequence[Scalar]) -> Scalar:
        total: Scalar = ONE
        for x in row:
            total = self.mul(total, x)
        return total

    def max(self, row: Sequence[Scalar]) -> Scalar:
        result = row[0]
        for x in row[1:]:
            result = self.maximum(result, x)
        return result

    def logsumexp(self, row: Sequence[Scalar]) -> Scalar:
        if any(isnan(x) for x in row):
            return math.nan
        # balls have unbounded exponents: no shift is needed
        return self.log(self.sum([exp(x) for x in row]))

    def softmax(self, row: Sequence[Scalar]) -> list[Scalar]:
        weights = [exp(x) for x in row]
        total = self.sum(weights)
        return [self.div(w, total) for w in weights]

    def log_softmax(self, row: Sequence[Scalar]) -> list[Scalar]:
        total = self.logsumexp(row)
        return [self.sub(x, total) for x in row]

"""erfc, its scaled form and the normal log-distribution for ONNX, which has erf alone.

With t = 2/(2 + z), eᶻ²·erfc(z) = t·Q(2t − 1) for z ≥ 0, and Q is smooth on [−1, 1] (a variable as in Schonfelder,
Math. Comp. 32, 1978). Q is its Chebyshev series, cut where what follows is below the roundoff and written in powers:
the sum of the magnitudes of the coefficients is 1.03, so that Horner's scheme loses nothing. Computed with mpmath.
Largest relative error of Q, over 2001 points: 1.9e-8 (float32 coefficients), 2.6e-16 (float64).

eᶻ² is taken in two factors, exp(h²)·exp((z − h)(z + h)) with h = ⌊16z⌋/16: h² and z − h are exact, so that the
rounding of the exponent, |z²|·u, does not enter.
"""

from __future__ import annotations

import math

import numpy as np

from stabilize.frontends.onnx_types import numpy_dtype
from stabilize.graph.build import Builder
from stabilize.graph.value import Value

_FLOAT32 = (
    0.510791361, 0.343580335, 0.139736027, 0.0182213839, -0.0107551161, -0.00324185495, 0.00154404773,
    0.000427020161, -0.000328100141, -3.29515387e-05, 6.76878044e-05, -1.32739547e-06, -8.50886954e-06,
)  # fmt: skip
_FLOAT64 = (
    0.5107913526210115, 0.34358034220690514, 0.13973604627801475, 0.01822111575345904, -0.010755330944036532,
    -0.0032395925345820673, 0.0015453060141013286, 0.0004186480432791111, -0.0003315365766901461,
    -1.7185831874889752e-05, 7.223418829504806e-05, -1.7073781133818914e-05, -1.084298532996441e-05,
    8.05787586714734e-06, -5.776423611511427e-07, -1.8150355080541665e-06, 1.0305699215291105e-06,
    -1.3754508233185945e-08, -3.262460935296672e-07, 1.7867229479168533e-07, 3.6000845292079935e-08,
    -6.965842943409138e-08, 6.52043461440154e-09, 1.3216325517632649e-08, -1.911173728607894e-09, -1.05903331435718e-09,
)  # fmt: skip

#: Beyond it erfc is 0 and its reciprocal infinite, whatever the square is.
_REACH = {"float32": 20.0, "float64": 40.0}


def _number(b: Builder, number: float, dtype: str) -> Value:
    """A constant as a file holds it, so that what is read back is what was written."""
    return b.constant(float(np.asarray(number).astype(numpy_dtype(dtype))), dtype)


def _scaled_tail(b: Builder, z: Value) -> Value:
    """eᶻ²·erfc(z) for z ≥ 0, 0 at +inf."""
    t = b.apply("div", 2.0, b.apply("add", z, 2.0))
    s = b.apply("sub", b.make("add", t, t), 1.0)
    *rest, last = (_number(b, c, z.dtype) for c in (_FLOAT64 if z.dtype == "float64" else _FLOAT32))
    total = last
    for coefficient in reversed(rest):
        total = b.make("add", b.make("mul", s, total), coefficient)
    return b.make("mul", t, total)


def _gauss(b: Builder, z: Value, factor: float) -> Value:
    """exp(factor·z²) for z ≥ 0; factor is a power of two."""
    near = b.apply("minimum", z, _REACH[z.dtype])
    h = b.apply("mul", b.make("floor", b.apply("mul", near, 16.0)), 1.0 / 16.0)
    rest = b.make("mul", b.make("sub", near, h), b.make("add", near, h))
    exponents = (b.apply("mul", b.make("mul", h, h), factor), b.apply("mul", rest, factor))
    return b.make("mul", *(b.make("exp", e) for e in exponents))


def erfc(b: Builder, x: Value) -> Value:
    """e^(−z²)·(eᶻ² erfc z) at z = |x|; 2 minus that where x < 0. Relative error 5u."""
    z = b.make("abs", x)
    tail = b.make("mul", _gauss(b, z, -1.0), _scaled_tail(b, z))
    return b.make("where", b.apply("ge", x, 0.0), tail, b.apply("sub", 2.0, tail))


def erfcx(b: Builder, x: Value) -> Value:
    """eˣ² erfc x; 2·eᶻ² − erfcx(z), z = |x|, where x < 0. Relative error 5u."""
    z = b.make("abs", x)
    tail = _scaled_tail(b, z)
    other = b.make("sub", b.apply("mul", _gauss(b, z, 1.0), 2.0), tail)
    return b.make("where", b.apply("ge", x, 0.0), tail, other)


def log_ndtr(b: Builder, x: Value) -> Value:
    """ln Φ(x): log1p(−erfc(z)/2) for x ≥ 0, ln(erfcx(z)/2) − x²/2 for x < 0, z = |x|/√2. Relative error 6u."""
    size = b.make("abs", x)
    tail = b.apply("mul", _scaled_tail(b, b.make("mul", size, _number(b, math.sqrt(0.5), x.dtype))), 0.5)
    upper = b.make("log1p", b.neg(b.make("mul", _gauss(b, size, -0.5), tail)))
    lower = b.make("sub", b.make("log", tail), b.make("mul", b.apply("mul", size, 0.5), size))
    return b.make("where", b.apply("ge", x, 0.0), upper, lower)


def operand(root: Value) -> tuple[Value, ...] | None:
    """x, when `root` may be one of the above: where(x ≥ 0, …, … − …)."""
    match root.operands:
        case (Value(op="ge", operands=(x, _)), _, Value(op="sub")):
            return (x,)
        case _:
            return None

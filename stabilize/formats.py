"""Floating-point formats: the few numbers of each that decide where a formula breaks.

Source: IEEE 754-2019 (binary16/32/64); bfloat16 has binary32's exponent range with 8 significant bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Format:
    """A binary floating-point format: `precision` significant bits, exponents `emin`..`emax`."""

    name: str
    precision: int
    emin: int
    emax: int

    @property
    def u(self) -> float:
        """Unit roundoff, half the spacing of the numbers just above 1."""
        return 2.0**-self.precision

    @property
    def max(self) -> float:
        """Largest finite number."""
        return (2.0 - 2.0 ** (1 - self.precision)) * 2.0**self.emax

    @property
    def overflow(self) -> float:
        """The least number that is rounded to infinity: half a spacing above the largest one."""
        return self.max + self.spacing(self.max) / 2

    @property
    def min_normal(self) -> float:
        """Smallest positive normal number."""
        return 2.0**self.emin

    @property
    def tiny(self) -> float:
        """Smallest positive (subnormal) number."""
        return 2.0 ** (self.emin + 1 - self.precision)

    @property
    def exp_overflow(self) -> float:
        """exp(x) is inf for x above this."""
        return math.log(self.max)

    @property
    def exp_underflow(self) -> float:
        """exp(x) rounds to 0 for x below this."""
        return (self.emin + 1 - self.precision - 1) * math.log(2.0)

    def nearest(self, number: float) -> float:
        """The number of this format that is nearest to `number` (itself beyond the range)."""
        ulp = self.spacing(number)
        return round(number / ulp) * ulp if abs(number) <= self.max else number

    def spacing(self, magnitude: float) -> float:
        """One ulp: the distance between neighbouring numbers at `magnitude`, subnormals included."""
        magnitude = abs(magnitude)
        if not math.isfinite(magnitude):
            return math.inf
        exponent = max(math.frexp(magnitude)[1] - 1, self.emin) if magnitude else self.emin
        return 2.0 ** (min(exponent, self.emax) + 1 - self.precision)


FLOAT16 = Format("float16", 11, -14, 15)
BFLOAT16 = Format("bfloat16", 8, -126, 127)
FLOAT32 = Format("float32", 24, -126, 127)
FLOAT64 = Format("float64", 53, -1022, 1023)

FORMATS: dict[str, Format] = {f.name: f for f in (FLOAT16, BFLOAT16, FLOAT32, FLOAT64)}

#: Every dtype name a value of the semantic view may carry that is not a float of `FORMATS`.
OTHER_DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "other")


def is_float(dtype: str) -> bool:
    """Whether `dtype` names a format that the engine reasons about."""
    return dtype in FORMATS

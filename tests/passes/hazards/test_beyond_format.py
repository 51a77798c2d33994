"""STB502: numbers that their format stores as an infinity."""

from __future__ import annotations

import pytest

from stabilize.passes.hazards.beyond_format import RULE
from tests.passes.graphs import Options, Outcome, Ranges, assert_not_told, assert_told

_LARGEST = {"float16": "65504", "bfloat16": "3.38953e+38", "float32": "3.40282e+38"}
_OUTER = "matmul(h, transpose(h, perm=(1, 0)))"

#: (expression, bounds of its inputs, the number, the format)
BEYOND: list[tuple[str, Ranges, str, str]] = [
    # --- as they are written ---
    ("where(B, h, -1000000000000.0)", {}, "-1e+12", "float16"),
    ("where(B, -70000.0, h)", {}, "-70000", "float16"),
    ("maximum(h, -100000.0)", {}, "-100000", "float16"),
    ("minimum(h, 65520.0)", {}, "65520", "float16"),
    ("add(h, 100000.0)", {}, "100000", "float16"),
    ("sub(h, 70000.0)", {}, "70000", "float16"),
    ("mul(h, 70000.0)", {}, "70000", "float16"),
    ("concat(h, constant(value=1000000000.0, dtype='float16', shape=(4, 5)), axis=0)", {}, "1e+09", "float16"),
    ("where(B, G, -3.4e+38)", {}, "-3.4e+38", "bfloat16"),
    ("where(B, x, -1e+39)", {}, "-1e+39", "float32"),
    # --- casts of what is known to be large ---
    ("cast(x, dtype='float16')", {"x": (-1e5, 1e5)}, "-100000", "float16"),
    ("cast(x, dtype='float16')", {"x": (0, 65520)}, "65520", "float16"),
    ("cast(D, dtype='float32')", {"D": (0, 1e39)}, "1e+39", "float32"),
    ("cast(mul(x, 10.0), dtype='float16')", {"x": (-1e4, 1)}, "-100000", "float16"),
    # --- arithmetic whose bounds pass the format where those of the operands do not ---
    ("add(h, h)", {"h": (0, 4e4)}, "80000", "float16"),
    ("sub(neg(h), h)", {"h": (0, 4e4)}, "-80000", "float16"),
    ("mul(h, h)", {"h": (0, 300)}, "90000", "float16"),
    ("mul(x, x)", {"x": (0, 1e20)}, "1e+40", "float32"),
    ("pow(h, 2.0)", {"h": (0, 300)}, "90000", "float16"),
    ("div(h, 1e-06)", {"h": (0, 1)}, "1e+06", "float16"),
    ("sum(h, axes=(1,), keepdim=True)", {"h": (0, 2e4)}, "100000", "float16"),
    (_OUTER, {"h": (-200, 200)}, "-200000", "float16"),
]
NEAR_MISSES: list[tuple[str, Ranges]] = [
    ("where(B, h, -65504.0)", {}),
    ("where(B, h, -65519.0)", {}),  # rounds to the lowest number
    ("where(B, x, -3.4028235e+38)", {}),  # how the lowest float32 is often written
    ("where(B, h, -inf)", {}),  # an infinity is meant
    ("where(B, x, -1000000000000.0)", {}),
    ("where(B, D, -1e+39)", {}),
    ("mul(h, 100.0)", {}),  # nothing is known of h
    ("cast(x, dtype='float16')", {}),
    ("cast(x, dtype='float16')", {"x": (-65504, 65504)}),
    ("cast(x, dtype='float16')", {"x": (-65519, 65519)}),
    ("cast(x, dtype='float16')", {"x": (0, float("inf"))}),
    ("cast(x, dtype='bfloat16')", {"x": (-1e38, 1e38)}),
    ("cast(mul(cast(h, dtype='float32'), 2.0), dtype='float16')", {}),  # all of float16 is rarely reached
    ("cast(cast(h, dtype='float32'), dtype='float16')", {}),
    ("cast(h, dtype='float32')", {"h": (-1e5, 1e5)}),
    ("add(h, h)", {"h": (0, 3e4)}),
    ("mul(h, h)", {"h": (0, 255)}),
    ("mul(h, h)", {"h": (0, 1e5)}),  # it is beyond the format before
    ("sum(h, axes=(1,), keepdim=True)", {"h": (0, 1e4)}),
    (_OUTER, {"h": (-100, 100)}),
    ("mean(mul(x, x), axes=(1,), keepdim=True)", {"x": (0, 1e15)}),
    ("mul(constant(value=300.0, dtype='float16', shape=(5,)), 300.0)", {}),  # no input reaches it
]


@pytest.mark.parametrize(("body", "ranges", "number", "dtype"), BEYOND)
def test_numbers_beyond_the_format(body: str, ranges: Ranges, number: str, dtype: str) -> None:
    proposal = assert_told(RULE, body, ranges, alone="div" not in body)
    told = f"{number} is beyond {dtype}, whose largest number is {_LARGEST[dtype]}: it is stored as an infinity"
    assert proposal.message == told
    assert (RULE.severity, RULE.poles) == ("error", True)


@pytest.mark.parametrize(("body", "ranges"), NEAR_MISSES)
def test_near_misses(body: str, ranges: Ranges) -> None:
    assert_not_told(RULE, body, ranges)


def test_on_the_way_to_a_softmax_it_is_the_rule_of_masks_that_tells() -> None:
    assert Outcome("softmax(where(B, h, -1000000000.0), axis=1)", Options(hazards=True)).codes == ["STB602"]


def test_the_first_sum_that_overflows_is_told_not_what_follows() -> None:
    proposal = assert_told(RULE, "mul(add(h, h), h)", {"h": (0, 4e4)})
    assert proposal.old.op == "add"

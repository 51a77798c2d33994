"""Properties of certificates: they have teeth, they cost little, and no formula makes them fail."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stabilize.graph.text import parse, show
from stabilize.graph.value import Value
from stabilize.verify.certificate import certify_rewrite
from tests.verify.rewrites import rewrite
from tests.verify.test_certificate import SOUND
from tests.verify.test_running import expressions

_FLOAT = [name for name in SOUND if name != "integers"]


def _spoiled(name: str, spoil: str) -> tuple[Value, Value]:
    """A sound rewrite whose replacement is changed a little."""
    before, after = SOUND[name]
    *definitions, result = after.strip().splitlines()
    return rewrite(before, "\n".join([*definitions, spoil.replace("NEW", result)]))


@pytest.mark.parametrize("name", _FLOAT)
@pytest.mark.parametrize("spoil", ["mul(NEW, 1.001)", "add(NEW, 0.001)", "neg(NEW)"])
def test_small_spoilings_are_declined(name: str, spoil: str) -> None:
    old, new = _spoiled(name, spoil)
    assert not certify_rewrite(old, new).accepted, show([new])


@pytest.mark.parametrize("name", _FLOAT)
def test_precision_thrown_away_is_declined(name: str) -> None:
    """A detour through bfloat16 costs 16 of 24 bits."""
    old, new = _spoiled(name, "cast(cast(NEW, dtype='bfloat16'), dtype='float32')")
    assert not certify_rewrite(old, new).accepted


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_formula_breaks_the_judge_and_none_is_worse_than_itself(dtype: str, data: st.DataObject) -> None:
    _, root = data.draw(expressions(dtype))
    # the same expression again, in a graph in which it is another value
    text = show([root]).replace("return ", "same = ", 1) + "\n    return neg(neg(same)), same"
    twice, once = parse(text).outputs
    certificate = certify_rewrite(once, twice)
    assert certificate.accepted, (certificate.reason, show([once]))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_formula_plus_a_tenth_is_declined_where_it_is_ever_right(data: st.DataObject) -> None:
    _, root = data.draw(expressions("float32"))
    text = show([root]).replace("return ", "same = ", 1) + "\n    return add(mul(same, 1.1), 0.1), same"
    other, once = parse(text).outputs
    certificate = certify_rewrite(once, other)
    judged = [f for f in certificate.families if f.name == "benign" and f.judged]
    assert not (certificate.accepted and judged), show([once])

"""The minimum cut against every way to part a small graph."""

from __future__ import annotations

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from stabilize.conversion.cut import Wire, cheapest

_NODES = range(7)


@st.composite
def _graphs(draw: st.DrawFn) -> tuple[dict[object, int], list[object], list[object], list[Wire]]:
    nodes: list[object] = [str(i) for i in _NODES]
    gains: dict[object, int] = {n: draw(st.integers(0, 20)) for n in nodes}
    fixed = draw(st.lists(st.sampled_from(["half", "float", "free", "free"]), min_size=7, max_size=7))
    wires: list[Wire] = []
    for i in _NODES[:-1]:
        readers = draw(st.lists(st.sampled_from(nodes[i + 1 :]), unique=True, max_size=3))
        wires.append(Wire(nodes[i], readers, draw(st.integers(1, 30))))
    ends = [[n for n, f in zip(nodes, fixed, strict=True) if f == end] for end in ("half", "float")]
    return gains, ends[0], ends[1], wires


def _cost(half: set[object], gains: dict[object, int], wires: list[Wire]) -> int:
    casts = sum(w.cost for w in wires if any((r in half) != (w.producer in half) for r in w.readers))
    return casts + sum(gain for node, gain in gains.items() if node not in half)


@given(_graphs())
@settings(max_examples=150, deadline=None)
def test_no_other_choice_is_cheaper(graph: tuple[dict[object, int], list[object], list[object], list[Wire]]) -> None:
    gains, half, wide, wires = graph
    found = cheapest(gains, half, wide, wires)
    assert set(half) <= found
    assert not set(wide) & found
    best = min(
        _cost(chosen, gains, wires)
        for sides in product((True, False), repeat=len(gains))
        for chosen in [{n for n, side in zip(gains, sides, strict=True) if side}]
        if set(half) <= chosen and not set(wide) & chosen
    )
    assert _cost(found, gains, wires) == best


def test_one_cast_serves_all_readers() -> None:
    wires = [Wire("a", ["b", "c", "d"], 10)]
    # three readers together gain 12, and one cast costs 10
    assert cheapest(dict.fromkeys("bcd", 4), [], ["a"], wires) == {"b", "c", "d"}
    assert cheapest(dict.fromkeys("bcd", 3), [], ["a"], wires) == set()


def test_float_wins() -> None:
    assert cheapest({"a": 1}, ["a"], ["a"], []) == set()

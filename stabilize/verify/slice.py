"""Where to cut a graph so that a rewrite can be judged by itself: the leaves of `old` and `new`.

Leaves are chosen as high as possible (small expressions, cheap to evaluate) under two conditions. They must be
independent, since data is drawn for each by itself: a leaf that another one feeds is opened. And their values
must be able to be anything: a leaf like exp(x), or a mask that was computed, is opened, or a rewrite that
relies on exp(x) > 0 would be tried, and refused, on negative numbers.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from stabilize.formats import FORMATS, is_float
from stabilize.graph.ops import LAYOUT
from stabilize.graph.value import Value, cone, shared_frontier

_LITERAL: Final = frozenset({"constant", "arange"})
_CLOSED: Final = frozenset({"input", "opaque"})

#: Primitives whose results do not reach every real number, whatever their operands are.
_RESTRICTED: Final = frozenset(
    {
        "abs", "cos", "erf", "erfc", "exp", "expm1", "floor", "log_sigmoid", "log_softmax", "norm", "pow", "relu",
        "sigmoid", "sign", "sin", "softmax", "softplus", "sqrt", "tanh", "cross_entropy", "bce_with_logits",
        "asin", "acos", "atan", "acosh", "erfcx", "log_ndtr",
    }
)  # fmt: skip

#: Primitives whose results are restricted when an operand is.
_INHERITING: Final = LAYOUT | {
    "add", "cast", "cumprod", "cumsum", "detach", "div", "max", "maximum", "mean", "min", "minimum", "mul", "neg",
    "prod", "sub", "sum", "topk_values", "where", "log", "log1p", "attention", "matmul",
}  # fmt: skip

#: Primitives whose results are restricted only when every operand is.
_FREED: Final = frozenset({"add", "sub", "mul", "div", "matmul", "where"})

_DEPTH: Final = 6


def cut(
    old: Value, new: Value, usable: Container[Value] | None = None, *, independent: bool = True
) -> tuple[Value, ...]:
    """The leaves on which `old` and `new` are to be compared, in topological order.

    Inputs and opaque values end every path; constants are part of the expressions. Besides those, only `usable` values
    are leaves, where it is given. independent: whether a leaf that another one feeds is opened.
    """
    leaves: dict[int, Value] = {}
    for value in shared_frontier(new, old):
        _open_restricted(value, leaves, usable)
    while True:
        reached = cone([old, new], leaves.values())
        leaves = {v.index: v for v in reached if v.index in leaves or v.op in _CLOSED}
        fed = _fed_by_another(leaves) if independent else []
        if old.index in leaves and old.op not in _CLOSED:
            fed.append(old)
        if not fed:
            # an opaque leaf hides what it is computed from
            return tuple(v for v in cone([old, new], leaves.values()) if v.index in leaves)
        for value in fed:
            leaves.pop(value.index, None)
            for operand in value.operands:
                _open_restricted(operand, leaves, usable)


def _open_restricted(value: Value, leaves: dict[int, Value], usable: Container[Value] | None) -> None:
    """Add `value` to the leaves, or what it is computed from when its range is restricted or it is not usable."""
    stack, seen = [value], set[int]()
    while stack:
        each = stack.pop()
        if each.index in seen or each.op in _LITERAL:
            continue
        seen.add(each.index)
        if each.op not in _CLOSED and (_is_restricted(each) or not (usable is None or each in usable)):
            stack.extend(each.operands)
        else:
            leaves[each.index] = each


def _is_restricted(value: Value, depth: int = _DEPTH) -> bool:
    """Whether some real numbers cannot be values of this expression, looking a few primitives deep.

    A sum or product reaches what its freest operand reaches: x + softmax(y) can be anything that x can be.
    """
    if value.op in _LITERAL:
        return True
    if value.op in _CLOSED or not depth:
        return False
    if value.op in _RESTRICTED or not is_float(value.dtype):
        return True
    if value.op == "mul" and value.operands[0] is value.operands[1]:
        return True
    if value.op == "cast" and _widening(value):
        return True
    if value.op in ("div", "mul") and _by_own_size(*value.operands):
        return True
    operands = [o for o in value.operands if is_float(o.dtype)]
    if value.op in _FREED:
        return all(_is_restricted(o, depth - 1) for o in operands)
    return value.op in _INHERITING and any(_is_restricted(o, depth - 1) for o in operands)


def _widening(value: Value) -> bool:
    """A number of a narrower format: in float32 no number of float16 has a square that overflows."""
    source = value.operands[0]
    return is_float(source.dtype) and FORMATS[source.dtype].precision < FORMATS[value.dtype].precision


def _by_own_size(a: Value, b: Value) -> bool:
    """Whether a/b, or a·(1/b), divides by something computed from what a is: x/‖x‖ is no longer than 1."""
    for top, bottom in ((a, b), (b, a)):
        inverse = bottom.op == "div" and bottom.operands[0].op in _LITERAL
        below = _near(bottom.operands[1] if inverse else bottom)
        if any(v.op in ("sqrt", "norm") for v in below) and {v for v in below if v.op not in _LITERAL} & set(
            _near(top, 3)
        ):
            return True
    return False


def _near(value: Value, depth: int = _DEPTH) -> list[Value]:
    """`value` and what it is computed from, a few primitives deep."""
    found, level = {value: None}, [value]
    for _ in range(depth):
        level = [o for v in level for o in v.operands if o not in found]
        found |= dict.fromkeys(level)
    return list(found)


def _is_index(value: Value) -> bool:
    return not is_float(value.dtype) and value.dtype != "bool"


def _fed_by_another(leaves: dict[int, Value]) -> list[Value]:
    """The leaves that can be opened and that depend on another leaf.

    What depends on indices alone (embedded tokens) is taken to be free of them.
    """
    first = min(leaves, default=0)  # what is older than every leaf depends on none
    feeds: dict[int, bool] = {}
    for value in cone(leaves.values(), above=first):
        feeds[value.index] = any(
            o.index >= first and (feeds[o.index] or (o.index in leaves and not _is_index(o))) for o in value.operands
        )
    return [leaf for leaf in leaves.values() if feeds[leaf.index] and leaf.op not in _CLOSED]

"""Integers known before a run: what exporters compute with Shape, Gather and Concat to build shapes.

Elements are sizes or symbols, so shape arithmetic of dynamic models stays readable as long as it only moves
dimensions around; arithmetic is folded where every operand is a number.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from stabilize.frontends.onnx_call import Call
from stabilize.graph.value import Dim

Elements: TypeAlias = tuple[Dim, ...]

#: More elements than a shape has: not worth following.
LIMIT = 64


def contents_of(call: Call) -> Elements | None:
    """The elements of the node's first output; None when they are not known."""
    rule = _RULES.get(call.node.op_type)
    elements = None if rule is None else rule(call)
    return elements if elements is not None and len(elements) <= LIMIT else None


def _numbers(elements: Elements | None) -> list[int] | None:
    if elements is None or not all(isinstance(e, int) for e in elements):
        return None
    return [e for e in elements if isinstance(e, int)]


def _shape(call: Call) -> Elements:
    return call.x().shape[slice(call.int_attr("start", 0), call.node.attributes.get_int("end", None))]


def _size(call: Call) -> Elements | None:
    dims = _numbers(call.x().shape)
    return None if dims is None else (math.prod(dims),)


def _same(call: Call) -> Elements | None:
    return call.dims(0)


def _cast(call: Call) -> Elements | None:
    """Sizes are small: every cast to an integer or a float leaves them as they are."""
    return call.dims(0)


def _gather(call: Call) -> Elements | None:
    elements, index = call.dims(0), _numbers(call.dims(1))
    if elements is None or index is None or call.x().type.rank != 1:
        return None
    if not all(-len(elements) <= i < len(elements) for i in index):
        return None
    return tuple(elements[i] for i in index)


def _slice(call: Call) -> Elements | None:
    elements = call.dims(0)
    bounds = [_numbers(call.dims(i)) if call.given(i) else default for i, default in ((1, None), (2, None), (4, [1]))]
    if elements is None or call.x().type.rank != 1:
        return None
    match bounds:
        case [[start], [stop], [step]] if step != 0:
            return elements[slice(start, stop if stop >= -len(elements) else None, step)]
        case _:
            return None


def _concat(call: Call) -> Elements | None:
    parts = [call.dims(i) for i in range(len(call.args))]
    known = [p for p in parts if p is not None]
    return tuple(e for p in known for e in p) if len(known) == len(parts) else None


def _binary(function: Callable[[int, int], int], call: Call) -> Elements | None:
    a, b = _numbers(call.dims(0)), _numbers(call.dims(1))
    if a is None or b is None or not (len(a) == len(b) or 1 in (len(a), len(b))):
        return None
    count = max(len(a), len(b))
    pairs = zip(a * count if len(a) == 1 else a, b * count if len(b) == 1 else b, strict=False)
    return tuple(int(function(x, y)) for x, y in pairs)


def _div(call: Call) -> Elements | None:
    divisor = _numbers(call.dims(1))
    if divisor is None or 0 in divisor or any(d < 0 for d in (_numbers(call.dims(0)) or ())):
        return None
    return _binary(lambda a, b: a // b, call) if min(divisor, default=1) > 0 else None


def _mod(call: Call) -> Elements | None:
    divisor = _numbers(call.dims(1))
    return None if not divisor or min(divisor) <= 0 else _binary(operator.mod, call)


def _not(call: Call) -> Elements | None:
    numbers = _numbers(call.dims(0))
    return None if numbers is None else tuple(1 - n for n in numbers)


def _where(call: Call) -> Elements | None:
    """Booleans are 0 and 1 here."""
    condition, yes, no = _numbers(call.dims(0)), call.dims(1), call.dims(2)
    if condition is None or yes is None or no is None:
        return None
    count = max(len(condition), len(yes), len(no))
    spread = [e * count if len(e) == 1 else e for e in (tuple(condition), yes, no)]
    if any(len(e) != count for e in spread):
        return None
    return tuple(a if c else b for c, a, b in zip(*spread, strict=True))


def _product(call: Call) -> Elements | None:
    numbers = _numbers(call.dims(0))
    return None if numbers is None else (math.prod(numbers),)


_RULES: dict[str, Callable[[Call], Elements | None]] = {
    "Shape": _shape,
    "Size": _size,
    "Identity": _same,
    "Squeeze": _same,
    "Unsqueeze": _same,
    "Reshape": _same,
    "Cast": _cast,
    "CastLike": _cast,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Add": partial(_binary, operator.add),
    "Sub": partial(_binary, operator.sub),
    "Mul": partial(_binary, operator.mul),
    "Max": partial(_binary, max),
    "Min": partial(_binary, min),
    "Div": _div,
    "Mod": _mod,
    "Equal": partial(_binary, operator.eq),
    "Less": partial(_binary, operator.lt),
    "Greater": partial(_binary, operator.gt),
    "And": partial(_binary, min),
    "Or": partial(_binary, max),
    "Not": _not,
    "Where": _where,
    "ReduceProd": _product,
}

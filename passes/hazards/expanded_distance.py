"""# expanded-distance (STB416)

## What it does
Finds squared distances as ‖a‖² + ‖b‖² − 2·a·b with the product of two matrices: pairwise distances, Gaussian kernels,
nearest codes.

## Why it is unstable
The squares cancel where a and b are near each other and far from 0: in float32, at entries of 1e3, distances below 1
are noise, and may be negative, so that a root is NaN.

## Example
    d2 = (a * a).sum(-1)[:, None] + (b * b).sum(-1) - 2 * a @ b.T
→
    d2 = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist") ** 2    or    d2.clamp(min=0)

## Shapes
Any, with the sums over the axis that the product contracts.

## Error
Absolute (n + 4)·u·(‖a‖² + ‖b‖²), whatever the distance is.

## Safety
Reported only: the differences of all pairs take n times the memory. A clamp at 0 keeps roots from being NaN, not
distances from being noise; centring a and b by a common mean first is exact and makes the squares small. Which of them
suits is known to the model's author.

## Source
Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., §1.7 (cancellation).
"""

from __future__ import annotations

import math
from fractions import Fraction

from stabilize.formats import Format
from stabilize.graph.ops import LAYOUT
from stabilize.graph.value import Value
from stabilize.passes.cancellation.moments import moment, unscaled
from stabilize.passes.rule import Context, Proposal, Rule


def match(ctx: Context, value: Value) -> Proposal | None:
    form = ctx.engine.linear(value)
    if len(form.terms) < 3 or form.constant:
        return None
    products = [(p, k * j) for a, k in form.terms if (p := _inner(a)).op == "matmul" for j in (_factor(p),)]
    squares = [(found, k) for a, k in form.terms if (found := _square(_inner(a))) is not None]
    for product, k in products:
        for (a, j), (b, i) in ((p, q) for p in squares for q in squares if p is not q):
            if i == j == -k / 2 and {_source(o) for o in product.operands} == {_source(a), _source(b)}:
                return RULE.proposal(value, safety=None)
    return None


def _inner(atom: Value) -> Value:
    while atom.op in LAYOUT:
        atom = atom.operands[0]
    return atom


def _source(value: Value) -> Value:
    """What a matrix is a view of, numbers beside it left out."""
    return _inner(unscaled(_inner(value))[0])


def _factor(product: Value) -> Fraction:
    """The numbers beside the matrices of a product."""
    return math.prod((unscaled(_inner(o))[1] for o in product.operands), start=Fraction(1))


def _square(value: Value) -> Value | None:
    """a when `value` is Σa²."""
    found = moment(value)
    same = found is not None and len(found.factors) == 2 and found.factors[0] is found.factors[1]
    return found.factors[0] if found is not None and same and found.scale == Fraction(1) and not found.mean else None


def _condition(fmt: Format) -> str:
    return f"rows that are nearer to each other than {fmt.u**0.5:.1g} of their length, in {fmt.name}"


RULE = Rule("STB416", "expanded-distance", frozenset({"add", "sub"}), match, __doc__, "warning", _condition)

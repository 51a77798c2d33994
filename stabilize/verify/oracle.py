"""The oracle: the value of a formula exactly as written, over the extended reals, in arbitrary precision.

Leaves are exact (every float is a real number); a `cast` to another float format is the identity; nothing
overflows, so exp(1e4)/exp(1e4) is 1. Precision is doubled until every ball is tight. Where the formula itself
is singular (0/0 in a row that is all −inf) the answer is NaN, by the conventions in `stabilize.verify.reals`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import flint
import numpy as np
import torch
from flint import arb

from stabilize.graph.value import Value, cone
from stabilize.verify import oracle_fused as fused
from stabilize.verify import oracle_rules as rules
from stabilize.verify import reals
from stabilize.verify.execute import concrete, symbol_sizes
from stabilize.verify.oracle_rules import Context, OracleArray, Rule, elementwise_map
from stabilize.verify.reals import ONE, UNKNOWN, ZERO, Reals, UndecidedError

_START_BITS: Final = 192
#: Where doubling ends beside a tower of exponentials: enough for all numbers in the range of a float64.
_TOWER_BITS: Final = 1536

#: Primitives that turn a number x into one that differs from its limit by about 2^(−1.44·|x|).
_EXPONENTIALS: Final = frozenset({"exp", "expm1", "sigmoid", "softplus", "log_sigmoid", "tanh", "logaddexp", "softmax"})


def evaluate(
    roots: Sequence[Value],
    leaves: Mapping[Value, torch.Tensor],
    *,
    digits: int = 24,
    floor: int = -1200,
    max_bits: int = 2**17,
) -> list[OracleArray]:
    """The exact values of `roots`, as balls.

    A comparison of balls that still overlap at the last precision counts as a tie, if that precision resolves the
    exponentials involved.

    digits: decimal digits to which every element is known, relative to itself.
    floor: an element whose ball lies within ±2**floor is known well enough (it is 0 to every format).
    max_bits: where doubling the precision ends; elements that are not tight by then become `reals.UNKNOWN`.
    """
    return evaluate_cone(roots, leaves, digits=digits, floor=floor, max_bits=max_bits)[0]


def evaluate_cone(
    roots: Sequence[Value], leaves: Mapping[Value, torch.Tensor], *, digits: int, floor: int, max_bits: int
) -> tuple[list[OracleArray], dict[int, OracleArray]]:
    """As `evaluate`, with every intermediate value by index (of which only the roots are sure to be tight)."""
    given = {leaf.index: array_of(tensor) for leaf, tensor in leaves.items()}
    sizes = symbol_sizes({leaf: tuple(tensor.shape) for leaf, tensor in leaves.items()})
    need = round(digits * 3.33)
    bits, tower = _START_BITS, False
    while True:
        last = bits >= max_bits or (tower and bits >= _TOWER_BITS)
        with flint.ctx.workprec(bits):
            edge = arb(2) ** floor
            arrays, results = _attempt(roots, leaves, given, Context(Reals(snap=last), sizes))
            if last and not _resolved(roots, leaves, arrays, bits):
                arrays, results = _attempt(roots, leaves, given, Context(Reals(snap=False), sizes))
            if last or (results and all(is_tight(x, need, edge) for r in results for x in r.flat)):
                unknown = [np.full(concrete(r.shape, sizes), UNKNOWN, dtype=object) for r in roots]
                return [_withheld(r, need, edge) for r in results or unknown], arrays
        tower = tower or is_tower(roots, leaves, arrays, max_bits)
        bits = min(2 * bits, max_bits)


def _attempt(
    roots: Sequence[Value], leaves: Mapping[Value, object], given: Mapping[int, OracleArray], context: Context
) -> tuple[dict[int, OracleArray], list[OracleArray]]:
    """One evaluation at the working precision; no results when it could not decide a comparison."""
    arrays = dict(given)
    try:
        return arrays, interpret(roots, arrays, context, leaves)
    except UndecidedError:
        return arrays, []


def _resolved(
    roots: Sequence[Value], leaves: Mapping[Value, object], arrays: Mapping[int, OracleArray], bits: int
) -> bool:
    """Whether `bits` are enough to tell what the exponentials made from their limits: then a tie is a tie."""
    return all(abs(x) < 0.6 * bits for x in _exponents(roots, leaves, arrays))


def is_tower(
    roots: Sequence[Value], leaves: Mapping[Value, object], arrays: Mapping[int, OracleArray], bits: int
) -> bool:
    """Whether some exponential is of so large a number that no precision up to `bits` gives one digit of it.

    Exponentials of exponentials of exponentials do that; what depends on them is not known at any precision tried.
    """
    top = arb(2) ** bits
    return any(x.abs_lower() > top for x in _exponents(roots, leaves, arrays) if x.is_finite())


def _exponents(
    roots: Sequence[Value], leaves: Mapping[Value, object], arrays: Mapping[int, OracleArray]
) -> Iterator[arb]:
    """The numbers, other than infinities, whose exponentials are taken, as far as they were computed."""
    for value in cone(roots, leaves):
        if value.op in _EXPONENTIALS and value not in leaves:
            for operand in value.operands:
                numbers: list[object] = list(arrays[operand.index].flat) if operand.index in arrays else []
                yield from (x for x in numbers if isinstance(x, arb))


def _withheld(array: OracleArray, need: int, edge: arb) -> OracleArray:
    """`array` with `UNKNOWN` in place of what could not be bounded."""

    def withhold(x: object) -> object:
        return x if is_tight(x, need, edge) else UNKNOWN

    return elementwise_map(withhold, array)


def interpret(
    roots: Sequence[Value], arrays: dict[int, OracleArray], context: Context, leaves: Mapping[Value, object]
) -> list[OracleArray]:
    """Evaluate at the working precision of flint; `arrays` holds what is known by value index, and is filled."""
    # Arb sets the processor's floating-point flags, which NumPy would report as its own
    with np.errstate(all="ignore"):
        for value in cone(roots, leaves):
            if value.index not in arrays:
                operands = [arrays[o.index] for o in value.operands]
                arrays[value.index] = ORACLE[value.op](context, value, operands)
    return [arrays[root.index] for root in roots]


def array_of(tensor: torch.Tensor) -> OracleArray:
    """The exact numbers of a tensor."""
    result = np.empty(tensor.numel(), dtype=object)
    if tensor.is_floating_point():
        result[:] = [reals.lift(float(x)) for x in tensor.detach().double().flatten().numpy()]
    elif tensor.dtype == torch.bool:
        result[:] = [bool(x) for x in tensor.flatten().numpy()]
    else:
        result[:] = [int(x) for x in tensor.flatten().numpy()]
    return result.reshape(tuple(tensor.shape))


def is_tight(x: object, need: int, edge: arb) -> bool:
    """Whether `x` is exact, infinite or NaN, or a ball with `need` good bits, or one inside ±`edge`."""
    if not isinstance(x, arb):
        return True
    return x.is_finite() and (x.rel_accuracy_bits() >= need or bool(x.abs_upper() < edge))


#: Primitive → its exact meaning.
ORACLE: dict[str, Rule] = {
    "input": rules.leaf,
    "opaque": rules.leaf,
    "constant": rules.constant,
    "arange": rules.arange,
    "neg": rules.elementwise(reals.neg),
    "abs": rules.elementwise(reals.absolute),
    "exp": rules.elementwise(reals.exp),
    "expm1": rules.elementwise(reals.expm1),
    "log": rules.method("log"),
    "log1p": rules.method("log1p"),
    "sqrt": rules.method("sqrt"),
    "sigmoid": rules.elementwise(reals.sigmoid),
    "log_sigmoid": rules.elementwise(reals.log_sigmoid),
    "softplus": rules.elementwise(reals.softplus),
    "tanh": rules.elementwise(reals.tanh),
    "relu": rules.method("relu"),
    "sign": rules.method("signum"),
    "erf": rules.elementwise(reals.erf),
    "erfc": rules.elementwise(reals.erfc),
    "sin": rules.elementwise(reals.sin),
    "cos": rules.elementwise(reals.cos),
    "floor": rules.method("floor"),
    "asin": rules.method("asin"),
    "acos": rules.method("acos"),
    "atan": rules.elementwise(reals.atan),
    "sinh": rules.elementwise(reals.sinh),
    "asinh": rules.elementwise(reals.asinh),
    "acosh": rules.method("acosh"),
    "atanh": rules.method("atanh"),
    "erfcx": rules.elementwise(reals.erfcx),
    "log_ndtr": rules.elementwise(reals.log_ndtr),
    "erfinv": rules.method("erfinv"),
    "ndtri": rules.method("ndtri"),
    "detach": lambda context, value, operands: operands[0],
    "isnan": rules.elementwise(reals.isnan),
    "not": rules.logical(operator.not_),
    "cast": rules.to_dtype,
    "add": rules.method("add"),
    "sub": rules.method("sub"),
    "mul": rules.method("mul"),
    "div": rules.method("div"),
    "pow": rules.method("pow"),
    "maximum": rules.method("maximum"),
    "minimum": rules.method("minimum"),
    "logaddexp": rules.method("logaddexp"),
    "xlogy": rules.method("xlogy"),
    "eq": rules.comparison(lambda sign: sign == 0),
    "ne": rules.comparison(lambda sign: sign != 0, for_nan=True),
    "lt": rules.comparison(lambda sign: sign < 0),
    "le": rules.comparison(lambda sign: sign <= 0),
    "gt": rules.comparison(lambda sign: sign > 0),
    "ge": rules.comparison(lambda sign: sign >= 0),
    "and": rules.logical(bool.__and__),
    "or": rules.logical(bool.__or__),
    "where": rules.select,
    "sum": rules.reduction("sum"),
    "mean": rules.mean,
    "prod": rules.reduction("prod"),
    "max": rules.reduction("max"),
    "min": rules.negated(rules.reduction("max")),
    "logsumexp": rules.reduction("logsumexp"),
    "norm": rules.norm,
    "any": rules.quantifier(any),
    "all": rules.quantifier(all),
    "argmax": rules.argmax,
    "cumsum": rules.scan(Reals.add, ZERO),
    "cumprod": rules.scan(Reals.mul, ONE),
    "logcumsumexp": rules.rowwise(rules.logcumsumexp),
    "softmax": rules.rowwise(lambda arithmetic, row, value: arithmetic.softmax(row)),
    "log_softmax": rules.rowwise(lambda arithmetic, row, value: arithmetic.log_softmax(row)),
    "topk_values": rules.rowwise(rules.topk_values),
    "topk_indices": rules.rowwise(rules.topk_positions),
    "matmul": lambda context, value, operands: rules.matmul(context, operands[0], operands[1]),
    "reshape": lambda context, value, operands: operands[0].reshape(concrete(value.shape, context.sizes)),
    "unsqueeze": lambda context, value, operands: np.expand_dims(operands[0], value.axes),
    "squeeze": lambda context, value, operands: np.squeeze(operands[0], value.axes),
    "transpose": rules.transpose,
    "expand": lambda context, value, operands: np.broadcast_to(operands[0], concrete(value.shape, context.sizes)),
    "slice": rules.window,
    "gather": rules.gather,
    "concat": lambda context, value, operands: np.concatenate(list(operands), value.axes[0]),
    "one_hot": rules.one_hot,
    "cross_entropy": fused.cross_entropy,
    "nll_loss": fused.nll_loss,
    "bce_with_logits": fused.bce_with_logits,
    "attention": fused.attention,
    "layer_norm": fused.layer_norm,
    "rms_norm": fused.rms_norm,
}

"""Families of inputs on which a rewrite is tried: where formulas work, where they break, and the special rows.

Float leaves that reach an exponential get the values that drive it; the others stay moderate, take
zeros and ones in the masked families (they may be weights or masks), and share the families of small, tied and
special values. Infinities that mask are given to leaves that enter exponents as terms (scores), not as factors
(queries and keys). Everything is drawn from one seeded generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast, final

import torch

from stabilize.formats import FLOAT16, FORMATS, Format, is_float
from stabilize.graph.build import constant_of
from stabilize.graph.ops import LAYOUT
from stabilize.graph.value import Value, cone
from stabilize.verify.execute import torch_dtype

#: Primitives whose operands are exponents.
EXPONENTIAL: Final = frozenset(
    {
        "exp", "expm1", "sigmoid", "softplus", "log_sigmoid", "softmax", "log_softmax", "logsumexp", "logaddexp",
        "logcumsumexp", "tanh", "sinh", "cross_entropy", "bce_with_logits", "attention", "pow",
    }
)  # fmt: skip


#: Primitives through which −inf in an operand stays what it is: a term that is not there.
_ADDITIVE: Final = LAYOUT | {
    "add", "cast", "cumsum", "detach", "div", "log_softmax", "logaddexp", "logcumsumexp", "logsumexp", "max",
    "maximum", "mean", "min", "minimum", "mul", "neg", "sub", "sum", "topk_values", "where",
}  # fmt: skip


#: Primitives that add many numbers up.
_SUMMING: Final = frozenset({"sum", "mean", "matmul", "cumsum", "norm", "layer_norm", "rms_norm"})


@final
@dataclass(frozen=True, slots=True)
class Family:
    """One set of tensors for the leaves.

    gradients: whether gradients are compared on it.
    poisoned: whether it holds +inf or NaN.
    """

    name: str
    tensors: Mapping[Value, torch.Tensor]
    gradients: bool
    poisoned: bool = False


Draw = Callable[[Value, bool], torch.Tensor]
"""(leaf, whether it reaches an exponential) → float64 numbers for a float leaf."""


def families(
    roots: Sequence[Value], leaves: Sequence[Value], data: Mapping[Value, torch.Tensor], seed: int
) -> Iterator[Family]:
    """Every family for the leaves of an expression; leaves in `data` keep their data, except where masked."""
    source = _Source(roots, leaves, data, seed)
    for name, gradients, poisoned in (*_FAMILIES, *(_MOMENTS if source.averages else ())):
        draw = cast(Draw, getattr(source, name))
        chance = {"masked": 0.7, "masked_peak": _FIRST_COLUMN, "all_masked": _FIRST_ROW}.get(name, 0.5)
        yield Family(name.replace("_", "-"), source.fill(draw, chance), gradients, poisoned)


_FAMILIES: Final = (
    # name, gradients compared, poisoned
    ("benign", True, False),
    ("wide", True, False),
    ("leading", True, False),
    ("large_positive", True, False),
    ("large_negative", True, False),
    ("large_mixed", True, False),
    ("masked", True, False),
    ("masked_peak", True, False),
    ("all_masked", True, False),
    ("tied", False, False),
    ("unit", True, False),
    ("positive", False, False),
    ("near_zero", True, False),
    ("near_one", True, False),
    ("tails", True, False),
    ("subnormal", False, False),
    ("plus_inf", False, True),
    ("nan", False, True),
)

#: Besides, for sums without exponentials: what breaks means of squares, norms and dot products.
_MOMENTS: Final = (
    ("offset", False, False),  # a gradient of a normalised row is as ill-conditioned as the row
    ("great", True, False),
    ("minute", True, False),
    ("zero_row", True, False),
)


#: Patterns of masks: the first row False and the second True; the first column False and the second True.
_FIRST_ROW: Final = -1.0
_FIRST_COLUMN: Final = -0.7


@final
class _Source:
    """Draws the numbers of each family; one method per family."""

    def __init__(
        self, roots: Sequence[Value], leaves: Sequence[Value], data: Mapping[Value, torch.Tensor], seed: int
    ) -> None:
        self.leaves, self.data = leaves, data
        self.generator = torch.Generator().manual_seed(seed)
        self.exponents = _reaching_exponential(roots, leaves)
        self.masks = _masked_by(roots, leaves)
        self.bounds = index_bounds(roots, leaves)
        #: whether a normalisation of the host is among them
        self.normalises = any(v.op in ("layer_norm", "rms_norm") for v in cone(roots, leaves))
        #: whether the roots sum, and take no exponential of what they are given
        self.averages = not _drivers(roots, leaves) and any(v.op in _SUMMING for v in cone(roots, leaves))

    def fill(self, draw: Draw, chance: float) -> dict[Value, torch.Tensor]:
        """A tensor for every leaf; `chance` is the probability of True in a mask, or the name of a pattern."""
        return {leaf: self._tensor(leaf, draw, chance) for leaf in self.leaves}

    def _tensor(self, leaf: Value, draw: Draw, chance: float) -> torch.Tensor:
        if leaf in self.data:
            return self.data[leaf]
        if is_float(leaf.dtype):
            return draw(leaf, leaf in self.exponents).to(torch_dtype(leaf.dtype))
        if leaf.dtype == "bool":
            return self._mask(leaf, chance)
        bound = self.bounds.get(leaf, 4)
        return torch.randint(0, max(bound, 1), _shape(leaf), generator=self.generator).to(torch_dtype(leaf.dtype))

    def _mask(self, leaf: Value, chance: float) -> torch.Tensor:
        shape = _shape(leaf)
        mask = torch.rand(shape, generator=self.generator) < abs(chance)
        if chance == _FIRST_ROW:
            _row(mask, 0).fill_(False)
            _row(mask, 1).fill_(True)
        if chance == _FIRST_COLUMN and shape and shape[-1]:
            mask[..., 0] = False
            mask[..., 1:2] = True
        return mask

    def _normal(self, leaf: Value) -> torch.Tensor:
        return torch.randn(_shape(leaf), generator=self.generator, dtype=torch.float64)

    def _uniform(self, leaf: Value, low: float, high: float) -> torch.Tensor:
        unit = torch.rand(_shape(leaf), generator=self.generator, dtype=torch.float64)
        return low + (high - low) * unit

    # --- families -------------------------------------------------------------------------------------------

    def benign(self, leaf: Value, exponent: bool) -> torch.Tensor:
        return self._normal(leaf)

    def wide(self, leaf: Value, exponent: bool) -> torch.Tensor:
        """As far as exp and a short sum of its values go without overflow or underflow."""
        reach = 0.8 * _format(leaf).exp_overflow
        return self._uniform(leaf, -reach, reach) if exponent else self._normal(leaf)

    def leading(self, leaf: Value, exponent: bool) -> torch.Tensor:
        """One entry of every row leads the others, by as much as makes a probability round to 1 and beyond."""
        result = self._normal(leaf)
        if exponent and leaf.shape and result.numel():
            for i, row in enumerate(result.reshape(-1, result.shape[-1])):
                row[i % len(row)] += _format(leaf).precision * (0.5 + 0.4 * i)
        return result

    def large_positive(self, leaf: Value, exponent: bool) -> torch.Tensor:
        return self._normal(leaf) + (2 * _format(leaf).exp_overflow if exponent else 0.0)

    def large_negative(self, leaf: Value, exponent: bool) -> torch.Tensor:
        return self._normal(leaf) + (2 * _format(leaf).exp_underflow if exponent else 0.0)

    def large_mixed(self, leaf: Value, exponent: bool) -> torch.Tensor:
        """Of both signs, far beyond the range of exp."""
        return (4 * _format(leaf).exp_overflow if exponent else 1.0) * self._normal(leaf).clamp(-2.5, 2.5)

    def masked(self, leaf: Value, exponent: bool) -> torch.Tensor:
        """Some entries −inf (not all of a row); weights become zeros and ones."""
        drop = torch.rand(_shape(leaf), generator=self.generator) < 0.35
        if leaf.shape and drop.numel():
            drop[..., 0] = False
        if exponent:
            return self._normal(leaf).masked_fill(drop & (leaf in self.masks), self.masks.get(leaf, 0.0))
        return (~drop).double()

    def masked_peak(self, leaf: Value, exponent: bool) -> torch.Tensor:
        """The largest exponents stand where masks and weights are zero, far above the rest (which exp can hold)."""
        result = self._normal(leaf)
        if leaf.shape and result.numel():
            if exponent:
                result -= 0.75 * _format(leaf).exp_overflow
            result[..., 0] = 0.85 * _format(leaf).exp_overflow if exponent else 0.0
        return result

    def all_masked(self, leaf: Value, exponent: bool) -> torch.Tensor:
        """The first row is −inf throughout; weights are zero there."""
        result = self._normal(leaf)
        if leaf in self.masks or not exponent:
            _row(result, 0).fill_(self.masks.get(leaf, 0.0))
        return result

    def tied(self, leaf: Value, exponent: bool) -> torch.Tensor:
        """Every entry equal in the first row; equal pairs and zeros elsewhere."""
        result = self._normal(leaf).round()
        _row(result, 0).fill_(1.5)
        return result

    def unit(self, leaf: Value, exponent: bool) -> torch.Tensor:
        """Probabilities, some of them next to 0 and to 1."""
        result = self._uniform(leaf, 0.01, 0.99)
        flat, u = result.view(-1), _format(leaf).u
        for position, number in enumerate((4 * u, 1 - 4 * u, u * u)):
            if position + 1 < len(flat):
                flat[position + 1] = number
        return result

    def positive(self, leaf: Value, exponent: bool) -> torch.Tensor:
        return self._normal(leaf).mul(2.0).exp()

    def near_zero(self, leaf: Value, exponent: bool) -> torch.Tensor:
        """Where 1 + x and exp(x) − 1 cancel, exact zeros included."""
        scale = torch.tensor([1e-3, 1e-6, 1e-10], dtype=torch.float64)
        pick = torch.randint(0, 3, _shape(leaf), generator=self.generator)
        result = self._normal(leaf) * scale[pick]
        if result.numel():
            result.view(-1)[-1] = 0.0
        return result

    def near_one(self, leaf: Value, exponent: bool) -> torch.Tensor:
        """Of both signs, one to a thousand roundings inside ±1, and ±1 itself."""
        gap = _format(leaf).u * 2.0 ** self._uniform(leaf, 0.0, 10.0)
        result = torch.where(self._normal(leaf) < 0, -1.0, 1.0) * (1.0 - gap)
        if result.numel():
            result.view(-1)[-1] = 1.0
        return result

    def tails(self, leaf: Value, exponent: bool) -> torch.Tensor:
        """Where exp(−x²) runs out: up to a few multiples of the root of the range of exp."""
        return self._normal(leaf) * math.sqrt(_format(leaf).exp_overflow) / 2

    def subnormal(self, leaf: Value, exponent: bool) -> torch.Tensor:
        return self._normal(leaf) * 2.0 * _format(leaf).min_normal

    def offset(self, leaf: Value, exponent: bool) -> torch.Tensor:
        """Spread 1 around a mean whose square drowns it: 1e4 in float32, 110 in float16."""
        return self._normal(leaf) + math.exp2(_format(leaf).precision / 2 + 1.3)

    def great(self, leaf: Value, exponent: bool) -> torch.Tensor:
        """Numbers whose squares overflow: 1.8e19 and more in float32, 256 in float16.

        The hosts' normalisations are taken as they are, and they sum squares in float32 or float64.
        """
        fmt = FLOAT16 if self.normalises else _format(leaf)
        return self._normal(leaf) * 2.0 * math.sqrt(fmt.max)

    def minute(self, leaf: Value, exponent: bool) -> torch.Tensor:
        """Numbers whose squares underflow."""
        return self._normal(leaf) * 0.5 * math.sqrt(_format(leaf).tiny)

    def zero_row(self, leaf: Value, exponent: bool) -> torch.Tensor:
        result = self._normal(leaf)
        _row(result, 0).fill_(0.0)
        return result

    def plus_inf(self, leaf: Value, exponent: bool) -> torch.Tensor:
        """What no mask is: an exponent of +inf."""
        candidates = [v for v in self.leaves if v in self.masks or v not in self.exponents]
        return self._planted(leaf, -self.masks.get(leaf, -math.inf), candidates)

    def nan(self, leaf: Value, exponent: bool) -> torch.Tensor:
        return self._planted(leaf, math.nan, self.leaves)

    def _planted(self, leaf: Value, number: float, candidates: Sequence[Value]) -> torch.Tensor:
        """One special entry in the first row of the first candidate whose data is not given."""
        result = self._normal(leaf)
        first = next((v for v in candidates if is_float(v.dtype) and v not in self.data), None)
        if leaf is first and result.numel():
            result.view(-1)[_row(result, 0).numel() // 2] = number
        return result


def _format(leaf: Value) -> Format:
    return FORMATS[leaf.dtype]


def _shape(leaf: Value) -> tuple[int, ...]:
    return cast("tuple[int, ...]", leaf.shape)


def _row(tensor: torch.Tensor, index: int) -> torch.Tensor:
    """A view of row `index` along the first axis (of everything when there is one row); empty when there is none."""
    if tensor.dim() < 2:
        return tensor if index == 0 else tensor[:0] if tensor.dim() else tensor.new_empty(0)
    return tensor[index : index + 1]


def exponents_of(value: Value) -> tuple[Value, ...]:
    """The operands of an `EXPONENTIAL` primitive that are exponents."""
    if value.op == "pow":
        return value.operands[1:]
    return value.operands[:1] if value.op in ("cross_entropy", "bce_with_logits") else value.operands


def _reaching_exponential(roots: Sequence[Value], leaves: Sequence[Value]) -> frozenset[Value]:
    """The float leaves that some exponential depends on; all of them when there is no exponential."""
    floats = frozenset(leaf for leaf in leaves if is_float(leaf.dtype))
    return _drivers(roots, leaves) or floats


def _drivers(roots: Sequence[Value], leaves: Sequence[Value]) -> frozenset[Value]:
    """The float leaves that some exponential depends on."""
    drivers = [o for v in cone(roots, leaves) if v.op in EXPONENTIAL for o in exponents_of(v)]
    return frozenset(leaf for leaf in cone(drivers, leaves) if leaf in leaves and is_float(leaf.dtype))


def _masked_by(roots: Sequence[Value], leaves: Sequence[Value]) -> dict[Value, float]:
    """Leaves that enter exponents as a term or scaled by a constant, and nothing as a factor: the infinity that masks.

    −inf where the leaf enters with a plus sign, +inf where it enters with a minus sign.
    """
    values = cone(roots, leaves)
    drivers = [o for v in values if v.op in EXPONENTIAL - {"attention"} for o in exponents_of(v)]
    drivers += [v.operands[3] for v in values if v.op == "attention" and len(v.operands) > 3]
    factors = {leaf for leaf, _ in _terms([o for v in values if _is_product(v) for o in v.operands], leaves)}
    signs: dict[Value, set[int]] = {}
    for leaf, sign in _terms(drivers, leaves):
        signs.setdefault(leaf, set()).add(sign)
    return {
        leaf: -math.inf if 1 in found else math.inf
        for leaf, found in signs.items()
        if len(found) == 1 and leaf not in factors
    }


def _is_product(value: Value) -> bool:
    """Whether `value` multiplies things of which none is a constant."""
    return value.op in ("matmul", "mul", "div", "attention") and all(constant_of(o) is None for o in value.operands)


def _terms(roots: Sequence[Value], leaves: Sequence[Value]) -> set[tuple[Value, int]]:
    """The leaves met on the way down from `roots` through sums, selections and constant factors, with their signs."""
    stack, seen, found = [(root, 1) for root in roots], set[tuple[int, int]](), set[tuple[Value, int]]()
    while stack:
        value, sign = stack.pop()
        if (value.index, sign) in seen:
            continue
        seen.add((value.index, sign))
        if value in leaves:
            found.add((value, sign))
        elif value.op in _ADDITIVE and not _is_product(value):
            constants = [c for o in value.operands if (c := constant_of(o)) is not None]
            flipped = value.op in ("mul", "div") and any(c < 0 for c in constants)
            for position, operand in enumerate(value.operands):
                turns = value.op == "neg" or flipped or (value.op == "sub" and position == 1)
                stack.append((operand, -sign if turns else sign))
    return found


def index_bounds(roots: Iterable[Value], leaves: Sequence[Value]) -> dict[Value, int]:
    """For each integer leaf used as an index or class: the smallest number of things that it picks from."""
    bounds: dict[Value, int] = {}
    for value in cone(roots, leaves):
        picked = _picked(value)
        if picked is None:
            continue
        index, size = picked
        if isinstance(size, int):
            for leaf in _through_layout(index, leaves):
                bounds[leaf] = min(size, bounds.get(leaf, size))
    return bounds


def _picked(value: Value) -> tuple[Value, object] | None:
    """(integer operand, number of things it picks from) of a primitive that uses one."""
    if value.op == "gather":
        return value.operands[1], value.operands[0].shape[value.axes[0]]
    if value.op == "one_hot":
        return value.operands[0], value.attr("classes")
    if value.op in ("cross_entropy", "nll_loss") and not is_float(value.operands[1].dtype):
        shape = value.operands[0].shape
        return value.operands[1], shape[min(1, len(shape) - 1)]
    if value.op in ("eq", "ne"):
        for a, b in (value.operands, value.operands[::-1]):
            if any(v.op == "arange" for v in cone([b])):
                return a, next(v.shape[0] for v in cone([b]) if v.op == "arange")
    return None


def _through_layout(value: Value, leaves: Sequence[Value]) -> list[Value]:
    """The integer leaves that `value` is a rearrangement or a selection of."""
    passing = LAYOUT | {"cast", "where", "maximum", "minimum", "detach"}
    stack, found = [value], list[Value]()
    while stack:
        each = stack.pop()
        if each in leaves:
            if not is_float(each.dtype) and each.dtype != "bool":
                found.append(each)
        elif each.op in passing:
            stack.extend(each.operands)
    return found

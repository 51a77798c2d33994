"""One model with a known numerical defect: how to make it, where the defect stands, what shows that it is real.

A defective module marks the lines of its defect with `# defect`. A finding counts when it points at one of them and has
a code of the family; whatever is found elsewhere does not.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

Tensors: TypeAlias = tuple[Tensor, ...]
Change: TypeAlias = Callable[[Tensors], Tensors]

MARK = re.compile(r"#.*\bdefect\b")


@dataclass(frozen=True, eq=False)
class Defect:
    """A module with a defect.

    family: of the published studies. codes: of the rules that name it, or their beginnings. build: makes the module,
    with seeded weights. example: inputs of ordinary size, on which it works. breaking: makes of them inputs on which it
    fails. overflows: a finite number leaves the range of its format on the way, so that an error with a witness is
    demanded. gradient: it is the gradient that fails. weights: what fails are weights this many times as large, since
    the inputs are tokens. truth: what should come out, where running the module in float64 does not tell. ranges: of
    the inputs, where they are known. half: the module and its inputs are float16, and its weights do not train.
    no_onnx: why torch.onnx cannot write it.
    """

    name: str
    family: str
    codes: tuple[str, ...]
    build: Callable[[], nn.Module]
    example: Callable[[], Tensors]
    breaking: Change
    overflows: bool = False
    gradient: bool = False
    weights: float = 1.0
    truth: Callable[..., Tensor] | None = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    half: bool = False
    no_onnx: str = ""

    def module(self) -> nn.Module:
        """A fresh one, the same each time."""
        torch.manual_seed(0)
        module = self.build().eval()
        module = module.half() if self.half else module
        return module.requires_grad_(not self.half)

    def inputs(self) -> Tensors:
        """Of ordinary size, the same each time."""
        torch.manual_seed(1)
        given = self.example()
        return tuple(t.half() if self.half and t.dtype == torch.float32 else t for t in given)

    def broken(self) -> tuple[nn.Module, Tensors]:
        """The module with inputs (or weights) on which it fails."""
        module = self.module()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter *= self.weights
        torch.manual_seed(2)
        return module, self.breaking(self.inputs())

    @cached_property
    def source(self) -> tuple[list[str], int]:
        """Lines of the class from `class` on, and the number of the first."""
        lines, first = inspect.getsourcelines(self.build)
        above = next(i for i, line in enumerate(lines) if line.startswith("class "))
        return lines[above:], first + above

    @property
    def file(self) -> Path:
        return Path(inspect.getfile(self.build)).resolve()

    @property
    def lines(self) -> frozenset[int]:
        """Where the defect is."""
        text, first = self.source
        return frozenset(first + i for i, line in enumerate(text) if MARK.search(line))

    @property
    def exported(self) -> bool:
        """In ONNX as well: not slopes, which are computed elsewhere, nor what fails for other weights than it has."""
        return not (self.no_onnx or self.gradient or self.weights != 1.0)

    @property
    def stamp(self) -> str:
        """Changes when the class is edited: its exported graph is old then."""
        kept = (self.half, [(tuple(t.shape), str(t.dtype)) for t in self.inputs()])
        return hashlib.sha256(f"{''.join(self.source[0])}{kept}".encode()).hexdigest()[:16]


class Registry:
    """The defects of one file, in order: `@register("name", "family", "STB1", example=…)` before a class."""

    def __init__(self) -> None:
        self.defects: list[Defect] = []

    def __call__(
        self, name: str, family: str, *codes: str, **said: Any
    ) -> Callable[[type[nn.Module]], type[nn.Module]]:
        def keep(module: type[nn.Module]) -> type[nn.Module]:
            self.defects.append(Defect(name, family, codes, module, **said))
            return module

        return keep


# -- inputs ------------------------------------------------------------------------------------------------------------


def normal(*shape: int) -> Tensor:
    return torch.randn(shape)


def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    return torch.empty(shape).uniform_(low, high)


def shares(*shape: int) -> Tensor:
    """Rows that sum to one."""
    return torch.softmax(torch.randn(shape), -1)


def classes(*shape: int, below: int = 5) -> Tensor:
    return torch.randint(0, below, shape)


def bits(*shape: int) -> Tensor:
    return torch.randint(0, 2, shape).float()


def one_hot(rows: int, columns: int = 5) -> Tensor:
    return nn.functional.one_hot(classes(rows, below=columns), columns).float()


def causal(size: int) -> Tensor:
    return torch.ones(size, size).tril().bool()


# -- what breaks -------------------------------------------------------------------------------------------------------


def times(factor: float, *positions: int) -> Change:
    """The inputs at these positions (the first, if none are named) that many times as large."""
    chosen = positions or (0,)
    return lambda inputs: tuple(t * factor if i in chosen else t for i, t in enumerate(inputs))


def plus(term: float, *positions: int) -> Change:
    chosen = positions or (0,)
    return lambda inputs: tuple(t + term if i in chosen else t for i, t in enumerate(inputs))


def filled(value: float, *positions: int) -> Change:
    """One value everywhere."""
    chosen = positions or (0,)
    return lambda inputs: tuple(torch.full_like(t, value) if i in chosen else t for i, t in enumerate(inputs))


def one_entry(value: float, *positions: int) -> Change:
    """The first entry is that value."""
    chosen = positions or (0,)

    def changed(tensor: Tensor) -> Tensor:
        copy = tensor.clone()
        copy.view(-1)[0] = value
        return copy

    return lambda inputs: tuple(changed(t) if i in chosen else t for i, t in enumerate(inputs))


def same(inputs: Tensors) -> Tensors:
    return inputs


# -- what stands around a defect ---------------------------------------------------------------------------------------


class Mlp(nn.Module):
    """Two linear layers. `body` maps the last axis from 8 to `out`."""

    out = 5

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, self.out))


class Tokens(nn.Module):
    """An embedding of 20 tokens in 8 dimensions, and a head of `out`."""

    out = 20

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.head = nn.Linear(8, self.out)


class Attention(nn.Module):
    """Projections of 16 dimensions to two heads of 8."""

    heads, depth = 2, 8

    def __init__(self) -> None:
        super().__init__()
        width = self.heads * self.depth
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, self.depth)).transpose(-3, -2)

    def joined(self, x: Tensor) -> Tensor:
        return self.out(x.transpose(-3, -2).flatten(-2))

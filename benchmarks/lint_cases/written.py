"""What a defective ONNX graph is: its text, where the defect stands in it, what shows that it is real."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx.parser

Arrays: TypeAlias = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Written:
    """An ONNX graph with a defect. The fields are those of `Defect`.

    at: the values that the defective expression computes. text: without its first line, which `opset` gives, and
    without constants in float16 (`halves`), which ONNX's text form has no way to write.
    """

    name: str
    family: str
    codes: tuple[str, ...]
    text: str
    at: tuple[str, ...]
    example: Callable[[], Arrays]
    breaking: Callable[[Arrays], Arrays]
    overflows: bool = False
    truth: Callable[..., np.ndarray] | None = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    opset: int = 13
    functions: str = ""
    halves: Mapping[str, float] = field(default_factory=dict[str, float])

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The graph, checked."""
        local = ', "local" : 1' if self.functions else ""
        head = f'<ir_version: 8, opset_import: ["" : {self.opset}{local}]>\n'
        model = onnx.parser.parse_model(head + self.text.strip() + "\n" + self.functions)
        model.graph.initializer.extend(
            onnx.numpy_helper.from_array(np.array(x, np.float16), n) for n, x in self.halves.items()
        )
        onnx.checker.check_model(model)
        return model

    def inputs(self) -> dict[str, np.ndarray]:
        """Of ordinary size, the same each time."""
        return self._typed(self.example())

    def broken(self) -> dict[str, np.ndarray]:
        """Inputs on which it fails."""
        return self._typed(self.breaking(self.example()))

    def _typed(self, arrays: Arrays) -> dict[str, np.ndarray]:
        types = {i.name: i.type.tensor_type.elem_type for i in self.model.graph.input}
        return {n: np.asarray(a).astype(onnx.helper.tensor_dtype_to_np_dtype(types[n])) for n, a in arrays.items()}


class Texts:
    """The graphs of one file, in order."""

    def __init__(self) -> None:
        self.graphs: list[Written] = []

    def __call__(self, name: str, family: str, *codes: str, **said: Any) -> None:
        self.graphs.append(Written(name, family, codes, **said))


def normal(**shapes: tuple[int, ...]) -> Callable[[], Arrays]:
    """Standard normal numbers, the same each time."""

    def made() -> Arrays:
        random = np.random.default_rng(1)
        return {name: random.standard_normal(shape) for name, shape in shapes.items()}

    return made


def times(factor: float, *names: str) -> Callable[[Arrays], Arrays]:
    """These inputs (all, if none are named) that many times as large."""
    return lambda given: {n: a * factor if n in (names or given) else a for n, a in given.items()}


def filled(value: float, *names: str) -> Callable[[Arrays], Arrays]:
    """One value everywhere."""
    return lambda given: {n: np.full_like(a, value) if n in (names or given) else a for n, a in given.items()}


def plus(term: float, *names: str) -> Callable[[Arrays], Arrays]:
    return lambda given: {n: a + term if n in (names or given) else a for n, a in given.items()}


def with_(**arrays: Any) -> Callable[[Arrays], Arrays]:
    """These inputs instead."""
    return lambda given: {**given, **arrays}


def also(example: Callable[[], Arrays], **arrays: Any) -> Callable[[], Arrays]:
    """An example with more inputs."""
    return lambda: {**example(), **arrays}

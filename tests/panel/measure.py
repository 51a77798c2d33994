"""Judge one way of running a spelling in one format, over every input family of the spelling."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stabilize.formats import FORMATS
from tests.panel import hosts
from tests.panel.entry import Spelling
from tests.panel.inputs import generate
from tests.panel.judge import Expected, Verdict, expected, expected_gradients, judge

DTYPES = tuple(FORMATS)
Run = Callable[..., Tensor]


@dataclass(frozen=True)
class Outcome:
    """How a run did on one family: `what` is "value" or "gradient of argument i"."""

    family: str
    what: str
    verdict: Verdict

    def __str__(self) -> str:
        return f"{self.family}, {self.what}: {self.verdict.worst:.3g} ulps, {self.verdict.detail}"


@functools.lru_cache(maxsize=4096)
def truth(entry: Spelling, family: str, dtype: str, host: str) -> tuple[tuple[Tensor, ...], Expected]:
    """The inputs of a family and what the oracle says there."""
    inputs = generate(entry.inputs, family, dtype, entry.name)
    return inputs, expected(entry, inputs, dtype, host)


@functools.lru_cache(maxsize=4096)
def true_gradients(entry: Spelling, family: str, dtype: str, host: str) -> dict[int, Expected]:
    """The oracle's gradients on the inputs of a family."""
    return expected_gradients(entry, truth(entry, family, dtype, host)[0], dtype, host)


def outcomes(entry: Spelling, dtype: str, host: str, run: Run, *, gradients: bool = False) -> list[Outcome]:
    """Run and judge on every family of the entry; `gradients` judges those of losses too."""
    result: list[Outcome] = []
    for family in entry.families:
        inputs, want = truth(entry, family, dtype, host)
        if gradients and entry.loss:
            value, slopes = hosts.with_gradients(entry, run, inputs)
            for i, expectation in true_gradients(entry, family, dtype, host).items():
                verdict = judge(slopes[i], expectation, nan_is_free=True)
                result.append(Outcome(family, f"gradient of argument {i}", verdict))
        else:
            with torch.no_grad():
                value = run(*(t.clone() for t in inputs))
        result.append(Outcome(family, "value", judge(value, want)))
    return result


def failures(all_outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes outside the bound."""
    return [o for o in all_outcomes if not o.verdict.ok]


def share(entry: Spelling, parts: int, salt: str = "") -> int:
    """A stable number below `parts` for an entry: which slice of the cross product it falls in."""
    return zlib.crc32(f"{salt}{entry.name}".encode()) % parts

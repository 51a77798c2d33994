"""`stabilize.certify` of models with branches and loops: what is inside them runs in float64 too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._higher_order_ops import map as map_rows
from torch._higher_order_ops import scan, while_loop

import stabilize

X = torch.linspace(0.5, 3, 12).reshape(3, 4)


def rounded(z: torch.Tensor) -> torch.Tensor:
    """A softmax in bfloat16, which float64 tells from one in float32."""
    e = torch.exp(z.to(torch.bfloat16))
    return (e / e.sum(-1, keepdim=True)).float()


def naive(z: torch.Tensor) -> torch.Tensor:
    e = torch.exp(z)
    return e / e.sum(-1, keepdim=True)


def branch(inner: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> Any:
    return torch.cond(x.sum() > 0, inner, lambda x: x.clone(), (x,))


def loop(inner: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> Any:
    start = torch.zeros((), dtype=torch.int64)
    return while_loop(lambda i, x: i < 2, lambda i, x: (i + 1, inner(x)), (start, x))[1]


def scanned(inner: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> Any:
    return scan(lambda c, x: (c + inner(x), inner(x)), torch.zeros(4), x)


def mapped(inner: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> Any:
    return map_rows(inner, x)


class Model(torch.nn.Module):
    def __init__(self, kind: Callable[..., Any], inner: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.kind, self.inner = kind, inner

    def forward(self, x: torch.Tensor) -> Any:
        return self.kind(self.inner, x)


@pytest.mark.parametrize("kind", [branch, loop, scanned, mapped])
def test_the_inside_is_judged_in_float64(kind: Callable[..., Any]) -> None:
    narrow, wide = (torch.export.export(Model(kind, inner), (X,)) for inner in (rounded, naive))
    certificate = stabilize.certify(narrow, wide)
    assert certificate.accepted
    given = next(f for f in certificate.families if f.name == "given")
    assert given.before is not None
    assert given.after is not None
    assert given.before > 1000 > 20 > given.after
    assert not stabilize.certify(wide, narrow).accepted


@pytest.mark.parametrize("kind", [branch, loop, scanned, mapped])
def test_a_repair_inside_is_accepted(kind: Callable[..., Any]) -> None:
    program = torch.export.export(Model(kind, naive), (X,))
    certificate = stabilize.certify(program, stabilize.optimize(program), (100 * X,))
    assert certificate.accepted, certificate.reason
    assert sum(f.failed_before for f in certificate.families) > 0
    assert sum(f.failed_after for f in certificate.families) == 0

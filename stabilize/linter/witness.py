"""An input that was seen to break a model, or a part of it, in the runtime that will run it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

import torch

from stabilize.graph.host import Piece
from stabilize.verify.breakage import Kind

Scope: TypeAlias = Literal["model", "expression"]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Witness(Mapping[str, torch.Tensor]):
    """Tensors by name.

    scope: "model" when they are the inputs of the whole model, "expression" when they are values inside it, of which
    the defect is computed. outcome: what came out, in one line. kind: of the break. piece: what computes it from
    those values, as a model of its own. file: where it was saved.
    """

    tensors: Mapping[str, torch.Tensor]
    scope: Scope
    outcome: str
    kind: Kind
    piece: Piece | None = None
    file: str | None = None

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

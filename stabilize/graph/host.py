"""What every frontend offers to the pipeline: a view of a host graph, and a way to patch it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, Self

from stabilize.graph.value import Value
from stabilize.graph.view import Replacement, View

if TYPE_CHECKING:
    import torch


class Host(Protocol):
    """A host graph that has been read. The model it was read from is never modified."""

    @property
    def kind(self) -> str:
        """`"fx"` or `"onnx"`: whose operators and whose runtime."""
        ...

    @property
    def view(self) -> View:
        """The semantic view of the graph."""
        ...

    @property
    def outer_names(self) -> Collection[str]:
        """Inputs of a graph inside another that are values of the graph around it, under the same name."""
        ...

    def patched(self, replacements: Sequence[Replacement]) -> Self:
        """The host with `replacements` applied and dead code removed, read again; itself when there are none."""
        ...

    def bodies(self) -> Mapping[str, Host]:
        """The graphs inside this one (branches, loop bodies, functions, regions without gradients) by unique name.

        Each is a host of its own; what it takes from outside are inputs of its view. Their bodies are theirs.
        """
        ...

    def with_bodies(self, bodies: Mapping[str, Host]) -> Self:
        """The host with the `bodies` of these names, each a patched form of what `bodies()` gave."""
        ...

    def model(self) -> object:
        """The host graph as a model of the kind that was given."""
        ...

    def tensor(self, value: Value) -> torch.Tensor | None:
        """The data behind a leaf of the view (a weight, buffer or initializer), if the host holds it."""
        ...

    def refusal(self, replacement: Replacement) -> str | None:
        """Why `replacement` cannot be written in this host's operators; None when it can."""
        ...

"""What every frontend offers to the pipeline: a view of a host graph, and a way to patch it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self, final

from stabilize.graph.value import Value
from stabilize.graph.view import Replacement, View

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import fx


@final
@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a host graph as a model of its own, of the host's kind.

    inputs: the names of the host values that it takes, in order: those asked for, and inputs of the host besides.
    """

    model: fx.GraphModule | onnx.ModelProto
    inputs: tuple[str, ...]


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

    @property
    def examples(self) -> Mapping[str, torch.Tensor]:
        """The tensors that the host was captured with, by name of the input; none where it does not hold them."""
        ...

    @property
    def sizes(self) -> Mapping[str, int]:
        """Symbolic size → what it was when the host was made, as far as the host knows."""
        ...

    def piece(self, names: Sequence[str], targets: Sequence[str]) -> Piece:
        """What leads from the host values `names` to the host values `targets`, as a model of its own.

        ModelError when it does not stand by itself.
        """
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


def input_values(host: Host) -> dict[str, Value]:
    """The inputs of the model by name, without its parameters."""
    view = host.view
    return {
        n: v for n, v in view.bindings.items() if v.op == "input" and v.attr("name") == n and n not in view.parameters
    }

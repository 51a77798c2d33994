"""What is switched on where a graph runs: gradients, and autocast on each kind of device."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Self, cast, final

import torch
from torch import fx

from stabilize.frontends.fx_types import target_of


@final
@dataclass(frozen=True)
class Modes:
    """grad: whether results carry gradients. autocast: device type → the dtype that autocast prefers there."""

    grad: bool = True
    autocast: Mapping[str, torch.dtype] = field(default_factory=dict[str, torch.dtype])

    def with_autocast(self, device: str, dtype: torch.dtype | None, enabled: bool) -> Self:
        """Inside `torch.autocast(device, dtype, enabled)`."""
        others = {d: t for d, t in self.autocast.items() if d != device}
        if enabled:
            others[device] = dtype or torch.get_autocast_dtype(device)
        return replace(self, autocast=others)

    @classmethod
    def ambient(cls) -> Self:
        """What is switched on now."""
        on = {d: torch.get_autocast_dtype(d) for d in DEVICES if torch.is_autocast_enabled(d)}
        return cls(torch.is_grad_enabled(), on)

    @contextmanager
    def entered(self) -> Generator[None]:
        """Run something as it would run here."""
        with torch.set_grad_enabled(self.grad), self.autocasting():
            yield

    @contextmanager
    def autocasting(self) -> Generator[None]:
        """Autocast as it is here, for fake tensors as well: whether there is such a device does not matter."""
        cached = torch.is_autocast_cache_enabled()
        before = {d: (torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in DEVICES}
        try:
            torch.set_autocast_cache_enabled(False)
            for device in DEVICES:
                torch.set_autocast_enabled(device, device in self.autocast)
                if device in self.autocast:
                    torch.set_autocast_dtype(device, self.autocast[device])
            yield
        finally:
            torch.set_autocast_cache_enabled(cached)
            for device, (enabled, dtype) in before.items():
                torch.set_autocast_enabled(device, enabled)
                torch.set_autocast_dtype(device, dtype)


DEVICES = ("cpu", "cuda")


@final
class Switches:
    """Follows, node by node, the calls of a graph that switch gradients and autocast on and off."""

    def __init__(self, modes: Modes) -> None:
        self.modes = modes
        self._entered: dict[fx.Node, Modes] = {}

    def visit(self, node: fx.Node) -> bool:
        """Whether `node` is such a call; `modes` is then what holds after it."""
        match getattr(target_of(node), "__name__", ""):
            case "_set_grad_enabled":
                self.modes = replace(self.modes, grad=bool(node.args[0]))
            case "_enter_autocast":
                self._entered[node] = self.modes
                given: list[Any] = [*node.args, None, True]
                device, dtype, enabled = given[:3]
                self.modes = self.modes.with_autocast(device, dtype, bool(enabled))
            case "_exit_autocast":
                before = self._entered.get(cast(fx.Node, node.args[0]), Modes())
                self.modes = replace(self.modes, autocast=before.autocast)
            case _:
                return False
        return True


def modes_before(start: Modes, graph: fx.Graph) -> Iterator[Modes]:
    """What is switched on before each node of a graph, and after the last."""
    switches = Switches(start)
    yield start
    for node in graph.nodes:
        switches.visit(node)
        yield switches.modes

"""Optimized modules in several processes: DistributedDataParallel and fully_shard, in either order, on gloo."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import stabilize
from stabilize import dynamo

pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")


class Head(nn.Module):
    """Log-probabilities over logits of some hundreds."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 8)
        with torch.no_grad():
            self.last.weight.copy_(torch.eye(8) * 300)

    def forward(self, x: Tensor) -> Tensor:
        e = torch.exp(self.last(torch.tanh(self.first(x)) + x))
        return torch.log(e / e.sum(-1, keepdim=True))


class Stable(Head):
    def forward(self, x: Tensor) -> Tensor:
        return torch.log_softmax(self.last(torch.tanh(self.first(x)) + x), -1)


def made(kind: type[Head] = Head) -> Head:
    torch.manual_seed(0)
    return kind()


def captured(model: nn.Module) -> nn.Module:
    return stabilize.optimize(model, (torch.zeros(4, 8),))


def sharded(model: nn.Module, *parts: str) -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
    for part in parts:
        fully_shard(model.get_submodule(part), mesh=mesh)
    return fully_shard(model, mesh=mesh)


def through_dynamo(model: nn.Module) -> nn.Module:
    model.compile(backend=dynamo.stabilize)
    return model


WAYS: dict[str, Callable[[], nn.Module]] = {
    "captured, DDP": lambda: DistributedDataParallel(captured(made())),
    "lazy, DDP": lambda: DistributedDataParallel(stabilize.optimize(made())),
    "DDP, lazy": lambda: stabilize.optimize(DistributedDataParallel(made())),
    "captured, sharded": lambda: sharded(captured(made())),
    "lazy, sharded": lambda: sharded(stabilize.optimize(made())),
    "captured, sharded by layer": lambda: sharded(captured(made()), "first", "last"),
    "lazy, sharded by layer": lambda: sharded(stabilize.optimize(made()), "first", "last"),
    "sharded by layer, lazy": lambda: stabilize.optimize(sharded(made(), "first", "last")),
    "sharded by layer, backend": lambda: through_dynamo(sharded(made(), "first", "last")),
}


def gradients(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    model(x)[:, 0].sum().backward()
    whole: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        gradient: Any = parameter.grad
        assert gradient is not None, name
        whole[name.removeprefix("module.")] = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
    return whole


def work(rank: int, world: int, port: int) -> None:
    """One process: every way gives the mean over the processes of the gradients of the stable model.

    A logit of up to 1500 carries 1500·2⁻²⁴, some 2⁻¹³, absolute; this is the relative error of a probability, and a
    gradient sums eight of them.
    """
    with _group(rank, world, port):
        xs = torch.randn(world, 4, 8, generator=torch.Generator().manual_seed(1))
        reference = made(Stable).double()
        (reference(xs.flatten(0, 1).double())[:, 0].sum() / world).backward()
        wanted: dict[str, Any] = {name: parameter.grad.float() for name, parameter in reference.named_parameters()}
        for way, make in WAYS.items():
            torch._dynamo.reset()
            actual = gradients(make(), xs[rank])
            for name, gradient in actual.items():
                bound = 2**-10 * float(wanted[name].abs().max())
                torch.testing.assert_close(
                    gradient, wanted[name], rtol=0, atol=bound, msg=lambda m, w=way, n=name: f"{w}, {n}: {m}"
                )
        for wrap in (DistributedDataParallel, sharded):
            with pytest.raises(stabilize.ModelError, match="optimize the module first, then wrap it"):
                captured(wrap(made()))


@contextmanager
def _group(rank: int, world: int, port: int) -> Iterator[None]:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*runs as written")
            yield
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("world", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_gradients_of_every_way_to_wrap(world: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(work, (world, port), nprocs=world)

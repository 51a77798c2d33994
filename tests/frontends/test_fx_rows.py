"""Every row of the reading table against eager PyTorch: the value it builds computes what the operator computes."""

from __future__ import annotations

import pytest
import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from stabilize.frontends.fx_program import Leaf, own_program
from stabilize.frontends.fx_read import read
from stabilize.frontends.fx_table import READ
from stabilize.frontends.fx_types import aten
from stabilize.graph.value import Value, cone
from stabilize.verify.execute import execute
from tests.frontends.fx_cases import CASES, Case


def _read_call(key: str, case: Case) -> tuple[list[Value | None], dict[Value, torch.Tensor], list[torch.Tensor]]:
    """(values of the results, leaves of the view, eager results) of one operator call."""
    mode = FakeTensorMode()
    graph = fx.Graph()
    tensors: list[tuple[fx.Node, torch.Tensor]] = []

    def lift(argument: object) -> object:
        if not isinstance(argument, torch.Tensor):
            return argument
        node = graph.placeholder(f"t{len(tensors)}")
        node.meta["val"] = mode.from_tensor(argument)
        tensors.append((node, argument))
        return node

    args, kwargs = pytree.tree_map(lift, case)
    eager = aten(key)(*case[0], **case[1])
    with mode:
        fake_args, fake_kwargs = pytree.tree_map_only(fx.Node, lambda n: n.meta["val"], (args, kwargs))
        fake = aten(key)(*fake_args, **fake_kwargs)
    call = graph.call_function(aten(key), args, kwargs)
    call.meta["val"] = fake
    results = list(eager) if isinstance(eager, (list, tuple)) else [eager]
    nodes = [call]
    if isinstance(eager, (list, tuple)):
        nodes = []
        for i, part in enumerate(fake):
            node = graph.call_function(__import__("operator").getitem, (call, i))
            node.meta["val"] = part
            nodes.append(node)
    graph.output(tuple(nodes))
    # index arguments are constants of the program, so that ranges are seen as ranges
    leaves = {n: Leaf(n.name, t, True, constant=not t.is_floating_point()) for n, t in tensors}
    view = read(own_program(graph, leaves)).view
    given = {view.bindings[n.name]: t for n, t in tensors if view.bindings[n.name].op == "input"}
    return [view.bindings.get(n.name) for n in nodes], given, results


def test_every_row_has_a_case() -> None:
    assert sorted(CASES) == sorted(READ)


@pytest.mark.parametrize(("key", "case"), [(k, c) for k, cases in CASES.items() for c in cases])
def test_row_computes_what_the_operator_computes(key: str, case: Case) -> None:
    values, leaves, eager = _read_call(key, case)
    compared = 0
    for value, expected in zip(values, eager, strict=True):
        assert value is not None
        if value.op == "opaque":
            assert (key, value.attr("output")) == ("min.dim", 1)  # the index of a minimum has no primitive
            continue
        assert not any(v.op == "opaque" for v in cone([value]))
        (actual,) = execute([value], leaves)
        torch.testing.assert_close(
            actual, expected, equal_nan=True, rtol=_tolerance(expected), atol=_tolerance(expected)
        )
        compared += 1
    assert compared


def _tolerance(expected: torch.Tensor) -> float:
    return {torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float32: 2e-6, torch.float64: 2e-7}.get(
        expected.dtype, 0.0
    )

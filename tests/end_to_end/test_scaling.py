"""Rewriting costs as much per node in a large graph as in a small one.

Counted in calls of Python functions, which are the same on every machine; `benchmarks/scaling.py` has the times.
"""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Callable
from functools import partial

import onnx
import pytest
import torch

import stabilize
from tests.towers import onnx_tower, tower


def calls(work: Callable[[], object]) -> int:
    """How many functions `work` calls."""
    profile = cProfile.Profile()
    profile.runcall(work)
    return pstats.Stats(profile).total_calls  # type: ignore[attr-defined, no-any-return]


def graph(host: str, nodes: int) -> tuple[int, torch.export.ExportedProgram | onnx.ModelProto]:
    """(number of nodes, model)"""
    if host == "onnx":
        model = onnx_tower(nodes)
        return len(model.graph.node), model
    module, x = tower(nodes)
    exported = torch.export.export(module, (x,))
    return len(exported.graph.nodes), exported


@pytest.mark.parametrize("host", ["fx", "onnx"])
def test_a_node_costs_the_same_in_a_large_graph(host: str) -> None:
    cost: dict[int, int] = {}
    for nodes in (100, 600, 1200, 2400):  # the first one pays for what is loaded once
        count, model = graph(host, nodes)
        cost[count] = calls(partial(stabilize.optimize, model, certify=False))
    (a, calls_a), (b, calls_b), (c, calls_c) = list(cost.items())[1:]
    # short sums (a residual stream's first blocks) are read further than long ones: hence not 1.00
    assert (calls_c - calls_b) / (c - b) <= 1.04 * (calls_b - calls_a) / (b - a)

"""Every primitive against every interpretation of the vocabulary: what is missing, and why that is right.

Adding a primitive means writing its interpretations, one in each table. This test computes the table of gaps and
compares it with the one below, so a primitive that was forgotten somewhere fails with the names of both.
Whether a frontend reads a primitive is measured: it is written by that frontend's own emission and read back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import pytest
import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from stabilize.frontends.fx import open_graph_module
from stabilize.frontends.fx_emit import EMIT
from stabilize.frontends.fx_types import TORCH_DTYPES
from stabilize.frontends.onnx import open_onnx
from stabilize.frontends.onnx_emit import ROWS
from stabilize.graph.build import Builder
from stabilize.graph.ops import VOCABULARY
from stabilize.graph.text import parse
from stabilize.graph.value import TensorType, Value, cone
from stabilize.graph.view import Replacement
from stabilize.passes.ranges import RANGE
from stabilize.passes.scaled import LINEAR, SCALED
from stabilize.verify.execute import EXECUTE
from stabilize.verify.oracle import ORACLE
from tests.frontends.onnx_support import program
from tests.strategies import rebuild
from tests.verify.examples import EXAMPLES, HEADER

#: What a word in the table of gaps means.
REASONS = {
    "leaf": "it has no operands: the host holds its value",
    "boolean": "its values are true and false, which the engine keeps as conditions",
    "integer": "its values are indices",
    "atom": "the engine treats it as an unknown: exp and log do not commute with it in a way that cancels",
    "fused": "it is a stable form already, and where rewriting ends",
    "no-operator": "the host has no operator for it, and no accurate spelling in others",
    "stored": "the host writes it down as data",
    "spelled": "the host spells it in other primitives, and is read as those",
}

_BOOLEAN = ("all", "and", "any", "eq", "ge", "gt", "isnan", "le", "lt", "ne", "not", "one_hot", "or")


def _each(reason: str, *primitives: str) -> dict[str, str]:
    return dict.fromkeys(primitives, reason)


#: Interpretation → primitive that it lacks → the reason.
GAPS: dict[str, dict[str, str]] = {
    "type": {},
    "scaled": {
        **_each("leaf", "input", "opaque", "arange"),
        **_each("boolean", *_BOOLEAN),
        **_each("integer", "argmax", "topk_indices"),
        **_each(
            "atom", "cos", "sin", "erf", "erfc", "floor", "sign", "relu", "tanh", "expm1", "xlogy", "min", "asin",
            "acos", "atan", "sinh", "asinh", "acosh", "atanh", "erfcx", "log_ndtr", "erfinv", "ndtri",
        ),
        **_each("fused", "attention", "bce_with_logits", "cross_entropy", "nll_loss", "layer_norm", "rms_norm"),
    },
    "interval": {
        **_each("leaf", "input", "opaque"),
        **_each("boolean", *_BOOLEAN),
        **_each("integer", "argmax", "topk_indices"),
    },
    "execute": {},
    "oracle": {},
    "fx emission": _each("leaf", "input", "opaque"),
    "fx reading": _each("spelled", "one_hot"),
    "onnx emission": {**_each("leaf", "input", "opaque"), **_each("no-operator", "erfinv", "ndtri")},
    "onnx reading": {
        **_each("stored", "arange"),
        **_each(
            "spelled", "all", "any", "attention", "bce_with_logits", "detach", "log_sigmoid", "logcumsumexp", "one_hot",
        ),
    },
}  # fmt: skip


#: In place of examples that hosts have no operator for, because of their parameters, or that simplify away.
_PLAINER = {
    "cross_entropy": "cross_entropy(x, y, w, reduction='mean', ignore_index=1, label_smoothing=0.0)",
    "squeeze": "squeeze(max(x, axes=(1,), keepdim=True), axes=(1,))",
}


def _operators(root: Value) -> frozenset[str]:
    return frozenset(v.op for v in cone([root]))


def _example(primitive: str) -> Value:
    """The example of `primitive` in float32, the format every host has kernels for."""
    text = _PLAINER.get(primitive, EXAMPLES[primitive])
    return parse((HEADER + text).replace("float64", "float32")).outputs[0]


def _inputs(root: Value) -> dict[str, Value]:
    return {str(v.attr("name")): v for v in cone([root]) if v.op == "input"}


def _through_fx(root: Value) -> frozenset[str]:
    """What is read of the graph module that computes `root`."""
    mode, graph, leaves = FakeTensorMode(), fx.Graph(), _inputs(root)
    types = {**{n: v.type for n, v in leaves.items()}, "slot": root.type}
    for name, type in types.items():
        sizes = [d for d in type.shape if isinstance(d, int)]
        tensor = torch.zeros(sizes, dtype=TORCH_DTYPES[type.dtype])
        graph.placeholder(name).meta["val"] = mode.from_tensor(tensor)
    slot = list(graph.nodes)[-1]
    copied = graph.call_function(torch.ops.aten.clone.default, (slot,))
    copied.meta["val"] = slot.meta["val"]
    graph.output(copied)
    host = open_graph_module(fx.GraphModule(nn.Module(), graph))
    bound = host.view.bindings
    (value,) = rebuild(host.view.builder, [root], {v: bound[n] for n, v in leaves.items()})
    patched = host.patched([Replacement(bound["slot"], value)]).model()
    return _operators(open_graph_module(patched).view.outputs[0])


def _through_onnx(root: Value) -> frozenset[str]:
    """What is read of the ONNX model (in the opset that has the most operators) that computes `root`."""
    leaves = _inputs(root)

    def function(builder: Builder, *inputs: Value) -> Value:
        return rebuild(builder, [root], dict(zip(leaves.values(), inputs, strict=True)))[0]

    types: dict[str, TensorType] = {f"in_{name}": leaf.type for name, leaf in leaves.items()}  # "y" is the output
    return _operators(open_onnx(program(function, types, opset=26)).view.outputs[0])


def _not_read(emitted: set[str], through: Callable[[Value], frozenset[str]]) -> set[str]:
    """The primitives that do not come back as themselves; those that cannot be written are the writer's gap."""
    return {name for name in emitted if name not in through(_example(name))}


@cache
def missing() -> dict[str, frozenset[str]]:
    """Interpretation → primitives that it lacks."""
    every = set(VOCABULARY)
    lacking = {
        "type": {name for name, row in VOCABULARY.items() if not callable(row.infer)},
        "scaled": every - set(LINEAR) - set(SCALED),
        "interval": every - set(RANGE),
        "execute": every - set(EXECUTE),
        "oracle": every - set(ORACLE),
        "fx emission": every - set(EMIT),
        "fx reading": _not_read(every & set(EMIT), _through_fx),
        "onnx emission": every - set(ROWS),
        "onnx reading": _not_read(every & set(ROWS), _through_onnx),
    }
    return {name: frozenset(gaps) for name, gaps in lacking.items()}


def _table(columns: dict[str, set[str]]) -> str:
    return "".join(f"\n  {name}: {', '.join(sorted(gaps))}" for name, gaps in columns.items() if gaps)


def test_each_primitive_has_its_interpretations() -> None:
    computed = missing()
    forgotten = _table({name: set(gaps) - set(GAPS[name]) for name, gaps in computed.items()})
    filled = _table({name: set(GAPS[name]) - set(gaps) for name, gaps in computed.items()})
    assert not forgotten, f"missing, and no reason is known:{forgotten}"
    assert not filled, f"no longer missing, take it out of GAPS:{filled}"


def test_no_table_interprets_what_is_not_in_the_vocabulary() -> None:
    tables: dict[str, Mapping[str, object]] = {
        "scaled": SCALED,
        "linear": LINEAR,
        "interval": RANGE,
        "execute": EXECUTE,
        "oracle": ORACLE,
    }
    tables |= {"execute": EXECUTE, "oracle": ORACLE, "fx emission": EMIT, "onnx emission": ROWS}
    unknown = _table({name: set(table) - set(VOCABULARY) for name, table in tables.items()})
    assert not unknown, f"not primitives:{unknown}"


def test_each_gap_has_a_known_reason() -> None:
    used = {reason for gaps in GAPS.values() for reason in gaps.values()}
    assert used == set(REASONS)


@pytest.mark.parametrize("primitive", sorted(VOCABULARY))
def test_each_primitive_has_an_example_that_uses_it(primitive: str) -> None:
    if primitive != "opaque":  # made by frontends only
        assert primitive in _operators(_example(primitive))

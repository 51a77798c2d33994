"""STB801: what stood between a model and a pole, and is gone from the ONNX model that was exported from it.

A `torch.onnx.ONNXProgram` holds both the program that was exported and what became of it. The exporter names values
after the nodes that they come from, so that each guard is looked for under its name, and, since fusions put it into an
attribute, wherever its number is added or multiplied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, cast, final

import onnx_ir as ir
import torch
from torch import fx
from torch.export import ExportedProgram

from stabilize.frontends.fx_types import operator_key, source_of
from stabilize.graph.view import Source
from stabilize.passes.hazards.guard_lost_in_export import RULE
from stabilize.records import Finding

_SUMS: Final = frozenset({"Add", "Sub"})
_PRODUCTS: Final = frozenset({"Mul", "Div"})
#: ATen operator → (its sign, the number that would change nothing, the ONNX operators that do the same).
_GUARDING: Final = {
    "add": ("+", 0.0, _SUMS),
    "sub": ("-", 0.0, _SUMS),
    "mul": ("*", 1.0, _PRODUCTS),
    "div": ("/", 1.0, _PRODUCTS),
}
#: The formats of what an attribute, which is a float32, may have come from.
_FLOATS: Final = (torch.float32, torch.float16, torch.bfloat16)
#: How far from 0, or from 1, a number may be that is taken for a guard.
_SMALL: Final = 1e-4
#: Where a finding of an earlier run is kept: a rewritten model may hold a guard in another form.
_TOLD: Final = "stabilize.lost_guards"


@final
@dataclass(frozen=True, slots=True)
class _Guard:
    """number: as the model's format has it. operators: of ONNX, that would keep it."""

    node: fx.Node
    sign: str
    number: float
    operators: frozenset[str]

    @property
    def key(self) -> tuple[frozenset[str], float]:
        return self.operators, self.number


def lost_guards(program: torch.onnx.ONNXProgram) -> list[Finding]:
    """A finding for each guard of the exported program that the ONNX model does not have, in the program's order."""
    told = cast("dict[str, list[Finding]]", program.model.meta).get(_TOLD)
    if told is not None:
        return told
    exported = program.exported_program
    return [] if exported is None else [_finding(guard) for guard in _lost(exported, program.model)]


def remember(program: torch.onnx.ONNXProgram, found: list[Finding]) -> None:
    """Let later runs on `program`, which was rewritten, say the same."""
    cast("dict[str, list[Finding]]", program.model.meta)[_TOLD] = found


def _lost(exported: ExportedProgram, model: ir.Model) -> list[_Guard]:
    guards = list(_guards(exported.graph))
    if not guards:
        return []
    uses, made_by = _uses(model)
    missing: list[_Guard] = []
    for guard in guards:
        node = made_by.get(guard.node.name)
        if node is not None and node.op_type in guard.operators and guard.number in _numbers(node):
            uses[guard.key] -= 1
        else:
            missing.append(guard)
    for node in exported.graph.nodes:  # epsilons that were attributes from the beginning
        if "norm" in (operator_key(node.target) or ""):
            for number in {_rounded(a, node) for a in node.args if isinstance(a, float)}:
                uses[_SUMS, number] -= 1
    wanted = Counter(guard.key for guard in missing)
    return [guard for guard in missing if uses[guard.key] < wanted[guard.key]]


def _guards(graph: fx.Graph) -> Iterator[_Guard]:
    """One for each expression: what is computed twice may be computed once in the exported model."""
    known: dict[str, int] = {}
    index: dict[fx.Node, int] = {}
    for node in graph.nodes:
        key = node.name
        if node.op == "call_function":
            args = fx.map_arg(node.args, lambda used: ("node", index[used]))
            key = repr((str(node.target), args, node.kwargs))
        guard = _guard(node) if key not in known else None
        index[node] = known.setdefault(key, len(known))
        if guard is not None:
            yield guard


def _guard(node: fx.Node) -> _Guard | None:
    row = _GUARDING.get((operator_key(node.target) or "").partition(".")[0])
    if row is None or len(node.args) != 2 or node.kwargs or not isinstance(node.args[1], float):
        return None
    sign, neutral, operators = row
    number = _rounded(node.args[1], node)
    if number == neutral or not abs(number - neutral) <= _SMALL:
        return None  # 1e-9 is 0 in float16: nothing is lost that was there
    return _Guard(node, sign, number, operators)


def _rounded(number: float, node: fx.Node) -> float:
    """In the format of what a node gives."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return number
    return float(torch.tensor(number, dtype=torch.float64).to(value.dtype))


def _uses(model: ir.Model) -> tuple[Counter[tuple[frozenset[str], float]], dict[str, ir.Node]]:
    """How often each number is added or subtracted, multiplied or divided by; what makes each value, by its name."""
    uses: Counter[tuple[frozenset[str], float]] = Counter()
    made_by: dict[str, ir.Node] = {}
    functions = (node for function in model.functions.values() for node in function.all_nodes())
    for node in (*model.graph.all_nodes(), *functions):
        made_by |= {output.name: node for output in node.outputs if output.name}
        for operators in (_SUMS, _PRODUCTS):
            if node.op_type in operators:
                uses.update((operators, number) for number in _numbers(node))
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.FLOAT and not attribute.is_ref():
                uses.update(
                    (_SUMS, number) for number in {float(torch.tensor(attribute.as_float(), dtype=f)) for f in _FLOATS}
                )
    return uses, made_by


def _numbers(node: ir.Node) -> list[float]:
    """The single floats that a node computes with."""
    tensors = [ir.convenience.get_const_tensor(value) for value in node.inputs if value is not None]
    return [float(t.numpy().item()) for t in tensors if t is not None and t.size == 1 and t.dtype.is_floating_point()]


def _finding(guard: _Guard) -> Finding:
    number, node = cast(float, guard.node.args[1]), guard.node
    source = source_of(node) or Source()
    text = f"{node.args[0]} {guard.sign} {number!r}"
    message = (
        f"{text} is {node.args[0]} in the exported model: the exporter's optimizer takes the number for "
        f"{round(guard.number)}. Export with stabilize.export_onnx"
    )
    return Finding(
        RULE.code, RULE.name, RULE.severity, message, node.name, source.module, source.file, source.line, text
    )

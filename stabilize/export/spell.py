"""Writes operators that `torch.onnx.export` lowers naively in operators that it translates one to one.

log1p becomes Log of a sum there, log_sigmoid Log of Sigmoid, expm1, elu and erfc differences that cancel, label
smoothing is dropped; Sigmoid is a single operator, whose kernel loses its tail. The spellings are those of the ONNX
emitter, which the ONNX reader folds back: what is exported is read as what it was.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import fx
from torch.export import ExportedProgram

from stabilize.frontends.fx import open_exported
from stabilize.frontends.onnx_emitter import CannotEmit
from stabilize.frontends.onnx_runtimes import Runtime
from stabilize.frontends.onnx_spell import is_spelled, spelled
from stabilize.graph.build import Builder
from stabilize.graph.host import Host
from stabilize.graph.value import Value
from stabilize.graph.view import Replacement


def written_out(program: ExportedProgram, runtime: Runtime) -> ExportedProgram:
    """`program` with those operators written out, in its branches and loop bodies too; itself when it has none.

    What cannot be written out (its reading or its place in the graph does not allow it) is left to the exporter.
    """
    host = open_exported(program)
    return host.patched(_replacements(host, runtime)).with_bodies(_bodies(host, runtime)).model()


def inner_names(before: ExportedProgram, after: ExportedProgram) -> set[str]:
    """The nodes of `after` that only other nodes of the same written operator use."""
    known = {node.name for node in before.graph.nodes}
    new = {node.name: node for node in after.graph.nodes if node.name not in known}

    def place(node: fx.Node) -> tuple[object, object]:
        return node.meta.get("stack_trace"), str(node.meta.get("nn_module_stack"))

    return {name for name, node in new.items() if all(u.name in new and place(u) == place(node) for u in node.users)}


def _bodies(host: Host, runtime: Runtime) -> dict[str, Host]:
    return {name: _body(body, runtime) for name, body in host.bodies().items()}


def _body(host: Host, runtime: Runtime) -> Host:
    return host.patched(_replacements(host, runtime)).with_bodies(_bodies(host, runtime))


def _replacements(host: Host, runtime: Runtime) -> list[Replacement]:
    view = host.view
    held = set(view.bindings.values())
    found: list[Replacement] = []
    for value in held:
        new = _spelling(view.builder, value, held, runtime)
        replacement = Replacement(value, new)
        if new is not value and host.refusal(replacement) is None:
            found.append(replacement)
    return sorted(found, key=lambda r: r.old.index)


def _spelling(builder: Builder, value: Value, held: Collection[Value], runtime: Runtime) -> Value:
    """`value` in spelled primitives, computed from what the host holds."""
    own = _own(value, held)
    if not any(is_spelled(v, runtime) for v in own):
        return value
    made: dict[Value, Value] = {}
    for v in own:
        if v.op in ("input", "opaque", "constant"):
            continue
        operands = [made.get(o, o) for o in v.operands]
        try:
            made[v] = spelled(builder, builder.make(v.op, *operands, **dict(v.attrs)), runtime)
        except CannotEmit:
            return value
    return made.get(value, value)


def _own(root: Value, held: Collection[Value]) -> list[Value]:
    """`root` and what is computed for it alone: not what the host holds; topological order."""
    seen: dict[int, Value] = {root.index: root}
    stack = [root]
    while stack:
        for operand in stack.pop().operands:
            if operand.index not in seen and operand not in held:
                seen[operand.index] = operand
                stack.append(operand)
    return [seen[i] for i in sorted(seen)]

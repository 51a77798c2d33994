"""Operators of an ONNX model that its runtime computes badly, written in others: one step of a run, after the rewrites.

The view is the same before and after; what is judged is what the runtime computes from the node alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar, cast

import torch

from stabilize.errors import MissingExtraError, ModelError
from stabilize.frontends.onnx import OnnxHost, open_onnx
from stabilize.graph.host import Host
from stabilize.graph.text import one_line
from stabilize.graph.value import Value, cone
from stabilize.graph.view import Replacement
from stabilize.passes.coarse_operator import RULE
from stabilize.records import Finding
from stabilize.report import Report
from stabilize.scribe import Scribe
from stabilize.verify.certificate import Certificate
from stabilize.verify.kernels import Kernel, certify_kernels

if TYPE_CHECKING:
    import onnx

    from stabilize.frontends.onnx_coarse import Coarse
    from stabilize.frontends.onnx_run import OnnxRunner

_Host = TypeVar("_Host", bound=Host)


def respelled(host: _Host, model: str, *, certify: bool) -> tuple[_Host, Report]:
    """`host` with what its runtime computes badly written in other operators; itself when there is nothing."""
    report = Report(model)
    found = host.coarse() if isinstance(host, OnnxHost) else {}
    if not isinstance(host, OnnxHost) or not found:
        return host, report
    scribe, decided = Scribe(host.view), dict[str, Certificate | None]()
    accepted: list[Value] = []
    for value, coarse in found.items():
        message = f"{_TOLD[host.runtime.name]} has no good kernel for {coarse.op_type} in {value.dtype}"
        proposal = RULE.proposal(value, value, message=message)
        key = _question(host, value, coarse)
        if certify and key not in decided:
            decided[key] = _certificate(host, coarse)
        certificate = decided.get(key)
        if certify and certificate is None:
            continue  # the version that is installed does better than the one that was measured
        fixable = certificate is None or certificate.accepted
        text = one_line(value, {host.view.bindings[n]: n for n in coarse.given})
        naive, stable = f"{text} by {coarse.op_type}", f"{text} by {', '.join(coarse.instead)}"
        finding = scribe.finding(proposal, value, fixable=fixable)
        report.findings.append(replace(finding, naive=naive, stable=stable))
        if fixable:
            rewrite = scribe.rewrite(proposal, value, certificate)
            report.rewrites.append(replace(rewrite, naive=naive, stable=stable))
            accepted.append(value)
        else:
            assert certificate is not None
            report.declined.append(scribe.declined(proposal, certificate.reason or "worse than the operator"))
    return cast("_Host", host.patched([Replacement(v, v) for v in accepted])), report


def coarse_findings(host: Host, model: str) -> list[Finding]:
    """What would be written in other operators, in a host graph and the graphs inside it; nothing is changed."""
    report = respelled(host, model, certify=True)[1]
    for name, body in host.bodies().items() if isinstance(host, OnnxHost) and host.runtime.is_measured else ():
        report.extend(Report(model, coarse_findings(body, model)).within(name))
    return report.findings


_TOLD = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


def _question(host: OnnxHost, value: Value, coarse: Coarse) -> str:
    """Nodes of one operator, types and sizes are judged once."""
    leaves: dict[Value, str] = {}
    for i, name in enumerate(coarse.given):
        leaf = host.view.bindings[name]
        sizes = ["n" if isinstance(d, str) else str(d) for d in leaf.shape]
        leaves[leaf] = f"x{i}: {leaf.dtype}[{', '.join(sizes)}]"
    return f"{coarse.op_type} as {one_line(value, leaves)}"


def _certificate(host: OnnxHost, coarse: Coarse) -> Certificate | None:
    """Of one node; None where nothing is wrong with it."""
    try:
        piece = host.piece(coarse.given, [coarse.name])
        before = cast("onnx.ModelProto", piece.model)
        small = open_onnx(before, host.runtime)
        value = small.view.bindings[coarse.name]
        if value.op == "opaque":
            raise ModelError(f"{coarse.name} cannot be judged by itself")
        return _judged(small, value, piece.inputs)
    except (ModelError, MissingExtraError) as error:
        return Certificate(False, str(error), "arb", ())


def _judged(small: OnnxHost, value: Value, names: Sequence[str]) -> Certificate | None:
    """Both run in ONNX Runtime; the operator only where that is the runtime, and has a kernel for it."""
    from stabilize.frontends.onnx_run import OnnxRunner

    runners = [
        OnnxRunner(cast("onnx.ModelProto", each.model()), "the operator")
        for each in (small, small.patched([Replacement(value, value)]))
    ]
    of_cone = set(cone([value]))
    used = [name for name in names if small.view.bindings[name] in of_cone]
    leaves = [small.view.bindings[name] for name in used]
    own = small.runtime.name == "onnxruntime" and runners[0].in_runtime
    return certify_kernels(value, leaves, _kernel(runners[0], used) if own else None, _kernel(runners[1], used))


def _kernel(runner: OnnxRunner, names: Sequence[str]) -> Kernel:
    def run(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        return runner.run(dict(zip(names, tensors, strict=True)))[0]

    return run

"""One model of the zoo through `stabilize.optimize`: what was found and done, and whether the outputs are right."""

from __future__ import annotations

import functools
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from zoo_models import by_name
from zoo_models.entry import Case, Entry, Inputs
from zoo_run import Tensors, difference, in_float64, lost, run, same, slopes_too

import stabilize
from stabilize.report import Report


def measured(name: str, onnx: bool) -> dict[str, Any]:
    """Every column of the table for one model, or `{"failed": why}`."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    entry = by_name(name)
    try:
        record = measure_onnx(entry) if onnx else measure(entry)
    except Exception as error:
        return {"failed": _line(error), "trace": traceback.format_exc()}
    return record


def _line(error: Exception) -> str:
    """The kind of an error and the first line of its message."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"


def measure(entry: Entry) -> dict[str, Any]:
    """One model in PyTorch: by torch.export, or by torch.compile when it is known to be refused."""
    case = made(entry)
    if entry.refused is None:
        return captured(case)
    try:
        captured(case)
    except stabilize.ModelError as error:
        if entry.refused not in str(error):
            raise
        torch.compiler.reset()
        return {**compiled(made(entry)), "refused": _line(error)}
    raise AssertionError(f"torch.export takes it now; it was refused for {entry.refused!r}")


def captured(case: Case) -> dict[str, Any]:
    """As `stabilize.optimize(model, inputs)` does it."""
    with exporting() as export:
        start = time.perf_counter()
        fixed, report = stabilize.optimize(case.module, case.inputs, return_report=True)
        total = time.perf_counter() - start
    return {
        "nodes": export.nodes,
        "export_seconds": export.seconds,
        "optimize_seconds": total - export.seconds,
        **reported([report]),
        "unchanged": fixed is case.module,
        **judged(case, fixed),
    }


def compiled(case: Case) -> dict[str, Any]:
    """As `torch.compile(model, backend="stabilize")` does it, graph by graph, on the ordinary inputs."""
    from stabilize.dynamo import stabilize as backend

    reports: list[Report] = []
    nodes: list[int] = []

    def counted(graph: torch.fx.GraphModule, inputs: Sequence[object]) -> Callable[..., Any]:
        nodes.append(len(graph.graph.nodes))
        return backend(graph, inputs, options={"report": reports.append})

    fixed = torch.compile(case.module, backend=counted)
    start = time.perf_counter()
    run(fixed, case.inputs)
    seconds = time.perf_counter() - start
    if len(reports) < len(nodes):
        raise AssertionError(f"{len(nodes) - len(reports)} of {len(nodes)} graphs of torch.compile ran as written")
    return {
        "nodes": sum(nodes),
        "graphs": len(nodes),
        "compile_seconds": seconds,
        **reported(reports),
        "unchanged": not any(report.rewrites for report in reports),
        **judged(case, fixed),
    }


def judged(case: Case, fixed: nn.Module) -> dict[str, Any]:
    """The outputs before and after."""
    before, after = run(case.module, case.inputs), run(fixed, case.inputs)
    record: dict[str, Any] = {"identical": same(before, after)}
    if not record["identical"]:
        record |= errors(case, before, after)
    if fixed is not case.module and not hasattr(fixed, "_orig_mod"):
        record |= certificate(case.module, fixed, case.breaking or case.inputs)
    if case.breaking is not None:
        results = [slopes_too(model, case.breaking) for model in (case.module, fixed)]
        record |= hazard(slopes_too, case.module, case.breaking, results)
    return record


def made(entry: Entry) -> Case:
    """The model with the same weights and inputs every time."""
    torch.manual_seed(0)
    case = entry.make()
    case.module.train(case.train)
    return case


def reported(reports: Sequence[Report]) -> dict[str, Any]:
    """The reports as counts and codes, and their text."""
    findings = [f for report in reports for f in report.findings]
    return {
        "found": sorted(f.code for f in findings),
        "errors": sorted(f.code for f in findings if f.severity == "error"),
        "fixed": sorted(r.code for report in reports for r in report.rewrites),
        "declined": [f"{d.code} {d.node}: {d.reason}" for report in reports for d in report.declined],
        "text": "\n".join(map(str, reports)),
    }


class Export:
    """What torch.export did: seconds it took, nodes of the largest graph it made."""

    seconds = 0.0
    nodes = 0


@contextmanager
def exporting() -> Generator[Export]:
    """Time the captures inside the block."""
    done, export = Export(), torch.export.export

    @functools.wraps(export)
    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            program = export(*args, **kwargs)
        finally:
            done.seconds += time.perf_counter() - start
        done.nodes = max(done.nodes, len(program.graph.nodes))
        return program

    torch.export.export = timed
    try:
        yield done
    finally:
        torch.export.export = export


# -- judging -----------------------------------------------------------------------------------------------------------


def errors(case: Case, before: Tensors, after: Tensors) -> dict[str, Any]:
    """Largest difference from a float64 run of the original, relative to the largest element of each output."""
    try:
        truth = run(*in_float64(case.module, case.inputs))
    except Exception as error:
        return {"no_truth": _line(error)}
    return {"error": [difference(before, truth), difference(after, truth)]}


def hazard(
    evaluate: Callable[[nn.Module, Inputs], Tensors], module: nn.Module, inputs: Inputs, results: Sequence[Tensors]
) -> dict[str, Any]:
    """Elements of `results` that are not finite, before and after: where the original in float64 says that the exact
    result is a number of their type, and where it does not (there they are no defect, or not known to be one)."""
    try:
        truth = evaluate(*in_float64(module, inputs))
    except Exception as error:
        return {"no_truth": _line(error)}
    counted = [lost(result, truth) for result in results]
    return {"hazard": [wrong for wrong, _ in counted], "undecided": [unknown for _, unknown in counted]}


def certificate(module: nn.Module, fixed: nn.Module, inputs: Inputs) -> dict[str, Any]:
    """The verdict of `stabilize.certify` on both models, or why there is none."""
    try:
        verdict = stabilize.certify(module, fixed, inputs)
    except stabilize.StabilizeError as error:
        return {"certificate": f"none: {error}", "accepted": None}
    return {"certificate": verdict.text(), "accepted": verdict.accepted, "harm": verdict.reason}


# -- ONNX --------------------------------------------------------------------------------------------------------------


def measure_onnx(entry: Entry) -> dict[str, Any]:
    """The exported model in ONNX Runtime, as written and optimized."""
    case = made(entry)
    args, kwargs = ((), dict(case.inputs)) if isinstance(case.inputs, Mapping) else (case.inputs, {})
    start = time.perf_counter()
    program = torch.onnx.export(case.module, args, kwargs=kwargs, dynamo=True, verbose=False)
    exported = time.perf_counter() - start
    assert program is not None
    model = program.model_proto
    start = time.perf_counter()
    fixed, report = stabilize.optimize(model, return_report=True)
    record = {
        "nodes": len(model.graph.node),
        "export_seconds": exported,
        "optimize_seconds": time.perf_counter() - start,
        **reported([report]),
    }
    before, after = (run_onnx(each, case.inputs) for each in (model, fixed))
    record["unchanged"] = fixed is model or fixed.SerializeToString() == model.SerializeToString()
    record["identical"] = same(before, after)
    if not record["identical"]:
        record |= errors(case, before, after)
    if case.breaking is not None:
        results = [run_onnx(each, case.breaking) for each in (model, fixed)]
        record |= hazard(run, case.module, case.breaking, results)
    return record


def run_onnx(model: Any, inputs: Inputs) -> Tensors:
    """The outputs of a `ModelProto` in ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    leaves = [t for t in pytree.tree_leaves(inputs) if isinstance(t, torch.Tensor)]
    feeds = {i.name: t.detach().numpy() for i, t in zip(session.get_inputs(), leaves, strict=True)}
    return [torch.from_numpy(array) for array in session.run(None, feeds)]

"""One model of the zoo through `stabilize.optimize`: what was found and done, and whether the outputs are right."""

from __future__ import annotations

import copy
import math
import time
import traceback
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from zoo_models import by_name
from zoo_models.entry import Case, Entry, Inputs

import stabilize
from stabilize.report import Report


def measured(name: str, onnx: bool) -> dict[str, Any]:
    """Every column of the table for one model, or `{"failed": why}`, `{"refused": why}`."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    entry = by_name(name)
    try:
        record = measure_onnx(entry) if onnx else measure(entry)
    except Exception as error:
        known = (
            entry.refused is not None and isinstance(error, stabilize.StabilizeError) and entry.refused in str(error)
        )
        how = "refused" if known else "failed"
        return {how: f"{type(error).__name__}: {brief(error)}", "trace": traceback.format_exc()}
    return {**record, **against(entry, record)}


def against(entry: Entry, record: dict[str, Any]) -> dict[str, Any]:
    """What was found that was not known to be there, and the reverse."""
    found, known = set(record["found"]), set(entry.defects)
    return {"unexpected": sorted(found - known), "missing": sorted(known - found)}


def brief(error: Exception) -> str:
    """The first line of a message."""
    return (str(error).strip().splitlines() or [""])[0][:200]


def measure(entry: Entry) -> dict[str, Any]:
    """One model in PyTorch."""
    case = made(entry)
    with exporting() as export:
        start = time.perf_counter()
        fixed, report = stabilize.optimize(case.module, case.inputs, return_report=True)
        total = time.perf_counter() - start
    record = {
        "nodes": export.nodes,
        "export_seconds": export.seconds,
        "optimize_seconds": total - export.seconds,
        **reported(report),
    }
    before, after = run(case.module, case.inputs), run(fixed, case.inputs)
    record["identical"] = len(before) == len(after) and all(map(same, before, after))
    record["unchanged"] = fixed is case.module
    if not record["unchanged"]:
        record |= errors(case, before, after)
        record["certificate"] = certificate(case.module, fixed, case.breaking or case.inputs)
    if case.breaking is not None:
        record["hazard"] = [not_finite(model, case.breaking) for model in (case.module, fixed)]
    return record


def made(entry: Entry) -> Case:
    """The model with the same weights and inputs every time."""
    torch.manual_seed(0)
    case = entry.make()
    case.module.train(case.train)
    return case


def reported(report: Report) -> dict[str, Any]:
    """The report as counts and codes, and its text."""
    return {
        "found": sorted(f.code for f in report.findings),
        "errors": sorted(f.code for f in report.findings if f.severity == "error"),
        "fixed": sorted(r.code for r in report.rewrites),
        "declined": [f"{d.code} {d.node}: {d.reason}" for d in report.declined],
        "text": str(report),
    }


class Export:
    """What torch.export did: seconds it took, nodes of the largest graph it made."""

    seconds = 0.0
    nodes = 0


@contextmanager
def exporting() -> Generator[Export]:
    """Time the captures inside the block."""
    done, export = Export(), torch.export.export

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


# -- running -----------------------------------------------------------------------------------------------------------


def called(module: nn.Module, inputs: Inputs) -> list[torch.Tensor]:
    """The tensors that a call returns, in order; random numbers are the same in every call."""
    torch.manual_seed(1)
    result = module(**inputs) if isinstance(inputs, Mapping) else module(*inputs)
    return [t for t in pytree.tree_leaves(result) if isinstance(t, torch.Tensor)]


def run(module: nn.Module, inputs: Inputs) -> list[torch.Tensor]:
    """`called` on a copy of the inputs, buffers put back afterwards."""
    state = copy.deepcopy(dict(module.named_buffers()))
    try:
        return [t.detach().clone() for t in called(module, copy.deepcopy(inputs))]
    finally:
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                buffer.copy_(state[name])


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Bit for bit, NaN for NaN."""
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and bool(torch.equal(a, b) or ((a == b) | (a.isnan() & b.isnan())).all())
    )


def errors(case: Case, before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> dict[str, Any]:
    """Largest difference from a float64 run of the original, relative to the largest element of each output."""
    try:
        truth = run(copy.deepcopy(case.module).double(), pytree.tree_map(_double, case.inputs))
    except Exception as error:
        return {"no_truth": f"{type(error).__name__}: {brief(error)}"}
    return {"error": [_error(before, truth), _error(after, truth)]}


def _double(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf


def _error(given: Sequence[torch.Tensor], truth: Sequence[torch.Tensor]) -> float:
    worst = 0.0
    for one, exact in zip(given, truth, strict=True):
        known = exact.isfinite() if exact.is_floating_point() else torch.zeros((), dtype=torch.bool)
        if known.any() and one.shape == exact.shape:
            scale = exact[known].abs().max().clamp_min(torch.finfo(torch.float32).tiny)
            distance = float((one.double() - exact)[known].abs().max() / scale)
            worst = max(worst, math.inf if math.isnan(distance) else distance)
    return worst


def not_finite(module: nn.Module, inputs: Inputs) -> int:
    """NaN and infinities in the outputs and in the gradients of their sum, masks of attention aside."""
    leaves, spec = pytree.tree_flatten(copy.deepcopy(inputs))
    watched = [t.requires_grad_() for t in leaves if isinstance(t, torch.Tensor) and t.is_floating_point()]
    watched += [p for p in module.parameters() if p.requires_grad]
    outputs = [t for t in called(module, pytree.tree_unflatten(leaves, spec)) if t.is_floating_point()]
    total = sum((t.sum() for t in outputs if t.requires_grad), torch.zeros(()))
    slopes = torch.autograd.grad(total, watched, allow_unused=True) if watched and total.requires_grad else ()
    return sum(int((~t.isfinite()).sum()) for t in (*outputs, *(s for s in slopes if s is not None)))


def certificate(module: nn.Module, fixed: nn.Module, inputs: Inputs) -> str:
    """The verdict of `stabilize.certify` on both models, or why there is none."""
    try:
        return stabilize.certify(module, fixed, inputs).text()
    except stabilize.StabilizeError as error:
        return f"none: {error}"


# -- ONNX ------------------------------------------------------------------------------------------------------------


def measure_onnx(entry: Entry) -> dict[str, Any]:
    """The exported model in ONNX Runtime, as written and optimized."""
    import onnxruntime

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
        **reported(report),
    }
    leaves = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    results: list[list[torch.Tensor]] = []
    for each in (model, fixed):
        session = onnxruntime.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"])
        feeds = {i.name: t.detach().numpy() for i, t in zip(session.get_inputs(), leaves, strict=True)}
        results.append([torch.from_numpy(array) for array in session.run(None, feeds)])
    record["unchanged"] = fixed is model or fixed.SerializeToString() == model.SerializeToString()
    record["identical"] = all(map(same, *results))
    if not record["unchanged"]:
        record |= errors(case, *results)
    return record

"""One conversion: repair, look at the numbers, decide, narrow, judge, widen."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Final, TypeAlias, final

import onnx
import torch

from stabilize.certification import OnnxShadow
from stabilize.conversion.calibrate import calibrated
from stabilize.conversion.emulate import emulated
from stabilize.conversion.graph import Graph
from stabilize.conversion.judge import Evidence, Judge
from stabilize.conversion.narrow import Narrowed, marked
from stabilize.conversion.plan import Plan, planned
from stabilize.conversion.reasons import Bounds, Facts, Reason, reasons
from stabilize.conversion.report import ConversionReport, Kept
from stabilize.conversion.running import NoKernelError, Session
from stabilize.conversion.samples import Sample, samples_of
from stabilize.conversion.store import filled, is_external, stored
from stabilize.conversion.target import Target
from stabilize.conversion.widen import widened
from stabilize.errors import ModelError, StabilizeError, UsageError
from stabilize.frontends.onnx import OnnxHost
from stabilize.frontends.onnx_run import OnnxRunner
from stabilize.frontends.onnx_stepwise import Kernels, Stepwise
from stabilize.linter.known import Weights
from stabilize.passes.propose import context
from stabilize.passes.rule import Options
from stabilize.report import Report

#: Told what is done.
Tell: TypeAlias = Callable[[str], None]

_CHEAPER: Final = Reason("cost", "between nodes in float32: casts would cost more")
_BLAMED: Final = Reason("certificate", "the outputs are not accurate enough with it narrowed")


@final
@dataclass(frozen=True)
class Wishes:
    """The keywords of `stabilize.convert`, checked. kept_io: all inputs and outputs, none, or those of these names."""

    target: Target
    ranges: Mapping[str, Bounds]
    data: object
    kept_io: bool | Collection[str]
    keep: Collection[str]
    tolerance: float
    certify: bool


@final
@dataclass(frozen=True)
class _Result:
    """One decision. blamed: nodes kept since the model was not accurate enough, found in so many trials."""

    plan: Plan
    narrow: Narrowed
    proto: onnx.ModelProto
    evidence: Evidence | None = None
    blamed: Collection[int] = ()
    trials: int = 0

    @property
    def refused(self) -> bool:
        return self.evidence is not None and not self.evidence.accepted


@final
class Conversion:
    """Of one model, already repaired. original: what truth is; fixed: what is narrowed, a runner of the same model or
    of what the engine made of it; host: its reading."""

    def __init__(
        self, original: OnnxRunner, fixed: OnnxRunner, repaired: Report, wishes: Wishes, data: Path, tell: Tell
    ) -> None:
        """`data`: where the data is written that a model keeps outside."""
        self._original, self._fixed, self._repaired = original, fixed, repaired
        self._wishes, self._data, self._tell = wishes, data, tell
        self._graph = Graph(fixed.proto, fixed.folder)
        self._target: Final = wishes.target

    def run(self) -> tuple[onnx.ModelProto, ConversionReport]:
        """The converted model, which refers to the file `data` if the original keeps data outside, and the report."""
        graph, target = self._graph, self._target
        self._check()
        if marked(graph.proto) == target.name:
            return graph.proto, self._unchanged(f"it was converted to {target.name} before: nothing is done")
        self._tell("looking at its numbers")
        facts = Facts(graph, target, calibrated(graph, self._fixed.name, self._samples, self._kernels), self._bounds())
        kept, asked = reasons(facts), self._asked(facts)
        result = self._decided(facts, {*kept, *asked}, self._kept_io())
        report = self._report(facts, kept, asked, result)
        if result.refused and (result.plan.inputs or result.plan.outputs):
            result = self._decided(facts, {*kept, *asked}, self._ends())
            report = self._report(facts, kept, asked, result)
            report.notes.append("with narrower inputs and outputs it is not accurate enough: they stay float32")
        if result.trials:
            report.notes.append(f"{len(result.blamed)} nodes more were kept, found in {result.trials} trials")
        return result.proto, report

    def _decided(self, facts: Facts, kept: Collection[int], kept_io: Collection[str]) -> _Result:
        """The model with everything narrowed but `kept`, and what more must be for it to be accurate enough."""
        self._tell("deciding")
        plan = planned(facts, kept, kept_io)
        narrow, proto = self._narrowed(plan)
        if not self._wishes.certify:
            return _Result(plan, narrow, proto)
        self._tell("certifying")
        evidence = self._emulated(narrow, proto)
        blamed: set[int] = set()
        trials = 0
        if not evidence.accepted:
            blamed, trials = self._widened(facts, kept, kept_io, plan)
            plan = planned(facts, {*kept, *blamed}, kept_io)
            narrow, proto = self._narrowed(plan)
            evidence = self._emulated(narrow, proto)
        return _Result(plan, narrow, proto, self._actual(proto, evidence), blamed, trials)

    # --- before -----------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        graph, target = self._graph, self._target
        name = self._original.name
        before = marked(graph.proto)
        if before is not None and before != target.name:
            raise UsageError(f"{name} was converted to {before}: convert the float32 model it was made from")
        if not any(each.domain in ("", "ai.onnx") for each in graph.proto.opset_import):
            raise ModelError(f"{name}: it imports no operators of the standard: there is nothing to convert")
        if graph.opset < target.oldest_opset:
            raise ModelError(
                f"{name}: operators of opset {graph.opset} have no {target.name}: convert it first, e.g. "
                "onnx.version_converter.convert_version(model, 18)"
            )
        if not any(graph.is_float(n) for n in (*graph.types, *graph.weights)):
            raise ModelError(f"{name}: no float32 in it: there is nothing to convert to {target.name}")
        io, names = self._wishes.kept_io, self._ends()
        asked: Collection[str] = () if isinstance(io, bool) else io
        unknown = [n for n in asked if n not in names]
        if unknown:
            raise UsageError(f"keep_io_types names {unknown[0]!r}: no input or output of {name}")

    @cached_property
    def _kernels(self) -> Kernels:
        return Kernels(self._graph.proto)

    @cached_property
    def _samples(self) -> list[Sample]:
        return samples_of(self._original, self._wishes.data, self._wishes.ranges)

    def _bounds(self) -> dict[str, Bounds]:
        """What the interval analysis proves of the values by name, from ranges and weights."""
        host: OnnxHost = self._fixed.host
        view = host.view
        options = Options("softmax", "exact", "onnx", hazards=True)
        ranges = context(view, options, dict(self._wishes.ranges), Weights(host).numbers).ranges
        return {
            name: (found.lo, found.hi)
            for name, value in view.bindings.items()
            if value.dtype == "float32" and self._graph.is_float(name)
            for found in [ranges.of(value)]
        }

    def _asked(self, facts: Facts) -> dict[int, Reason]:
        """Nodes that the user names, by their name, operator or what they compute."""
        found: dict[int, Reason] = {}
        for wish in self._wishes.keep:
            nodes = self._graph.nodes
            named = [i for i in facts.floats if wish in (nodes[i].name, nodes[i].op_type, *nodes[i].output)]
            if not named:
                raise UsageError(f"keep names {wish!r}: no float32 node, operator or value of {self._original.name}")
            found.update((i, Reason("request", f"{wish} is to be kept")) for i in named)
        return found

    def _kept_io(self) -> set[str]:
        io = self._wishes.kept_io
        return (self._ends() if io else set()) if isinstance(io, bool) else {*io}

    def _ends(self) -> set[str]:
        return {*self._graph.inputs, *(o.name for o in self._graph.proto.graph.output)}

    # --- trials -----------------------------------------------------------------------------------------------------

    def _narrowed(self, plan: Plan) -> tuple[Narrowed, onnx.ModelProto]:
        narrow = Narrowed(plan, self._target)
        if self._folder is None:
            return narrow, filled(narrow, self._graph, self._target)
        return narrow, stored(narrow, self._graph, self._target, self._data)

    @cached_property
    def _folder(self) -> str | None:
        """Where the data of converted models is."""
        return str(self._data.parent) if is_external(self._graph) else None

    @cached_property
    def _judge(self) -> Judge:
        fixed = self._fixed
        truths = [_truth(self._original)] + ([] if fixed is self._original else [_truth(fixed)])
        outputs = [o.name for o in fixed.proto.graph.output]
        before = Stepwise(fixed.proto, fixed.name, fixed.folder, kernels=self._kernels)
        return Judge(truths, partial(before.run, outputs), self._samples, self._wishes.tolerance)

    def _emulated(self, narrow: Narrowed, proto: onnx.ModelProto) -> Evidence:
        name, outputs = f"{self._fixed.name} in {self._target.name}", [o.name for o in proto.graph.output]
        model = emulated(proto, narrow.types, self._target, name, self._folder, self._kernels)
        return self._judge.verdict(partial(model.run, outputs))

    def _widened(
        self, facts: Facts, kept: Collection[int], kept_io: Collection[str], plan: Plan
    ) -> tuple[set[int], int]:
        def accepted(wide: Collection[int]) -> bool:
            self._tell(f"certifying with {len(wide)} nodes more in float32")
            trial = planned(facts, {*kept, *wide}, kept_io)
            return self._emulated(*self._narrowed(trial)).accepted

        return widened(sorted(plan.nodes), accepted)

    def _actual(self, proto: onnx.ModelProto, evidence: Evidence) -> Evidence:
        """The converted model itself in ONNX Runtime, on the given inputs."""
        name = f"the converted {self._fixed.name}"
        try:
            session = Session(proto, name, self._folder)
            found = self._judge.verdict(session.run, given_only=True)
        except NoKernelError as error:
            return replace(evidence, runtime=str(error))
        except ModelError as error:
            try:
                Session(self._fixed.proto, self._fixed.name, self._fixed.folder)
            except StabilizeError:
                return replace(evidence, runtime="not run: ONNX Runtime cannot load the original either")
            return replace(evidence, broken=str(error))
        renamed = tuple(replace(o, family=f"{o.family} (ONNX Runtime)") for o in found.outcomes)
        return replace(evidence, outcomes=(*evidence.outcomes, *renamed), runtime="run in ONNX Runtime")

    # --- after ------------------------------------------------------------------------------------------------------

    def _report(
        self, facts: Facts, kept: Mapping[int, Reason], asked: Mapping[int, Reason], result: _Result
    ) -> ConversionReport:
        plan = result.plan
        told = [
            Kept(self._graph.label(i), self._graph.nodes[i].op_type, reason.text, reason.by)
            for i in facts.floats
            if i not in plan.nodes
            for reason in [asked.get(i) or kept.get(i) or (_BLAMED if i in result.blamed else _CHEAPER)]
        ]
        return ConversionReport(
            self._original.name,
            self._target.name,
            len(plan.nodes),
            told,
            result.narrow.casts,
            len(plan.weights),
            len(self._graph.weights) - len(plan.weights),
            self._inputs(),
            result.evidence,
            self._repaired,
            [] if plan.nodes else ["no node was narrowed"],
        )

    def _inputs(self) -> str:
        if self._wishes.data is not None:
            count = sum(s.given for s in self._samples)
            return f"the given inputs ({count} {'batch' if count == 1 else 'batches'}) and multiples of the first"
        return "seeded random inputs, since no data was given, and multiples of them"

    def _unchanged(self, note: str) -> ConversionReport:
        target = self._target.name
        return ConversionReport(
            self._original.name, target, 0, [], 0, 0, 0, "nothing", None, self._repaired, notes=[note]
        )


def _truth(runner: OnnxRunner) -> Callable[[Sample], list[torch.Tensor]]:
    shadows: list[OnnxShadow] = []

    def run(sample: Sample) -> list[torch.Tensor]:
        if not shadows:
            shadows.append(OnnxShadow(runner))
        return shadows[0].run(dict(sample.tensors))

    return run

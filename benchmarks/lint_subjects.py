"""The graphs of the corpus as they are given to the lint, and what counts as finding the defect of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lint_cases import DEFECTS, WRITTEN
from lint_cases.entry import Defect
from lint_cases.written import Written
from lint_export import graph_of, noted

from stabilize.report import Finding


@dataclass(frozen=True, eq=False)
class Subject:
    """A defective graph in one host. `make`: the model and example inputs, None where it needs none. `here`: whether a
    finding points at the defect."""

    name: str
    family: str
    host: str
    codes: tuple[str, ...]
    overflows: bool
    ranges: Mapping[str, tuple[float, float]]
    make: Callable[[], tuple[Any, Any]]
    here: Callable[[Finding], bool]

    def hit(self, finding: Finding) -> bool:
        """Whether a finding is of the defect."""
        return finding.code.startswith(self.codes) and self.here(finding)


def subjects() -> Iterator[Subject]:
    """All of them: modules, modules exported to ONNX, graphs written in ONNX."""
    for defect in DEFECTS:
        yield _subject(defect, "PyTorch", lambda d=defect: (d.module(), d.inputs()), partial(_at_line, defect))
    for defect in DEFECTS:
        if defect.exported:
            yield _subject(
                defect, "ONNX, exported", lambda d=defect: (graph_of(d), None), partial(_at_old_line, defect)
            )
    for graph in WRITTEN:
        yield _subject(graph, "ONNX, written", lambda g=graph: (g.model, None), partial(_at_node, graph))


def _subject(entry: Defect | Written, host: str, make: Callable[[], Any], here: Callable[[Finding], bool]) -> Subject:
    return Subject(entry.name, entry.family, host, entry.codes, entry.overflows, entry.ranges, make, here)


def _at_line(defect: Defect, finding: Finding) -> bool:
    return finding.file is not None and Path(finding.file).resolve() == defect.file and finding.line in defect.lines


def _at_old_line(defect: Defect, finding: Finding) -> bool:
    """By the lines of when it was exported: the class may have moved since then."""
    if finding.file is None or finding.line is None or Path(finding.file).name != defect.file.name:
        return False
    moved = defect.source[1] - int(noted(graph_of(defect), "line"))
    return finding.line + moved in defect.lines


def _at_node(graph: Written, finding: Finding) -> bool:
    return finding.node.rpartition("/")[2] in graph.at

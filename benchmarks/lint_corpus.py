"""The lint on defective graphs, of which it must find every one, and on healthy ones, in which it must find no error.

    python benchmarks/lint_corpus.py                        everything that needs no other package: a few minutes
    python benchmarks/lint_corpus.py --family softmax       families whose names contain that; no healthy graphs
    python benchmarks/lint_corpus.py --full                 the models of the zoo as well (zoo-requirements.txt)
    python benchmarks/lint_corpus.py --json FILE            every finding

The defective graphs (`lint_cases`) re-create the bug families of the published studies. A defect counts as found when a
finding with a code of its family points at it: at the marked source line, or at the node. One that overflows must be
an error, with a witness that this program runs again itself, in torch, ONNX Runtime or the reference evaluator of ONNX.
The healthy graphs (`lint_clean`) are torch's modules, stable formulas and the ONNX standard's node tests.

The exit status is 1 when a defect is missed, an error comes without a witness that breaks the model, or a healthy graph
has an error.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import panel_path  # noqa: F401
from lint_clean import healthy
from lint_clean.entry import Healthy
from lint_replay import replay
from lint_subjects import Subject, subjects
from lint_table import brief

import stabilize
from stabilize.errors import StabilizeError
from stabilize.report import Finding, Report


@dataclass
class Told:
    """A finding, and what running its witness again gave: None when it did not break the model."""

    code: str
    severity: str
    node: str
    place: str
    naive: str | None
    witness: str | None = None
    replayed: str | None = None
    hit: bool = False


@dataclass
class Record:
    """One graph."""

    name: str
    family: str
    host: str
    overflows: bool = False
    healthy: bool = False
    findings: list[Told] = field(default_factory=list[Told])
    failed: str | None = None
    seconds: float = 0.0

    @property
    def found(self) -> bool:
        return any(told.hit for told in self.findings)

    @property
    def proven(self) -> bool:
        """Found as an error whose witness breaks the model."""
        return any(t.hit and t.severity == "error" and t.replayed for t in self.findings)

    @property
    def demanded(self) -> bool:
        """Whether it is what it must be."""
        errors = [t for t in self.findings if t.severity == "error"]
        if self.healthy:
            return self.failed is None and not errors
        return self.found and all(t.replayed for t in errors) and (self.proven or not self.overflows)


def measured(subject: Subject, budget: float) -> Record:
    """Lint one defective graph, and run its witnesses again."""
    record = Record(subject.name, subject.family, subject.host, subject.overflows)
    model, inputs = subject.make()
    with tempfile.TemporaryDirectory() as folder:
        for finding in _findings(record, model, inputs, subject.ranges, budget, Path(folder)):
            told = _told(finding)
            told.hit = subject.hit(finding)
            told.replayed = _replayed(model, finding, subject)
            record.findings.append(told)
    return record


def checked(entry: Healthy, budget: float) -> Record:
    """Lint one healthy graph."""
    record = Record(entry.name, entry.group, "", healthy=True)
    model, inputs = entry.make()
    record.findings = [_told(f) for f in _findings(record, model, inputs, entry.ranges, budget, None)]
    return record


def _findings(record: Record, model: Any, inputs: Any, ranges: Any, budget: float, folder: Path | None
              ) -> Sequence[Finding]:  # fmt: skip
    start = time.perf_counter()
    try:
        report: Report = stabilize.lint(model, inputs, ranges=dict(ranges), budget=budget, witness_dir=folder)
    except StabilizeError as error:
        record.failed = str(error)
        return []
    finally:
        record.seconds = time.perf_counter() - start
    return report.findings


def _told(finding: Finding) -> Told:
    place = finding.node if finding.line is None else f"{Path(finding.file or '').name}:{finding.line}"
    scope = getattr(finding.witness, "scope", None) if finding.witness else None
    return Told(finding.code, finding.severity, finding.node, place, finding.naive, scope)


def _replayed(model: Any, finding: Finding, subject: Subject) -> str | None:
    if not finding.witness:
        return None
    try:
        return replay(model, finding.witness, finding.node.rpartition("/")[2], subject.ranges)
    except Exception as error:  # a witness that does not run shows nothing: it counts as one that breaks nothing
        print(f"{subject.name} ({subject.host}): {finding.code}: the witness does not run: {error}", file=sys.stderr)
        return None


def measure(family: str | None, names: Sequence[str] | None, budget: float, zoo: bool) -> Iterator[Record]:
    """Every graph that is asked for."""
    for subject in subjects():
        if (family or "").casefold() in subject.family.casefold() and (not names or subject.name in names):
            yield measured(subject, budget)
    if family is None and not names:
        for entry in healthy():
            yield checked(entry, budget)
        if zoo:
            from lint_clean.zoo import checked_zoo

            yield from (Record(**found) for found in checked_zoo(budget))


def as_json(records: Iterable[Record]) -> str:
    """Every finding; one record a line."""
    lines = ",\n".join(json.dumps(asdict(record), ensure_ascii=False) for record in records)
    return f'{{"schema_version": 1, "graphs": [\n{lines}\n]}}\n'


def main() -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", help="a part of a family's name")
    parser.add_argument("--only", action="append", metavar="NAME", help="graphs of these names")
    parser.add_argument("--full", action="store_true", help="the models of the zoo as well")
    parser.add_argument("--budget", type=float, default=10.0, help="seconds for the witnesses of one graph")
    parser.add_argument("--json", type=Path, help="write every finding to this file")
    parser.add_argument("--verbose", action="store_true", help="each finding that is missed or too much")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    records = list[Record]()
    for record in measure(options.family, options.only, options.budget, options.full):
        records.append(record)
        if options.verbose and (not record.demanded or (record.healthy and record.findings)):
            print(described(record), file=sys.stderr, flush=True)
    if options.json:
        options.json.write_text(as_json(records))
    print(brief(records))
    return 0 if records and all(record.demanded for record in records) else 1


def described(record: Record) -> str:
    """One line on what is not as it must be, and one for each finding."""
    what = record.failed or ("" if record.healthy or record.found else "MISSED")
    if not record.healthy and record.found and record.overflows and not record.proven:
        what = "NOT PROVEN"
    lines = [f"{record.name} ({record.host or record.family}): {what}"]
    for t in record.findings:
        proof = f"; {t.witness} witness: {t.replayed or 'BREAKS NOTHING'}" if t.witness else ""
        lines.append(f"    {'*' if t.hit else ' '} {t.severity} {t.code} at {t.place}: {(t.naive or '')[:90]}{proof}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

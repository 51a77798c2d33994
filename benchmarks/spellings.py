"""The panel of naive spellings, through this project and through its peers, in one process.

    python benchmarks/spellings.py                    a sixth of the panel, every format
    python benchmarks/spellings.py --full             every spelling × every format × every tool
    python benchmarks/spellings.py --full --inductor  with torch.compile (needs g++; minutes per format)
    python benchmarks/spellings.py --json FILE        the table, and what each tool leaves broken, as JSON

A spelling counts as repaired when its result is within the stated bound of the arbitrary-precision oracle on every
input family (benign, overflowing, underflowing, masked, cancelling, …; see tests/panel), which no family is scaled to
spare. On PyTorch the gradients of losses are judged as well; ONNX graphs and PyTensor are judged on values alone.
Optional peers: pip install -r benchmarks/requirements.txt
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import panel_path  # noqa: F401
from spellings_tools import TOOLS, NotApplicableError, Tool, versions

from tests.panel.entry import Spelling
from tests.panel.measure import DTYPES, failures, outcomes, share
from tests.panel.spellings import SPELLINGS


@dataclass
class Score:
    """One cell of the table. `broken` and `failed` map names of spellings to what went wrong."""

    repaired: int = 0
    total: int = 0
    skipped: int = 0
    broken: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.repaired}/{self.total}" if self.total else "n/a"


def measure(tool: Tool, entries: Sequence[Spelling], dtype: str) -> Score:
    """Run one tool over the panel in one format."""
    score = Score()
    start = time.perf_counter()
    for entry in entries:
        if tool.host == "onnx" and not entry.exportable:
            score.skipped += 1
            continue
        try:
            run = tool.prepare(entry, dtype)
            bad = failures(outcomes(entry, dtype, tool.host, run, gradients=tool.gradients))
        except NotApplicableError:
            score.skipped += 1
            continue
        except Exception as error:  # a peer that crashes on a graph has not repaired it; the reason is kept
            score.total += 1
            score.failed[entry.name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[
                :200
            ]
            continue
        score.total += 1
        score.repaired += not bad
        if bad:
            score.broken[entry.name] = str(bad[0])
    score.seconds = time.perf_counter() - start
    return score


def table(scores: dict[str, dict[str, Score]], dtypes: Sequence[str]) -> Iterator[str]:
    """The table in Markdown."""
    yield f"| tool | {' | '.join(dtypes)} |"
    yield "|---|" + "---:|" * len(dtypes)
    for name, row in scores.items():
        yield f"| {name} | {' | '.join(str(row.get(d, '')) for d in dtypes)} |"


def main() -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the whole panel (default: a sixth of it)")
    parser.add_argument("--inductor", action="store_true", help="include torch.compile")
    parser.add_argument("--tools", help="comma-separated names or beginnings of names")
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--only", default="", help="spellings whose name contains this")
    parser.add_argument("--json", type=Path, help="write the scores to this file")
    parser.add_argument("--reuse", type=Path, help="an earlier --json: what it holds is not measured again")
    parser.add_argument("--verbose", action="store_true", help="print what each tool leaves broken")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    entries = [e for e in SPELLINGS if options.only in e.name and (options.full or share(e, 6) == 0)]
    dtypes = options.dtypes.split(",")
    scores = _earlier(options.reuse, len(entries)) if options.reuse else {}
    for tool in _chosen(options.tools, options.inductor):
        row = scores.setdefault(tool.name, {})
        for dtype in dtypes:
            if dtype not in row:
                row[dtype] = measure(tool, entries, dtype)
                _save(options.json, scores, len(entries))
        print(f"{tool.name}: {sum(s.seconds for s in row.values()):.0f} s", file=sys.stderr)
        if options.verbose:
            _explain(row)
    scores = {tool.name: scores[tool.name] for tool in TOOLS if tool.name in scores}
    print(f"{len(entries)} spellings; {', '.join(f'{k} {v}' for k, v in versions().items())}\n")
    print("\n".join(table(scores, dtypes)))
    _save(options.json, scores, len(entries))
    return 0


def _chosen(names: str | None, inductor: bool) -> Iterator[Tool]:
    """The tools to run; those that cannot are named on stderr."""
    for tool in TOOLS:
        if names and not any(tool.name.lower().startswith(n.strip().lower()) for n in names.split(",")):
            continue
        if tool.slow and not inductor:
            continue
        reason = tool.missing()
        if reason:
            print(f"{tool.name}: {reason}", file=sys.stderr)
        else:
            yield tool


def _earlier(path: Path, size: int) -> dict[str, dict[str, Score]]:
    document = json.loads(path.read_text())
    if (document["spellings"], document["versions"]) != (size, versions()):
        raise SystemExit(f"{path} is of another panel or of other versions: measure again")
    return {tool: {dtype: Score(**score) for dtype, score in row.items()} for tool, row in document["scores"].items()}


def _explain(row: dict[str, Score]) -> None:
    for dtype, score in row.items():
        for name, reason in [*score.failed.items(), *score.broken.items()]:
            print(f"  {dtype} {name}: {reason}", file=sys.stderr)


def _save(path: Path | None, scores: dict[str, dict[str, Score]], size: int) -> None:
    """Write what has been measured so far: an interrupted run is continued with --reuse."""
    if path is not None:
        rows = {tool: {dtype: vars(score) for dtype, score in row.items()} for tool, row in scores.items()}
        document = {"schema_version": 1, "spellings": size, "versions": versions(), "scores": rows}
        path.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())

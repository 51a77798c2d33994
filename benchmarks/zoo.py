"""Public models through `stabilize.optimize`: what was found, fixed, declined, and whether the outputs are right.

    pip install -c constraints.txt -r benchmarks/zoo-requirements.txt      # see there
    python benchmarks/zoo.py --json zoo.json                   every model in PyTorch, and some in ONNX
    python benchmarks/zoo.py --only pyg --verbose              those whose names begin with pyg; reports in full
    python benchmarks/zoo.py --from zoo.json [--brief]         the tables of an earlier run, in Markdown

The models have small random configurations and seeded inputs; nothing is downloaded. Each runs in a process of its
own with limits on time and memory, so that one that fails does not stop the others.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing as mp
import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import panel_path  # noqa: F401
from zoo_models import FAMILY, MODELS
from zoo_models.entry import Entry, without_compiled_torchvision
from zoo_table import brief, detail

Record = dict[str, Any]

_MEMORY = 12 * 2**30
#: Imported once, before the processes are forked.
_SHARED = (
    "torch._dynamo", "stabilize.api", "stabilize.certification", "stabilize.frontends.fx", "stabilize.frontends.onnx",
    "transformers.modeling_utils", "zoo_measure",
)  # fmt: skip


def preload() -> None:
    """Import what most models need; what is not installed is missed by those that need it."""
    without_compiled_torchvision()
    for name in _SHARED:
        try:
            importlib.import_module(name)
        except ImportError as error:
            print(f"{name}: {error}", file=sys.stderr)


def work(name: str, onnx: bool, answer: Connection) -> None:
    """Measure one model in this process and send the record."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), sys.stdout.fileno())
        os.dup2(null.fileno(), sys.stderr.fileno())
    from zoo_measure import measured

    answer.send(measured(name, onnx))


class Job:
    """One model in its process."""

    def __init__(self, entry: Entry, onnx: bool, context: Any, limit: float) -> None:
        self.entry, self.onnx, self.limit = entry, onnx, limit
        self.answer, far = context.Pipe(duplex=False)
        self.process = context.Process(target=work, args=(entry.name, onnx, far))
        self.start = time.monotonic()
        self.process.start()
        far.close()

    def record(self) -> Record | None:
        """What came back; None while it runs."""
        if self.answer.poll():
            try:
                record: Record = self.answer.recv()
            except EOFError:
                self.process.join()
                record = {"failed": f"the process ended with status {self.process.exitcode}"}
        elif time.monotonic() - self.start > self.limit:
            record = {"failed": f"no answer after {self.limit:.0f} s"}
        else:
            return None
        self.process.kill()
        self.process.join()
        known = {"name": self.entry.name, "package": self.entry.package, "onnx": self.onnx}
        return annotated({**known, "seconds": time.monotonic() - self.start, **record})


def measure_all(jobs: Sequence[tuple[Entry, bool]], parallel: int, limit: float) -> Iterator[Record]:
    """Records in the order in which they come."""
    preload()
    context = mp.get_context("fork")
    waiting, running = list(reversed(jobs)), list[Job]()
    while waiting or running:
        while waiting and len(running) < parallel:
            running.append(Job(*waiting.pop(), context, limit))
        for job in list(running):
            record = job.record()
            if record is not None:
                running.remove(job)
                yield record
        time.sleep(0.05)


def main() -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", help="names or their beginnings")
    parser.add_argument("--onnx", choices=("also", "only", "no"), default="also", help="the sample in ONNX Runtime")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one model")
    parser.add_argument("--json", type=Path, help="write the records to this file")
    parser.add_argument("--from", type=Path, dest="earlier", help="print an earlier --json; nothing is measured")
    parser.add_argument("--brief", action="store_true", help="totals, and the models in which something was found")
    parser.add_argument("--verbose", action="store_true", help="the reports in full")
    options = parser.parse_args()
    if options.earlier:
        document = json.loads(options.earlier.read_text())
        document["models"] = [annotated(record) for record in document["models"]]
    else:
        document = {"schema_version": 1, "versions": versions(), "models": []}
        jobs = [(e, onnx) for e in chosen(options.only) for onnx in kinds(e, options.onnx)]
        for record in measure_all(jobs, options.jobs, options.limit):
            document["models"].append(record)
            print(progress(record, options.verbose), file=sys.stderr, flush=True)
        order = {(e.name, onnx): i for i, (e, onnx) in enumerate(jobs)}
        document["models"].sort(key=lambda r: order[r["name"], r["onnx"]])
        if options.json:
            options.json.write_text(written(document))
    print((brief if options.brief else detail)(document))
    return 0


def written(document: dict[str, Any]) -> str:
    """JSON, one record a line, without the reports in full."""
    records = [{key: record[key] for key in record if key != "text"} for record in document["models"]]
    models = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    head = json.dumps({**document, "models": []}, ensure_ascii=False)
    return f"{head.removesuffix('[]}')}[\n{models}\n]}}\n"


def annotated(record: Record) -> Record:
    """With what the entry says of the model, and what was found that is not known to be there, and the reverse."""
    entry = next((e for e in MODELS if e.name == record["name"]), None)
    if entry is None:
        return record
    found = set(record.get("found", ()))
    wanted = set(entry.onnx_defects if record["onnx"] else entry.defects) if "found" in record else found
    said = {"unexpected": sorted(found - wanted), "missing": sorted(wanted - found)}
    return {**record, "family": FAMILY[entry.name], "note": entry.note, **said}


def chosen(names: Sequence[str] | None) -> list[Entry]:
    """The entries whose names begin with one of `names`."""
    return [e for e in MODELS if not names or any(e.name.startswith(n) for n in names)]


def kinds(entry: Entry, onnx: str) -> list[bool]:
    """Measure in PyTorch (False), in ONNX (True), or both."""
    return ([] if onnx == "only" else [False]) + ([True] if entry.onnx and onnx != "no" else [])


def versions() -> dict[str, str]:
    """Of torch and of every package of the zoo that is installed."""
    result: dict[str, str] = {}
    for package in ("torch", *dict.fromkeys(e.package for e in MODELS)):
        try:
            result[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return result


def progress(record: Record, verbose: bool) -> str:
    """One line on one model; its report when `verbose`."""
    if "failed" in record:
        return f"{record['name']}{' (ONNX)' if record['onnx'] else ''}: failed: {record['failed']}"
    parts = [f"{record['name']}{' (ONNX)' if record['onnx'] else ''}: {record['nodes']} nodes"]
    parts += [f"{key.removesuffix('_seconds')} {record[key]:.1f} s" for key in record if key.endswith("_seconds")]
    parts += [f"{key} {','.join(record[key])}" for key in ("found", "fixed", "unexpected", "missing") if record[key]]
    parts += [
        f"{key} {record[key]}" for key in ("hazard", "undecided", "error", "certificate", "graphs") if record.get(key)
    ]
    parts += [] if record["identical"] or record["fixed"] else ["NOT IDENTICAL"]
    parts += [f"declined {line}" for line in record["declined"]]
    return "; ".join(parts) + (f"\n{record['text']}\n" if verbose and record["found"] else "")


if __name__ == "__main__":
    sys.exit(main())

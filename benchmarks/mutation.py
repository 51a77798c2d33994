"""Mutation testing of the rules: how many small changes to `passes/` does tests/passes notice?

    pip install 'mutmut>=3.8'
    python benchmarks/mutation.py                             # every function of passes/
    python benchmarks/mutation.py linear cancellation/gumbel  # some files
    python benchmarks/mutation.py scaled ranges --sample 200  # a random part of each
    python benchmarks/mutation.py linear --show               # with a diff of every survivor

The mutants are mutmut's. `mutmut run` works too, but starts pytest for each; here the tests are collected once, and
each mutant is a fork of that process in which the code of one function is replaced. Only the tests that reach the
changed lines run, those that killed mutants of the function first, then the quick ones, up to the first failure or the
budget. A mutant may use five times the processor time of its tests; one that uses more counts as noticed.
"""

from __future__ import annotations

import argparse
import difflib
import gc
import importlib
import json
import math
import os
import random
import resource
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Literal

import libcst as cst
import pytest
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.file_mutation import create_mutations

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "passes"
KILLED, SURVIVED, UNRUNNABLE = 1, 0, 3
MOST_MEMORY = 4 << 30  # bytes that a mutant may take beyond what the tests have

Status = Literal["killed", "survived", "timeout"]


@dataclass(frozen=True)
class Mutant:
    """`function`: its qualified name; `line`, `end`: what is changed in the file; `source`: the changed function."""

    file: str
    function: str
    line: int
    end: int
    original: str
    source: str

    def diff(self) -> str:
        lines = difflib.unified_diff(self.original.splitlines(), self.source.splitlines(), lineterm="", n=0)
        return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


def mutants_of(file: str) -> Iterator[Mutant]:
    """Every mutant inside a function of passes/`file`.py."""
    path = FOLDER / f"{file}.py"
    module, mutations, *_ = create_mutations(str(path), path.read_text())
    where = MetadataWrapper(module, unsafe_skip_copy=True).resolve(PositionProvider)
    owners = {m: f"{c.name.value}." for c in module.body if isinstance(c, cst.ClassDef) for m in c.body.body}
    for mutation in mutations:
        function = mutation.contained_by_top_level_function
        if isinstance(function, cst.FunctionDef):
            changed = function.deep_replace(mutation.original_node, mutation.mutated_node)
            name = owners.get(function, "") + function.name.value
            at = where[mutation.original_node]
            line = at.start.line
            if line < where[function.body.body[0]].start.line:
                line = where[function.name].start.line  # of the def: what a call is at
            yield Mutant(file, name, line, at.end.line, code_of(function), code_of(changed))


def code_of(function: cst.CSTNode) -> str:
    return cst.Module([function.with_changes(leading_lines=[], decorators=[])]).code


def apply(mutant: Mutant) -> None:
    """Replace the function in this process, wherever it is referred to."""
    module = importlib.import_module("stabilize.passes." + mutant.file.replace("/", "."))
    found: object = module
    for part in mutant.function.split("."):
        found = vars(found)[part]
    function = getattr(found, "__func__", found)
    assert isinstance(function, FunctionType)
    space = dict(vars(module))
    exec(compile(mutant.source, str(FOLDER / f"{mutant.file}.py"), "exec", dont_inherit=True), space)
    changed = space[mutant.function.split(".")[-1]]
    function.__code__, function.__defaults__ = changed.__code__, changed.__defaults__
    function.__kwdefaults__ = changed.__kwdefaults__


class Tests:
    """The collected tests: what each reaches, how long it takes, and what to run for a mutant."""

    def __init__(self, items: Sequence[pytest.Item], budget: float) -> None:
        self.budget = budget
        self.seconds: dict[pytest.Item, float] = {}
        self.reaching: defaultdict[tuple[str, int], set[pytest.Item]] = defaultdict(set)
        self._files: dict[CodeType, str | None] = {}
        self.killers: defaultdict[tuple[str, str], Counter[pytest.Item]] = defaultdict(Counter)
        for item in items:
            self._baseline(item)

    def _baseline(self, item: pytest.Item) -> None:
        def enter(frame: FrameType, event: str, _: object) -> object:
            return note(frame, event, None) if self._file(frame.f_code) else None

        def note(frame: FrameType, event: str, _: object) -> object:
            if event in ("call", "line"):
                self.reaching[str(self._file(frame.f_code)), frame.f_lineno].add(item)
            return note

        sys.settrace(enter)
        passed = passes(item)
        sys.settrace(None)
        if not passed:
            raise SystemExit(f"{item.nodeid} fails without any mutant")
        start = time.process_time()
        passes(item)
        self.seconds[item] = time.process_time() - start

    def _file(self, code: CodeType) -> str | None:
        """The file of passes/ that `code` comes from."""
        if code not in self._files:
            path = Path(code.co_filename).resolve()
            inside = path.is_relative_to(FOLDER)
            self._files[code] = path.relative_to(FOLDER).with_suffix("").as_posix() if inside else None
        return self._files[code]

    def of(self, mutant: Mutant) -> list[pytest.Item]:
        killers = self.killers[mutant.file, mutant.function]
        lines = range(mutant.line, mutant.end + 1)
        found = set[pytest.Item]().union(*(self.reaching.get((mutant.file, n), ()) for n in lines))
        order = sorted(found, key=lambda item: (-killers[item], self.seconds[item], item.nodeid))
        spent = accumulate(self.seconds[item] for item in order)
        return [item for item, total in zip(order, spent, strict=True) if total <= self.budget]


def passes(item: pytest.Item) -> bool:
    """Run one test as pytest does, without its reports, which take longer than the tests."""
    assert isinstance(item, pytest.Function)
    item._initrequest()
    try:
        item.session._setupstate.setup(item)
        item.runtest()
    except (Exception, pytest.fail.Exception):
        return False
    finally:
        item.session._setupstate.teardown_exact(None)
    return True


# --- running ------------------------------------------------------------------------------------------------------


def start(mutant: Mutant, chosen: Sequence[pytest.Item], seconds: float, told: int) -> int:
    """Fork a process that runs the tests on the mutant; its exit status says what happened."""
    child = os.fork()
    if child:
        return child
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        limit = math.ceil(time.process_time() + seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_MEMORY,) * 2)
        apply(mutant)
        for number, item in enumerate(chosen):
            if not passes(item):
                os.write(told, f"{number}\n".encode())
                os._exit(KILLED)
        os._exit(SURVIVED)
    except BaseException:
        os._exit(UNRUNNABLE)


def run(mutants: Sequence[Mutant], tests: Tests, jobs: int) -> Iterator[tuple[Mutant, Status]]:
    """Judge every mutant, `jobs` at a time."""
    waiting = list(reversed(mutants))
    running: dict[int, tuple[Mutant, list[pytest.Item], int]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            chosen = tests.of(mutant)
            if not chosen:
                yield mutant, "survived"
                continue
            read, write = os.pipe()
            child = start(mutant, chosen, 5 + 5 * sum(tests.seconds[i] for i in chosen), write)
            os.close(write)
            running[child] = mutant, chosen, read
        if not running:
            continue
        child, status = os.wait()
        mutant, chosen, read = running.pop(child)
        said = os.read(read, 64)
        os.close(read)
        if said:
            tests.killers[mutant.file, mutant.function][chosen[int(said)]] += 1
        if os.WIFSIGNALED(status):
            yield mutant, "timeout"
        else:
            yield mutant, "survived" if os.WEXITSTATUS(status) == SURVIVED else "killed"


class Plugin:
    """Runs mutants in place of the tests."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        options, results = self.options, defaultdict[str, Counter[Status]](Counter)
        every = {file: list(mutants_of(file)) for file in options.files or files()}
        mutants = [m for found in every.values() for m in sample(found, options.sample, options.seed)]
        tests = Tests(session.items, options.budget)
        say(f"{len(session.items)} tests, {len(mutants)} of {sum(map(len, every.values()))} mutants")
        gc.collect()
        gc.freeze()  # collections in the forks would copy every page
        with open(options.output, "w") as log:
            for mutant, status in run(mutants, tests, options.jobs):
                results[mutant.file][status] += 1
                log.write(json.dumps({**asdict(mutant), "status": status, "diff": mutant.diff()}) + "\n")
                log.flush()
                if status == "survived" and options.show:
                    say(f"\n{mutant.file}.py:{mutant.line} {mutant.function}\n{mutant.diff()}")
        say(table(results))
        return True


def sample(mutants: Sequence[Mutant], size: int | None, seed: int) -> list[Mutant]:
    """`size` of them at random, in their order; all where there are no more."""
    if size is None or size >= len(mutants):
        return list(mutants)
    return [mutants[i] for i in sorted(random.Random(seed).sample(range(len(mutants)), size))]


def files() -> list[str]:
    return [p.relative_to(FOLDER).with_suffix("").as_posix() for p in sorted(FOLDER.rglob("*.py"))]


def table(results: dict[str, Counter[Status]]) -> str:
    """Markdown: a row for each file, and all of them."""
    rows = ["| file | mutants | killed | timed out | survived | noticed |", "|---|---:|---:|---:|---:|---:|"]
    whole = sum(results.values(), Counter[Status]())
    for name, found in [*results.items(), ("all", whole)]:
        count = found.total()
        noticed = 100 * (count - found["survived"]) / max(count, 1)
        numbers = (count, found["killed"], found["timeout"], found["survived"])
        rows.append(f"| {name} | {' | '.join(map(str, numbers))} | {noticed:.1f}% |")
    return "\n".join(rows)


def say(text: str) -> None:
    os.write(OUT, (text + "\n").encode())


OUT = os.dup(1)  # pytest captures the other


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="files of passes/, without .py (default: all)")
    parser.add_argument("--sample", type=int, help="judge this many mutants of each file, chosen at random")
    parser.add_argument("--seed", type=int, default=0, help="of the choice")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument("--budget", type=float, default=5.0, help="seconds of tests for one mutant, quick ones first")
    parser.add_argument("--show", action="store_true", help="print survivors as they are found")
    parser.add_argument("--tests", default="tests/passes", help="what to run (default: tests/passes)")
    parser.add_argument("--output", default="mutants.jsonl", help="every mutant and what became of it")
    options = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", options.tests], [Plugin(options)]))


if __name__ == "__main__":
    main()

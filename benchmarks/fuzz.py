"""Damaged and hostile models through the command line: one line and exit status 2, or a model that loads.

    python benchmarks/fuzz.py --count 10000             both formats, half each
    python benchmarks/fuzz.py --kind onnx --only 4711   one mutant, with what it printed; --keep FOLDER keeps its files

Each mutant is one process, forked from one that has imported everything. It runs `stabilize optimize` (every fourth
without certificates, every fourth in the collapse-free form), then another process runs `stabilize certify` of the
mutant with itself, and a third loads what was written. A mutant fails when

  - a process ends by a signal, with a traceback, or with a status other than 0, 1 and 2;
  - it takes more than 5 s of processor time, or 60 s of any;
  - its peak resident memory is more than 1 GiB above that of a process that has imported torch, onnx and ONNX Runtime,
    and nothing else (both read from the kernel: ru_maxrss);
  - status 2 comes without exactly one line on stderr, or with an output file; status 0 or 1 with a line on stderr;
  - an output cannot be loaded, or fails onnx.checker where the mutant passes it;
  - the mutant's files are changed, or a file appears outside the output folder.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a thread pool does not survive a fork

#: Processor time, elapsed time in seconds, resident memory in bytes above the baseline.
CPU_LIMIT, WALL_LIMIT, MEMORY_LIMIT = 5.0, 60.0, 1 << 30
#: Address space that a child may add: protects the machine, and makes what asks for terabytes fail.
_ADDRESS_SPACE = 6 << 30


@dataclass
class Run:
    """What one process did. cpu, wall: seconds; memory: bytes of resident memory at the peak."""

    status: int
    signal: int
    cpu: float
    wall: float
    memory: int
    out: str
    err: str


@dataclass
class Result:
    index: int
    seed: str
    mutation: str
    kind: str
    statuses: dict[str, int] = field(default_factory=dict)
    cpu: float = 0.0
    memory: int = 0
    messages: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def peak(usage: resource.struct_rusage) -> int:
    return usage.ru_maxrss * 1024


def in_child(work: Callable[[], int], folder: Path, address_space: int | None) -> Run:
    """Run `work` in a forked process whose exit status it returns, in `folder`, within the limits."""
    streams = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115, closed below
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            _enter(streams, folder, address_space)
            status = work()
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            import traceback

            traceback.print_exc()
            sys.stderr.flush()
            status = 99
        os._exit(status)
    ended, usage = _wait(child, start)
    texts = []
    for stream in streams:
        stream.seek(0)
        texts.append(stream.read(1 << 20).decode(errors="replace"))
        stream.close()
    status = os.waitstatus_to_exitcode(ended)
    cpu = usage.ru_utime + usage.ru_stime
    return Run(max(status, 0), max(-status, 0), cpu, time.monotonic() - start, peak(usage), *texts)


def _enter(streams: Sequence[Any], folder: Path, address_space: int | None) -> None:
    os.dup2(streams[0].fileno(), 1)
    os.dup2(streams[1].fileno(), 2)
    os.chdir(folder)
    limit = int(CPU_LIMIT) + 3  # so that how much too long it took is seen
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if address_space is not None:
        resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))


def _wait(child: int, start: float) -> tuple[int, resource.struct_rusage]:
    pause = 0.001
    while True:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            return status, usage
        if time.monotonic() - start > WALL_LIMIT:
            os.kill(child, signal.SIGKILL)
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)


# -- one mutant ------------------------------------------------------------------------------------------------------


def snapshot(folder: Path) -> dict[str, str]:
    """Every file below `folder`, with a digest of its contents; links and pipes as what they are."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"link to {os.readlink(path)}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "folder" if path.is_dir() else "special"
    return found


class Fuzzer:
    def __init__(self, seeds: dict[str, Any], root: Path, seed: int, baseline: int, space: int) -> None:
        self.seeds, self.root, self.seed, self.baseline, self.space = seeds, root, seed, baseline, space

    def try_one(self, index: int, folder: Path) -> Result:
        chooser = random.Random(f"{self.seed}/{index}")
        kinds = sorted({model.kind for model in self.seeds.values()})
        kind = kinds[index % len(kinds)]
        name = chooser.choice([n for n, m in self.seeds.items() if m.kind == kind])
        model = self.seeds[name]
        source, target = folder / "in", folder / "out"
        source.mkdir(parents=True)
        target.mkdir()
        mutation = self._write(chooser, model, source, folder)
        result = Result(index, name, mutation, kind)
        before = snapshot(folder)
        file, out = f"in/m.{kind}", f"out/m.{kind}"
        options = ([], ["--no-certify"], ["--form", "collapse-free"], ["--report", "out/report.json"])[index // 2 % 4]
        run = self._command(result, "optimize", ["optimize", file, "-o", out, *options], folder)
        self._compare(result, before, snapshot(folder), out if run.status in (0, 1) else None)
        if run.status in (0, 1) and (folder / out).is_file():
            loaded = in_child(lambda: load(folder / file, folder / out), folder, None)
            if loaded.status or loaded.signal:
                result.failures.append(f"the output does not load: {last_line(loaded)}")
        before = snapshot(folder)
        self._command(result, "certify", ["certify", file, file], folder)
        self._compare(result, before, snapshot(folder), None)
        return result

    def _write(self, chooser: random.Random, model: Any, source: Path, folder: Path) -> str:
        """Make the mutant, in a process of its own: its memory is not that of the program. The name of the mutation."""

        def work() -> int:
            import fuzz_onnx
            import fuzz_pt2

            sys.setrecursionlimit(20_000)  # mutants nest deeper than what reads them likes
            mutation, mutant = (fuzz_onnx if model.kind == "onnx" else fuzz_pt2).mutate(chooser, model)
            (source / f"m.{model.kind}").write_bytes(mutant.data)
            for name, data in mutant.beside.items():
                (source / name).parent.mkdir(exist_ok=True)
                (source / name).write_bytes(data)
            for name, place in mutant.links.items():
                (source / name).symlink_to(place)
            print(mutation, end="")
            return 0

        run = in_child(work, folder, None)
        if run.status or run.signal:
            raise RuntimeError(f"no mutant was made: {run.err}")
        return run.out

    def _command(self, result: Result, command: str, arguments: list[str], folder: Path) -> Run:
        def work() -> int:
            from stabilize.cli import main

            return main(arguments)

        run = in_child(work, folder, self.space)
        result.statuses[command] = run.status if not run.signal else -run.signal
        result.cpu = max(result.cpu, run.cpu)
        result.memory = max(result.memory, run.memory - self.baseline)
        result.failures += [f"{command}: {failure}" for failure in self._judge(run)]
        if run.status == 2:
            result.messages.append(run.err.strip())
        return run

    def _judge(self, run: Run) -> Iterator[str]:
        if run.signal:
            yield f"{signal.Signals(run.signal).name} after {run.cpu:.1f} s of {run.wall:.1f} s: {last_line(run)}"
        elif run.status not in (0, 1, 2):
            yield f"status {run.status}: {last_line(run)}"
        if run.cpu > CPU_LIMIT or run.wall > WALL_LIMIT:
            yield f"{run.cpu:.1f} s of processor time, {run.wall:.1f} s in all"
        if run.memory - self.baseline > MEMORY_LIMIT:
            yield f"{(run.memory - self.baseline) >> 20} MiB"
        if "Traceback" in run.err:
            yield "a traceback"
        lines = run.err.count("\n")
        if not run.signal and run.status in (0, 1, 2) and lines != (1 if run.status == 2 else 0):
            yield f"{lines} lines on stderr with status {run.status}: {run.err[:300]!r}"

    @staticmethod
    def _compare(result: Result, before: dict[str, str], after: dict[str, str], output: str | None) -> None:
        """What happened to files: `output` may have appeared, with what belongs to it, beside it."""
        for name in before.keys() | after.keys():
            if before.get(name) == after.get(name) or (output and name.startswith("out/") and name not in before):
                continue
            result.failures.append(f"file {name}: {before.get(name)} → {after.get(name)}")
        if output is not None and output not in after:
            result.failures.append("no output")
        leftovers = [name for name in after if name.startswith("out/.") or name.endswith(".tmp")]
        if leftovers:
            result.failures.append(f"left behind: {leftovers}")


def last_line(run: Run) -> str:
    lines = [line for line in run.err.strip().splitlines() if "please report it" not in line]
    return lines[-1][:300] if lines else ""


def load(file: Path, out: Path) -> int:
    """What was written is a model, and as valid as what was read."""
    import stabilize

    model = stabilize.load(out)
    if out.suffix == ".onnx":
        import onnx

        try:
            onnx.checker.check_model(str(file))
        except Exception:
            return 0  # the checker is stricter than runtimes, so only what passes it is held to it
        onnx.checker.check_model(str(out))
        onnx.load(str(out))  # its external data is there
    else:
        assert model is not None
    return 0


# -- all of them -----------------------------------------------------------------------------------------------------


def warm_up(seeds: dict[str, Any], root: Path) -> None:
    """Import everything and fill the caches that every process has filled after its first model."""
    from stabilize.cli import main

    for name in ("attention", "scalars"):
        if name not in seeds:
            continue
        file = root / f"warm.{seeds[name].kind}"
        file.write_bytes(seeds[name].data)
        run = in_child(lambda file=file: _quietly(main, file), root, None)  # threads of the runtimes stay there
        assert run.status == 0, run.err
        _quietly(main, file, certify=seeds[name].kind == "pt2")
    gc.collect()
    gc.freeze()  # what is shared with every process stays shared


def _quietly(main: Callable[[list[str]], int], file: Path, certify: bool = True) -> int:
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()):
        status = main(["optimize", str(file), "-o", str(file.with_name(f"warmed{file.suffix}"))])
        return status or (main(["certify", str(file), str(file)]) if certify else 0)


def worker(fuzzer: Fuzzer, indices: Sequence[int], pipe: int) -> None:
    with os.fdopen(pipe, "w") as results:
        for index in indices:
            with tempfile.TemporaryDirectory(dir=fuzzer.root) as folder:
                result = fuzzer.try_one(index, Path(folder) / "case")
            results.write(json.dumps(asdict(result)) + "\n")
            results.flush()


def run_all(fuzzer: Fuzzer, indices: Sequence[int], workers: int) -> Iterator[Result]:
    """Results as they come."""
    import selectors

    selector = selectors.DefaultSelector()
    for number in range(workers):
        reader, writer = os.pipe()
        if os.fork() == 0:
            try:
                worker(fuzzer, indices[number::workers], writer)
            except BaseException:
                import traceback

                traceback.print_exc()
            os._exit(0)
        os.close(writer)
        selector.register(os.fdopen(reader), selectors.EVENT_READ)
    while selector.get_map():
        for key, _ in selector.select():
            line = key.fileobj.readline()  # type: ignore[union-attr]
            if line:
                yield Result(**json.loads(line))
            else:
                selector.unregister(key.fileobj)


def make_seeds(kinds: frozenset[str], root: Path) -> dict[str, Any]:
    """The valid models, made in a process of its own: exporting costs memory that is not counted here."""
    import pickle

    import fuzz_seeds

    file = root / "seeds.pickle"

    def work() -> int:
        file.write_bytes(pickle.dumps(fuzz_seeds.models(kinds)))
        return 0

    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os._exit(work())
    if os.waitpid(child, 0)[1]:
        raise SystemExit("the valid models could not be made")
    return pickle.loads(file.read_bytes())


def show(results: Sequence[Result], seconds: float) -> None:
    table: dict[tuple[str, str], Counter[str]] = {}
    for result in results:
        row = table.setdefault((result.kind, result.mutation), Counter())
        row["mutants"] += 1
        row[f"optimize {result.statuses.get('optimize')}"] += 1
        row["failures"] += bool(result.failures)
    columns = ["mutants", "optimize 0", "optimize 1", "optimize 2", "failures"]
    print(f"\n{'':32}" + "".join(f"{c:>12}" for c in columns))
    for (kind, mutation), row in sorted(table.items()):
        print(f"{kind:5} {mutation:26}" + "".join(f"{row[c]:12}" for c in columns))
    total = sum(table.values(), Counter())
    print(f"{'all':32}" + "".join(f"{total[c]:12}" for c in columns))
    certified = Counter(result.statuses.get("certify") for result in results)
    print("\ncertify: " + ", ".join(f"status {s}: {n}" for s, n in sorted(certified.items(), key=str)))
    slow = max(results, key=lambda r: r.cpu)
    big = max(results, key=lambda r: r.memory)
    print(f"longest {slow.cpu:.2f} s ({slow.mutation}, --only {slow.index}); ", end="")
    print(f"largest {big.memory >> 20} MiB above the baseline ({big.mutation}, --only {big.index})")
    print(f"{len(results)} mutants in {seconds:.0f} s, {sum(bool(r.failures) for r in results)} failures")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--start", type=int, default=0, help="the first mutant's number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=["onnx", "pt2"], action="append")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", type=int, help="one mutant, in full")
    parser.add_argument("--keep", type=Path, help="with --only: where to leave its files")
    parser.add_argument("--log", type=Path, help="one JSON line for each mutant")
    options = parser.parse_args()

    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    import torch

    baseline = peak(resource.getrusage(resource.RUSAGE_SELF))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        root = Path(name)
        seeds = make_seeds(frozenset(("onnx", "pt2")), root)
        if options.kind:
            seeds = {n: m for n, m in seeds.items() if m.kind in options.kind}
        warm_up(seeds, root)
        space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + _ADDRESS_SPACE
        fuzzer = Fuzzer(seeds, root, options.seed, baseline, space)
        if options.only is not None:
            folder = options.keep or root / "only"
            result = fuzzer.try_one(options.only, folder)
            print(json.dumps(asdict(result), indent=2, ensure_ascii=False))
            return bool(result.failures)
        start = time.monotonic()
        results: list[Result] = []
        log = options.log.open("w") if options.log else None
        for result in run_all(fuzzer, range(options.start, options.start + options.count), options.workers):
            results.append(result)
            if log:
                log.write(json.dumps(asdict(result)) + "\n")
                log.flush()
            for failure in result.failures:
                print(f"--only {result.index} ({result.seed}, {result.mutation}): {failure}", flush=True)
        show(results, time.monotonic() - start)
        if len(results) < options.count:
            print(f"{options.count - len(results)} mutants were lost")
            return 1
    return int(any(r.failures for r in results))


if __name__ == "__main__":
    sys.exit(main())

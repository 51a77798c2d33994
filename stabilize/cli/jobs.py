"""What `stabilize optimize MODEL... -o OUT` reads and writes: one file to another, several files or folders to a
folder, or each file over itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast, final

from stabilize.cli.arguments import Subject, check_output, suffix_of
from stabilize.errors import ModelError, UsageError
from stabilize.files import Staged

if TYPE_CHECKING:
    import onnx
    from torch.export import ExportedProgram


@final
@dataclass(frozen=True, slots=True)
class Job:
    """model: as `read_model` takes it; target: where what becomes of it goes; output: that as the user sees it."""

    model: str
    target: Path
    output: str


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """folders: (from, to), whose files that are no models are copied."""

    jobs: list[Job] = field(default_factory=list["Job"])
    folders: list[tuple[Path, Path]] = field(default_factory=list["tuple[Path, Path]"])


def plan(models: tuple[str, ...], output: str | None, in_place: bool) -> Plan:
    """Who goes where; UsageError or ModelError before any work is done."""
    if (output is not None) == in_place:
        raise UsageError("give one of --output (-o) and --in-place")
    if output is None:
        files = [path for model in models for path in _files(model)]
        for path in files:
            check_output(path)
        return Plan([Job(path, Path(path), path) for path in files])
    if len(models) == 1 and not _is_folder(models[0]):
        return Plan([Job(models[0], check_output(output, suffix_of(models[0]) or ".pt2"), output)])
    return _into(_writable(output), models)


def _is_folder(model: str) -> bool:
    return bool(model) and Path(model).is_dir()  # Path("") is the working directory


def _files(model: str) -> Iterator[str]:
    """The files that MODEL stands for."""
    from stabilize.onnx.folder import models_in

    if _is_folder(model):
        yield from map(str, models_in(Path(model)))
    elif suffix_of(model) is None:
        raise UsageError(f"{model}: is no file: say with --output where its .pt2 file goes")
    elif not Path(model).exists():
        raise ModelError(f"{model}: no such file")
    else:
        yield model


def _into(output: Path, models: tuple[str, ...]) -> Plan:
    """A folder by itself becomes `output`; of several arguments each goes into it under its name."""
    result, taken = Plan(), set[Path]()
    for model in models:
        source = Path(model)
        below = output / source.resolve().name if len(models) > 1 else output
        if _is_folder(model):
            result.folders.append((source, below))
        for path in map(Path, _files(model)):
            target = below / path.relative_to(source) if _is_folder(model) else output / path.name
            if target in taken:
                raise UsageError(f"{target}: two of the models would be written there")
            taken.add(target)
            result.jobs.append(Job(str(path), target, str(target)))
    return result


def _writable(output: str) -> Path:
    """A folder that is there, or can be made."""
    path = Path(output)
    there = next(p for p in (path, *path.absolute().parents) if os.path.lexists(p))
    if not there.is_dir():
        raise UsageError(f"{output}: is no directory: several models are written to one")
    if not os.access(there, os.W_OK):
        raise UsageError(f"{output}: cannot write in {there}")
    return path


def stage(job: Job, subject: Subject, rewritten: object | None, staged: Staged) -> None:
    """Write what became of a model, up to the renaming. rewritten: None when nothing was: a file keeps its bytes."""
    from stabilize.frontends import onnx_write
    from stabilize.frontends.file_copy import copy_data

    staged.folder(job.target.parent)
    file = None if suffix_of(job.model) is None else Path(job.model)
    if isinstance(subject.model, Path):
        if rewritten is None:
            onnx_write.stage_file(subject.model, job.target, staged)
        else:
            onnx_write.stage(cast("onnx.ModelProto", rewritten), job.target, subject.model, staged)
    elif rewritten is None and file is not None:
        if not (job.target.exists() and job.target.samefile(file)):
            staged.add(job.target, partial(copy_data, file))
    else:
        from stabilize.frontends.pt2 import write

        program = cast("ExportedProgram", rewritten or subject.model)

        def fill(temporary: Path) -> None:
            with temporary.open("wb") as opened:
                write(program, opened)

        staged.add(job.target, fill)

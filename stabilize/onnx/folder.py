"""Folders of exported models, as optimum and other exporters leave them: model.onnx, its data, config.json, …"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Unpack, cast

from stabilize.api import optimize
from stabilize.errors import ModelError, UsageError
from stabilize.files import Staged
from stabilize.onnx.keywords import Keywords, check
from stabilize.report import Report

if TYPE_CHECKING:
    import onnx


def optimize_folder(
    folder: str | os.PathLike[str], output: str | os.PathLike[str] | None = None, **keywords: Unpack[Keywords]
) -> dict[str, Report]:
    """Rewrite every `.onnx` file in a folder and below it: the post-processing of an export.

    output: the folder to write to, made if need be, with all that is not rewritten beside it: external data,
        configurations, tokenizers. By default the models are rewritten where they stand.
    keywords: `form`, `allow`, `ranges`, `select`, `ignore`, `certify`, as for `stabilize.optimize`.

    Returns what was found in each model, by its path from the folder. All files are written or none is, and a model
    that needs nothing keeps its bytes; external data is never loaded, and never changed.

    Raises UsageError for wrong arguments, ModelError for a folder without models, a model that cannot be read, or a
    file that would have to be overwritten by one with other contents.
    """
    from stabilize.frontends.onnx_write import commit, stage, stage_file

    check(keywords)
    root, reports = Path(folder), dict[str, Report]()
    target = root if output is None else Path(output)
    models = models_in(root)
    with Staged() as staged:
        stage_others(root, target, staged)
        for path in models:
            name = path.relative_to(root)
            fixed, report = optimize(path, return_report=True, **keywords)
            reports[name.as_posix()] = report
            if report.rewrites:
                stage(cast("onnx.ModelProto", fixed), target / name, path, staged)
            else:
                stage_file(path, target / name, staged)
        commit(staged, target)
    return reports


def models_in(folder: Path) -> list[Path]:
    """The ONNX files in a folder and below it, in order. ModelError when there is none."""
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() == ".onnx" and p.is_file())
    if not found:
        raise ModelError(f"{folder}: is a directory without a .onnx file in it or below")
    return found


def stage_others(folder: Path, output: Path, staged: Staged) -> None:
    """Let `output` have the folders of `folder`, and copies of all files in them that are no models."""
    from stabilize.frontends.onnx_write import stage_copies

    if output == folder:
        return
    if output.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"{output}: is {folder} or inside it: name another folder, or rewrite in place")
    below = sorted(folder.rglob("*"))
    for path in (folder, *(p for p in below if p.is_dir())):
        staged.folder(output / path.relative_to(folder))
    others = [p for p in below if p.is_file() and p.suffix.lower() != ".onnx"]
    stage_copies([p.relative_to(folder).as_posix() for p in others], folder, output, staged)

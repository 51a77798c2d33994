"""Witnesses as files: inputs that `stabilize certify` and any runtime can replay."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from torch import fx

from stabilize.errors import UsageError
from stabilize.files import write_file
from stabilize.frontends import pt2
from stabilize.linter.witness import Witness
from stabilize.records import Finding


def make(folder: Path) -> None:
    """Make the folder of witnesses, before they are looked for; UsageError when nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: witnesses cannot be written there: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{folder}: witnesses cannot be written there: Permission denied")


def save(findings: Sequence[Finding], folder: Path) -> list[Finding]:
    """Write each witness to `folder` as `NUMBER-CODE-NODE.npz`, arrays by input name; what computes
    an expression from its witness, as a model beside it: `.onnx`, or `.pt2`. Returns findings that name the files.

    NumPy has no bfloat16: such tensors are saved as float32, which holds the same numbers.
    """
    return [_saved(finding, folder, number) for number, finding in enumerate(findings, start=1)]


def _saved(finding: Finding, folder: Path, number: int) -> Finding:
    witness = finding.witness
    if not isinstance(witness, Witness):
        return finding
    stem = f"{number:02d}-{finding.code}-{re.sub('[^A-Za-z0-9_.-]+', '_', finding.node)[:80]}"
    path = folder / f"{stem}.npz"
    arrays = {name: _array(tensor) for name, tensor in witness.items()}
    write_file(path, lambda file: _write(arrays, file))
    if witness.piece is not None:
        _save_piece(witness, folder / stem)
    return replace(finding, witness=replace(witness, file=str(path)))


def _write(arrays: Mapping[str, Any], file: IO[bytes]) -> None:
    """As `np.savez` does, which takes no array called `file`."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                cast(Any, np.lib.format).write_array(entry, array, allow_pickle=False)


def _array(tensor: torch.Tensor) -> Any:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()


def _save_piece(witness: Witness, stem: Path) -> None:
    assert witness.piece is not None
    model = witness.piece.model
    if not isinstance(model, fx.GraphModule):
        write_file(stem.with_suffix(".onnx"), lambda file: file.write(model.SerializeToString()))
        return
    # by name, so that the arrays beside it are found by name
    tensors = {name: witness[name] for name in witness.piece.inputs}
    program = torch.export.export(model, (), tensors)
    write_file(stem.with_suffix(".pt2"), lambda file: pt2.write(program, file))

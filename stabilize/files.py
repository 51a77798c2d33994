"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, final


def write_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write `path` whole or not at all: under a temporary name beside it, then renamed over it."""

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as file:
            write(file)

    with Staged() as staged:
        staged.add(path, fill)
        staged.commit()


@final
class Staged:
    """Files that appear together: each is written under a temporary name beside its place, `commit` renames them all.

    Leaving the `with` block without `commit` leaves every file, and the folders, as they were.
    """

    def __init__(self) -> None:
        self._files: dict[Path, Path] = {}
        self._folders: list[Path] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for temporary in self._files.values():
            temporary.unlink(missing_ok=True)
        for folder in reversed(self._folders):
            if not any(folder.iterdir()):
                folder.rmdir()

    def __contains__(self, target: Path) -> bool:
        return target in self._files

    def add(self, target: Path, fill: Callable[[Path], object]) -> None:
        """Let `fill` write what `target` shall be, in a folder that exists. OSError that names `target`."""
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            if target.exists() and not os.access(target, os.W_OK):  # renaming would not ask
                raise PermissionError(errno.EACCES, "is read-only")
            temporary.open("xb").close()
            self._files[target] = temporary
            fill(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), str(target)) from error

    def commit(self) -> None:
        """Put every file into its place. OSError that names the one for which that failed."""
        for target, temporary in tuple(self._files.items()):
            try:
                temporary.replace(target)
            except OSError as error:
                raise OSError(error.errno, error.strerror or str(error), str(target)) from error
            del self._files[target]
        self._folders.clear()

    def folder(self, folder: Path) -> None:
        """Make `folder` where there is none."""
        missing = [f for f in (folder, *folder.parents) if not f.exists()]
        for each in reversed(missing):
            each.mkdir()
            self._folders.append(each)

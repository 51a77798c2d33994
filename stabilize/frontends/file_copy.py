"""Copy large files: in the kernel, holes stay holes, blocks are shared where the file system can.

A copy, never a link: a hard link would make two models share one file of weights, and who saves one of them again
would change the other.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

#: What a kernel or a file system answers that cannot do it.
_UNSUPPORTED = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.ETXTBSY, errno.ENXIO)

#: Bytes asked of one system call.
_STEP = 1 << 30


def copy_data(source: Path, target: Path) -> None:
    """Make the contents of `target` those of `source`, without reading them into memory. OSError as for any copy."""
    if hasattr(os, "copy_file_range") and hasattr(os, "SEEK_DATA"):
        try:
            _copy_extents(source, target)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        else:
            return
    shutil.copyfile(source, target)


def _copy_extents(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("wb") as write:
        size = os.fstat(read.fileno()).st_size
        for start, stop in _extents(read.fileno(), size):
            while start < stop:
                count = os.copy_file_range(read.fileno(), write.fileno(), min(stop - start, _STEP), start, start)
                if count == 0:
                    raise OSError(errno.EIO, "the file became shorter while it was copied", str(source))
                start += count
        os.ftruncate(write.fileno(), size)


def _extents(handle: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file has data: (begin, end) of each stretch."""
    position = 0
    while position < size:
        try:
            start = os.lseek(handle, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # nothing but a hole up to the end
            raise
        position = os.lseek(handle, start, os.SEEK_HOLE)
        yield start, position

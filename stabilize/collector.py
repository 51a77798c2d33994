"""The garbage collector of Python, while graphs are built and dropped by the thousand."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

#: Objects made between two collections, in place of 700.
_NEW_OBJECTS: Final = 20_000


@contextmanager
def only_new_objects() -> Generator[None]:
    """While it lasts, collections look at what is made meanwhile only, and come rarely.

    A process that has imported torch holds some hundred thousand objects; to go through them again for every few
    thousand nodes made took half of the time of a rewrite. Nearly all that is made stays until the end: to go through
    that took a third of the rest. Where somebody has frozen objects already, or turned the collector off, nothing is
    done.
    """
    thresholds = gc.get_threshold()
    if gc.get_freeze_count() or not thresholds[0]:
        yield
        return
    gc.freeze()
    gc.set_threshold(max(thresholds[0], _NEW_OBJECTS), *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()

"""The garbage collector of Python, while graphs are built and dropped by the thousand."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def only_new_objects() -> Generator[None]:
    """While it lasts, collections look at what is made meanwhile only.

    A process that has imported torch holds some hundred thousand objects; to go through them again for every few
    thousand nodes made took half of the time of a rewrite. Where somebody has frozen objects already, nothing is done.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()

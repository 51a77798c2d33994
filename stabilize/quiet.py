"""Without what torch and the runtimes log: what matters of it is in the errors that are raised."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def unlogged() -> Generator[None]:
    """Nothing is logged, by any library."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)

"""Which lines of the user's code a captured node remembers.

torch.export keeps the frames of functions called `forward` alone: what a helper computes would be told of the line that
calls it.
"""

from __future__ import annotations

import traceback
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

from torch.fx.proxy import TracerBase

from stabilize.frontends.fx_types import is_of_torch


@contextmanager
def helpers_traced() -> Generator[None]:
    """Nodes captured inside keep the frames of functions that a `forward` calls as well."""
    tracer = cast(Any, TracerBase)
    before = getattr(tracer, "_filter_traceback_frames", None)  # meant to be overridden, but not public
    if before is None:
        yield
        return

    def kept(self: TracerBase, summary: traceback.StackSummary) -> traceback.StackSummary:
        frames = list(before(self, summary))
        if not frames:
            return traceback.StackSummary.from_list(frames)
        last = max(i for i, frame in enumerate(summary) if frame is frames[-1])
        inner = [frame for frame in summary[last + 1 :] if not is_of_torch(frame.filename)]
        return traceback.StackSummary.from_list([*frames, *inner])

    tracer._filter_traceback_frames = kept
    try:
        yield
    finally:
        tracer._filter_traceback_frames = before

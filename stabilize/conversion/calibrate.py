"""What the values of a model are on some inputs: magnitudes, sizes, whether they are whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from stabilize.conversion.graph import Graph
from stabilize.conversion.running import Array, Session, opened
from stabilize.conversion.samples import Sample
from stabilize.errors import ModelError


@final
@dataclass(slots=True)
class Seen:
    """One float32 value over all runs; infinities and NaN are left out.

    most, least: the largest magnitude and the smallest that is not 0, on the given inputs. reached: the largest on all
    inputs. count: elements. whole: every number is an integer.
    """

    most: float = 0.0
    least: float = np.inf
    reached: float = 0.0
    count: int = 0
    whole: bool = True

    def note(self, array: Array, *, given: bool) -> None:
        self.count = max(self.count, array.size)
        sizes = np.abs(array[np.isfinite(array)])
        if not sizes.size:
            return
        largest = float(sizes.max())
        self.reached = max(self.reached, largest)
        self.whole = self.whole and bool((sizes == np.floor(sizes)).all())
        if given:
            self.most = max(self.most, largest)
            small = sizes[sizes > 0]
            self.least = min(self.least, float(small.min())) if small.size else self.least


UNSEEN: Final = Seen()


def calibrated(graph: Graph, name: str, samples: Sequence[Sample]) -> dict[str, Seen]:
    """What the float32 values of the main graph are on `samples`; a sample that only a multiple of the given inputs
    makes and that the model fails on is left out. ModelError when it fails on those that were given."""
    computed = [o for o in graph.producer if graph.is_float(o)]
    session = Session(opened(graph.proto, computed), name, graph.folder, exact=True)
    found: dict[str, Seen] = {n: Seen() for n in (*computed, *(i for i in graph.inputs if graph.is_float(i)))}
    for sample in samples:
        feeds = sample.feeds
        for each in graph.inputs:
            if each in found:
                found[each].note(feeds[each], given=sample.given)
        try:
            for each, array in session.values(feeds, computed):
                found[each].note(array, given=sample.given)
        except ModelError:
            if sample.given:
                raise
    return found

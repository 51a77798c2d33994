"""What the values of a model are on some inputs: magnitudes, sizes, whether they are whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from stabilize.conversion.graph import Graph
from stabilize.conversion.running import Array
from stabilize.conversion.samples import Sample
from stabilize.errors import ModelError
from stabilize.frontends.onnx_stepwise import Kernels, Stepwise


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


def calibrated(graph: Graph, name: str, samples: Sequence[Sample], kernels: Kernels) -> dict[str, Seen]:
    """What the float32 values of the main graph are on `samples`; a sample that only this program made and that the
    model fails on is left out. ModelError when it fails on those that were given."""
    found = {n: Seen() for n in (*graph.settable, *(o for o in graph.producer if graph.is_float(o)))}
    given = False

    def look(value: str, array: Array) -> Array:
        if value in found:
            found[value].note(array, given=given)
        return array

    model = Stepwise(graph.proto, name, graph.folder, settle=look, kernels=kernels)
    for sample in samples:
        given = sample.given
        try:
            model.run([], sample.feeds)
        except ModelError:
            if sample.given:
                raise
    return found

"""What searches may cost: each its own few steps, some many, all together no more than the graph is long."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import final


@final
class Steps:
    """Steps of a search that is made for one value of a graph after the other, or for one inside another.

    own: steps of every search. spare: further ones, that the searches which need more share.
    most: of those, how many one search may take.
    """

    def __init__(self, own: int, spare: int, most: int) -> None:
        self._own, self._spare, self._most = own, spare, most
        self._left = most  # of what is done outside every search

    @contextmanager
    def search(self) -> Generator[None]:
        """A new search; what it leaves goes to later ones."""
        outer, lent = self._left, min(self._spare, self._most)
        self._spare -= lent
        self._left = lent + self._own
        try:
            yield
        finally:
            self._spare += max(self._left, 0)
            self._left = outer

    def take(self) -> None:
        """One step of the search."""
        self._left -= 1

    @property
    def spent(self) -> bool:
        """Whether the search has to come to an end."""
        return self._left <= 0

"""What searches may cost: each its own few steps, some many, all together no more than the graph is long."""

from __future__ import annotations

from typing import final


@final
class Steps:
    """Steps of a search that is made for one value of a graph after the other, or for one inside another: a `with`
    block is one search, and what it leaves goes to later ones.

    own: steps of every search. spare: further ones, that the searches which need more share.
    most: of those, how many one search may take.
    """

    def __init__(self, own: int, spare: int, most: int) -> None:
        self._own, self._spare, self._most = own, spare, most
        self._left = most  # of what is done outside every search
        self._outer: list[int] = []

    def __enter__(self) -> None:
        self._outer.append(self._left)
        lent = min(self._spare, self._most)
        self._spare -= lent
        self._left = lent + self._own

    def __exit__(self, *_: object) -> None:
        self._spare += max(self._left, 0)
        self._left = self._outer.pop()

    def take(self) -> None:
        """One step of the search."""
        self._left -= 1

    @property
    def spent(self) -> bool:
        """Whether the search has to come to an end."""
        return self._left <= 0

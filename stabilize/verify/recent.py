"""The results of questions that are asked again: the layers of a network pose the same small problem many times."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar, final

_Key = TypeVar("_Key", bound=Hashable)
_Result = TypeVar("_Result")

_MOST: Final = 512


@final
class Recent(Generic[_Key, _Result]):
    """Results by the question, which says all there is to say about them; the oldest go first."""

    def __init__(self) -> None:
        self._results: OrderedDict[_Key, _Result] = OrderedDict()

    def get(self, key: _Key | None, answer: Callable[[], _Result]) -> _Result:
        """What `answer()` returns, or returned when `key` was last asked for; a question without key is new."""
        if key is None:
            return answer()
        if key not in self._results:
            self._results[key] = answer()
            if len(self._results) > _MOST:
                self._results.popitem(last=False)
        return self._results[key]

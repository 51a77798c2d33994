"""Errors that a user of `stabilize` can meet. Each message names what failed, where, and the cure."""

from __future__ import annotations

from typing import final


class StabilizeError(Exception):
    """Base of every error that this package raises on purpose."""


@final
class MissingExtraError(StabilizeError):
    """An optional dependency is needed and not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs '{package}': install it with  pip install 'stabilize[{extra}]'")
        self.package = package
        self.extra = extra


@final
class ModelError(StabilizeError):
    """The model, its file or its example inputs cannot be used as they are."""


class UsageError(StabilizeError):
    """An argument of the API or of the command line is wrong."""


@final
class ShapeError(StabilizeError):
    """A primitive of the semantic view was given operands that it does not accept."""


@final
class TextError(StabilizeError):
    """The text form of a semantic view could not be parsed."""

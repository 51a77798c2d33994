"""The zoo: small random models of public packages, one file a family. Listing them needs none of the packages."""

from __future__ import annotations

from zoo_models import decoders, encoders, flows, graphs, metric, recommenders
from zoo_models.entry import Entry

MODELS: tuple[Entry, ...] = (
    *encoders.MODELS,
    *decoders.MODELS,
    *flows.MODELS,
    *graphs.MODELS,
    *metric.MODELS,
    *recommenders.MODELS,
)


def by_name(name: str) -> Entry:
    """The entry of that name; KeyError when there is none."""
    return {entry.name: entry for entry in MODELS}[name]

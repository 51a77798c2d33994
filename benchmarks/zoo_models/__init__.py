"""The zoo: small random models of public packages, one file a family. Listing them needs none of the packages."""

from __future__ import annotations

from zoo_models import (
    attention,
    decoders,
    diffusion,
    encoders,
    flows,
    graphs,
    images,
    metric,
    recommenders,
    sequences,
    structured,
    vision,
)
from zoo_models.entry import Entry

_FAMILIES = (
    encoders, decoders, sequences, vision, diffusion,
    attention, flows, graphs, images, metric, recommenders, structured,
)  # fmt: skip

MODELS: tuple[Entry, ...] = tuple(entry for family in _FAMILIES for entry in family.MODELS)


def by_name(name: str) -> Entry:
    """The entry of that name; KeyError when there is none."""
    return {entry.name: entry for entry in MODELS}[name]

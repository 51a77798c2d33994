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

_FAMILIES: dict[str, tuple[Entry, ...]] = {
    "encoders": encoders.MODELS,
    "decoders": decoders.DENSE,
    "mixtures of experts": decoders.EXPERTS,
    "state spaces and recurrences": decoders.RECURRENT,
    "encoder-decoders": sequences.TEXT,
    "audio": sequences.AUDIO,
    "vision": vision.MODELS,
    "diffusion": diffusion.MODELS,
    "attention of other packages": attention.MODELS,
    "flows": flows.MODELS,
    "graph networks": graphs.MODELS,
    "images: losses and networks": images.MODELS,
    "metric and self-supervised learning": metric.MODELS,
    "recommenders": recommenders.MODELS,
    "structured prediction, geometry, probability": structured.MODELS,
}

MODELS: tuple[Entry, ...] = tuple(entry for family in _FAMILIES.values() for entry in family)
FAMILY: dict[str, str] = {entry.name: family for family, entries in _FAMILIES.items() for entry in entries}


def by_name(name: str) -> Entry:
    """The entry of that name; KeyError when there is none."""
    return {entry.name: entry for entry in MODELS}[name]

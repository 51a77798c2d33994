"""The panel: every naive spelling, in one tuple."""

from __future__ import annotations

from tests.panel import (
    spellings_binary,
    spellings_geometry,
    spellings_log,
    spellings_losses,
    spellings_models,
    spellings_norms,
    spellings_scalar,
    spellings_softmax,
    spellings_variants,
)
from tests.panel.entry import Spelling

SPELLINGS: tuple[Spelling, ...] = tuple(
    entry
    for module in (
        spellings_softmax,
        spellings_variants,
        spellings_log,
        spellings_losses,
        spellings_binary,
        spellings_scalar,
        spellings_models,
        spellings_norms,
        spellings_geometry,
    )
    for entry in module.PANEL.entries
)

BY_NAME: dict[str, Spelling] = {entry.name: entry for entry in SPELLINGS}

"""Importing this puts the repository's root on the import path: the benchmarks use the panel of `tests/panel`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

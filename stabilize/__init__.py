"""Rewrites PyTorch and ONNX graphs for numerical stability, and proves every rewrite.

    import stabilize

    fixed = stabilize.optimize(model, example_inputs)
    fixed, report = stabilize.optimize(model, example_inputs, return_report=True)
    certificate = stabilize.certify(model, fixed, example_inputs)

Importing this package loads nothing else: each name below is imported on first use (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stabilize.api import certify, lint, load, optimize
    from stabilize.conversion.report import ConversionReport
    from stabilize.conversion.step import convert
    from stabilize.errors import MissingExtraError, ModelError, StabilizeError, UsageError
    from stabilize.export.step import export_onnx
    from stabilize.records import Declined, Finding, Rewrite
    from stabilize.report import Report

__version__ = "0.1.0"

__all__ = [
    "ConversionReport",
    "Declined",
    "Finding",
    "MissingExtraError",
    "ModelError",
    "Report",
    "Rewrite",
    "StabilizeError",
    "UsageError",
    "certify",
    "convert",
    "export_onnx",
    "lint",
    "load",
    "optimize",
]

#: Public name → the module that defines it.
_HOMES = {
    "certify": "stabilize.api",
    "convert": "stabilize.conversion.step",
    "export_onnx": "stabilize.export.step",
    "lint": "stabilize.api",
    "load": "stabilize.api",
    "optimize": "stabilize.api",
    "ConversionReport": "stabilize.conversion.report",
    "Declined": "stabilize.records",
    "Finding": "stabilize.records",
    "Report": "stabilize.report",
    "Rewrite": "stabilize.records",
    "MissingExtraError": "stabilize.errors",
    "ModelError": "stabilize.errors",
    "StabilizeError": "stabilize.errors",
    "UsageError": "stabilize.errors",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'stabilize' has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

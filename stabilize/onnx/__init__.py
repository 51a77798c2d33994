"""Steps for ONNX pipelines: a pass of onnx_ir, a rule set of onnxscript, and folders of exported files.

    import onnx_ir as ir
    from stabilize.onnx import StabilizePass

    ir.passes.Sequential(..., StabilizePass(), ...)(model)

    from onnxscript.rewriter import rewrite
    from stabilize.onnx import rewrite_rules

    model = rewrite(model, pattern_rewrite_rules=rewrite_rules())

    from stabilize.onnx import optimize_folder

    reports = optimize_folder("exported/")      # model.onnx, encoder_model.onnx, …, where they stand

Importing this module loads nothing else: each name is imported on first use (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stabilize.onnx.folder import optimize_folder
    from stabilize.onnx.graph_pass import StabilizePass
    from stabilize.onnx.rules import rewrite_rules

__all__ = ["StabilizePass", "optimize_folder", "rewrite_rules"]

#: Public name → the module that defines it.
_HOMES = {
    "StabilizePass": "stabilize.onnx.graph_pass",
    "optimize_folder": "stabilize.onnx.folder",
    "rewrite_rules": "stabilize.onnx.rules",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'stabilize.onnx' has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

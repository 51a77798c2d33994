"""Defective models of the bug families that studies of numerical defects in deep learning published, in our own code.

One file a theme. `DEFECTS`: PyTorch modules, most of them in ONNX as well. `handwritten`: ONNX as older exporters and
quantizers leave it.
"""

from __future__ import annotations

from lint_cases import binary, classifiers, divisions, generative, halves
from lint_cases.entry import Defect

DEFECTS: tuple[Defect, ...] = tuple(
    defect
    for file in (classifiers, binary, generative, divisions, halves)
    for defect in file.register.defects
)

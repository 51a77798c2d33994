"""Defective models of the bug families that studies of numerical defects in deep learning published, in our own code.

One file a theme. `DEFECTS`: PyTorch modules, most of them in ONNX as well. `WRITTEN`: ONNX as older exporters,
converters to float16 and quantizers leave it.
"""

from __future__ import annotations

from lint_cases import binary, classifiers, deployed, divisions, generative, halves, handwritten
from lint_cases.entry import Defect
from lint_cases.written import Written

DEFECTS: tuple[Defect, ...] = tuple(
    defect for file in (classifiers, binary, generative, divisions, halves) for defect in file.register.defects
)

WRITTEN: tuple[Written, ...] = (*handwritten.write.graphs, *deployed.write.graphs)

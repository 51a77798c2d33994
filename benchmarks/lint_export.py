"""Write the modules of the lint's corpus as ONNX graphs: `python benchmarks/lint_export.py [NAME ...]`.

The graphs lie in `benchmarks/lint_graphs`, one file a module, as `torch.onnx.export(dynamo=True,
optimize=False)` writes them, with the stack traces of their nodes and without its other notes. Only modules that
changed are written again.
"""

from __future__ import annotations

import logging
import re
import sys
import warnings
from functools import cache
from pathlib import Path

import onnx
import panel_path
import torch
from lint_cases import DEFECTS
from lint_cases.entry import Defect

GRAPHS = Path(__file__).resolve().parent / "lint_graphs"
_TRACE = "pkg.torch.onnx.stack_trace"
_FILE = re.compile(r'File "([^"]+)"')


def path_of(defect: Defect) -> Path:
    return GRAPHS / f"{defect.name}.onnx"


@cache
def graph_of(defect: Defect) -> onnx.ModelProto:
    """The committed graph."""
    return onnx.load(path_of(defect))


def noted(model: onnx.ModelProto, key: str) -> str:
    """What `written` noted in a graph: "stamp" of the class, and the "line" that it started at."""
    return next((p.value for p in model.metadata_props if p.key == key), "")


def is_current(defect: Defect) -> bool:
    """Whether the committed graph is that of the module as it is now."""
    return path_of(defect).exists() and noted(graph_of(defect), "stamp") == defect.stamp


def written(defect: Defect) -> onnx.ModelProto:
    """The module exported; paths in it begin at the top of the repository."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            defect.module(), defect.inputs(), dynamo=True, optimize=False, opset_version=18, verbose=False
        )
    assert program is not None
    model = program.model_proto
    for holder in (model, model.graph, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del holder.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    for node in model.graph.node:
        trace = next((p.value for p in node.metadata_props if p.key == _TRACE), None)
        del node.metadata_props[:]
        if trace is not None:
            node.metadata_props.add(key=_TRACE, value=_FILE.sub(_from_the_top, trace))
    model.metadata_props.add(key="stamp", value=defect.stamp)
    model.metadata_props.add(key="line", value=str(defect.source[1]))
    return model


def _from_the_top(found: re.Match[str]) -> str:
    path = Path(found[1])
    inside = path.is_relative_to(panel_path.ROOT)
    return f'File "{path.relative_to(panel_path.ROOT) if inside else path.name}"'


def main() -> int:
    GRAPHS.mkdir(exist_ok=True)
    kept = {path_of(d) for d in DEFECTS if d.exported}
    for path in set(GRAPHS.glob("*.onnx")) - kept:
        path.unlink()
    chosen = [d for d in DEFECTS if d.exported and (d.name in sys.argv[1:] if sys.argv[1:] else not is_current(d))]
    for defect in chosen:
        onnx.save(written(defect), path_of(defect))
        print(f"{defect.name}: {path_of(defect).stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Rewrites as text: an original and a replacement over one set of inputs, both in one graph."""

from __future__ import annotations

from stabilize.graph.text import parse
from stabilize.graph.value import Value

INPUTS = (
    "x: FLOAT[4, 5], z: FLOAT[4, 5], s: FLOAT[5, 5], m: bool[4, 5], y: int64[4], w: FLOAT[5], h: FLOAT[4, 1], "
    "q: FLOAT[2, 3, 4], k: FLOAT[2, 5, 4], v: FLOAT[2, 5, 6]"
)


def rewrite(before: str, after: str, dtype: str = "float32", inputs: str = INPUTS) -> tuple[Value, Value]:
    """(old, new): the last line of each text is the expression; the lines before it are shared definitions."""
    lines = [line.strip() for part in (before, after) for line in part.strip().splitlines()]
    ends = [part.strip().splitlines()[-1].strip() for part in (before, after)]
    body = "\n    ".join([line for line in lines if line not in ends] + [f"return {ends[0]}, {ends[1]}"])
    view = parse(f"def graph({inputs}):\n    {body}".replace("FLOAT", dtype))
    old, new = view.outputs
    return old, new

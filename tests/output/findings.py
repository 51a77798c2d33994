"""Findings to show."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from stabilize.records import Finding

SOFTMAX = Finding(
    code="STB101", name="naive-softmax", severity="error", message="exp(x) overflows: 100% of it, always",
    node="div_1", module="blocks.0.attention", file="head.py", line=4, naive="exp(x) / sum(exp(x), 1)",
    stable="softmax(x, 1)", condition="x > 88.72 in float32", safety="exact", fixable=True,
)  # fmt: skip
RATIO = Finding(
    code="STB431", name="zero-over-zero", severity="warning", message="NaN where every term of the divisor is 0",
    node="Div_3", naive="relu(x) / sum(relu(x), 1)", safety="approximate",
)  # fmt: skip
ROUNDS = Finding(
    code="STB218", name="complement-of-sigmoid", severity="info", message="1 − σ(x) cancels", node="sub",
    naive="1 − sigmoid(x)", stable="sigmoid(−x)", safety="exact", fixable=True,
)  # fmt: skip

SOURCE = """import torch

def forward(x):
\treturn torch.exp(x) / torch.exp(x).sum(1)  # as in the book
"""


class Witness(dict[str, torch.Tensor]):
    """As the search for witnesses makes them."""

    scope = "expression"
    outcome = "div_1 gives nan where 0.5 is right"
    file = "witnesses/STB101-div_1.npz"


def with_witness() -> Finding:
    return dataclasses.replace(SOFTMAX, witness=Witness(x=torch.tensor([[89.0, 89.0]]), n=torch.tensor(3)))


def write_source(folder: Path) -> None:
    (folder / "head.py").write_text(SOURCE)
